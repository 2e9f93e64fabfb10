// Owns the data plane: builds clusters, listeners, gate and access log from messages alone, so that a worker could host it.
// Called by app (or a worker's entry). It must never reach for the catalog: what it needs to know comes as a message.

import { ClusterSet } from '../cluster/cluster-set.ts';
import type { ClusterMessage } from '../cluster/cluster-update.ts';
import type { ClusterState, Interest } from '../cluster/interest.ts';
import type { SideCounts } from '../cluster/sides.ts';
import type { DownstreamLimits } from '../http1/downstream.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { OwnListener } from '../kernel/dial.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { TimerWheel } from '../kernel/timer-wheel.ts';
import type { ServiceId } from '../model/service.ts';
import type { Counter, Metrics } from '../telemetry/metrics.ts';
import { AccessLog, type AccessLogSink } from './access-log.ts';
import { openAccessLogSink } from './access-log-sink.ts';
import { connectPolicy, type Resolve } from './connect-policy.ts';
import { Drain } from './drain.ts';
import { Listeners } from './listeners.ts';
import type { LocalCode } from './local-reply.ts';
import { OverloadGate, type PressureSampler, watchPressure } from './overload.ts';
import { poolMaker } from './pools.ts';
import type { NoCluster, ProxyContext } from './proxy-context.ts';
import type { AccessLogUpdate, ListenAddress, ProxyUpdate } from './proxy-update.ts';
import { Router } from './route.ts';
import { ServiceSlot } from './service-slot.ts';

export interface DataPlaneDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: TimerWheel;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly interest: Interest;
  /** Looks at the process for overload protection; without it only the counts in flight protect. */
  readonly sampler?: PressureSampler;
  /** All downstream connections together: nofile / 2 minus the admin reserve. Default 8,192. */
  readonly maxConnections?: number;
  /** Listeners of this process besides these (the admin API): never an upstream. */
  readonly own?: () => readonly OwnListener[];
  /** An inherited listening descriptor for an address (hand-over, systemd), or null. */
  readonly inherited?: (listen: ListenAddress) => number | null;
  readonly openAccessLog?: (to: AccessLogUpdate['to'], clock: Clock) => AccessLogSink;
  readonly resolve?: Resolve;
  readonly limits?: DownstreamLimits;
}

/** What `counts` tells. */
export interface DataPlaneCounts {
  readonly connections: number;
  /** Requests in flight that count (no tunnels, no streaming routes). */
  readonly requests: number;
  readonly services: number;
  readonly servicesUsed: number;
  readonly pressure: number;
}

const LOG_FLUSH_MS = 500;
const DEFAULT_MAX_CONNECTIONS = 8_192;

export class DataPlane {
  readonly #deps: DataPlaneDeps;
  readonly #clusters: ClusterSet;
  readonly #listeners: Listeners;
  readonly #gate = new OverloadGate();
  readonly #accessLog: AccessLog;
  readonly #slots = new Map<ServiceId, ServiceSlot>();
  readonly #localReplies = new Map<LocalCode, Counter>();
  readonly #connections = { connections: 0 };
  readonly #pressure: Timer | null;
  #accessTo: AccessLogUpdate['to'] | null = null;
  #drain: Drain | null = null;
  #drained: Promise<void> = Promise.resolve();

