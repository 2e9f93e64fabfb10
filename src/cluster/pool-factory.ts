// Owns the port by which a cluster gets the pools of its endpoints; proxy implements it (outbound policy). Types only.
import type { Pool, PoolCap } from '../http1/pool.ts';
import type { ClusterPolicy } from '../model/policy.ts';

/** What all pools of one cluster share (proxy-semantics §4: limits are per cluster). */
export interface PoolLimits {
  readonly connections: PoolCap;
  readonly pending: PoolCap;
  /** A queue refused a request. */
  readonly onRequestOverflow: () => void;
  /** A connection was not opened because of the cap. */
  readonly onConnectionOverflow: () => void;
}

/** Makes the pool of an endpoint at its first use. */
export type MakePool = (host: string, port: number, policy: ClusterPolicy, limits: PoolLimits) => Pool;
