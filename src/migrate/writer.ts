// Owns the calls to one target: batches across services, pace, back-off, the fresh read before each removal (migration.md rules 2, 8, 11,
// 12). Called by mirror.ts, which decides what is to be done and keeps the ledger. Must never send without a durable intent, nor while
// the owner's right is in doubt or writes are frozen.
import type { Adapter, Fence, WriteMode, WriteReceipt } from '../adapter/contract.ts';
import { reconnectDelay } from '../kernel/backoff.ts';
import { withDeadline } from '../kernel/cancel.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import { asSourceError, type Snapshot, SourceError } from '../model/snapshot.ts';
import type { Action } from './decide.ts';
import type { Address } from './ledger.ts';
import { MAX_BATCH, Pace } from './pace.ts';

/** W2: a copy outlives a restart of ours by this, ms. */
export const COPY_TTL_MS = 90_000;
/** Deadline of one call, ms. */
const CALL_MS = 10_000;
/** Services whose removals go on side by side: each reads its service first. */
const REMOVING_AT_ONCE = 4;
/** Whether writes may go on is looked at again after this, ms. */
const LOOK_AGAIN_MS = 500;

type Kind = 'read' | 'put' | 'health' | 'remove';

/** One call's worth of work on one service. */
export type Op<K extends Kind = Kind> = K extends Kind
  ? {
      readonly service: ServiceId;
      /** Native. */
      readonly key: ServiceKey;
      /** Monotonic ms: since when it is to be done. */
      readonly since: number;
      readonly action: Extract<Action, { kind: K }>;
    }
  : never;
export type WriteOp = Op<'put'> | Op<'health'> | Op<'remove'>;

/** What a removal found out before it was made. */
export type Before = 'ours' | 'gone' | 'native';
export type Outcome = WriteReceipt | true | 'native' | SourceError;

/** The mirror, as its writers see it. */
export interface WriterHost {
  adapter(): Adapter | null;
  may(): 'go' | 'frozen' | 'lost';
  fence(): Fence | undefined;
  liveness(op: Op<'put'>): WriteMode['liveness'];
  /** Makes the intents of these durable; rejects when the store does not take them. */
  begin(ops: readonly WriteOp[]): Promise<void>;
  /** Whose the record is that a removal is about, in a read of this moment. */
  whose(op: Op<'remove'>, snapshot: Snapshot): Before;
  /** `whole`: the call failed for all, and the writer waits by itself. */
  done(op: WriteOp, outcome: Outcome, whole: boolean): void;
  read(service: ServiceId, key: ServiceKey, snapshot: Snapshot, startedAt: number): void;
  /** Calls about these services are over: decide again. */
  settled(services: Iterable<ServiceId>): void;
}

export interface WriterDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly target: string;
  readonly callsPerSecond: number;
  readonly host: WriterHost;
}

