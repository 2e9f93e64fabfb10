// Owns keeping ONE stream of an adapter (a watch, or the list of names) running for ever: opening, first-answer deadline, back-off,
// pacing. Called by the supervisor; must never let a throw, an end or a hang of an adapter reach anybody else (C11).
import { reconnectDelay } from '../kernel/backoff.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Random } from '../kernel/random.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import { asSourceError, SourceError } from '../model/snapshot.ts';
import type { Gate } from './gate.ts';
import { HEALTHY_MS, type Outage } from './outage.ts';
import type { TurnBudget } from './turn-budget.ts';

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
  /** Spreads what wakes many streams at once. */
  readonly turn: TurnBudget;
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

/** What is kept running, and who is told. Calls are synchronous; `state` comes before the `item` or after the loss that caused it. */
export interface StreamUser<T> {
  /** Called again after every loss. */
  open(signal: AbortSignal): AsyncIterable<T>;
  item(value: T): void;
  lost(error: SourceError): void;
  state(now: StreamState, before: StreamState): void;
}

/** One life of a stream. What comes of one that is not the loop's present life any more is nobody's business. */
interface Life<T> {
  readonly controller: AbortController;
  iterator: AsyncIterator<T> | null;
  /** Of the first answer, later of a pause. */
  deadline: Deadline | null;
  /** Gives the place at the gate back. */
  leave: () => void;
  /** Monotonic ms of the first answer; infinite before. */
  liveSince: number;
}

const nothing = (): void => {};
const CONNECTING: StreamState = { kind: 'connecting' };
const LIVE: StreamState = { kind: 'live' };

/** No async function waits for an item: ten thousand streams wait for most of their time, and two frames each would be half of them. */
export class StreamLoop<T> {
  readonly #shared: StreamShared;
  readonly #user: StreamUser<T>;
  #stopped = false;
  /** Counts among the live ones of the source. */
  #live = false;
  /** Null before the start, between two lives and after the stop. */
  #life: Life<T> | null = null;
  #attempt = 1;
  #state = CONNECTING;
  #items = 0;
  #tokens = PACE_PER_SECOND;
  #tokensAt: number;

