// Owns the retry budget of one cluster (proxy-semantics §5.5): how many retries may start. Called by cluster.
// Must never be asked after the retry started: a retry counts from the moment it enters back-off.
import type { RetryPolicy } from '../model/policy.ts';

type BudgetPolicy = RetryPolicy['budget'];

/** Parts of the window; it moves by one part at a time. */
const SLOTS = 10;

/** `max(minConcurrency, floor(percent / 100 · base))`: the retries that `base` attempts allow. */
export function allowedRetries(policy: BudgetPolicy, base: number): number {
  // percent · base first: 0.2 · 5 is not exactly 1 in binary, 20 · 5 / 100 is.
  return Math.max(policy.minConcurrency, Math.floor((policy.percent * base) / 100));
}

/**
 * Two forms. `interval` above 0: retries started in the window against first attempts started in it, in ten parts, so a part of up to a
 * tenth of the window is forgotten at once. `interval` 0 (Envoy's older form): retries in flight against requests in flight.
 */
export class RetryBudget {
  // Plain arrays: ten small integers weigh less than a typed array's header.
  readonly #firsts: number[] = new Array(SLOTS).fill(0);
  readonly #retries: number[] = new Array(SLOTS).fill(0);
  #firstSum = 0;
  #retrySum = 0;
  #interval = 0;
  /** Number of the part that is being filled. */
  #part = 0;
  #active = 0;

  /** Retries in flight or in back-off; only kept by the form without a window. */
  get activeRetries(): number {
    return this.#active;
  }

  /** Counts a first attempt. `now` monotonic ms. */
  countFirst(policy: BudgetPolicy, now: number): void {
    if (policy.interval <= 0) return;
    const slot = this.#advance(policy.interval, now);
    this.#firsts[slot] = (this.#firsts[slot] ?? 0) + 1;
    this.#firstSum++;
  }

  /** Takes one retry; false when the budget is used up. `inFlight`: active and pending requests, used by the form without a window. */
  tryRetry(policy: BudgetPolicy, now: number, inFlight: number): boolean {
    if (policy.interval <= 0) return this.#tryConcurrent(policy, inFlight);
    const slot = this.#advance(policy.interval, now);
    if (this.#retrySum >= allowedRetries(policy, this.#firstSum)) return false;
    this.#retries[slot] = (this.#retries[slot] ?? 0) + 1;
    this.#retrySum++;
    return true;
  }

  /** Ends a retry that `tryRetry` granted; the windowed form does not care. */
  endRetry(): void {
    if (this.#active > 0) this.#active--;
  }

  #tryConcurrent(policy: BudgetPolicy, inFlight: number): boolean {
    // No more retries than requests can be in flight; so a retry whose end was never told cannot block the budget for ever.
    this.#active = Math.min(this.#active, inFlight);
    if (this.#active >= allowedRetries(policy, inFlight)) return false;
    this.#active++;
    return true;
  }

  /** Moves the window to `now`, forgetting what has left it, and answers the slot to count in. */
  #advance(interval: number, now: number): number {
    if (interval !== this.#interval) this.#restart(interval, now);
    const part = Math.floor((now * SLOTS) / interval);
    if (part > this.#part) {
      const gone = Math.min(part - this.#part, SLOTS);
      for (let i = 1; i <= gone; i++) this.#forget((this.#part + i) % SLOTS);
      this.#part = part;
    }
    return this.#part % SLOTS;
  }

  #forget(slot: number): void {
    this.#firstSum -= this.#firsts[slot] ?? 0;
    this.#retrySum -= this.#retries[slot] ?? 0;
    this.#firsts[slot] = 0;
    this.#retries[slot] = 0;
  }

  #restart(interval: number, now: number): void {
    for (let slot = 0; slot < SLOTS; slot++) this.#forget(slot);
    this.#interval = interval;
    this.#part = Math.floor((now * SLOTS) / interval);
  }
}
