import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterBench, picks, policy, send, update } from '../../test/support/fake-cluster.ts';
import { MAX_ABSENT_NAMES } from './absent-names.ts';
import { Cluster } from './cluster.ts';
import { ClusterSet, type FirstUseAnswer } from './cluster-set.ts';
import type { ClusterMessage } from './cluster-update.ts';
import { MAX_PENDING_NAMES } from './first-uses.ts';

class SetBench extends ClusterBench {
  readonly asked: string[] = [];
  /** Answers first uses within the call, where set. */
  answer: ((service: string) => ClusterMessage) | null = null;
  readonly set: ClusterSet = new ClusterSet(this.deps, {
    firstUse: (service) => {
      this.asked.push(service);
      if (this.answer !== null) this.set.apply(this.answer(service));
    },
  });

  absent(service: string, why: 'unknown' | 'notReady'): void {
    this.set.apply({ kind: 'absent', service, why });
  }
}

const WEB = 'default/web';

test('a known service is a cluster at its first use, and the same one ever after', () => {
  const bench = new SetBench();
  bench.set.apply(update([{}]));
  const cluster = bench.set.lookup(WEB);
  assert.ok(cluster instanceof Cluster);
  assert.equal(bench.set.get(WEB), cluster);
  bench.set.apply(update([{}, {}], { revision: 2 }));
  assert.equal(bench.set.get(WEB), cluster);
  assert.equal(picks(cluster).size, 2);
  assert.deepEqual(bench.asked, [], 'nobody had to be asked');
});

test('services of which nobody asked cost no cluster, no timer and no series', () => {
  const bench = new SetBench();
  for (let i = 0; i < 1_000; i++) bench.set.apply(update([{}, {}], { service: `default/s${i}` }));
  assert.deepEqual(bench.set.counts, { services: 1_000, used: 0 });
  assert.ok(bench.set.get('default/s7'));
  assert.deepEqual(bench.set.counts, { services: 1_000, used: 1 });
  assert.equal(bench.wheel.armed, 0);
  assert.equal(bench.metrics.size, 0);
});

test('an unknown name is asked for once while the answer is out', () => {
  const bench = new SetBench();
  assert.equal(bench.set.lookup('a/b'), 'pending');
  assert.equal(bench.set.lookup('a/b'), 'pending');
  assert.equal(bench.set.get('a/b'), undefined);
  assert.deepEqual(bench.asked, ['a/b']);
});

test('an answer within the first use is the answer of the lookup', () => {
  const bench = new SetBench();
  bench.answer = (service) => update([{}], { service });
  assert.ok(bench.set.lookup('a/b') instanceof Cluster);
  bench.answer = (service) => ({ kind: 'absent', service, why: 'unknown' });
  assert.equal(bench.set.lookup('a/c'), 'unknown');
  assert.equal(bench.wheel.armed, 0, 'no first use is out');
});

test('unknown counts for 30 s, notReady for one, then the name is asked again', () => {
  for (const [why, ms] of [
    ['unknown', 30_000],
    ['notReady', 1_000],
  ] as const) {
    const bench = new SetBench();
    bench.answer = (service) => ({ kind: 'absent', service, why });
    assert.equal(bench.set.lookup('a/b'), why);
    bench.clock.advanceSync(ms - 1);
    assert.equal(bench.set.lookup('a/b'), why);
    assert.equal(bench.asked.length, 1, why);
    bench.clock.advanceSync(1);
    assert.equal(bench.set.lookup('a/b'), why);
    assert.equal(bench.asked.length, 2, why);
  }
});

test('a name that was unknown is a service as soon as its update comes', () => {
  const bench = new SetBench();
  bench.absent('a/b', 'unknown');
  assert.equal(bench.set.lookup('a/b'), 'unknown');
  bench.set.apply(update([{}], { service: 'a/b' }));
  assert.ok(bench.set.lookup('a/b') instanceof Cluster);
});

test('requests that wait for a first use get the cluster, or the word, when it comes', () => {
  const bench = new SetBench();
  const got: FirstUseAnswer[] = [];
  bench.set.wait('a/b', (answer) => got.push(answer));
  bench.set.wait('a/b', (answer) => got.push(answer));
  bench.set.wait('a/c', (answer) => got.push(answer));
  assert.deepEqual(got, []);
  bench.set.apply(update([{}], { service: 'a/b' }));
  assert.equal(got.length, 2);
  assert.equal(got[0], bench.set.get('a/b'));
  bench.absent('a/c', 'unknown');
  assert.equal(got[2], 'unknown');
  bench.pass(2_000);
  assert.equal(got.length, 3, 'each is called once');
  assert.equal(bench.wheel.armed, 0);
});

test('who waits longer than a second gets notReady, and the next use asks again', () => {
  const bench = new SetBench();
  const got: FirstUseAnswer[] = [];
  bench.set.wait('a/b', (answer) => got.push(answer));
  bench.clock.advanceSync(999);
  assert.deepEqual(got, []);
  bench.pass(20);
  assert.deepEqual(got, ['notReady']);
  bench.set.lookup('a/b');
  assert.deepEqual(bench.asked, ['a/b', 'a/b']);
});

test('a cancelled wait is not called', () => {
  const bench = new SetBench();
  let called = false;
  const cancel = bench.set.wait('a/b', () => {
    called = true;
  });
  cancel();
  bench.absent('a/b', 'unknown');
  assert.equal(called, false);
});

test('a wait for a name that is known is answered at once', () => {
  const bench = new SetBench();
  bench.set.apply(update([{}]));
  const got: FirstUseAnswer[] = [];
  bench.set.wait(WEB, (answer) => got.push(answer));
  assert.deepEqual(got, [bench.set.get(WEB)]);
});

