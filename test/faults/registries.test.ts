// Registries die, lose their data, talk rubbish or crawl while requests run: none fails and nothing that lives leaves the catalog
// (reliability.md A1, A4, A6, A7, A8, A12, A18; catalog-rules.md R1-R4). File and fake etcd; the real ones: registries.live.test.ts.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { type FaultBench, onBench, sleep } from './harness/bench.ts';
import { fakeEtcd } from './harness/etcd-registry.ts';
import { neverMissing, noneFailed, noOscillation, noPhantom, notRoutedAfter } from './harness/validators.ts';

/** Hold times short enough that "never by the passing of time" can be seen: 2 s instead of 5 min. */
const SHORT_HOLD = 'services: [{match: "*", hold: {max: 2s, secondRead: 1s}}]\n';

/** Two sources over the same three upstreams, and a weir that knows them. */
async function twoSources(bench: FaultBench, more = SHORT_HOLD) {
  const upstreams = await bench.farm(3);
  const etcd = await fakeEtcd(bench);
  for (const { name, port } of upstreams) etcd.put(name, port);
  const file = bench.services(upstreams);
  const config = bench.config(`sources:\n  - {id: fixed, kind: file, path: ${file}}\n${etcd.source()}${more}`);
  const weir = await bench.weir(config);
  await bench.ready(weir, 3);
  // Three instances show that one of them was read, not which.
  for (const id of ['etcd', 'fixed']) await eventually(async () => assert.equal((await weir.source(id)).state, 'live'));
  return { upstreams, etcd, weir, file, addresses: upstreams.map(({ address }) => address) };
}

/** One etcd over three upstreams. */
async function onlyEtcd(bench: FaultBench, more = SHORT_HOLD) {
  const upstreams = await bench.farm(3);
  const etcd = await fakeEtcd(bench);
  for (const { name, port } of upstreams) etcd.put(name, port);
  const weir = await bench.weir(bench.config(`sources:\n${etcd.source()}${more}`));
  await bench.ready(weir, 3);
  return { upstreams, etcd, weir, addresses: upstreams.map(({ address }) => address) };
}

