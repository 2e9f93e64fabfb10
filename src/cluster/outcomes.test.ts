import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterBench, picks, policy, send, update } from '../../test/support/fake-cluster.ts';
import type { Cluster } from './cluster.ts';
import type { EndpointState } from './interest.ts';
import { OUTCOME_CONNECT_FAILURE, OUTCOME_IGNORED, OUTCOME_LOCAL_FAILURE } from './pick-interface.ts';

const A = '10.0.0.1:80';
const B = '10.0.0.2:80';
const C = '10.0.0.3:80';
const noBreaker = policy({ breaker: { enabled: false } });
const noOutlier = policy({ outlierDetection: { enabled: false } });

function stateOf(cluster: Cluster, address: string): EndpointState {
  const found = cluster.state().endpoints.find(({ host, port }) => `${host}:${port}` === address);
  assert.ok(found);
  return found;
}

function ejections(bench: ClusterBench, applied: string, type = 'consecutive_5xx'): number {
  return bench.metrics.counter('weir_ejections_total', 'default/web', type, applied).value;
}

// Ejection.

test('five 5xx in a row eject, and the sweep brings back after the ejection time', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noBreaker });
  send(cluster, 4, 500, A);
  assert.equal(stateOf(cluster, A).ejected, false);
  send(cluster, 1, 500, A);
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
  assert.equal(stateOf(cluster, A).ejectedForMs, 30_000);
  bench.pass(29_900);
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
  // The sweeps run every 10 s from the ejection on, each at most a tick late.
  bench.pass(150);
  assert.deepEqual([...picks(cluster)].sort(), [A, B, C]);
  assert.equal(ejections(bench, 'enforced'), 1);
});

test('the second ejection in a row lasts twice as long', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noBreaker });
  send(cluster, 5, 500, A);
  bench.pass(30_100);
  send(cluster, 5, 500, A);
  assert.equal(stateOf(cluster, A).ejectedForMs, 60_000);
});

test('the guard refuses an ejection beyond half of the hosts', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noBreaker });
  send(cluster, 5, 500, A);
  send(cluster, 5, 500, B);
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
  assert.equal(ejections(bench, 'enforced'), 1);
  assert.equal(ejections(bench, 'overflow'), 1);
});

test('a single host is ejected, panics and keeps serving', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noBreaker });
  send(cluster, 5, OUTCOME_LOCAL_FAILURE);
  assert.ok(stateOf(cluster, A).ejected);
  assert.deepEqual([...picks(cluster)], [A]);
  assert.equal(cluster.panic, true);
  cluster.collect();
  assert.equal(bench.metrics.gauge('weir_lb_panic', 'default/web').value, 1);
  assert.equal(bench.metrics.gauge('weir_ejections_active', 'default/web').value, 1);
});

test('ejection alone never causes panic in clusters of two or more', () => {
  for (let size = 2; size <= 12; size++) {
    const cluster = new ClusterBench().cluster(new Array(size).fill({}), { policy: noBreaker });
    for (let round = 0; round < 5 * size; round++) send(cluster, 1, 503);
    for (let i = 1; i <= size; i++) {
      // Whoever may still be ejected gets its five in a row; those out already are not reachable and are skipped.
      if (!stateOf(cluster, `10.0.0.${i}:80`).ejected) send(cluster, 5, 503, `10.0.0.${i}:80`);
    }
    picks(cluster, 1);
    assert.equal(cluster.panic, false, `${size} hosts`);
  }
});

test('gateway failures are detected and by default not enforced', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], {
    policy: policy({ breaker: { enabled: false }, outlierDetection: { consecutive5xx: 1_000 } }),
  });
  send(cluster, 5, OUTCOME_CONNECT_FAILURE, A);
  assert.equal(ejections(bench, 'detected', 'consecutive_gateway_failure'), 1);
  assert.equal(stateOf(cluster, A).ejected, false);
});

test('an outcome that is ignored teaches nothing', () => {
  const cluster = new ClusterBench().cluster([{}, {}]);
  send(cluster, 50, OUTCOME_IGNORED);
  assert.equal(stateOf(cluster, A).ejected || stateOf(cluster, B).ejected, false);
  send(cluster, 4, 503, A);
  send(cluster, 5, OUTCOME_IGNORED, A);
  send(cluster, 1, 503, A);
  assert.ok(stateOf(cluster, A).ejected, 'nor does it reset a row');
});

test('an ejection survives pushes and a flap of the endpoint, but not ten minutes of absence', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], {
    policy: policy({
      breaker: { enabled: false },
      outlierDetection: { baseEjectionTime: 3_600_000, maxEjectionTime: 3_600_000 },
    }),
  });
  const all = (): void => cluster.update({ ...update([{}, {}, {}]), policy: cluster.policy });
  const without = (): void => cluster.update({ ...update([{ host: '10.0.0.2' }, { host: '10.0.0.3' }]), policy: cluster.policy });
  send(cluster, 5, 500, A);
  all();
  assert.ok(stateOf(cluster, A).ejected);
  without();
  bench.pass(599_000);
  all();
  assert.ok(stateOf(cluster, A).ejected, 'back after just under ten minutes');
  without();
  bench.pass(600_000);
  all();
  assert.equal(stateOf(cluster, A).ejected, false, 'back after ten minutes');
});