  constructor(deps: DataPlaneDeps) {
    this.#deps = deps;
    const { clock, metrics, wheel, random, interest } = deps;
    const connect = connectPolicy({
      own: () => [...this.#listeners.own, ...(deps.own?.() ?? [])],
      onRefused: (rule) => metrics.counter('weir_addresses_refused_total', 'proxy', rule).inc(),
      ...(deps.resolve === undefined ? {} : { resolve: deps.resolve }),
    });
    this.#clusters = new ClusterSet({ clock, random, wheel, metrics, makePool: poolMaker(wheel, connect) }, interest);
    this.#accessLog = new AccessLog(null, clock, metrics.counter('weir_access_log_dropped_total'));
    this.#listeners = new Listeners(
      {
        context: this.#context(),
        maxConnections: deps.maxConnections ?? DEFAULT_MAX_CONNECTIONS,
        counts: this.#connections,
        perAddress: new Map(),
        onRefused: (status) => this.#onRefused(status),
        inherited: deps.inherited ?? (() => null),
        ...(deps.limits === undefined ? {} : { limits: deps.limits }),
      },
      metrics,
    );
    metrics.onCollect(() => metrics.gauge('weir_requests_active').set(this.#gate.requests));
    this.#pressure =
      deps.sampler === undefined ? null : watchPressure(this.#gate, deps.sampler, clock, () => this.#onPressureChanged());
  }

  /**
   * Takes a message. A ClusterMessage takes effect before this returns. For a ProxyUpdate the promise resolves when its listeners
   * are open; it rejects with a WeirError `LISTEN_FAILED`, or the system's error for the access log, and then nothing changed.
   */
  apply(message: ClusterMessage): void;
  apply(message: ProxyUpdate): Promise<void>;
  apply(message: ClusterMessage | ProxyUpdate): void | Promise<void> {
    if (message.kind === 'proxy') return this.#applyProxy(message);
    if (message.kind === 'absent') this.#forget(message.service);
    this.#clusters.apply(message);
  }

  /** State of one service for explain; null when there is none. Does not count as use. */
  state(service: ServiceId): ClusterState | null {
    return this.#clusters.states(service);
  }

  /** Services that were picked from within the last `withinMs`. */
  activeServices(withinMs: number): ServiceId[] {
    return this.#clusters.activeServices(withinMs);
  }

  /** What weighted merges counted by group, over the services that `inScope` accepts; sums that only grow. */
  sides(inScope: (service: ServiceId) => boolean): ReadonlyMap<string, SideCounts> {
    return this.#clusters.sides(inScope);
  }

  counts(): DataPlaneCounts {
    const { services, used } = this.#clusters.counts;
    const { requests, pressure } = this.#gate;
    return { connections: this.#connections.connections, requests, services, servicesUsed: used, pressure };
  }

  /** Listening addresses of this data plane, for the outbound policy. */
  get own(): readonly OwnListener[] {
    return this.#listeners.own;
  }

  /** Where a listener listens now (its port, when 0 was asked for); null when it has none. */
  address(listenerId: string): { readonly host: string; readonly port: number } | null {
    return this.#listeners.address(listenerId);
  }

  /** Opens the access log anew (log rotation). */
  reopenAccessLog(): void {
    this.#accessLog.reopen();
  }

  /** Drains (§17); resolves when no connection is left. A second call makes it a hard stop. */
  drain(): Promise<void> {
    if (this.#drain !== null) {
      this.#drain.hard();
      return this.#drained;
    }
    const drain = new Drain(() => this.#listeners.all(), this.#deps.clock);
    this.#drain = drain;
    // A log that nobody reads must not keep the process from ending.
    this.#drained = drain.run().then(() => Promise.race([this.#accessLog.flushed(), this.#deps.clock.sleep(LOG_FLUSH_MS)]));
    return this.#drained;
  }

  /** Ends everything at once: sockets are cut, pools closed. The wheel stays the owner's. */
  close(): void {
    this.#drain?.hard();
    this.#pressure?.cancel();
    for (const listener of this.#listeners.all()) listener.destroy();
    this.#clusters.close();
    for (const service of [...this.#slots.keys()]) this.#forget(service);
    this.#accessLog.use(null);
  }

  async #applyProxy(update: ProxyUpdate): Promise<void> {
    const to = update.accessLog?.to ?? null;
    const same = sameTarget(to, this.#accessTo);
    const open = this.#deps.openAccessLog ?? openAccessLogSink;
    const sink = same || to === null ? null : open(to, this.#deps.clock);
    try {
      await this.#listeners.apply(update);
    } catch (thrown) {
      sink?.close();
      throw thrown;
    }
    if (same) return;
    this.#accessTo = to;
    this.#accessLog.use(sink);
  }

  #context(): ProxyContext {
    const { clock, wheel, random, log, metrics } = this.#deps;
    const dropped = (reason: string): Counter => metrics.counter('weir_fields_dropped_total', reason);
    return {
      clock,
      wheel,
      random,
      log,
      gate: this.#gate,
      router: new Router(),
      accessLog: this.#accessLog,
      dropped: { twins: dropped('lookAlike'), identity: dropped('identity'), named: dropped('named') },
      newId: idMaker(random),
      countLocalReply: (code) => this.#countLocalReply(code),
      find: (service) => this.#find(service),
      wait: (service, waiter) =>
        this.#clusters.wait(service, (answer) => waiter(typeof answer === 'string' ? answer : this.#slotOf(answer.service))),
    };
  }

  #find(service: ServiceId): ServiceSlot | NoCluster | 'pending' {
    const slot = this.#slots.get(service);
    if (slot !== undefined) return slot;
    const found = this.#clusters.lookup(service);
    if (typeof found === 'string') return found;
    const made = new ServiceSlot(found, this.#deps.metrics);
    this.#slots.set(service, made);
    return made;
  }

  #slotOf(service: ServiceId): ServiceSlot | NoCluster {
    const found = this.#find(service);
    return found === 'pending' ? 'notReady' : found;
  }

  #forget(service: ServiceId): void {
    this.#slots.get(service)?.close();
    this.#slots.delete(service);
  }

  #countLocalReply(code: LocalCode): void {
    let counter = this.#localReplies.get(code);
    if (counter === undefined) {
      counter = this.#deps.metrics.counter('weir_local_replies_total', code);
      this.#localReplies.set(code, counter);
    }
    counter.inc();
  }

  #onRefused(status: number): void {
    this.#deps.metrics.counter('weir_downstream_refused_total', String(status)).inc();
    this.#countLocalReply('BAD_REQUEST');
  }

  #onPressureChanged(): void {
    const { pressure, closing, shedding, stopAccepting } = this.#gate;
    this.#deps.log.warn({ pressure, closing, shedding, stopAccepting }, 'overload actions changed');
    if (this.#drain === null) this.#listeners.closing = closing;
  }
}

function sameTarget(a: AccessLogUpdate['to'] | null, b: AccessLogUpdate['to'] | null): boolean {
  if (a === null || b === null) return a === b;
  return a.kind === 'stdout' ? b.kind === 'stdout' : b.kind === 'file' && a.path === b.path;
}

/** Ids that are unique in this process and, by a random part, among others. */
function idMaker(random: Random): () => string {
  const part = (): string =>
    Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0');
  const prefix = `${part()}${part()}-`;
  let n = 0;
  return () => prefix + (n++).toString(36);
}
