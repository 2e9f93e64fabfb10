import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterBench, countPicks, picks, policy, send, update } from '../../test/support/fake-cluster.ts';
import type { Cluster } from './cluster.ts';
import { OUTCOME_IGNORED, type PickedEndpoint } from './pick-interface.ts';

const A = '10.0.0.1:80';
const B = '10.0.0.2:80';
const C = '10.0.0.3:80';

function mustPick(cluster: Cluster, tried: readonly PickedEndpoint[] | null = null): PickedEndpoint {
  const picked = cluster.pick(tried, true);
  assert.ok(picked, cluster.noPick);
  return picked;
}

// §9 availability and panic.

test('healthy and unknown are picked; unhealthy, isolated and weight 0 are not', () => {
  const cluster = new ClusterBench().cluster([
    {},
    { verdict: 'unknown' },
    {},
    { verdict: 'unhealthy' },
    { verdict: 'isolated' },
    { weight: 0 },
  ]);
  assert.deepEqual([...picks(cluster)].sort(), [A, B, C]);
  assert.equal(cluster.panic, false);
});

test('an empty cluster gives nobody, for lack of a healthy upstream', () => {
  const cluster = new ClusterBench().cluster([]);
  assert.equal(cluster.pick(null, true), null);
  assert.equal(cluster.noPick, 'NO_HEALTHY_UPSTREAM');
});

test('below half available all but isolated and weight 0 are used, and the pick says so', () => {
  const cluster = new ClusterBench().cluster([
    {},
    { verdict: 'unhealthy' },
    { verdict: 'unhealthy' },
    { verdict: 'isolated' },
    { weight: 0 },
  ]);
  assert.deepEqual([...picks(cluster)].sort(), [A, B, C]);
  assert.equal(cluster.panic, true);
});

test('isolating most of a cluster does not call for its unhealthy rest', () => {
  const isolated = { verdict: 'isolated' } as const;
  const cluster = new ClusterBench().cluster([{}, {}, { verdict: 'unhealthy' }, isolated, isolated, isolated, isolated]);
  assert.deepEqual([...picks(cluster)].sort(), [A, B]);
  assert.equal(cluster.panic, false);
});

test('a panic threshold of 0 gives nobody instead of the unhealthy', () => {
  const cluster = new ClusterBench().cluster([{ verdict: 'unhealthy' }], { policy: policy({ panicThreshold: 0 }) });
  assert.equal(cluster.pick(null, true), null);
  assert.equal(cluster.noPick, 'NO_HEALTHY_UPSTREAM');
});

// Pushes.

test('an endpoint of the same address stays the same object through pushes, with what is in flight', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}]);
  const picked = mustPick(cluster);
  cluster.update(update([{ weight: 7, verdict: 'unknown' }], { revision: 2 }));
  assert.equal(mustPick(cluster), picked);
  assert.equal(cluster.state().endpoints[0]?.active, 2);
  assert.equal(cluster.state().revision, 2);
});

test('a push that changes nothing keeps the order of the round robin', () => {
  const bench = new ClusterBench();
  const roundRobin = { policy: policy({ loadBalancer: { policy: 'roundRobin' } }) };
  const cluster = bench.cluster([{}, {}, {}, {}], roundRobin);
  const order: string[] = [];
  for (let i = 0; i < 8; i++) {
    const picked = mustPick(cluster);
    order.push(picked.address);
    cluster.end(picked, 200);
    cluster.update(update([{}, {}, {}, {}], roundRobin));
  }
  assert.deepEqual(order.slice(0, 4), order.slice(4));
  assert.equal(new Set(order).size, 4);
});

test('a push whose policy is an equal copy, as it comes from another process, keeps the order of the round robin too', () => {
  const off = policy({
    loadBalancer: { policy: 'roundRobin' },
    breaker: { enabled: false },
    outlierDetection: { enabled: false },
  });
  const cluster = new ClusterBench().cluster([{}, {}, {}], { policy: off });
  const order: string[] = [];
  for (let i = 0; i < 6; i++) {
    const picked = mustPick(cluster);
    order.push(picked.address);
    cluster.end(picked, 200);
    cluster.update(structuredClone(update([{}, {}, {}], { policy: off })));
  }
  assert.deepEqual(order.slice(0, 3), order.slice(3));
  assert.equal(new Set(order).size, 3);
});

test('a removed endpoint gets no pick, and its pool is drained when its last attempt ends', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}]);
  const picked = mustPick(cluster);
  assert.equal(picked.pool, picked.pool);
  cluster.update(update([{ host: '10.0.0.2' }]));
  assert.deepEqual([...picks(cluster)], [B]);
  assert.equal(bench.pools[0]?.drained, 0, 'an attempt is in flight');
  cluster.end(picked, 200);
  assert.equal(bench.pools[0]?.drained, 1);
});

