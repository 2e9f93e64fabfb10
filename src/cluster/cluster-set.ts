// Owns all clusters of the data plane: the control plane's messages in, a cluster for a service's name out. Called by proxy and by whoever
// carries the messages. Must never build a cluster that nobody asked for: of most services only the message is kept.
import { Deadline } from '../kernel/timer-wheel.ts';
import type { ServiceId } from '../model/service.ts';
import { AbsentNames } from './absent-names.ts';
import { Cluster, type ClusterDeps } from './cluster.ts';
import type { ClusterAbsent, ClusterMessage, ClusterUpdate } from './cluster-update.ts';
import { REMEMBER_MS } from './endpoint-table.ts';
import { FirstUses } from './first-uses.ts';
import type { ClusterState, Interest } from './interest.ts';
import { addCounts, noCounts, type SideCounts } from './sides.ts';

/** What a name is now: a cluster, no service, not known yet because a source has no first answer, or asked for and not answered yet. */
export type Lookup = Cluster | ClusterAbsent['why'] | 'pending';

/** What a waiter gets; `notReady` also when no answer came within a second. */
export type FirstUseAnswer = Cluster | ClusterAbsent['why'];

/** A cluster whose service went away: its endpoints' failures are remembered as long as those of a removed endpoint. */
interface Leaving {
  readonly cluster: Cluster;
  readonly deadline: Deadline;
}

export class ClusterSet {
  readonly #deps: ClusterDeps;
  readonly #interest: Interest;
  /** Clusters in use. */
  readonly #clusters = new Map<ServiceId, Cluster>();
  /** Services of which nobody asked yet: the message as it came. */
  readonly #unused = new Map<ServiceId, ClusterUpdate>();
  readonly #leaving = new Map<ServiceId, Leaving>();
  readonly #absent = new AbsentNames();
  readonly #firstUses: FirstUses<FirstUseAnswer>;
  #closed = false;

