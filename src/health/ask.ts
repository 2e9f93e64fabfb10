// Owns what one service knows of one address through checks: thresholds over results (proxy-semantics §7). Pure state, no clock.
// Made and fed by the prober, read by publish and verdict.
import type { DialPolicy } from '../kernel/dial.ts';
import type { HealthCheckPolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { ProbeResult, ProbeTarget } from './probe.ts';

/** R2: so many failures in a row are proof about a held instance. */
export const PROOF_FAILURES = 3;

/** none: no result yet, or not enough of them. */
export type ProbeVerdict = 'none' | 'pass' | 'fail';

/** What is asked of the prober. */
export interface AskSpec {
  readonly service: ServiceId;
  readonly target: ProbeTarget;
  /** Thresholds and timeout; the interval is `pace`. */
  readonly policy: HealthCheckPolicy;
  readonly dial: DialPolicy;
  /** ms between checks; changes with traffic and holds. */
  readonly pace: number;
}

/** What survives when the address leaves for a while (R3: 10 min). */
export interface AskMemory {
  readonly verdict: ProbeVerdict;
  readonly failures: number;
  readonly reason: string;
  readonly recoveredAt: number | null;
}

export class Ask {
  readonly service: ServiceId;
  readonly target: ProbeTarget;
  policy: HealthCheckPolicy;
  dial: DialPolicy;
  pace: number;
  /** Told after a change of the verdict, the first result, or of what `failures` proves. Never while verdicts are frozen. */
  readonly onChange: (ask: Ask) => void;
  #verdict: ProbeVerdict = 'none';
  #failures = 0;
  #passes = 0;
  #reason = '';
  #recoveredAt: number | null = null;
  #results = 0;

  constructor(spec: AskSpec, memory: AskMemory | null, onChange: (ask: Ask) => void) {
    this.service = spec.service;
    this.target = spec.target;
    this.policy = spec.policy;
    this.dial = spec.dial;
    this.pace = spec.pace;
    this.onChange = onChange;
    if (memory === null) return;
    this.#verdict = memory.verdict;
    this.#failures = memory.failures;
    this.#reason = memory.reason;
    this.#recoveredAt = memory.recoveredAt;
  }

  get verdict(): ProbeVerdict {
    return this.#verdict;
  }

  /** Failures in a row up to now; 0 when the last check passed or none ran. */
  get failures(): number {
    return this.#failures;
  }

  /** Why the last failure failed; empty when the last check passed. */
  get reason(): string {
    return this.#reason;
  }

  /** Wall ms of the last change from failing to passing; HTTP and gRPC only. */
  get recoveredAt(): number | null {
    return this.#recoveredAt;
  }

  /** True once a check of this ask has ended. */
  get answered(): boolean {
    return this.#results > 0;
  }

  get memory(): AskMemory {
    return { verdict: this.#verdict, failures: this.#failures, reason: this.#reason, recoveredAt: this.#recoveredAt };
  }

  /** Counts a result in; true when `onChange` should be told. */
  apply(result: ProbeResult, wallNow: number): boolean {
    const before = this.#verdict;
    const provedBefore = this.#failures >= PROOF_FAILURES;
    const first = this.#results++ === 0;
    if (result.ok) this.#pass(wallNow);
    else this.#fail(result.reason, result.definite);
    return first || before !== this.#verdict || provedBefore !== this.#failures >= PROOF_FAILURES;
  }

  /** Failures that were counted while we ourselves were the problem are forgotten; a verdict that stood before stays. */
  pardon(): void {
    if (this.#verdict === 'fail') return;
    this.#failures = 0;
    this.#reason = '';
  }

  #pass(wallNow: number): void {
    this.#failures = 0;
    this.#passes++;
    this.#reason = '';
    // The first success ever makes it healthy at once.
    if (this.#verdict === 'none') this.#verdict = 'pass';
    if (this.#verdict !== 'fail' || this.#passes < this.policy.healthyThreshold) return;
    this.#verdict = 'pass';
    if (this.target.kind !== 'tcp') this.#recoveredAt = wallNow;
  }

  #fail(reason: string, definite: boolean): void {
    this.#failures++;
    this.#passes = 0;
    this.#reason = reason;
    if (definite || this.#failures >= this.policy.unhealthyThreshold) this.#verdict = 'fail';
  }
}
