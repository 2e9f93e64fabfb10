// Owns writes of instances into keys that hold many and belong to somebody else: read, change our entries, put back over the same revision.
// Called by adapter.ts for layouts with `edit`; must never create or delete a key, nor change an entry that it does not own.
import type { Fence, RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { splitHostPort } from '../../src/kernel/address.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { EtcdClient } from './client.ts';
import { sourceError, unknownOutcome } from './errors.ts';
import type { Edit, Edited, Layout } from './layouts/layout.ts';
import { listPrefix } from './lister.ts';
import { editForm, type MappingOptions, nativeServiceOf, recordOf } from './mapping.ts';
import { keyText } from './mirror.ts';
import { COMPARE_EQUAL, type KeyValue, type RequestOp, TARGET_MOD, type TxnResponse } from './protocol.ts';
import { ENDLESS_MS, FENCED, fenceBroken, fenceCompares, firstKey } from './writer.ts';

/** One transaction carries all our changes of a key, so that only others can get in between. */
const MAX_TRIES = 8;

/** Where a write left the key, and the ids that were left alone as somebody else's. */
interface Outcome {
  readonly token: string;
  readonly foreign: ReadonlySet<string>;
}

/** Items of one service, with their places in the call. */
interface Group<A> {
  readonly key: ServiceKey;
  readonly at: number[];
  readonly items: A[];
}

export class SharedWriter {
  readonly #client: EtcdClient;
  readonly #edit: NonNullable<Layout['edit']>;
  readonly #mapping: MappingOptions;
  readonly #clock: Clock;
  /** The last call: two of ours at once would only push each other aside. */
  #line: Promise<unknown> = Promise.resolve();

  constructor(client: EtcdClient, edit: NonNullable<Layout['edit']>, mapping: MappingOptions, clock: Clock) {
    this.#client = client;
    this.#edit = edit;
    this.#mapping = mapping;
    this.#clock = clock;
  }

  put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    if (how.liveness === 'connection') {
      const refusal = new SourceError('refused', 'etcd cannot tie a record to a connection: use persistent');
      return Promise.resolve(writes.map(() => refusal));
    }
    const serviceOf = ({ key }: Write): ServiceKey => key;
    return this.#inGroups(writes, serviceOf, signal, (group, kv) => this.#putGroup(group, kv, how.fence, signal));
  }

  remove(
    receipts: readonly WriteReceipt[],
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    return this.#inGroups(receipts, servedBy, signal, async ({ key, items }, kv) => {
      const edits: Edit[] = [];
      for (const receipt of items) {
        const edit = leaving(receipt);
        if (kv === null || edit === null) continue;
        // Removed and made again since: what we wrote went with the old one.
        if (!isOf(receipt, kv)) this.#mapping.count('registrations.foreign');
        else if (this.#holds(kv, edit)) edits.push(edit);
      }
      if (kv === null || edits.length === 0) return items.map(() => true as const);
      const outcome = await this.#write(key, kv, edits, fence, signal);
      return items.map(() => (outcome instanceof SourceError ? outcome : true));
    });
  }

  /** Nothing expires here: looks whether the entries are still there. */
  renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    return this.#inGroups<WriteReceipt, RenewResult>(receipts, servedBy, signal, async ({ items }, kv) =>
      items.map((receipt) => {
        const edit = leaving(receipt);
        const there = kv !== null && edit !== null && this.#holds(kv, edit);
        return there ? { kind: 'renewed', leaseMs: ENDLESS_MS } : { kind: 'forgotten' };
      }),
    );
  }

  async #putGroup(
    { key, items }: Group<Write>,
    kv: KeyValue | null,
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<readonly (WriteReceipt | SourceError)[]> {
    if (kv === null) {
      const native = nativeServiceOf(key, this.#mapping.layout, this.#mapping.namespace);
      const text = typeof native === 'string' ? native : `nothing called ${key.name} is there to hold instances: create it first`;
      return items.map(() => new SourceError('refused', `etcd: ${text}`));
    }
    const forms = items.map(({ instance }) => editForm(instance, this.#mapping));
    const edits = items.flatMap(({ previous }, n): Edit[] => {
      const form = forms[n];
      if (form === undefined) return [];
      const ours = previous !== undefined && isOf(previous, kv);
      if (!ours || previous.nativeId === form.id) return [{ ...form, ours }];
      // The instance moved: the same transaction takes the old entry out.
      const old = leaving(previous);
      return [{ ...form, ours: false }, ...(old === null ? [] : [old])];
    });
    const outcome = await this.#write(key, kv, edits, fence, signal);
    return forms.map(({ id }) => {
      if (outcome instanceof SourceError) return outcome;
      if (!outcome.foreign.has(id)) return { service: key, nativeId: id, token: outcome.token };
      return new SourceError('refused', `etcd: ${id} belongs to another owner: it is there already, with another weight`);
    });
  }

  /** One list, then each service's items with the key that holds it (null: none); the answers stand in the order of the items. */
  async #inGroups<A, B>(
    items: readonly A[],
    serviceOf: (item: A) => ServiceKey,
    signal: AbortSignal,
    run: (group: Group<A>, kv: KeyValue | null) => Promise<readonly (B | SourceError)[]>,
  ): Promise<(B | SourceError)[]> {
    const groups = grouped(items, serviceOf);
    const answers: (B | SourceError)[] = items.map(() => new SourceError('lost', 'etcd: no answer'));
    const settle = async (group: Group<A>, held: readonly KeyValue[] | SourceError): Promise<void> => {
      let results: readonly (B | SourceError)[] | SourceError;
      try {
        if (held instanceof SourceError) results = held;
        else if (held.length > 1) results = new SourceError('refused', `etcd: ${held.length} keys are called ${group.key.name}`);
        else results = await run(group, held[0] ?? null);
      } catch (thrown) {
        signal.throwIfAborted();
        results = sourceError(thrown);
      }
      for (const [n, place] of group.at.entries()) {
        const result = results instanceof SourceError ? results : results[n];
        if (result !== undefined) answers[place] = result;
      }
    };
    const all = async (): Promise<void> => {
      const held = await this.#held(signal);
      await Promise.all(
        [...groups].map(([id, group]) => settle(group, held instanceof SourceError ? held : (held.get(id) ?? []))),
      );
    };
    const mine = this.#line.then(all, all);
    this.#line = mine;
    await mine;
    return answers;
  }

  async #write(
    service: ServiceKey,
    first: KeyValue,
    edits: readonly Edit[],
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<Outcome | SourceError> {
    let kv = first;
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      const edited = this.#edit.apply(kv.value, edits, Math.floor(this.#clock.wallNow() / 1_000));
      if (typeof edited === 'string') return new SourceError('refused', `etcd: ${edited}`);
      let current: KeyValue | null;
      try {
        const answer = await this.#txn(kv, edited, fence, signal);
        if (answer.succeeded) {
          const mod = edited.value === null ? kv.modRevision : (answer.header?.revision ?? '0');
          return { token: `${kv.createRevision}.${mod}`, foreign: edited.foreign };
        }
        if (fenceBroken(answer, fence)) return FENCED();
        current = firstKey(answer);
      } catch (thrown) {
        if (signal.aborted || !unknownOutcome(thrown)) throw thrown;
        // It may have been carried out: then nothing is left to change.
        const now = (await this.#client.call('Range', { key: kv.key }, signal)).kvs[0];
        const left = now === undefined ? null : this.#edit.apply(now.value, edits, 0);
        if (now === undefined || left === null || typeof left === 'string' || left.value !== null) throw thrown;
        return { token: `${now.createRevision}.${now.modRevision}`, foreign: left.foreign };
      }
      if (current === null || this.#serviceOf(current) !== serviceId(service)) {
        return new SourceError('lost', `etcd: ${service.name} was removed or renamed while we wrote`);
      }
      if (current.createRevision !== kv.createRevision) {
        return new SourceError('lost', `etcd: ${service.name} was removed and made again while we wrote`);
      }
      kv = current;
    }
    return new SourceError('lost', 'etcd: the key changes faster than we can write it');
  }

  #txn({ key, modRevision }: KeyValue, { value }: Edited, fence: Fence | undefined, signal: AbortSignal): Promise<TxnResponse> {
    // The key keeps the lease that it may have: it is not ours.
    const success: RequestOp[] = value === null ? [] : [{ put: { key, value: Buffer.from(value), ignoreLease: true } }];
    const failure: RequestOp[] = [{ range: { key } }];
    if (fence !== undefined) failure.push({ range: { key: Buffer.from(fence.key) } });
    const guard = { result: COMPARE_EQUAL, target: TARGET_MOD, key, modRevision };
    return this.#client.call('Txn', { compare: [guard, ...fenceCompares(fence)], success, failure }, signal);
  }

  /** Every key by the service that it holds: names stand in the values, so that only a list finds them. */
  async #held(signal: AbortSignal): Promise<ReadonlyMap<ServiceId, readonly KeyValue[]> | SourceError> {
    const held = new Map<ServiceId, KeyValue[]>();
    try {
      const { kvs } = await listPrefix((request) => this.#client.call('Range', request, signal), this.#mapping.prefix);
      for (const kv of kvs) {
        const id = this.#serviceOf(kv);
        if (id !== null) held.set(id, [...(held.get(id) ?? []), kv]);
      }
      return held;
    } catch (thrown) {
      signal.throwIfAborted();
      return sourceError(thrown);
    }
  }

  #serviceOf(kv: KeyValue): ServiceId | null {
    const name = keyText(kv.key);
    const service = name === null ? null : recordOf(name, kv, null, { ...this.#mapping, count: () => {} }).service;
    return service === null ? null : serviceId(service);
  }

  #holds(kv: KeyValue, edit: Edit): boolean {
    const edited = this.#edit.apply(kv.value, [edit], 0);
    return typeof edited !== 'string' && edited.value !== null;
  }
}

function grouped<A>(items: readonly A[], serviceOf: (item: A) => ServiceKey): ReadonlyMap<ServiceId, Group<A>> {
  const groups = new Map<ServiceId, Group<A>>();
  for (const [n, item] of items.entries()) {
    const key = serviceOf(item);
    const group = groups.get(serviceId(key)) ?? { key, at: [], items: [] };
    group.at.push(n);
    group.items.push(item);
    groups.set(serviceId(key), group);
  }
  return groups;
}

function servedBy({ service }: WriteReceipt): ServiceKey {
  return service;
}

/** The receipt is of this very key, not of one that was removed and made again. */
function isOf(receipt: WriteReceipt, kv: KeyValue): boolean {
  return receipt.token?.split('.')[0] === kv.createRevision;
}

/** The edit that takes the entry of a receipt out; null for a receipt that names no address. */
function leaving({ nativeId }: WriteReceipt): Edit | null {
  const address = splitHostPort(nativeId);
  return address === null ? null : { id: nativeId, ...address, weight: null, ours: true };
}