test('a removed endpoint without attempts drains at once', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}]);
  const picked = mustPick(cluster);
  assert.ok(picked.pool);
  cluster.end(picked, 200);
  cluster.update(update([]));
  assert.equal(bench.pools[0]?.drained, 1);
});

test('an attempt that outlives the route timeout does not keep the idle sockets of a removed endpoint', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}]);
  const picked = mustPick(cluster);
  assert.ok(picked.pool);
  cluster.update(update([]));
  bench.pass(14_900);
  assert.equal(bench.pools[0]?.drained, 0);
  bench.pass(200);
  assert.equal(bench.pools[0]?.drained, 1);
});

test('an endpoint that comes back while it drains goes on with its pool', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}]);
  const picked = mustPick(cluster);
  const { pool } = picked;
  cluster.update(update([]));
  cluster.update(update([{}]));
  assert.equal(mustPick(cluster).pool, pool);
  cluster.end(picked, 200);
  bench.pass(60_000);
  assert.equal(bench.pools[0]?.drained, 0);
});

test('no pool is made before someone uses it', () => {
  const bench = new ClusterBench();
  picks(bench.cluster([{}, {}]));
  assert.equal(bench.pools.length, 0);
});

// Picking again.

test('a retry avoids who was tried while anyone else is there', () => {
  for (const name of ['leastRequest', 'roundRobin', 'random'] as const) {
    const bench = new ClusterBench();
    const cluster = bench.cluster([{}, {}, {}], { policy: policy({ loadBalancer: { policy: name } }) });
    const first = mustPick(cluster);
    const second = mustPick(cluster, [first]);
    for (let i = 0; i < 100; i++) {
      const third = mustPick(cluster, [first, second]);
      assert.equal(new Set([first.address, second.address, third.address]).size, 3, name);
      cluster.end(third, 0);
    }
  }
});

test('of two hosts a retry takes the busy one when the idle one was tried', () => {
  const cluster = new ClusterBench().cluster([{}, {}]);
  const busy = mustPick(cluster);
  const idle = mustPick(cluster);
  assert.notEqual(idle, busy);
  cluster.end(idle, -3);
  for (let i = 0; i < 50; i++) {
    const again = mustPick(cluster, [idle]);
    assert.equal(again, busy);
    cluster.end(again, 0);
  }
});

test('when everyone was tried the retry still gets one', () => {
  const cluster = new ClusterBench().cluster([{}]);
  const only = mustPick(cluster);
  assert.equal(mustPick(cluster, [only]), only);
});

// Weighted groups (M3).

test('the group is drawn by its share, whatever the number of its endpoints', () => {
  const cluster = new ClusterBench().cluster([{ groups: ['a'] }, { groups: ['b'] }, { groups: ['b'] }, { groups: ['b'] }], {
    groups: [
      { id: 'a', share: 90 },
      { id: 'b', share: 10 },
    ],
  });
  const counts = countPicks(cluster, 10_000);
  assert.ok(Math.abs((counts.get(A) ?? 0) / 10_000 - 0.9) < 0.015, String(counts.get(A)));
  assert.ok(Math.abs((cluster.state().endpoints[0]?.share ?? 0) - 0.9) < 1e-9);
  assert.ok(Math.abs((cluster.state().endpoints[1]?.share ?? 0) - 0.1 / 3) < 1e-9);
});

test('an endpoint in both groups gets traffic from both', () => {
  const cluster = new ClusterBench().cluster([{ groups: ['a', 'b'] }, { groups: ['b'] }], {
    groups: [
      { id: 'a', share: 1 },
      { id: 'b', share: 1 },
    ],
  });
  const share = (countPicks(cluster, 10_000).get(A) ?? 0) / 10_000;
  assert.ok(Math.abs(share - 0.75) < 0.02, String(share));
});

test('a group without an available endpoint gives its share to the others', () => {
  const cluster = new ClusterBench().cluster([{ groups: ['a'], verdict: 'unhealthy' }, { groups: ['b'] }, { groups: ['b'] }], {
    groups: [
      { id: 'a', share: 90 },
      { id: 'b', share: 10 },
    ],
  });
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
});

test('panic is computed over the cluster, and a group of which nobody is available takes no share in it', () => {
  const dead = { groups: ['a'], verdict: 'unhealthy' } as const;
  const cluster = new ClusterBench().cluster([dead, dead, { groups: ['b'] }], {
    groups: [
      { id: 'a', share: 90 },
      { id: 'b', share: 10 },
    ],
  });
  assert.deepEqual([...picks(cluster)], [C]);
  assert.equal(cluster.panic, true);
});

