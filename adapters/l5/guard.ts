// Owns how soon a server that failed may be tried again: with 1,000 watches each opening anew by itself, only one of them may connect.
// Called by poller.ts. The waiting itself (with its jitter) is the supervisor's; this says no, and from when on it will say yes.
import type { Clock } from '../../src/kernel/clock.ts';
import { SourceError } from '../../src/model/snapshot.ts';

/** R7: after this much health the count of failures starts again. */
const HEALTHY_MS = 30_000;
const FIRST_MS = 500;
const MAX_MS = 15_000;

export class Guard {
  readonly #clock: Clock;
  #failures = 0;
  #notBefore = Number.NEGATIVE_INFINITY;
  #last: SourceError | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The last failure, as long as it is too early to try again; else null. */
  tooEarly(): SourceError | null {
    const wait = this.#notBefore - this.#clock.now();
    if (this.#last === null || wait <= 0) return null;
    return new SourceError(this.#last.causeKind, this.#last.message, { cause: this.#last, retryAfterMs: wait });
  }

  /** `livedMs`: how long the connection had stood; 0 when it never did. Half of R7's cap: the least that the supervisor waits, too. */
  failed(error: SourceError, livedMs: number): void {
    if (livedMs >= HEALTHY_MS) this.#failures = 0;
    this.#failures++;
    this.#last = error;
    this.#notBefore = this.#clock.now() + Math.min(MAX_MS, FIRST_MS * 2 ** Math.min(this.#failures - 1, 30));
  }
}
