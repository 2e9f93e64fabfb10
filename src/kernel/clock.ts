// Owns time. Everything else gets a Clock as an argument, so that tests can hold time still.
// Called by every layer; must never know a domain word.

/** A timer that was set; cancelling it twice, or after it fired, does nothing. */
export interface Timer {
  cancel(): void;
}

/** The only source of time. Durations are milliseconds. */
export interface Clock {
  /** Monotonic milliseconds (fractions allowed), never goes back, zero point without meaning. */
  now(): number;
  /** Wall-clock milliseconds since 1970; for logs, files and answers only, never for durations. */
  wallNow(): number;
  /** Calls `fn` once after `ms`. The timer does not keep the process alive. */
  setTimer(ms: number, fn: () => void): Timer;
  /** Resolves after `ms`; rejects with the signal's reason as soon as the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** `Clock.sleep` in terms of `setTimer`; shared by the system clock and the fake one of the tests. */
export function sleepWith(clock: Pick<Clock, 'setTimer'>, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = (): void => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.setTimer(ms, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Node's largest timer; a longer wait fires at once instead, so longer ones are cut to it. */
const MAX_TIMER_MS = 2_147_483_647;

/** The real clock: `performance.now`, `Date.now` and unref'd `setTimeout`. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wallNow: () => Date.now(),
  setTimer(ms, fn) {
    const handle = setTimeout(fn, Math.min(Math.max(ms, 0), MAX_TIMER_MS));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  sleep(ms, signal) {
    return sleepWith(systemClock, ms, signal);
  },
};
