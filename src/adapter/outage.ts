// Owns when a source that is lost as a whole is tried again: one stream at a time goes ahead, on one back-off (R7), and the others
// follow when it was answered. Called by the streams of one source; must never hold back a stream while another one is live.
//
// Each stream on its own back-off would be one try for every watch: the earliest of 1,000 random waits always comes at the same moment,
// so that a fleet that lost its registry together would come back together, and knock many times a second until then (A19).
import { reconnectDelay } from '../kernel/backoff.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Random } from '../kernel/random.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import type { SourceError } from '../model/snapshot.ts';

/** R7: the count of tries starts again after this much health. */
export const HEALTHY_MS = 30_000;
const BASE_MS = 1_000;

export interface OutageDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: TimerWheel;
  /** Cap of the back-off, ms. */
  readonly maxBackoff: number;
}

/** A stream between two lives. */
export interface Waiting {
  /** Its own wait. */
  readonly deadline: Deadline;
  /** What it waits for is the source, not itself: it was live until now, or failed while the source was lost. */
  readonly forSource: boolean;
  /** Its own wait is over. */
  due: boolean;
  /** May open again. */
  readonly go: () => void;
}

/** See the head of the file. `Who` tells the streams apart. */
export class Outage {
  readonly #deps: OutageDeps;
  readonly #waiting = new Map<object, Waiting>();
  readonly #next: Deadline;
  #live = 0;
  #liveSince = 0;
  #tries = 0;
  /** The source is lost: no stream is live, and one that should be is not. */
  #lost = false;
  #scout: object | null = null;

  constructor(deps: OutageDeps) {
    this.#deps = deps;
    this.#next = new Deadline(() => this.#sendScout());
  }

  /** Monotonic ms of the next try of the source; null while it is not lost, or while that try is under way. */
  get nextTryAt(): number | null {
    return this.#lost && this.#next.armed ? this.#next.at : null;
  }

  /** A stream had the first answer of its life. */
  answered(): void {
    if (this.#live++ > 0) return;
    this.#liveSince = this.#deps.clock.now();
    if (!this.#lost) return;
    this.#lost = false;
    this.#scout = null;
    this.#deps.wheel.disarm(this.#next);
    for (const [who, { forSource, due }] of [...this.#waiting]) if (forSource || due) this.#release(who);
  }

  /** A life ended by this error. `live`: it had been answered. */
  failed(who: object, error: SourceError, live: boolean): void {
    if (live) this.#live--;
    if (this.#lost) {
      if (who === this.#scout) this.#tryLater(error);
    } else if (this.#live === 0 && (live || error.causeKind === 'lost')) {
      if (live && this.#deps.clock.now() - this.#liveSince >= HEALTHY_MS) this.#tries = 0;
      this.#lost = true;
      this.#tryLater(error);
    }
  }

  /** The stream may open again when `go` is called: after `ms`, or with the others when the source is lost. */
  wait(who: object, ms: number, live: boolean, go: () => void): void {
    const deadline = new Deadline(() => {
      waiting.due = true;
      if (!this.#lost) this.#release(who);
      else if (this.#scout === null && !this.#next.armed) this.#sendScout();
    });
    const waiting: Waiting = { deadline, forSource: live || this.#lost, due: false, go };
    this.#waiting.set(who, waiting);
    this.#deps.wheel.arm(deadline, ms);
  }

  /** The stream is not wanted any more. `live`: it was, until now. */
  left(who: object, live: boolean): void {
    if (live) this.#live--;
    const waiting = this.#waiting.get(who);
    if (waiting !== undefined) this.#release(who);
    if (who !== this.#scout) return;
    this.#scout = null;
    this.#sendScout();
  }

  /** When a server says when to come again, that takes the place of our back-off; many may have been told the same. */
  #tryLater({ retryAfterMs }: SourceError): void {
    const { random, wheel, maxBackoff } = this.#deps;
    this.#scout = null;
    if (retryAfterMs === undefined) this.#tries++;
    const wait =
      retryAfterMs === undefined
        ? reconnectDelay(this.#tries, random, BASE_MS, maxBackoff)
        : retryAfterMs + random() * Math.max(BASE_MS, retryAfterMs / 2);
    wheel.arm(this.#next, wait);
  }

  /** The one that has waited longest: one that fails goes to the end of the row. */
  #sendScout(): void {
    if (!this.#lost || this.#scout !== null) return;
    for (const [who, { forSource, due }] of this.#waiting) {
      if (!forSource && !due) continue;
      this.#scout = who;
      this.#release(who);
      return;
    }
  }

  #release(who: object): void {
    const waiting = this.#waiting.get(who);
    if (waiting === undefined) return;
    this.#waiting.delete(who);
    this.#deps.wheel.disarm(waiting.deadline);
    waiting.go();
  }
}
