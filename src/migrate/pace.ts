// Owns the pace of calls to one target (W6): a token bucket that counts calls, a batch being one. Called by writer.ts before each send.
// Beats never pass here: a mirror that is busy must not cost a lease.
import type { Clock } from '../kernel/clock.ts';

/** What may be sent at once after a rest: the calls of this time, ms. */
const BURST_MS = 200;
/** W6: at most this many records in one call to an adapter. */
export const MAX_BATCH = 100;

export class Pace {
  readonly #clock: Clock;
  readonly #perMs: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  constructor(clock: Clock, callsPerSecond: number) {
    this.#clock = clock;
    this.#perMs = callsPerSecond / 1_000;
    this.#burst = Math.max(1, this.#perMs * BURST_MS);
    this.#tokens = this.#burst;
    this.#at = clock.now();
  }

  /** Calls that `records` cost where `perCall` of them go into one. */
  static calls(records: number, perCall: number): number {
    return Math.ceil(records / Math.max(1, perCall));
  }

  /** Records that may go together: no batch is worth more calls than one burst, so that a slow registry sees no clumps. */
  batchSize(perCall: number): number {
    return Math.max(1, Math.min(MAX_BATCH, Math.max(1, perCall) * Math.floor(this.#burst)));
  }

  /** Takes `calls` and resolves once they may be made. Rejects with the signal's reason. */
  async spend(calls: number, signal: AbortSignal): Promise<void> {
    const now = this.#clock.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs) - calls;
    this.#at = now;
    signal.throwIfAborted();
    if (this.#tokens < 0) await this.#clock.sleep(Math.ceil(-this.#tokens / this.#perMs), signal);
  }
}