  constructor(deps: ClusterDeps, interest: Interest) {
    this.#deps = deps;
    this.#interest = interest;
    this.#firstUses = new FirstUses<FirstUseAnswer>(deps.wheel, 'notReady');
    deps.metrics.onCollect(() => this.#collect());
  }

  /** The cluster, or undefined while there is none (see `lookup`); asks the control plane like it. */
  get(service: ServiceId): Cluster | undefined {
    const found = this.lookup(service);
    return typeof found === 'string' ? undefined : found;
  }

  /** What the name is. At the first use of an unknown name the control plane is told, which may answer within this call. */
  lookup(service: ServiceId): Lookup {
    return this.#clusters.get(service) ?? this.#firstLookup(service);
  }

  /**
   * For a name that is `pending`: calls back once, within a second. Any other name is answered before this returns. The returned function
   * cancels.
   */
  wait(service: ServiceId, waiter: (answer: FirstUseAnswer) => void): () => void {
    const found = this.lookup(service);
    if (found === 'pending') return this.#firstUses.wait(service, waiter);
    waiter(found);
    return () => {};
  }

  /** Takes over a message; of one service they must come in the order of their revisions. */
  apply(message: ClusterMessage): void {
    if (this.#closed) return;
    if (message.kind === 'cluster') this.#update(message);
    else this.#remove(message);
  }

  /** State of one service; null when it is none. Does not count as use. */
  states(service: ServiceId): ClusterState | null {
    const cluster = this.#clusters.get(service);
    if (cluster !== undefined) return cluster.state();
    const update = this.#unused.get(service);
    // A cluster for this answer only: it holds no timer and no series before its first pick.
    return update === undefined ? null : new Cluster(this.#deps, update).state();
  }

  /** Services that were picked from within the last `withinMs`. */
  activeServices(withinMs: number): ServiceId[] {
    const active: ServiceId[] = [];
    for (const [service, cluster] of this.#clusters) {
      const age = cluster.lastPickAgeMs;
      if (cluster.activeRequests > 0 || (age !== null && age <= withinMs)) active.push(service);
    }
    return active;
  }

  /** Sums by group over the services in use that `inScope` accepts. */
  sides(inScope: (service: ServiceId) => boolean): ReadonlyMap<string, SideCounts> {
    const sums = new Map<string, SideCounts>();
    for (const [service, cluster] of this.#clusters) {
      if (cluster.sides.length === 0 || !inScope(service)) continue;
      for (const { id, counts } of cluster.sides) {
        const sum = sums.get(id) ?? noCounts();
        addCounts(sum, counts);
        sums.set(id, sum);
      }
    }
    return sums;
  }

  /** Services known, and those of them in use. */
  get counts(): { readonly services: number; readonly used: number } {
    return { services: this.#clusters.size + this.#unused.size, used: this.#clusters.size };
  }

  /** The end: waiters are answered, timers off, pools drained, series removed. */
  close(): void {
    this.#closed = true;
    this.#firstUses.close();
    for (const cluster of this.#clusters.values()) cluster.close();
    for (const service of [...this.#leaving.keys()]) this.#forget(service);
    this.#clusters.clear();
    this.#unused.clear();
  }

  #firstLookup(service: ServiceId): Lookup {
    const update = this.#unused.get(service);
    if (update !== undefined) return this.#build(update);
    const known = this.#absent.get(service, this.#deps.clock.now());
    if (known !== undefined) return known;
    if (this.#firstUses.has(service)) return 'pending';
    if (this.#closed || !this.#firstUses.start(service)) return 'notReady';
    this.#interest.firstUse(service);
    // The answer may have come within the call.
    return this.#answered(service) ?? 'pending';
  }

  #answered(service: ServiceId): FirstUseAnswer | undefined {
    if (this.#firstUses.has(service)) return undefined;
    return this.#clusters.get(service) ?? this.#absent.get(service, this.#deps.clock.now());
  }

  #build(update: ClusterUpdate): Cluster {
    const cluster = new Cluster(this.#deps, update);
    this.#unused.delete(update.service);
    this.#clusters.set(update.service, cluster);
    return cluster;
  }

  #update(update: ClusterUpdate): void {
    const { service } = update;
    this.#absent.delete(service);
    const asked = this.#firstUses.has(service);
    let cluster = this.#clusters.get(service) ?? this.#revive(service);
    if (cluster !== undefined) cluster.update(update);
    else if (asked) cluster = this.#build(update);
    else this.#unused.set(service, update);
    if (cluster !== undefined) this.#firstUses.answer(service, cluster);
  }

  #remove(message: ClusterAbsent): void {
    const { service, why } = message;
    this.#unused.delete(service);
    this.#absent.set(service, why, this.#deps.clock.now());
    const cluster = this.#clusters.get(service);
    if (cluster !== undefined) this.#leave(service, cluster);
    this.#firstUses.answer(service, why);
  }

  #leave(service: ServiceId, cluster: Cluster): void {
    this.#clusters.delete(service);
    cluster.empty();
    const deadline = new Deadline(() => this.#forget(service));
    this.#leaving.set(service, { cluster, deadline });
    this.#deps.wheel.arm(deadline, REMEMBER_MS);
  }

  #revive(service: ServiceId): Cluster | undefined {
    const leaving = this.#leaving.get(service);
    if (leaving === undefined) return undefined;
    this.#leaving.delete(service);
    this.#deps.wheel.disarm(leaving.deadline);
    this.#clusters.set(service, leaving.cluster);
    return leaving.cluster;
  }

  #forget(service: ServiceId): void {
    const leaving = this.#leaving.get(service);
    if (leaving === undefined) return;
    this.#leaving.delete(service);
    this.#deps.wheel.disarm(leaving.deadline);
    leaving.cluster.close();
  }

  #collect(): void {
    for (const cluster of this.#clusters.values()) cluster.collect();
  }
}