test('an ejected endpoint that left does not use up the guard', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noBreaker });
  send(cluster, 5, 500, A);
  cluster.update(update([{ host: '10.0.0.2' }, { host: '10.0.0.3' }], { policy: noBreaker }));
  send(cluster, 5, 500, B);
  assert.deepEqual([...picks(cluster)], [C]);
});

test('a check that failed since the ejection and passes again ends it; an old or repeated recovery does not', () => {
  const bench = new ClusterBench();
  const before = bench.clock.wallNow() - 1;
  const cluster = bench.cluster([{ recoveredAt: before }, {}, {}], { policy: noBreaker });
  send(cluster, 5, 500, A);
  cluster.update(update([{ recoveredAt: before }, {}, {}], { policy: noBreaker, revision: 2 }));
  assert.ok(stateOf(cluster, A).ejected, 'the same recovery as before');
  bench.pass(1_000);
  cluster.update(update([{ recoveredAt: bench.clock.wallNow() }, {}, {}], { policy: noBreaker, revision: 3 }));
  assert.equal(stateOf(cluster, A).ejected, false);
  assert.deepEqual([...picks(cluster)].sort(), [A, B, C]);
});

test('a recovery that was told before does not end a later ejection, even if the wall clock went back in between', () => {
  const bench = new ClusterBench();
  const recoveredAt = bench.clock.wallNow();
  const cluster = bench.cluster([{ recoveredAt }, {}, {}], { policy: noBreaker });
  bench.clock.jumpWall(-3_600_000);
  send(cluster, 5, 500, A);
  cluster.update(update([{ recoveredAt }, {}, {}], { policy: noBreaker, revision: 2 }));
  assert.ok(stateOf(cluster, A).ejected);
});

test('late results of a removed endpoint eject nobody', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noBreaker });
  const late = Array.from({ length: 5 }, () => cluster.pick(null, true));
  cluster.update(update([{ host: '10.0.0.2' }], { policy: noBreaker }));
  for (const picked of late) if (picked !== null) cluster.end(picked, 503);
  assert.equal(ejections(bench, 'enforced') + ejections(bench, 'overflow'), 0);
});

test('an endpoint that came back is not forgotten when the ten minutes of its absence would have ended', () => {
  const bench = new ClusterBench();
  const long = policy({ breaker: { enabled: false }, outlierDetection: { baseEjectionTime: 700_000, maxEjectionTime: 700_000 } });
  const cluster = bench.cluster([{}, {}, {}], { policy: long });
  send(cluster, 5, 500, A);
  cluster.update(update([{ host: '10.0.0.2' }, { host: '10.0.0.3' }], { policy: long }));
  cluster.update(update([{}, {}, {}], { policy: long }));
  bench.pass(690_000);
  assert.ok(stateOf(cluster, A).ejected);
  bench.pass(20_000);
  assert.equal(stateOf(cluster, A).ejected, false, 'the sweep still looks after it');
});

test('switching outlier detection off lets everyone back at once', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noBreaker });
  send(cluster, 5, 500, A);
  cluster.update(update([{}, {}], { policy: policy({ breaker: { enabled: false }, outlierDetection: { enabled: false } }) }));
  assert.deepEqual([...picks(cluster)].sort(), [A, B]);
});

test('the sweep stops when nothing is ejected and nothing remembered', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noBreaker });
  send(cluster, 5, 500, A);
  assert.equal(bench.wheel.armed, 1);
  bench.pass(30_100);
  assert.equal(bench.wheel.armed, 1, 'one ejection is still remembered');
  bench.pass(10_100);
  assert.equal(bench.wheel.armed, 0);
});

// Breaker.

test('ten failures in a row open; after 30 s exactly one request goes through, and its success closes', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  assert.equal(stateOf(cluster, A).breaker, 'open');
  assert.deepEqual([...picks(cluster)], [B]);
  bench.pass(29_900);
  assert.deepEqual([...picks(cluster)], [B]);
  bench.pass(200);
  assert.equal(stateOf(cluster, A).breaker, 'halfOpen');
  const probe = cluster.pick(null, true);
  assert.equal(probe?.address, A);
  assert.deepEqual([...picks(cluster)], [B], 'the slot is taken');
  assert.ok(probe);
  cluster.end(probe, 200);
  assert.deepEqual([...picks(cluster)].sort(), [A, B]);
  assert.equal(bench.metrics.counter('weir_breaker_opened_total', 'default/web').value, 1);
});

