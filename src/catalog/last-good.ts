// Owns writing the last-good file (R11): changed services are appended, at most one write and fsync a second; a file that is mostly dead
// is replaced by a new generation, in slices. Called by app; serving never waits for it, and a failure must never touch what is on disk.
import { open, rm, truncate } from 'node:fs/promises';
import type { Clock, Timer } from '../kernel/clock.ts';
import { isRecord } from '../kernel/decode.ts';
import { PRIVATE_MODE, readOwnFile, replaceFile, syncDirectory, writeAll } from '../kernel/durable-file.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { ServiceId } from '../model/service.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Catalog } from './catalog.ts';
import { contactsText, frame, headerText, serviceText } from './last-good-format.ts';
import { generationPath, generations, isWhole, type LoadedLastGood, MAX_FILE_BYTES } from './last-good-load.ts';

/** R11: at most one write and one fsync in this time. */
export const WRITE_INTERVAL_MS = 1_000;
/** Contacts (true ages) are written this often when nothing else is. [W] */
const CONTACT_INTERVAL_MS = 60_000;
/** R11: longest time that encoding keeps the loop. */
const SLICE_MS = 5;
const SERVICES_PER_LOOK = 8;
/** A failed write is tried again after 0.5, 1, 2, 4, 4, … s: a disk with room again is used within 5 s. */
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 4_000;
/** Bytes per write call: a big batch must not lie in memory twice. */
const CHUNK_BYTES = 128 * 1024;
/** A small file is not rewritten for its dead part. */
const SLACK_BYTES = 256 * 1024;

/** File operations; tests put failing ones in. Each throws the system's error. */
export interface LastGoodDisk {
  /** Appends after the first `size` bytes (what lies behind them is cut off) and makes it durable. */
  append(path: string, size: number, chunks: AsyncIterable<Uint8Array>): Promise<void>;
  /** Writes a whole file under its name, durably, or leaves everything as it was. */
  replace(path: string, chunks: AsyncIterable<Uint8Array>): Promise<void>;
  read(path: string): Promise<Buffer | string>;
  remove(path: string): Promise<void>;
}

/** The real one. */
export const systemDisk: LastGoodDisk = {
  async append(path, size, chunks) {
    await truncate(path, size);
    const file = await open(path, 'a', PRIVATE_MODE);
    try {
      for await (const chunk of chunks) await writeAll(file, chunk);
      await file.datasync();
    } finally {
      await file.close();
    }
  },
  replace: replaceFile,
  read: (path) => readOwnFile(path, MAX_FILE_BYTES, null),
  remove: (path) => rm(path, { force: true }),
};

export interface LastGoodDeps {
  /** Ours alone: app holds its lock. */
  readonly directory: string;
  readonly catalog: Pick<Catalog, 'words' | 'allNames' | 'contacts' | 'index' | 'subscribeWords'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly disk?: LastGoodDisk;
}

interface Open {
  readonly epoch: number;
  /** Good bytes; what a failed append left behind them is cut off. */
  bytes: number;
  /** Bytes of the newest record of each service. */
  readonly sizes: Map<ServiceId, number>;
  live: number;
}

/** What a write came to; size 0: a tombstone. */
interface Written {
  bytes: number;
  readonly sizes: Map<ServiceId, number>;
}

export class LastGoodFile {
  readonly #deps: LastGoodDeps;
  readonly #disk: LastGoodDisk;
  readonly #dirty = new Set<ServiceId>();
  readonly #unsubscribe: () => void;
  #open: Open | null;
  #newest: number;
  #timer: Timer | null = null;
  #contactTimer: Timer | null = null;
  #running: Promise<void> | null = null;
  #writtenAt = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #sliceEnd = 0;
  #closed = false;

  /** `loaded`: what was read at start; writing goes on in the same generation when it was whole. */
  constructor(deps: LastGoodDeps, loaded: Pick<LoadedLastGood, 'newest' | 'append'>) {
    this.#deps = deps;
    this.#disk = deps.disk ?? systemDisk;
    this.#newest = loaded.newest;
    this.#open = loaded.append === null ? null : openAt(loaded.append);
    this.#unsubscribe = deps.catalog.subscribeWords((service) => this.#mark(service));
    this.#armContacts();
  }

  /** Services whose words wait to be written. */
  get waiting(): number {
    return this.#dirty.size;
  }

  /** Resolves when no write is under way. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Writes everything that waits, and the ages; for SIGTERM. Does not throw: what cannot be written is counted. */
  async flush(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    await this.#running;
    await this.#run();
  }

  /** Flushes and stops. */
  async close(): Promise<void> {
    this.#unsubscribe();
    this.#contactTimer?.cancel();
    await this.flush();
    this.#closed = true;
    this.#timer?.cancel();
  }

  #mark(service: ServiceId): void {
    this.#dirty.add(service);
    if (this.#timer === null && this.#running === null) this.#schedule();
  }

