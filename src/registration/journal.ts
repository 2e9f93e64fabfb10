// Owns what survives a crash of ours: which registrations there are and the receipts of what was written. One file of lines, each
// with a checksum; appended and synced before the answer, replaced when it has grown. Called by registrations.ts. Must never throw
// for a bad file: what cannot be read is put aside and said clearly.
import { createHash } from 'node:crypto';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { type Static, Type } from 'typebox';
import { decoder, parseJson } from '../kernel/decode.ts';
import { PRIVATE_MODE, readOwnFile, replaceFile, writeAll } from '../kernel/durable-file.ts';
import type { Log } from '../kernel/log.ts';

const VERSION = 1;
const MAGIC = 'weir-registrations';
const MAX_BYTES = 64 * 1024 * 1024;
const MAX_LINE_BYTES = 1024 * 1024;
/** The file is written anew when it has this many lines more than twice what is live. */
const SLACK_LINES = 1_000;

const Service = Type.Object({ namespace: Type.String(), name: Type.String() });
const Check = Type.Object({
  kind: Type.Union([Type.Literal('http'), Type.Literal('tcp'), Type.Literal('grpc')]),
  path: Type.String(),
  expectedStatuses: Type.Array(Type.Tuple([Type.Number(), Type.Number()])),
  host: Type.Union([Type.String(), Type.Null()]),
  grpcService: Type.String(),
  interval: Type.Number(),
  timeout: Type.Number(),
  healthyThreshold: Type.Number(),
  unhealthyThreshold: Type.Number(),
  noTrafficInterval: Type.Number(),
});

const Receipt = Type.Object({
  service: Service,
  nativeId: Type.String(),
  leaseId: Type.Optional(Type.String()),
  token: Type.Optional(Type.String()),
});

const TargetRecord = Type.Object({
  sourceId: Type.String(),
  key: Service,
  /** Absent: nothing is known to be there. */
  known: Type.Optional(
    Type.Object({
      receipt: Receipt,
      body: Type.String(),
      health: Type.Union([Type.Literal('healthy'), Type.Literal('unhealthy'), Type.Literal('unknown')]),
    }),
  ),
  leftovers: Type.Array(Receipt),
});

/** The whole of one registration: the newest line of its key wins. `gone`: it is no more. */
const EntryRecord = Type.Object({
  service: Service,
  id: Type.String(),
  gone: Type.Optional(Type.Literal(true)),
  /** From weir.yaml. */
  declared: Type.Boolean(),
  /** To be removed: records are left over in registries. */
  leaving: Type.Boolean(),
  /** Last verdict of its check: where to start from, so that a restart changes nothing by itself. */
  healthy: Type.Union([Type.Boolean(), Type.Null()]),
  host: Type.String(),
  port: Type.Number(),
  weight: Type.Number(),
  metadata: Type.Array(Type.Tuple([Type.String(), Type.String()])),
  protocol: Type.Optional(Type.String()),
  version: Type.Optional(Type.String()),
  sources: Type.Union([Type.Array(Type.String()), Type.Null()]),
  ttl: Type.Number(),
  healthCheck: Type.Union([Check, Type.Null()]),
  onUnhealthy: Type.Union([Type.Literal('unhealthy'), Type.Literal('remove')]),
  targets: Type.Array(TargetRecord),
});

export type JournalEntry = Static<typeof EntryRecord>;

const decodeEntry = decoder(EntryRecord);
const decodeHeader = decoder(Type.Object({ magic: Type.Literal(MAGIC), version: Type.Number() }));

export interface JournalDeps {
  readonly path: string;
  /** Owner that the file must have; null where the system has none. */
  readonly uid: number | null;
  readonly log: Log;
}

export class Journal {
  readonly #deps: JournalDeps;
  readonly #live = new Map<string, string>();
  #file: FileHandle | null = null;
  #lines = 0;
  /** Writes run one after the other; those that wait are written together. */
  #waiting: string[] = [];
  #writing: Promise<void> | null = null;
  #fault: string | null = null;
  #closed = false;

  private constructor(deps: JournalDeps) {
    this.#deps = deps;
  }

  /** Reads what is there and opens the file for appending. Throws only when the directory cannot be written. */
  static async open(deps: JournalDeps): Promise<{ readonly journal: Journal; readonly entries: readonly JournalEntry[] }> {
    const journal = new Journal(deps);
    const entries = await journal.#load();
    await journal.#replace();
    return { journal, entries };
  }

