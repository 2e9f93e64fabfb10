// Owns the message from the control plane to the data plane (architecture.md §5): plain, structured-cloneable, whole.
// Sent by health/publish, taken by cluster-set; with workers it crosses a process border, so nothing in it has behaviour.

import type { Verdict } from '../model/health-status.ts';
import type { Locality } from '../model/instance.ts';
import type { ClusterPolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';

export interface EndpointUpdate {
  readonly host: string;
  readonly port: number;
  /** 0..65535, 100 = normal. */
  readonly weight: number;
  readonly verdict: Verdict;
  readonly locality?: Locality;
  /** Only keys that subsets select by; most endpoints have none. */
  readonly metadata?: ReadonlyMap<string, string>;
  /** Which sources' shares the endpoint belongs to; only for weighted merges. */
  readonly groups?: readonly string[];
  /** Wall ms at which an HTTP or gRPC check went from failing to passing; changes only then. */
  readonly recoveredAt?: number;
}

/** The whole runtime truth of one service. */
export interface ClusterUpdate {
  readonly kind: 'cluster';
  readonly service: ServiceId;
  readonly revision: number;
  readonly endpoints: readonly EndpointUpdate[];
  readonly policy: ClusterPolicy;
  /** For weighted merges: shares by group, any positive scale. */
  readonly groups?: readonly { readonly id: string; readonly share: number }[];
  /** For weighted merges: lower-case header whose value decides the group, so that a caller stays on one side. */
  readonly sticky?: string;
}

/** The service is gone, or first use found nothing: `unknown` (404) or `notReady` (503, a source has no first answer yet). */
export interface ClusterAbsent {
  readonly kind: 'absent';
  readonly service: ServiceId;
  readonly why: 'unknown' | 'notReady';
}

export type ClusterMessage = ClusterUpdate | ClusterAbsent;
