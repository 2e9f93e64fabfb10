// The memory adapter keeps the contract, and its own promises about owners, leases and names.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { describeAdapter, type Harness, sampleInstance } from '../../test/conformance/adapter.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { factory } from './index.ts';
import { holdRegistry } from './named.ts';

const options: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
const never = new AbortController().signal;
let registries = 0;

function deps(clock: FakeClock): AdapterDeps {
  const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
  return { sourceId: 'test', clock, random: seededRandom(1), dial, log: silentLog, count: () => {} };
}

async function harness(): Promise<Harness> {
  const name = `test-${++registries}`;
  const clock = new FakeClock();
  const hold = holdRegistry(name, clock);
  const adapter = factory.create({ registry: name }, options, deps(clock));
  const others = [adapter];
  return {
    adapter,
    clock,
    registry: {
      async put(key, instances) {
        for (const instance of instances) hold.registry.put(key, instance, null);
      },
      async remove(key, ids) {
        for (const id of ids) hold.registry.remove(key, id);
      },
      async clear(key) {
        hold.registry.clear(key);
      },
      async spoil(key) {
        hold.registry.put(key, sampleInstance(99, { host: '0.0.0.0' }), null);
      },
      async cut() {
        hold.registry.cut();
      },
      async wipe() {
        hold.registry.wipe();
      },
    },
    async another() {
      const other = factory.create({ registry: name }, options, deps(clock));
      others.push(other);
      return other;
    },
    key: (service) => ({ namespace: 'test', name: service }),
    advance: (ms) => clock.advance(ms),
    logs: () => '',
    timersLeft: () => clock.pending,
    async close() {
      for (const other of others) await other.close();
      hold.release();
    },
  };
}

describeAdapter({ name: 'memory', make: harness });

describe('memory adapter', () => {
  const key = { namespace: 'default', name: 'hello' };
  const how = { as: 'own', ttl: 15_000, liveness: 'beat' } as const;

  it('refuses an address of another owner, and takes it once that owner is gone', async () => {
    const h = await harness();
    const other = await h.another();
    await h.adapter.put?.([{ key, instance: sampleInstance(1) }], how, never);
    const intruder = { key, instance: { ...sampleInstance(1), id: 'other-id' } };
    const [refused] = (await other.put?.([intruder], how, never)) ?? [];
    assert.ok(refused instanceof SourceError && refused.causeKind === 'refused');
    await h.advance(15_050);
    const [taken] = (await other.put?.([intruder], how, never)) ?? [];
    assert.ok(!(taken instanceof Error), String(taken));
    await h.close();
  });

  it('a later life with the receipt may change, renew and remove the record', async () => {
    const h = await harness();
    const [receipt] = (await h.adapter.put?.([{ key, instance: sampleInstance(1) }], how, never)) ?? [];
    assert.ok(receipt !== undefined && !(receipt instanceof Error));
    const later = await h.another();
    const [changed] =
      (await later.put?.([{ key, instance: sampleInstance(1, { weight: 7 }), previous: receipt }], how, never)) ?? [];
    assert.ok(changed !== undefined && !(changed instanceof Error));
    assert.deepEqual(await later.renew?.([changed], never), [{ kind: 'renewed', leaseMs: 15_000 }]);
    await later.remove?.([receipt], {}, never);
    const snapshot = await h.adapter.read(key, never);
    assert.deepEqual(snapshot.kind === 'present' && snapshot.instances, []);
    await h.close();
  });

  it('a copy of the same migration at the same id is taken over without a receipt; of another migration it is refused', async () => {
    const h = await harness();
    const later = await h.another();
    const copy = (migration: string) =>
      sampleInstance(1, {
        metadata: new Map([
          ['weir-migration', migration],
          ['weir-origin', 'a'],
          ['weir-hops', '1'],
        ]),
      });
    const asCopy = { ...how, as: 'copy' } as const;
    await h.adapter.put?.([{ key, instance: copy('m1') }], asCopy, never);
    const [refused] = (await later.put?.([{ key, instance: copy('m2') }], asCopy, never)) ?? [];
    assert.ok(refused instanceof SourceError && refused.causeKind === 'refused');
    const [own] = (await later.put?.([{ key, instance: copy('m1') }], how, never)) ?? [];
    assert.ok(own instanceof SourceError, 'what is no copy takes no copy over');
    const [taken] = (await later.put?.([{ key, instance: copy('m1') }], asCopy, never)) ?? [];
    assert.ok(taken !== undefined && !(taken instanceof Error), String(taken));
    assert.deepEqual(await later.renew?.([taken], never), [{ kind: 'renewed', leaseMs: 15_000 }]);
    await h.close();
  });

  it('a persistent record has no lease, and a lease of ours does not end with our connection', async () => {
    const h = await harness();
    const other = await h.another();
    const b = { namespace: 'default', name: 'b' };
    await h.adapter.put?.([{ key, instance: sampleInstance(1) }], { ...how, liveness: 'persistent' }, never);
    await h.adapter.put?.([{ key: b, instance: sampleInstance(2) }], how, never);
    await h.adapter.close();
    const count = async (of: typeof key): Promise<number> => {
      const snapshot = await other.read(of, never);
      return snapshot.kind === 'present' ? snapshot.instances.length : 0;
    };
    assert.deepEqual([await count(key), await count(b)], [1, 1]);
    await h.advance(3_600_000);
    assert.deepEqual([await count(key), await count(b)], [1, 0]);
    await h.close();
  });

  it('an empty service is forgotten after five minutes, so that names do not pile up', async () => {
    const h = await harness();
    await h.registry.clear?.(key);
    assert.equal((await h.adapter.read(key, never)).kind, 'present');
    await h.advance(300_050);
    assert.equal((await h.adapter.read(key, never)).kind, 'absent');
    await h.close();
  });

  it('sources without a registry name share nothing', async () => {
    const clock = new FakeClock();
    const [a, b] = [factory.create({}, options, deps(clock)), factory.create({}, options, deps(clock))];
    await a.put?.([{ key, instance: sampleInstance(1) }], how, never);
    assert.equal((await b.read(key, never)).kind, 'absent');
    await a.close();
    await b.close();
  });

  it('a thousand leases that are renewed at different times cost one timer', async () => {
    const h = await harness();
    const stop = new AbortController();
    const reading = (async () => {
      for await (const _ of h.adapter.watch(key, stop.signal));
    })();
    for (let n = 0; n < 1_000; n++) {
      const write = { key: { namespace: 'default', name: `s${n % 10}` }, instance: sampleInstance(1, { port: 1_000 + n }) };
      await h.adapter.put?.([{ ...write, instance: { ...write.instance, id: `i${n}` } }], { ...how, ttl: 5_000 + n }, never);
    }
    await h.advance(1);
    assert.ok(h.timersLeft?.() === 1, `${h.timersLeft?.()} timers`);
    stop.abort();
    await reading;
    assert.equal(h.timersLeft?.(), 0);
    await h.close();
  });
});
