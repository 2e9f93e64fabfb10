// Owns how many blocking queries are held per agent address, over all sources of this process (protocol notes, section 3, rule 8).
// Called by watch.ts and query.ts; must never lose a slot.
import { MAX_BLOCKING } from './config.ts';

/** One blocking query's place; giving it back twice does nothing. */
export interface Slot {
  release(): void;
}

export class Slots {
  #held = 0;
  #most = MAX_BLOCKING;
  #services = 0;
  /** Who waits for a service's place, with the most that it allows. */
  readonly #waiting = new Map<() => void, number>();

  /** Blocking queries held now. */
  get held(): number {
    return this.#held;
  }

  /** How many there are; more wakes those who wait. Fewer takes none away. */
  resize(most: number): void {
    this.#most = most;
    let room = most - 1 - this.#held;
    for (const [wake, max] of [...this.#waiting]) {
      if (room-- <= 0 || !this.#roomFor(max)) continue;
      this.#waiting.delete(wake);
      wake();
    }
  }

  /** A place for a query that everybody of a source shares; there always is one. */
  take(): Slot {
    return this.#give(0);
  }

  /** A place for one service, of which there are at most `max`; null: watch it with the others. */
  tryTake(max: number): Slot | null {
    // One place stays for the query that watches all the others.
    return this.#roomFor(max) ? this.#give(1) : null;
  }

  /** Calls `wake` once, when `tryTake(max)` would get a place; the answer takes the call back. */
  whenFree(max: number, wake: () => void): () => void {
    this.#waiting.set(wake, max);
    return () => void this.#waiting.delete(wake);
  }

  #roomFor(max: number): boolean {
    return this.#services < max && this.#held < this.#most - 1;
  }

  #give(services: number): Slot {
    this.#held++;
    this.#services += services;
    let given = true;
    return {
      release: () => {
        if (!given) return;
        given = false;
        this.#held--;
        this.#services -= services;
        const [first] = this.#waiting;
        if (first === undefined || !this.#roomFor(first[1])) return;
        this.#waiting.delete(first[0]);
        first[0]();
      },
    };
  }
}

const byOrigin = new Map<string, { slots: Slots; users: number }>();

/** The slots of an agent, shared by all that hold them at the same time. */
export function holdSlots(origin: string): { slots: Slots; leave(): void } {
  const entry = byOrigin.get(origin) ?? { slots: new Slots(), users: 0 };
  byOrigin.set(origin, entry);
  entry.users++;
  let held = true;
  return {
    slots: entry.slots,
    leave() {
      if (!held) return;
      held = false;
      if (--entry.users === 0) byOrigin.delete(origin);
    },
  };
}
