// Owns the API's one subscription to published changes: who waits for which service, and what was removed lately.
// Called by services.ts (blocking reads) and watch.ts (SSE). A change costs what its own service's waiters cost, never a scan.
import type { Clock } from '../kernel/clock.ts';
import { Deadline, TimerWheel } from '../kernel/timer-wheel.ts';
import type { ServiceId } from '../model/service.ts';
import type { CatalogReader, ChangeListener } from './ports.ts';

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

export class ChangeFeed {
  readonly #catalog: Pick<CatalogReader, 'subscribe' | 'read' | 'index'>;
  readonly #wheel: TimerWheel;
  readonly #waiters = new Map<ServiceId, Set<Waiter>>();
  readonly #listeners = new Set<ChangeListener>();
  /** Index of the removal by service, oldest first. */
  readonly #removed = new Map<ServiceId, number>();
  /** Removals up to this index may be forgotten; what was removed before we began is unknown, too. */
  #horizon: number;
  readonly #unsubscribe: () => void;
  #closed = false;

  constructor(catalog: Pick<CatalogReader, 'subscribe' | 'read' | 'index'>, clock: Clock) {
    this.#catalog = catalog;
    this.#wheel = new TimerWheel(clock, TICK_MS, 1024);
    this.#horizon = catalog.index();
    this.#unsubscribe = catalog.subscribe((service, index) => this.#changed(service, index));
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
  subscribe(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Index at which the service was removed, where that is remembered. */
  removedAt(service: ServiceId): number | null {
    return this.#removed.get(service) ?? null;
  }

  /** Services removed after `index`, oldest first; null: some of them are forgotten, the reader must start anew. */
  removedSince(index: number): readonly (readonly [ServiceId, number])[] | null {
    if (index < this.#horizon || index > this.#catalog.index()) return null;
    return [...this.#removed].filter(([, at]) => at > index);
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

  #changed(service: ServiceId, index: number): void {
    this.#remember(service, index);
    for (const waiter of [...(this.#waiters.get(service) ?? [])]) if (index > waiter.after) waiter.end('changed');
    for (const listener of this.#listeners) listener(service, index);
  }

  #remember(service: ServiceId, index: number): void {
    this.#removed.delete(service);
    if (this.#catalog.read(service) !== null) return;
    this.#removed.set(service, index);
    if (this.#removed.size <= MAX_REMOVED) return;
    const [oldest] = this.#removed;
    if (oldest === undefined) return;
    this.#removed.delete(oldest[0]);
    this.#horizon = Math.max(this.#horizon, oldest[1]);
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
