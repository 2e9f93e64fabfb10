// Owns the second message from the control plane to the data plane: listeners, access log, readiness. Plain, structured-cloneable.
// Sent by app (or to a worker), taken by data-plane.ts; what comes back is in cluster/interest.ts.
import type { ServiceId } from '../model/service.ts';

/** `unix:` paths have port 0. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
  readonly path?: string;
}

export interface ListenerUpdate {
  /** Stable id: the listener is kept across updates while id, address and direction are equal. */
  readonly id: string;
  readonly listen: ListenAddress;
  /** Null: the main port, where the request names the service (contract.md, five ways). */
  readonly service: ServiceId | null;
  readonly direction: 'outbound' | 'inbound';
  readonly trustedCidrs: readonly string[];
}

export interface AccessLogUpdate {
  /** A file path, or stdout. */
  readonly to: { readonly kind: 'stdout' } | { readonly kind: 'file'; readonly path: string };
}

export interface ProxyUpdate {
  readonly kind: 'proxy';
  /** Name in Via and loop detection: `weir-<instanceId>`; token characters. */
  readonly instanceId: string;
  readonly listeners: readonly ListenerUpdate[];
  readonly accessLog: AccessLogUpdate | null;
  /** Methods allowed beside GET HEAD POST PUT PATCH DELETE OPTIONS. */
  readonly extraMethods: readonly string[];
}
