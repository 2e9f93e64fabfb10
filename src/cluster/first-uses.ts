// Owns the names that were asked of the control plane and not answered yet, with the requests that wait (proxy-semantics §18: up to 1 s).
// Called by cluster-set.ts. Every waiter is called exactly once, unless it cancels.
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';

export const FIRST_USE_WAIT_MS = 1_000;

/** Names beyond this are answered `notReady` at once. */
export const MAX_PENDING_NAMES = 10_000;

/** One request that waits for the answer `A`. */
type Waiter<A> = (answer: A) => void;

interface Pending<A> {
  readonly waiters: Set<Waiter<A>>;
  readonly deadline: Deadline;
}

export class FirstUses<A> {
  readonly #wheel: TimerWheel;
  readonly #onTimeout: A;
  readonly #pending = new Map<string, Pending<A>>();

  /** `onTimeout`: what waiters get when no answer came in time. */
  constructor(wheel: TimerWheel, onTimeout: A) {
    this.#wheel = wheel;
    this.#onTimeout = onTimeout;
  }

  get size(): number {
    return this.#pending.size;
  }

  has(name: string): boolean {
    return this.#pending.has(name);
  }

  /** Notes that the name was asked for; false when too many are. Unanswered it is forgotten after a second and may be asked again. */
  start(name: string): boolean {
    if (this.#pending.size >= MAX_PENDING_NAMES) return false;
    const deadline = new Deadline(() => this.answer(name, this.#onTimeout));
    this.#pending.set(name, { waiters: new Set(), deadline });
    this.#wheel.arm(deadline, FIRST_USE_WAIT_MS);
    return true;
  }

  /** Calls `waiter` with the answer of a pending name; the returned function takes it out again. */
  wait(name: string, waiter: Waiter<A>): () => void {
    const waiters = this.#pending.get(name)?.waiters;
    // A wrapper of its own, so that one function may wait twice.
    const own: Waiter<A> = (answer) => waiter(answer);
    waiters?.add(own);
    return () => void waiters?.delete(own);
  }

  /** The answer came: whoever waits gets it. */
  answer(name: string, answer: A): void {
    const pending = this.#pending.get(name);
    if (pending === undefined) return;
    this.#pending.delete(name);
    this.#wheel.disarm(pending.deadline);
    for (const waiter of [...pending.waiters]) {
      // A waiter may cancel another one while it is called.
      if (pending.waiters.delete(waiter)) waiter(answer);
    }
  }

  /** Answers everyone. */
  close(): void {
    for (const name of [...this.#pending.keys()]) this.answer(name, this.#onTimeout);
  }
}
