// A breaker must not be the outage itself: the early probes of a cluster in panic, on the fake clock.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterBench, picks, policy, send, update } from '../../test/support/fake-cluster.ts';
import type { Cluster } from './cluster.ts';
import { Probe } from './endpoint.ts';
import { OUTCOME_CONNECT_FAILURE, OUTCOME_IGNORED, type PickedEndpoint } from './pick-interface.ts';

const A = '10.0.0.1:80';
const B = '10.0.0.2:80';
const C = '10.0.0.3:80';
const noOutlier = policy({ outlierDetection: { enabled: false } });

/** Upstreams that are alive or not, requests with two retries, and what they did. */
class Traffic {
  readonly dead = new Set<string>();
  readonly probes: { readonly at: number; readonly address: string }[] = [];
  ok = 0;
  failed = 0;
  readonly #bench: ClusterBench;
  readonly #cluster: Cluster;
  readonly #retries: number;

  constructor(bench: ClusterBench, cluster: Cluster, retries = 2) {
    this.#bench = bench;
    this.#cluster = cluster;
    this.#retries = retries;
  }

  request(idempotent = true): boolean {
    const tried: PickedEndpoint[] = [];
    for (let attempt = 0; attempt <= this.#retries; attempt++) {
      const picked = this.#cluster.pick(tried, idempotent);
      if (picked === null) break;
      if (picked instanceof Probe) this.probes.push({ at: this.#bench.clock.now(), address: picked.address });
      const alive = !this.dead.has(picked.address);
      this.#cluster.end(picked, alive ? 200 : OUTCOME_CONNECT_FAILURE);
      if (alive) {
        this.ok++;
        return true;
      }
      tried.push(picked);
    }
    this.failed++;
    return false;
  }

  /** A request every `everyMs` for `ms`. */
  run(ms: number, everyMs = 10): void {
    for (let left = ms; left > 0; left -= everyMs) {
      this.request();
      this.#bench.clock.advanceSync(everyMs);
    }
  }

  /** The least time between two probes of one address. */
  leastGap(address: string): number {
    const times = this.probes.filter((probe) => probe.address === address).map(({ at }) => at);
    return Math.min(...times.slice(1).map((at, i) => at - (times[i] ?? 0)));
  }
}

for (const [name, used] of [
  ['default settings', policy({})],
  ['no outlier detection', noOutlier],
] as const) {
  test(`rolling kills: three upstreams are killed and restarted one after the other within 30 s, no idempotent request fails (${name})`, () => {
    const bench = new ClusterBench();
    const cluster = bench.cluster([{}, {}, {}], { policy: used });
    const traffic = new Traffic(bench, cluster);
    traffic.run(1_000);
    for (const victim of [A, B, C, A, B, C]) {
      traffic.dead.add(victim);
      traffic.run(2_000);
      traffic.dead.delete(victim);
      traffic.run(3_000);
    }
    assert.equal(traffic.failed, 0);
    assert.equal(traffic.ok, 3_100);
  });
}

test('all dead for two minutes: each endpoint gets at most one probe a second, and nearly that', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noOutlier });
  const traffic = new Traffic(bench, cluster);
  for (const address of [A, B, C]) traffic.dead.add(address);
  traffic.run(1_000);
  traffic.probes.length = 0;
  traffic.run(120_000);
  for (const address of [A, B, C]) {
    const n = traffic.probes.filter((probe) => probe.address === address).length;
    assert.ok(n <= 120 && n >= 112, `${n} probes of ${address}`);
    assert.ok(traffic.leastGap(address) >= 1_000, `${traffic.leastGap(address)} ms between two probes of ${address}`);
  }
  assert.equal(traffic.ok, 0);
  // Openings at 0 s, then by the regular probes at about 30 s and 90 s; early ones open nothing.
  assert.equal(bench.metrics.counter('weir_breaker_opened_total', 'default/web').value, 9);
});

test('all dead, then one is back: it serves within 1.1 s, at any moment of the sleep window', () => {
  for (const deadMs of [1_500, 5_030, 29_950, 31_010, 89_500, 200_990]) {
    for (const back of [A, B, C]) {
      const bench = new ClusterBench();
      const cluster = bench.cluster([{}, {}, {}], { policy: noOutlier });
      const traffic = new Traffic(bench, cluster);
      for (const address of [A, B, C]) traffic.dead.add(address);
      traffic.run(deadMs);
      traffic.dead.delete(back);
      traffic.run(1_100);
      assert.ok(traffic.request(), `${back} after ${deadMs} ms`);
      assert.ok(picks(cluster, 100).has(back));
    }
  }
});

test('all dead, a request a second and no retries: the probes go in turn, so the one that is back is found', () => {
  for (const back of [A, B, C]) {
    const bench = new ClusterBench();
    const cluster = bench.cluster([{}, {}, {}], { policy: noOutlier });
    const traffic = new Traffic(bench, cluster, 0);
    for (const address of [A, B, C]) traffic.dead.add(address);
    traffic.run(500);
    assert.equal(cluster.pick(null, true), null);
    traffic.dead.delete(back);
    bench.pass(1_000);
    traffic.run(3_000, 1_000);
    assert.ok(traffic.ok > 0, `${back} was never asked`);
  }
});

