// Owns the fleet's state store over etcd: values with compare-and-set, a watched prefix, and locks.
// Called by app (settings, migrations) through the StateStore port; must never use a lock's rights after `lost`.
import type { StateEntry, StateLock, StateStore } from '../../src/adapter/state-store.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { compareText } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { sourceError, unknownOutcome } from './errors.ts';
import { Hub } from './hub.ts';
import { Campaign } from './lock.ts';
import { COMPARE_EQUAL, type Compare, type KeyValue, TARGET_CREATE, TARGET_MOD } from './protocol.ts';
import type { SessionDeps } from './round.ts';

/** See the head of the file; every key is below `prefix`. */
export class EtcdStateStore implements StateStore {
  readonly #prefix: string;
  readonly #deps: SessionDeps;
  readonly #closed: AbortSignal;

  constructor(prefix: string, deps: SessionDeps, closed: AbortSignal) {
    this.#prefix = prefix;
    this.#deps = deps;
    this.#closed = closed;
  }

  get(key: string, signal: AbortSignal): Promise<StateEntry | null> {
    return this.#guarded(signal, async (until) => {
      const kv = await this.#read(key, until);
      return kv === null ? null : { key, value: kv.value.toString('utf8'), revision: kv.modRevision };
    });
  }

  cas(key: string, value: string | null, expected: string | null, signal: AbortSignal): Promise<StateEntry | null> {
    return this.#guarded(signal, async (until) => {
      const bytes = Buffer.from(this.#prefix + key);
      const compare: Compare =
        expected === null
          ? { result: COMPARE_EQUAL, target: TARGET_CREATE, key: bytes, createRevision: '0' }
          : { result: COMPARE_EQUAL, target: TARGET_MOD, key: bytes, modRevision: expected };
      const op = value === null ? { deleteRange: { key: bytes } } : { put: { key: bytes, value: Buffer.from(value) } };
      try {
        const answer = await this.#deps.client.call('Txn', { compare: [compare], success: [op], failure: [] }, until);
        return answer.succeeded ? { key, value: value ?? '', revision: answer.header?.revision ?? '0' } : null;
      } catch (thrown) {
        if (until.aborted || !unknownOutcome(thrown)) throw thrown;
        // Unknown outcome: read it back. Unchanged, or changed by somebody else: it was not carried out (and cannot be later).
        const kv = await this.#read(key, until);
        if (
          value === null
            ? kv === null && expected !== null
            : kv !== null && kv.modRevision !== expected && kv.value.toString('utf8') === value
        ) {
          return { key, value: value ?? '', revision: kv?.modRevision ?? '0' };
        }
        throw thrown;
      }
    });
  }

  async *watch(prefix: string, signal: AbortSignal): AsyncGenerator<readonly StateEntry[], void, void> {
    const until = AbortSignal.any([signal, this.#closed]);
    if (until.aborted) return;
    const box = new Mailbox<readonly StateEntry[]>();
    const hub = new Hub<string>(this.#prefix + prefix, (_key, kv) => kv.value.toString('utf8'), this.#deps);
    const put = (): void => box.put(this.#entries(hub));
    const leave = hub.join({ onReady: put, onChanges: put, onContact() {}, onLost: (error) => box.fail(error) });
    try {
      yield* box.read(until);
    } finally {
      leave();
    }
  }

  lock(key: string, ttl: number, signal: AbortSignal): Promise<StateLock> {
    return this.#guarded(signal, (until) => new Campaign(`${this.#prefix}${key}/`, ttl, this.#deps, this.#closed).win(until));
  }

  #entries(hub: Hub<string>): readonly StateEntry[] {
    const entries: StateEntry[] = [];
    for (const [key, { record, modRevision }] of hub.mirror.entries()) {
      entries.push({ key: key.slice(this.#prefix.length), value: record, revision: String(modRevision) });
    }
    return entries.sort((a, b) => compareText(a.key, b.key));
  }

  async #read(key: string, signal: AbortSignal): Promise<KeyValue | null> {
    const { kvs } = await this.#deps.client.call('Range', { key: Buffer.from(this.#prefix + key) }, signal);
    return kvs[0] ?? null;
  }

  async #guarded<T>(signal: AbortSignal, run: (until: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await run(AbortSignal.any([signal, this.#closed]));
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      throw this.#closed.aborted ? new SourceError('lost', 'etcd: the source is closed') : sourceError(thrown);
    }
  }
}
