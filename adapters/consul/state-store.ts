// Owns the fleet's state store over Consul's KV: values with compare-and-set, a watched prefix, locks. Called by app (settings,
// migrations) through the StateStore port; must never use a lock's rights after `lost`.
import type { StateEntry, StateLock, StateStore } from '../../src/adapter/state-store.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import { compareText } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { segment } from './client.ts';
import { malformed } from './errors.ts';
import { type Line, scope } from './line.ts';
import { decodeKeys, type NativeKey } from './native.ts';
import { BlockingQuery } from './query.ts';
import { LockSession } from './session.ts';
import { opFailure, transact } from './txn.ts';

/** See the head of the file; every key is below the configured `kvPrefix`. */
export class ConsulStateStore implements StateStore {
  readonly #line: Line;
  readonly #prefix: string;
  readonly #closed: AbortSignal;

  constructor(line: Line, closed: AbortSignal) {
    this.#line = line;
    this.#prefix = line.config.kvPrefix;
    this.#closed = closed;
  }

  async get(key: string, signal: AbortSignal): Promise<StateEntry | null> {
    const found = await this.#read(key, this.#until(signal));
    return found === null ? null : { key, value: found.value, revision: found.modifyIndex };
  }

  async cas(key: string, value: string | null, expected: string | null, signal: AbortSignal): Promise<StateEntry | null> {
    const until = this.#until(signal);
    if (value === null && expected === null) {
      return (await this.#read(key, until)) === null ? { key, value: '', revision: '0' } : null;
    }
    const about = { Key: this.#prefix + key, Index: Number(expected ?? 0) };
    const write = value === null ? { Verb: 'delete-cas' } : { Verb: 'cas', Value: Buffer.from(value).toString('base64') };
    const result = await transact(this.#line, [{ KV: { ...about, ...write, ...this.#namespace() } }], until);
    if (result.kind === 'applied') return { key, value: value ?? '', revision: revisionIn(result.body) };
    const [error] = result.errors;
    if (error !== undefined && !/index is stale|current modify index|already exists|doesn't exist/.test(error.what))
      throw opFailure(error);
    return null;
  }

  async *watch(prefix: string, signal: AbortSignal): AsyncGenerator<readonly StateEntry[], void, void> {
    const until = this.#until(signal);
    const path = `/v1/kv/${segment(this.#prefix + prefix)}`;
    const query = new BlockingQuery(
      this.#line,
      path,
      { recurse: '', consistent: '', stale: null },
      { streamable: false, minGapMs: 0 },
    );
    const slot = this.#line.slots.take();
    let before: string | null = null;
    try {
      while (!until.aborted) {
        const answer = await query.next(until);
        const keys = decodeKeys(answer.body ?? []);
        if (keys === null) throw malformed(this.#line.client.origin, path, 'no list of keys');
        const entries = keys.map((one) => this.#entry(one)).sort((a, b) => compareText(a.key, b.key));
        const digest = JSON.stringify(entries);
        query.returned(digest !== before);
        if (digest !== before) yield entries;
        before = digest;
      }
    } catch (thrown) {
      if (!until.aborted) throw thrown;
    } finally {
      void query.held.then(() => slot.release());
    }
  }

  async lock(key: string, ttl: number, signal: AbortSignal): Promise<StateLock> {
    return new LockSession(this.#line, this.#prefix + key, ttl, this.#closed).win(this.#until(signal));
  }

  #entry({ key, value, modifyIndex }: NativeKey): StateEntry {
    return { key: key.slice(this.#prefix.length), value, revision: modifyIndex };
  }

  async #read(key: string, signal: AbortSignal): Promise<NativeKey | null> {
    const path = `/v1/kv/${segment(this.#prefix + key)}`;
    const { body } = await this.#line.client.get(path, { ...scope(this.#line), consistent: '' }, signal, 'control');
    const keys = decodeKeys(body ?? []);
    if (keys === null) throw malformed(this.#line.client.origin, path, 'no list of keys');
    return keys[0] ?? null;
  }

  #namespace(): Readonly<Record<string, string>> {
    const { namespace } = this.#line.config;
    return namespace === null ? {} : { Namespace: namespace };
  }

  #until(signal: AbortSignal): AbortSignal {
    if (this.#closed.aborted) throw new SourceError('lost', 'consul: the source is closed');
    return AbortSignal.any([signal, this.#closed]);
  }
}

/** ModifyIndex of the one result; '0' for a deletion, which has none. */
function revisionIn(body: unknown): string {
  const results = isRecord(body) ? body['Results'] : null;
  const first: unknown = Array.isArray(results) ? results[0] : null;
  const kv = isRecord(first) ? first['KV'] : null;
  const index = isRecord(kv) ? kv['ModifyIndex'] : null;
  return typeof index === 'number' ? String(index) : '0';
}
