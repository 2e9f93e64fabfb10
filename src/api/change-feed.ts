// Owns the API's one subscription to published changes: who waits for which service, and what was removed lately.
// Called by services.ts (blocking reads) and watch.ts (SSE). A change costs what its own service's waiters cost, never a scan.
import type { Clock } from '../kernel/clock.ts';
import { Deadline, TimerWheel } from '../kernel/timer-wheel.ts';
import type { ServiceId } from '../model/service.ts';
import type { CatalogReader } from './ports.ts';

/** One wheel for all waiting readers: they tolerate 100 ms, and none of them owns a kernel timer. */
const TICK_MS = 100;
/** Removed services that are remembered, so that a reader who comes back learns of them. */
const MAX_REMOVED = 10_000;

/** How a wait ended. */
export type WaitEnd = 'changed' | 'timeout' | 'cancelled';

interface Waiter {
  readonly after: number;
  readonly deadline: Deadline;
  readonly end: (how: WaitEnd) => void;
}

/** A running wait; `cancel` ends it as `cancelled` (the reader went away). */
export interface Wait {
  readonly ended: Promise<WaitEnd>;
  cancel(): void;
}

interface Removal {
  /** M9 index of the removal, for blocking readers. */
  readonly index: number;
  readonly stamp: number;
}

/** A service with the stamp of its newest change. */
export type Stamped = readonly [service: ServiceId, stamp: number];

/** Told of every change with its stamp. */
export type StampListener = (service: ServiceId, stamp: number) => void;

/**
 * Stamps: a change is told up to 200 ms after it got its index (R5), so indexes are not told in order. Each telling gets a stamp that
 * only rises, in the number space of the index; a reader who has everything up to a stamp can go on from it.
 */
export class ChangeFeed {
  readonly #catalog: Pick<CatalogReader, 'subscribe' | 'read' | 'index'>;
  readonly #wheel: TimerWheel;
  readonly #waiters = new Map<ServiceId, Set<Waiter>>();
  readonly #listeners = new Set<StampListener>();
  /** Stamps of known services that changed since we began, oldest first. */
  readonly #changed = new Map<ServiceId, number>();
  /** Removed services, oldest first. */
  readonly #removed = new Map<ServiceId, Removal>();
  /** What was removed up to this stamp may be forgotten; what was removed before we began is unknown, too. */
  #horizon: number;
  #stamp: number;
  readonly #unsubscribe: () => void;
  #closed = false;

  constructor(catalog: Pick<CatalogReader, 'subscribe' | 'read' | 'index'>, clock: Clock) {
    this.#catalog = catalog;
    this.#wheel = new TimerWheel(clock, TICK_MS, 1024);
    this.#horizon = catalog.index();
    this.#stamp = this.#horizon;
    this.#unsubscribe = catalog.subscribe((service, index) => this.#tell(service, index));
  }

  /** The newest stamp. */
  get stamp(): number {
    return this.#stamp;
  }

  /** Waits until the service changes past `after`, at most `ms`. The caller has looked before: a change of the past is not told. */
  wait(service: ServiceId, after: number, ms: number): Wait {
    const { promise, resolve } = Promise.withResolvers<WaitEnd>();
    const waiter: Waiter = {
      after,
      deadline: new Deadline(() => waiter.end('timeout')),
      end: (how) => {
        this.#wheel.disarm(waiter.deadline);
        this.#forget(service, waiter);
        resolve(how);
      },
    };
    if (this.#closed) resolve('cancelled');
    else {
      this.#waitersOf(service).add(waiter);
      this.#wheel.arm(waiter.deadline, ms);
    }
    return { ended: promise, cancel: () => waiter.end('cancelled') };
  }

  /** Calls `listener` for every change, after the waiters; until the returned function is called. */
  subscribe(listener: StampListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Index at which the service was removed, where that is remembered. */
  removedAt(service: ServiceId): number | null {
    return this.#removed.get(service)?.index ?? null;
  }

  /** Services that changed or were removed after `stamp`, oldest first; null: some of that is forgotten, the reader must start anew. */
  since(stamp: number): readonly Stamped[] | null {
    if (stamp < this.#horizon || stamp > this.#stamp) return null;
    const removed = [...this.#removed].map(([service, removal]): Stamped => [service, removal.stamp]);
    return [...this.#changed, ...removed].filter(([, at]) => at > stamp).sort((a, b) => a[1] - b[1]);
  }

  /** How many readers wait; for metrics and tests. */
  get waiting(): number {
    return this.#wheel.armed;
  }

  /** Ends every wait as cancelled. */
  close(): void {
    this.#closed = true;
    this.#unsubscribe();
    for (const waiters of [...this.#waiters.values()]) for (const waiter of [...waiters]) waiter.end('cancelled');
    this.#listeners.clear();
    this.#wheel.close();
  }

  #tell(service: ServiceId, index: number): void {
    this.#stamp = Math.max(this.#stamp + 1, this.#catalog.index());
    this.#remember(service, index);
    for (const waiter of [...(this.#waiters.get(service) ?? [])]) if (index > waiter.after) waiter.end('changed');
    for (const listener of this.#listeners) listener(service, this.#stamp);
  }

  #remember(service: ServiceId, index: number): void {
    this.#removed.delete(service);
    this.#changed.delete(service);
    if (this.#catalog.read(service) !== null) {
      this.#changed.set(service, this.#stamp);
      return;
    }
    this.#removed.set(service, { index, stamp: this.#stamp });
    if (this.#removed.size <= MAX_REMOVED) return;
    const [oldest] = this.#removed;
    if (oldest === undefined) return;
    this.#removed.delete(oldest[0]);
    this.#horizon = Math.max(this.#horizon, oldest[1].stamp);
  }

  #waitersOf(service: ServiceId): Set<Waiter> {
    let waiters = this.#waiters.get(service);
    if (waiters === undefined) {
      waiters = new Set();
      this.#waiters.set(service, waiters);
    }
    return waiters;
  }

  #forget(service: ServiceId, waiter: Waiter): void {
    const waiters = this.#waiters.get(service);
    if (waiters === undefined) return;
    waiters.delete(waiter);
    if (waiters.size === 0) this.#waiters.delete(service);
  }
}
