// Owns bounded one-shot retries of control-plane calls (register, deregister, first reads), on polly-js. Called by the keeper and by
// first reads; must never be used on the request path, for a watch or for a reconnect loop.
import polly from 'polly-js';
import { reconnectDelay } from '../kernel/backoff.ts';
import { raceAbort, withDeadline } from '../kernel/cancel.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Random } from '../kernel/random.ts';
import { asSourceError, SourceError } from '../model/snapshot.ts';

/** polly-js cannot cancel its timer: none is longer than this, ms. */
const MAX_DELAY_MS = 2_000;
const MAX_RETRIES = 4;

export interface ControlRetry {
  readonly clock: Clock;
  readonly random: Random;
  /** For the whole of it, waits included, ms. */
  readonly deadlineMs: number;
  /** After the first try; at most 4 are made. */
  readonly retries?: number;
  /** First waiting time before jitter, ms. */
  readonly baseMs?: number;
}

/**
 * Calls until it succeeds, or fails by something that another try cannot mend, or tries or time are used up. Only `lost` is tried
 * again. Rejects with SourceError, or with the signal's reason. Note that a call whose answer was lost may have had its effect.
 */
export async function controlRetry<T>(
  how: ControlRetry,
  outer: AbortSignal,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  outer.throwIfAborted();
  const end = how.clock.now() + how.deadlineMs;
  // polly-js uses a policy and its array up: both are new for every call. A delay of 0 would mean "no more retries".
  const delays = retryDelays(how);
  const attempts = polly()
    .handle((thrown) => !outer.aborted && how.clock.now() < end && worthAnotherTry(asSourceError(thrown)))
    .waitAndRetry(delays)
    // `async`: a synchronous throw inside polly-js' own timer would be uncaught and leave its promise pending for ever.
    .executeForPromise(async () => {
      outer.throwIfAborted();
      const left = end - how.clock.now();
      if (left <= 0) throw new SourceError('lost', `no success within ${how.deadlineMs} ms`);
      return withDeadline(how.clock, left, outer, async (signal) => call(signal));
    });
  try {
    return await raceAbort(attempts, outer);
  } catch (thrown) {
    outer.throwIfAborted();
    throw asSourceError(thrown);
  }
}

function retryDelays(how: ControlRetry): number[] {
  const retries = Math.min(MAX_RETRIES, how.retries ?? 2);
  return Array.from({ length: retries }, (_, n) =>
    Math.max(1, Math.ceil(reconnectDelay(n + 1, how.random, how.baseMs ?? 200, MAX_DELAY_MS))),
  );
}

function worthAnotherTry(error: SourceError): boolean {
  return error.causeKind === 'lost' && (error.retryAfterMs ?? 0) <= MAX_DELAY_MS;
}
