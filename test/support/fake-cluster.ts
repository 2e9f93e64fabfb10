// Builds clusters for tests: a fake clock with a real wheel, a seeded random, messages in short, and pools that only remember.

import { Cluster, type ClusterDeps } from '../../src/cluster/cluster.ts';
import type { ClusterUpdate, EndpointUpdate } from '../../src/cluster/cluster-update.ts';
import type { PickedEndpoint } from '../../src/cluster/pick-interface.ts';
import type { PoolLimits } from '../../src/cluster/pool-factory.ts';
import { Pool } from '../../src/http1/pool.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { type ClusterPolicy, DEFAULT_CLUSTER_POLICY } from '../../src/model/policy.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { FakeClock } from './fake-clock.ts';

/** A pool that says whether it was drained; it opens no socket, since nothing acquires from it. */
export class WatchedPool extends Pool {
  drained = 0;

  override drain(): Promise<void> {
    this.drained++;
    return super.drain();
  }
}

export class ClusterBench {
  readonly clock = new FakeClock();
  readonly wheel = new TimerWheel(this.clock);
  readonly metrics = new Metrics();
  readonly pools: WatchedPool[] = [];
  /** The shared limits that each pool was made with. */
  readonly limits: PoolLimits[] = [];
  readonly deps: ClusterDeps = {
    clock: this.clock,
    random: seededRandom(42),
    wheel: this.wheel,
    metrics: this.metrics,
    makePool: (host, port, _policy, limits) => {
      this.limits.push(limits);
      const pool = new WatchedPool({ host, port, wheel: this.wheel });
      this.pools.push(pool);
      return pool;
    },
  };

  cluster(endpoints: readonly Partial<EndpointUpdate>[], over: Partial<ClusterUpdate> = {}): Cluster {
    return new Cluster(this.deps, update(endpoints, over));
  }

  /** Moves time past `ms` and the wheel's tick. */
  pass(ms: number): void {
    this.clock.advanceSync(ms + 25);
  }
}

/** A message: hosts 10.0.0.1, 10.0.0.2 … on port 80, healthy, weight 100, unless said otherwise. */
export function update(endpoints: readonly Partial<EndpointUpdate>[], over: Partial<ClusterUpdate> = {}): ClusterUpdate {
  return {
    kind: 'cluster',
    service: 'default/web',
    revision: 1,
    endpoints: endpoints.map((endpoint, i) => ({
      host: `10.0.0.${i + 1}`,
      port: 80,
      weight: 100,
      verdict: 'healthy',
      ...endpoint,
    })),
    policy: DEFAULT_CLUSTER_POLICY,
    ...over,
  };
}

/** The default policy with parts replaced. */
export function policy(
  over: {
    [Part in keyof ClusterPolicy]?: ClusterPolicy[Part] extends object ? Partial<ClusterPolicy[Part]> : ClusterPolicy[Part];
  },
): ClusterPolicy {
  const merged: Record<string, unknown> = { ...DEFAULT_CLUSTER_POLICY };
  for (const [part, value] of Object.entries(over)) {
    const before = merged[part];
    merged[part] = typeof value === 'object' && value !== null ? { ...(before as object), ...value } : value;
  }
  return merged as unknown as ClusterPolicy;
}

/** Sends `n` attempts with the same outcome to whatever is picked, or only to `address`, giving back the picks of others at once. */
export function send(cluster: Cluster, n: number, outcome: number, address?: string): void {
  for (let left = n, tries = 0; left > 0; ) {
    const picked = cluster.pick(null, true);
    if (picked === null || tries++ > 10_000) throw new Error(`no pick of ${address ?? 'anyone'}: ${cluster.noPick}`);
    const wanted = address === undefined || picked.address === address;
    cluster.end(picked, wanted ? outcome : 0);
    if (wanted) left--;
  }
}

/** Addresses of `n` picks that are all given back as ignored. */
export function picks(cluster: Cluster, n = 200, idempotent = true): Set<string | null> {
  const seen = new Set<string | null>();
  for (let i = 0; i < n; i++) {
    const picked = cluster.pick(null, idempotent);
    seen.add(picked === null ? null : picked.address);
    if (picked !== null) cluster.end(picked, 0);
  }
  return seen;
}

/** Picks without ending: how often each address came. */
export function countPicks(cluster: Cluster, n: number, tried: readonly PickedEndpoint[] | null = null): Map<string, number> {
  const counts = new Map<string, number>();
  for (let i = 0; i < n; i++) {
    const picked = cluster.pick(tried, true);
    if (picked === null) throw new Error(cluster.noPick);
    counts.set(picked.address, (counts.get(picked.address) ?? 0) + 1);
    cluster.end(picked, 0);
  }
  return counts;
}
