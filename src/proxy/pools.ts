// Owns how the data plane makes an endpoint's pool: the policy's caps, and connections that pass the outbound policy.
// Called by data-plane.ts; clusters ask for a pool at an endpoint's first use.
import type { MakePool } from '../cluster/pool-factory.ts';
import { Pool } from '../http1/pool.ts';
import type { Connect } from '../http1/upstream.ts';
import type { TimerWheel } from '../kernel/timer-wheel.ts';

/** Pools that connect by `connect`. */
export function poolMaker(wheel: TimerWheel, connect: Connect): MakePool {
  return (host, port, policy, onOverflow) =>
    new Pool({
      host,
      port,
      wheel,
      connect,
      connectTimeoutMs: policy.connectTimeout,
      maxConnections: policy.limits.maxConnections,
      maxPending: policy.limits.maxPendingRequests,
      onCount(event) {
        if (event === 'overflow') onOverflow();
      },
    });
}
