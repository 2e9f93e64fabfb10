// Owns how soon servers that failed may be tried again: with 1,000 watches each opening anew by itself, only one of them may connect.
// Called by adapters whose watches share a connection (polaris, l5). The waiting itself (with its jitter) is the supervisor's; this says
// no, and from when on it will say yes.
import type { Clock } from '../kernel/clock.ts';
import { SourceError } from '../model/snapshot.ts';

/** R7: after this much health the count of failures starts again. */
const HEALTHY_MS = 30_000;
/** Half of R7's bounds: the least that the supervisor waits, too. */
const FIRST_MS = 500;
const MAX_MS = 15_000;

export class Guard {
  readonly #clock: Clock;
  readonly #free: number;
  #failures = 0;
  #notBefore = Number.NEGATIVE_INFINITY;
  #last: SourceError | null = null;

  /** `free`: failures in a row that cost nothing, where each of several servers gets a try. */
  constructor(clock: Clock, free = 0) {
    this.#clock = clock;
    this.#free = free;
  }

  /** The last failure, as long as it is too early to try again; else null. */
  tooEarly(): SourceError | null {
    const wait = this.#notBefore - this.#clock.now();
    if (this.#last === null || wait <= 0) return null;
    const { causeKind, message } = this.#last;
    return new SourceError(causeKind, message, { cause: this.#last, retryAfterMs: wait });
  }

  /** A connection failed that had stood for `livedMs` (0: it never did). Then 0.5 s, 1 s ... 15 s without a try. */
  failed(error: SourceError, livedMs: number): void {
    if (livedMs >= HEALTHY_MS) this.#failures = 0;
    this.#failures++;
    const beyond = this.#failures - this.#free;
    if (beyond <= 0) return;
    this.#last = error;
    this.#notBefore = this.#clock.now() + Math.min(MAX_MS, FIRST_MS * 2 ** Math.min(beyond - 1, 30));
  }
}
