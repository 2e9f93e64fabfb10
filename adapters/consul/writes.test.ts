// Registration through the agent, copies in the catalog, and the state store, against the fake on a fake clock.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Adapter, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../../test/conformance/adapter.ts';
import { key, makeAdapter, never, PLAIN, Raw, withCleanup } from '../../test/live/consul-support.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeConsul, startFakeConsul } from './fake.ts';
import { AGENT_NODE } from './fake-store.ts';

const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
const COPY: WriteMode = { as: 'copy', ttl: 15_000, liveness: 'beat' };
const MARKERS = new Map([
  ['weir-origin', 'nacos-sz'],
  ['weir-migration', 'move-1'],
  ['weir-hops', '1'],
]);

const copy = (n: number, over: Partial<Instance> = {}): Instance => sampleInstance(n, { metadata: MARKERS, ...over });

interface Rig {
  readonly clock: FakeClock;
  readonly fake: FakeConsul;
  readonly raw: Raw;
  readonly adapter: Adapter;
  another(): Adapter;
  /** One with an ACL token. */
  tokened(token: string, config?: object): Adapter;
  settle(promise: Promise<unknown>, ms?: number): Promise<void>;
}

function rig(body: (r: Rig) => Promise<void>): Promise<void> {
  return withCleanup(async (defer) => {
    const clock = new FakeClock();
    const fake = await startFakeConsul(clock);
    defer(() => fake.close());
    const another = (): Adapter => {
      const { adapter } = makeAdapter(fake.address, PLAIN, {}, clock);
      defer(() => adapter.close());
      return adapter;
    };
    const tokened = (token: string, config: object = {}): Adapter => {
      const { adapter } = makeAdapter(fake.address, { ...PLAIN, auth: { token } }, config, clock);
      defer(() => adapter.close());
      return adapter;
    };
    await body({
      clock,
      fake,
      tokened,
      raw: new Raw(fake.address),
      adapter: another(),
      another,
      async settle(promise, ms = 60_000) {
        let over = false;
        void promise.then(
          () => (over = true),
          () => (over = true),
        );
        for (let passed = 0; !over && passed < ms; passed += 100) {
          await clock.advance(100);
          await new Promise<void>((resolve) => setTimeout(resolve, 1));
        }
        assert.ok(over, 'it did not come to an end');
      },
    });
  });
}

async function put(adapter: Adapter, write: Partial<Write> & { instance: Instance }, how = OWN): Promise<WriteReceipt> {
  const [result] = (await adapter.put?.([{ key: key('web'), ...write }], how, never())) ?? [];
  if (result === undefined || result instanceof SourceError) throw result ?? new Error('no answer');
  return result;
}

async function seen(adapter: Adapter): Promise<Instance> {
  const snapshot = await adapter.read(key('web'), never());
  assert.equal(snapshot.kind === 'present' ? snapshot.instances.length : 0, 1);
  return (snapshot.kind === 'present' ? snapshot.instances[0] : undefined) ?? assert.fail('nothing there');
}

