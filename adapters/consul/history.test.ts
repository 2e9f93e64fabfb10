// When a registry counts as another one: its marks, as pure rules and through the adapter on a fake clock.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Snapshot, Unchanged } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../../test/conformance/adapter.ts';
import { key, type Made, makeAdapter, never, Raw, withCleanup } from '../../test/live/consul-support.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeConsul, startFakeConsul } from './fake.ts';
import { isOther, type Mark, serversIn } from './history.ts';

function mark(domain: string | null, ...servers: string[]): Mark {
  return { domain, servers: new Set(servers) };
}

describe('marks of a registry', () => {
  const cases: readonly [string, Mark, Mark, boolean][] = [
    ['the same', mark('d', 'a@1'), mark('d', 'a@1'), false],
    ['another trust domain', mark('d', 'a@1'), mark('e', 'a@1'), true],
    ['one of three servers is new', mark('d', 'a@1', 'b@2', 'c@3'), mark('d', 'b@2', 'c@3', 'd@90'), false],
    ['no server that was known', mark('d', 'a@1', 'b@2'), mark('d', 'c@3', 'd@4'), true],
    ['the same server made anew', mark(null, 'a@12'), mark(null, 'a@13'), true],
    ['servers that are not shown any more', mark('d', 'a@1'), mark('d'), false],
    ['a trust domain that is not shown any more', mark('d', 'a@1'), mark(null, 'a@1'), false],
    ['nothing that was ever shown', mark(null), mark(null), false],
    ['nothing any more', mark('d', 'a@1'), mark(null), true],
    ['Connect switched on', mark(null, 'a@1'), mark('d', 'a@1'), false],
  ];
  for (const [name, before, now, other] of cases) {
    it(`${name}: ${other ? 'another registry' : 'the same registry'}`, () => assert.equal(isOther(before, now), other));
  }

  it('servers are told apart by id and index of creation; what is no list, or has none of them, shows none', () => {
    const list = [
      { Node: { ID: 'u1', Node: 'n1', CreateIndex: 12 } },
      { Node: { ID: '', Node: 'n2', CreateIndex: 13 } },
      { Node: { ID: 'u3' } },
      { Node: null },
      7,
    ];
    assert.deepEqual([...serversIn(list)], ['u1@12', 'n2@13']);
    for (const bad of [null, {}, 'x', [[]]]) assert.equal(serversIn(bad).size, 0);
  });
});

interface Rig {
  readonly fake: FakeConsul;
  readonly raw: Raw;
  readonly made: Made;
  pass(ms: number): Promise<void>;
  until(what: string, claim: () => boolean): Promise<void>;
  follow(name: string): readonly (Snapshot | Unchanged)[];
}

function rig(body: (r: Rig) => Promise<void>, config: object = {}): Promise<void> {
  return withCleanup(async (defer) => {
    const clock = new FakeClock();
    const fake = await startFakeConsul(clock);
    defer(() => fake.close());
    const made = makeAdapter(fake.address, undefined, config, clock);
    defer(() => made.adapter.close());
    const stop = new AbortController();
    defer(() => stop.abort(new Error('enough')));
    const turn = async (ms: number): Promise<void> => {
      await clock.advance(ms);
      await new Promise<void>((resolve) => setTimeout(resolve, 2));
    };
    await body({
      fake,
      raw: new Raw(fake.address),
      made,
      async pass(ms) {
        for (let left = ms; left > 0; left -= 250) await turn(250);
      },
      async until(what, claim) {
        for (let passed = 0; !claim(); passed += 50) {
          assert.ok(passed < 60_000, `not seen: ${what}`);
          await turn(50);
        }
      },
      follow(name) {
        const items: (Snapshot | Unchanged)[] = [];
        const run = async (): Promise<void> => {
          while (!stop.signal.aborted) {
            try {
              for await (const item of made.adapter.watch(key(name), stop.signal)) items.push(item);
            } catch {
              // Lost: opened again, as the supervisor does.
            }
            await clock.sleep(500, stop.signal).catch(() => {});
          }
        };
        void run();
        return items;
      },
    });
  });
}

function shown(items: readonly (Snapshot | Unchanged)[]): readonly { size: number; epoch: string }[] {
  return items.flatMap((item) =>
    item.kind === 'unchanged' ? [] : [{ size: item.kind === 'absent' ? 0 : item.instances.length, epoch: item.epoch }],
  );
}

