// Owns the one word for how a source is (R1: connecting, live, stale, failed), counted from its streams. Called by the supervisor
// alone; every change costs constant time. Expiry (`expireAfter`) is the catalog's matter.
import type { Clock } from '../kernel/clock.ts';
import type { SourceError, SourceErrorCause } from '../model/snapshot.ts';
import type { StreamState } from './stream-loop.ts';

export type SourceState = 'connecting' | 'live' | 'stale' | 'failed';

export interface SourceSummary {
  /** connecting: never heard · live · stale: lost after having been heard · failed: never heard and refused. */
  readonly state: SourceState;
  /** Age of this state, ms. */
  readonly sinceMs: number;
  readonly cause: SourceErrorCause | null;
  /** Watches, and those of them that are lost now. */
  readonly watched: number;
  readonly lostWatches: number;
  readonly lastError: string | null;
  /** Time to the next try of the earliest lost stream, ms. */
  readonly nextTryInMs: number | null;
}

/** The state of a stream that does not exist. */
export const noStreams: StreamState = { kind: 'connecting' };

export class SourceStatus {
  readonly #clock: Clock;
  readonly #onChange: (summary: SourceSummary) => void;
  #list: StreamState | null = null;
  #watches = 0;
  #lost = 0;
  #live = 0;
  #heard = false;
  #limit: SourceError | null = null;
  #lastError: SourceError | null = null;
  #state: SourceState = 'connecting';
  #since: number;

  constructor(clock: Clock, onChange: (summary: SourceSummary) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
    this.#since = clock.now();
  }

  get lostWatches(): number {
    return this.#lost;
  }

  listBecame(state: StreamState): void {
    this.#list = state;
    this.#hear(state);
  }

  /** More services are asked for than may be watched, or (null) not any more. */
  limited(error: SourceError | null): void {
    this.#limit = error;
    if (error !== null) this.#lastError = error;
    this.#judge();
  }

  watchBegan(): void {
    this.#watches++;
  }

  watchBecame(now: StreamState, before: StreamState): void {
    this.#count(before, -1);
    this.#count(now, 1);
    this.#hear(now);
  }

  watchEnded(last: StreamState): void {
    this.#watches--;
    this.#count(last, -1);
    this.#judge();
  }

  summary(watched: number, nextTryAt: number): SourceSummary {
    const now = this.#clock.now();
    const bad = this.#state === 'stale' || this.#state === 'failed';
    return {
      state: this.#state,
      sinceMs: now - this.#since,
      cause: bad ? (this.#lastError?.causeKind ?? 'lost') : null,
      watched,
      lostWatches: this.#lost,
      lastError: this.#lastError?.message ?? null,
      nextTryInMs: Number.isFinite(nextTryAt) ? Math.max(0, nextTryAt - now) : null,
    };
  }

  #count(state: StreamState, by: number): void {
    if (state.kind === 'lost') this.#lost += by;
    if (state.kind === 'live') this.#live += by;
  }

  #hear(state: StreamState): void {
    if (state.kind === 'live') this.#heard = true;
    if (state.kind === 'lost') this.#lastError = state.error;
    this.#judge();
  }

  #judge(): void {
    const next = this.#judged();
    if (next === this.#state) return;
    this.#state = next;
    this.#since = this.#clock.now();
    this.#onChange(this.summary(this.#watches, Number.POSITIVE_INFINITY));
  }

  #judged(): SourceState {
    const down = this.#list?.kind === 'lost' || (this.#lost > 0 && this.#live === 0) || this.#limit !== null;
    if (this.#heard) return down ? 'stale' : 'live';
    // Unreachable may still come; a refusal (rights, config, wrong server) will not without a person.
    return down && this.#lastError !== null && this.#lastError.causeKind !== 'lost' ? 'failed' : 'connecting';
  }
}
