// Owns small helpers around AbortSignal and deadlines for control-plane calls (never used on the request path).
import type { Clock } from './clock.ts';

/** Runs `call` with a signal that aborts at the outer signal or after `ms`; the overall deadline of one control-plane call. */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  outer: AbortSignal,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  outer.throwIfAborted();
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(outer.reason);
  outer.addEventListener('abort', onAbort, { once: true });
  const timer = clock.setTimer(ms, () => controller.abort(new Error(`no answer within ${ms} ms`)));
  try {
    return await raceAbort(call(controller.signal), controller.signal);
  } finally {
    timer.cancel();
    outer.removeEventListener('abort', onAbort);
  }
}

/** Settles like `promise`, or rejects with the signal's reason as soon as it aborts. */
export function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