describe('registration through the agent', () => {
  it('a drain survives registering again, and ends when it is lifted', () =>
    rig(async ({ adapter }) => {
      const previous = await put(adapter, { instance: sampleInstance(1, { isolated: true }) });
      assert.equal((await seen(adapter)).isolated, true);
      await put(adapter, { instance: sampleInstance(1, { isolated: true, weight: 200 }), previous });
      assert.deepEqual([(await seen(adapter)).isolated, (await seen(adapter)).weight], [true, 200]);
      await put(adapter, { instance: sampleInstance(1), previous });
      assert.equal((await seen(adapter)).isolated, false);
    }));

  it('a drained record is never seen taking traffic, not even while it is written', () =>
    rig(async ({ adapter, fake }) => {
      const states: string[] = [];
      fake.store.onChange(() => {
        const critical = [...fake.store.checks.values()].some(
          ({ status, serviceId }) => serviceId !== '' && status === 'critical',
        );
        if (fake.store.servicesNamed('web').length > 0 && fake.agent.checks.size > 0) states.push(critical ? 'silent' : 'open');
      });
      await put(adapter, { instance: sampleInstance(1, { isolated: true }) });
      assert.deepEqual([...new Set(states)], ['silent']);
    }));

  it('a beat keeps the record unhealthy, also after a restart of ours', () =>
    rig(async ({ adapter, another }) => {
      const receipt = await put(adapter, { instance: sampleInstance(1) });
      await adapter.setHealth?.(receipt, 'unhealthy', never());
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
      assert.equal((await seen(adapter)).health, 'unhealthy');
      await another().renew?.([receipt], never());
      assert.equal((await seen(adapter)).health, 'unhealthy');
    }));

  it('without beats it turns unhealthy at the end of its TTL, a beat heals it, and the agent reaps it after ten minutes', () =>
    rig(async ({ adapter, clock }) => {
      const receipt = await put(adapter, { instance: sampleInstance(1) });
      await clock.advance(15_000);
      assert.equal((await seen(adapter)).health, 'unhealthy');
      await adapter.renew?.([receipt], never());
      assert.equal((await seen(adapter)).health, 'healthy');
      await clock.advance(15_000 + 600_000 + 30_000);
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
      assert.deepEqual(await adapter.remove?.([receipt], {}, never()), [true]);
    }));

  it('an agent that lost its data has forgotten us', () =>
    rig(async ({ adapter, fake }) => {
      const receipt = await put(adapter, { instance: sampleInstance(1) });
      fake.agent.forget();
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    }));

  it('the same id of two services makes two records', () =>
    rig(async ({ adapter }) => {
      const a = await put(adapter, { instance: sampleInstance(1) });
      const b = await put(adapter, { instance: sampleInstance(1), key: key('other') });
      assert.notEqual(a.nativeId.toLowerCase(), b.nativeId.toLowerCase());
      assert.equal((await seen(adapter)).id, a.nativeId);
    }));
});

describe('the right to write, asked for before anything is written', () => {
  const names = (count: number) => Array.from({ length: count }, (_, n) => key(`svc-${n}`));

  it('names what the token lacks, the first five and how many more, and writes nothing', () =>
    rig(async ({ fake, tokened }) => {
      fake.acl = new Map([['narrow', (what) => !/^\*service:write svc-1\d*$/.test(what)]]);
      const before = fake.store.index;
      const errors = (await tokened('narrow').mayWrite?.(names(130), never())) ?? [];
      assert.ok(errors.every(({ causeKind }) => causeKind === 'denied'));
      assert.equal(errors.length, 6);
      assert.match(errors[0]?.message ?? '', /the ACL token lacks service:write on "svc-1": give its policy that right/);
      assert.match(errors[5]?.message ?? '', /lacks 36 more rights/);
      const asked = fake.asked('/v1/internal/acl/authorize');
      assert.deepEqual([asked.length, fake.store.index], [3, before], 'no more than 64 rights a call');
      const [denied] = (await tokened('narrow').put?.([{ key: key('svc-1'), instance: copy(1) }], COPY, never())) ?? [];
      assert.match(denied instanceof SourceError ? denied.message : 'written', /lacks permission 'service:write' on "svc-1"/);
    }));

  it('the nodes of the copies count: by their names where the owner is configured', () =>
    rig(async ({ fake, tokened }) => {
      fake.acl = new Map([['no-nodes', (what) => !what.startsWith('*node:write')]]);
      const say = async (config: object): Promise<string> =>
        ((await tokened('no-nodes', config).mayWrite?.([key('web')], never())) ?? []).map(({ message }) => message).join();
      assert.match(await say({}), /lacks node:write on "weir-"/);
      assert.match(await say({ owner: 'move' }), /lacks node:write on "weir-move-\d+"/);
    }));

  it('nothing speaks against it where ACLs are off, or the call is not known; an unknown token is an answer, a lost server is none', () =>
    rig(async ({ adapter, fake, tokened }) => {
      assert.deepEqual(await adapter.mayWrite?.([key('web')], never()), []);
      fake.hook = () => ({ status: 404, body: 'Invalid URL path' });
      assert.deepEqual(await adapter.mayWrite?.([key('web')], never()), []);
      fake.hook = () => ({ status: 500, body: 'No cluster leader' });
      await assert.rejects(adapter.mayWrite?.([key('web')], never()) ?? Promise.resolve(), /no leader/);
      fake.hook = () => ({ body: '{}' });
      await assert.rejects(adapter.mayWrite?.([key('web')], never()) ?? Promise.resolve(), /no list of rights/);
      fake.hook = () => null;
      fake.acl = new Map([['all', () => true]]);
      assert.deepEqual(await tokened('all').mayWrite?.([key('web')], never()), []);
      const [unknown] = (await tokened('nobody').mayWrite?.([key('web')], never())) ?? [];
      assert.match(String(unknown?.message), /not known there: check auth\.token/);
      const other = { namespace: 'other', name: 'web' };
      assert.equal((await adapter.mayWrite?.([other], never()))?.[0]?.causeKind, 'refused');
    }));
});