  /** Why an earlier file was put aside, or null. */
  get fault(): string | null {
    return this.#fault;
  }

  /** Appends the newest state of one registration (null: it is gone); resolves once it is on the disk. After `close` it does nothing. */
  write(key: string, entry: JournalEntry | null): Promise<void> {
    if (this.#closed) return Promise.resolve();
    const line = entry === null ? null : JSON.stringify(entry);
    const gone = this.#live.get(key);
    if (line === gone) return this.#writing ?? Promise.resolve();
    if (line !== null) {
      this.#live.set(key, line);
      this.#waiting.push(line);
    } else if (gone !== undefined) {
      this.#live.delete(key);
      this.#waiting.push(`${gone.slice(0, -1)},"gone":true}`);
    }
    this.#writing ??= this.#flush().finally(() => {
      this.#writing = null;
    });
    return this.#writing;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
    await this.#file?.close();
    this.#file = null;
  }

  async #flush(): Promise<void> {
    // In a later microtask, so that `write` has set #writing and what is written in one turn shares one fsync.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      this.#lines += lines.length;
      // What fails leaves the count so high that the next write replaces the file, which holds everything.
      const counted = this.#lines;
      this.#lines = Number.POSITIVE_INFINITY;
      if (counted > 2 * this.#live.size + SLACK_LINES || this.#file === null) await this.#replace();
      else {
        await writeAll(this.#file, Buffer.from(lines.map(sealed).join('')));
        await this.#file.sync();
        this.#lines = counted;
      }
    }
  }

  /** Writes the live state as a new file and goes on appending to that. */
  async #replace(): Promise<void> {
    const { path } = this.#deps;
    const header = JSON.stringify({ magic: MAGIC, version: VERSION });
    const text = [header, ...this.#live.values()].map(sealed).join('');
    await replaceFile(path, [Buffer.from(text)]);
    await this.#file?.close();
    this.#file = await open(path, 'a', PRIVATE_MODE);
    this.#lines = this.#live.size;
  }

  async #load(): Promise<JournalEntry[]> {
    const bytes = await readOwnFile(this.#deps.path, MAX_BYTES, this.#deps.uid);
    if (bytes === 'missing') return [];
    if (typeof bytes === 'string') return this.#putAside(`is not usable: ${bytes}`);
    const [first = '', ...rest] = bytes.toString('utf8').split('\n');
    const header = decodeHeader(unsealed(first));
    if (!header.ok) return this.#putAside('has no readable header');
    if (header.value.version !== VERSION)
      return this.#putAside(`has version ${header.value.version}, this weir reads ${VERSION}`);
    return this.#entries(rest);
  }

  /** The newest line of each key; a bad line (a crash while it was appended, a bad disk) loses that line alone. */
  #entries(lines: readonly string[]): JournalEntry[] {
    const found = new Map<string, JournalEntry>();
    let bad = 0;
    for (const line of lines) {
      if (line === '') continue;
      const decoded = decodeEntry(unsealed(line));
      if (!decoded.ok) {
        bad++;
        continue;
      }
      const key = `${decoded.value.service.namespace}/${decoded.value.service.name}\0${decoded.value.id}`;
      if (decoded.value.gone === true) found.delete(key);
      else found.set(key, decoded.value);
    }
    if (bad > 0)
      this.#deps.log.warn({ path: this.#deps.path, lines: bad }, 'unreadable lines of the registration journal were skipped');
    for (const [key, entry] of found) this.#live.set(key, JSON.stringify(entry));
    return [...found.values()];
  }

  /** Never overwritten: a person, or the weir that wrote it, may still need it. */
  async #putAside(why: string): Promise<never[]> {
    const { path, log } = this.#deps;
    const aside = `${path}.refused`;
    await rename(path, aside).catch(() => undefined);
    this.#fault = `${path} ${why}; it was put aside as ${aside}, and what it held is not renewed`;
    log.error({ path, aside }, this.#fault);
    return [];
  }
}

/** `checksum json\n`. */
function sealed(json: string): string {
  return `${checksum(json)} ${json}\n`;
}

function unsealed(line: string): unknown {
  const json = line.slice(17);
  if (line[16] !== ' ' || line.slice(0, 16) !== checksum(json)) return undefined;
  const parsed = parseJson(json, { maxBytes: MAX_LINE_BYTES });
  return parsed.ok ? parsed.value : undefined;
}

function checksum(json: string): string {
  return createHash('sha256').update(json).digest('hex').slice(0, 16);
}
