// Owns the runtime group of one service: endpoints, the picker in force, requests in flight, retry budget. Called by proxy (through
// PickCluster) and by cluster-set. A pick must never await, allocate by the size of the cluster, or look at endpoints one by one.
import type { Pool } from '../http1/pool.ts';
import { Deadline } from '../kernel/timer-wheel.ts';
import type { ClusterPolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import { Limit } from '../resilience/limits.ts';
import { RetryBudget } from '../resilience/retry-budget.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { isEligible, type Shares } from './availability.ts';
import { ClusterMetrics } from './cluster-metrics.ts';
import type { ClusterUpdate } from './cluster-update.ts';
import { Endpoint, isTried, Probe } from './endpoint.ts';
import { EndpointTable } from './endpoint-table.ts';
import type { ClusterState, EndpointState } from './interest.ts';
import { Outcomes, type OutcomesDeps } from './outcomes.ts';
import type { AttemptOutcome, NoPick, PickCluster, PickedEndpoint } from './pick-interface.ts';
import { PickSet } from './pick-set.ts';
import type { MakePool } from './pool-factory.ts';
import { countSide, noCounts, type SideCounts } from './sides.ts';

export interface ClusterDeps extends OutcomesDeps {
  readonly metrics: Metrics;
  readonly makePool: MakePool;
}

export class Cluster implements PickCluster {
  readonly service: ServiceId;
  panic = false;
  noPick: NoPick = 'NO_HEALTHY_UPSTREAM';
  #policy: ClusterPolicy;
  #revision: number;
  #shares: Shares;
  /** Groups that were ever drawn over; `drawnSide` is a place in it. */
  readonly #sides: { readonly id: string; readonly counts: SideCounts }[] = [];
  stickyHeader: string | null;
  drawnSide = -1;
  /** The picker in force; null once something changed, until the next pick needs it. */
  #picks: PickSet | null = null;
  /** Monotonic ms; null before the first. */
  #lastPick: number | null = null;
  readonly #deps: ClusterDeps;
  readonly #metrics: ClusterMetrics;
  readonly #table: EndpointTable;
  readonly #outcomes: Outcomes;
  readonly #requests: Limit;
  readonly #connections: Limit;
  readonly #pending: Limit;
  /** Made at the first request. */
  #budget: RetryBudget | null = null;
  readonly #forgetting = new Deadline(() => this.#forgetOld());

  constructor(deps: ClusterDeps, update: ClusterUpdate) {
    this.service = update.service;
    this.#deps = deps;
    this.#policy = update.policy;
    this.#revision = update.revision;
    this.#shares = sharesOf(update);
    this.stickyHeader = update.sticky ?? null;
    this.#metrics = new ClusterMetrics(deps.metrics, update.service);
    const { maxRequests, maxConnections, maxPendingRequests } = update.policy.limits;
    this.#requests = new Limit(maxRequests);
    this.#connections = new Limit(maxConnections);
    this.#pending = new Limit(maxPendingRequests);
    this.#table = new EndpointTable({ makePool: (endpoint) => this.#makePool(endpoint) });
    this.#outcomes = new Outcomes(deps, this.#metrics, {
      policy: () => this.#policy,
      eligibleHosts: () => this.#eligibleHosts(),
      pickersChanged: () => this.#pickersChanged(),
      earlyOffered: () => this.#picks?.panic === true && this.#pickersChanged(),
      drainOverdue: (endpoint) => endpoint.drainPool(),
    });
    this.#table.apply(update.endpoints, deps.clock.now());
  }

  get policy(): ClusterPolicy {
    return this.#policy;
  }

  get activeRequests(): number {
    return this.#requests.active;
  }

  /** Monotonic ms since the last pick; null when there was none. */
  get lastPickAgeMs(): number | null {
    return this.#lastPick === null ? null : this.#deps.clock.now() - this.#lastPick;
  }

  /** Takes over a push: endpoints of the same address keep pool, counters, breaker and ejection; removed ones drain. */
  update(update: ClusterUpdate): void {
    const now = this.#deps.clock.now();
    this.#revision = update.revision;
    this.#takePolicy(update.policy);
    const diff = this.#table.apply(update.endpoints, now);
    const shares = sharesOf(update);
    if (diff.changed || !sameShares(shares, this.#shares)) this.#pickersChanged();
    this.#shares = shares;
    this.stickyHeader = update.sticky ?? null;
    for (const endpoint of diff.joined) this.#outcomes.joined(endpoint);
    for (const endpoint of diff.recovered) this.#outcomes.recovered(endpoint);
    for (const endpoint of diff.left) this.#left(endpoint);
    this.#armForgetting(now);
  }

  startRequest(): boolean {
    if (this.#requests.tryStart()) return true;
    this.#metrics.count('weir_upstream_rq_overflow_total');
    return false;
  }

  endRequest(): void {
    this.#requests.end();
  }

  countFirstAttempt(): void {
    this.#budget ??= new RetryBudget();
    this.#budget.countFirst(this.#policy.retry.budget, this.#deps.clock.now());
  }

  tryRetry(free = false): boolean {
    if (free) {
      this.#metrics.count('weir_retries_total');
      return true;
    }
    this.#budget ??= new RetryBudget();
    const granted = this.#budget.tryRetry(this.#policy.retry.budget, this.#deps.clock.now(), this.#requests.active);
    this.#metrics.count(granted ? 'weir_retries_total' : 'weir_retry_overflow_total');
    return granted;
  }

  endRetry(): void {
    this.#budget?.endRetry();
  }

  pick(tried: readonly PickedEndpoint[] | null, idempotent: boolean, place = -1): PickedEndpoint | null {
    this.#lastPick = this.#deps.clock.now();
    this.drawnSide = -1;
    const picks = this.#picks ?? this.#build();
    this.panic = picks.panic;
    if (tried !== null && tried.length > 0) return this.#pickAgain(picks, tried, idempotent);
    // The first idempotent request after the sleep window is the probe: recovery must not wait for the luck of a draw.
    const slot = picks.hasSlot && (idempotent || !picks.hasCandidates) ? picks.takeSlot() : null;
    if (slot !== null) return this.#countInProbe(slot);
    const endpoint = picks.draw(this.#deps.random, place);
    if (picks.drawn !== null) this.drawnSide = this.#sideOf(picks.drawn);
    return this.#countIn(endpoint, picks);
  }

  countSide(side: number, outcome: AttemptOutcome, ms: number): void {
    const counts = this.#sides[side]?.counts;
    if (counts !== undefined) countSide(counts, outcome, ms);
  }

  /** What was counted by group since the cluster was made. */
  get sides(): readonly { readonly id: string; readonly counts: SideCounts }[] {
    return this.#sides;
  }

  end(picked: PickedEndpoint, outcome: AttemptOutcome): void {
    if (picked instanceof Probe) this.#endProbe(picked.endpoint, outcome);
    else if (picked instanceof Endpoint) this.#endOrdinary(picked, outcome);
    else throw new TypeError(`cluster ${this.service}: ${picked.address} was not picked here`);
  }

  /** Brings the gauges up to date, for a scrape. */
  collect(): void {
    if (this.#lastPick === null) return;
    this.#metrics.set('weir_lb_panic', (this.#picks ?? this.#build()).panic ? 1 : 0);
    this.#metrics.set('weir_ejections_active', this.#outcomes.ejected);
  }

  /** State for explain and API. Costs by the number of endpoints. */
  state(): ClusterState {
    const now = this.#deps.clock.now();
    const picks = this.#picks ?? this.#build();
    return {
      service: this.service,
      revision: this.#revision,
      panic: picks.panic,
      activeRequests: this.#requests.active,
      lastPickAgeMs: this.lastPickAgeMs,
      endpoints: Array.from(this.#table.values(), (endpoint) => endpointState(endpoint, picks, now)),
    };
  }

  /** The service is gone: every endpoint leaves, series are removed. An `update` brings it back. */
  empty(): void {
    this.update({ kind: 'cluster', service: this.service, revision: this.#revision, endpoints: [], policy: this.#policy });
    this.#metrics.remove();
  }

  /** The end: timers off, pools drained, series removed. Attempts in flight may still be ended. */
  close(): void {
    this.empty();
    const all = [...this.#table.values(), ...this.#table.gone()];
    this.#deps.wheel.disarm(this.#forgetting);
    this.#outcomes.close(all);
    for (const endpoint of all) endpoint.drainPool();
    this.#metrics.close();
  }

  /** A retry avoids who was tried; a half-open slot is its last resort, so that a bad probe does not use up a second attempt. */
  #pickAgain(picks: PickSet, tried: readonly PickedEndpoint[], idempotent: boolean): PickedEndpoint | null {
    const endpoint = picks.drawAgain(this.#deps.random, tried);
    const wantsSlot = endpoint === null || (idempotent && isTried(tried, endpoint));
    const slot = wantsSlot && picks.hasSlot ? picks.takeSlot() : null;
    return slot === null ? this.#countIn(endpoint, picks) : this.#countInProbe(slot);
  }

  /** Two groups as a rule: a walk is cheaper than a map. */
  #sideOf(id: string): number {
    for (let n = 0; n < this.#sides.length; n++) if (this.#sides[n]?.id === id) return n;
    return this.#sides.push({ id, counts: noCounts() }) - 1;
  }

  #countIn(endpoint: Endpoint | null, picks: PickSet): Endpoint | null {
    if (endpoint === null) this.noPick = picks.breakerBlocks ? 'BREAKER_OPEN' : 'NO_HEALTHY_UPSTREAM';
    else endpoint.active++;
    return endpoint;
  }

  #countInProbe(endpoint: Endpoint): Probe {
    endpoint.active++;
    return endpoint.probe;
  }

  #endOrdinary(endpoint: Endpoint, outcome: AttemptOutcome): void {
    endpoint.active--;
    this.#outcomes.count(endpoint, outcome);
    if (endpoint.removed && endpoint.active === 0) this.#drained(endpoint);
  }

  #endProbe(endpoint: Endpoint, outcome: AttemptOutcome): void {
    endpoint.active--;
    this.#outcomes.countProbe(endpoint, outcome);
    if (endpoint.removed && endpoint.active === 0) this.#drained(endpoint);
  }

  #build(): PickSet {
    const picks = new PickSet(this.#table.values(), this.#shares, this.#policy.loadBalancer.policy, this.#policy.panicThreshold);
    this.#picks = picks;
    return picks;
  }

  #pickersChanged(): void {
    this.#picks = null;
  }

  #eligibleHosts(): number {
    let n = 0;
    for (const endpoint of this.#table.values()) if (isEligible(endpoint, this.#shares)) n++;
    return n;
  }

  #takePolicy(policy: ClusterPolicy): void {
    const before = this.#policy;
    if (policy === before) return;
    this.#policy = policy;
    this.#requests.max = policy.limits.maxRequests;
    this.#connections.max = policy.limits.maxConnections;
    this.#pending.max = policy.limits.maxPendingRequests;
    if (policy.loadBalancer.policy !== before.loadBalancer.policy || policy.panicThreshold !== before.panicThreshold) {
      this.#pickersChanged();
    }
    const off = (was: { enabled: boolean }, is: { enabled: boolean }): boolean => was.enabled && !is.enabled;
    if (off(before.outlierDetection, policy.outlierDetection) || off(before.breaker, policy.breaker)) {
      this.#outcomes.policyChanged([...this.#table.values(), ...this.#table.gone()]);
    }
  }

  /** In-flight attempts finish; their own deadlines end them at the latest, so after the route timeout only idle sockets are left. */
  #left(endpoint: Endpoint): void {
    if (endpoint.active === 0) {
      this.#drained(endpoint);
      return;
    }
    this.#outcomes.left(endpoint, this.#policy.streaming ? 0 : this.#policy.timeout);
  }

  #drained(endpoint: Endpoint): void {
    this.#outcomes.left(endpoint, 0);
    endpoint.drainPool();
    if (this.#table.forgetIfEmpty(endpoint)) this.#outcomes.forget(endpoint);
  }

  #armForgetting(now: number): void {
    const at = this.#table.nextForget();
    if (at === null) this.#deps.wheel.disarm(this.#forgetting);
    else this.#deps.wheel.arm(this.#forgetting, Math.max(0, at - now));
  }

  #forgetOld(): void {
    const now = this.#deps.clock.now();
    for (const endpoint of this.#table.forgetOld(now)) this.#outcomes.forget(endpoint);
    this.#armForgetting(now);
  }

  #makePool(endpoint: Endpoint): Pool {
    return this.#deps.makePool(endpoint.host, endpoint.port, this.#policy, {
      connections: this.#connections,
      pending: this.#pending,
      onRequestOverflow: () => this.#metrics.count('weir_upstream_rq_overflow_total'),
      onConnectionOverflow: () => this.#metrics.count('weir_upstream_cx_overflow_total'),
    });
  }
}

/** Groups with a share above 0; one of share 0 takes no traffic, as a weight of 0 does. */
function sharesOf(update: ClusterUpdate): Shares {
  if (update.groups === undefined || update.groups.length === 0) return null;
  return new Map(update.groups.filter(({ share }) => share > 0).map(({ id, share }) => [id, share]));
}

function sameShares(a: Shares, b: Shares): boolean {
  if (a === null || b === null) return a === b;
  return a.size === b.size && [...a].every(([group, share]) => b.get(group) === share);
}

function endpointState(endpoint: Endpoint, picks: PickSet, now: number): EndpointState {
  const pool = endpoint.openPool;
  return {
    host: endpoint.host,
    port: endpoint.port,
    active: endpoint.active,
    ejected: endpoint.ejected,
    ejectedForMs: endpoint.outlier?.ejectedFor(now) ?? 0,
    breaker: picks.panic && endpoint.earlySlotFree ? 'halfOpen' : (endpoint.breaker?.kind ?? 'closed'),
    connections: { active: pool?.active ?? 0, idle: pool?.idle ?? 0, pending: pool?.pending ?? 0 },
    share: picks.shareOf(endpoint),
  };
}
