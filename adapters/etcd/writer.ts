// Owns writes of instances: guarded transactions, leases, fences, and what to make of an unknown outcome (protocol notes, section 6).
// Called by adapter.ts; must never overwrite or delete another owner's key, and never report a write that it did not see.
import type { Fence, RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { EtcdClient } from './client.ts';
import { isLeaseGone, sourceError, unknownOutcome } from './errors.ts';
import type { Leases } from './leases.ts';
import { keyOfId, leaseHex, type MappingOptions, recordOf, type WriteForm, writeForm } from './mapping.ts';
import {
  COMPARE_EQUAL,
  type Compare,
  type KeyValue,
  type RequestOp,
  TARGET_CREATE,
  TARGET_LEASE,
  TARGET_MOD,
  type TxnResponse,
} from './protocol.ts';

/** Transactions in flight at once. */
const IN_FLIGHT = 64;
/** A key that changes this often between our read and our write is contended. */
const MAX_TRIES = 4;
/** A record without a lease does not end by itself. */
export const ENDLESS_MS = Number.MAX_SAFE_INTEGER;

/** What guards a write: the key must still be as we know it. */
type Guard = { readonly kind: 'missing' } | { readonly kind: 'at'; readonly create: string; readonly mod: string };

export class Writer {
  readonly #client: EtcdClient;
  readonly #leases: Leases;
  readonly #mapping: MappingOptions;

  constructor(client: EtcdClient, leases: Leases, mapping: MappingOptions) {
    this.#client = client;
    this.#leases = leases;
    this.#mapping = mapping;
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    return inChunks(writes, (write) => this.#settled(() => this.#put(write, how, signal), signal));
  }

  async remove(
    receipts: readonly WriteReceipt[],
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    return inChunks(receipts, (receipt) => this.#settled(() => this.#remove(receipt, fence, signal), signal));
  }

  /** One burst for all leases, then one look per lease whether our keys still hang on it (a foreign delete, a put without lease). */
  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    const ids = [...new Set(receipts.flatMap(({ leaseId }) => (leaseId === undefined ? [] : [leaseId])))];
    let alive: ReadonlyMap<string, number>;
    const held = new Map<string, ReadonlySet<string> | null>();
    try {
      alive = await this.#leases.keepAlive(ids, signal);
      for (const id of ids) {
        const ttl = alive.get(id) ?? 0;
        const keys = ttl === 0 ? null : await this.#leases.keysOf(id, signal);
        held.set(id, keys);
        if (keys === null) await this.#leases.forget(id);
      }
    } catch (thrown) {
      signal.throwIfAborted();
      const error = sourceError(thrown);
      return receipts.map(() => error);
    }
    return inChunks(receipts, (receipt) => this.#settled(() => this.#renewed(receipt, alive, held, signal), signal));
  }

  async #renewed(
    receipt: WriteReceipt,
    alive: ReadonlyMap<string, number>,
    held: ReadonlyMap<string, ReadonlySet<string> | null>,
    signal: AbortSignal,
  ): Promise<RenewResult> {
    const key = this.#keyOf(receipt);
    if (key instanceof SourceError) return key;
    if (receipt.leaseId === undefined) {
      const kv = await this.#read(key, signal);
      return kv === null ? { kind: 'forgotten' } : { kind: 'renewed', leaseMs: ENDLESS_MS };
    }
    const keys = held.get(receipt.leaseId) ?? null;
    if (keys?.has(key) === true) return { kind: 'renewed', leaseMs: alive.get(receipt.leaseId) ?? 0 };
    this.#mapping.count(keys === null ? 'registrations.leaseGone' : 'registrations.keyGone');
    return { kind: 'forgotten' };
  }

  async #put(write: Write, how: WriteMode, signal: AbortSignal): Promise<WriteReceipt | SourceError> {
    if (how.liveness === 'connection')
      return new SourceError('refused', 'etcd cannot tie a record to a connection: use beat or persistent');
    const form = writeForm(write.key, write.instance, this.#mapping);
    if (typeof form === 'string') return new SourceError('refused', `etcd: ${form}`);
    const leased = how.liveness === 'beat' && this.#mapping.layout.leased !== false;
    const leaseId = leased ? (await this.#leases.shared(how.ttl, signal)).id : null;
    let receipt: WriteReceipt | SourceError;
    try {
      receipt = await this.#upsert(write, form, leaseId, how, signal);
    } catch (thrown) {
      if (leaseId === null || !isLeaseGone(thrown)) throw thrown;
      await this.#leases.forget(leaseId);
      receipt = await this.#upsert(write, form, (await this.#leases.shared(how.ttl, signal)).id, how, signal);
    }
    const { previous } = write;
    if (receipt instanceof SourceError || previous === undefined || previous.nativeId === form.id) return receipt;
    // The record moved to another key; ours under the old one must not stay behind.
    const removed = await this.#remove(previous, how.fence, signal);
    return removed === true ? receipt : removed;
  }

  async #upsert(
    write: Write,
    form: WriteForm,
    leaseId: string | null,
    how: WriteMode,
    signal: AbortSignal,
  ): Promise<WriteReceipt | SourceError> {
    const { fence } = how;
    const value = Buffer.from(form.value);
    const key = Buffer.from(form.key);
    const previous = write.previous?.nativeId === form.id ? write.previous : undefined;
    let guard: Guard = guardOf(previous);
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      const put: RequestOp = { put: { key, value, ...(leaseId === null ? {} : { lease: leaseId }) } };
      let answer: TxnResponse;
      try {
        answer = await this.#txn(key, guard, put, fence, signal);
      } catch (thrown) {
        if (signal.aborted || !unknownOutcome(thrown)) throw thrown;
        // It may have been carried out: only the key itself can tell.
        const kv = await this.#read(form.key, signal);
        if (kv === null || !kv.value.equals(value) || kv.lease !== (leaseId ?? '0')) throw thrown;
        return this.#receipt(write, form, leaseId, kv.createRevision, kv.modRevision);
      }
      if (answer.succeeded) {
        const mod = answer.header?.revision ?? '0';
        return this.#receipt(write, form, leaseId, guard.kind === 'at' ? guard.create : mod, mod);
      }
      if (fenceBroken(answer, fence)) return FENCED();
      const current = firstKey(answer);
      if (current === null) guard = { kind: 'missing' };
      else if (!this.#owns(current, previous, value, leaseId) && !this.#isSameCopy(form.key, current, write, how)) {
        return conflict(current);
      } else if (current.value.equals(value) && current.lease === (leaseId ?? '0')) {
        return this.#receipt(write, form, leaseId, current.createRevision, current.modRevision);
      } else guard = { kind: 'at', create: current.createRevision, mod: current.modRevision };
    }
    return new SourceError('lost', 'etcd: the key changes faster than we can write it');
  }

  async #remove(receipt: WriteReceipt, fence: Fence | undefined, signal: AbortSignal): Promise<true | SourceError> {
    const name = this.#keyOf(receipt);
    if (name instanceof SourceError) return name;
    const key = Buffer.from(name);
    let guard: Guard = guardOf(receipt);
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      let answer: TxnResponse;
      try {
        answer = await this.#txn(key, guard, guard.kind === 'missing' ? null : { deleteRange: { key } }, fence, signal);
      } catch (thrown) {
        if (signal.aborted || !unknownOutcome(thrown) || (await this.#read(name, signal)) !== null) throw thrown;
        break;
      }
      if (answer.succeeded) break;
      if (fenceBroken(answer, fence)) return FENCED();
      const current = firstKey(answer);
      if (current === null) break;
      if (!this.#owns(current, receipt, null, null)) {
        // Somebody else's record stands there: ours is gone already.
        this.#mapping.count('registrations.foreign');
        break;
      }
      guard = { kind: 'at', create: current.createRevision, mod: current.modRevision };
      if (attempt === MAX_TRIES - 1) return new SourceError('lost', 'etcd: the key changes faster than we can remove it');
    }
    if (receipt.leaseId !== undefined) await this.#leases.detach(receipt.leaseId, name, signal);
    return true;
  }

  /** Ours: under a lease of ours, or the very record (create revision) that we wrote. A leaseless twin of what we write is adopted. */
  #owns(kv: KeyValue, previous: WriteReceipt | undefined, value: Buffer | null, leaseId: string | null): boolean {
    if (kv.lease !== '0' && (this.#leases.isOurs(kv.lease) || kv.lease === previous?.leaseId)) return true;
    if (previous?.token !== undefined && previous.token.split('.')[0] === kv.createRevision) return true;
    return kv.lease === '0' && leaseId === null && value !== null && kv.value.equals(value);
  }

  /** A copy is its migration's, whatever its lease or revision: the next owner of the migration takes it over. */
  #isSameCopy(key: string, kv: KeyValue, { instance }: Write, { as }: WriteMode): boolean {
    const migration = as === 'copy' ? instance.metadata.get('weir-migration') : undefined;
    if (migration === undefined) return false;
    const { instances } = recordOf(key, kv, null, { ...this.#mapping, dial: () => null, count: () => {} });
    return instances.some(({ metadata }) => metadata.get('weir-migration') === migration);
  }

  #txn(key: Buffer, guard: Guard, op: RequestOp | null, fence: Fence | undefined, signal: AbortSignal): Promise<TxnResponse> {
    const own: Compare =
      guard.kind === 'missing'
        ? { result: COMPARE_EQUAL, target: TARGET_CREATE, key, createRevision: '0' }
        : { result: COMPARE_EQUAL, target: TARGET_MOD, key, modRevision: guard.mod };
    const failure: RequestOp[] = [{ range: { key } }];
    if (fence !== undefined) failure.push({ range: { key: Buffer.from(fence.key) } });
    const request = { compare: [own, ...fenceCompares(fence)], success: op === null ? [] : [op], failure };
    return this.#client.call('Txn', request, signal);
  }

  async #read(key: string, signal: AbortSignal): Promise<KeyValue | null> {
    const { kvs } = await this.#client.call('Range', { key: Buffer.from(key) }, signal);
    return kvs[0] ?? null;
  }

  #receipt(write: Write, form: WriteForm, leaseId: string | null, create: string, mod: string): WriteReceipt {
    if (leaseId !== null) this.#leases.attach(leaseId, form.key);
    return { service: write.key, nativeId: form.id, token: `${create}.${mod}`, ...(leaseId === null ? {} : { leaseId }) };
  }

  #keyOf(receipt: WriteReceipt): string | SourceError {
    const key = keyOfId(receipt.service, receipt.nativeId, this.#mapping);
    return key ?? new SourceError('refused', `etcd: the layout ${this.#mapping.layout.name} has no key for this receipt`);
  }

  async #settled<T>(run: () => Promise<T | SourceError>, signal: AbortSignal): Promise<T | SourceError> {
    try {
      return await run();
    } catch (thrown) {
      signal.throwIfAborted();
      return sourceError(thrown);
    }
  }
}

