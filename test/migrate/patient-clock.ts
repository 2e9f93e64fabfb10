// A fake clock that never runs past work under way: between two timers it waits for every call that was handed to `pending`, so that a
// file store on a real disk, or a fake behind a real socket, is never "late" by the fake time alone. Called by world.ts.
import { type Clock, sleepWith, type Timer } from '../../src/kernel/clock.ts';

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly fn: () => void;
}

export class PatientClock implements Clock {
  #now = 1_000;
  #wall = 1_700_000_000_000;
  #order = 0;
  readonly #timers = new Set<Entry>();
  #pending = 0;

  now(): number {
    return this.#now;
  }

  wallNow(): number {
    return this.#wall;
  }

  /** The wall clock alone, as NTP or an operator moves it. */
  jumpWall(ms: number): void {
    this.#wall += ms;
  }

  setTimer(ms: number, fn: () => void): Timer {
    const entry = { at: this.#now + Math.max(0, ms), order: this.#order++, fn };
    this.#timers.add(entry);
    return { cancel: () => void this.#timers.delete(entry) };
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, ms, signal);
  }

  /** Time stands until it settles. */
  async pending<T>(work: Promise<T>): Promise<T> {
    this.#pending++;
    try {
      return await work;
    } finally {
      this.#pending--;
    }
  }

  /** Moves on by `ms`, firing what falls due in order. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.settle();
    for (let due = this.#earliest(); due !== null && due.at <= end; due = this.#earliest()) {
      this.#moveTo(due.at);
      this.#timers.delete(due);
      due.fn();
      await this.settle();
    }
    this.#moveTo(end);
  }

  /** Lets everything run that needs no time. */
  async settle(): Promise<void> {
    do await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#pending > 0);
  }

  #earliest(): Entry | null {
    let best: Entry | null = null;
    for (const entry of this.#timers) {
      if (best === null || entry.at < best.at || (entry.at === best.at && entry.order < best.order)) best = entry;
    }
    return best;
  }

  #moveTo(at: number): void {
    this.#wall += at - this.#now;
    this.#now = at;
  }
}

/** The clock of one life of a process: `stop` is its death, no timer of it fires afterwards. */
export class LifeClock implements Clock {
  readonly #world: PatientClock;
  readonly #timers = new Set<Timer>();
  #dead = false;

  constructor(world: PatientClock) {
    this.#world = world;
  }

  now(): number {
    return this.#world.now();
  }

  wallNow(): number {
    return this.#world.wallNow();
  }

  setTimer(ms: number, fn: () => void): Timer {
    if (this.#dead) return { cancel: () => {} };
    const inner = this.#world.setTimer(ms, () => {
      this.#timers.delete(timer);
      fn();
    });
    const timer: Timer = {
      cancel: () => {
        this.#timers.delete(timer);
        inner.cancel();
      },
    };
    this.#timers.add(timer);
    return timer;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, ms, signal);
  }

  stop(): void {
    this.#dead = true;
    for (const timer of [...this.#timers]) timer.cancel();
  }
}
