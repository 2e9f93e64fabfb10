// Writes on the fake server: what a receipt is, beats one by one and in batches, what was forgotten, isolation, health, aliases.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Adapter, SourceOptions, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../../test/conformance/adapter.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakePolaris, startFakePolaris } from './fake.ts';
import { factory } from './index.ts';
import { testDeps } from './test-support.ts';
import { ttlSeconds } from './writer.ts';

const KEY = { namespace: 'default', name: 'svc' };
const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
const never = (): AbortSignal => new AbortController().signal;

interface Rig {
  readonly fake: FakePolaris;
  readonly clock: FakeClock;
  readonly counts: Map<string, number>;
  readonly adapter: Adapter;
  put(instance: Instance, how?: WriteMode, previous?: WriteReceipt, key?: ServiceKey): Promise<WriteReceipt>;
  /** What a fresh read shows, once the server's cache is up to date. */
  shown(key?: ServiceKey): Promise<readonly Instance[]>;
}

async function rig(body: (r: Rig) => Promise<void>, config: object = {}, options: Partial<SourceOptions> = {}): Promise<void> {
  const clock = new FakeClock();
  const fake = await startFakePolaris(clock);
  const counts = new Map<string, number>();
  const all = { auth: {}, tls: null, timeout: 5_000, normalWeight: null, ...options };
  const adapter = factory.create({ servers: [fake.grpc, `http://${fake.http}`], ...config }, all, testDeps(clock, [], counts));
  try {
    await body({
      fake,
      clock,
      counts,
      adapter,
      async put(instance, how = OWN, previous, key = KEY) {
        const write = { key, instance, ...(previous === undefined ? {} : { previous }) };
        const [receipt] = (await adapter.put?.([write], how, never())) ?? [];
        if (receipt === undefined || receipt instanceof Error) throw receipt ?? new Error('no answer');
        return receipt;
      },
      async shown(key = KEY) {
        fake.store.refresh();
        const snapshot = await adapter.read(key, never());
        return snapshot.kind === 'present' ? snapshot.instances : [];
      },
    });
  } finally {
    await adapter.close();
    await fake.close();
  }
}

