import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ClusterBench, update } from '../../test/support/fake-cluster.ts';
import { DEFAULT_CLUSTER_POLICY, type LoadBalancerPolicy } from '../model/policy.ts';
import type { Cluster } from './cluster.ts';
import type { EndpointUpdate } from './cluster-update.ts';
import type { PickedEndpoint } from './pick-interface.ts';

type Step =
  | { readonly kind: 'push'; readonly hosts: readonly Partial<EndpointUpdate>[] }
  | { readonly kind: 'pick'; readonly idempotent: boolean; readonly retry: boolean }
  | { readonly kind: 'end'; readonly which: number; readonly outcome: number }
  | { readonly kind: 'wait'; readonly ms: number };

const host = fc.record({
  host: fc.integer({ min: 1, max: 6 }).map((n) => `10.0.0.${n}`),
  weight: fc.constantFrom(0, 1, 100, 100, 250),
  verdict: fc.constantFrom('healthy', 'healthy', 'unknown', 'unhealthy', 'isolated'),
  groups: fc.subarray(['a', 'b'], { minLength: 1 }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('push'), hosts: fc.array(host, { maxLength: 6 }) }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('pick'), idempotent: fc.boolean(), retry: fc.boolean() }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('end'),
      which: fc.nat(50),
      outcome: fc.constantFrom(503, 503, 503, 500, -1, -3, 200, 429, 0),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('wait'),
      ms: fc.oneof(fc.integer({ min: 0, max: 1_200 }), fc.integer({ min: 0, max: 40_000 })),
    }),
  },
);

/**
 * What the state of the cluster says of an address before a pick: whether the rules of §8 and §9 let it be picked. A half-open breaker is
 * available after its sleep window and is not inside it, which the state does not tell: panic is checked from both sides.
 */
function pickable(cluster: Cluster, message: readonly Partial<EndpointUpdate>[]): { all: Set<string>; panic: boolean } {
  const { panic, endpoints } = cluster.state();
  const byAddress = new Map(message.map((endpoint) => [`${endpoint.host}:80`, endpoint]));
  const rows = endpoints.flatMap((state) => {
    const said = byAddress.get(`${state.host}:${state.port}`);
    return said === undefined || said.weight === 0 || said.verdict === 'isolated' ? [] : [{ state, said }];
  });
  const well = rows.filter(({ state, said }) => !state.ejected && said.verdict !== 'unhealthy');
  const available = (...words: string[]): number => well.filter(({ state }) => words.includes(state.breaker)).length;
  if (available('closed', 'halfOpen') * 2 < rows.length) assert.ok(panic, 'too few even with the half-open ones');
  if (available('closed') * 2 >= rows.length) assert.ok(!panic, 'enough without the half-open ones');
  const used = (panic ? rows : well).filter(({ state }) => state.breaker !== 'open');
  return { all: new Set(used.map(({ state }) => `${state.host}:${state.port}`)), panic };
}

interface History {
  readonly steps: readonly Step[];
  readonly policy: LoadBalancerPolicy;
  readonly grouped: boolean;
}

/** Runs a history; checks every pick against the rules and the counts at its end. */
function run({ steps, policy, grouped }: History): void {
  const bench = new ClusterBench();
  const shape = {
    policy: {
      ...DEFAULT_CLUSTER_POLICY,
      loadBalancer: { policy },
      // Low thresholds, so that short histories reach ejections, open breakers and both at once.
      outlierDetection: { ...DEFAULT_CLUSTER_POLICY.outlierDetection, consecutive5xx: 3 },
      breaker: { ...DEFAULT_CLUSTER_POLICY.breaker, consecutiveFailures: 2 },
    },
    ...(grouped
      ? {
          groups: [
            { id: 'a', share: 3 },
            { id: 'b', share: 1 },
          ],
        }
      : {}),
  };
  let hosts: readonly Partial<EndpointUpdate>[] = [
    { host: '10.0.0.1', groups: ['a'] },
    { host: '10.0.0.2', groups: ['b'] },
  ];
  const cluster = bench.cluster(hosts, shape);
  const open: PickedEndpoint[] = [];
  /** When the last probe of an address ended, and whether its breaker stayed shut: the next one is a second away. */
  const probed = new Map<string, number>();
  const probing = (address: string): number => open.filter((picked) => picked.address === address && 'endpoint' in picked).length;
  for (const each of steps) {
    if (each.kind === 'push') {
      hosts = each.hosts;
      cluster.update(update(hosts, shape));
    } else if (each.kind === 'wait') {
      bench.pass(each.ms);
    } else if (each.kind === 'end') {
      const [picked] = open.splice(each.which % Math.max(1, open.length), 1);
      if (picked === undefined) continue;
      cluster.end(picked, each.outcome);
      if ('endpoint' in picked && each.outcome !== 0) probed.set(picked.address, bench.clock.now());
    } else {
      const { all, panic } = pickable(cluster, hosts);
      const picked = cluster.pick(each.retry ? open.slice(-2) : null, each.idempotent);
      assert.equal(cluster.panic, panic);
      if (picked === null) {
        for (const address of all) assert.ok(probing(address) > 0, `${address} was left out without a probe in flight`);
        continue;
      }
      assert.ok(all.has(picked.address), `${picked.address} is not one of ${[...all]}`);
      open.push(picked);
      assert.ok(probing(picked.address) <= 1, 'two probes of one half-open breaker');
      if (!('endpoint' in picked)) continue;
      assert.ok(bench.clock.now() - (probed.get(picked.address) ?? -1_000) >= 1_000, 'a probe within a second of the last');
    }
  }
  for (const picked of open.splice(0)) cluster.end(picked, 200);
  for (const endpoint of cluster.state().endpoints) assert.equal(endpoint.active, 0);
  cluster.close();
  assert.equal(bench.wheel.armed, 0);
  assert.equal(bench.metrics.size, 0);
}

test('in any history of pushes, outcomes and waits, every pick is one that the rules allow, and nothing is left at the end', () => {
  fc.assert(
    fc.property(
      fc.record({
        steps: fc.array(step, { maxLength: 150, size: 'max' }),
        policy: fc.constantFrom<LoadBalancerPolicy>('leastRequest', 'roundRobin', 'random'),
        grouped: fc.boolean(),
      }),
      run,
    ),
    { numRuns: 200 },
  );
});