describe('faults of registries', { concurrency: false }, () => {
  it('A1: every registry dies under load: 0 failed, reads go on, the age grows, nothing is removed', () =>
    onBench(async (bench) => {
      const { etcd, weir, file, addresses } = await twoSources(bench);
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      await sleep(500);
      await etcd.fake.down();
      await sleep(500);
      rmSync(file);
      await eventually(async () => assert.equal((await weir.source('fixed')).state, 'stale'), 30_000);
      await eventually(async () => assert.equal((await weir.source('etcd')).state, 'stale'), 30_000);
      const ages = [(await weir.source('etcd')).ageMs ?? 0];
      await sleep(3_000);
      ages.push((await weir.source('etcd')).ageMs ?? 0);
      assert.ok((ages[1] ?? 0) - (ages[0] ?? 0) > 2_500, `the age grows: ${ages.join(' ')}`);
      assert.equal((await weir.service('default/hello')).stale, true);
      noneFailed(await bench.finish(load));
      neverMissing(await reader.stop(), addresses);
      await etcd.fake.up();
      await eventually(async () => assert.equal((await weir.source('etcd')).state, 'live'), 30_000);
    }));

  it('A6: every registry comes back empty: held for longer than hold.max, 0 failed; converges once they register again', () =>
    onBench(async (bench) => {
      const { etcd, weir, upstreams, addresses } = await twoSources(bench);
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      await sleep(500);
      etcd.fake.wipe();
      bench.write('services.yaml', 'services: {}\n');
      await eventually(async () =>
        assert.equal((await weir.service('default/hello')).instances.filter(({ held }) => held).length, 3),
      );
      // hold.max is 2 s here: three times that passes and empties nothing, because the whole source was lost.
      await sleep(6_500);
      const held = await weir.service('default/hello');
      assert.deepEqual(
        held.instances.map((one) => [one.held, one.verdict]),
        held.instances.map(() => [true, 'healthy']),
      );
      for (const { name, port } of upstreams) etcd.put(name, port);
      await eventually(
        async () =>
          assert.equal(
            (await weir.service('default/hello')).instances.some(({ held: is }) => is),
            false,
          ),
        30_000,
      );
      noneFailed(await bench.finish(load));
      const reads = await reader.stop();
      neverMissing(reads, addresses);
      noPhantom(reads, new Set(addresses));
      noOscillation(reads, 0);
    }));

  it('A6: of a wiped registry only the instance that really died goes', () =>
    onBench(async (bench) => {
      const { etcd, weir, upstreams, addresses } = await onlyEtcd(bench);
      const [dead] = upstreams;
      assert.ok(dead !== undefined);
      const load = bench.load(weir, { posts: 0 });
      const reader = bench.watchCatalog(weir);
      await sleep(300);
      etcd.fake.wipe();
      await dead.kill();
      await eventually(
        async () => {
          const { instances } = await weir.service('default/hello');
          assert.deepEqual(
            instances.map(({ port }) => port).sort(),
            upstreams
              .slice(1)
              .map(({ port }) => port)
              .sort(),
          );
        },
        25_000,
        100,
      );
      await sleep(1_000);
      noneFailed(await bench.finish(load));
      neverMissing(await reader.stop(), addresses.slice(1));
    }));

  it('A7 A8: older data and a compaction behind a cut link: a new epoch, nothing missed, 0 failed', () =>
    onBench(async (bench) => {
      const { etcd, weir, upstreams, addresses } = await onlyEtcd(bench);
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      const image = etcd.fake.store.image();
      const extra = await bench.upstream('extra');
      for (let n = 0; n < 30; n++) etcd.put('extra', extra.port);
      await bench.ready(weir, 4);
      etcd.fake.restore(image);
      // Older data are lost data: what they do not know is held, whatever its number, until it registers again.
      await bench.held(weir, 1);
      etcd.put('extra', extra.port);
      await bench.held(weir, 0);
      await bench.ready(weir, 4);
      await etcd.link.refuse();
      etcd.remove('extra');
      for (let n = 0; n < 20; n++) etcd.put(upstreams[0]?.name ?? '', upstreams[0]?.port ?? 0);
      etcd.fake.store.compact(etcd.fake.store.revision);
      await etcd.link.accept();
      await bench.ready(weir, 3);
      const goneAt = performance.now();
      await sleep(1_000);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      notRoutedAfter(outcomes, extra.address, goneAt + 250);
      neverMissing(await reader.stop(), addresses);
    }));

  it('A12: broken records and a broken file under load: the record is dropped, the envelope refused, the old stays', () =>
    onBench(async (bench) => {
      const { etcd, weir, addresses } = await twoSources(bench);
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      const rubbish = [
        '{"Op":0,"Addr":"127.0.0.1:',
        'null',
        '[]',
        '{"Op":0,"Addr":"127.0.0.1:0"}',
        '{"Op":0,"Addr":"127.0.0.1:65536"}',
        '{"Op":0,"Addr":"0.0.0.0:80"}',
        '{"Op":0,"Addr":"127.1:80"}',
        '{"Op":0,"Addr":{"__proto__":1}}',
        `${'['.repeat(100_000)}`,
        Buffer.from([0xef, 0xbb, 0xbf, 0xff, 0xfe, 0x00]),
        'x'.repeat(1_000_000),
      ];
      for (const [n, value] of rubbish.entries()) etcd.putRaw(`bad${n}`, value);
      // A record that was good and turns bad keeps its last good form.
      etcd.putRaw('u0', '{"Op":0,');
      const texts = [
        'services: {default/hello: {instances: [{host: 127.0.0.1, port: 70000}]}}',
        'services: [',
        '\u0000\u0001',
        '- 1\n- 2',
        `services: ${'{a: '.repeat(500)}`,
      ];
      for (const text of texts) {
        bench.write('services.yaml', text);
        await eventually(async () => assert.equal((await weir.source('fixed')).state, 'stale'), 30_000);
      }
      assert.match((await weir.source('fixed')).cause ?? '', /malformed/);
      await sleep(1_000);
      assert.equal((await weir.source('etcd')).state, 'live', 'bad records do not make a list bad');
      noneFailed(await bench.finish(load));
      const reads = await reader.stop();
      neverMissing(reads, addresses);
      noPhantom(reads, new Set(addresses));
    }));

  it('A12: a peer that talks rubbish instead of etcd is a lost registry', () =>
    onBench(async (bench) => {
      const { etcd, weir, addresses } = await onlyEtcd(bench);
      const babbler = createServer((socket) => {
        socket.on('error', () => {});
        socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}{}{${'\u0000'.repeat(1_000)}`);
      });
      await new Promise<void>((resolve) => babbler.listen(0, '127.0.0.1', resolve));
      bench.defer(() => babbler.close());
      const address = babbler.address();
      assert.ok(address !== null && typeof address === 'object');
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      etcd.link.retarget(`127.0.0.1:${address.port}`);
      etcd.link.cut();
      await eventually(async () => assert.equal((await weir.source('etcd')).state, 'stale'));
      await sleep(4_000);
      etcd.link.retarget(etcd.fake.endpoint);
      await eventually(async () => assert.equal((await weir.source('etcd')).state, 'live'), 20_000);
      noneFailed(await bench.finish(load));
      neverMissing(await reader.stop(), addresses);
    }));

  it('A4 A18: a slow, jittery, sliced link: changes arrive, 0 failed, no oscillation', () =>
    onBench(async (bench) => {
      const { etcd, weir, addresses } = await onlyEtcd(bench);
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      Object.assign(etcd.link.link, { delayMs: 200, jitterMs: 100, sliceBytes: 100 });
      const extra = await bench.upstream('extra');
      await sleep(500);
      etcd.put('extra', extra.port);
      await bench.ready(weir, 4);
      etcd.link.cut();
      await sleep(1_000);
      etcd.remove('extra');
      await bench.ready(weir, 3);
      // One byte now and then: an idle timer would never notice, a deadline does.
      Object.assign(etcd.link.link, { delayMs: 0, jitterMs: 0, sliceBytes: 1, bytesPerSecond: 1 });
      etcd.link.cut();
      await eventually(async () => assert.equal((await weir.source('etcd')).state, 'stale'), 30_000);
      await sleep(2_000);
      noneFailed(await bench.finish(load));
      const reads = await reader.stop();
      neverMissing(reads, addresses);
      noOscillation(reads, 2);
    }));

  it('S8: one of ten deregisters: no new request to it after 1 s, 0 failed', () =>
    onBench(async (bench) => {
      const upstreams = await bench.farm(2);
      const etcd = await fakeEtcd(bench);
      for (let n = 0; n < 9; n++) etcd.put(`a${n}`, upstreams[0]?.port ?? 0);
      const more = await Promise.all(Array.from({ length: 8 }, (_, n) => bench.upstream(`m${n}`)));
      const all = [...upstreams, ...more];
      for (let n = 0; n < 9; n++) etcd.remove(`a${n}`);
      for (const { name, port } of all) etcd.put(name, port);
      const weir = await bench.weir(bench.config(`sources:\n${etcd.source()}`));
      await bench.ready(weir, 10);
      const load = bench.load(weir, { rate: 300 });
      await sleep(1_000);
      const [gone] = upstreams;
      assert.ok(gone !== undefined);
      const at = performance.now();
      etcd.remove(gone.name);
      await sleep(2_000);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      assert.ok(outcomes.some(({ upstream }) => upstream === gone.address));
      notRoutedAfter(outcomes, gone.address, at + 1_000);
    }));
});
