// Owns the port by which a cluster gets the pools of its endpoints; proxy implements it (caps, outbound policy). Types only.
import type { Pool } from '../http1/pool.ts';
import type { ClusterPolicy } from '../model/policy.ts';

/** Makes the pool of an endpoint at its first use; `onOverflow` is called when its queue refuses a request. */
export type MakePool = (host: string, port: number, policy: ClusterPolicy, onOverflow: () => void) => Pool;