test('a retry draws from all groups', () => {
  const cluster = new ClusterBench().cluster([{ groups: ['a'] }, { groups: ['b'] }], {
    groups: [
      { id: 'a', share: 1_000_000 },
      { id: 'b', share: 1 },
    ],
  });
  const first = mustPick(cluster);
  assert.equal(first.address, A);
  assert.equal(mustPick(cluster, [first]).address, B);
});

test('a group of share 0 and an endpoint of no group get nothing', () => {
  const cluster = new ClusterBench().cluster([{ groups: ['a'] }, { groups: ['b'] }, {}], {
    groups: [
      { id: 'a', share: 1 },
      { id: 'b', share: 0 },
    ],
  });
  assert.deepEqual([...picks(cluster)], [A]);
});

test('a push that only moves the shares moves the traffic', () => {
  const bench = new ClusterBench();
  const endpoints = [{ groups: ['a'] }, { groups: ['b'] }];
  const shares = (a: number, b: number) => ({
    groups: [
      { id: 'a', share: a },
      { id: 'b', share: b },
    ],
  });
  const cluster = bench.cluster(endpoints, shares(1, 0));
  assert.deepEqual([...picks(cluster)], [A]);
  cluster.update(update(endpoints, shares(0, 1)));
  assert.deepEqual([...picks(cluster)], [B]);
});

// Requests and retries.

test('requests beyond maxRequests overflow, and an end makes room', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: policy({ limits: { maxRequests: 2 } }) });
  assert.deepEqual([cluster.startRequest(), cluster.startRequest(), cluster.startRequest()], [true, true, false]);
  assert.equal(cluster.activeRequests, 2);
  assert.equal(bench.metrics.counter('weir_upstream_rq_overflow_total', 'default/web').value, 1);
  cluster.endRequest();
  assert.ok(cluster.startRequest());
});

test('caps of connections and waiters are shared by the endpoints of a cluster and follow a push', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: policy({ limits: { maxConnections: 1, maxPendingRequests: 2 } }) });
  for (let i = 0; i < 50 && bench.pools.length < 2; i++) {
    const picked = cluster.pick(null, true);
    assert.ok(picked);
    assert.ok(picked.pool);
    cluster.end(picked, OUTCOME_IGNORED);
  }
  assert.equal(bench.limits.length, 2);
  const [a, b] = bench.limits;
  assert.ok(a && b);
  assert.deepEqual([a.connections.tryStart(), b.connections.tryStart()], [true, false]);
  assert.deepEqual([a.pending.tryStart(), b.pending.tryStart(), a.pending.tryStart()], [true, true, false]);
  cluster.update(update([{}, {}], { policy: policy({ limits: { maxConnections: 2 } }) }));
  assert.equal(b.connections.tryStart(), true);
});

test('a push that lowers maxRequests counts at once', () => {
  const cluster = new ClusterBench().cluster([{}]);
  cluster.startRequest();
  cluster.update(update([{}], { policy: policy({ limits: { maxRequests: 1 } }) }));
  assert.equal(cluster.startRequest(), false);
});

test('three retries are granted without first attempts, then each five first attempts grant one', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}]);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => cluster.tryRetry()),
    [true, true, true, false],
  );
  for (let i = 0; i < 20; i++) cluster.countFirstAttempt();
  assert.deepEqual([cluster.tryRetry(), cluster.tryRetry()], [true, false]);
  assert.equal(bench.metrics.counter('weir_retries_total', 'default/web').value, 4);
  assert.equal(bench.metrics.counter('weir_retry_overflow_total', 'default/web').value, 2);
});

test('the age of the last pick is null before the first and counts failed picks', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([]);
  assert.equal(cluster.lastPickAgeMs, null);
  cluster.pick(null, true);
  bench.clock.advanceSync(500);
  assert.equal(cluster.state().lastPickAgeMs, 500);
});

test('an endpoint of another maker is refused at its end', () => {
  const cluster = new ClusterBench().cluster([{}]);
  const picked = mustPick(cluster);
  assert.throws(() => cluster.end({ host: 'h', port: 1, address: 'h:1', pool: picked.pool }, 200), TypeError);
});

test('an idle cluster sets no timer and has no series; a closed one leaves none behind', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}]);
  picks(cluster);
  cluster.collect();
  assert.equal(bench.wheel.armed, 0);
  assert.equal(bench.metrics.size, 0);
  const late = mustPick(cluster);
  assert.ok(late.pool);
  send(cluster, 5, 503, A);
  cluster.update(update([{}, {}]));
  cluster.collect();
  assert.ok(bench.metrics.size > 0);
  assert.ok(bench.wheel.armed > 0);
  cluster.close();
  assert.equal(bench.metrics.size, 0);
  assert.equal(bench.wheel.armed, 0);
  cluster.end(late, 503);
  cluster.collect();
  assert.equal(bench.metrics.size, 0);
  assert.equal(bench.wheel.armed, 0);
  assert.ok(bench.pools.every((pool) => pool.drained > 0));
});
