// Owns work over many services that must not stall the loop: it runs in slices of at most 5 ms between other events.
// Called by catalog for state changes of a whole source and for reloads; must never lose or repeat an item of the queue.
import type { Clock } from '../kernel/clock.ts';

const SLICE_MS = 5;
/** Looking at the clock costs more than a small piece of work. */
const ITEMS_PER_LOOK = 16;

/** A queue of distinct items, worked on in `setImmediate` slices. */
export class Slices<T> {
  readonly #clock: Clock;
  readonly #work: (item: T) => void;
  readonly #queue = new Set<T>();
  #scheduled = false;
  #closed = false;

  constructor(clock: Clock, work: (item: T) => void) {
    this.#clock = clock;
    this.#work = work;
  }

  get size(): number {
    return this.#queue.size;
  }

  add(item: T): void {
    if (this.#closed) return;
    this.#queue.add(item);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#slice);
  }

  delete(item: T): void {
    this.#queue.delete(item);
  }

  close(): void {
    this.#closed = true;
    this.#queue.clear();
  }

  readonly #slice = (): void => {
    this.#scheduled = false;
    const end = this.#clock.now() + SLICE_MS;
    let done = 0;
    for (const item of this.#queue) {
      this.#queue.delete(item);
      this.#work(item);
      if (++done % ITEMS_PER_LOOK === 0 && this.#clock.now() >= end) break;
    }
    if (this.#queue.size > 0 && !this.#closed) {
      this.#scheduled = true;
      setImmediate(this.#slice);
    }
  };
}
