// Owns what a cluster learns from the outcomes of attempts: ejections with their sweep, breakers with their wake-up. Called by cluster.ts.
// Must never touch membership or the picker: it says `pickersChanged` and the cluster builds a new one. Costs a timer only while needed.
import type { Clock } from '../kernel/clock.ts';
import { type Random, randomBelow } from '../kernel/random.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import type { ClusterPolicy } from '../model/policy.ts';
import { Breaker } from '../resilience/breaker.ts';
import { IGNORED, isBreakerFailure, isProbeFailure, type Outcome } from '../resilience/outcome.ts';
import { type Detection, mayEject, OutlierState, startsCounting } from '../resilience/outlier.ts';
import type { ClusterMetrics } from './cluster-metrics.ts';
import type { Endpoint } from './endpoint.ts';

/** What outcomes need of their cluster. */
export interface OutcomesHost {
  policy(): ClusterPolicy;
  /** Endpoints that may take traffic at all: the guard's `hosts`. */
  eligibleHosts(): number;
  /** An ejection or a breaker changed who may be picked. */
  pickersChanged(): void;
  /** An open breaker may be probed early, should the cluster be in panic. */
  earlyOffered(): void;
  /** A removed endpoint has drained for as long as a request may take. */
  drainOverdue(endpoint: Endpoint): void;
}

export interface OutcomesDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: TimerWheel;
}

export class Outcomes {
  readonly #deps: OutcomesDeps;
  readonly #metrics: ClusterMetrics;
  readonly #host: OutcomesHost;
  /** Endpoints that a sweep has something to do for, removed ones included. */
  readonly #watched = new Set<Endpoint>();
  readonly #sweep = new Deadline(() => this.#onSweep());

  constructor(deps: OutcomesDeps, metrics: ClusterMetrics, host: OutcomesHost) {
    this.#deps = deps;
    this.#metrics = metrics;
    this.#host = host;
  }

