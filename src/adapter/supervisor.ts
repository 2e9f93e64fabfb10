// Owns the streams of ONE source: the list of names and one watch per selected service, each kept alive by a StreamLoop (R7).
// Called by app (start, close), catalog through app (keep, release, readNow) and first use (want, drop); answers into a SourceSink.
// Must never remember what a registry said (that is the catalog's), and never let a fault of its adapter reach another source (C11).
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import { compareText, type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../model/snapshot.ts';
import type { Adapter } from './contract.ts';
import { controlRetry } from './control-retry.ts';
import { Gate } from './gate.ts';
import { Outage } from './outage.ts';
import { type Select, selects } from './select.ts';
import type { SourceSink } from './source-sink.ts';
import { noStreams, SourceStatus, type SourceSummary } from './source-status.ts';
import { StreamLoop, type StreamShared, type StreamState, type StreamUser } from './stream-loop.ts';
import { TurnBudget } from './turn-budget.ts';

/** catalog-rules §6. */
export const MAX_SERVICES = 10_000;
/** How many watches may wait for their first answer at once: a start with 10,000 services is no burst of 10,000 requests. */
const OPENING_AT_ONCE = 64;
const READ_ROUNDS = 3;

export interface SupervisorDeps {
  readonly sourceId: string;
  readonly adapter: Adapter;
  readonly select: Select;
  readonly sink: SourceSink;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Deadline of a read and of the first answer of a stream, ms (`timeout` of the source). */
  readonly timeout: number;
  readonly maxServices?: number;
  /** Cap of the back-off, ms; R7's 30 s unless the source is on this host (file, memory). */
  readonly maxBackoff?: number;
}

/** What the watches of one source share. */
interface WatchShared {
  readonly streams: StreamShared;
  readonly status: SourceStatus;
  readonly deps: SupervisorDeps;
}

/** One watch: a class, since closures of its own for each of 10,000 would be larger than what they close over. */
class Watched implements StreamUser<Snapshot | Unchanged> {
  readonly key: ServiceKey;
  readonly loop: StreamLoop<Snapshot | Unchanged>;
  readonly #shared: WatchShared;

  constructor(key: ServiceKey, shared: WatchShared) {
    this.key = key;
    this.#shared = shared;
    this.loop = new StreamLoop(shared.streams, this);
  }

  open(signal: AbortSignal): AsyncIterable<Snapshot | Unchanged> {
    return this.#shared.deps.adapter.watch(this.key, signal);
  }

  item(item: Snapshot | Unchanged): void {
    const { sink, sourceId } = this.#shared.deps;
    if (item.kind === 'unchanged') sink.unchanged(sourceId, this.key);
    else sink.snapshot(sourceId, this.key, item);
  }

  lost(error: SourceError): void {
    const { sink, sourceId } = this.#shared.deps;
    sink.lost(sourceId, this.key, error);
  }

  state(now: StreamState, before: StreamState): void {
    this.#shared.status.watchBecame(now, before);
  }
}

export class Supervisor {
  readonly #deps: SupervisorDeps;
  readonly #wheel: TimerWheel;
  readonly #shared: WatchShared;
  readonly #status: SourceStatus;
  readonly #closing = new AbortController();
  readonly #watched = new Map<ServiceId, Watched>();
  /** Asked for at first use (onDemand). */
  readonly #wanted = new Map<ServiceId, ServiceKey>();
  /** Held by the catalog although the list says that they are gone. */
  readonly #kept = new Map<ServiceId, ServiceKey>();
  /** Names of the last list, null before the first one; always null where the source cannot list. */
  #listed: ReadonlyMap<ServiceId, ServiceKey> | null = null;
  #list: StreamLoop<ServiceList> | null = null;
  #started = false;

  constructor(deps: SupervisorDeps) {
    const { clock, random, adapter, timeout, maxBackoff = 30_000 } = deps;
    this.#deps = deps;
    this.#wheel = new TimerWheel(clock, 25);
    const streams: StreamShared = {
      clock,
      random,
      wheel: this.#wheel,
      gate: new Gate(OPENING_AT_ONCE),
      turn: new TurnBudget(clock),
      timeout,
      paced: adapter.capabilities.watch !== 'push',
      outage: new Outage({ clock, random, wheel: this.#wheel, maxBackoff }),
      maxBackoff,
    };
    this.#status = new SourceStatus(clock, (summary) => {
      const { state, lastError } = summary;
      const level = state === 'live' || state === 'connecting' ? 'info' : 'warn';
      deps.log[level]({ source: deps.sourceId, state, cause: summary.cause, error: lastError }, 'source changed its state');
    });
    this.#shared = { streams, status: this.#status, deps };
  }

  /** Opens the list of names, if the source has one, and every watch that is asked for. Does not wait. */
  start(): void {
    if (this.#started || this.#closing.signal.aborted) return;
    this.#started = true;
    const { adapter } = this.#deps;
    const services = adapter.capabilities.list ? adapter.services?.bind(adapter) : undefined;
    if (services !== undefined) this.#list = this.#listLoop(services);
    this.#settle();
  }

  /** First use of a service: it is watched as soon as the source lists it (at once where the source cannot list). */
  want(key: ServiceKey): void {
    this.#wanted.set(serviceId(key), key);
    this.#settleOne(key);
  }

  /** Nobody uses the service any more. */
  drop(key: ServiceKey): void {
    this.#wanted.delete(serviceId(key));
    this.#settleOne(key);
  }

  /** Watches on (or again) although the list says that the name is gone: the catalog holds it. */
  keep(key: ServiceKey): void {
    this.#kept.set(serviceId(key), key);
    this.#settleOne(key);
  }

  /** The hold is over. */
  release(key: ServiceKey): void {
    this.#kept.delete(serviceId(key));
    this.#settleOne(key);
  }

  /** Whether the source's last list has the name; null while that is not known (no list yet, or a source that cannot list). */
  lists(key: ServiceKey): boolean | null {
    return this.#listed === null ? null : this.#listed.has(serviceId(key));
  }

  /**
   * One fresh full read, given to the sink and returned: confirms holds. A watch that speaks while the read is under way makes
   * the read stale: it is repeated, so that an older answer never follows a newer one. Throws SourceError.
   */
  async readNow(key: ServiceKey): Promise<Snapshot> {
    const { adapter, sink, clock, random, sourceId, timeout } = this.#deps;
    for (let round = 0; round < READ_ROUNDS; round++) {
      const loop = this.#watched.get(serviceId(key))?.loop;
      const before = loop?.items;
      const retry = { clock, random, deadlineMs: timeout, retries: 1 };
      const snapshot = await controlRetry(retry, this.#closing.signal, (signal) => adapter.read(key, signal));
      if (loop !== undefined && loop.items !== before) continue;
      sink.snapshot(sourceId, key, snapshot);
      return snapshot;
    }
    throw new SourceError('lost', `the service changed during each of ${READ_ROUNDS} reads`);
  }

  /** For /v1/sources; costs time in proportion to the number of watches only while some are lost. */
  summary(): SourceSummary {
    return this.#status.summary(this.#watched.size, this.#nextTryAt());
  }

  /** Ends every stream; the adapter stays open (registrations may still need it). Resolves although an adapter hangs. */
  async close(): Promise<void> {
    this.#closing.abort(new SourceError('lost', 'the source is being closed'));
    for (const id of [...this.#watched.keys()]) this.#unwatch(id);
    this.#list?.stop();
    this.#wheel.close();
  }

  #listLoop(services: (signal: AbortSignal) => AsyncIterable<ServiceList>): StreamLoop<ServiceList> {
    const { sink, sourceId } = this.#deps;
    // The list is no poll of one service: adapters that poll it do so at their own, slower pace.
    return new StreamLoop<ServiceList>(
      { ...this.#shared.streams, paced: false },
      {
        open: services,
        item: (list) => this.#onList(list),
        lost: (error) => sink.lost(sourceId, null, error),
        state: (now) => this.#status.listBecame(now),
      },
    );
  }

  #onList(list: ServiceList): void {
    const { sink, sourceId } = this.#deps;
    const names = new Map(list.keys.map((key) => [serviceId(key), key]));
    // What the list could not read says nothing about a name: it stays as it was.
    for (const key of list.failed) if (this.#listed?.has(serviceId(key))) names.set(serviceId(key), key);
    if (!list.complete) for (const [id, key] of this.#listed ?? []) if (!names.has(id)) names.set(id, key);
    this.#listed = names;
    // The sink first: it may call keep() for names that it holds, so that their watches go on without a break.
    sink.list(sourceId, this.#chosen(list));
    this.#settle();
  }

  /** Names that no pattern chooses are nobody's business; what is watched on demand is listed whole, so that its names can be found. */
  #chosen(list: ServiceList): ServiceList {
    const { select } = this.#deps;
    if (select.kind !== 'patterns') return list;
    const chosen = (key: ServiceKey): boolean => selects(select, key);
    return { ...list, keys: list.keys.filter(chosen), failed: list.failed.filter(chosen) };
  }

  /** Opens and ends watches until they are those that are asked for. */
  #settle(): void {
    if (!this.#started) return;
    for (const { key } of [...this.#watched.values()]) if (!this.#asked(key)) this.#unwatch(serviceId(key));
    const missing = new Map<ServiceId, ServiceKey>();
    for (const group of [this.#kept, this.#wanted, this.#listed ?? this.#kept]) {
      for (const [id, key] of group) if (!this.#watched.has(id) && this.#asked(key)) missing.set(id, key);
    }
    const room = this.#room();
    if (missing.size > room) this.#overLimit([...missing.values()], room);
    else {
      for (const key of missing.values()) this.#watch(key);
      this.#status.limited(null);
    }
  }

  /** How many services more may be watched. */
  #room(): number {
    return Math.max(0, (this.#deps.maxServices ?? MAX_SERVICES) - this.#watched.size);
  }

  #settleOne(key: ServiceKey): void {
    if (!this.#started) return;
    const id = serviceId(key);
    if (!this.#asked(key)) this.#unwatch(id);
    else if (this.#watched.has(id)) return;
    else if (this.#room() > 0) this.#watch(key);
    else this.#settle();
  }

  /** The same names on every machine and in every order of events: the first ones of the alphabet. */
  #overLimit(missing: ServiceKey[], room: number): void {
    missing.sort((a, b) => compareText(serviceId(a), serviceId(b)));
    for (const key of missing.slice(0, room)) this.#watch(key);
    const limit = this.#deps.maxServices ?? MAX_SERVICES;
    const message = `${missing.length - room} services are over the limit of ${limit} and are not watched; narrow select`;
    const error = new SourceError('limit', message);
    this.#status.limited(error);
    this.#deps.sink.lost(this.#deps.sourceId, null, error);
  }

  #asked(key: ServiceKey): boolean {
    if (this.#closing.signal.aborted) return false;
    const id = serviceId(key);
    if (this.#kept.has(id)) return true;
    const listed = this.#listed?.has(id) ?? this.#list === null;
    if (!listed) return false;
    return this.#wanted.has(id) || (this.#listed !== null && selects(this.#deps.select, key));
  }

  #watch(key: ServiceKey): void {
    this.#watched.set(serviceId(key), new Watched(key, this.#shared));
    this.#status.watchBegan();
  }

  #unwatch(id: ServiceId): void {
    const watched = this.#watched.get(id);
    if (watched === undefined) return;
    this.#watched.delete(id);
    watched.loop.stop();
    this.#status.watchEnded(watched.loop.state);
  }

  #nextTryAt(): number {
    const ofSource = this.#shared.streams.outage.nextTryAt;
    if (ofSource !== null) return ofSource;
    let earliest = nextTry(this.#list?.state);
    if (this.#status.lostWatches > 0) {
      for (const { loop } of this.#watched.values()) earliest = Math.min(earliest, nextTry(loop.state));
    }
    return earliest;
  }
}

function nextTry(state: StreamState = noStreams): number {
  return state.kind === 'lost' ? state.nextTryAt : Number.POSITIVE_INFINITY;
}