// Reads go to "another server": the HTTP one in the list, which has the same store.
describe('polaris writer', () => {
  it('the id is the one the server makes of namespace, service, host and port; the receipt carries a third of the ttl', () =>
    rig(async (r) => {
      const instance = sampleInstance(1, { host: '127.0.0.1', port: 8080 });
      const demo = { namespace: 'default', name: 'demo' };
      const receipt = await r.put(instance, OWN, undefined, demo);
      assert.deepEqual(receipt, { service: demo, nativeId: 'dfe2274c0de8f3bd1daea5a455f6ccf3f024febd', leaseId: '5' });
      assert.deepEqual([5_000, 15_000, 60_000, 600_000, 1].map(ttlSeconds), [2, 5, 20, 60, 1]);
      assert.equal((await r.put(instance, { ...OWN, liveness: 'persistent' })).leaseId, undefined);
      await assert.rejects(r.put(instance, { ...OWN, liveness: 'connection' }), /cannot tie a record to a connection/);
    }));

  it('a record without beats turns unhealthy after three times its ttl, and stays; beats keep it healthy', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1));
      for (let n = 0; n < 6; n++) {
        await r.clock.advance(5_000);
        assert.deepEqual(await r.adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
      }
      assert.equal((await r.shown())[0]?.health, 'healthy');
      await r.clock.advance(17_000);
      assert.equal((await r.shown())[0]?.health, 'unhealthy');
    }));

  it('what the server forgot is told at the next renewal, and registering again brings it back under the same id', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1));
      await r.clock.advance(6_000);
      assert.deepEqual(await r.adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
      r.fake.store.wipe();
      assert.deepEqual(await r.adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
      assert.equal(r.counts.get('registrations.forgotten'), 1);
      const again = await r.put(sampleInstance(1), OWN, receipt);
      assert.equal(again.nativeId, receipt.nativeId);
    }));

  it('a new registration that the server does not show yet is not forgotten', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1));
      // Seven beats at once: from the fifth on the server calls it unknown.
      for (let n = 0; n < 7; n++) {
        assert.deepEqual(await r.adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
      }
    }));

  it('a receipt of an earlier life of ours is checked, too', () =>
    rig(async (r) => {
      const receipt = { service: KEY, nativeId: 'a'.repeat(40), leaseId: '5' };
      assert.deepEqual(await r.adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    }));

  it('many registrations are beaten by one message; where the server lacks that, one by one', () =>
    rig(async (r) => {
      const receipts: WriteReceipt[] = [];
      for (let n = 1; n <= 40; n++) receipts.push(await r.put(sampleInstance(n)));
      await r.clock.advance(6_000);
      const beats = (): number => r.fake.log.filter(({ call }) => call === 'Heartbeat').length;
      assert.ok((await r.adapter.renew?.(receipts, never()))?.every((one) => !(one instanceof Error) && one.kind === 'renewed'));
      assert.deepEqual(
        r.fake.batches.map(({ length }) => length),
        [40],
      );
      assert.equal(beats(), 0);
      r.fake.noBatch = true;
      assert.ok((await r.adapter.renew?.(receipts, never()))?.every((one) => !(one instanceof Error) && one.kind === 'renewed'));
      assert.equal(beats(), 40);
      r.fake.noBatch = false;
      r.fake.store.wipe();
      assert.ok(
        (await r.adapter.renew?.(receipts, never()))?.every((one) => !(one instanceof Error) && one.kind === 'forgotten'),
      );
    }));

  it('an operator who isolates in Polaris keeps the last word over registrations of ours; our own isolation is undone by us', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1));
      r.fake.store.change('default', 'svc', receipt.nativeId, { isolate: { value: true } });
      await r.put(sampleInstance(1), OWN, receipt);
      assert.equal((await r.shown())[0]?.isolated, true);
      const ours = await r.put(sampleInstance(2, { isolated: true }));
      assert.equal(ours.token, 'isolated');
      const freed = await r.put(sampleInstance(2), OWN, ours);
      assert.equal(freed.token, undefined);
      assert.deepEqual((await r.shown()).map(({ port, isolated }) => [port, isolated]).sort(), [
        [8_001, true],
        [8_002, false],
      ]);
      // A copy follows its origin, whatever was set here.
      await r.put(sampleInstance(1), { ...OWN, as: 'copy' });
      assert.ok((await r.shown()).every(({ isolated }) => !isolated));
    }));

  it('a record that is to be unhealthy stays so although it is renewed, and turns healthy when that is said', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1, { health: 'unhealthy' }));
      for (let n = 0; n < 4; n++) {
        await r.clock.advance(5_000);
        assert.deepEqual(await r.adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
        assert.equal((await r.shown())[0]?.health, 'unhealthy');
      }
      await r.adapter.setHealth?.(receipt, 'healthy', never());
      assert.equal((await r.shown())[0]?.health, 'healthy');
      await r.clock.advance(20_000);
      assert.equal((await r.shown())[0]?.health, 'unhealthy', 'the health check is on again');
    }));

  it('health can be set after a restart of ours, from what the server shows', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1, { metadata: new Map([['k', 'v']]), version: '7' }));
      r.fake.store.refresh();
      const servers = [r.fake.grpc];
      const second = factory.create({ servers }, { auth: {}, tls: null, timeout: 5_000, normalWeight: null }, testDeps(r.clock));
      await second.setHealth?.(receipt, 'unhealthy', never());
      const [seen] = await r.shown();
      assert.deepEqual([seen?.health, seen?.version, seen?.metadata.get('k')], ['unhealthy', '7', 'v']);
      await assert.rejects(
        second.setHealth?.({ ...receipt, nativeId: 'gone' }, 'healthy', never()) ?? Promise.resolve(),
        /does not show/,
      );
      await second.close();
    }));

  it('a record that moves leaves nothing at its old address', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1));
      await r.put(sampleInstance(2), OWN, receipt);
      assert.deepEqual(
        (await r.shown()).map(({ port }) => port),
        [8_002],
      );
    }));

  it('the same id twice in one batch of the server is written again', () =>
    rig(async (r) => {
      let refused = 0;
      r.fake.writeCode = (name) => (name === 'RegisterInstance' && refused++ < 2 ? 400_208 : null);
      assert.match((await r.put(sampleInstance(1))).nativeId, /^[0-9a-f]{40}$/);
      assert.equal(refused, 3);
    }));

  it('a register under an alias goes to the real service', () =>
    rig(async (r) => {
      r.fake.store.createService('default', 'real');
      r.fake.store.alias('default', 'nick', { namespace: 'default', name: 'real' });
      r.fake.store.refresh();
      const key = { namespace: 'default', name: 'nick' };
      const receipt = await r.put(sampleInstance(1), OWN, undefined, key);
      assert.deepEqual(receipt.service, key);
      assert.equal((await r.shown({ namespace: 'default', name: 'real' })).length, 1);
      assert.deepEqual(await r.adapter.remove?.([receipt], {}, never()), [true]);
      assert.equal((await r.shown(key)).length, 0);
    }));

  it('an alias is made through the console, twice is fine, and a taken name is refused', () =>
    rig(
      async (r) => {
        r.fake.store.createService('default', 'svc');
        r.fake.store.createService('default', 'other');
        await r.adapter.alias?.(KEY, '1001:77', never());
        await r.adapter.alias?.(KEY, '1001:77', never());
        await assert.rejects(
          r.adapter.alias?.({ ...KEY, name: 'other' }, '1001:77', never()) ?? Promise.resolve(),
          (thrown) => thrown instanceof SourceError && thrown.causeKind === 'refused',
        );
        await assert.rejects(r.adapter.alias?.(KEY, 'other', never()) ?? Promise.resolve(), /refused/);
      },
      {},
      { auth: { token: 'fake-token' } },
    ));

  it('an alias without a console address says which key is missing', () =>
    rig(async (r) => {
      const servers = [r.fake.grpc];
      const bare = factory.create({ servers }, { auth: {}, tls: null, timeout: 5_000, normalWeight: null }, testDeps(r.clock));
      await assert.rejects(bare.alias?.(KEY, 'x', never()) ?? Promise.resolve(), /add its http:\/\/host:8090 to servers/);
      await bare.close();
    }));

  it('tells which services may not be written, and changes nothing by asking', () =>
    rig(async (r) => {
      const receipt = await r.put(sampleInstance(1));
      const before = r.fake.store.image();
      const other = { ...KEY, name: 'theirs' };
      r.fake.forbidden.add('theirs');
      const faults = (await r.adapter.mayWrite?.([KEY, other, { ...KEY, name: 'nobodys' }], never())) ?? [];
      assert.deepEqual(
        faults.map(({ causeKind }) => causeKind),
        ['denied'],
      );
      assert.match(faults[0]?.message ?? '', /default\/theirs may not be written: .*READ_WRITE/);
      assert.deepEqual(r.fake.store.image(), before);
      assert.deepEqual(
        (await r.shown()).map(({ id }) => id),
        [receipt.nativeId],
      );
      r.fake.forbidden.clear();
      for (let n = 0; n < 40; n++) r.fake.forbidden.add(`f${n}`);
      const many = Array.from({ length: 40 }, (_, n) => ({ ...KEY, name: `f${n}` }));
      assert.equal((await r.adapter.mayWrite?.(many, never()))?.length, 8, 'a few are named');
      await r.fake.close();
      await assert.rejects(r.adapter.mayWrite?.([KEY], never()) ?? assert.fail(), { causeKind: 'lost' });
    }));

  it('refusals come back in the place of their write, in words, without the token', () =>
    rig(
      async (r) => {
        r.fake.auth = 'strict';
        const good = { key: KEY, instance: sampleInstance(1) };
        const bad = { key: { ...KEY, name: 'a b' }, instance: sampleInstance(2) };
        const results = (await r.adapter.put?.([good, bad], OWN, never())) ?? [];
        const [denied, refused] = results;
        assert.ok(denied instanceof SourceError && denied.causeKind === 'denied');
        assert.match(denied.message, /auth\.token/);
        assert.ok(!denied.message.includes('wrong-token'));
        assert.ok(refused instanceof SourceError && refused.causeKind === 'refused');
        const removed = await r.adapter.remove?.([{ service: KEY, nativeId: 'x' }], {}, never());
        assert.ok(removed?.[0] instanceof SourceError);
      },
      {},
      { auth: { token: 'wrong-token' } },
    ));
});
