// The write side of a migration on two embedded registries: what is written, when, how fast, and what survives faults and restarts.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeStore, instance, Rig, type RigOptions } from '../../test/support/mirror-rig.ts';
import { readMarker } from '../catalog/copies.ts';
import { SourceError } from '../model/snapshot.ts';

const S = 'default/web';
const ports = (from: number, n: number): number[] => Array.from({ length: n }, (_, k) => from + k);

function claim(name: string, body: (rig: Rig) => Promise<void>, options: RigOptions = {}): void {
  it(name, { timeout: 30_000 }, async () => {
    const rig = new Rig(options);
    try {
      await body(rig);
    } finally {
      await rig.close();
    }
  });
}

describe('a mirror copies', () => {
  claim('what is native in the origin, with markers, fields and health, and once only', async (rig) => {
    rig.a.native(S, instance(80, { weight: 70, version: 'v2' }), instance(81, { health: 'unhealthy' }));
    rig.mirror();
    await rig.clock.advance(1_000);
    assert.deepEqual(rig.b.ports(S), [80, 81]);
    const [first, second] = [...rig.b.records(S)].sort((x, y) => x.port - y.port);
    assert.deepEqual([first?.weight, first?.version, second?.health], [70, 'v2', 'unhealthy']);
    assert.deepEqual(readMarker(first?.metadata ?? new Map()), { origin: 'a', migration: 'm1', epoch: '1' });
    await rig.clock.advance(600_000);
    assert.equal(rig.b.count('put'), 1);
    assert.equal(rig.a.count('put'), 0);
    assert.deepEqual(
      rig.store.entries().map(({ state }) => state),
      ['written', 'written'],
    );
  });

  claim('additions and changes of fields in place, and health by its own call', async (rig) => {
    rig.a.native(S, instance(80));
    rig.mirror();
    await rig.clock.advance(1_000);
    rig.a.native(S, instance(81));
    await rig.clock.advance(1_000);
    assert.deepEqual(rig.b.ports(S), [80, 81]);
    rig.a.native(S, instance(80, { weight: 5, metadata: new Map([['k', 'v']]) }));
    await rig.clock.advance(1_000);
    assert.equal(rig.b.records(S).find(({ port }) => port === 80)?.weight, 5);
    assert.equal(
      rig.b
        .records(S)
        .find(({ port }) => port === 80)
        ?.metadata.get('k'),
      'v',
    );
    assert.equal(rig.b.count('remove'), 0);
    const puts = rig.b.count('put');
    rig.a.native(S, instance(81, { health: 'unhealthy' }));
    await rig.clock.advance(1_000);
    assert.equal(rig.b.records(S).find(({ port }) => port === 81)?.health, 'unhealthy');
    assert.deepEqual([rig.b.count('put'), rig.b.count('health')], [puts, 1]);
    await rig.clock.advance(400_000);
    assert.deepEqual([rig.b.count('put'), rig.b.count('health')], [puts, 1], 'nothing is written twice');
  });

  claim('a hundred services in few calls, each intent durable before its call', async (rig) => {
    for (const n of ports(0, 100)) rig.a.native(`default/s${n}`, instance(80), instance(81));
    rig.mirror({ start: false });
    const before: number[] = [];
    const { put } = rig.b.adapter;
    rig.b.adapter.put = async (writes, how, signal) => {
      for (const { instance: one, key } of writes) {
        const entry = rig.store.entries().find((e) => e.service === `default/${key.name}` && e.port === one.port);
        before.push(entry?.state === 'intent' ? 1 : 0);
      }
      return (await put?.call(rig.b.adapter, writes, how, signal)) ?? [];
    };
    rig.mirrors[0]?.start();
    await rig.clock.advance(2_000);
    assert.equal(rig.b.hold.registry.keys().length, 100);
    assert.equal(before.length, 200);
    assert.ok(before.every((n) => n === 1));
    assert.ok(rig.b.count('put') <= 4, `${rig.b.count('put')} calls`);
    assert.ok(rig.store.saves < 20, `${rig.store.saves} saves`);
    assert.ok(rig.store.entries().every(({ state, receipt }) => state === 'written' && receipt !== null));
  });

  claim(
    'metadata by the mapping, and undoes the renames on the way back',
    async (rig) => {
      rig.a.native(
        S,
        instance(80, {
          metadata: new Map([
            ['old', '1'],
            ['secret', 'x'],
            ['k', 'v'],
          ]),
        }),
      );
      rig.mirror();
      await rig.clock.advance(1_000);
      const metadata = [...(rig.b.records(S)[0]?.metadata ?? [])].filter(([key]) => !key.startsWith('weir-'));
      assert.deepEqual(metadata, [
        ['team', 'z'],
        ['new', '1'],
        ['k', 'v'],
      ]);
      rig.b.native(S, instance(90, { metadata: new Map([['new', '2']]) }));
      await rig.clock.advance(1_000);
      assert.equal(
        rig.a
          .records(S)
          .find(({ port }) => port === 90)
          ?.metadata.get('old'),
        '2',
      );
    },
    { metadata: { rename: new Map([['old', 'new']]), drop: new Set(['secret']), set: new Map([['team', 'z']]) } },
  );
});

