// Owns when a changed service is told to the subscribers (R5): the first change at once, then one view per 200 ms, removals at once.
// One timer for all services. Called by catalog; must never merge or decide what changed.
import type { Clock, Timer } from '../kernel/clock.ts';
import { Slices } from './slices.ts';

/** R5. */
export const COALESCE_MS = 200;
/** Due times are rounded up to this, so that a storm needs few timer turns. */
const STEP_MS = 20;
/** Due step of an item that waits for its slice. */
const DUE_NOW = -1;

/** What the publisher keeps on each item. */
export interface Publishable {
  publishedAt: number;
  /** Owned by the publisher: due step while it waits; 0 when it does not. */
  dueStep: number;
}

/** Calls `flush(item)` by the rule. */
export class Publisher<T extends Publishable> {
  readonly #clock: Clock;
  readonly #flush: (item: T) => void;
  readonly #due = new Map<number, Set<T>>();
  /** Items whose time has come: many may be due at once after a storm. */
  readonly #slices: Slices<T>;
  #timer: Timer | null = null;
  #timerStep = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(clock: Clock, flush: (item: T) => void) {
    this.#clock = clock;
    this.#flush = flush;
    this.#slices = new Slices(clock, (item) => this.#send(item, clock.now()));
  }

  /** The item changed. `now`: it must not wait (something left the view). */
  changed(item: T, atOnce: boolean): void {
    const now = this.#clock.now();
    if (atOnce || now - item.publishedAt >= COALESCE_MS) {
      this.#send(item, now);
      return;
    }
    if (item.dueStep !== 0 || this.#closed) return;
    const step = Math.ceil((item.publishedAt + COALESCE_MS) / STEP_MS);
    item.dueStep = step;
    const set = this.#due.get(step) ?? new Set();
    set.add(item);
    this.#due.set(step, set);
    this.#arm(step, now);
  }

  /** The item is gone: it waits no more. */
  forget(item: T): void {
    this.#due.get(item.dueStep)?.delete(item);
    this.#slices.delete(item);
    item.dueStep = 0;
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#due.clear();
    this.#slices.close();
  }

  #send(item: T, now: number): void {
    if (item.dueStep !== 0) this.forget(item);
    item.publishedAt = now;
    this.#flush(item);
  }

  #arm(step: number, now: number): void {
    if (step >= this.#timerStep) return;
    this.#timer?.cancel();
    this.#timerStep = step;
    this.#timer = this.#clock.setTimer(Math.max(0, step * STEP_MS - now), this.#onTimer);
  }

  readonly #onTimer = (): void => {
    this.#timerStep = Number.POSITIVE_INFINITY;
    const now = this.#clock.now();
    const reached = Math.floor(now / STEP_MS);
    let next = Number.POSITIVE_INFINITY;
    for (const [step, items] of this.#due) {
      if (step > reached) {
        next = Math.min(next, step);
        continue;
      }
      this.#due.delete(step);
      for (const item of items) {
        item.dueStep = DUE_NOW;
        this.#slices.add(item);
      }
    }
    if (next < Number.POSITIVE_INFINITY) this.#arm(next, now);
  };
}
