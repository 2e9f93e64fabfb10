// Owns the verdict on an instance (catalog-rules M5): a pure function of the registries' word, our own check and the operator's override.
// Called by publish for the data plane, the API and explain; must never remember anything.
import type { ViewInstance } from '../catalog/view.ts';
import type { Verdict } from '../model/health-status.ts';
import type { HealthCheckKind } from '../model/policy.ts';
import type { ProbeVerdict } from './ask.ts';

/** What our own check says of the instance. */
export interface ProbeWord {
  readonly kind: HealthCheckKind;
  readonly verdict: ProbeVerdict;
  /** Failures in a row up to now. */
  readonly failures: number;
  /** Why the last one failed. */
  readonly reason: string;
}

export interface JudgedInstance {
  readonly verdict: Verdict;
  /** Why, in words; null: nothing beyond the registries' word. */
  readonly reason: string | null;
}

const KIND_TEXT = { http: 'HTTP', tcp: 'TCP', grpc: 'gRPC' } as const;

/**
 * M5, in its order: isolated by a live source or by override; unhealthy when our own check fails; healthy when an HTTP or gRPC check passes;
 * else the registries' word. A TCP check can only lower a verdict or settle `unknown`.
 */
export function judge(
  instance: Pick<ViewInstance, 'isolated' | 'registryHealth'>,
  overridden: boolean,
  probe: ProbeWord | null,
): JudgedInstance {
  if (overridden) return { verdict: 'isolated', reason: 'isolated by an operator on this sidecar' };
  if (instance.isolated) return { verdict: 'isolated', reason: 'isolated in a registry' };
  const word = instance.registryHealth;
  if (probe === null || probe.verdict === 'none') {
    if (word === 'unknown')
      return { verdict: 'unknown', reason: 'no registry’s word counts and no check of ours has settled it' };
    return { verdict: word, reason: null };
  }
  const kind = KIND_TEXT[probe.kind];
  if (probe.verdict === 'fail') {
    const rest = probe.reason === '' ? '' : `: ${probe.reason}`;
    return { verdict: 'unhealthy', reason: `${kind} check failed${times(probe.failures)}${rest}` };
  }
  if (probe.kind !== 'tcp') return { verdict: 'healthy', reason: `${kind} check passes` };
  if (word === 'unknown') return { verdict: 'healthy', reason: 'no registry’s word counts; a TCP connect passes' };
  return { verdict: word, reason: null };
}

function times(failures: number): string {
  return failures > 1 ? ` ${failures} times in a row` : failures === 0 ? ' and has not recovered' : '';
}
