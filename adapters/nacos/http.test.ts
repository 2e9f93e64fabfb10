// The rules of HTTP, against the fake of 1.x: protection that is not told, unknown against empty, the pace of polls, beats, upgrades.
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { Snapshot, Unchanged } from '../../src/model/snapshot.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startFakeNacos } from './fake.ts';
import { makeAdapter } from './fake-support.ts';
import { identityOf } from './http-writer.ts';
import { Pace } from './poller.ts';

const KEY = { namespace: 'default', name: 'web' };
const ID = 'public@@DEFAULT_GROUP@@web';

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function rig(version: '1.4.6' | '2.5.1' | '3.0.3' = '1.4.6', config: object = {}) {
  const clock = new FakeClock();
  const fake = await startFakeNacos(version, clock);
  ends.push(() => fake.close());
  const made = makeAdapter({ ...fake.config, ...config }, { clock });
  ends.push(() => made.adapter.close());
  const items: (Snapshot | Unchanged)[] = [];
  const failures: unknown[] = [];
  const stop = new AbortController();
  ends.push(async () => stop.abort());
  const watch = async (): Promise<void> => {
    try {
      for await (const item of made.adapter.watch(KEY, stop.signal)) items.push(item);
    } catch (thrown) {
      failures.push(thrown);
    }
  };
  const until = (what: string, claim: () => boolean, stepMs = 50): Promise<unknown> =>
    eventually(async () => {
      if (claim()) return true;
      await clock.advance(stepMs);
      if (claim()) return true;
      throw new Error(`not seen: ${what}`);
    }, 30_000);
  return { ...made, clock, fake, items, failures, watch, until };
}

function host(n: number, healthy = true) {
  return {
    ip: `192.0.2.${n}`,
    port: 80,
    weight: 1,
    healthy,
    enabled: true,
    ephemeral: true,
    clusterName: 'DEFAULT',
    metadata: {},
  };
}

function never(): AbortSignal {
  return new AbortController().signal;
}

describe('Nacos 1.x over HTTP', () => {
  it('is found by its version when gRPC is refused, and its capabilities change', async () => {
    const { adapter, watch, items, until } = await rig();
    assert.equal(adapter.capabilities.heartbeat, 'server');
    void watch();
    await until('an item', () => items.length > 0);
    assert.equal(adapter.capabilities.heartbeat, 'core');
    assert.equal(adapter.capabilities.reads.has('health'), false);
  });

  it('an unknown service has no lastRefTime and is absent, a known empty one is present', async () => {
    const { adapter, fake } = await rig();
    assert.equal((await adapter.read(KEY, never())).kind, 'absent');
    fake.store.touch(ID);
    assert.equal((await adapter.read(KEY, never())).kind, 'present');
  });

  it('every service is protected without a word: health is unknown to a watch, true to a read of the whole list', async () => {
    const { adapter, fake, watch, items, until } = await rig();
    fake.store.publish(ID, 'raw', [host(1, false)]);
    void watch();
    await until('an item', () => items.length > 0);
    const first = items[0];
    assert.ok(first?.kind === 'present' && first.instances.every(({ health }) => health === 'unknown'));
    const truth = await adapter.read(KEY, never());
    assert.ok(truth.kind === 'present' && truth.instances.every(({ health }) => health === 'unhealthy'));
  });

  it('a poll comes every 3 s, what is the same is unchanged, and an older list is dropped', async () => {
    const { fake, watch, items, until, clock, counts } = await rig();
    fake.store.publish(ID, 'raw', [host(1)]);
    void watch();
    await until('an item', () => items.length > 0);
    const from = clock.now();
    await until('ten more', () => items.length >= 11);
    assert.ok(clock.now() - from >= 22_000, `${clock.now() - from} ms`);
    assert.ok(items.slice(1).some(({ kind }) => kind === 'unchanged'));
    fake.store.skewMs = -60_000;
    fake.store.publish(ID, 'raw', []);
    await until('the count', () => (counts.get('push.older') ?? 0) > 0);
    assert.equal(items.findLast((item) => item.kind === 'present')?.kind, 'present');
    assert.ok(items.filter((item) => item.kind === 'present').every((item) => item.instances.length === 1));
  });

  it('a server that goes is lost, and is looked at anew: it may come back as a newer one', async () => {
    const { fake, watch, items, failures, until, adapter } = await rig();
    void watch();
    await until('an item', () => items.length > 0);
    await fake.down();
    await until('the loss', () => failures.length > 0);
    assert.match(String(failures[0]), /nothing listens there/);
    assert.equal(adapter.capabilities.heartbeat, 'server');
  });

  it('records of our own say by metadata how long they live, beats keep them, and a forgotten one is said so', async () => {
    const { adapter, fake } = await rig();
    const instance = {
      id: '',
      host: '192.0.2.1',
      port: 80,
      transport: 'tcp',
      weight: 100,
      health: 'healthy',
      isolated: false,
      metadata: new Map(),
    } as const;
    const [receipt] = (await adapter.put?.([{ key: KEY, instance }], { as: 'own', ttl: 9_000, liveness: 'beat' }, never())) ?? [];
    assert.ok(receipt !== undefined && !(receipt instanceof Error));
    assert.equal(receipt.token, 'beat 9000');
    assert.deepEqual(fake.store.everyHost(ID)?.[0]?.metadata, {
      'preserved.heart.beat.interval': '3000',
      'preserved.heart.beat.timeout': '9000',
      'preserved.ip.delete.timeout': '18000',
    });
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 9_000 }]);
    fake.store.wipe();
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    assert.deepEqual(await adapter.remove?.([receipt], {}, never()), [true]);
  });
});

