// Owns the breaker of one endpoint (proxy-semantics §8): closed → open → half-open. Called by cluster, which owns the timer that wakes it.
// Must never allocate or read a clock on a success: it stands on the request path.
import type { BreakerPolicy } from '../model/policy.ts';

const BUCKETS = 10;
/** ms between the last failure and an early probe, and so the least between two of them. */
export const EARLY_PROBE_MS = 1_000;

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
  /** `reopened`: how often in a row a regular probe failed. `until`, `earlyAt`: monotonic ms. `offered`: `earlyAt` has passed. */
  | { readonly kind: 'open'; readonly until: number; readonly reopened: number; readonly earlyAt: number; offered: boolean }
  /** `until`: the end of the sleep window that an early one is in; 0 for a regular one. */
  | { readonly kind: 'halfOpen'; readonly reopened: number; until: number; probing: boolean; successes: number };

/**
 * Consecutive failures and error rate open it; after the sleep window `wake` makes it half-open with exactly one slot. Inside the window
 * `offerEarly` offers that slot a second after each failure, for a cluster with too few endpoints left; an early probe that fails changes
 * neither the window nor its doubling. Results are told by `success` and `failure` (closed) or by `probeSucceeded`, `probeFailed`, `probeIgnored` (the attempt that took the slot): an attempt
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

  /** Monotonic ms at which `wake` or `offerEarly` has something to do; 0 for never. */
  get wakeAt(): number {
    const state = this.#state;
    if (state.kind === 'open') return state.offered ? state.until : Math.min(state.earlyAt, state.until);
    return state.kind === 'halfOpen' && !state.probing ? state.until : 0;
  }

  /** Whether the sleep window still runs, early half-open included: for panic it is not available. */
  get sleeping(): boolean {
    return this.#state.kind === 'open' || (this.#state.kind === 'halfOpen' && this.#state.until > 0);
  }

  /** Whether an ordinary attempt may start. */
  get closed(): boolean {
    return this.#state.kind === 'closed';
  }

  /** Whether the one slot of a breaker that is half-open after its sleep window is free. */
  get slotFree(): boolean {
    return this.#state.kind === 'halfOpen' && this.#state.until === 0 && !this.#state.probing;
  }

  /** Whether the one slot may be taken before the end of the sleep window. */
  get earlySlotFree(): boolean {
    const state = this.#state;
    return state.kind === 'open' ? state.offered : state.kind === 'halfOpen' && state.until > 0 && !state.probing;
  }

  /** Monotonic ms since which an early slot has been due; 0 for any other slot. */
  get earlySince(): number {
    return this.#state.kind === 'open' ? this.#state.earlyAt : 0;
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

  /** The sleep window is over → half-open with a free slot; true when that happened. An early probe in flight is awaited. */
  wake(now: number): boolean {
    const state = this.#state;
    if (this.wakeAt === 0 || state.kind === 'closed' || now < state.until) return false;
    if (state.kind === 'halfOpen') state.until = 0;
    else this.#state = { kind: 'halfOpen', reopened: state.reopened, until: 0, probing: false, successes: 0 };
    return true;
  }

  /** Open and a second past the last failure → its slot may be taken early; true when that happened. */
  offerEarly(now: number): boolean {
    const state = this.#state;
    if (state.kind !== 'open' || state.offered || now < state.earlyAt) return false;
    state.offered = true;
    return true;
  }

  /** Takes the slot, regular or early; false when there is none or it is taken. */
  takeSlot(): boolean {
    const state = this.#state;
    if (state.kind === 'open' && state.offered) {
      this.#state = { kind: 'halfOpen', reopened: state.reopened, until: state.until, probing: true, successes: 0 };
      return true;
    }
    if (state.kind !== 'halfOpen' || state.probing) return false;
    state.probing = true;
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

  /** The probe failed: a regular one opens again for twice the time, an early one for the rest of the window. */
  probeFailed(policy: BreakerPolicy, now: number): void {
    const state = this.#state;
    if (state.kind !== 'halfOpen') return;
    if (state.until === 0) this.#open(policy, now, state.reopened + 1);
    else this.#sleepOn(state.until, now, state.reopened);
  }

  /** The probe told nothing (the client went away): a regular slot is free again, an early one is offered again a second later. */
  probeIgnored(now: number): void {
    const state = this.#state;
    if (state.kind !== 'halfOpen') return;
    if (state.until === 0) state.probing = false;
    else this.#sleepOn(state.until, now, state.reopened);
  }

  /** Closed, with nothing counted. */
  reset(): void {
    this.#state = { kind: 'closed', consecutive: 0 };
    this.#window.clear();
  }

  #open(policy: BreakerPolicy, now: number, reopened: number): void {
    const until = now + sleepTime(policy, reopened);
    this.#state = { kind: 'open', until, reopened, earlyAt: now + EARLY_PROBE_MS, offered: false };
  }

  /** Back to the window that an early probe was in; a window about to end waits for the second between two probes. */
  #sleepOn(until: number, now: number, reopened: number): void {
    const earlyAt = now + EARLY_PROBE_MS;
    this.#state = { kind: 'open', until: Math.max(until, earlyAt), reopened, earlyAt, offered: false };
  }
}

/** ms that a breaker stays open after `reopened` failed probes in a row: `min(maxSleepWindow, sleepWindow · 2^reopened)`. */
export function sleepTime(policy: BreakerPolicy, reopened: number): number {
  return Math.min(Math.max(policy.maxSleepWindow, policy.sleepWindow), policy.sleepWindow * 2 ** Math.min(reopened, 30));
}
