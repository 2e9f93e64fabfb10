// Owns how the data plane makes an endpoint's pool: the cluster's caps, and connections that pass the outbound policy.
// Called by data-plane.ts; clusters ask for a pool at an endpoint's first use.
import type { MakePool } from '../cluster/pool-factory.ts';
import { Pool } from '../http1/pool.ts';
import type { Connect } from '../http1/upstream.ts';
import type { TimerWheel } from '../kernel/timer-wheel.ts';

/** Pools that connect by `connect`. */
export function poolMaker(wheel: TimerWheel, connect: Connect): MakePool {
  return (host, port, policy, limits) =>
    new Pool({
      host,
      port,
      wheel,
      connect,
      connectTimeoutMs: policy.connectTimeout,
      // The caps are the cluster's; a pool has none of its own (Envoy: off).
      maxConnections: Number.POSITIVE_INFINITY,
      maxPending: Number.POSITIVE_INFINITY,
      connectionCap: limits.connections,
      pendingCap: limits.pending,
      onCount(event) {
        if (event === 'overflow') limits.onRequestOverflow();
        else if (event === 'connection-overflow') limits.onConnectionOverflow();
      },
    });
}
