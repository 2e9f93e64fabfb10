// A Clock that moves only when a test says so. Timers fire in order of their time, then of their setting.
import { type Clock, sleepWith, type Timer } from '../../src/kernel/clock.ts';

interface Entry {
  at: number;
  order: number;
  fn: () => void;
}

export class FakeClock implements Clock {
  #now: number;
  #wall: number;
  #order = 0;
  readonly #timers = new Set<Entry>();

  constructor(now = 1_000, wall = 1_700_000_000_000) {
    this.#now = now;
    this.#wall = wall;
  }

  now(): number {
    return this.#now;
  }

  wallNow(): number {
    return this.#wall;
  }

  /** Moves the wall clock alone, as an operator or NTP does. */
  jumpWall(ms: number): void {
    this.#wall += ms;
  }

  setTimer(ms: number, fn: () => void): Timer {
    const entry: Entry = { at: this.#now + Math.max(0, ms), order: this.#order++, fn };
    this.#timers.add(entry);
    return { cancel: () => void this.#timers.delete(entry) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, ms, signal);
  }

  /** Timers that are set and have not fired. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Moves time on by `ms`, firing what falls due in order, and lets promises settle after each timer. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const due = this.#earliest();
      if (due === undefined || due.at > end) break;
      this.#moveTo(due.at);
      this.#timers.delete(due);
      due.fn();
      await settle();
    }
    this.#moveTo(end);
    await settle();
  }

  /** Like `advance` but without letting promises settle: for synchronous code. */
  advanceSync(ms: number): void {
    const end = this.#now + ms;
    for (let due = this.#earliest(); due !== undefined && due.at <= end; due = this.#earliest()) {
      this.#moveTo(due.at);
      this.#timers.delete(due);
      due.fn();
    }
    this.#moveTo(end);
  }

  #moveTo(at: number): void {
    this.#wall += at - this.#now;
    this.#now = at;
  }

  #earliest(): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.#timers) {
      if (best === undefined || entry.at < best.at || (entry.at === best.at && entry.order < best.order)) best = entry;
    }
    return best;
  }
}

/** Lets every promise that can settle now settle (several macrotask turns, so that chains of awaits run out). */
export async function settle(turns = 3): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}