for (const maxWatches of [98, 1]) {
  describe(`a registry that begins anew, ${maxWatches === 1 ? 'by the firehose' : 'by queries of its own'}`, () => {
    it('wiped and partly filled above the old index before we look: the first short list has another epoch', () =>
      rig(
        async (r) => {
          for (const n of [1, 2, 3, 4]) await r.raw.register('web', sampleInstance(n));
          await r.raw.register('zzz', sampleInstance(9));
          r.follow('zzz');
          const items = r.follow('web');
          await r.until('four', () => shown(items).at(-1)?.size === 4);
          const before = shown(items).at(-1)?.epoch ?? '';
          r.fake.wipe();
          for (let n = 0; n < 60; n++) await r.raw.register('noise', sampleInstance(1, { port: 2_000 + n }));
          for (const n of [1, 2, 3]) await r.raw.register('web', sampleInstance(n));
          await r.until('a short list', () => (shown(items).at(-1)?.size ?? 4) < 4);
          for (const { size, epoch } of shown(items)) if (size < 4) assert.notEqual(epoch, before);
          assert.equal(r.made.counts.get('epochs'), 1);
        },
        { maxWatches },
      ));

    it('an ordinary removal, and a server that is cut and comes back with its data, keep the epoch', () =>
      rig(
        async (r) => {
          for (const n of [1, 2]) await r.raw.register('web', sampleInstance(n));
          await r.raw.register('zzz', sampleInstance(9));
          r.follow('zzz');
          const items = r.follow('web');
          await r.until('two', () => shown(items).at(-1)?.size === 2);
          r.fake.cut();
          await r.raw.deregister('native/web-192.0.2.2:8002');
          await r.until('one', () => shown(items).at(-1)?.size === 1);
          assert.equal(new Set(shown(items).map(({ epoch }) => epoch)).size, 1);
          assert.equal(r.made.counts.get('epochs') ?? 0, 0);
        },
        { maxWatches },
      ));
  });
}

describe('what does not begin anew', () => {
  it('a follower that lags behind is asked past, and its lower index begins no epoch', () =>
    rig(async (r) => {
      for (const n of [1, 2]) await r.raw.register('web', sampleInstance(n));
      const items = r.follow('web');
      await r.until('two', () => shown(items).at(-1)?.size === 2);
      const old = await r.raw.call('GET', '/health/service/web');
      await r.raw.register('web', sampleInstance(3));
      await r.until('three', () => shown(items).at(-1)?.size === 3);
      let lagging = 0;
      r.fake.hook = ({ path, query }) => {
        if (path !== '/v1/health/service/web' || !query.has('stale') || query.has('index')) return null;
        lagging++;
        return { body: old, headers: { 'x-consul-index': '2', 'x-consul-knownleader': 'true', 'x-consul-lastcontact': '30' } };
      };
      r.fake.cut();
      await r.until('the follower', () => lagging > 0);
      await r.pass(5_000);
      assert.deepEqual([shown(items).at(-1)?.size, r.made.counts.get('epochs') ?? 0], [3, 0]);
    }));

  it('the epoch is the same after a restart of ours, and another one for another registry', () =>
    rig(async (r) => {
      await r.raw.register('web', sampleInstance(1));
      const { epoch } = await r.made.adapter.read(key('web'), never());
      const again = makeAdapter(r.fake.address).adapter;
      assert.equal((await again.read(key('web'), never())).epoch, epoch);
      await again.close();
      r.fake.wipe();
      const later = makeAdapter(r.fake.address).adapter;
      assert.notEqual((await later.read(key('web'), never())).epoch, epoch);
      await later.close();
    }));

  it('without Connect the servers alone tell; a registry that shows no mark any more is lost, not new', () =>
    rig(async (r) => {
      r.fake.hook = ({ path }) =>
        path === '/v1/connect/ca/roots' ? { status: 500, body: 'Connect must be enabled in order to use this endpoint' } : null;
      for (const n of [1, 2]) await r.raw.register('web', sampleInstance(n));
      const items = r.follow('web');
      await r.until('two', () => shown(items).at(-1)?.size === 2);
      const hook = r.fake.hook;
      r.fake.hook = (request) => (request.path === '/v1/health/service/consul' ? { body: [], headers: {} } : hook(request));
      await r.raw.deregister('native/web-192.0.2.2:8002');
      await r.pass(10_000);
      assert.deepEqual([shown(items).at(-1)?.size, r.made.counts.get('epochs') ?? 0], [2, 0]);
      r.fake.hook = hook;
      await r.until('one', () => shown(items).at(-1)?.size === 1);
      assert.equal(r.made.counts.get('epochs') ?? 0, 0);
    }));
});