describe('copies in the catalog', () => {
  it('a renewal reads the nodes once, and then their index alone until the catalog changes', () =>
    rig(async ({ adapter, fake, raw }) => {
      const writes = Array.from({ length: 40 }, (_, n) => ({ key: key(`svc-${n}`), instance: copy(1) }));
      const receipts = ((await adapter.put?.(writes, COPY, never())) ?? []).filter((one) => 'nativeId' in one);
      const nodes = new Set(receipts.map(({ nativeId }) => nativeId.split('/')[0]));
      assert.ok(nodes.size > 5);
      const beat = async (): Promise<readonly [reads: number, small: number, forgotten: number]> => {
        const before = fake.asked('/v1/catalog/node-services/').length;
        const results = (await adapter.renew?.(receipts, never())) ?? [];
        const asked = fake.asked('/v1/catalog/node-services/').slice(before);
        const small = asked.filter(({ query }) => query.has('filter')).length;
        return [asked.length - small, small, results.filter((one) => 'kind' in one && one.kind === 'forgotten').length];
      };
      assert.deepEqual(await beat(), [nodes.size, 0, 0]);
      assert.deepEqual(await beat(), [0, 1, 0]);
      assert.deepEqual(await beat(), [0, 1, 0]);
      await raw.deregister(receipts[7]?.nativeId ?? '');
      assert.deepEqual(await beat(), [nodes.size, 1, 1]);
      assert.deepEqual(await beat(), [0, 1, 1]);
      fake.cut();
      // What was on its way, or about to be, fails once on each connection.
      const reads: number[] = [];
      for (let n = 0; n < 8; n++) reads.push((await beat().catch(() => [0] as const))[0]);
      assert.ok(reads.includes(nodes.size), 'behind a broken connection may be other data');
      assert.deepEqual(await beat(), [0, 1, 1]);
    }));

  it('of somebody else can be set unhealthy by who knows their id alone', () =>
    rig(async ({ adapter, another }) => {
      const { nativeId } = await put(adapter, { instance: copy(1) }, COPY);
      await another().setHealth?.({ service: key('web'), nativeId }, 'unhealthy', never());
      assert.equal((await seen(adapter)).health, 'unhealthy');
    }));

  it('stand below a node of their migration, which no agent owns, and keep their markers', () =>
    rig(async ({ adapter, fake }) => {
      const receipt = await put(adapter, { instance: copy(1) }, COPY);
      assert.match(receipt.nativeId, /^weir-move-1-\d+\/nacos-sz-[0-9a-f]{16}$/);
      fake.agent.sync();
      const { metadata, id } = await seen(adapter);
      assert.equal(id, receipt.nativeId);
      for (const [name, value] of MARKERS) assert.equal(metadata.get(name), value);
      assert.equal(fake.store.servicesOf(AGENT_NODE).length, 1);
    }));

  it('a hundred go in batches of at most 64 operations, and the node is written once', () =>
    rig(async ({ adapter, fake }) => {
      const writes = Array.from({ length: 100 }, (_, n) => ({ key: key(`svc-${n}`), instance: copy(n % 250) }));
      const results = (await adapter.put?.(writes, COPY, never())) ?? [];
      assert.ok(results.every((result) => !(result instanceof SourceError)));
      const nodes = Array.from({ length: 16 }, (_, n) => `weir-move-1-${n}`);
      const indices = (): unknown[] => nodes.map((node) => fake.store.node(node)?.modify);
      assert.equal(nodes.flatMap((node) => fake.store.servicesOf(node)).length, 100);
      assert.ok(
        nodes.every((node) => fake.store.servicesOf(node).length < 20),
        'no node holds most of them',
      );
      const before = indices();
      await adapter.put?.(writes, COPY, never());
      assert.deepEqual(indices(), before);
      assert.ok(fake.asked('/v1/txn').length <= 12);
    }));

  it('a change of what we wrote ourselves costs one transaction and no read, whatever stands below the node', () =>
    rig(async ({ adapter, fake }) => {
      const receipt = await put(adapter, { instance: copy(1) }, COPY);
      const reads = (): number => fake.asked('/v1/catalog/node-services').length + fake.asked('/v1/health/node').length;
      const [before, txns] = [reads(), fake.asked('/v1/txn').length];
      await put(adapter, { instance: copy(1, { weight: 300 }), previous: receipt }, COPY);
      await put(adapter, { instance: copy(2) }, COPY);
      await adapter.setHealth?.(receipt, 'unhealthy', never());
      assert.deepEqual(await adapter.remove?.([receipt], {}, never()), [true]);
      assert.equal(reads(), before);
      assert.equal(fake.asked('/v1/txn').length, txns + 4);
      assert.equal((await seen(adapter)).port, copy(2).port);
    }));

  it('a node that somebody removed is made again', () =>
    rig(async ({ adapter, fake, raw }) => {
      const receipt = await put(adapter, { instance: copy(1) }, COPY);
      await raw.call('PUT', '/catalog/deregister', { Node: receipt.nativeId.split('/')[0] });
      await put(adapter, { instance: copy(1), previous: receipt }, COPY);
      assert.equal((await seen(adapter)).id, receipt.nativeId);
      assert.ok(fake.asked('/v1/txn').length >= 2);
    }));

  it('isolated is told from unhealthy, and a probe does not lift it', () =>
    rig(async ({ adapter }) => {
      const receipt = await put(adapter, { instance: copy(1, { isolated: true }) }, COPY);
      await adapter.setHealth?.(receipt, 'healthy', never());
      assert.equal((await seen(adapter)).isolated, true);
      await put(adapter, { instance: copy(1, { health: 'unhealthy' }) }, COPY);
      const now = await seen(adapter);
      assert.deepEqual([now.isolated, now.health], [false, 'unhealthy']);
    }));

  it('what somebody else changed in between is read and written once more', () =>
    rig(async ({ adapter, fake }) => {
      const previous = await put(adapter, { instance: copy(1) }, COPY);
      const id = previous.nativeId.slice('weir-move-1-2/'.length);
      let edits = 1;
      fake.hook = ({ path }) => {
        if (path === '/v1/txn' && edits-- > 0)
          fake.store.setService('weir-move-1-2', { ID: id, Service: 'web', Address: '192.0.2.99', Port: 1 });
        return null;
      };
      await put(adapter, { instance: copy(1, { weight: 300 }) }, COPY);
      assert.equal((await seen(adapter)).weight, 300);
    }));

  it('a fence of another owner refuses every write', () =>
    rig(async ({ adapter }) => {
      const fence = { key: 'weir/owner', createRevision: '1', leaseId: 'not-me' };
      const [result] = (await adapter.put?.([{ key: key('web'), instance: copy(1) }], { ...COPY, fence }, never())) ?? [];
      assert.ok(result instanceof SourceError && result.causeKind === 'fenced', String(result));
      assert.equal((await adapter.read(key('web'), never())).kind, 'absent');
    }));

  it('removing takes the records and leaves the node; a record below another node is refused', () =>
    rig(async ({ adapter, fake, raw }) => {
      const receipt = await put(adapter, { instance: copy(1) }, COPY);
      for (let round = 0; round < 2; round++) assert.deepEqual(await adapter.remove?.([receipt], {}, never()), [true]);
      assert.notEqual(fake.store.node('weir-move-1-2'), undefined);
      await raw.register('web', sampleInstance(2));
      const foreign = { ...receipt, nativeId: 'native/web-192.0.2.2:8002' };
      await assert.rejects(async () => adapter.remove?.([foreign], {}, never()), /not below a node of ours/);
    }));

  it('a copy that somebody removed is forgotten', () =>
    rig(async ({ adapter, raw }) => {
      const receipt = await put(adapter, { instance: copy(1) }, COPY);
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: Number.POSITIVE_INFINITY }]);
      await raw.deregister(receipt.nativeId);
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    }));
});