test('no early probes while half or more is available', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}, {}], { policy: noOutlier });
  const traffic = new Traffic(bench, cluster);
  traffic.dead.add(A).add(B);
  traffic.run(25_000);
  assert.deepEqual(traffic.probes, []);
  assert.deepEqual([...picks(cluster)].sort(), [C, '10.0.0.4:80']);
  traffic.run(10_000);
  assert.equal(traffic.probes.length, 2, 'the regular ones');
});

test('when too few are left long after a breaker opened, it is probed at once', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  bench.pass(10_000);
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
  send(cluster, 10, 503, B);
  const probe = cluster.pick(null, true);
  assert.equal(probe?.address, A);
  assert.ok(probe instanceof Probe);
  cluster.end(probe, 200);
  assert.equal(bench.wheel.armed, 1, 'for B alone');
  assert.deepEqual([...picks(cluster)].sort(), [A, C], 'B waits: two of three are available again');
  bench.pass(20_000);
  assert.deepEqual([...picks(cluster)].sort(), [A, C]);
});

test('an early slot that nobody took is withdrawn when enough are available again', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, { verdict: 'unhealthy' }], { policy: noOutlier });
  send(cluster, 10, 503, A);
  bench.pass(1_000);
  const stateOf = (i: number) => cluster.state().endpoints[i]?.breaker;
  assert.equal(stateOf(0), 'halfOpen', 'offered');
  cluster.update(update([{}, {}, {}], { policy: noOutlier }));
  assert.equal(stateOf(0), 'open');
  assert.deepEqual([...picks(cluster)].sort(), [B, C]);
});

test('an early half-open breaker does not count as available: the others keep their early probes', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  send(cluster, 10, 503, B);
  bench.pass(1_000);
  const first = cluster.pick(null, true);
  cluster.update(update([{}, {}], { revision: 2, policy: policy({ outlierDetection: { enabled: false }, panicThreshold: 49 }) }));
  const second = cluster.pick(null, true);
  assert.ok(first && second);
  assert.deepEqual([first.address, second.address].sort(), [A, B]);
  assert.equal(cluster.pick(null, true), null, 'one request in flight each');
  assert.equal(cluster.noPick, 'BREAKER_OPEN');
  assert.equal(cluster.panic, true);
});

test('panic threshold 0 knows no early probes', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: policy({ outlierDetection: { enabled: false }, panicThreshold: 0 }) });
  send(cluster, 10, 503);
  for (let i = 0; i < 29; i++) {
    bench.pass(975);
    assert.equal(cluster.pick(null, true), null);
    assert.equal(cluster.noPick, 'BREAKER_OPEN');
  }
  bench.pass(1_000);
  assert.equal(cluster.pick(null, true)?.address, A);
});

test('a request that is not idempotent takes an early slot only without another candidate', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}, {}, {}], { policy: noOutlier });
  send(cluster, 10, 503, A);
  send(cluster, 10, 503, B);
  bench.pass(1_000);
  assert.deepEqual([...picks(cluster, 50, false)], [C]);
  send(cluster, 10, 503, C);
  bench.pass(1_000);
  assert.ok(cluster.pick(null, false) instanceof Probe);
});

test('an early probe that told nothing is offered again a second later, and the end of the window still comes', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noOutlier });
  send(cluster, 10, 503);
  bench.pass(1_000);
  const probe = cluster.pick(null, true);
  assert.ok(probe);
  cluster.end(probe, OUTCOME_IGNORED);
  assert.equal(cluster.pick(null, true), null);
  bench.pass(1_000);
  const again = cluster.pick(null, true);
  assert.ok(again);
  bench.pass(40_000);
  assert.equal(cluster.pick(null, true), null, 'it is still out');
  cluster.end(again, 503);
  bench.pass(1_000);
  const regular = cluster.pick(null, true);
  assert.ok(regular);
  cluster.end(regular, 200);
  assert.deepEqual([...picks(cluster)], [A]);
  assert.equal(bench.wheel.armed, 0);
});

test('an endpoint that leaves while its early probe is out and comes back is probed again', () => {
  const bench = new ClusterBench();
  const cluster = bench.cluster([{}], { policy: noOutlier });
  send(cluster, 10, 503);
  bench.pass(1_000);
  const probe = cluster.pick(null, true);
  assert.ok(probe);
  cluster.update(update([], { policy: noOutlier }));
  cluster.end(probe, 503);
  cluster.update(update([{}], { policy: noOutlier }));
  assert.equal(cluster.pick(null, true), null);
  bench.pass(1_000);
  assert.equal(cluster.pick(null, true)?.address, A);
});
