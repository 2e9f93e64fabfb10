// Owns the file's last good content and noticing its changes (fs.watch, and a re-stat every few seconds where notices get lost).
// Called by adapter.ts; runs only while somebody listens. Must never hand out half-read content.
import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { DEBOUNCE_MS, MAX_BYTES, RECHECK_MS } from './config.ts';
import { type FileRecord, parseServicesFile } from './native.ts';

export interface Content {
  /** Hash of the bytes: equal content has an equal revision, on every machine. */
  readonly revision: string;
  readonly services: ReadonlyMap<ServiceId, { readonly key: ServiceKey; readonly records: readonly FileRecord[] }>;
}

/** Told of every new content, or of the first failure after a good one. */
export interface ContentListener {
  content(content: Content): void;
  failed(error: SourceError): void;
}

/** Reads and decodes the file once. Throws SourceError: lost (unreadable), malformed (with file:line:column), limit. */
export async function loadFile(path: string): Promise<Content> {
  const bytes = await readBytes(path);
  let source: string;
  try {
    source = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new SourceError('malformed', `${path}: not valid UTF-8`);
  }
  const parsed = parseServicesFile(source);
  if (!parsed.ok) throw new SourceError('malformed', parsed.faults.map((fault) => `${path}:${fault}`).join('\n'));
  const revision = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
  return { revision, services: new Map(parsed.services.map((service) => [serviceId(service.key), service])) };
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > MAX_BYTES) throw new SourceError('limit', `${path} has ${size} bytes, at most ${MAX_BYTES} are read`);
    return await readFile(path);
  } catch (thrown) {
    if (thrown instanceof SourceError) throw thrown;
    throw new SourceError('lost', `${path} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
  }
}

export class FileMirror {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #listeners = new Set<ContentListener>();
  #state: Content | SourceError | null = null;
  /** What the file looked like when it was last read. */
  #stamp = '';
  #loading: Promise<void> | null = null;
  #again = false;
  #watcher: FSWatcher | null = null;
  #debounce: Timer | null = null;
  #recheck: Timer | null = null;

  constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  /** Listens from now on and is told the present content as soon as it is read. */
  subscribe(listener: ContentListener): () => void {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.#start();
    if (this.#state !== null && !(this.#state instanceof SourceError)) listener.content(this.#state);
    else if (this.#loading === null) void this.#load();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop();
    };
  }

  #start(): void {
    try {
      // The directory: editors replace the file, and a watch on the file would stay with the old one.
      this.#watcher = watch(dirname(this.#path), { persistent: false }, (_event, name) => {
        if (name === null || name === basename(this.#path)) this.#noticed();
      });
      this.#watcher.on('error', () => this.#endWatcher());
    } catch {
      // No notices (missing directory, too many watches): the re-stat finds changes, only later.
      this.#watcher = null;
    }
    this.#armRecheck();
  }

  #stop(): void {
    this.#endWatcher();
    this.#debounce?.cancel();
    this.#debounce = null;
    this.#recheck?.cancel();
    this.#recheck = null;
    // Without a watch the content may grow old: the next listener reads anew.
    this.#state = null;
  }

  #endWatcher(): void {
    this.#watcher?.close();
    this.#watcher = null;
  }

  #noticed(): void {
    this.#debounce?.cancel();
    this.#debounce = this.#clock.setTimer(DEBOUNCE_MS, () => {
      this.#debounce = null;
      void this.#load();
    });
  }

  #armRecheck(): void {
    this.#recheck = this.#clock.setTimer(RECHECK_MS, () => {
      this.#armRecheck();
      void this.#stampNow().then((stamp) => {
        if (stamp !== this.#stamp && this.#listeners.size > 0) this.#noticed();
      });
    });
  }

  async #stampNow(): Promise<string> {
    const found = await stat(this.#path).catch(() => null);
    return found === null ? 'missing' : `${found.ino} ${found.size} ${found.mtimeMs} ${found.ctimeMs}`;
  }

  /** Reads the file; a notice that comes meanwhile makes it read once more. Never rejects. */
  #load(): Promise<void> {
    if (this.#loading !== null) {
      this.#again = true;
      return this.#loading;
    }
    this.#loading = this.#loadOnce().finally(() => {
      this.#loading = null;
      if (!this.#again) return;
      this.#again = false;
      if (this.#listeners.size > 0) void this.#load();
    });
    return this.#loading;
  }

  async #loadOnce(): Promise<void> {
    this.#stamp = await this.#stampNow();
    let next: Content | SourceError;
    try {
      next = await loadFile(this.#path);
    } catch (thrown) {
      next = asSourceError(thrown);
    }
    if (this.#listeners.size === 0) return;
    this.#state = next;
    for (const listener of [...this.#listeners]) {
      if (next instanceof SourceError) listener.failed(next);
      else listener.content(next);
    }
  }
}
