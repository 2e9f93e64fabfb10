// Owns bringing changed pages of the ledger to the store: many at once, one call at a time (W3). Called by the mirror before each write
// (intents) and after it (receipts). Must never drop a page whose saving failed.
import { reconnectDelay } from '../kernel/backoff.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { Random } from '../kernel/random.ts';
import type { ServiceId } from '../model/service.ts';
import { asSourceError, type SourceError } from '../model/snapshot.ts';
import type { LedgerPage } from './migration.ts';

/** Receipts of one time are saved together, ms. */
const TOGETHER_MS = 50;

export interface SaverDeps {
  readonly clock: Clock;
  readonly random: Random;
  /** The page as it is now; undefined: it holds nothing any more. */
  readonly page: (service: ServiceId) => LedgerPage | undefined;
  readonly save: (pages: readonly LedgerPage[]) => Promise<void>;
  /** After each try; null: it went well. */
  readonly onResult: (error: SourceError | null) => void;
}

export class Saver {
  readonly #deps: SaverDeps;
  readonly #marked = new Set<ServiceId>();
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #timer: Timer | null = null;
  #failures = 0;
  #closed = false;

  constructor(deps: SaverDeps) {
    this.#deps = deps;
  }

  /** The page changed. */
  mark(service: ServiceId): void {
    this.#marked.add(service);
  }

  /** Pages that the store does not have yet. */
  get waiting(): number {
    return this.#marked.size;
  }

  /** Resolves once everything that is marked now is durable; rejects with what the store threw (all of it stays marked). */
  flush(): Promise<void> {
    if (this.#running === null) return this.#start();
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.#start();
      });
    return this.#next;
  }

  /** Saves what is marked soon, and until it is saved; not waited for. */
  soon(): void {
    if (this.#timer === null && !this.#closed) this.#arm(TOGETHER_MS);
  }

  /** Saves once more and stops. */
  async close(): Promise<void> {
    this.abandon();
    await this.flush().catch(() => {});
  }

  /** Stops without saving: who has lost the right to write has nothing to try again. */
  abandon(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #arm(ms: number): void {
    this.#timer = this.#deps.clock.setTimer(ms, () => {
      this.#timer = null;
      this.flush().catch(() => this.#retry());
    });
  }

  #retry(): void {
    if (this.#timer === null && !this.#closed) this.#arm(reconnectDelay(this.#failures, this.#deps.random, 500, 10_000));
  }

  #start(): Promise<void> {
    if (this.#marked.size === 0) return Promise.resolve();
    this.#running = this.#save().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #save(): Promise<void> {
    const services = [...this.#marked];
    this.#marked.clear();
    try {
      await this.#deps.save(services.map((service) => this.#deps.page(service) ?? { service, baseline: null, entries: [] }));
      this.#failures = 0;
      this.#deps.onResult(null);
    } catch (thrown) {
      for (const service of services) this.#marked.add(service);
      this.#failures++;
      this.#deps.onResult(asSourceError(thrown));
      throw thrown;
    }
  }
}
