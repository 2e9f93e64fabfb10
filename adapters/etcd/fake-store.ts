// Owns the revisioned store of the fake etcd: keys, history, compaction, transactions, leases. No network.
// Called by fake.ts; must behave as protocol notes, sections 2, 6, 11 and 12 say, for both versions.
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type {
  Compare,
  DeleteRangeRequest,
  Event,
  KeyValue,
  PutRequest,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseHeader,
  TxnRequest,
  TxnResponse,
} from './protocol.ts';

/** A refusal as a gRPC status. */
export class FakeStatus extends Error {
  readonly code: number;
  readonly details: string;

  constructor(code: number, details: string) {
    super(details);
    this.code = code;
    this.details = details;
  }
}

interface Revision {
  readonly revision: bigint;
  readonly events: readonly Event[];
}

interface Lease {
  readonly ttl: number;
  timer: Timer;
}

/** Everything that a data directory holds. */
export interface StoreImage {
  readonly history: readonly Revision[];
  readonly revision: bigint;
  readonly compacted: bigint;
  readonly leases: readonly (readonly [id: string, ttl: number])[];
}

const EMPTY = Buffer.alloc(0);

export class FakeStore {
  clusterId = '14841639068965178418';
  memberId = '10276657743932975437';
  raftTerm = 2n;
  /** `--max-txn-ops`. */
  maxTxnOps = 128;
  #revision = 1n;
  #compacted = 0n;
  #history: Revision[] = [];
  /** By key as latin1 text, whose order is that of the bytes. */
  #kvs = new Map<string, KeyValue>();
  #leases = new Map<string, Lease>();
  #leaseCount = 0;
  readonly #clock: Clock;
  readonly #onRevision: (revision: Revision) => void;

  /** `onRevision` is called after every write that changed something. */
  constructor(clock: Clock, onRevision: (revision: Revision) => void) {
    this.#clock = clock;
    this.#onRevision = onRevision;
  }

  get revision(): bigint {
    return this.#revision;
  }

  get compacted(): bigint {
    return this.#compacted;
  }

  header(revision = this.#revision): ResponseHeader {
    return { clusterId: this.clusterId, memberId: this.memberId, revision: String(revision), raftTerm: String(this.raftTerm) };
  }

