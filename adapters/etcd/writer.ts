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
/** Records of one transaction: a server takes 128 operations by default (`--max-txn-ops`), the fence being two of the compares. */
export const BATCH = 64;
/** A server takes requests of 1.5 MiB by default; a failure reads back as much. */
const BATCH_BYTES = 512 * 1024;
/** A key that changes this often between our read and our write is contended. */
const MAX_TRIES = 4;
/** A record without a lease does not end by itself. */
export const ENDLESS_MS = Number.MAX_SAFE_INTEGER;

/** What guards a write: the key must still be as we know it. */
type Guard = { readonly kind: 'missing' } | { readonly kind: 'at'; readonly create: string; readonly mod: string };

/** A key that is to be written or removed, on its way. */
interface Job {
  readonly name: string;
  readonly key: Buffer;
  readonly value: Buffer;
  guard: Guard;
}

interface PutJob extends Job {
  readonly write: Write;
  readonly form: WriteForm;
  /** Ours under this very key. */
  readonly previous: WriteReceipt | undefined;
  /** Takes the outcome. */
  readonly end: (result: WriteReceipt | SourceError) => void;
}

interface RemoveJob extends Job {
  readonly receipt: WriteReceipt;
  readonly end: (result: true | SourceError) => void;
}

const EMPTY = Buffer.alloc(0);
const NO_CONNECTION = 'etcd cannot tie a record to a connection: use beat or persistent';

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
    const results: (WriteReceipt | SourceError)[] = writes.map(() => NOT_MADE());
    const jobs: PutJob[] = [];
    for (const [at, write] of writes.entries()) {
      const form = how.liveness === 'connection' ? NO_CONNECTION : writeForm(write.key, write.instance, this.#mapping);
      const end = (result: WriteReceipt | SourceError): void => {
        results[at] = result;
      };
      if (typeof form === 'string') end(new SourceError('refused', `etcd: ${form}`));
      else {
        const previous = this.#isUnder(form.key, write.previous) ? write.previous : undefined;
        const [key, value] = [Buffer.from(form.key), Buffer.from(form.value)];
        jobs.push({ name: form.key, key, value, write, form, previous, guard: guardOf(previous), end });
      }
    }
    await this.#inBatches(jobs, signal, (batch) => this.#put(batch, how, signal));
    // A record that moved to another key: ours under the old one must not stay behind.
    const moved = [...results.entries()].flatMap(([at, result]) => {
      const previous = writes[at]?.previous;
      if (result instanceof SourceError || previous === undefined) return [];
      // By the key, not by the id: an id may say more than its key (kratos: the scheme).
      const key = this.#keyOf(result);
      return key instanceof SourceError || this.#isUnder(key, previous) ? [] : [{ at, previous }];
    });
    const removed = await this.remove(
      moved.map(({ previous }) => previous),
      how.fence,
      signal,
    );
    for (const [n, { at }] of moved.entries()) {
      const failure = removed[n];
      if (failure instanceof SourceError) results[at] = failure;
    }
    return results;
  }

  async remove(
    receipts: readonly WriteReceipt[],
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    const results: (true | SourceError)[] = receipts.map(() => NOT_MADE());
    const jobs: RemoveJob[] = [];
    for (const [at, receipt] of receipts.entries()) {
      const name = this.#keyOf(receipt);
      const end = (result: true | SourceError): void => {
        results[at] = result;
      };
      if (name instanceof SourceError) end(name);
      else jobs.push({ name, key: Buffer.from(name), value: EMPTY, receipt, guard: guardOf(receipt), end });
    }
    await this.#inBatches(jobs, signal, (batch) => this.#remove(batch, fence, signal));
    return results;
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

  /** Several records in one transaction; what the server refuses as a whole is tried one by one, so that each gets its own word. */
  async #inBatches<J extends PutJob | RemoveJob>(
    jobs: readonly J[],
    signal: AbortSignal,
    run: (batch: readonly J[]) => Promise<void>,
  ): Promise<void> {
    const one = async (batch: readonly J[]): Promise<void> => {
      try {
        await run(batch);
      } catch (thrown) {
        signal.throwIfAborted();
        const error = sourceError(thrown);
        if (batch.length === 1 || unknownOutcome(thrown) || error.causeKind === 'lost') for (const { end } of batch) end(error);
        else await inChunks(batch, (job) => one([job]));
      }
    };
    for (const batch of batchesOf(jobs)) await one(batch);
  }

  async #put(batch: readonly PutJob[], how: WriteMode, signal: AbortSignal): Promise<void> {
    const leased = how.liveness === 'beat' && this.#mapping.layout.leased !== false;
    const leaseId = leased ? (await this.#leases.shared(how.ttl, signal)).id : null;
    try {
      await this.#upsert(batch, leaseId, how, signal);
    } catch (thrown) {
      if (leaseId === null || !isLeaseGone(thrown)) throw thrown;
      await this.#leases.forget(leaseId);
      await this.#upsert(batch, (await this.#leases.shared(how.ttl, signal)).id, how, signal);
    }
  }

  async #upsert(batch: readonly PutJob[], leaseId: string | null, how: WriteMode, signal: AbortSignal): Promise<void> {
    const { fence } = how;
    const lease = leaseId === null ? {} : { lease: leaseId };
    let rest = batch;
    for (let attempt = 0; rest.length > 0; attempt++) {
      const puts = rest.map(({ key, value }): RequestOp => ({ put: { key, value, ...lease } }));
      let answer: TxnResponse;
      try {
        answer = await this.#txn(rest, puts, fence, signal);
      } catch (thrown) {
        if (signal.aborted || !unknownOutcome(thrown)) throw thrown;
        // It may have been carried out: only the keys themselves can tell.
        const found = await this.#readAll(rest, signal);
        for (const [n, job] of rest.entries()) {
          const kv = found[n] ?? null;
          const made = kv?.value.equals(job.value) === true && kv.lease === (leaseId ?? '0');
          job.end(made ? this.#receipt(job, leaseId, kv.createRevision, kv.modRevision) : sourceError(thrown));
        }
        return;
      }
      if (answer.succeeded) {
        const mod = answer.header?.revision ?? '0';
        for (const job of rest) job.end(this.#receipt(job, leaseId, job.guard.kind === 'at' ? job.guard.create : mod, mod));
        return;
      }
      if (fenceBroken(answer, fence, rest.length)) {
        for (const { end } of rest) end(FENCED());
        return;
      }
      rest = rest.filter((job, n) => this.#stillToPut(job, keyAt(answer, n), leaseId, how));
      if (attempt < MAX_TRIES - 1) continue;
      // One key that never rests must not hold up the others.
      if (batch.length > 1) await inChunks(rest, (job) => this.#upsert([job], leaseId, how, signal));
      else for (const { end } of rest) end(new SourceError('lost', 'etcd: the key changes faster than we can write it'));
      return;
    }
  }

  /** What stands under the key after a transaction that did nothing: a new guard (true), or the end of this job. */
  #stillToPut(job: PutJob, current: KeyValue | null, leaseId: string | null, how: WriteMode): boolean {
    const { value, previous, write, name } = job;
    if (current === null) job.guard = { kind: 'missing' };
    else if (!this.#owns(current, previous, value, leaseId) && !this.#isSameCopy(name, current, write, how)) {
      job.end(conflict(current));
      return false;
    } else if (current.value.equals(value) && current.lease === (leaseId ?? '0')) {
      job.end(this.#receipt(job, leaseId, current.createRevision, current.modRevision));
      return false;
    } else job.guard = { kind: 'at', create: current.createRevision, mod: current.modRevision };
    return true;
  }

  async #remove(batch: readonly RemoveJob[], fence: Fence | undefined, signal: AbortSignal): Promise<void> {
    const gone: RemoveJob[] = [];
    let rest = batch;
    for (let attempt = 0; rest.length > 0; attempt++) {
      const deletes = rest.flatMap(({ key, guard }): RequestOp[] => (guard.kind === 'missing' ? [] : [{ deleteRange: { key } }]));
      let answer: TxnResponse;
      try {
        answer = await this.#txn(rest, deletes, fence, signal);
      } catch (thrown) {
        if (signal.aborted || !unknownOutcome(thrown)) throw thrown;
        const found = await this.#readAll(rest, signal);
        for (const [n, job] of rest.entries()) {
          if ((found[n] ?? null) === null) gone.push(job);
          else job.end(sourceError(thrown));
        }
        break;
      }
      if (answer.succeeded) {
        gone.push(...rest);
        break;
      }
      if (fenceBroken(answer, fence, rest.length)) {
        for (const { end } of rest) end(FENCED());
        break;
      }
      const left: RemoveJob[] = [];
      for (const [n, job] of rest.entries()) {
        const current = keyAt(answer, n);
        if (current === null || !this.#owns(current, job.receipt, null, null)) {
          // Somebody else's record stands there: ours is gone already.
          if (current !== null) this.#mapping.count('registrations.foreign');
          gone.push(job);
        } else if (attempt === MAX_TRIES - 1 && batch.length > 1) await this.#remove([job], fence, signal);
        else if (attempt === MAX_TRIES - 1) {
          job.end(new SourceError('lost', 'etcd: the key changes faster than we can remove it'));
        } else {
          job.guard = { kind: 'at', create: current.createRevision, mod: current.modRevision };
          left.push(job);
        }
      }
      rest = left;
    }
    for (const { receipt, name, end } of gone) {
      if (receipt.leaseId !== undefined) await this.#leases.detach(receipt.leaseId, name, signal);
      end(true);
    }
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

  /** `ops` where every key is as its guard says and the fence holds; else what stands under the keys, then the leader key. */
  #txn(jobs: readonly Job[], ops: readonly RequestOp[], fence: Fence | undefined, signal: AbortSignal): Promise<TxnResponse> {
    const compare = [...jobs.map(compareOf), ...fenceCompares(fence)];
    const failure = jobs.map(({ key }): RequestOp => ({ range: { key } }));
    if (fence !== undefined) failure.push({ range: { key: Buffer.from(fence.key) } });
    return this.#client.call('Txn', { compare, success: [...ops], failure }, signal);
  }

  async #read(key: string, signal: AbortSignal): Promise<KeyValue | null> {
    const { kvs } = await this.#client.call('Range', { key: Buffer.from(key) }, signal);
    return kvs[0] ?? null;
  }

  /** In the order of the jobs. */
  #readAll(jobs: readonly Job[], signal: AbortSignal): Promise<readonly (KeyValue | null)[]> {
    return inChunks(jobs, ({ name }) => this.#read(name, signal));
  }

  #receipt({ write, form }: PutJob, leaseId: string | null, create: string, mod: string): WriteReceipt {
    if (leaseId !== null) this.#leases.attach(leaseId, form.key);
    return { service: write.key, nativeId: form.id, token: `${create}.${mod}`, ...(leaseId === null ? {} : { leaseId }) };
  }

  #isUnder(key: string, receipt: WriteReceipt | undefined): boolean {
    return receipt !== undefined && this.#keyOf(receipt) === key;
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

