// Owns the end of a data plane's traffic (proxy-semantics §17): lame duck, stop accepting, grace, hard stop. Called by
// data-plane.ts. Readiness and what is registered for this host are app's matter; it starts this after them.
import type { Clock } from '../kernel/clock.ts';
import type { Listener } from './listener.ts';

export const LAME_DUCK_MS = 1_500;
export const DRAIN_GRACE_MS = 30_000;
/** How often the counts are looked at. */
const LOOK_MS = 20;
/** A connection without a request yet may be sending one; it is closed only after this. */
const FRESH_MS = 500;
/** The lame duck ends early only when nobody has connected for so long: whoever is told to close comes back once more. */
const QUIET_MS = 100;
/** Answered connections get this long to be closed by their clients. */
const LINGER_MS = 500;
/** What the hard stop wrote gets this long to leave. */
const FLUSH_MS = 100;

/** What a drain asks of the listeners. */
export type Drained = Pick<
  Listener,
  'idle' | 'pending' | 'connections' | 'accepted' | 'closeIdle' | 'hardStop' | 'destroy' | 'stop'
> & {
  draining: boolean;
};

/** One drain; `run` once. */
export class Drain {
  readonly #listeners: () => readonly Drained[];
  readonly #clock: Clock;
  #hard = false;

  constructor(listeners: () => readonly Drained[], clock: Clock) {
    this.#listeners = listeners;
    this.#clock = clock;
  }

  /** The second signal: no more waiting. */
  hard(): void {
    this.#hard = true;
  }

  /** Resolves when no connection is left. */
  async run(): Promise<void> {
    const listeners = this.#listeners();
    for (const listener of listeners) listener.draining = true;
    await this.#until(LAME_DUCK_MS, this.#quiet(listeners));
    await Promise.all(listeners.map((listener) => listener.stop()));
    const stopped = this.#clock.now();
    const nothingLeft = (): boolean => {
      const fresh = this.#clock.now() - stopped >= FRESH_MS;
      for (const listener of listeners) listener.closeIdle(fresh);
      return sum(listeners, 'pending') === 0 && (fresh || sum(listeners, 'idle') === 0);
    };
    if (await this.#until(DRAIN_GRACE_MS, nothingLeft)) {
      await this.#until(LINGER_MS, () => sum(listeners, 'connections') === 0);
    } else {
      for (const listener of listeners) listener.hardStop();
      await this.#clock.sleep(FLUSH_MS);
    }
    for (const listener of listeners) listener.destroy();
  }

  /** No idle connection is left, and none was accepted in the last 100 ms. */
  #quiet(listeners: readonly Drained[]): () => boolean {
    let accepted = -1;
    let since = this.#clock.now();
    return () => {
      const now = this.#clock.now();
      const count = sum(listeners, 'accepted');
      if (count !== accepted) {
        accepted = count;
        since = now;
      }
      return sum(listeners, 'idle') === 0 && now - since >= QUIET_MS;
    };
  }

  /** Waits until `done`, at most `ms`, not at all after `hard`; says whether it was done. */
  async #until(ms: number, done: () => boolean): Promise<boolean> {
    const end = this.#clock.now() + ms;
    for (;;) {
      if (this.#hard) return false;
      if (done()) return true;
      if (this.#clock.now() >= end) return false;
      await this.#clock.sleep(LOOK_MS);
    }
  }
}

function sum(listeners: readonly Drained[], what: 'idle' | 'pending' | 'connections' | 'accepted'): number {
  let n = 0;
  for (const listener of listeners) n += listener[what];
  return n;
}
