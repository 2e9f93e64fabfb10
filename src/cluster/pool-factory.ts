// Owns the making of an endpoint's pool from its cluster's policy: plain TCP, the policy's caps and connect timeout. Used by app.
import { Pool } from '../http1/pool.ts';
import type { TimerWheel } from '../kernel/timer-wheel.ts';
import type { ClusterPolicy } from '../model/policy.ts';

/** Makes the pool of an endpoint at its first use; `onOverflow` is called when its queue refuses a request. */
export type MakePool = (host: string, port: number, policy: ClusterPolicy, onOverflow: () => void) => Pool;

/** Pools whose sockets and deadlines hang on `wheel`. */
export function poolFactory(wheel: TimerWheel): MakePool {
  return (host, port, policy, onOverflow) =>
    new Pool({
      host,
      port,
      wheel,
      connectTimeoutMs: policy.connectTimeout,
      maxConnections: policy.limits.maxConnections,
      maxPending: policy.limits.maxPendingRequests,
      onCount(event) {
        if (event === 'overflow') onOverflow();
      },
    });
}
