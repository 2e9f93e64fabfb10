// Owns watching the config file: notices of the file system and a look every few seconds, debounced, last write wins (R12).
// Called by app; must never deliver a file that was being written while it was read.
import { type FSWatcher, watch } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock, Timer } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';

/** R12: quiet for this long means written. */
export const DEBOUNCE_MS = 200;
/** A file that is never quiet is read after this long all the same. */
const MAX_WAIT_MS = 1_000;
/** Notices get lost on some file systems, and files of references are not watched: their state is asked for this often. */
export const RECHECK_MS = 5_000;
/** More than the parser takes, so that the parser can say what is wrong. */
const MAX_READ_BYTES = 1_048_576 + 1;
const READ_ROUNDS = 3;

export interface FileSourceOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  /**
   * Gets the bytes after every change of the file or of one of `others`. Calls do not overlap; the next change waits.
   * Must not reject.
   */
  readonly onChange: (bytes: Uint8Array) => Promise<void>;
  /** Other files whose change counts, as the last load read them. */
  readonly others: () => readonly string[];
}

/** Reads the file as it is now, at most so much of it that the parser can see that it is too large. Rejects when it cannot be read. */
export async function readConfigFile(path: string): Promise<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(MAX_READ_BYTES);
    let length = 0;
    for (;;) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length);
      length += bytesRead;
      if (bytesRead === 0 || length === bytes.length) return bytes.subarray(0, length);
    }
  } finally {
    await file.close();
  }
}

/** Watches from construction until `close`. */
export class FileSource implements AsyncDisposable {
  readonly #options: FileSourceOptions;
  #watcher: FSWatcher | null = null;
  #debounce: Timer | null = null;
  #recheck: Timer | null = null;
  #firstNotice: number | null = null;
  #seen = '';
  #reading: Promise<void> = Promise.resolve();
  #again = false;
  #busy = false;
  #closed = false;

  constructor(options: FileSourceOptions) {
    this.#options = options;
  }

  /** Notes how the files are now and starts to watch. */
  async start(): Promise<void> {
    this.#seen = await this.#signature();
    this.#watch();
    this.#armRecheck();
  }

  /** Reads again now, changed or not (SIGHUP). */
  async reread(): Promise<void> {
    this.#seen = '';
    await this.#read();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watcher?.close();
    this.#debounce?.cancel();
    this.#recheck?.cancel();
    await this.#reading;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The directory is watched, since an atomic replacement changes the file behind the name. */
  #watch(): void {
    try {
      this.#watcher = watch(dirname(this.#options.path), { persistent: false }, () => this.#notice());
      this.#watcher.on('error', (thrown) => this.#watchLost(thrown));
    } catch (thrown) {
      this.#watchLost(thrown);
    }
  }

  #watchLost(thrown: unknown): void {
    this.#watcher?.close();
    this.#watcher = null;
    this.#options.log.warn({ error: messageOf(thrown) }, 'config file: no change notices, looking every few seconds');
  }

  #notice(): void {
    if (this.#closed) return;
    const now = this.#options.clock.now();
    this.#firstNotice ??= now;
    this.#debounce?.cancel();
    const wait = Math.max(0, Math.min(DEBOUNCE_MS, this.#firstNotice + MAX_WAIT_MS - now));
    this.#debounce = this.#options.clock.setTimer(wait, () => {
      this.#firstNotice = null;
      this.#debounce = null;
      void this.#read();
    });
  }

  #armRecheck(): void {
    if (this.#closed) return;
    this.#recheck = this.#options.clock.setTimer(RECHECK_MS, () => {
      if (this.#watcher === null) this.#watch();
      void this.#read();
      this.#armRecheck();
    });
  }

  #read(): Promise<void> {
    this.#again = true;
    if (!this.#busy) this.#reading = this.#work();
    return this.#reading;
  }

  async #work(): Promise<void> {
    this.#busy = true;
    while (this.#again && !this.#closed) {
      this.#again = false;
      try {
        await this.#readOnce();
      } catch (thrown) {
        this.#options.log.warn({ error: messageOf(thrown) }, 'config file cannot be read; the running configuration stays');
      }
    }
    this.#busy = false;
  }

  async #readOnce(): Promise<void> {
    for (let round = 0; round < READ_ROUNDS; round++) {
      const before = await this.#signature();
      if (before === this.#seen) return;
      const bytes = await readConfigFile(this.#options.path).catch((thrown: unknown) => {
        this.#seen = before;
        throw thrown;
      });
      // Written while it was read: what came may be half of it.
      if ((await this.#signature()) !== before) continue;
      this.#seen = before;
      // Who writes in place empties it first, and may be held up right then: taken at its word it would end every source.
      if (bytes.byteLength === 0) throw new Error('it is empty, as one that is about to be written');
      await this.#options.onChange(bytes);
      return;
    }
    this.#notice();
  }

  async #signature(): Promise<string> {
    const parts: string[] = [];
    for (const path of [this.#options.path, ...this.#options.others()]) {
      const found = await stat(path, { bigint: true }).catch(() => null);
      parts.push(found === null ? 'missing' : `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`);
    }
    return parts.join(' ');
  }
}
