// Owns building the message of one service for the data plane: view + verdicts + policy → ClusterUpdate. Pure.
// Called by publish; nothing in the message has behaviour (it may cross a process border).
import type { View, ViewInstance } from '../catalog/view.ts';
import type { ClusterUpdate, EndpointUpdate } from '../cluster/cluster-update.ts';
import { hostPort } from '../kernel/address.ts';
import type { Verdict } from '../model/health-status.ts';
import type { ClusterPolicy } from '../model/policy.ts';

/** What publish knows of one instance beside the view. */
export interface InstanceWord {
  readonly verdict: Verdict;
  /** Wall ms of the last recovery by an HTTP or gRPC check. */
  readonly recoveredAt: number | null;
}

/**
 * The whole truth of one service. UDP instances are left out (the data plane speaks HTTP over TCP); of two instances with one address in
 * two networks the first stands for both, since a connection cannot tell them apart.
 */
export function clusterUpdate(
  view: View,
  words: readonly InstanceWord[],
  policy: ClusterPolicy,
  revision: number,
): ClusterUpdate {
  const endpoints: EndpointUpdate[] = [];
  const seen = new Set<string>();
  for (const [i, instance] of view.instances.entries()) {
    const word = words[i];
    const address = hostPort(instance.host, instance.port);
    if (instance.transport !== 'tcp' || word === undefined || seen.has(address)) continue;
    seen.add(address);
    endpoints.push(endpointOf(view, instance, word));
  }
  const groups = view.shares?.map(({ source, share }) => ({ id: source, share }));
  const sticky = groups === undefined || view.sticky === undefined ? {} : { sticky: view.sticky };
  return {
    kind: 'cluster',
    service: view.service,
    revision,
    endpoints,
    policy,
    ...(groups === undefined ? {} : { groups }),
    ...sticky,
  };
}

function endpointOf(view: View, instance: ViewInstance, { verdict, recoveredAt }: InstanceWord): EndpointUpdate {
  const { host, port, weight, locality } = instance;
  return {
    host,
    port,
    weight,
    verdict,
    ...(locality === undefined ? {} : { locality }),
    ...(view.shares === undefined ? {} : { groups: groupsOf(instance) }),
    ...(recoveredAt === null ? {} : { recoveredAt }),
  };
}

/** The merge says whose shares reach the instance; where it does not, its provenances do (M3). */
function groupsOf(instance: ViewInstance): readonly string[] {
  return instance.groups ?? [...new Set(instance.provenance.map(({ source }) => source))];
}
