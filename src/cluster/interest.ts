// Owns the ports from the data plane back to the control plane: first use of a service, and who reads a cluster's state. Types only.
import type { ServiceId } from '../model/service.ts';

/** Told when a request names a service of which the data plane has no cluster; answered by a ClusterMessage, soon or later. */
export interface Interest {
  firstUse(service: ServiceId): void;
}

/** State of one endpoint as `explain` and the API show it. */
export interface EndpointState {
  readonly host: string;
  readonly port: number;
  readonly active: number;
  readonly ejected: boolean;
  /** Monotonic ms left of the ejection; 0 when not ejected. */
  readonly ejectedForMs: number;
  readonly breaker: 'closed' | 'open' | 'halfOpen';
  readonly connections: { readonly active: number; readonly idle: number; readonly pending: number };
  /** Share of picks in [0, 1] that the picker gives it now (least request: at equal load). */
  readonly share: number;
}

/** State of one cluster. */
export interface ClusterState {
  readonly service: ServiceId;
  readonly revision: number;
  readonly panic: boolean;
  readonly activeRequests: number;
  /** Monotonic ms since the last pick, or null when there was none. */
  readonly lastPickAgeMs: number | null;
  readonly endpoints: readonly EndpointState[];
}