test('a failed probe, also a 429, opens again for twice the time', () => {
  for (const outcome of [503, 429, OUTCOME_LOCAL_FAILURE]) {
    const bench = new ClusterBench();
    const cluster = bench.cluster([{}, {}], { policy: noOutlier });
    send(cluster, 10, 503, A);
    bench.pass(30_000);
    const probe = cluster.pick(null, true);
    assert.equal(probe?.address, A);
    cluster.end(probe, outcome);
    bench.pass(59_900);
    assert.deepEqual([...picks(cluster)], [B], `after ${outcome}`);
    bench.pass(200);
    assert.ok(picks(cluster).has(A));
  }
});

test('429 does not open a closed breaker, nor do 500s', () => {
  const cluster = new ClusterBench().cluster([{}, {}], { policy: noOutlier });
  send(cluster, 100, 429, A);
  send(cluster, 100, 500, A);
  assert.equal(stateOf(cluster, A).breaker, 'closed');
});

test('a request that is not idempotent leaves the slot alone while anyone else is there', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  bench.pass(30_000);
  assert.deepEqual([...picks(cluster, 50, false)], [B]);
  cluster.update(update([{}, { verdict: 'isolated' }], { policy: noOutlier }));
  assert.deepEqual([...picks(cluster, 50, false)], [A]);
});

test('a retry takes the slot only when it would otherwise go where it has been', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  bench.pass(30_000);
  // A request that began before: B was tried.
  const taken = cluster.pick(null, true);
  assert.equal(taken?.address, A);
  const tried = cluster.pick(null, true);
  assert.ok(taken && tried);
  cluster.end(taken, OUTCOME_IGNORED);
  const other = cluster.pick([tried], true);
  assert.ok(other);
  assert.ok(other.address !== A && other.address !== tried.address);
  assert.equal(cluster.pick([tried, other], true)?.address, A);
  assert.notEqual(cluster.pick([tried, other], false)?.address, A);
});

test('a probe that told nothing gives the slot back', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noOutlier });
  send(cluster, 10, 503);
  bench.pass(30_000);
  const probe = cluster.pick(null, true);
  assert.ok(probe);
  assert.equal(cluster.pick(null, true), null);
  assert.equal(cluster.noPick, 'BREAKER_OPEN');
  cluster.end(probe, OUTCOME_IGNORED);
  assert.equal(cluster.pick(null, true)?.address, A);
});

test('an attempt from before the opening does not pass for the probe', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noOutlier });
  const old = cluster.pick(null, true);
  assert.ok(old);
  send(cluster, 10, 503);
  bench.pass(30_000);
  const probe = cluster.pick(null, true);
  assert.ok(probe);
  cluster.end(old, 200);
  assert.equal(stateOf(cluster, A).breaker, 'halfOpen');
  assert.equal(cluster.pick(null, true), null, 'the probe is still out');
  cluster.end(probe, 200);
  assert.equal(stateOf(cluster, A).breaker, 'closed');
  assert.equal(stateOf(cluster, A).active, 0);
});

test('when every breaker is open there is nobody, for breakers, and panic does not help', () => {
  const cluster = new ClusterBench().cluster([{}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  send(cluster, 10, 503, B);
  assert.equal(cluster.pick(null, true), null);
  assert.equal(cluster.noPick, 'BREAKER_OPEN');
});

test('panic uses the unhealthy but not the one whose breaker is open', () => {
  const cluster = new ClusterBench().cluster([{}, {}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  cluster.update(update([{}, { verdict: 'unhealthy' }, { verdict: 'unhealthy' }], { policy: noOutlier }));
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
  assert.equal(cluster.panic, true);
});

test('an open breaker counts as unavailable for panic, a half-open one as available', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  const unwell = { verdict: 'unhealthy' } as const;
  cluster.update(update([{}, {}, unwell, unwell], { policy: noOutlier }));
  picks(cluster, 1);
  assert.equal(cluster.panic, true, '1 of 4');
  bench.pass(30_000);
  picks(cluster, 1);
  assert.equal(cluster.panic, false, '2 of 4');
});

test('an open breaker survives a flap and still wakes at its time', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  cluster.update(update([{ host: '10.0.0.2' }], { policy: noOutlier }));
  bench.pass(10_000);
  cluster.update(update([{}, {}], { policy: noOutlier }));
  assert.deepEqual([...picks(cluster)], [B]);
  bench.pass(20_000);
  assert.ok(picks(cluster).has(A));
});

test('a breaker whose time passed during the absence wakes soon after the return', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  cluster.update(update([{ host: '10.0.0.2' }], { policy: noOutlier }));
  bench.pass(300_000);
  cluster.update(update([{}, {}], { policy: noOutlier }));
  bench.pass(50);
  assert.ok(picks(cluster).has(A));
});

test('switching the breaker off lets an open one go at once', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noOutlier });
  send(cluster, 10, 503);
  cluster.update(update([{}], { policy: policy({ breaker: { enabled: false }, outlierDetection: { enabled: false } }) }));
  assert.deepEqual([...picks(cluster)], [A]);
  assert.equal(bench.wheel.armed, 0);
});