/** A failed transaction failed because of the fence; its failure op number `at` must have read the leader key. */
export function fenceBroken(answer: TxnResponse, fence: Fence | undefined, at = 1): boolean {
  if (fence === undefined) return false;
  const kv = keyAt(answer, at);
  return kv === null || kv.createRevision !== fence.createRevision || kv.lease !== fence.leaseId;
}

/** The key that the first failure op of a transaction has read. */
export function firstKey(answer: TxnResponse): KeyValue | null {
  return keyAt(answer, 0);
}

function keyAt(answer: TxnResponse, n: number): KeyValue | null {
  return answer.responses[n]?.range?.kvs[0] ?? null;
}

function compareOf({ key, guard }: Job): Compare {
  return guard.kind === 'missing'
    ? { result: COMPARE_EQUAL, target: TARGET_CREATE, key, createRevision: '0' }
    : { result: COMPARE_EQUAL, target: TARGET_MOD, key, modRevision: guard.mod };
}

/** Batches below the limits of a transaction; no key twice in one. */
function batchesOf<J extends Job>(jobs: readonly J[]): readonly (readonly J[])[] {
  const batches: { readonly jobs: J[]; readonly names: Set<string>; bytes: number }[] = [];
  for (const job of jobs) {
    const size = job.key.length + job.value.length;
    let batch = batches.at(-1);
    if (batch === undefined || batch.jobs.length === BATCH || batch.bytes + size > BATCH_BYTES || batch.names.has(job.name)) {
      batch = { jobs: [], names: new Set(), bytes: 0 };
      batches.push(batch);
    }
    batch.jobs.push(job);
    batch.names.add(job.name);
    batch.bytes += size;
  }
  return batches.map((batch) => batch.jobs);
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

const NOT_MADE = (): SourceError => new SourceError('lost', 'etcd: the write was not made');

async function inChunks<A, B>(items: readonly A[], run: (item: A) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  for (let start = 0; start < items.length; start += IN_FLIGHT) {
    results.push(...(await Promise.all(items.slice(start, start + IN_FLIGHT).map(run))));
  }
  return results;
}
