// Owns how soon servers that failed may be tried again: with 1,000 watches each opening anew by itself, only one of them may connect.
// Called by feed.ts. The waiting itself (with its jitter) is the supervisor's; this says no, and from when on it will say yes.
import type { Clock } from '../../src/kernel/clock.ts';
import { SourceError } from '../../src/model/snapshot.ts';

/** After this much health the count of failures starts again. */
const HEALTHY_MS = 30_000;
const FIRST_MS = 500;
const MAX_MS = 15_000;

export class Guard {
  readonly #clock: Clock;
  /** Tries in a row that cost nothing: each server gets one. */
  readonly #free: number;
  #failures = 0;
  #notBefore = Number.NEGATIVE_INFINITY;
  #last: SourceError | null = null;

  constructor(clock: Clock, servers: number) {
    this.#clock = clock;
    this.#free = servers;
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