describe('a mirror removes', () => {
  claim('nothing before the grace, then 15 % of a service a minute', async (rig) => {
    rig.a.native(S, ...ports(1, 20).map((port) => instance(port)));
    rig.mirror();
    await rig.clock.advance(1_000);
    rig.a.gone(S, ...ports(1, 10).map((port) => `n-${port}`));
    await rig.clock.advance(58_000);
    assert.equal(rig.b.records(S).length, 20);
    await rig.clock.advance(3_000);
    assert.equal(rig.b.records(S).length, 17);
    await rig.clock.advance(50_000);
    assert.equal(rig.b.records(S).length, 17);
    await rig.clock.advance(400_000);
    assert.deepEqual(rig.b.ports(S), ports(11, 10));
    assert.equal(rig.store.entries().length, 10);
  });

  claim('at least one a minute of a small service', async (rig) => {
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(70_000);
    rig.a.gone(S, 'n-1', 'n-2');
    await rig.clock.advance(1_000);
    assert.equal(rig.b.records(S).length, 1);
    await rig.clock.advance(60_000);
    assert.equal(rig.b.records(S).length, 0);
  });

  claim('no copy of an instance that the catalog holds, and none while a side is out of touch', async (rig) => {
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(70_000);
    rig.a.held.set(S, [instance(1)]);
    rig.a.gone(S, 'n-1');
    await rig.clock.advance(120_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
    rig.a.held.clear();
    rig.setLive(rig.a, false);
    await rig.clock.advance(120_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
    rig.setLive(rig.a, true);
    await rig.clock.advance(2_000);
    assert.deepEqual(rig.b.ports(S), [2]);
  });

  claim('what it reads right before, and skips a record that is no longer ours', async (rig) => {
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(70_000);
    const copy = rig.b.copies(S).find(({ port }) => port === 1);
    // The catalog does not hear of it in time.
    rig.b.live = false;
    rig.b.hold.registry.put({ namespace: 'default', name: 'web' }, instance(1, { id: copy?.id ?? '' }), null);
    rig.b.live = true;
    rig.a.gone(S, 'n-1');
    await rig.clock.advance(2_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
    assert.equal(rig.b.count('remove'), 0);
    assert.deepEqual(
      rig.store.entries().map(({ port }) => port),
      [2],
    );
  });
});

describe('faults of a target', () => {
  claim('hold writes back and nothing else; they are made up for when it returns', async (rig) => {
    rig.a.native(S, instance(1));
    const mirror = rig.mirror();
    await rig.clock.advance(1_000);
    rig.b.down = new SourceError('lost', 'no route');
    rig.a.native(S, instance(2));
    rig.b.native('default/back', instance(9));
    await rig.clock.advance(20_000);
    assert.deepEqual(rig.b.ports(S), [1]);
    assert.deepEqual(rig.a.ports('default/back'), [], 'it was there at the first look: no return copy');
    assert.match(mirror.status().lastError.get('b') ?? '', /no route/);
    assert.ok(mirror.status().queued > 0);
    assert.ok(rig.b.calls.length < 30, 'it backs off');
    rig.b.down = null;
    await rig.clock.advance(40_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
    assert.equal(mirror.status().queued, 0);
  });

  claim('of half of a batch: only those are tried again', async (rig) => {
    let bad = true;
    rig.b.refuse = ({ instance: one }) => (bad && one.port % 2 === 0 ? new SourceError('lost', 'half') : null);
    rig.a.native(S, ...ports(1, 6).map((port) => instance(port)));
    rig.mirror();
    await rig.clock.advance(500);
    assert.deepEqual(rig.b.ports(S), [1, 3, 5]);
    bad = false;
    await rig.clock.advance(10_000);
    assert.deepEqual(rig.b.ports(S), ports(1, 6));
    const counts = new Map<string, number>();
    for (const { what, ids } of rig.b.calls) if (what === 'put') for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
    assert.deepEqual([counts.get('a-10.0.0.1:1'), counts.get('a-10.0.0.1:2')], [1, 2]);
  });

  claim('a lost answer is read back before it is repeated, and makes no duplicate', async (rig) => {
    rig.b.loseAnswers = true;
    rig.a.native(S, instance(1));
    rig.mirror();
    await rig.clock.advance(300);
    assert.equal(rig.store.entries()[0]?.state, 'intent');
    rig.b.loseAnswers = false;
    await rig.clock.advance(5_000);
    const what = rig.b.calls.map((call) => call.what);
    assert.deepEqual(what.slice(0, 3), ['put', 'read', 'put']);
    assert.deepEqual(rig.b.ports(S), [1]);
    assert.equal(rig.store.entries()[0]?.state, 'written');
  });

  claim('while answers stay lost, each repetition comes after a read that began after the last try', async (rig) => {
    rig.b.loseAnswers = true;
    rig.b.lag = 600_000;
    rig.a.native(S, instance(1));
    rig.mirror();
    await rig.clock.advance(20_000);
    const what = rig.b.calls.map((call) => call.what).filter((one) => one !== 'renew');
    assert.ok(what.length >= 5, what.join());
    for (const [n, one] of what.entries()) assert.equal(one, n % 2 === 0 ? 'put' : 'read');
  });

  claim('a call that is never answered is given up, and its outcome read back', async (rig) => {
    rig.b.hang = true;
    rig.a.native(S, instance(1));
    const mirror = rig.mirror();
    await rig.clock.advance(9_000);
    assert.equal(mirror.status().lastError.size, 0);
    rig.b.hang = false;
    await rig.clock.advance(5_000);
    assert.deepEqual(
      rig.b.calls.map((call) => call.what).filter((one) => one !== 'renew'),
      ['put', 'read', 'put'],
    );
    assert.deepEqual(rig.b.ports(S), [1]);
  });

  claim('a copy that the target lost is put again, and one whose fields others changed once a minute at most', async (rig) => {
    rig.a.native(S, instance(1));
    rig.mirror();
    await rig.clock.advance(10_000);
    rig.b.gone(S, 'a-10.0.0.1:1');
    await rig.clock.advance(1_000);
    assert.deepEqual(rig.b.ports(S), [1]);
    await rig.clock.advance(70_000);
    const puts = rig.b.count('put');
    for (let n = 0; n < 10; n++) {
      const [copy] = rig.b.copies(S);
      assert.ok(copy !== undefined);
      rig.b.hold.registry.put({ namespace: 'default', name: 'web' }, { ...copy, weight: n + 1 }, null);
      await rig.clock.advance(10_000);
    }
    await rig.clock.advance(60_000);
    assert.equal(rig.b.copies(S)[0]?.weight, 100);
    assert.ok(rig.b.count('put') - puts <= 4, `${rig.b.count('put') - puts} repairs`);
  });

  claim('another health in the target is set right after 15 s', async (rig) => {
    rig.a.native(S, instance(1));
    rig.mirror();
    await rig.clock.advance(70_000);
    const [copy] = rig.b.copies(S);
    assert.ok(copy !== undefined);
    rig.b.hold.registry.update(
      { namespace: 'default', name: 'web' },
      copy.id,
      rig.store.entries()[0]?.receipt?.token ?? '',
      (one) => ({
        ...one,
        health: 'unhealthy',
      }),
    );
    await rig.clock.advance(14_000);
    assert.equal(rig.b.copies(S)[0]?.health, 'unhealthy');
    await rig.clock.advance(2_000);
    assert.equal(rig.b.copies(S)[0]?.health, 'healthy');
  });

  claim('a target that refuses a record is asked again a minute later, the others are written', async (rig) => {
    rig.b.refuse = ({ instance: one }) => (one.port === 1 ? new SourceError('refused', 'quota') : null);
    rig.a.native(S, instance(1), instance(2));
    const mirror = rig.mirror();
    await rig.clock.advance(20_000);
    assert.deepEqual(rig.b.ports(S), [2]);
    assert.equal(rig.b.count('put'), 1);
    assert.match(mirror.status().lastError.get('b') ?? '', /quota/);
    rig.b.refuse = () => null;
    await rig.clock.advance(50_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
  });
});

describe('a restart', () => {
  claim('between call and receipt takes the record over and writes no duplicate', async (rig) => {
    rig.a.native(S, instance(1));
    rig.b.loseAnswers = true;
    const first = rig.mirror();
    await rig.clock.advance(300);
    await first.close();
    rig.b.loseAnswers = false;
    assert.equal(rig.store.entries()[0]?.state, 'intent');
    rig.mirror({ epoch: 1 });
    await rig.clock.advance(5_000);
    assert.deepEqual(rig.b.ports(S), [1]);
    assert.equal(rig.store.entries()[0]?.state, 'written');
    assert.ok(rig.store.entries()[0]?.receipt !== null);
  });

  claim('writes nothing where nothing changed, and renews at once', async (rig) => {
    rig.a.native(S, ...ports(1, 30).map((port) => instance(port)));
    const first = rig.mirror();
    await rig.clock.advance(10_000);
    await first.close();
    const puts = rig.b.count('put');
    rig.mirror();
    await rig.clock.advance(30_000);
    assert.equal(rig.b.count('put'), puts);
    assert.ok(rig.b.count('renew') >= 1);
  });

  claim('with a lost ledger adopts by the markers, and removes by the rules what has no origin', async (rig) => {
    rig.a.native(S, instance(1), instance(2));
    const first = rig.mirror();
    await rig.clock.advance(1_000);
    await first.close();
    rig.store.saved.clear();
    rig.a.gone(S, 'n-2');
    rig.mirror();
    await rig.clock.advance(10_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
    assert.deepEqual(
      rig.store.entries().map(({ port, state }) => [port, state]),
      [
        [1, 'written'],
        [2, 'written'],
      ],
    );
    await rig.clock.advance(60_000);
    assert.deepEqual(rig.b.ports(S), [1]);
    assert.deepEqual(rig.a.ports(S), [1]);
  });

  claim('of a later owner overwrites what an earlier epoch wrote', async (rig) => {
    rig.a.native(S, instance(1));
    const first = rig.mirror({ epoch: 3 });
    await rig.clock.advance(1_000);
    await first.close();
    rig.mirror({ epoch: 4 });
    await rig.clock.advance(1_000);
    assert.equal(readMarker(rig.b.records(S)[0]?.metadata ?? new Map())?.epoch, '4');
    await rig.clock.advance(400_000);
    assert.equal(rig.b.count('put'), 2);
  });
});

describe('native records', () => {
  claim('in the place of a copy end it and are never touched', async (rig) => {
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(1_000);
    rig.b.native(S, instance(1, { id: 'a-10.0.0.1:1', weight: 3 }));
    await rig.clock.advance(1_000);
    assert.deepEqual(
      rig.store.entries().map(({ port }) => port),
      [2],
    );
    rig.a.gone(S, 'n-1');
    rig.a.native(S, instance(2, { weight: 9 }));
    await rig.clock.advance(300_000);
    assert.equal(rig.b.records(S).find(({ port }) => port === 1)?.weight, 3);
    assert.equal(rig.b.count('remove'), 0);
  });

  claim('beside a copy end it at once, outside the rate, and stay', async (rig) => {
    rig.a.native(S, ...ports(1, 10).map((port) => instance(port)));
    rig.mirror();
    await rig.clock.advance(1_000);
    rig.b.beside.set(
      S,
      ports(1, 8).map((port) => instance(port, { id: `own-${port}` })),
    );
    rig.b.refresh(S);
    rig.tell(S);
    await rig.clock.advance(1_000);
    assert.deepEqual(
      rig.b
        .copies(S)
        .map(({ port }) => port)
        .sort((x, y) => x - y),
      [9, 10],
    );
    assert.deepEqual(rig.store.entries().length, 2);
    await rig.clock.advance(100_000);
    assert.deepEqual(rig.a.copies(S), [], 'the origin has them natively: no return copy');
    rig.a.gone(S, 'n-1');
    await rig.clock.advance(2_000);
    assert.deepEqual(
      rig.a.copies(S).map(({ port }) => port),
      [1],
      'it moved: readers of the origin still see it',
    );
  });

  claim('that move to the target get a return copy, which goes with its origin; the old ones get none', async (rig) => {
    rig.a.native(S, instance(1));
    rig.b.native(S, instance(50));
    rig.mirror();
    await rig.clock.advance(70_000);
    assert.deepEqual(rig.a.ports(S), [1]);
    rig.b.native(S, instance(60));
    await rig.clock.advance(1_000);
    assert.deepEqual(rig.a.ports(S), [1, 60]);
    assert.equal(readMarker(rig.a.records(S).find(({ port }) => port === 60)?.metadata ?? new Map())?.origin, 'b');
    await rig.clock.advance(100_000);
    assert.deepEqual(rig.b.ports(S), [1, 50, 60], 'a copy begets no copy');
    rig.b.gone(S, 'n-60');
    await rig.clock.advance(2_000);
    assert.deepEqual(rig.a.ports(S), [1]);
    assert.deepEqual(rig.b.ports(S), [1, 50]);
  });

  claim(
    'two ways: each side gets what is native in the other, and nothing plays ping-pong',
    async (rig) => {
      rig.a.native(S, instance(1));
      rig.b.native(S, instance(2));
      rig.mirror();
      await rig.clock.advance(600_000);
      assert.deepEqual(
        [rig.a.ports(S), rig.b.ports(S)],
        [
          [1, 2],
          [1, 2],
        ],
      );
      assert.deepEqual([rig.a.count('put'), rig.b.count('put')], [1, 1]);
      rig.a.gone(S, 'n-1');
      await rig.clock.advance(70_000);
      assert.deepEqual([rig.a.ports(S), rig.b.ports(S)], [[2], [2]]);
    },
    { direction: 'twoWay' },
  );

  claim('copies of another migration are neither copied on nor touched', async (rig) => {
    rig.a.native(S, instance(1));
    rig.mirror({ id: 'm1' });
    rig.mirror({ id: 'm2', from: 'b', to: 'a', store: new FakeStore() });
    rig.mirror({ id: 'm3', store: new FakeStore() });
    await rig.clock.advance(300_000);
    assert.deepEqual([rig.a.ports(S), rig.b.ports(S)], [[1], [1]]);
    assert.equal(rig.a.count('put') + rig.a.count('remove') + rig.b.count('remove'), 0);
    assert.ok(rig.b.count('put') <= 2);
  });
});

describe('an ending', () => {
  claim('takes every copy away outside the rate, over an outage, and the store knows it', async (rig) => {
    for (const n of ports(0, 5)) rig.a.native(`default/s${n}`, ...ports(1, 20).map((port) => instance(port)));
    rig.b.native('default/s0', instance(99));
    const mirror = rig.mirror();
    await rig.clock.advance(5_000);
    rig.b.down = new SourceError('lost', 'no route');
    const ended = mirror.drain();
    let over = false;
    void ended.then(() => {
      over = true;
    });
    await rig.clock.advance(20_000);
    assert.equal(over, false);
    rig.b.down = null;
    await rig.clock.advance(40_000);
    await ended;
    assert.deepEqual(rig.b.ports('default/s0'), [99]);
    assert.equal(rig.b.copies('default/s3').length, 0);
    assert.equal(rig.store.entries().length, 0);
  });

  claim('waits while writes are frozen', async (rig) => {
    rig.a.native(S, instance(1));
    const mirror = rig.mirror();
    await rig.clock.advance(1_000);
    rig.frozen = true;
    const ended = mirror.drain();
    await rig.clock.advance(60_000);
    assert.deepEqual(rig.b.ports(S), [1]);
    rig.frozen = false;
    await rig.clock.advance(2_000);
    await ended;
    assert.deepEqual(rig.b.ports(S), []);
  });

  claim('that keeps the copies makes them ordinary records that need no beat, and takes return copies away', async (rig) => {
    rig.a.native(S, instance(1));
    const mirror = rig.mirror();
    await rig.clock.advance(1_000);
    rig.b.native(S, instance(2));
    await rig.clock.advance(1_000);
    assert.deepEqual(rig.a.ports(S), [1, 2]);
    const ended = mirror.keep();
    await rig.clock.advance(5_000);
    await ended;
    assert.deepEqual(rig.a.ports(S), [1]);
    const kept = rig.b.records(S).find(({ port }) => port === 1);
    assert.deepEqual(
      [kept?.metadata.get('weir-kept'), kept?.metadata.get('weir-migration'), kept?.metadata.has('weir-origin')],
      ['a', 'm1', false],
    );
    assert.deepEqual(
      rig.store.entries().map(({ state }) => state),
      ['kept'],
    );
    await mirror.close();
    await rig.clock.advance(600_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
    const collector = rig.mirror();
    const collected = collector.drain();
    await rig.clock.advance(5_000);
    await collected;
    assert.deepEqual(rig.b.ports(S), [2]);
  });
});

describe('pace', () => {
  claim(
    'a target that takes one record a call gets 50 calls a second, and a storm of changes costs their last word only',
    async (rig) => {
      rig.b.capabilities = { writesPerCall: 1 };
      for (const n of ports(0, 50)) rig.a.native(`default/s${n}`, ...ports(1, 10).map((port) => instance(port)));
      const mirror = rig.mirror();
      await rig.clock.advance(5_000);
      const standing = (): number => ports(0, 50).reduce((sum, n) => sum + rig.b.copies(`default/s${n}`).length, 0);
      assert.ok(standing() >= 230 && standing() <= 270, `${standing()} after 5 s`);
      assert.ok(mirror.status().queued > 200 && mirror.status().lagMs >= 4_900);
      for (let weight = 1; weight <= 20; weight++) {
        for (const port of ports(1, 10)) rig.a.native('default/s49', instance(port, { weight }));
        await rig.clock.advance(100);
      }
      await rig.clock.advance(6_000);
      assert.equal(standing(), 500);
      assert.deepEqual([mirror.status().queued, mirror.status().lagMs], [0, 0]);
      const sent = rig.b.calls.filter(({ what }) => what === 'put').reduce((sum, { ids }) => sum + ids.length, 0);
      assert.equal(sent, 500);
      assert.ok(rig.b.copies('default/s49').every(({ weight }) => weight === 20));
    },
  );
});

describe('pace of whole sets', () => {
  claim(
    'where all records of a service go in one call, a service is a call',
    async (rig) => {
      rig.b.capabilities = { setsByConnection: true, heartbeat: 'server' };
      for (const n of ports(0, 100)) rig.a.native(`default/s${n}`, ...ports(1, 10).map((port) => instance(port)));
      rig.mirror();
      await rig.clock.advance(1_000);
      const sent = (): number => rig.b.calls.filter(({ what }) => what === 'put').reduce((sum, { ids }) => sum + ids.length, 0);
      assert.ok(sent() >= 400 && sent() <= 600, `${sent()} records after 1 s at 50 calls a second`);
      for (const { what, ids } of rig.b.calls) if (what === 'put') assert.ok(ids.length <= 100, `${ids.length} in one`);
      await rig.clock.advance(1_500);
      assert.equal(sent(), 1_000);
    },
    { liveness: 'connection' },
  );
});

describe('liveness connection', () => {
  claim(
    'is for the target that ties records to connections: return copies elsewhere are written and renewed as beats',
    async (rig) => {
      rig.b.capabilities = { heartbeat: 'server' };
      rig.a.native(S, instance(1));
      rig.mirror();
      await rig.clock.advance(1_000);
      rig.b.native(S, instance(2));
      await rig.clock.advance(100_000);
      const liveness = (registry: typeof rig.a): readonly unknown[] => [
        ...new Set(registry.calls.filter(({ what }) => what === 'put').map(({ how }) => how?.liveness)),
      ];
      assert.deepEqual(liveness(rig.b), ['connection']);
      assert.deepEqual(liveness(rig.a), ['beat']);
      assert.ok(rig.a.count('renew') >= 3, `${rig.a.count('renew')} renewals`);
      assert.equal(rig.b.count('renew'), 0);
    },
    { liveness: 'connection' },
  );
});

describe('the right to write', () => {
  claim('goes with every put and removal as the fence of its target', async (rig) => {
    const fence = { key: 'leader', createRevision: '1', leaseId: '2' };
    rig.a.native(S, instance(1));
    const mirror = rig.mirror({ fences: new Map([['b', fence]]) });
    await rig.clock.advance(1_000);
    rig.b.native(S, instance(2));
    await rig.clock.advance(1_000);
    const ended = mirror.drain();
    await rig.clock.advance(1_000);
    await ended;
    for (const { what, how } of rig.b.calls) if (what === 'put' || what === 'remove') assert.deepEqual(how?.fence, fence);
    for (const { how } of rig.a.calls) assert.equal(how?.fence, undefined);
    assert.deepEqual([rig.b.count('remove'), rig.a.count('remove')], [1, 1]);
    const [put] = rig.b.calls;
    assert.deepEqual([put?.how?.as, put?.how?.ttl, put?.how?.liveness], ['copy', 90_000, 'beat']);
  });

  claim('frozen: nothing is written, beats go on, and what was missed is made up for', async (rig) => {
    rig.a.native(S, instance(1));
    rig.mirror();
    await rig.clock.advance(1_000);
    rig.frozen = true;
    rig.a.native(S, instance(2));
    const renews = rig.b.count('renew');
    await rig.clock.advance(200_000);
    assert.deepEqual(rig.b.ports(S), [1]);
    assert.ok(rig.b.count('renew') - renews >= 5);
    rig.frozen = false;
    await rig.clock.advance(1_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
  });

  for (const stop of ['frozen', 'lost'] as const) {
    claim(`${stop} while an intent is being saved: its call is not made`, async (rig) => {
      const lock = new AbortController();
      const { savePages } = rig.store;
      const held = Promise.withResolvers<void>();
      rig.store.savePages = async (id, pages) => {
        await savePages.call(rig.store, id, pages);
        if (pages.some(({ entries }) => entries.length > 0)) await held.promise;
      };
      rig.a.native(S, instance(1));
      rig.mirror({ lost: lock.signal });
      await rig.clock.advance(1_000);
      assert.equal(rig.store.entries()[0]?.state, 'intent');
      if (stop === 'frozen') rig.frozen = true;
      else lock.abort(new Error('gone'));
      held.resolve();
      await rig.clock.advance(5_000);
      assert.equal(rig.b.count('put'), 0);
      rig.frozen = false;
      await rig.clock.advance(5_000);
      assert.deepEqual(rig.b.ports(S), stop === 'frozen' ? [1] : []);
    });
  }

  claim('lost: nothing is sent any more, no beat either', async (rig) => {
    const lock = new AbortController();
    rig.a.native(S, instance(1));
    const mirror = rig.mirror({ lost: lock.signal });
    await rig.clock.advance(1_000);
    lock.abort(new Error('the lock is gone'));
    const calls = rig.b.calls.length;
    rig.a.native(S, instance(2));
    await rig.clock.advance(60_000);
    assert.equal(rig.b.calls.length, calls);
    assert.equal(mirror.status().lost, true);
    await assert.rejects(mirror.drain());
  });

  claim('a target that refuses us as a stale owner stops everything', async (rig) => {
    rig.a.native(S, instance(1));
    rig.b.refuse = () => new SourceError('fenced', 'another owner writes');
    const mirror = rig.mirror();
    await rig.clock.advance(1_000);
    assert.equal(mirror.lost.aborted, true);
    const calls = rig.b.calls.length;
    await rig.clock.advance(60_000);
    assert.equal(rig.b.calls.length, calls);
  });

  claim('a store that takes no intent: nothing is sent until it does', async (rig) => {
    rig.store.down = new SourceError('lost', 'the disk is full');
    rig.a.native(S, instance(1));
    const mirror = rig.mirror();
    await rig.clock.advance(5_000);
    assert.equal(rig.b.count('put'), 0);
    assert.match([...mirror.status().waiting.keys()].join(), /disk is full/);
    rig.store.down = null;
    await rig.clock.advance(40_000);
    assert.deepEqual(rig.b.ports(S), [1]);
  });
});

describe('a target that says less', () => {
  claim('without a word for isolated has no record meanwhile, and gets it back', async (rig) => {
    rig.b.capabilities = { keeps: new Set(['metadata']) };
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(70_000);
    rig.a.native(S, instance(1, { isolated: true }));
    await rig.clock.advance(2_000);
    assert.deepEqual(rig.b.ports(S), [2]);
    assert.deepEqual(
      rig.store
        .entries()
        .map(({ port, state }) => `${port} ${state}`)
        .sort(),
      ['1 withheld', '2 written'],
    );
    rig.a.native(S, instance(1));
    await rig.clock.advance(2_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
  });

  claim('that refuses to say weight 0 has no record meanwhile', async (rig) => {
    rig.b.refuse = ({ instance: one }) => (one.weight === 0 ? new SourceError('refused', 'no zero weight') : null);
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(70_000);
    rig.a.native(S, instance(1, { weight: 0 }));
    await rig.clock.advance(3_000);
    assert.deepEqual(rig.b.ports(S), [2]);
    rig.a.native(S, instance(1, { weight: 5 }));
    await rig.clock.advance(3_000);
    assert.deepEqual(rig.b.ports(S), [1, 2]);
  });

  claim('and loses metadata is mirrored by the ledger alone', async (rig) => {
    const strip = rig.b.adapter.put;
    rig.b.capabilities = { keeps: new Set(['weight', 'health']) };
    rig.b.adapter.put = async (writes, how, signal) => {
      const bare = writes.map((write) => ({ ...write, instance: { ...write.instance, metadata: new Map() } }));
      return (await strip?.call(rig.b.adapter, bare, how, signal)) ?? [];
    };
    rig.a.native(S, instance(1), instance(2));
    rig.mirror();
    await rig.clock.advance(70_000);
    assert.deepEqual(
      [rig.a.ports(S), rig.b.ports(S)],
      [
        [1, 2],
        [1, 2],
      ],
    );
    rig.b.native(S, instance(3));
    rig.a.gone(S, 'n-1');
    await rig.clock.advance(5_000);
    assert.deepEqual(
      [rig.a.ports(S), rig.b.ports(S)],
      [
        [2, 3],
        [2, 3],
      ],
    );
    const ended = rig.mirrors[0]?.drain();
    await rig.clock.advance(5_000);
    await ended;
    assert.deepEqual([rig.a.ports(S), rig.b.ports(S)], [[2], [3]]);
  });
});

describe('beats', () => {
  claim('keep copies alive by one call for all, and a forgotten lease is put again', async (rig) => {
    for (const n of ports(0, 10)) rig.a.native(`default/s${n}`, ...ports(1, 10).map((port) => instance(port)));
    rig.mirror();
    await rig.clock.advance(600_000);
    assert.equal(rig.b.copies('default/s7').length, 10);
    const renews = rig.b.calls.filter(({ what }) => what === 'renew');
    assert.ok(renews.length >= 18 && renews.length <= 24, `${renews.length} renewals`);
    assert.equal(renews.at(-1)?.ids.length, 100);
    rig.b.hold.registry.wipe();
    await rig.clock.advance(60_000);
    assert.equal(rig.b.copies('default/s7').length, 10);
  });

  claim(
    'are not needed by persistent copies',
    async (rig) => {
      rig.a.native(S, instance(1));
      rig.mirror();
      await rig.clock.advance(600_000);
      assert.deepEqual([rig.b.ports(S), rig.b.count('renew')], [[1], 0]);
    },
    { liveness: 'persistent' },
  );
});

describe('cost', () => {
  claim('a thousand idle services cost a look each in five minutes, and no call', async (rig) => {
    for (const n of ports(0, 1_000)) rig.a.native(`default/s${n}`, instance(80));
    rig.mirror({ start: false });
    rig.mirrors[0]?.start();
    await rig.clock.advance(60_000);
    const calls = rig.b.calls.length;
    const timers = rig.clock.pending;
    await rig.clock.advance(20_000);
    assert.equal(
      rig.b.calls.filter(({ what }) => what !== 'renew').length,
      rig.b.calls.slice(0, calls).filter(({ what }) => what !== 'renew').length,
    );
    assert.ok(timers < 12, `${timers} timers`);
    assert.equal(rig.used.size, 1_000);
  });
});
