// Owns why an instance is in or out of picking (catalog-rules §5): candidate → isolated → health → ejection → breaker → weight → share.
// Called by explain.ts; pure. The words are for people; `in` and `share` are for programs.
import type { Conflict, HoldState, ViewInstance } from '../catalog/view.ts';
import type { ClusterState, EndpointState } from '../cluster/interest.ts';
import { hostPort } from '../kernel/address.ts';
import type { Verdict } from '../model/health-status.ts';

export type StepName = 'candidate' | 'isolated' | 'health' | 'ejection' | 'breaker' | 'weight' | 'pick';

/** One filter that the instance met. `passed` false with panic: it counted no more. */
export interface Step {
  readonly step: StepName;
  readonly passed: boolean;
  readonly reason: string;
}

export interface ExplainedInstance {
  readonly instance: string;
  readonly network: string;
  /** May be picked now. */
  readonly in: boolean;
  /** Share of picks in 0..1 as the picker gives it now; null: no request has used the service, so there is no picker. */
  readonly share: number | null;
  /** The step that decides, in words. */
  readonly reason: string;
  readonly steps: readonly Step[];
  readonly weight: number;
  readonly verdict: Verdict;
  readonly provenance: ViewInstance['provenance'];
  readonly conflicts: readonly Conflict[];
  readonly holds: readonly HoldState[];
}

/** Everything that is known of one instance. */
export interface ExplainInput {
  readonly instance: ViewInstance;
  readonly verdict: Verdict;
  /** Words of health on the verdict, where it has some. */
  readonly verdictReason: string | null;
  readonly cluster: ClusterState | null;
  readonly endpoint: EndpointState | undefined;
  readonly holds: readonly HoldState[];
  readonly conflicts: readonly Conflict[];
}

/** The whole chain for one instance. */
export function explainInstance(input: ExplainInput): ExplainedInstance {
  const { instance, verdict, endpoint, cluster } = input;
  const address = hostPort(instance.host, instance.port);
  const panic = cluster?.panic ?? false;
  const steps = [candidate(input), isolated(input), health(input), ejection(endpoint), breaker(endpoint), weight(instance)];
  // Panic ignores health and ejection; never an operator's word, an open breaker or weight 0 (proxy-semantics §8, §9).
  const stops = steps.find((step) => !step.passed && !(panic && (step.step === 'health' || step.step === 'ejection')));
  const share = endpoint?.share ?? null;
  const pick: Step = { step: 'pick', passed: stops === undefined, reason: pickReason(stops, share, panic) };
  return {
    instance: address,
    network: instance.network,
    in: stops === undefined,
    share,
    reason: stops?.reason ?? pick.reason,
    steps: [...steps, pick],
    weight: instance.weight,
    verdict,
    provenance: instance.provenance,
    conflicts: input.conflicts.filter((conflict) => conflict.instance === address),
    holds: input.holds.filter((hold) => hold.addresses.includes(address)),
  };
}

function candidate({ instance }: ExplainInput): Step {
  const sources = instance.provenance.map((one) =>
    one.copyOf === undefined ? one.source : `${one.source} (copy of ${one.copyOf})`,
  );
  const held = instance.held ? '; every source has dropped it, it is held until that is confirmed' : '';
  return { step: 'candidate', passed: true, reason: `reported by ${sources.join(', ')}${held}` };
}

function isolated({ instance, verdict }: ExplainInput): Step {
  if (verdict !== 'isolated') return { step: 'isolated', passed: true, reason: 'nobody isolates it' };
  const voters = instance.provenance.filter((one) => one.isolated).map((one) => one.source);
  const who = voters.length > 0 ? voters.join(', ') : 'an override of this sidecar';
  return { step: 'isolated', passed: false, reason: `isolated by ${who}` };
}

function health({ instance, verdict, verdictReason }: ExplainInput): Step {
  const words = instance.provenance.map((one) => `${one.source} says ${one.health}`).join(', ');
  // An isolated instance is isolated whatever its health: the step before has said so.
  const reason = verdict === 'isolated' ? words : `${verdict}: ${verdictReason ?? words}`;
  return { step: 'health', passed: verdict !== 'unhealthy', reason };
}

function ejection(endpoint: EndpointState | undefined): Step {
  if (endpoint === undefined || !endpoint.ejected) return { step: 'ejection', passed: true, reason: 'not ejected' };
  return { step: 'ejection', passed: false, reason: `ejected as an outlier for another ${seconds(endpoint.ejectedForMs)}` };
}

function breaker(endpoint: EndpointState | undefined): Step {
  const state = endpoint?.breaker ?? 'closed';
  if (state === 'open') return { step: 'breaker', passed: false, reason: 'its breaker is open' };
  return {
    step: 'breaker',
    passed: true,
    reason: state === 'closed' ? 'breaker closed' : 'breaker half open: one request at a time',
  };
}

function weight(instance: ViewInstance): Step {
  return {
    step: 'weight',
    passed: instance.weight > 0,
    reason: instance.weight > 0 ? `weight ${instance.weight}` : 'weight 0 takes no traffic',
  };
}

function pickReason(stops: Step | undefined, share: number | null, panic: boolean): string {
  if (stops !== undefined) return `out: ${stops.reason}`;
  const part = share === null ? 'no request has used the service yet' : `${(share * 100).toFixed(1)} % of picks`;
  return panic ? `${part}; panic: too few are available, health is ignored` : part;
}

function seconds(ms: number): string {
  return `${Math.ceil(ms / 1_000)} s`;
}