test('names of clients never make more than a bounded number of entries', () => {
  const bench = new SetBench();
  for (let i = 0; i < MAX_PENDING_NAMES; i++) assert.equal(bench.set.lookup(`a/p${i}`), 'pending');
  assert.equal(bench.set.lookup('a/more'), 'notReady');
  assert.equal(bench.asked.length, MAX_PENDING_NAMES);
  for (let i = 0; i < MAX_ABSENT_NAMES + 5; i++) bench.absent(`a/p${i}`, 'unknown');
  assert.equal(bench.set.lookup('a/p4'), 'pending', 'the oldest answers are forgotten');
  assert.equal(bench.set.lookup(`a/p${MAX_ABSENT_NAMES + 4}`), 'unknown');
});

test('names like __proto__ and constructor are plain names', () => {
  const bench = new SetBench();
  for (const service of ['__proto__/constructor', 'constructor', '__proto__']) {
    assert.equal(bench.set.lookup(service), 'pending');
    bench.set.apply(update([{}], { service }));
    assert.ok(bench.set.lookup(service) instanceof Cluster);
  }
});

test('a service that goes away drains, loses its series and is the word that came', () => {
  const bench = new SetBench();
  bench.set.apply(update([{}, {}]));
  const cluster = bench.set.get(WEB);
  assert.ok(cluster);
  const picked = cluster.pick(null, true);
  assert.ok(picked?.pool);
  // The endpoint without an attempt in flight is the one that least request takes.
  send(cluster, 5, 503);
  assert.ok(bench.metrics.size > 0);
  bench.absent(WEB, 'unknown');
  assert.equal(bench.set.lookup(WEB), 'unknown');
  assert.equal(bench.set.states(WEB), null);
  assert.equal(bench.metrics.size, 0);
  assert.equal(cluster.pick(null, true), null);
  cluster.end(picked, 200);
  assert.equal(bench.pools[0]?.drained, 1);
  bench.pass(600_000);
  assert.equal(bench.wheel.armed, 0, 'ten minutes later nothing is left');
});

test('a service that flaps within ten minutes comes back with what was learnt', () => {
  const bench = new SetBench();
  const stubborn = policy({ outlierDetection: { baseEjectionTime: 3_600_000, maxEjectionTime: 3_600_000 } });
  bench.set.apply(update([{}, {}, {}], { policy: stubborn }));
  const cluster = bench.set.get(WEB);
  assert.ok(cluster);
  send(cluster, 5, 503, '10.0.0.1:80');
  bench.absent(WEB, 'notReady');
  bench.pass(300_000);
  bench.set.apply(update([{}, {}, {}], { policy: stubborn }));
  assert.equal(bench.set.get(WEB), cluster);
  assert.deepEqual([...picks(cluster)].sort(), ['10.0.0.2:80', '10.0.0.3:80']);
  bench.absent(WEB, 'notReady');
  bench.pass(400_000);
  bench.set.apply(update([{}, {}, {}], { policy: stubborn }));
  assert.equal(bench.set.get(WEB), cluster, 'the ten minutes of the first absence were called off');
});

test('the state of an unused service is shown without using it', () => {
  const bench = new SetBench();
  bench.set.apply(update([{ host: '::1' }, { verdict: 'unhealthy' }], { revision: 9 }));
  const state = bench.set.states(WEB);
  assert.equal(state?.revision, 9);
  assert.equal(state?.lastPickAgeMs, null);
  assert.deepEqual(
    state?.endpoints.map((endpoint) => endpoint.share),
    [1, 0],
  );
  assert.equal(bench.set.counts.used, 0);
  assert.equal(bench.set.states('a/none'), null);
  assert.deepEqual(bench.asked, []);
});

test('services with traffic in the time asked for are listed, others are not', () => {
  const bench = new SetBench();
  for (const service of ['a/old', 'a/new', 'a/idle', 'a/busy']) bench.set.apply(update([{}], { service }));
  bench.set.get('a/idle');
  bench.set.get('a/old')?.pick(null, true);
  bench.set.get('a/busy')?.pick(null, true);
  bench.set.get('a/busy')?.startRequest();
  bench.pass(60_000);
  bench.set.get('a/new')?.pick(null, true);
  assert.deepEqual(bench.set.activeServices(60_000).sort(), ['a/busy', 'a/new']);
});

test('gauges are brought up to date by a scrape', () => {
  const bench = new SetBench();
  bench.set.apply(update([{ verdict: 'unhealthy' }]));
  const cluster = bench.set.get(WEB);
  assert.ok(cluster);
  picks(cluster);
  assert.match([...bench.metrics.render()].join(''), /weir_lb_panic\{service="default\/web"\} 1/);
  bench.set.apply(update([{}]));
  assert.match([...bench.metrics.render()].join(''), /weir_lb_panic\{service="default\/web"\} 0/);
});

test('the close answers who waits, leaves no timer and no series, and takes no more messages', () => {
  const bench = new SetBench();
  bench.set.apply(update([{}, {}]));
  bench.set.apply(update([{}], { service: 'a/gone' }));
  const cluster = bench.set.get(WEB);
  assert.ok(cluster);
  bench.set.get('a/gone');
  bench.absent('a/gone', 'unknown');
  send(cluster, 5, 503, '10.0.0.1:80');
  const got: FirstUseAnswer[] = [];
  bench.set.wait('a/b', (answer) => got.push(answer));
  bench.set.close();
  assert.deepEqual(got, ['notReady']);
  assert.equal(bench.wheel.armed, 0);
  assert.equal(bench.metrics.size, 0);
  bench.set.apply(update([{}]));
  assert.equal(bench.set.lookup(WEB), 'notReady');
});
