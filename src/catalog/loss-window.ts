// Owns the count of what a source lost in the last 10 s (R2), kept incrementally so that no change scans all services.
// Called by the shrink guard; must never look at the clock itself.

export const LOSS_WINDOW_MS = 10_000;
const BUCKET_MS = 50;
const BUCKETS = LOSS_WINDOW_MS / BUCKET_MS;

/** Losses and applied removals in a ring of 50 ms buckets. */
export class LossWindow {
  readonly #lost = new Int32Array(BUCKETS);
  readonly #applied = new Int32Array(BUCKETS);
  #newest = Number.NEGATIVE_INFINITY;
  #lostSum = 0;
  #appliedSum = 0;

  /** Everything that went missing in the window, held or not. */
  lost(now: number): number {
    this.#turn(now);
    return this.#lostSum;
  }

  /** What of it was removed for good. */
  applied(now: number): number {
    this.#turn(now);
    return this.#appliedSum;
  }

  add(now: number, lost: number, applied: number): void {
    this.#turn(now);
    this.#put(this.#newest, lost, applied);
  }

  /** An instance that went missing at `since` is back: it does not count as lost any more. */
  takeBack(now: number, since: number): void {
    this.#turn(now);
    const bucket = Math.floor(since / BUCKET_MS);
    if (bucket > this.#newest - BUCKETS && this.#at(this.#lost, bucket) > 0) this.#put(bucket, -1, 0);
  }

  #put(bucket: number, lost: number, applied: number): void {
    const slot = slotOf(bucket);
    this.#lost[slot] = (this.#lost[slot] ?? 0) + lost;
    this.#applied[slot] = (this.#applied[slot] ?? 0) + applied;
    this.#lostSum += lost;
    this.#appliedSum += applied;
  }

  #at(counts: Int32Array, bucket: number): number {
    return counts[slotOf(bucket)] ?? 0;
  }

  /** Empties the buckets that fell out of the window. */
  #turn(now: number): void {
    const bucket = Math.floor(now / BUCKET_MS);
    if (bucket <= this.#newest) return;
    if (this.#lostSum === 0 && this.#appliedSum === 0) {
      this.#newest = bucket;
      return;
    }
    for (let i = Math.max(this.#newest + 1, bucket - BUCKETS + 1); i <= bucket; i++) {
      this.#lostSum -= this.#at(this.#lost, i);
      this.#appliedSum -= this.#at(this.#applied, i);
      this.#lost[slotOf(i)] = 0;
      this.#applied[slotOf(i)] = 0;
    }
    this.#newest = bucket;
  }
}

function slotOf(bucket: number): number {
  return ((bucket % BUCKETS) + BUCKETS) % BUCKETS;
}
