// The faults of registries.test.ts on real etcd servers (3.4 and 3.6), through the whole sidecar under load: killed, frozen, cut off
// half-open, wiped, restored to older data, compacted (reliability.md A1-A3, A6-A8; rows 1, 5, 6, 11).
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { itPerVersion, Raw } from '../live/etcd-support.ts';
import type { EtcdVersion } from '../registries/etcd.ts';
import { startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { type FaultBench, onBench, SERVICE, sleep } from './harness/bench.ts';
import { etcdSource, grpcValue } from './harness/etcd-registry.ts';
import { neverMissing, noneFailed, noOscillation, noPhantom, notRoutedAfter } from './harness/validators.ts';

const SHORT_HOLD = 'services: [{match: "*", hold: {max: 2s, secondRead: 1s}}]\n';

/** A real etcd behind a breakable link, three upstreams registered, a weir that knows them, load and reader running. */
async function world(bench: FaultBench, version: EtcdVersion) {
  const server = await startEtcd({ version });
  bench.defer(() => server.stop());
  const link = await startFaultProxy(server.endpoint, bench.seed);
  bench.defer(() => link.close());
  const raw = new Raw(server.endpoint);
  bench.defer(() => raw.close());
  const upstreams = await bench.farm(3);
  const put = (id: string, port: number): Promise<bigint> => raw.put('hello', id, grpcValue(port));
  const registerAll = async (): Promise<void> => {
    // A server that has just come back may refuse the first call.
    for (const { name, port } of upstreams) await eventually(() => put(name, port), 10_000, 100);
  };
  await registerAll();
  const weir = await bench.weir(bench.config(`sources:\n${etcdSource(link.endpoint)}${SHORT_HOLD}`));
  await bench.ready(weir, 3);
  const load = bench.load(weir, { rate: 150 });
  const reader = bench.watchCatalog(weir);
  return {
    server,
    link,
    raw,
    put,
    registerAll,
    upstreams,
    weir,
    addresses: upstreams.map(({ address }) => address),
    stateIs: (state: string, withinMs: number) =>
      eventually(async () => assert.equal((await weir.source('etcd')).state, state), withinMs, 50),
    held: (n: number, withinMs = 8_000) =>
      eventually(
        async () => assert.equal((await weir.service(SERVICE)).instances.filter(({ held }) => held).length, n),
        withinMs,
        50,
      ),
    /** Ends load and reader: nothing failed, and none of the living was ever missing. */
    async judge(maxChanges: number) {
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      const reads = await reader.stop();
      neverMissing(
        reads,
        upstreams.map(({ address }) => address),
      );
      noOscillation(reads, maxChanges);
      return { outcomes, reads };
    },
  };
}

describe('faults of real etcd servers under load', { concurrency: false }, () => {
  itPerVersion('A1: kill -9 for a while: 0 failed, stale with growing age, live again after the restart', 120_000, (version) =>
    onBench(async (bench) => {
      const w = await world(bench, version);
      await w.server.kill('SIGKILL');
      await w.stateIs('stale', 5_000);
      const age = (await w.weir.source('etcd')).ageMs ?? 0;
      await sleep(4_000);
      assert.ok(((await w.weir.source('etcd')).ageMs ?? 0) >= age + 3_500);
      await w.server.restart();
      await w.stateIs('live', 10_000);
      await w.judge(0);
    }),
  );

  itPerVersion('A2: frozen by SIGSTOP: noticed, 0 failed, no event lost or doubled after SIGCONT', 120_000, (version) =>
    onBench(async (bench) => {
      const w = await world(bench, version);
      const extra = await bench.upstream('extra');
      await w.server.kill('SIGSTOP');
      await w.stateIs('stale', 30_000);
      await sleep(2_000);
      await w.server.kill('SIGCONT');
      await eventually(() => w.put('extra', extra.port), 10_000, 100);
      await bench.ready(w.weir, 4);
      await w.judge(1);
    }),
  );

  itPerVersion('A3: a half-open watch is noticed within 30 s, and what happened meanwhile is seen', 120_000, (version) =>
    onBench(async (bench) => {
      const w = await world(bench, version);
      const extra = await bench.upstream('extra');
      const cutAt = performance.now();
      w.link.halfOpen();
      await w.put('extra', extra.port);
      await eventually(async () => assert.equal((await w.weir.service(SERVICE)).instances.length, 4), 35_000, 50);
      assert.ok(performance.now() - cutAt <= 35_000);
      await w.judge(1);
    }),
  );

  itPerVersion(
    'A6: wiped and restarted empty: held past hold.max, 0 removed; converges once they register again',
    120_000,
    (version) =>
      onBench(async (bench) => {
        const w = await world(bench, version);
        await w.server.wipe();
        await w.held(3, 15_000);
        await sleep(6_000);
        await w.held(3);
        await w.registerAll();
        await w.held(0);
        const { reads } = await w.judge(0);
        noPhantom(reads, new Set(w.addresses));
      }),
  );

  itPerVersion('A7: restored to older data: a new epoch, later events are heard, 0 failed', 120_000, (version) =>
    onBench(async (bench) => {
      const w = await world(bench, version);
      await w.server.snapshotData();
      await w.stateIs('live', 10_000);
      const extra = await bench.upstream('extra');
      for (let n = 0; n < 30; n++) await eventually(() => w.put('extra', extra.port), 5_000, 50);
      await bench.ready(w.weir, 4);
      await w.server.restoreData();
      // Older data are lost data: what they do not know is held until it registers again.
      await w.held(1, 15_000);
      await eventually(() => w.put('extra', extra.port), 10_000, 100);
      await w.held(0);
      await bench.ready(w.weir, 4);
      const { reads } = await w.judge(1);
      noPhantom(reads, new Set([...w.addresses, extra.address]));
    }),
  );

  itPerVersion('A8: compacted behind a cut link: deletes in the gap are seen, 0 failed', 120_000, (version) =>
    onBench(async (bench) => {
      const w = await world(bench, version);
      const extra = await bench.upstream('extra');
      await w.put('extra', extra.port);
      await bench.ready(w.weir, 4);
      await w.link.refuse();
      await w.raw.remove('hello', 'extra');
      for (let n = 0; n < 50; n++) await w.put('u0', w.upstreams[0]?.port ?? 0);
      await w.raw.compact(await w.raw.revision());
      await w.link.accept();
      await eventually(async () => assert.equal((await w.weir.service(SERVICE)).instances.length, 3), 10_000, 50);
      const goneAt = performance.now();
      await sleep(1_000);
      const { outcomes } = await w.judge(2);
      notRoutedAfter(outcomes, extra.address, goneAt + 250);
    }),
  );
});