export class TargetWriter {
  readonly #deps: WriterDeps;
  readonly #pace: Pace;
  readonly #stop = new AbortController();
  readonly #lanes = {
    read: new Map<ServiceId, Op<'read'>[]>(),
    put: new Map<ServiceId, Op<'put'>[]>(),
    health: new Map<ServiceId, Op<'health'>[]>(),
    remove: new Map<ServiceId, Op<'remove'>[]>(),
  };
  readonly #busy = new Map<ServiceId, Set<Address>>();
  readonly #reading = new Set<ServiceId>();
  #running: Promise<void> | null = null;
  #attempt = 0;
  #backoffUntil = Number.NEGATIVE_INFINITY;
  /** Why nothing is sent now; null: nothing stands in the way. */
  waiting: string | null = null;
  lastError: SourceError | null = null;

  constructor(deps: WriterDeps) {
    this.#deps = deps;
    this.#pace = new Pace(deps.clock, deps.callsPerSecond);
  }

  /** Replaces what is to be done for a service; calls under way go on (newest wins, W6). */
  plan(service: ServiceId, key: ServiceKey, actions: readonly Action[]): void {
    const since = Math.min(this.#since(service), this.#deps.clock.now());
    const ops = <T>(make: (action: Action) => T | null): T[] =>
      actions.flatMap((action) => {
        const op = make(action);
        return op === null ? [] : [op];
      });
    const at = { service, key, since };
    const { read, put, health, remove } = this.#lanes;
    const reads = ops((action) => (action.kind === 'read' ? { ...at, action } : null));
    place(read, service, this.#reading.has(service) ? [] : reads.slice(0, 1));
    place(
      put,
      service,
      ops((action) => (action.kind === 'put' ? { ...at, action } : null)),
    );
    place(
      health,
      service,
      ops((action) => (action.kind === 'health' ? { ...at, action } : null)),
    );
    place(
      remove,
      service,
      ops((action) => (action.kind === 'remove' ? { ...at, action } : null)),
    );
    this.#wake();
  }

  /** Nothing is to be done for a service any more. */
  cancel(service: ServiceId): void {
    for (const lane of Object.values(this.#lanes)) lane.delete(service);
  }

  /** Addresses of a service about which a call is under way. */
  busy(service: ServiceId): ReadonlySet<Address> {
    return this.#busy.get(service) ?? NONE;
  }

  /** Pieces of work that wait. */
  get queued(): number {
    return Object.values(this.#lanes).reduce((sum, lane) => sum + sizeOf(lane), 0);
  }

  /** Since when the oldest piece of work waits, monotonic ms; null: nothing does. */
  oldest(): number | null {
    let oldest = Number.POSITIVE_INFINITY;
    for (const lane of Object.values(this.#lanes))
      for (const ops of lane.values()) oldest = Math.min(oldest, ops[0]?.since ?? oldest);
    return Number.isFinite(oldest) ? oldest : null;
  }

  /** Gives up calls that are under way: their outcome is unknown, and the ledger says so. */
  async close(): Promise<void> {
    this.#stop.abort(new SourceError('lost', 'the mirror is closed'));
    await this.#running;
  }

  #wake(): void {
    if (this.#running !== null || this.#stop.signal.aborted || this.queued === 0) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      this.#wake();
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted && this.queued > 0) {
      try {
        const ms = this.#blockedFor();
        if (ms > 0) await this.#deps.clock.sleep(ms, signal);
        else await this.#round();
      } catch (thrown) {
        if (signal.aborted) return;
        // A bug of ours: it must not stop the target, nor spin.
        this.#failed(asSourceError(thrown));
      }
    }
  }

  /** How long nothing may be sent, ms; 0: go. */
  #blockedFor(): number {
    const { host, clock, target } = this.#deps;
    const may = host.may();
    const left = this.#backoffUntil - clock.now();
    if (may === 'lost') this.waiting = 'the right to write is lost';
    else if (may === 'frozen') this.waiting = 'writes are frozen';
    else if (host.adapter() === null) this.waiting = `source ${target} is not there to write to`;
    else {
      this.waiting = left > 0 ? `${target} failed: tried again soon` : null;
      return Math.max(0, left);
    }
    return LOOK_AGAIN_MS;
  }

  async #round(): Promise<void> {
    await this.#reads();
    await this.#puts();
    await this.#healths();
    await this.#removals();
  }

  async #reads(): Promise<void> {
    for (let n = this.#lanes.read.size; n > 0 && this.#clear(); n--) {
      await this.#pace.spend(1, this.#stop.signal);
      const [op] = takeFrom(this.#lanes.read, 1);
      if (op === undefined) return;
      this.#reading.add(op.service);
      try {
        const startedAt = this.#deps.clock.now();
        const snapshot = await this.#call((adapter, signal) => adapter.read(op.key, signal));
        this.#deps.host.read(op.service, op.key, snapshot, startedAt);
        this.#attempt = 0;
      } catch (thrown) {
        if (this.#stop.signal.aborted) throw thrown;
        this.#failed(asSourceError(thrown));
      } finally {
        this.#reading.delete(op.service);
      }
      this.#deps.host.settled([op.service]);
    }
  }

  async #puts(): Promise<void> {
    const [next] = firstOf(this.#lanes.put);
    if (next === undefined || !this.#clear()) return;
    const { size, calls } = this.#portion(this.#deps.host.liveness(next));
    await this.#pace.spend(calls, this.#stop.signal);
    // Taken only now: what changed while we waited goes in its newest form.
    const [first] = firstOf(this.#lanes.put);
    if (first === undefined) return;
    const liveness = this.#deps.host.liveness(first);
    const ops = takeFrom(this.#lanes.put, size, (op) => this.#deps.host.liveness(op) === liveness);
    const writes = ops.map(({ key, action: { instance, previous } }) => ({
      key,
      instance,
      ...(previous !== null && { previous }),
    }));
    const fence = this.#deps.host.fence();
    const how: WriteMode = { as: 'copy', ttl: COPY_TTL_MS, liveness, ...(fence !== undefined && { fence }) };
    await this.#send(ops, (adapter, signal) => adapter.put?.(writes, how, signal) ?? cannot('put'));
  }

  /** How many records go next, and what they cost. */
  #portion(liveness: WriteMode['liveness']): { readonly size: number; readonly calls: number } {
    const { put } = this.#lanes;
    const { writesPerCall = 1, setsByConnection = false } = this.#deps.host.adapter()?.capabilities ?? {};
    if (liveness !== 'connection' || !setsByConnection) {
      const size = Math.min(sizeOf(put), this.#pace.batchSize(writesPerCall));
      return { size, calls: Pace.calls(size, writesPerCall) };
    }
    let size = 0;
    let calls = 0;
    for (const ops of put.values()) {
      if (calls > 0 && (calls >= this.#pace.batchSize(1) || size + ops.length > MAX_BATCH)) break;
      size += Math.min(ops.length, MAX_BATCH);
      calls++;
    }
    return { size, calls };
  }

  async #healths(): Promise<void> {
    const size = Math.min(sizeOf(this.#lanes.health), this.#pace.batchSize(1));
    if (size === 0 || !this.#clear()) return;
    await this.#pace.spend(size, this.#stop.signal);
    const ops = takeFrom(this.#lanes.health, size);
    await this.#send(ops, (adapter, signal) =>
      Promise.all(
        ops.map(async ({ action: { entry, health } }): Promise<true | SourceError> => {
          if (entry.receipt === null || adapter.setHealth === undefined) return new SourceError('refused', 'it has no receipt');
          return adapter.setHealth(entry.receipt, health, signal).then(
            () => true as const,
            (thrown: unknown) => asSourceError(thrown),
          );
        }),
      ),
    );
  }

  async #removals(): Promise<void> {
    if (!this.#clear()) return;
    const services = [...this.#lanes.remove.keys()].slice(0, REMOVING_AT_ONCE);
    await Promise.all(services.map((service) => this.#removeFrom(service)));
  }

  /** Rule 2: reads the service, then removes at once what is still ours. */
  async #removeFrom(service: ServiceId): Promise<void> {
    const perCall = this.#deps.host.adapter()?.capabilities.writesPerCall ?? 1;
    await this.#pace.spend(
      1 + Pace.calls(Math.min(this.#lanes.remove.get(service)?.length ?? 0, MAX_BATCH), perCall),
      this.#stop.signal,
    );
    const ops = takeOf(this.#lanes.remove, service, MAX_BATCH);
    const [first] = ops;
    if (first === undefined) return;
    const { host } = this.#deps;
    const fence = host.fence();
    await this.#send(ops, async (adapter, signal) => {
      const snapshot = await adapter.read(first.key, signal);
      const whose = ops.map((op) => host.whose(op, snapshot));
      const ours = ops.filter((_, n) => whose[n] === 'ours');
      signal.throwIfAborted();
      if (!this.#clear()) throw new SourceError('lost', 'writes were stopped');
      const receipts = ours.map(({ action }) => action.receipt);
      const how = fence === undefined ? {} : { fence };
      const results = ours.length === 0 ? [] : await (adapter.remove?.(receipts, how, signal) ?? cannot('remove'));
      const answers = new Map(ours.map((op, n) => [op, results[n] ?? missing()]));
      return ops.map((op, n) => answers.get(op) ?? (whose[n] === 'native' ? ('native' as const) : (true as const)));
    });
  }

  /** Intents, one call, outcomes. The calls of `ops` are under way from here to its end. */
  async #send(
    ops: readonly WriteOp[],
    call: (adapter: Adapter, signal: AbortSignal) => Promise<readonly Outcome[]>,
  ): Promise<void> {
    const { host } = this.#deps;
    const services = new Set(ops.map(({ service }) => service));
    for (const op of ops) this.#setBusy(op, true);
    try {
      await host.begin(ops);
      // Rule 11: right before the send.
      if (!this.#clear()) return;
      const results = await this.#call(call);
      this.#settle(
        ops,
        ops.map((_, n) => results[n] ?? missing()),
      );
    } catch (thrown) {
      if (this.#stop.signal.aborted) throw thrown;
      const error = asSourceError(thrown);
      this.#failed(error);
      for (const op of ops) host.done(op, error, true);
    } finally {
      for (const op of ops) this.#setBusy(op, false);
      if (!this.#stop.signal.aborted) host.settled(services);
    }
  }

  #settle(ops: readonly WriteOp[], results: readonly Outcome[]): void {
    const [first] = results;
    const down = results.every(
      (result) => result instanceof SourceError && (result.causeKind === 'lost' || result.causeKind === 'denied'),
    );
    if (down && first instanceof SourceError) this.#failed(first);
    else {
      this.#attempt = 0;
      this.lastError = results.find((result) => result instanceof SourceError) ?? null;
    }
    for (const [n, op] of ops.entries()) this.#deps.host.done(op, results[n] ?? missing(), down);
  }

  #call<T>(call: (adapter: Adapter, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, host, target } = this.#deps;
    const adapter = host.adapter();
    if (adapter === null) throw new SourceError('lost', `source ${target} is not there to write to`);
    return withDeadline(clock, CALL_MS, this.#stop.signal, async (signal) => call(adapter, signal));
  }

  #clear(): boolean {
    return this.#deps.host.may() === 'go' && !this.#stop.signal.aborted && this.#backoffUntil <= this.#deps.clock.now();
  }

  #failed(error: SourceError): void {
    const { clock, random, log, target } = this.#deps;
    this.lastError = error;
    if (++this.#attempt === 1)
      log.warn({ source: target, cause: error.causeKind, error: error.message }, 'writing copies failed');
    const wait = Math.max(reconnectDelay(this.#attempt, random), error.retryAfterMs ?? 0);
    this.#backoffUntil = Math.max(this.#backoffUntil, clock.now() + wait);
  }

  #setBusy({ service, action }: WriteOp, under: boolean): void {
    const busy = this.#busy.get(service) ?? new Set<Address>();
    if (under) this.#busy.set(service, busy.add(action.address));
    else {
      busy.delete(action.address);
      if (busy.size === 0) this.#busy.delete(service);
    }
  }

  #since(service: ServiceId): number {
    let since = Number.POSITIVE_INFINITY;
    for (const lane of Object.values(this.#lanes)) since = Math.min(since, lane.get(service)?.[0]?.since ?? since);
    return since;
  }
}

const NONE: ReadonlySet<Address> = new Set();

function place<T>(lane: Map<ServiceId, T[]>, service: ServiceId, ops: T[]): void {
  // A service that waits keeps its place in the line.
  if (ops.length === 0) lane.delete(service);
  else lane.set(service, ops);
}

function sizeOf(lane: ReadonlyMap<ServiceId, readonly unknown[]>): number {
  let size = 0;
  for (const ops of lane.values()) size += ops.length;
  return size;
}

function firstOf<T>(lane: ReadonlyMap<ServiceId, readonly T[]>): readonly T[] {
  for (const ops of lane.values()) return ops;
  return [];
}

function takeOf<T>(lane: Map<ServiceId, T[]>, service: ServiceId, max: number, fits: (op: T) => boolean = () => true): T[] {
  const taken: T[] = [];
  const left: T[] = [];
  for (const op of lane.get(service) ?? []) (taken.length < max && fits(op) ? taken : left).push(op);
  place(lane, service, left);
  return taken;
}

function takeFrom<T>(lane: Map<ServiceId, T[]>, max: number, fits?: (op: T) => boolean): T[] {
  const taken: T[] = [];
  for (const service of [...lane.keys()]) {
    if (taken.length >= max) break;
    taken.push(...takeOf(lane, service, max - taken.length, fits));
  }
  return taken;
}

function cannot(what: string): never {
  throw new SourceError('refused', `this kind of registry has no ${what}`);
}

function missing(): SourceError {
  return new SourceError('malformed', 'the adapter gave no answer for this record');
}