describe('state store', () => {
  it('writes only what is as expected', () =>
    rig(async ({ adapter }) => {
      const store = adapter.stateStore?.() ?? assert.fail('no store');
      assert.equal(await store.get('a', never()), null);
      const first = (await store.cas('a', '1', null, never())) ?? assert.fail('not written');
      assert.equal(await store.cas('a', '2', null, never()), null);
      assert.equal(await store.cas('a', '2', '999', never()), null);
      const second = (await store.cas('a', '2', first.revision, never())) ?? assert.fail('not written');
      assert.deepEqual(await store.get('a', never()), second);
      assert.notEqual(await store.cas('a', null, second.revision, never()), null);
      assert.equal(await store.get('a', never()), null);
    }));

  it('a watch shows the whole set after every change, also an empty one', () =>
    rig(async ({ adapter, settle }) => {
      const store = adapter.stateStore?.() ?? assert.fail('no store');
      const sets: string[] = [];
      const stop = new AbortController();
      const run = (async () => {
        for await (const entries of store.watch('p/', stop.signal)) {
          sets.push(entries.map((one) => `${one.key}=${one.value}`).join());
          if (sets.length === 1) await store.cas('p/x', '1', null, never());
          if (sets.length === 2) await store.cas('p/y', '2', null, never());
          if (sets.length === 3) stop.abort(new Error('enough'));
        }
      })();
      await settle(run);
      assert.deepEqual(sets, ['', 'p/x=1', 'p/x=1,p/y=2']);
    }));

  it('one holds the lock, the next gets it at the release, and a holder whose session ended knows', () =>
    rig(async ({ adapter, another, fake, settle, clock }) => {
      const first = await (adapter.stateStore?.() ?? assert.fail('no store')).lock('owner', 15_000, never());
      const waiting = (another().stateStore?.() ?? assert.fail('no store')).lock('owner', 15_000, never());
      await clock.advance(60_000);
      assert.equal(first.lost.aborted, false);
      await first.release();
      await settle(waiting);
      const second = await waiting;
      assert.notEqual(second.fence.leaseId, first.fence.leaseId);
      assert.ok(BigInt(second.fence.createRevision) > BigInt(first.fence.createRevision));
      fake.kv.destroy(second.fence.leaseId);
      for (let n = 0; n < 300 && !second.lost.aborted; n++) await settle(clock.sleep(50), 200);
      assert.equal(second.lost.aborted, true);
    }));

  it('a lock that was released leaves no key and no session, and who only waited takes away nobody else’s', () =>
    rig(async ({ adapter, another, fake, settle, clock }) => {
      const lock = await (adapter.stateStore?.() ?? assert.fail('no store')).lock('owner', 15_000, never());
      const stop = new AbortController();
      const waiting = (another().stateStore?.() ?? assert.fail('no store')).lock('owner', 15_000, stop.signal);
      const given = assert.rejects(waiting, /enough/);
      await settle(clock.sleep(1_000));
      stop.abort(new Error('enough'));
      await given;
      assert.equal(fake.kv.keys.get('weir/owner')?.session, lock.fence.leaseId);
      await lock.release();
      assert.deepEqual([fake.kv.keys.size, fake.kv.sessions.size], [0, 0]);
    }));

  it('a holder that cannot renew gives up before the session could end', () =>
    rig(async ({ adapter, fake, clock, settle }) => {
      const lock = await (adapter.stateStore?.() ?? assert.fail('no store')).lock('owner', 15_000, never());
      fake.hook = () => ({ status: 500, body: 'No cluster leader' });
      await settle(clock.sleep(12_500), 20_000);
      assert.equal(lock.lost.aborted, true);
    }));
});