/** Both halves: a create revision alone still holds after a foreign put took the lease off the key (section 6). */
export function fenceCompares(fence: Fence | undefined): readonly Compare[] {
  if (fence === undefined) return [];
  const key = Buffer.from(fence.key);
  return [
    { result: COMPARE_EQUAL, target: TARGET_CREATE, key, createRevision: fence.createRevision },
    { result: COMPARE_EQUAL, target: TARGET_LEASE, key, lease: fence.leaseId },
  ];
}

/** A failed transaction failed because of the fence; its second failure op must have read the leader key. */
export function fenceBroken(answer: TxnResponse, fence: Fence | undefined): boolean {
  if (fence === undefined) return false;
  const kv = answer.responses[1]?.range?.kvs[0];
  return kv === undefined || kv.createRevision !== fence.createRevision || kv.lease !== fence.leaseId;
}

/** The key that the first failure op of a transaction has read. */
export function firstKey(answer: TxnResponse): KeyValue | null {
  return answer.responses[0]?.range?.kvs[0] ?? null;
}

function guardOf(receipt: WriteReceipt | undefined): Guard {
  const [create, mod] = receipt?.token?.split('.') ?? [];
  return create === undefined || mod === undefined ? { kind: 'missing' } : { kind: 'at', create, mod };
}

/** What a write gets whose leader key is no longer ours. */
export const FENCED = (): SourceError =>
  new SourceError('fenced', 'etcd: the leader key is no longer ours: another owner writes');

function conflict(current: KeyValue): SourceError {
  const owner = current.lease === '0' ? 'a record without a lease' : `lease ${leaseHex(current.lease)}`;
  return new SourceError('refused', `etcd: the key belongs to another owner (${owner})`);
}

async function inChunks<A, B>(items: readonly A[], run: (item: A) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  for (let start = 0; start < items.length; start += IN_FLIGHT) {
    results.push(...(await Promise.all(items.slice(start, start + IN_FLIGHT).map(run))));
  }
  return results;
}
