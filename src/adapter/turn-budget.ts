// Owns how long the streams of one source may hold the event loop: a registry that is gone, or back, wakes all its watches at once, and
// 2,000 of them in one turn are 100 ms. Called by the streams of that source; must never change the order of what it is given.
import type { Clock } from '../kernel/clock.ts';

/** Work of one source in one turn of the event loop, ms; the last piece may take it over. */
const BUDGET_MS = 4;

/** Runs small pieces of work: at once while the turn has room, else in one of the next turns. */
export class TurnBudget {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #waiting: (() => void)[] = [];
  /** Monotonic ms at which the work of this turn began; null: nothing was done in it. */
  #began: number | null = null;

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  /** Must not throw. */
  run(work: () => void): void {
    if (this.#began === null) this.#begin();
    if (this.#waiting.length === 0 && this.#hasRoom()) work();
    else this.#waiting.push(work);
  }

  #begin(): void {
    this.#began = this.#clock.now();
    setImmediate(() => {
      this.#began = null;
      this.#goOn();
    });
  }

  #goOn(): void {
    if (this.#waiting.length === 0) return;
    this.#begin();
    let done = 0;
    while (done < this.#waiting.length && this.#hasRoom()) this.#waiting[done++]?.();
    this.#waiting.splice(0, done);
  }

  #hasRoom(): boolean {
    return this.#began !== null && this.#clock.now() - this.#began < BUDGET_MS;
  }
}