  /** Starts at once, in a later microtask. */
  constructor(shared: StreamShared, user: StreamUser<T>) {
    this.#shared = shared;
    this.#user = user;
    this.#tokensAt = shared.clock.now();
    queueMicrotask(() => void this.#begin());
  }

  get state(): StreamState {
    return this.#state;
  }

  /** How many items were read; a change tells that something came in between. */
  get items(): number {
    return this.#items;
  }

  /** Ends the stream; nothing is reported from the moment of the call, even if the adapter hangs. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    if (this.#life !== null) this.#end(this.#life, new Error('stream stopped'));
    this.#shared.outage.left(this, this.#live);
  }

  /** Opens one life of the stream. Never rejects: a fault of the adapter is a loss. */
  async #begin(): Promise<void> {
    if (this.#stopped) return;
    const { wheel, gate, timeout } = this.#shared;
    const controller = new AbortController();
    const life: Life<T> = { controller, iterator: null, deadline: null, leave: nothing, liveSince: Number.POSITIVE_INFINITY };
    this.#life = life;
    try {
      const leave = await gate.enter(controller.signal);
      if (this.#life !== life) return leave();
      life.leave = leave;
      life.deadline = new Deadline(() => this.#lose(life, new SourceError('lost', `no first answer within ${timeout} ms`)));
      wheel.arm(life.deadline, timeout);
      life.iterator = this.#user.open(controller.signal)[Symbol.asyncIterator]();
      this.#ask(life, life.iterator);
    } catch (thrown) {
      this.#lose(life, thrown);
    }
  }

  /** Asks the adapter for its next item, which may never come. */
  #ask(life: Life<T>, iterator: AsyncIterator<T>): void {
    try {
      iterator.next().then(
        (result) => this.#shared.turn.run(() => this.#onResult(life, iterator, result)),
        (thrown: unknown) => this.#shared.turn.run(() => this.#lose(life, thrown)),
      );
    } catch (thrown) {
      this.#lose(life, thrown);
    }
  }

  #onResult(life: Life<T>, iterator: AsyncIterator<T>, result: IteratorResult<T>): void {
    if (this.#life !== life) return;
    try {
      if (result.done === true) throw new SourceError('lost', 'the stream ended by itself');
      this.#answered(life);
      this.#take(result.value);
      // Whoever was told may have had enough of this stream.
      if (this.#life !== life) return;
      this.#askOn(life, iterator);
    } catch (thrown) {
      this.#lose(life, thrown);
    }
  }

  /** The first answer of a life ends the waits for it. */
  #answered(life: Life<T>): void {
    const { wheel, clock } = this.#shared;
    if (life.liveSince !== Number.POSITIVE_INFINITY) return;
    life.liveSince = clock.now();
    if (life.deadline !== null) wheel.disarm(life.deadline);
    life.deadline = null;
    life.leave();
    life.leave = nothing;
  }

  #lose(life: Life<T>, thrown: unknown): void {
    if (this.#life !== life) return;
    const { clock, random, outage, maxBackoff } = this.#shared;
    const error = asSourceError(thrown);
    if (clock.now() - life.liveSince >= HEALTHY_MS) this.#attempt = 1;
    this.#end(life, new Error('stream over'));
    const wait = Math.max(reconnectDelay(this.#attempt, random, 1_000, maxBackoff), error.retryAfterMs ?? 0);
    this.#attempt++;
    const live = this.#live;
    this.#live = false;
    outage.failed(this, error, live);
    this.#user.lost(error);
    // Whoever was told may have had enough of this stream.
    if (this.#stopped) return;
    this.#become({ kind: 'lost', error, nextTryAt: clock.now() + wait });
    outage.wait(this, wait, live, () => void this.#begin());
  }

  /** Nothing of this life is heard any more; the adapter is told that nobody reads on. */
  #end(life: Life<T>, reason: Error): void {
    this.#life = null;
    if (life.deadline !== null) this.#shared.wheel.disarm(life.deadline);
    life.leave();
    life.controller.abort(reason);
    giveBack(life.iterator);
  }

  #take(value: T): void {
    this.#items++;
    if (!this.#live) {
      this.#live = true;
      this.#shared.outage.answered();
      this.#become(LIVE);
    }
    // Whoever was told may have had enough of this stream.
    if (!this.#stopped) this.#user.item(value);
  }

  #become(next: StreamState): void {
    const before = this.#state;
    this.#state = next;
    this.#user.state(next, before);
  }

  /** Asks for the next item as soon as the pace allows it. */
  #askOn(life: Life<T>, iterator: AsyncIterator<T>): void {
    const { paced, wheel } = this.#shared;
    if (!paced && this.#items % ITEMS_PER_TURN === 0) {
      setImmediate(() => {
        if (this.#life === life) this.#ask(life, iterator);
      });
      return;
    }
    const wait = paced ? this.#waitForToken() : 0;
    if (wait <= 0) {
      this.#ask(life, iterator);
      return;
    }
    life.deadline = new Deadline(() => {
      life.deadline = null;
      this.#ask(life, iterator);
    });
    wheel.arm(life.deadline, wait);
  }

  /** Takes a token; the answer is how long to wait for it, ms. */
  #waitForToken(): number {
    const now = this.#shared.clock.now();
    this.#tokens = Math.min(PACE_PER_SECOND, this.#tokens + ((now - this.#tokensAt) / 1_000) * PACE_PER_SECOND);
    this.#tokensAt = now;
    this.#tokens--;
    return (-this.#tokens / PACE_PER_SECOND) * 1_000;
  }
}

/** Tells the adapter that nobody reads on. Its answer is not waited for: it may hang. */
function giveBack<T>(iterator: AsyncIterator<T> | null): void {
  try {
    iterator?.return?.().then(undefined, () => undefined);
  } catch {
    // An iterator that cannot even be returned has nothing left to end.
  }
}
