// Owns one concurrency limit (proxy-semantics §4; Envoy's "circuit breakers"). Called by cluster for the requests in flight, and through
// it by the pools of its endpoints for connections and waiters. Must never queue: being over the limit is an answer.

/** Counts against one cap. `max` may change at any time; what is already counted in stays. */
export class Limit {
  active = 0;
  max: number;

  constructor(max: number) {
    this.max = max;
  }

  /** Counts one in; false when the cap is reached. */
  tryStart(): boolean {
    if (this.active >= this.max) return false;
    this.active++;
    return true;
  }

  /** Counts one out; exactly once per `tryStart` that was true. */
  end(): void {
    this.active--;
  }
}