  /** Endpoints of the cluster that are ejected now; counts the few that a sweep watches. */
  get ejected(): number {
    let n = 0;
    for (const endpoint of this.#watched) if (endpoint.ejected && !endpoint.removed) n++;
    return n;
  }

  /** Outcome of an ordinary attempt. */
  count(endpoint: Endpoint, outcome: Outcome): void {
    if (outcome === IGNORED) return;
    this.#countOutlier(endpoint, outcome);
    const { breaker: policy } = this.#host.policy();
    if (!policy.enabled) return;
    endpoint.breaker ??= new Breaker();
    const now = this.#deps.clock.now();
    if (!isBreakerFailure(outcome)) endpoint.breaker.success(policy, now);
    else if (endpoint.breaker.failure(policy, now)) this.#opened(endpoint, endpoint.breaker, now);
  }

  /** Outcome of the attempt that held the half-open slot: closes, opens again (or sleeps on, if early), or frees the slot. */
  countProbe(endpoint: Endpoint, outcome: Outcome): void {
    const { breaker } = endpoint;
    if (breaker?.kind !== 'halfOpen') return;
    const policy = this.#host.policy().breaker;
    const now = this.#deps.clock.now();
    const early = breaker.sleeping;
    if (outcome === IGNORED) breaker.probeIgnored(now);
    else if (isProbeFailure(outcome)) breaker.probeFailed(policy, now);
    else breaker.probeSucceeded(policy);
    if (outcome !== IGNORED) this.#countOutlier(endpoint, outcome);
    if (breaker.openUntil > 0 && !early) {
      this.#opened(endpoint, breaker, now);
      return;
    }
    this.#armWake(endpoint, breaker, now);
    // Of a failed early probe the picker sees nothing: its slot was taken already, and it never counted as available.
    if (breaker.openUntil === 0) this.#host.pickersChanged();
  }

  /** An endpoint joined or came back: its open breaker needs its wake-up again. */
  joined(endpoint: Endpoint): void {
    this.#disarm(endpoint);
    if (endpoint.breaker !== null) this.#armWake(endpoint, endpoint.breaker, this.#deps.clock.now());
  }

  /** An endpoint left; `drainMs`: when to call `drainOverdue`, 0 for never. */
  left(endpoint: Endpoint, drainMs: number): void {
    this.#disarm(endpoint);
    if (drainMs > 0) this.#arm(endpoint, drainMs);
  }

  /** The endpoint's state is dropped for good. */
  forget(endpoint: Endpoint): void {
    this.#disarm(endpoint);
    this.#watched.delete(endpoint);
  }

  /** An active check passed again: ends the ejection if it failed since that began. */
  recovered(endpoint: Endpoint): void {
    const { recoveredAt } = endpoint.update;
    if (recoveredAt === undefined || endpoint.outlier?.recovered(recoveredAt, this.#deps.clock.now()) !== true) return;
    this.#host.pickersChanged();
  }

  /** Takes over a new policy: what was switched off lets go of everyone at once. */
  policyChanged(endpoints: Iterable<Endpoint>): void {
    const { outlierDetection, breaker } = this.#host.policy();
    for (const endpoint of endpoints) {
      if (!outlierDetection.enabled) {
        endpoint.outlier = null;
        this.#watched.delete(endpoint);
      }
      if (!breaker.enabled && endpoint.breaker !== null) {
        endpoint.breaker = null;
        if (!endpoint.removed) this.#disarm(endpoint);
      }
    }
    this.#host.pickersChanged();
  }

  close(endpoints: Iterable<Endpoint>): void {
    this.#deps.wheel.disarm(this.#sweep);
    this.#watched.clear();
    for (const endpoint of endpoints) this.#disarm(endpoint);
  }

  #countOutlier(endpoint: Endpoint, outcome: Outcome): void {
    const { outlierDetection: policy } = this.#host.policy();
    if (!policy.enabled) return;
    if (endpoint.outlier === null) {
      if (!startsCounting(outcome)) return;
      endpoint.outlier = new OutlierState();
    }
    const detections = endpoint.outlier.count(outcome, policy);
    if (detections === null) return;
    for (const detection of detections) this.#detected(endpoint, endpoint.outlier, detection);
  }

  /** One detection: applied with its probability, then only if the guard lets it. */
  #detected(endpoint: Endpoint, state: OutlierState, detection: Detection): void {
    const policy = this.#host.policy().outlierDetection;
    // A late result of a removed endpoint, or the second of two detections by one outcome.
    if (endpoint.removed || state.ejected) return;
    if (randomBelow(this.#deps.random, 100) >= detection.enforcing(policy)) {
      this.#metrics.countEjection(detection.type, 'detected');
    } else if (!mayEject(policy, this.ejected, this.#host.eligibleHosts())) {
      this.#metrics.countEjection(detection.type, 'overflow');
    } else {
      const { clock, random } = this.#deps;
      state.eject(policy, clock.now(), clock.wallNow(), policy.maxEjectionTimeJitter > 0 ? random() : 0);
      this.#watched.add(endpoint);
      this.#armSweep();
      this.#metrics.countEjection(detection.type, 'enforced');
      this.#host.pickersChanged();
    }
  }

  #armSweep(): void {
    if (!this.#sweep.armed) this.#deps.wheel.arm(this.#sweep, this.#host.policy().outlierDetection.interval);
  }

  #onSweep(): void {
    const policy = this.#host.policy().outlierDetection;
    const now = this.#deps.clock.now();
    let returned = false;
    for (const endpoint of this.#watched) {
      if (endpoint.outlier?.sweep(policy, now) === true) returned = true;
      if (endpoint.outlier?.needsSweep !== true) this.#watched.delete(endpoint);
    }
    if (this.#watched.size > 0) this.#armSweep();
    if (!returned) return;
    this.#host.pickersChanged();
  }

  #opened(endpoint: Endpoint, breaker: Breaker, now: number): void {
    this.#metrics.count('weir_breaker_opened_total');
    this.#armWake(endpoint, breaker, now);
    this.#host.pickersChanged();
  }

  /** One timer an endpoint: first for the early offer, then for the end of the sleep window; none while a removed one drains with it. */
  #armWake(endpoint: Endpoint, breaker: Breaker, now: number): void {
    if (endpoint.removed) return;
    if (breaker.wakeAt > 0) this.#arm(endpoint, breaker.wakeAt - now);
    else this.#disarm(endpoint);
  }

  #arm(endpoint: Endpoint, ms: number): void {
    endpoint.timer ??= new Deadline(() => this.#onTimer(endpoint));
    this.#deps.wheel.arm(endpoint.timer, Math.max(0, ms));
  }

  #disarm(endpoint: Endpoint): void {
    if (endpoint.timer !== null) this.#deps.wheel.disarm(endpoint.timer);
  }

  #onTimer(endpoint: Endpoint): void {
    if (endpoint.removed) this.#host.drainOverdue(endpoint);
    else if (endpoint.breaker !== null) this.#wake(endpoint, endpoint.breaker, this.#deps.clock.now());
  }

  #wake(endpoint: Endpoint, breaker: Breaker, now: number): void {
    if (breaker.wake(now)) this.#host.pickersChanged();
    else if (breaker.offerEarly(now)) this.#host.earlyOffered();
    this.#armWake(endpoint, breaker, now);
  }
}
