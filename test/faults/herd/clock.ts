// A fake clock for hundreds of sidecars at once: timers fall due on a grid, so that one turn of the event loop serves all of them.
// Called by the herd test; a timer is never early and at most one grid step late.
import { type Clock, sleepWith, type Timer } from '../../../src/kernel/clock.ts';
import { settle } from '../../support/fake-clock.ts';

/** Fine against windows of a second, coarse against the wheels of 200 supervisors that tick every 25 ms. */
export const GRID_MS = 100;
/** Turns of the event loop after each step; a longer chain of promises goes on in the next one. */
const TURNS = 5;

export class HerdClock implements Clock {
  #step = 10;
  readonly #due = new Map<number, Set<() => void>>();

  now(): number {
    return this.#step * GRID_MS;
  }

  wallNow(): number {
    return 1_700_000_000_000 + this.now();
  }

  setTimer(ms: number, fn: () => void): Timer {
    const at = Math.max(this.#step + 1, this.#step + Math.ceil(ms / GRID_MS));
    const slot = this.#due.get(at) ?? new Set();
    this.#due.set(at, slot);
    const fire = (): void => fn();
    slot.add(fire);
    return { cancel: () => void slot.delete(fire) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, ms, signal);
  }

  async advance(ms: number): Promise<void> {
    const end = this.#step + Math.round(ms / GRID_MS);
    while (this.#step < end) {
      this.#step++;
      const slot = this.#due.get(this.#step) ?? [];
      for (const fire of slot) fire();
      this.#due.delete(this.#step);
      await settle(TURNS);
    }
  }
}
