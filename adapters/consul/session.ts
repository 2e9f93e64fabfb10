// Owns a session of Consul and the lock that is taken with it (protocol notes, section 7). Called by state-store.ts.
// Must never think it holds the lock later than 0.8 × TTL after its last renewal, nor `set` the lock's key.
import type { StateLock } from '../../src/adapter/state-store.ts';
import type { Timer } from '../../src/kernel/clock.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { type Query, segment } from './client.ts';
import { ConsulFailure, malformed } from './errors.ts';
import { type Line, scope } from './line.ts';
import { decodeKeys, type NativeKey } from './native.ts';
import { BlockingQuery } from './query.ts';
import { transact } from './txn.ts';

const SAFE_SHARE = 0.8;
const MIN_TTL_MS = 10_000;
const MAX_TTL_MS = 86_400_000;
/** After a holder's end nobody gets the lock for this long: it may not have noticed yet. */
const LOCK_DELAY = '5s';
/** While the lock delay runs there is nothing to wait on but time. */
const RETRY_MS = 1_000;

export class LockSession {
  readonly #line: Line;
  readonly #key: string;
  readonly #closed: AbortSignal;
  readonly #lost = new AbortController();
  #id = '';
  #ttlMs: number;
  #renewal: Timer | null = null;
  #deadline: Timer | null = null;

  /** `key` is the whole key; `ttlMs` is raised to Consul's least of 10 s. */
  constructor(line: Line, key: string, ttlMs: number, closed: AbortSignal) {
    this.#line = line;
    this.#key = key;
    this.#closed = closed;
    this.#ttlMs = Math.min(MAX_TTL_MS, Math.max(MIN_TTL_MS, ttlMs));
  }

  /** Resolves when the lock is held. Rejects on abort, and when the session is lost while waiting. */
  async win(signal: AbortSignal): Promise<StateLock> {
    const sent = this.#line.clock.now();
    this.#id = await this.#create(signal);
    this.#renewed(sent);
    const onClose = (): void => this.#lose('the source is closed');
    this.#closed.addEventListener('abort', onClose, { once: true });
    const until = AbortSignal.any([signal, this.#lost.signal]);
    try {
      const held = await this.#acquire(until);
      // `LockIndex` is no fencing token: any set of the key resets it. The index of the acquire itself is.
      const fence = { key: this.#key, createRevision: held.modifyIndex, leaseId: this.#id };
      return { lost: this.#lost.signal, fence, release: () => this.#release() };
    } catch (thrown) {
      await this.#release();
      throw thrown;
    }
  }

  async #create(signal: AbortSignal): Promise<string> {
    const { client } = this.#line;
    const body = {
      Name: 'weir',
      TTL: `${Math.ceil(this.#ttlMs / 1_000)}s`,
      LockDelay: LOCK_DELAY,
      Behavior: 'release',
      NodeChecks: ['serfHealth'],
    };
    const id = textOf(await client.put('/v1/session/create', scope(this.#line), body, signal), 'ID');
    if (id === null) throw malformed(client.origin, '/v1/session/create', 'no ID');
    return id;
  }

  async #acquire(signal: AbortSignal): Promise<NativeKey> {
    const { client, clock } = this.#line;
    const query = new BlockingQuery(
      this.#line,
      this.#path(),
      { consistent: '', stale: null },
      { streamable: false, minGapMs: 0 },
    );
    for (;;) {
      const won = await client.put(this.#path(), { ...scope(this.#line), acquire: this.#id }, '', signal);
      if (won.trim() === 'true') {
        const key = await this.#look(signal);
        if (key?.session === this.#id) return key;
      }
      const answer = await query.next(signal);
      const holder = decodeKeys(answer.body ?? [])?.[0]?.session ?? '';
      query.returned(holder === '');
      if (holder !== '') continue;
      // Free, and yet not ours: the lock delay of the last holder, whose end moves no index that could be waited for.
      await clock.sleep(RETRY_MS, signal);
      query.restart();
    }
  }

  async #look(signal: AbortSignal): Promise<NativeKey | null> {
    const how: Query = { ...scope(this.#line), consistent: '' };
    const { body } = await this.#line.client.get(this.#path(), how, signal, 'control');
    return decodeKeys(body ?? [])?.[0] ?? null;
  }

  #path(): string {
    return `/v1/kv/${segment(this.#key)}`;
  }

  /** The session lives at least until `sent` + TTL; we stop believing it at 0.8 of that. */
  #renewed(sent: number): void {
    const { clock } = this.#line;
    this.#deadline?.cancel();
    this.#renewal?.cancel();
    if (this.#lost.signal.aborted) return;
    const left = sent + SAFE_SHARE * this.#ttlMs - clock.now();
    this.#deadline = clock.setTimer(Math.max(0, left), () => this.#lose('the session was not renewed in time'));
    this.#renewal = clock.setTimer(this.#ttlMs / 3, () => void this.#renew(false));
  }

  /** Never rejects. */
  async #renew(again: boolean): Promise<void> {
    const { client, clock } = this.#line;
    const sent = clock.now();
    try {
      const text = await client.put(`/v1/session/renew/${this.#id}`, scope(this.#line), undefined, this.#lost.signal);
      // An overloaded server asks for a longer one.
      const seconds = /^(\d{1,6})s$/.exec(textOf(text, 'TTL') ?? '')?.[1];
      if (seconds !== undefined) this.#ttlMs = Math.max(this.#ttlMs, Number(seconds) * 1_000);
      this.#renewed(sent);
    } catch (thrown) {
      if (thrown instanceof ConsulFailure && thrown.status === 404) return this.#lose('the session is gone');
      // Try again soon; the deadline stands.
      if (!this.#lost.signal.aborted)
        this.#renewal = clock.setTimer(again ? RETRY_MS : RETRY_MS / 4, () => void this.#renew(true));
    }
  }

  #lose(reason: string): void {
    this.#deadline?.cancel();
    this.#renewal?.cancel();
    if (!this.#lost.signal.aborted) this.#lost.abort(new SourceError('lost', `consul: lock lost: ${reason}`));
  }

  /**
   * Takes the key away while it is ours, so that nothing of us is left; that has no lock delay, which the end of the session would have.
   * Never rejects: what is left ends by its TTL.
   */
  async #release(): Promise<void> {
    this.#lose('released');
    if (this.#closed.aborted || this.#id === '') return;
    const { client, config } = this.#line;
    const signal = this.#closed;
    const about = { Key: this.#key, ...(config.namespace === null ? {} : { Namespace: config.namespace }) };
    const ops = [{ KV: { ...about, Verb: 'check-session', Session: this.#id } }, { KV: { ...about, Verb: 'delete' } }];
    await transact(this.#line, ops, signal).catch(() => undefined);
    await client.put(`/v1/session/destroy/${this.#id}`, scope(this.#line), undefined, signal).catch(() => undefined);
  }
}

/** One text field of a JSON answer: an object, or a list whose first element is one. */
function textOf(json: string, field: string): string | null {
  try {
    const value: unknown = JSON.parse(json);
    const record: unknown = Array.isArray(value) ? value[0] : value;
    const found = isRecord(record) && Object.hasOwn(record, field) ? record[field] : null;
    return typeof found === 'string' ? found : null;
  } catch {
    return null;
  }
}
