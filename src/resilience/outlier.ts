// Owns outlier detection of one endpoint and the rules of its cluster (proxy-semantics §6): counters, guard, times. Called by cluster,
// which owns the sweep's timer. Success rate and failure percentage are not part of it.
import type { OutlierPolicy } from '../model/policy.ts';
import { isGatewayFailure, isLocalOrigin, type Outcome, outlierStatus } from './outcome.ts';

export type DetectionType = 'consecutive_5xx' | 'consecutive_gateway_failure' | 'consecutive_local_origin_failure';

/** What a detection asks for, with the probability in per cent that it is applied. */
export interface Detection {
  readonly type: DetectionType;
  readonly enforcing: (policy: OutlierPolicy) => number;
}

const ON_5XX: Detection = { type: 'consecutive_5xx', enforcing: (policy) => policy.enforcingConsecutive5xx };
const ON_GATEWAY: Detection = {
  type: 'consecutive_gateway_failure',
  enforcing: (policy) => policy.enforcingConsecutiveGatewayFailure,
};
const ON_LOCAL: Detection = {
  type: 'consecutive_local_origin_failure',
  enforcing: (policy) => policy.enforcingConsecutiveLocalOriginFailure,
};

interface Ejection {
  /** Monotonic ms. */
  readonly until: number;
  /** Wall ms; a check's recovery after it ends the ejection. */
  readonly wallSince: number;
}

/** Outlier state of one endpoint. It survives pushes, and the endpoint's removal for ten minutes. */
export class OutlierState {
  #consecutive5xx = 0;
  #consecutiveGateway = 0;
  #consecutiveLocal = 0;
  /** k of the ejection time: ejections that are still remembered. */
  #multiplier = 0;
  #ejection: Ejection | null = null;
  /** Monotonic ms of the last un-ejection. */
  #returnedAt = Number.NEGATIVE_INFINITY;

  get ejected(): boolean {
    return this.#ejection !== null;
  }

  get multiplier(): number {
    return this.#multiplier;
  }

  /** Whether a sweep has anything to do here. */
  get needsSweep(): boolean {
    return this.#ejection !== null || this.#multiplier > 0;
  }

  /** Whether anything would be lost with this object. */
  get idle(): boolean {
    return !this.needsSweep && this.#consecutive5xx + this.#consecutiveGateway + this.#consecutiveLocal === 0;
  }

  /** Monotonic ms left; 0 when not ejected. The sweep ends it, so it may stand at 0 for up to an interval. */
  ejectedFor(now: number): number {
    return this.#ejection === null ? 0 : Math.max(0, this.#ejection.until - now);
  }

  /**
   * Counts an outcome and answers the counters that reached their limit exactly (each is reset then, applied or not). Null when none did,
   * which is the rule and allocates nothing. An ejected endpoint (picked in panic) learns nothing: un-ejection clears the counters anyway.
   */
  count(outcome: Outcome, policy: OutlierPolicy): readonly Detection[] | null {
    if (this.#ejection !== null) return null;
    if (policy.splitExternalLocalOriginErrors) {
      if (isLocalOrigin(outcome)) return this.#countLocal(policy);
      this.#consecutiveLocal = 0;
    }
    return this.#countStatus(outlierStatus(outcome), policy);
  }

  /** Ejects at `now` (monotonic) / `wallNow`; `jitter` in [0, 1) draws from maxEjectionTimeJitter. */
  eject(policy: OutlierPolicy, now: number, wallNow: number, jitter: number): void {
    const { baseEjectionTime: base, maxEjectionTime: max } = policy;
    if (this.#multiplier * base < max + base) this.#multiplier++;
    const time = Math.min(base * this.#multiplier, max) + jitter * policy.maxEjectionTimeJitter;
    this.#ejection = { until: now + time, wallSince: wallNow };
  }

  /** One sweep: true when it ended an ejection. An endpoint not ejected for an interval loses one of its remembered ejections. */
  sweep(policy: OutlierPolicy, now: number): boolean {
    if (this.#ejection !== null) {
      if (now < this.#ejection.until) return false;
      this.unEject(now);
      return true;
    }
    if (this.#multiplier > 0 && now - this.#returnedAt >= policy.interval) this.#multiplier--;
    return false;
  }

  /** True when a check that passed again at `recoveredAt` (wall ms) ends the ejection: it failed and recovered after it began. */
  recovered(recoveredAt: number, now: number): boolean {
    if (this.#ejection === null || recoveredAt < this.#ejection.wallSince) return false;
    this.unEject(now);
    return true;
  }

  /** Ends the ejection and clears the consecutive counters. */
  unEject(now: number): void {
    this.#ejection = null;
    this.#returnedAt = now;
    this.#consecutive5xx = 0;
    this.#consecutiveGateway = 0;
    this.#consecutiveLocal = 0;
  }

  #countLocal(policy: OutlierPolicy): readonly Detection[] | null {
    if (++this.#consecutiveLocal < policy.consecutiveLocalOriginFailure) return null;
    this.#consecutiveLocal = 0;
    return [ON_LOCAL];
  }

  #countStatus(status: number, policy: OutlierPolicy): readonly Detection[] | null {
    if (status < 500) {
      this.#consecutive5xx = 0;
      this.#consecutiveGateway = 0;
      return null;
    }
    const gateway = isGatewayFailure(status);
    this.#consecutiveGateway = gateway ? this.#consecutiveGateway + 1 : 0;
    this.#consecutive5xx++;
    const gatewayFull = gateway && this.#consecutiveGateway >= policy.consecutiveGatewayFailure;
    const full = this.#consecutive5xx >= policy.consecutive5xx;
    if (gatewayFull) this.#consecutiveGateway = 0;
    if (full) this.#consecutive5xx = 0;
    if (!gatewayFull) return full ? [ON_5XX] : null;
    return full ? [ON_GATEWAY, ON_5XX] : [ON_GATEWAY];
  }
}

/** The guard: `100 · (ejected + 1) / hosts <= maxEjectionPercent`, or nothing is ejected and one host always may be. Whole cluster. */
export function mayEject(policy: OutlierPolicy, ejected: number, hosts: number): boolean {
  return 100 * (ejected + 1) <= policy.maxEjectionPercent * hosts || (ejected === 0 && policy.alwaysEjectOneHost);
}

/** Whether an outcome can start a counter: an endpoint without state needs none for anything else. */
export function startsCounting(outcome: Outcome): boolean {
  return outlierStatus(outcome) >= 500;
}