  range(request: RangeRequest): RangeResponse {
    const at = BigInt(request.revision ?? '0');
    if (request.key.length === 0) throw new FakeStatus(3, 'etcdserver: key is not provided');
    if (at > this.#revision) throw new FakeStatus(11, 'etcdserver: mvcc: required revision is a future revision');
    if (at > 0n && at < this.#compacted) throw new FakeStatus(11, 'etcdserver: mvcc: required revision has been compacted');
    const all = at === 0n ? this.#kvs : this.#stateAt(at);
    const within = rangeTest(request.key, request.rangeEnd ?? EMPTY);
    const names = [...all.keys()].filter(within).sort();
    const limit = Number(request.limit ?? '0');
    const kvs: KeyValue[] = [];
    for (const name of request.countOnly === true ? [] : limit > 0 ? names.slice(0, limit) : names) {
      const kv = all.get(name);
      if (kv !== undefined) kvs.push(request.keysOnly === true ? { ...kv, value: EMPTY } : kv);
    }
    return { header: this.header(), kvs, more: limit > 0 && names.length > limit, count: String(names.length) };
  }

  put(request: PutRequest): void {
    this.#write([{ put: request }]);
  }

  deleteRange(request: DeleteRangeRequest): bigint {
    return this.#write([{ deleteRange: request }]);
  }

  txn(request: TxnRequest): TxnResponse {
    if (Math.max(request.success.length, request.failure.length, request.compare.length) > this.maxTxnOps) {
      throw new FakeStatus(3, 'etcdserver: too many operations in txn request');
    }
    const succeeded = request.compare.every((compare) => this.#holds(compare));
    const ops = succeeded ? request.success : request.failure;
    const puts = ops.flatMap((op) => (op.put == null ? [] : [op.put.key.toString('latin1')]));
    if (new Set(puts).size < puts.length) throw new FakeStatus(3, 'etcdserver: duplicate key given in txn request');
    this.#write(ops);
    const responses = ops.map((op) => (op.range == null ? {} : { range: this.range(op.range) }));
    return { header: this.header(), succeeded, responses };
  }

  compact(revision: bigint): void {
    if (revision > this.#revision) throw new FakeStatus(11, 'etcdserver: mvcc: required revision is a future revision');
    if (revision <= this.#compacted) throw new FakeStatus(11, 'etcdserver: mvcc: required revision has been compacted');
    this.#compacted = revision;
  }

  /** Revisions from `start` on, oldest first. */
  since(start: bigint): readonly Revision[] {
    return this.#history.filter(({ revision }) => revision >= start);
  }

  grant(ttl: number, wanted: string): { id: string; ttl: number } {
    if (ttl > 9_000_000_000) throw new FakeStatus(11, 'etcdserver: too large lease TTL');
    const id = wanted === '0' ? String(7_587_848_943_239_472_000n + BigInt(++this.#leaseCount)) : wanted;
    if (this.#leases.has(id)) throw new FakeStatus(9, 'etcdserver: lease already exists');
    const granted = Math.max(2, ttl);
    this.#leases.set(id, { ttl: granted, timer: this.#expiry(id, granted) });
    return { id, ttl: granted };
  }

  /** TTL in seconds; 0 for a lease that is gone. */
  keepAlive(id: string): number {
    const lease = this.#leases.get(id);
    if (lease === undefined) return 0;
    lease.timer.cancel();
    lease.timer = this.#expiry(id, lease.ttl);
    return lease.ttl;
  }

  revoke(id: string): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) throw new FakeStatus(5, 'etcdserver: requested lease not found');
    lease.timer.cancel();
    this.#leases.delete(id);
    const ops = [...this.#kvs.values()]
      .filter((kv) => kv.lease === id)
      .map((kv): RequestOp => ({ deleteRange: { key: kv.key } }));
    if (ops.length > 0) this.#write(ops);
  }

  timeToLive(id: string): { ttl: number; grantedTtl: number; keys: readonly Buffer[] } {
    const lease = this.#leases.get(id);
    if (lease === undefined) return { ttl: -1, grantedTtl: 0, keys: [] };
    const keys = [...this.#kvs.values()].filter((kv) => kv.lease === id).map((kv) => kv.key);
    return { ttl: lease.ttl, grantedTtl: lease.ttl, keys };
  }

  /** A leader change: every lease starts again with its full TTL. */
  changeLeader(): void {
    this.raftTerm++;
    for (const [id, lease] of this.#leases) {
      lease.timer.cancel();
      lease.timer = this.#expiry(id, lease.ttl);
    }
  }

  image(): StoreImage {
    return {
      history: [...this.#history],
      revision: this.#revision,
      compacted: this.#compacted,
      leases: [...this.#leases].map(([id, { ttl }]) => [id, ttl] as const),
    };
  }

  /** Puts an older (or newer) data directory back; cluster id, member id and term stay. */
  restore(image: StoreImage): void {
    this.stopTimers();
    this.#history = [...image.history];
    this.#revision = image.revision;
    this.#compacted = image.compacted;
    this.#kvs = this.#stateAt(image.revision);
    for (const [id, ttl] of image.leases) this.#leases.set(id, { ttl, timer: this.#expiry(id, ttl) });
  }

  /** An empty data directory under the same flags: the ids stay. */
  wipe(): void {
    this.restore({ history: [], revision: 1n, compacted: 0n, leases: [] });
    this.raftTerm = 2n;
  }

  stopTimers(): void {
    for (const lease of this.#leases.values()) lease.timer.cancel();
    this.#leases.clear();
  }

  #expiry(id: string, ttl: number): Timer {
    return this.#clock.setTimer(ttl * 1_000, () => this.revoke(id));
  }

  #write(ops: readonly RequestOp[]): bigint {
    const next = this.#revision + 1n;
    const events: Event[] = [];
    for (const op of ops) {
      if (op.put != null) this.#checkPut(op.put);
    }
    for (const op of ops) {
      if (op.put != null) events.push(this.#applyPut(op.put, next));
      if (op.deleteRange != null) events.push(...this.#applyDelete(op.deleteRange, next));
    }
    if (events.length === 0) return 0n;
    this.#revision = next;
    const done = { revision: next, events };
    this.#history.push(done);
    this.#onRevision(done);
    return BigInt(events.length);
  }

  #checkPut({ key, value, lease }: PutRequest): void {
    if (key.length === 0) throw new FakeStatus(3, 'etcdserver: key is not provided');
    if (value.length > 1_572_864) throw new FakeStatus(3, 'etcdserver: request is too large');
    if (lease !== undefined && lease !== '0' && !this.#leases.has(lease)) {
      throw new FakeStatus(5, 'etcdserver: requested lease not found');
    }
  }

  #applyPut(request: PutRequest, revision: bigint): Event {
    const name = request.key.toString('latin1');
    const before = this.#kvs.get(name) ?? null;
    const kv: KeyValue = {
      key: request.key,
      createRevision: before?.createRevision ?? String(revision),
      modRevision: String(revision),
      version: String(BigInt(before?.version ?? '0') + 1n),
      value: request.ignoreValue === true ? (before?.value ?? EMPTY) : request.value,
      lease: request.ignoreLease === true ? (before?.lease ?? '0') : (request.lease ?? '0'),
    };
    this.#kvs.set(name, kv);
    return { type: 0, kv, prevKv: before };
  }

  #applyDelete(request: DeleteRangeRequest, revision: bigint): Event[] {
    const within = rangeTest(request.key, request.rangeEnd ?? EMPTY);
    const events: Event[] = [];
    for (const name of [...this.#kvs.keys()].filter(within).sort()) {
      const before = this.#kvs.get(name);
      if (before === undefined) continue;
      this.#kvs.delete(name);
      events.push({ type: 1, kv: deletedKv(before.key, revision), prevKv: before });
    }
    return events;
  }

  #holds(compare: Compare): boolean {
    const kv = this.#kvs.get(compare.key.toString('latin1')) ?? null;
    if (compare.target === 3) {
      // Every value compare on a missing key is false, "not equal" included.
      return kv !== null && ordered(Buffer.compare(kv.value, compare.value ?? EMPTY), compare.result);
    }
    const fields: readonly (readonly [have: string | undefined, want: string | undefined])[] = [
      [kv?.version, compare.version],
      [kv?.createRevision, compare.createRevision],
      [kv?.modRevision, compare.modRevision],
      ['0', '0'],
      [kv?.lease, compare.lease],
    ];
    const [have, want] = fields[compare.target] ?? ['0', '1'];
    const left = BigInt(have ?? '0');
    const right = BigInt(want ?? '0');
    return ordered(left < right ? -1 : left > right ? 1 : 0, compare.result);
  }

  #stateAt(revision: bigint): Map<string, KeyValue> {
    const state = new Map<string, KeyValue>();
    for (const step of this.#history) {
      if (step.revision > revision) break;
      for (const { type, kv } of step.events) {
        if (kv === null) continue;
        if (type === 1) state.delete(kv.key.toString('latin1'));
        else state.set(kv.key.toString('latin1'), kv);
      }
    }
    return state;
  }
}

function deletedKv(key: Buffer, revision: bigint): KeyValue {
  return { key, createRevision: '0', modRevision: String(revision), version: '0', value: EMPTY, lease: '0' };
}

/** Is a key (latin1) inside the range; an empty end means exactly the key, a zero byte means everything from it on. */
export function rangeTest(key: Uint8Array, end: Uint8Array): (name: string) => boolean {
  const from = Buffer.from(key).toString('latin1');
  const to = Buffer.from(end).toString('latin1');
  if (to === '') return (name) => name === from;
  if (to === '\0') return (name) => name >= from;
  return (name) => name >= from && name < to;
}

/** 0 equal, 1 greater, 2 less, 3 not equal. */
function ordered(order: number, result: number): boolean {
  return result === 0 ? order === 0 : result === 1 ? order > 0 : result === 2 ? order < 0 : order !== 0;
}