  #schedule(): void {
    if (this.#closed || this.#timer !== null) return;
    const backoff = this.#failures === 0 ? 0 : Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (this.#failures - 1));
    const since = this.#deps.clock.now() - this.#writtenAt;
    const wait = Math.max(backoff, WRITE_INTERVAL_MS - since, 0);
    this.#timer = this.#deps.clock.setTimer(wait, () => {
      this.#timer = null;
      void this.#run();
    });
  }

  #armContacts(): void {
    this.#contactTimer = this.#deps.clock.setTimer(CONTACT_INTERVAL_MS, () => {
      this.#armContacts();
      if (this.#running === null) this.#schedule();
    });
  }

  #run(): Promise<void> {
    this.#running ??= this.#write().finally(() => {
      this.#running = null;
      if (this.#dirty.size > 0) this.#schedule();
    });
    return this.#running;
  }

  async #write(): Promise<void> {
    const batch = [...this.#dirty];
    this.#dirty.clear();
    this.#writtenAt = this.#deps.clock.now();
    try {
      if (this.#open === null) await this.#newGeneration();
      else await this.#append(this.#open, batch);
      this.#failures = 0;
      if (this.#open !== null && this.#open.bytes > this.#open.live * 2 + SLACK_BYTES) await this.#newGeneration();
    } catch (thrown) {
      for (const service of batch) this.#dirty.add(service);
      this.#failures++;
      // Somebody took the file away: begin a new one.
      if (isRecord(thrown) && thrown['code'] === 'ENOENT') this.#open = null;
      this.#deps.metrics.counter('weir_last_good_write_errors_total').inc();
      const error = messageOf(thrown);
      if (this.#failures === 1) this.#deps.log.error({ error }, 'the last-good file could not be written; trying again');
    }
  }

  async #append(file: Open, batch: readonly ServiceId[]): Promise<void> {
    const written: Written = { bytes: 0, sizes: new Map() };
    const path = generationPath(this.#deps.directory, file.epoch);
    await this.#disk.append(path, file.bytes, this.#chunks(written, null, batch, [() => this.#contacts()]));
    file.bytes += written.bytes;
    for (const [service, size] of written.sizes) {
      file.live += size - (file.sizes.get(service) ?? 0);
      if (size === 0) file.sizes.delete(service);
      else file.sizes.set(service, size);
    }
  }

  /** Writes everything known into a new file; the one before stays until this one is read back whole. */
  async #newGeneration(): Promise<void> {
    const { directory, catalog, clock } = this.#deps;
    const epoch = this.#newest + 1;
    const path = generationPath(directory, epoch);
    const written: Written = { bytes: 0, sizes: new Map() };
    const header = frame('H', headerText({ epoch, writtenAt: Math.round(clock.wallNow()), index: catalog.index }));
    const end = [() => frame('B', ''), () => this.#contacts()];
    await this.#disk.replace(path, this.#chunks(written, header, [...catalog.allNames()], end));
    this.#newest = epoch;
    const bytes = await this.#disk.read(path);
    if (typeof bytes === 'string' || !(await isWhole(bytes, epoch, () => this.#pause()))) {
      await this.#disk.remove(path);
      throw new Error(`generation ${epoch} does not read back as it was written`);
    }
    this.#open = openAt({ epoch, ...written });
    for (const old of await generations(directory)) {
      if (old < epoch - 1) await this.#disk.remove(generationPath(directory, old));
    }
    await syncDirectory(directory);
  }

  /** Frames of the services between a head and a tail, in chunks of some 100 KiB, encoded in slices. Notes what it wrote. */
  async *#chunks(
    written: Written,
    head: Buffer | null,
    services: readonly ServiceId[],
    tail: readonly (() => Buffer)[],
  ): AsyncGenerator<Uint8Array, void, void> {
    let chunk: Buffer[] = head === null ? [] : [head];
    let size = head?.length ?? 0;
    for (const [i, service] of services.entries()) {
      if (i % SERVICES_PER_LOOK === 0) await this.#pause();
      const words = this.#deps.catalog.words(service);
      // A new generation does not need to say what it does not have.
      if (words === null && head !== null) continue;
      const bytes = words === null ? frame('T', JSON.stringify(service)) : frame('S', serviceText(words));
      written.sizes.set(service, words === null ? 0 : bytes.length);
      chunk.push(bytes);
      size += bytes.length;
      if (size < CHUNK_BYTES) continue;
      written.bytes += size;
      yield Buffer.concat(chunk);
      chunk = [];
      size = 0;
    }
    for (const make of tail) chunk.push(make());
    const last = Buffer.concat(chunk);
    written.bytes += last.length;
    yield last;
  }

  /** Gives the loop back when the slice is over. */
  #pause(): Promise<void> | undefined {
    const { clock } = this.#deps;
    const now = clock.now();
    if (now < this.#sliceEnd && now >= this.#sliceEnd - SLICE_MS) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        this.#sliceEnd = clock.now() + SLICE_MS;
        resolve();
      });
    });
  }

  #contacts(): Buffer {
    const { catalog } = this.#deps;
    return frame('C', contactsText(catalog.contacts(), catalog.index));
  }
}

function openAt(append: NonNullable<LoadedLastGood['append']>): Open {
  let live = 0;
  for (const size of append.sizes.values()) live += size;
  return { epoch: append.epoch, bytes: append.bytes, sizes: new Map(append.sizes), live };
}
