// Owns one blocking query: the next request by the rules of blocking.ts, its pace, its slot's end. Called by watch.ts, firehose.ts,
// names.ts and the state store; must never retry (every failure is thrown) and never abort a plain query that the agent still holds.
import { raceAbort } from '../../src/kernel/cancel.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { Bucket, type Cursor, deadlineMs, FIRST_WAIT_MS, HEADERLESS_POLL_MS, START, step, waitMs } from './blocking.ts';
import type { Answer, Query } from './client.ts';
import { type Line, reading } from './line.ts';

export interface QueryTraits {
  /** /health/service: its blocking answers may come from streaming. */
  readonly streamable: boolean;
  /** At least this long between two blocking requests, ms. */
  readonly minGapMs: number;
  /** While it says a time, two requests are this far apart and the bucket does not count: who says it bounds the pace, ms. */
  readonly pulse?: () => number | null;
}

export class BlockingQuery {
  readonly #line: Line;
  readonly #path: string;
  readonly #query: Query;
  readonly #traits: QueryTraits;
  readonly #bucket: Bucket;
  #cursor: Cursor = START;
  #zeros = 0;
  #freshIndexOne = false;
  #blockedAt = Number.NEGATIVE_INFINITY;
  #askedAt = Number.NEGATIVE_INFINITY;
  #heldUntil = 0;
  #held: Promise<void> = Promise.resolve();
  #answered = false;
  #breaks = 0;

  constructor(line: Line, path: string, query: Query, traits: QueryTraits) {
    this.#line = line;
    this.#path = path;
    this.#query = query;
    this.#traits = traits;
    this.#bucket = new Bucket(line.clock.now());
  }

  /** Settles when the agent holds no request of ours any more; later than an abort for plain queries. */
  get held(): Promise<void> {
    return this.#held;
  }

  /** The next request asks without index. */
  restart(): void {
    this.#cursor = START;
  }

  /** The next answer; at once the first time, later when something may have changed. Rejects with SourceError or the signal's reason. */
  async next(signal: AbortSignal): Promise<Answer> {
    await this.#pace(signal);
    // Between two requests nothing of ours would notice a restart but the connections.
    if (this.#answered && this.#breaks !== this.#line.client.breaks) this.restart();
    const asked = this.#cursor;
    const answer = await this.#ask(signal);
    this.#breaks = this.#line.client.breaks;
    this.#answered = true;
    const { index, backend } = answer.headers;
    const { quirks, client, count } = this.#line;
    if (index === null) {
      count('index.missing');
      if (quirks.headerless++ === 0) {
        throw new SourceError(
          'malformed',
          `consul ${client.origin}: ${this.#path} answers without X-Consul-Index: is a proxy in between?`,
        );
      }
      this.#cursor = START;
      return answer;
    }
    quirks.headerless = 0;
    this.#zeros = index === 0n ? this.#zeros + 1 : 0;
    const { next } = step(this.#cursor, index, backend, this.#traits.streamable);
    this.#freshIndexOne = this.#cursor.index === null && next.index === 1n && index !== 0n;
    // A plain query that returns early and unmoved was cut off from the data it watched (a restore): the next would wait on an index
    // above the server's own.
    const early = backend === 'blocking-query' && asked.index === index && this.#line.clock.now() < this.#heldUntil;
    this.#cursor = early ? START : next;
    return answer;
  }

  /** What the last answer turned out to be. */
  returned(changed: boolean): void {
    this.#bucket.returned(changed, this.#line.clock.now());
  }

  async #pace(signal: AbortSignal): Promise<void> {
    const { clock, quirks } = this.#line;
    const now = clock.now();
    // The change from the plain to the blocking backend is one step of two requests.
    const pulse = this.#traits.pulse?.() ?? null;
    let pause = pulse !== null ? Math.max(0, this.#askedAt + pulse - now) : this.#freshIndexOne ? 0 : this.#bucket.take(now);
    if (pulse === null && this.#cursor.index !== null) pause = Math.max(pause, this.#blockedAt + this.#traits.minGapMs - now);
    if ((this.#answered && quirks.headerless > 0) || this.#zeros > 1) pause = Math.max(pause, HEADERLESS_POLL_MS);
    if (pause > 0) await clock.sleep(pause, signal);
    signal.throwIfAborted();
  }

  #ask(signal: AbortSignal): Promise<Answer> {
    const { client, clock, random } = this.#line;
    const query = { ...reading(this.#line), ...this.#query };
    const cursor = this.#cursor;
    this.#askedAt = clock.now();
    if (cursor.index === null) return client.get(this.#path, query, signal);
    this.#blockedAt = clock.now();
    const wait = cursor.index === 1n ? FIRST_WAIT_MS : waitMs(random);
    this.#heldUntil = this.#blockedAt + wait;
    const own = new AbortController();
    const call = client.block(
      this.#path,
      { ...query, index: String(cursor.index), wait: `${wait}ms` },
      deadlineMs(wait),
      own.signal,
    );
    this.#held = call.then(
      () => undefined,
      () => undefined,
    );
    // An aborted plain query would keep its slot in the agent until its wait is over: it is left to end by itself instead.
    const endNow = (): void => {
      if (this.#traits.streamable && cursor.backend === 'streaming') own.abort(signal.reason);
    };
    signal.addEventListener('abort', endNow, { once: true });
    return raceAbort(call, signal).finally(() => signal.removeEventListener('abort', endNow));
  }
}
