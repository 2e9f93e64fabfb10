// Owns keeping ONE stream of an adapter (a watch, or the list of names) running for ever: opening, first-answer deadline, back-off,
// pacing. Called by the supervisor; must never let a throw, an end or a hang of an adapter reach anybody else (C11).
import { reconnectDelay } from '../kernel/backoff.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Random } from '../kernel/random.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import { asSourceError, SourceError } from '../model/snapshot.ts';
import type { Gate } from './gate.ts';
import { HEALTHY_MS, type Outage } from './outage.ts';

/** R7: a poll loop makes at most this many requests a second, with a burst of as many. */
export const PACE_PER_SECOND = 2;
/** A push stream that never waits must not starve the event loop: after this many items in a row others get a turn. */
const ITEMS_PER_TURN = 32;

/** What the streams of one source share. */
export interface StreamShared {
  readonly clock: Clock;
  readonly random: Random;
  /** One timer for all waits of the source. */
  readonly wheel: TimerWheel;
  /** Bounds how many streams wait for their first answer at once. */
  readonly gate: Gate;
  /** Paces the tries of the source when none of them is live. */
  readonly outage: Outage;
  /** Deadline of the first answer, ms; later ones have the liveness of their protocol. */
  readonly timeout: number;
  /** True where each item costs the registry a request (poll, long poll). */
  readonly paced: boolean;
  readonly maxBackoff: number;
}

export type StreamState =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'live' }
  | { readonly kind: 'lost'; readonly error: SourceError; readonly nextTryAt: number };

/** Who is told. Calls are synchronous; `state` comes before the `item` or after the loss that caused it. */
export interface StreamEvents<T> {
  item(value: T): void;
  lost(error: SourceError): void;
  state(now: StreamState, before: StreamState): void;
}

/** One life of a stream: what ends it before its adapter does. */
interface Life {
  readonly controller: AbortController;
  /** Ends the wait for the adapter, which may hang. */
  interrupt: (reason: unknown) => void;
}

const nothing = (): void => {};

export class StreamLoop<T> {
  readonly #shared: StreamShared;
  readonly #events: StreamEvents<T>;
  readonly #done: Promise<void>;
  #stopped = false;
  /** Counts among the live ones of the source. */
  #live = false;
  #life: Life | null = null;
  #state: StreamState = { kind: 'connecting' };
  #items = 0;
  #tokens = PACE_PER_SECOND;
  #tokensAt: number;

  /** Starts at once, in a later microtask. `open` is called again after every loss. */
  constructor(shared: StreamShared, open: (signal: AbortSignal) => AsyncIterable<T>, events: StreamEvents<T>) {
    this.#shared = shared;
    this.#events = events;
    this.#tokensAt = shared.clock.now();
    this.#done = Promise.resolve().then(() => this.#run(open));
  }

  get state(): StreamState {
    return this.#state;
  }

  /** How many items were read; a change tells that something came in between. */
  get items(): number {
    return this.#items;
  }

  /** Ends the stream; nothing is reported from the moment of the call, even if the adapter hangs. */
  stop(): Promise<void> {
    if (!this.#stopped) {
      this.#stopped = true;
      end(this.#life, new Error('stream stopped'));
      this.#shared.outage.left(this, this.#live);
    }
    return this.#done;
  }

  async #run(open: (signal: AbortSignal) => AsyncIterable<T>): Promise<void> {
    const { clock, random, outage, maxBackoff } = this.#shared;
    for (let attempt = 1; !this.#stopped; attempt++) {
      const { error, healthyMs } = await this.#once(open);
      if (this.#stopped) return;
      if (healthyMs >= HEALTHY_MS) attempt = 1;
      const wait = Math.max(reconnectDelay(attempt, random, 1_000, maxBackoff), error.retryAfterMs ?? 0);
      const live = this.#live;
      this.#live = false;
      outage.failed(this, error, live);
      this.#events.lost(error);
      // Whoever was told may have had enough of this stream.
      if (this.#stopped) return;
      this.#become({ kind: 'lost', error, nextTryAt: clock.now() + wait });
      await new Promise<void>((resolve) => outage.wait(this, wait, live, resolve));
    }
  }

  /** One life of the stream: from opening to its loss. Never rejects. */
  async #once(open: (signal: AbortSignal) => AsyncIterable<T>): Promise<{ error: SourceError; healthyMs: number }> {
    const { clock, wheel, gate, timeout } = this.#shared;
    const life: Life = { controller: new AbortController(), interrupt: nothing };
    this.#life = life;
    const { signal } = life.controller;
    const firstAnswer = new Deadline(() => end(life, new SourceError('lost', `no first answer within ${timeout} ms`)));
    let iterator: AsyncIterator<T> | null = null;
    let liveSince = Number.POSITIVE_INFINITY;
    let leave = nothing;
    try {
      leave = await gate.enter(signal);
      wheel.arm(firstAnswer, timeout);
      iterator = open(signal)[Symbol.asyncIterator]();
      for (;;) {
        const result = await nextOf(iterator, life);
        // The answer and the abort may have come in one turn: what is stopped reports nothing.
        signal.throwIfAborted();
        if (result.done === true) throw new SourceError('lost', 'the stream ended by itself');
        wheel.disarm(firstAnswer);
        leave();
        liveSince = Math.min(liveSince, clock.now());
        this.#take(result.value);
        await this.#pace(signal);
      }
    } catch (thrown) {
      return { error: asSourceError(thrown), healthyMs: clock.now() - liveSince };
    } finally {
      wheel.disarm(firstAnswer);
      leave();
      this.#life = null;
      end(life, new Error('stream over'));
      giveBack(iterator);
    }
  }

  #take(value: T): void {
    this.#items++;
    if (!this.#live) {
      this.#live = true;
      this.#shared.outage.answered();
      this.#become({ kind: 'live' });
    }
    // Whoever was told may have had enough of this stream.
    if (!this.#stopped) this.#events.item(value);
  }

  #become(next: StreamState): void {
    const before = this.#state;
    this.#state = next;
    this.#events.state(next, before);
  }

  async #pace(signal: AbortSignal): Promise<void> {
    if (!this.#shared.paced) {
      if (this.#items % ITEMS_PER_TURN === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      return;
    }
    const now = this.#shared.clock.now();
    this.#tokens = Math.min(PACE_PER_SECOND, this.#tokens + ((now - this.#tokensAt) / 1_000) * PACE_PER_SECOND);
    this.#tokensAt = now;
    this.#tokens--;
    if (this.#tokens < 0) await this.#pause((-this.#tokens / PACE_PER_SECOND) * 1_000, signal);
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    const { wheel } = this.#shared;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        wheel.disarm(deadline);
        reject(signal.reason);
      };
      const deadline = new Deadline(() => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      wheel.arm(deadline, ms);
    });
  }
}

function end(life: Life | null, reason: unknown): void {
  life?.controller.abort(reason);
  life?.interrupt(reason);
}

/** The adapter's next item. One race without a listener at the signal, since 10,000 watches wait here for most of their time. */
function nextOf<T>(iterator: AsyncIterator<T>, life: Life): Promise<IteratorResult<T>> {
  return new Promise((resolve, reject) => {
    life.interrupt = reject;
    iterator.next().then(resolve, reject);
  });
}

/** Tells the adapter that nobody reads on. Its answer is not waited for: it may hang. */
function giveBack<T>(iterator: AsyncIterator<T> | null): void {
  try {
    iterator?.return?.().then(undefined, () => undefined);
  } catch {
    // An iterator that cannot even be returned has nothing left to end.
  }
}
