// Owns the rule for request bodies that come too slowly (proxy-semantics §3): a total time, and a least rate after a grace.
// Called by downstream. Pure arithmetic over elapsed time; the rate rule is that of Apache's mod_reqtimeout (MinRate).

/** Caps of one request's body; milliseconds and bytes per second. */
export interface PaceLimits {
  readonly requestTimeoutMs: number;
  readonly minRate: number;
  readonly minRateAfterMs: number;
}

/** How often the pace is looked at after the grace. */
const LOOK_MS = 1_000;

/** The pace of one request's body; lives as long as the connection. */
export class RequestPace {
  bytes = 0;
  readonly #limits: PaceLimits;
  #elapsed = 0;
  #excused = 0;
  #armedFor = 0;

  constructor(limits: PaceLimits) {
    this.#limits = limits;
  }

  /** A body starts. Returns after how many ms to look. */
  begin(): number {
    this.bytes = 0;
    this.#elapsed = 0;
    this.#excused = 0;
    this.#armedFor = Math.min(this.#limits.minRateAfterMs, this.#limits.requestTimeoutMs);
    return this.#armedFor;
  }

  /** Looks. `stopped`: it was us who did not read, so that time asks for no bytes. Returns after how many ms to look again; -1: too slow. */
  look(lateMs: number, stopped: boolean): number {
    const { requestTimeoutMs, minRate, minRateAfterMs } = this.#limits;
    const passed = this.#armedFor + lateMs;
    this.#elapsed += passed;
    const grace = this.#elapsed - passed < minRateAfterMs;
    if (stopped && !grace) this.#excused += passed;
    if (this.#elapsed >= requestTimeoutMs) return -1;
    const owed = (minRate * (this.#elapsed - minRateAfterMs - this.#excused)) / 1_000;
    if (!stopped && this.bytes < owed) return -1;
    this.#armedFor = Math.min(LOOK_MS, requestTimeoutMs - this.#elapsed);
    return this.#armedFor;
  }
}
