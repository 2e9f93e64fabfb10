// Owns the breaker of one endpoint (proxy-semantics §8): closed → open → half-open. Called by cluster, which owns the timer that wakes it.
// Must never allocate or read a clock on a success: it stands on the request path.
import type { BreakerPolicy } from '../model/policy.ts';

const BUCKETS = 10;

/** Results of the last window in ten buckets. */
class ResultWindow {
  readonly #failures: number[] = new Array(BUCKETS).fill(0);
  readonly #results: number[] = new Array(BUCKETS).fill(0);
  #bucket = 0;
  failures = 0;
  results = 0;

  /** Counts one result at `now`, after forgetting the buckets that left a window of `length` ms. */
  count(failed: boolean, length: number, now: number): void {
    const bucket = Math.floor((now * BUCKETS) / length);
    if (bucket !== this.#bucket) this.#advance(bucket);
    const slot = bucket % BUCKETS;
    this.#results[slot] = (this.#results[slot] ?? 0) + 1;
    this.results++;
    if (!failed) return;
    this.#failures[slot] = (this.#failures[slot] ?? 0) + 1;
    this.failures++;
  }

  clear(): void {
    this.#failures.fill(0);
    this.#results.fill(0);
    this.failures = 0;
    this.results = 0;
  }

  #advance(bucket: number): void {
    const gone = bucket - this.#bucket;
    // Backwards: the policy's window changed, so bucket numbers mean something else.
    if (gone >= BUCKETS || gone < 0) this.clear();
    else for (let i = 1; i <= gone; i++) this.#forget((this.#bucket + i) % BUCKETS);
    this.#bucket = bucket;
  }

  #forget(slot: number): void {
    this.failures -= this.#failures[slot] ?? 0;
    this.results -= this.#results[slot] ?? 0;
    this.#failures[slot] = 0;
    this.#results[slot] = 0;
  }
}

type BreakerState =
  | { readonly kind: 'closed'; consecutive: number }
  /** `reopened`: how often in a row a probe failed. `until`: monotonic ms. */
  | { readonly kind: 'open'; readonly until: number; readonly reopened: number }
  | { readonly kind: 'halfOpen'; readonly reopened: number; probing: boolean; successes: number };

/**
 * Consecutive failures and error rate open it; after the sleep window `wake` makes it half-open with exactly one slot. Results are told
 * by `success` and `failure` (closed) or by `probeSucceeded`, `probeFailed`, `probeIgnored` (the attempt that took the slot): an attempt
 * that started before the opening says nothing about the state after it.
 */
export class Breaker {
  #state: BreakerState = { kind: 'closed', consecutive: 0 };
  readonly #window = new ResultWindow();

  get kind(): 'closed' | 'open' | 'halfOpen' {
    return this.#state.kind;
  }

  /** Monotonic ms at which an open breaker may be woken; 0 otherwise. */
  get openUntil(): number {
    return this.#state.kind === 'open' ? this.#state.until : 0;
  }

  /** Whether an ordinary attempt may start. */
  get closed(): boolean {
    return this.#state.kind === 'closed';
  }

  /** Whether the one slot of a half-open breaker is free. */
  get slotFree(): boolean {
    return this.#state.kind === 'halfOpen' && !this.#state.probing;
  }

  /** Counts a success of an ordinary attempt. `now` monotonic ms. */
  success(policy: BreakerPolicy, now: number): void {
    const state = this.#state;
    if (state.kind !== 'closed') return;
    state.consecutive = 0;
    this.#window.count(false, policy.window, now);
  }

  /** Counts a failure of an ordinary attempt; true when this one opened the breaker. */
  failure(policy: BreakerPolicy, now: number): boolean {
    const state = this.#state;
    if (state.kind !== 'closed') return false;
    state.consecutive++;
    this.#window.count(true, policy.window, now);
    const { failures, results } = this.#window;
    const rateBroken = results >= policy.minimumRequests && failures * 100 >= policy.errorPercent * results;
    if (state.consecutive < policy.consecutiveFailures && !rateBroken) return false;
    this.#open(policy, now, 0);
    return true;
  }

  /** Open and due → half-open with a free slot; true when that happened. */
  wake(now: number): boolean {
    const state = this.#state;
    if (state.kind !== 'open' || now < state.until) return false;
    this.#state = { kind: 'halfOpen', reopened: state.reopened, probing: false, successes: 0 };
    return true;
  }

  /** Takes the slot; false when there is none or it is taken. */
  takeSlot(): boolean {
    if (this.#state.kind !== 'halfOpen' || this.#state.probing) return false;
    this.#state.probing = true;
    return true;
  }

  /** The probe succeeded: closes after `halfOpenSuccesses` in a row (then every counter starts anew), else frees the slot. */
  probeSucceeded(policy: BreakerPolicy): void {
    const state = this.#state;
    if (state.kind !== 'halfOpen') return;
    state.probing = false;
    state.successes++;
    if (state.successes >= policy.halfOpenSuccesses) this.reset();
  }

  /** The probe failed: open again for twice the time. */
  probeFailed(policy: BreakerPolicy, now: number): void {
    if (this.#state.kind === 'halfOpen') this.#open(policy, now, this.#state.reopened + 1);
  }

  /** The probe told nothing (the client went away): the slot is free again. */
  probeIgnored(): void {
    if (this.#state.kind === 'halfOpen') this.#state.probing = false;
  }

  /** Closed, with nothing counted. */
  reset(): void {
    this.#state = { kind: 'closed', consecutive: 0 };
    this.#window.clear();
  }

  #open(policy: BreakerPolicy, now: number, reopened: number): void {
    this.#state = { kind: 'open', until: now + sleepTime(policy, reopened), reopened };
  }
}

/** ms that a breaker stays open after `reopened` failed probes in a row: `min(maxSleepWindow, sleepWindow · 2^reopened)`. */
export function sleepTime(policy: BreakerPolicy, reopened: number): number {
  return Math.min(Math.max(policy.maxSleepWindow, policy.sleepWindow), policy.sleepWindow * 2 ** Math.min(reopened, 30));
}