describe('what subscribers are not shown', () => {
  it('is read cluster by cluster on 1.x and 2.x: a disabled instance is isolated, in whatever cluster', async () => {
    for (const version of ['1.4.6', '2.5.1'] as const) {
      const { adapter, fake } = await rig(version, { api: 'http' });
      const hidden = { ...host(2), clusterName: 'B', enabled: false };
      fake.store.publish(ID, 'raw', [host(1), hidden]);
      const seen = await adapter.read(KEY, never());
      assert.ok(seen.kind === 'present');
      const words = seen.instances.map(({ id, isolated }) => `${id} ${isolated}`).sort();
      assert.deepEqual(words, ['192.0.2.1#80#DEFAULT false', '192.0.2.2#80#B true'], version);
    }
  });
});

describe('HTTP where gRPC is there, too', () => {
  it('api: http speaks no gRPC, on 2.x and 3.x alike; v3 beats are understood', async () => {
    for (const version of ['2.5.1', '3.0.3'] as const) {
      const { adapter, fake } = await rig(version, { api: 'http' });
      const instance = {
        id: '',
        host: '192.0.2.1',
        port: 80,
        transport: 'tcp',
        weight: 100,
        health: 'healthy',
        isolated: false,
        metadata: new Map(),
      } as const;
      const [receipt] =
        (await adapter.put?.([{ key: KEY, instance }], { as: 'own', ttl: 15_000, liveness: 'beat' }, never())) ?? [];
      assert.ok(receipt !== undefined && !(receipt instanceof Error));
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
      fake.store.wipe();
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
      assert.ok(fake.log.every(({ call }) => call.includes('/nacos/')));
      assert.ok(
        fake.log.some(
          ({ call }) => call === (version === '3.0.3' ? 'POST /nacos/v3/client/ns/instance' : 'PUT /nacos/v1/ns/instance/beat'),
        ),
      );
    }
  });
});

describe('the pace of polls', () => {
  it('lets at most 50 calls a second go, in turn', async () => {
    const clock = new FakeClock();
    const pace = new Pace(clock);
    let gone = 0;
    for (let n = 0; n < 200; n++) void pace.turn(never()).then(() => gone++);
    await clock.advance(1_000);
    assert.ok(gone >= 50 && gone <= 51, `${gone}`);
    await clock.advance(3_000);
    assert.equal(gone, 200);
  });
});

describe('native ids', () => {
  it('are taken apart from behind, so that IPv6 survives; what is none is null', () => {
    assert.deepEqual(identityOf('2001:db8::1#80#A', true), { ip: '2001:db8::1', port: 80, clusterName: 'A', ephemeral: true });
    assert.equal(identityOf('nothing', true), null);
  });
});
