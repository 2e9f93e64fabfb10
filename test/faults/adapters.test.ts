// C11: an adapter that throws, hangs or floods harms nobody else: other sources converge as before, requests go on, and it is tried
// again with a back-off (reliability.md row 41). In process, so that a kind of the test's own can be loaded.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Type } from 'typebox';
import type { Capabilities } from '../../src/adapter/capabilities.ts';
import type { Adapter, AdapterFactory } from '../../src/adapter/contract.ts';
import { adapterLoader } from '../../src/app/loader.ts';
import { startApp } from '../../src/app.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { onBench, SERVICE, sleep } from './harness/bench.ts';
import { fakeEtcd } from './harness/etcd-registry.ts';
import { noneFailed } from './harness/validators.ts';

const CAPABILITIES: Capabilities = {
  watch: 'push',
  list: true,
  register: false,
  heartbeat: 'none',
  reads: new Set(),
  keeps: new Set(),
  tellsDeregistration: false,
  tellsAbsent: true,
};

type Mood = 'throws' | 'rejects' | 'throwsNull' | 'hangs' | 'floods' | 'ends' | 'lies';

const never = new Promise<never>(() => {});

/** One answer, if it can be called one. */
function snapshot(mood: Mood): Snapshot {
  const whole: Snapshot = { kind: 'present', epoch: 'e', sourceRevision: '1', instances: [], rejected: [] };
  // What no type allows and a broken SDK makes all the same.
  return mood === 'lies' ? JSON.parse('{"kind":"present","instances":null}') : whole;
}

/** An adapter in a bad mood; `calls` counts what was asked of it. */
function moody(mood: Mood, calls: { n: number }): Adapter {
  const misbehave = (): Promise<never> => {
    calls.n++;
    if (mood === 'throws') throw new TypeError('thrown in the middle of a call');
    if (mood === 'throwsNull') throw null;
    if (mood === 'rejects') return Promise.reject(new RangeError('not a SourceError'));
    return never;
  };
  async function* stream<T>(make: () => T): AsyncGenerator<T, void, void> {
    calls.n++;
    if (mood === 'ends') return;
    if (mood === 'lies') {
      yield make();
      await never;
    }
    if (mood === 'floods') for (;;) yield make();
    await misbehave();
  }
  return {
    kind: 'moody',
    capabilities: CAPABILITIES,
    services() {
      // Thrown by the call itself, before there is a stream.
      if (mood === 'throws') throw new TypeError('thrown by services()');
      return stream(() => ({ keys: [{ namespace: 'default', name: 'hello' }], failed: [], complete: true }));
    },
    watch: () => stream(() => snapshot(mood)),
    read: () => misbehave(),
    close: () => misbehave(),
  };
}

function factoryOf(calls: { n: number }): AdapterFactory {
  return {
    kind: 'moody',
    config: Type.Object({ mood: Type.String() }, { additionalProperties: false }),
    create: (config) => moody(Reflect.get(Object(config), 'mood'), calls),
  };
}

for (const mood of ['throws', 'throwsNull', 'rejects', 'ends', 'lies', 'hangs', 'floods'] as const) {
  it(`C11: an adapter that ${mood}: the other source converges, 0 failed, few calls, and weir still stops`, (t) =>
    onBench(async (bench) => {
      const upstreams = await bench.farm(2);
      const etcd = await fakeEtcd(bench);
      for (const { name, port } of upstreams) etcd.put(name, port);
      const configPath = bench.config(`sources:\n  - {id: sick, kind: moody, mood: ${mood}}\n${etcd.source()}`);
      const calls = { n: 0 };
      const known = adapterLoader();
      const factory = factoryOf(calls);
      const app = await startApp({
        configPath,
        logTo: bench.path('log'),
        loader: { kinds: [...known.kinds, 'moody'], load: async (kind) => (kind === 'moody' ? factory : known.load(kind)) },
      });
      let closed = false;
      bench.defer(() => (closed ? undefined : Promise.race([app.close(), sleep(2_000)])));
      const view = async (): Promise<{ instances: { port: number }[] }> => {
        const answer = await fetch(`${app.apiAddress}/v1/services/${SERVICE}`);
        return JSON.parse(await answer.text());
      };
      await eventually(async () => assert.equal((await view()).instances.length, 2));
      const load = bench.load({ proxyPort: Number(app.proxyAddress.split(':')[1]) }, { rate: 100 });
      const extra = await bench.upstream('extra');
      await sleep(1_000);
      const at = performance.now();
      etcd.put('extra', extra.port);
      await eventually(async () => assert.equal((await view()).instances.length, 3), 15_000);
      assertFigure(t, 'a change in the other registry is seen after', performance.now() - at, 2_000, 'ms');
      await sleep(1_500);
      noneFailed(await bench.finish(load));
      assert.ok(calls.n < 30, `${calls.n} calls in about three seconds`);
      const ended = app.close().then(() => true);
      closed = true;
      assert.equal(await Promise.race([ended, sleep(8_000).then(() => false)]), true, 'close() ends');
    }, 90_000));
}
