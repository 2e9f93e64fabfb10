import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { factory } from '../../adapters/memory/index.ts';
import { holdRegistry, type RegistryHold } from '../../adapters/memory/named.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { Adapter } from '../adapter/contract.ts';
import { dialPolicy } from '../kernel/dial.ts';
import { WeirError } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { type Instance, NO_METADATA } from '../model/instance.ts';
import { type ServiceKey, serviceId } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import { Metrics } from '../telemetry/metrics.ts';
import type { RegistrationSource } from './choose-targets.ts';
import { type RegistrationRequest, registrationOf } from './registration.ts';
import { Registrations } from './registrations.ts';

const service: ServiceKey = { namespace: 'game', name: 'lobby' };
const request: RegistrationRequest = { service, id: 'lobby-1', host: '10.0.0.5', port: 8000 };
let directory = '';
let count = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-registrations-'));
});
after(() => rm(directory, { recursive: true }));

/** One embedded registry and a client of it whose calls are counted and can be made to fail. */
class Site {
  readonly sourceId: string;
  readonly hold: RegistryHold;
  readonly clock: FakeClock;
  readonly name = `registrations-${++count}`;
  calls: string[] = [];
  fail: SourceError | null = null;
  hang = false;
  registerByDefault = true;
  adapter: Adapter;

  constructor(sourceId: string, clock: FakeClock) {
    this.sourceId = sourceId;
    this.clock = clock;
    this.hold = holdRegistry(this.name, clock);
    this.adapter = this.client();
  }

  /** A fresh client: what a new process has. */
  client(): Adapter {
    const dial = dialPolicy({ allowLoopback: true, allowNames: true, cidrs: [], ports: [] }, () => []);
    const options = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
    const deps = { sourceId: this.sourceId, clock: this.clock, random: seededRandom(1), dial, log: silentLog, count: () => {} };
    const inner = factory.create({ registry: this.name }, options, deps);
    const gate = async <T>(what: string, call: () => Promise<T> | undefined): Promise<T> => {
      this.calls.push(what);
      if (this.hang) return new Promise(() => {});
      if (this.fail !== null) throw this.fail;
      return (await call()) as T;
    };
    return {
      kind: 'memory',
      capabilities: inner.capabilities,
      watch: (key, signal) => inner.watch(key, signal),
      read: (key, signal) => inner.read(key, signal),
      put: (writes, how, signal) => gate('put', () => inner.put?.(writes, how, signal)),
      renew: (receipts, signal) => gate('renew', () => inner.renew?.(receipts, signal)),
      remove: (receipts, how, signal) => gate('remove', () => inner.remove?.(receipts, how, signal)),
      setHealth: (receipt, health, signal) => gate(`health ${health}`, () => inner.setHealth?.(receipt, health, signal)),
      close: () => inner.close(),
    };
  }

  get source(): RegistrationSource {
    return { sourceId: this.sourceId, adapter: this.adapter, registerByDefault: this.registerByDefault, canRegister: true };
  }

  async instances(key: ServiceKey = service): Promise<readonly Instance[]> {
    const snapshot = this.hold.registry.snapshot(key);
    return snapshot.kind === 'present' ? snapshot.instances : [];
  }
}

/** A registry that knows a record by its address alone, as Polaris and Nacos do; `life`: who keeps its records alive. */
class AddressRegistry {
  readonly records = new Map<string, Instance>();
  readonly calls: string[] = [];
  fail: SourceError | null = null;
  life: 'core' | 'server' = 'core';

  adapter(base: Adapter): Adapter {
    const { setHealth: _, ...rest } = base;
    const call = <T>(what: string, ids: readonly string[], run: () => T): Promise<T> => {
      this.calls.push(`${what} ${ids.join()}`);
      return this.fail === null ? Promise.resolve(run()) : Promise.reject(this.fail);
    };
    return {
      ...rest,
      capabilities: { ...base.capabilities, heartbeat: this.life },
      put: (writes) =>
        call(
          'put',
          writes.map(({ instance }) => `${instance.host}:${instance.port}`),
          () =>
            writes.map(({ key, instance }) => {
              const nativeId = `${instance.host}:${instance.port}`;
              this.records.set(nativeId, instance);
              return { service: key, nativeId };
            }),
        ),
      renew: (receipts) =>
        call(
          'renew',
          receipts.map(({ nativeId }) => nativeId),
          () =>
            receipts.map(({ nativeId }) =>
              this.records.has(nativeId) ? { kind: 'renewed' as const, leaseMs: 15_000 } : { kind: 'forgotten' as const },
            ),
        ),
      remove: (receipts) =>
        call(
          'remove',
          receipts.map(({ nativeId }) => nativeId),
          () =>
            receipts.map(({ nativeId }) => {
              this.records.delete(nativeId);
              return true as const;
            }),
        ),
    };
  }
}

interface World {
  readonly clock: FakeClock;
  readonly sites: Site[];
  readonly audit: AuditLine[];
  readonly lost: object[];
  readonly metrics: Metrics;
  readonly path: string;
  registrations: Registrations;
  open(): Promise<Registrations>;
}

async function world(ids: string[] = ['a']): Promise<World> {
  const clock = new FakeClock();
  const sites = ids.map((id) => new Site(id, clock));
  const path = join(directory, `journal-${++count}`);
  const audit: AuditLine[] = [];
  const lost: object[] = [];
  const metrics = new Metrics();
  const open = (): Promise<Registrations> =>
    Registrations.open({
      clock,
      random: seededRandom(5),
      log: silentLog,
      sources: () => sites.map(({ source }) => source),
      nativeKey: (sourceId, key) =>
        key.namespace === 'unmapped' ? null : { ...key, name: sourceId === 'b' ? `b-${key.name}` : key.name },
      audit: (line) => audit.push(line),
      metrics,
      onLost: (details) => lost.push(details),
      journalPath: path,
      uid: null,
    });
  return { clock, sites, audit, lost, metrics, path, registrations: await open(), open };
}

/** Lets time pass until the promise settles. */
async function during<T>(clock: FakeClock, promise: Promise<T>, step = 10): Promise<T> {
  let over = false;
  const watched = promise.finally(() => {
    over = true;
  });
  watched.catch(() => undefined);
  await eventually(async () => {
    await clock.advance(step);
    return over;
  });
  return watched;
}

/** Lets time pass until the claim's assertions hold; the journal is a real file, so real time passes too. */
function until(clock: FakeClock, claim: () => void | Promise<void>): Promise<unknown> {
  return eventually(async () => {
    await clock.advance(50);
    await claim();
    return true;
  });
}

/** Time in small steps: so that files and promises keep up with it. */
async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let done = 0; done < ms; done += 100) await clock.advance(Math.min(100, ms - done));
}

function only(w: World): Site {
  return w.sites[0] ?? assert.fail('no site');
}

describe('registrations: life of one', () => {
  it('is put at once, shown live with its lease, renewed at a third of its ttl, and removed on request', async () => {
    const w = await world();
    const site = only(w);
    const view = await during(w.clock, w.registrations.upsert({ ...request, weight: 200, metadata: new Map([['zone', 'a']]) }));
    const target = view.targets.get('a');
    assert.equal(target?.state, 'live');
    assert.equal(target?.nativeId, 'lobby-1');
    assert.ok((target?.leaseMs ?? 0) > 14_000 && (target?.leaseMs ?? 0) <= 15_000);
    const [instance] = await site.instances();
    assert.deepEqual(
      [instance?.host, instance?.port, instance?.weight, instance?.metadata.get('zone')],
      ['10.0.0.5', 8000, 200, 'a'],
    );
    await pass(w.clock, 60_000);
    const renewals = site.calls.filter((call) => call === 'renew').length;
    assert.ok(renewals >= 10 && renewals <= 14, `${renewals} renewals in a minute`);
    assert.equal(site.calls.filter((call) => call === 'put').length, 1);
    assert.equal((await site.instances()).length, 1);
    await during(w.clock, w.registrations.remove(service, 'lobby-1'));
    assert.deepEqual(await site.instances(), []);
    assert.deepEqual(w.registrations.list(), []);
    assert.equal(await w.registrations.remove(service, 'lobby-1'), null);
    assert.deepEqual(
      w.audit.map(({ what, registry, service: name, instance: who, result }) => [what, registry, name, who, result]),
      [
        ['put', 'a', 'game/lobby', 'lobby-1 10.0.0.5:8000', 'ok'],
        ['remove', 'a', 'game/lobby', 'lobby-1 10.0.0.5:8000', 'ok'],
      ],
    );
    await w.registrations.shutdown('keep');
    assert.equal(w.clock.pending, 0);
  });

  it('goes into several registries at once, each by its own name for the service', async () => {
    const w = await world(['a', 'b']);
    const view = await during(w.clock, w.registrations.upsert(request));
    assert.deepEqual([...view.targets.keys()], ['a', 'b']);
    assert.equal((await w.sites[0]?.instances())?.length, 1);
    assert.equal((await w.sites[1]?.instances({ ...service, name: 'b-lobby' }))?.length, 1);
    await w.registrations.shutdown('keep');
  });

  it('a changed body is put in place, a repeated one is not written again', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    await during(w.clock, w.registrations.upsert(request));
    assert.equal(only(w).calls.join(), 'put');
    await during(w.clock, w.registrations.upsert({ ...request, weight: 7, port: 8001 }));
    assert.deepEqual(
      (await only(w).instances()).map(({ port, weight }) => [port, weight]),
      [[8001, 7]],
    );
    await w.registrations.shutdown('keep');
  });

  it('leaves a registry that is no longer among its sources', async () => {
    const w = await world(['a', 'b']);
    await during(w.clock, w.registrations.upsert(request));
    const view = await during(w.clock, w.registrations.upsert({ ...request, sources: ['a'] }));
    await until(w.clock, async () => {
      assert.deepEqual([...view.targets.keys()], ['a']);
    });
    assert.equal((await w.sites[0]?.instances())?.length, 1);
    assert.deepEqual(await w.sites[1]?.instances({ ...service, name: 'b-lobby' }), []);
    await w.registrations.shutdown('keep');
  });
});

describe('registrations: refusals', () => {
  const code = (expected: string) => (thrown: unknown) => thrown instanceof WeirError && thrown.code === expected;

  it('says which sources there are when none, several or a wrong one is meant', async () => {
    const w = await world(['a', 'b']);
    for (const site of w.sites) site.registerByDefault = false;
    await assert.rejects(w.registrations.upsert(request), (thrown) => {
      assert.ok(thrown instanceof WeirError && thrown.code === 'REGISTRATION_TARGET');
      assert.deepEqual(thrown.details?.['candidates'], ['a', 'b']);
      return true;
    });
    await assert.rejects(w.registrations.upsert({ ...request, sources: ['nowhere'] }), code('SOURCE_NOT_FOUND'));
    await assert.rejects(
      w.registrations.upsert({ ...request, service: { namespace: 'unmapped', name: 'x' }, sources: ['a'] }),
      code('REGISTRATION_TARGET'),
    );
    assert.deepEqual(w.registrations.list(), []);
    await w.registrations.shutdown('keep');
  });

  it('writes nothing anywhere when one of several targets cannot take it', async () => {
    const w = await world(['a', 'b']);
    await assert.rejects(w.registrations.upsert({ ...request, sources: ['a', 'nowhere', 'b'] }), code('SOURCE_NOT_FOUND'));
    await pass(w.clock, 5_000);
    assert.deepEqual(
      w.sites.flatMap(({ calls }) => calls),
      [],
    );
    assert.deepEqual(w.audit, []);
    await w.registrations.shutdown('keep');
  });

  it('two services that have one name in a registry cannot have one address there', async () => {
    const w = await world();
    const spare = w.sites[0]?.source ?? assert.fail();
    const registrations = await Registrations.open({
      clock: w.clock,
      random: seededRandom(5),
      log: silentLog,
      sources: () => [spare],
      nativeKey: () => ({ namespace: 'default', name: 'same' }),
      audit: () => {},
      metrics: new Metrics(),
      onLost: () => {},
      journalPath: `${w.path}-same`,
      uid: null,
    });
    await during(w.clock, registrations.upsert(request));
    const other = { ...request, service: { namespace: 'game', name: 'other' } };
    await assert.rejects(registrations.upsert(other), code('REGISTRATION_CONFLICT'));
    await during(w.clock, registrations.upsert({ ...other, port: 8001 }));
    await registrations.shutdown('keep');
    await w.registrations.shutdown('keep');
  });

  it('takes no more once weir is stopping, and the journal stays as it was', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    await during(w.clock, w.registrations.shutdown('keep'));
    const before = await readFile(w.path);
    await assert.rejects(w.registrations.upsert({ ...request, id: 'late', port: 9000 }), code('DRAINING'));
    await assert.rejects(w.registrations.remove(service, 'lobby-1'), code('DRAINING'));
    await w.registrations.replaceDeclared([registrationOf({ ...request, id: 'late', port: 9000 })]);
    await w.registrations.retarget();
    w.registrations.setHealth(service, 'lobby-1', false);
    await pass(w.clock, 1_000);
    assert.deepEqual(await readFile(w.path), before);
    assert.equal((await only(w).instances()).length, 1);
    assert.equal(w.clock.pending, 0);
  });

  it('says what is wrong with a body', async () => {
    const w = await world();
    for (const wrong of [
      { host: '999.1.1.1' },
      { port: 0 },
      { weight: -1 },
      { ttl: 4_999 },
      { ttl: 60_001 },
      { id: '' },
      { metadata: new Map([['weir-origin', 'x']]) },
      { metadata: new Map([['k', 'x'.repeat(2_000)]]) },
    ]) {
      await assert.rejects(w.registrations.upsert({ ...request, ...wrong }), code('BAD_REQUEST'), JSON.stringify(wrong));
    }
    await w.registrations.shutdown('keep');
  });

  it('409 where the address belongs to another owner, in which case nothing is left behind anywhere', async () => {
    const w = await world(['a', 'b']);
    const taken = {
      id: 'native',
      host: '10.0.0.5',
      port: 8000,
      transport: 'tcp',
      weight: 1,
      health: 'healthy',
      isolated: false,
    } as const;
    w.sites[1]?.hold.registry.put({ ...service, name: 'b-lobby' }, { ...taken, metadata: NO_METADATA }, null);
    await assert.rejects(during(w.clock, w.registrations.upsert(request)), code('REGISTRATION_CONFLICT'));
    await until(w.clock, async () => {
      assert.deepEqual(await w.sites[0]?.instances(), []);
    });
    assert.deepEqual(
      (await w.sites[1]?.instances({ ...service, name: 'b-lobby' }))?.map(({ id }) => id),
      ['native'],
    );
    assert.deepEqual(w.registrations.list(), []);
    await w.registrations.shutdown('keep');
  });

  it('a change that is refused leaves the registration as it was', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    const other = {
      id: 'native',
      host: '10.0.0.5',
      port: 8001,
      transport: 'tcp',
      weight: 1,
      health: 'healthy',
      isolated: false,
    } as const;
    only(w).hold.registry.put(service, { ...other, metadata: NO_METADATA }, null);
    await assert.rejects(during(w.clock, w.registrations.upsert({ ...request, port: 8001 })), code('REGISTRATION_CONFLICT'));
    await pass(w.clock, 20_000);
    assert.deepEqual((await only(w).instances()).map(({ id, port }) => `${id} ${port}`).sort(), ['lobby-1 8000', 'native 8001']);
    assert.equal(w.registrations.list()[0]?.targets.get('a')?.state, 'live');
    await w.registrations.shutdown('keep');
  });

  it('two registrations of one service may share an address in different sources', async () => {
    const w = await world(['a', 'b']);
    await during(w.clock, w.registrations.upsert({ ...request, sources: ['a'], weight: 100 }));
    const other = await during(w.clock, w.registrations.upsert({ ...request, id: 'twin', sources: ['b'], weight: 50 }));
    assert.deepEqual([...other.targets.keys()], ['b']);
    await assert.rejects(w.registrations.upsert({ ...request, id: 'third', sources: ['b'] }), code('REGISTRATION_CONFLICT'));
    await w.registrations.shutdown('keep');
  });

  it('two registrations of one service cannot share an address', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    await assert.rejects(w.registrations.upsert({ ...request, id: 'twin' }), code('REGISTRATION_CONFLICT'));
    await w.registrations.replaceDeclared([registrationOf({ ...request, id: 'twin' })]);
    assert.deepEqual(
      w.registrations.list().map(({ id }) => id),
      ['lobby-1'],
    );
    await w.registrations.shutdown('keep');
  });
});

describe('registrations: loss and recovery', () => {
  it('is accepted while the registry is away, and registered once it is back', async () => {
    const w = await world();
    only(w).fail = new SourceError('lost', 'unreachable');
    const view = await during(w.clock, w.registrations.upsert(request), 50);
    assert.deepEqual(view.targets.get('a'), { state: 'pending', error: 'unreachable' });
    only(w).fail = null;
    await eventually(async () => {
      await w.clock.advance(100);
      return (await only(w).instances()).length === 1;
    });
    await w.registrations.shutdown('keep');
  });

  it('a registry that hangs holds up neither the answer for long nor another registry', async () => {
    const w = await world(['a', 'b']);
    const [a, b] = w.sites;
    assert.ok(a !== undefined && b !== undefined);
    a.hang = true;
    const from = w.clock.now();
    const view = await during(w.clock, w.registrations.upsert(request));
    assert.ok(w.clock.now() - from <= 2_100, `answered after ${w.clock.now() - from} ms`);
    assert.deepEqual([view.targets.get('a')?.state, view.targets.get('b')?.state], ['pending', 'live']);
    await w.registrations.shutdown('keep');
  });

  it('is lost from 0.8 of the ttl without renewal on, which is said once, and live again after a renewal', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    const state = () => w.registrations.list()[0]?.targets.get('a')?.state;
    only(w).fail = new SourceError('lost', 'unreachable');
    const from = w.clock.now();
    while (state() === 'live') {
      await w.clock.advance(50);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const after = w.clock.now() - from;
    assert.ok(after >= 11_000 && after <= 12_050, `lost after ${after} ms`);
    assert.equal(state(), 'lost');
    await eventually(async () => {
      await w.clock.advance(100);
      return w.lost.length === 1;
    });
    only(w).fail = null;
    await eventually(async () => {
      await w.clock.advance(100);
      return state() === 'live';
    });
    assert.equal(w.lost.length, 1);
    assert.ok(w.audit.some(({ what, result }) => what === 'renew-failed' && result === 'lost: unreachable'));
    await w.registrations.shutdown('keep');
  });

  it('every write is counted by source, kind and result; the series go with their source', async () => {
    const w = await world();
    const count = (what: string, result: string) => w.metrics.counter('weir_registry_writes_total', 'a', what, result).value;
    await during(w.clock, w.registrations.upsert(request));
    only(w).fail = new SourceError('denied', 'token abc is wrong');
    await during(w.clock, w.registrations.upsert({ ...request, weight: 7 }));
    assert.deepEqual([count('put', 'ok'), count('put', 'denied')], [1, 1]);
    assert.equal(w.audit.length, 2);
    const before = w.metrics.size;
    w.sites.splice(0);
    await w.registrations.retarget();
    assert.equal(w.metrics.size, before - 2);
    await w.registrations.shutdown('keep');
  });

  it('is registered again when the registry has forgotten it (wiped, or the lease ran out)', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    only(w).hold.registry.wipe();
    assert.equal((await only(w).instances()).length, 0);
    await pass(w.clock, 6_000);
    assert.equal((await only(w).instances()).length, 1);
    assert.deepEqual(only(w).calls, ['put', 'renew', 'put']);
    await w.registrations.shutdown('keep');
  });

  it('waits for a source that is not there yet, and the journal being unwritable stops no renewal', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    const [site] = w.sites.splice(0);
    assert.ok(site !== undefined);
    await w.registrations.shutdown('keep');
    const again = await w.open();
    await pass(w.clock, 3_000);
    assert.match(again.list()[0]?.targets.get('a')?.error ?? '', /source a is not there/);
    w.sites.push(site);
    site.calls = [];
    await rm(w.path);
    await writeFile(`${w.path}.dir`, '');
    await until(w.clock, () => assert.equal(again.list()[0]?.targets.get('a')?.state, 'live'));
    assert.equal(site.calls[0], 'renew');
    await again.shutdown('keep');
  });

  it('a health that the registry refuses to take (not ours any more) is put instead', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert({ ...request, healthCheck: {} }));
    only(w).hold.registry.wipe();
    w.registrations.setHealth(service, 'lobby-1', false);
    await until(w.clock, async () => assert.equal((await only(w).instances())[0]?.health, 'unhealthy'));
    assert.deepEqual(only(w).calls, ['put', 'health unhealthy', 'put']);
    await w.registrations.shutdown('keep');
  });

  it('an adapter that answers fewer records than it was asked loses only those', async () => {
    const w = await world();
    const { put } = only(w).adapter;
    only(w).adapter = {
      ...only(w).adapter,
      put: async (writes, how, signal) => ((await put?.(writes, how, signal)) ?? []).slice(0, 1),
    };
    await w.registrations.replaceDeclared([registrationOf(request), registrationOf({ ...request, id: 'two', port: 2 })]);
    await until(w.clock, () => {
      const states = w.registrations.list().map(({ targets }) => targets.get('a'));
      assert.deepEqual(states.map((target) => target?.state).sort(), ['live', 'pending']);
      assert.ok(states.some((target) => target?.error === 'the adapter gave no answer for this record'));
    });
    await w.registrations.shutdown('keep');
  });

  it('a registry that gives the record another native id loses the old one after the new one stands', async () => {
    const w = await world();
    const site = only(w);
    const { put, ...rest } = site.adapter;
    const byAddress: Adapter['put'] = (writes, how, signal) =>
      put?.(
        writes.map(({ key, instance }) => ({ key, instance: { ...instance, id: `key-${instance.port}` } })),
        how,
        signal,
      ) ?? Promise.resolve([]);
    site.adapter = { ...rest, put: byAddress };
    await during(w.clock, w.registrations.upsert(request));
    const sizes: number[] = [];
    site.hold.registry.subscribe({ changed: () => void site.instances().then((all) => sizes.push(all.length)), cut() {} });
    await during(w.clock, w.registrations.upsert({ ...request, port: 8001 }));
    await until(w.clock, async () =>
      assert.deepEqual(
        (await site.instances()).map(({ id }) => id),
        ['key-8001'],
      ),
    );
    assert.ok(!sizes.includes(0), 'never without a record');
    await w.registrations.shutdown('keep');
  });

  it('a thousand registrations are renewed in batches from one timer', async () => {
    const w = await world();
    const list = Array.from({ length: 1_000 }, (_, n) => registrationOf({ ...request, id: `r${n}`, port: 1_000 + n }));
    await w.registrations.replaceDeclared(list);
    await eventually(async () => {
      await w.clock.advance(10);
      return (await only(w).instances()).length === 1_000;
    });
    assert.equal(only(w).calls.length, 10, 'ten batches of a hundred');
    only(w).calls = [];
    let timers = 0;
    for (let n = 0; n < 300; n++) {
      await w.clock.advance(100);
      timers = Math.max(timers, w.clock.pending);
    }
    assert.equal(w.registrations.counts().get('live'), 1_000);
    assert.ok(only(w).calls.length <= 4 * 30 * 2, `${only(w).calls.length} calls in 30 s`);
    assert.ok(timers <= 3, `${timers} timers`);
    await w.registrations.shutdown('keep');
  });
});

describe('registrations: records that live by the connection of their adapter', () => {
  it('are looked at three times in a ttl, put again when they are gone, and never called live without', async () => {
    const w = await world();
    const registry = new AddressRegistry();
    registry.life = 'server';
    only(w).adapter = registry.adapter(only(w).adapter);
    const view = await during(w.clock, w.registrations.upsert(request));
    assert.deepEqual(view.targets.get('a'), { state: 'live', nativeId: '10.0.0.5:8000' });
    await pass(w.clock, 15_000);
    assert.equal(registry.calls.filter((call) => call.startsWith('put')).length, 1);
    const looks = registry.calls.filter((call) => call.startsWith('renew')).length;
    assert.ok(looks >= 2 && looks <= 4, `${looks} looks in a ttl`);
    const state = () => w.registrations.list()[0]?.targets.get('a')?.state;
    // The connection broke.
    registry.records.clear();
    await until(w.clock, () => assert.equal(registry.records.size, 1));
    await until(w.clock, () => assert.equal(state(), 'live'));
    // And now the server stays away.
    registry.records.clear();
    const { renew } = only(w).adapter;
    only(w).adapter = {
      ...only(w).adapter,
      renew: async (...given) => {
        const answer = (await renew?.(...given)) ?? [];
        registry.fail = new SourceError('lost', 'no connection');
        return answer;
      },
    };
    await until(w.clock, () => assert.equal(state(), 'lost'));
    registry.fail = null;
    await until(w.clock, () => assert.equal(state(), 'live'));
    assert.equal(registry.records.size, 1);
    await w.registrations.shutdown('keep');
  });

  it('are put again every minute all the same: another client may have taken them away on the server', async () => {
    const w = await world();
    const registry = new AddressRegistry();
    registry.life = 'server';
    only(w).adapter = registry.adapter(only(w).adapter);
    await during(w.clock, w.registrations.upsert(request));
    await pass(w.clock, 190_000);
    const puts = registry.calls.filter((call) => call.startsWith('put')).length;
    assert.ok(puts >= 3 && puts <= 4, `${puts} puts in 190 s`);
    await w.registrations.shutdown('keep');
  });

  it('are put at once when their source is configured anew', async () => {
    const w = await world();
    const registry = new AddressRegistry();
    registry.life = 'server';
    only(w).adapter = registry.adapter(only(w).adapter);
    await w.registrations.retarget();
    await during(w.clock, w.registrations.upsert(request));
    registry.records.clear();
    await w.registrations.retarget();
    await pass(w.clock, 500);
    assert.equal(registry.records.size, 0, 'the same connection is not asked out of turn');
    only(w).adapter = registry.adapter(only(w).client());
    await w.registrations.retarget();
    await pass(w.clock, 500);
    assert.equal(registry.records.size, 1);
    await w.registrations.shutdown('keep');
  });
});

describe('registrations: registries that know a record by its address', () => {
  const declared = registrationOf(request);

  it('a change of id takes the record over: it is put in place and never removed', async () => {
    const w = await world();
    const registry = new AddressRegistry();
    only(w).adapter = registry.adapter(only(w).adapter);
    await w.registrations.replaceDeclared([declared]);
    await until(w.clock, () => assert.equal(registry.records.get('10.0.0.5:8000')?.id, 'lobby-1'));
    await w.registrations.replaceDeclared([registrationOf({ ...request, id: 'lobby-2' })]);
    await until(w.clock, () => assert.equal(registry.records.get('10.0.0.5:8000')?.id, 'lobby-2'));
    await pass(w.clock, 10_000);
    assert.ok(!registry.calls.some((call) => call.startsWith('remove')), registry.calls.join());
    assert.deepEqual(
      w.registrations.list().map(({ id }) => id),
      ['lobby-2'],
    );
    await w.registrations.shutdown('keep');
    const again = await w.open();
    assert.deepEqual(
      again.list().map(({ id, targets }) => [id, targets.get('a')?.nativeId]),
      [['lobby-2', '10.0.0.5:8000']],
      'the journal knows the new one alone',
    );
    await again.shutdown('keep');
  });

  it('a removal that comes late does not take away what was put at its address since', async () => {
    const w = await world();
    const registry = new AddressRegistry();
    const inner = registry.adapter(only(w).adapter);
    const answers: ((thrown: SourceError) => void)[] = [];
    only(w).adapter = {
      ...inner,
      remove: (receipts, how, signal) =>
        answers.length < 2
          ? new Promise((_, reject) => answers.push(reject))
          : (inner.remove?.(receipts, how, signal) ?? assert.fail()),
    };
    await during(w.clock, w.registrations.upsert(request));
    const removing = w.registrations.remove(service, 'lobby-1');
    await until(w.clock, () => assert.equal(answers.length, 1));
    // It is under way, so its record cannot be taken over, and then its answer is lost, twice (a call is tried again).
    const other = w.registrations.upsert({ ...request, id: 'lobby-2' });
    await until(w.clock, () => assert.equal(w.registrations.list().length, 1));
    answers[0]?.(new SourceError('lost', 'timeout'));
    await until(w.clock, () => assert.equal(answers.length, 2));
    answers[1]?.(new SourceError('lost', 'timeout'));
    await during(w.clock, Promise.all([removing, other]));
    await until(w.clock, () => assert.equal(registry.records.get('10.0.0.5:8000')?.id, 'lobby-2'));
    // Long enough for every try of the removal that the back-off would make.
    for (let round = 0; round < 100; round++) {
      await until(w.clock, () => {});
      assert.equal(registry.records.get('10.0.0.5:8000')?.id, 'lobby-2');
    }
    await w.registrations.shutdown('keep');
  });

  it('a port that changes to and fro leaves the present record alone', async () => {
    const w = await world();
    const registry = new AddressRegistry();
    const inner = registry.adapter(only(w).adapter);
    let stuck = true;
    only(w).adapter = {
      ...inner,
      remove: (receipts, how, signal) =>
        stuck ? Promise.reject(new SourceError('lost', 'timeout')) : (inner.remove?.(receipts, how, signal) ?? assert.fail()),
    };
    for (const port of [8000, 8001, 8000]) {
      await during(w.clock, w.registrations.upsert({ ...request, port }), 50);
      await until(w.clock, () =>
        assert.equal(
          registry.calls.findLast((call) => call.startsWith('put')),
          `put 10.0.0.5:${port}`,
        ),
      );
    }
    assert.deepEqual([...registry.records.keys()].sort(), ['10.0.0.5:8000', '10.0.0.5:8001']);
    stuck = false;
    await until(w.clock, () => assert.deepEqual([...registry.records.keys()], ['10.0.0.5:8000']));
    assert.ok(!registry.calls.includes('remove 10.0.0.5:8000'), registry.calls.join());
    await w.registrations.shutdown('keep');
  });
});

describe('registrations: health', () => {
  const checked: RegistrationRequest = { ...request, healthCheck: { http: { path: '/healthz' } } };

  it('a failing check makes the record unhealthy, a passing one healthy again, in place', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(checked));
    const health = async () => (await only(w).instances())[0]?.health;
    assert.equal(await health(), 'unknown');
    for (const [passes, word] of [
      [true, 'healthy'],
      [false, 'unhealthy'],
      [true, 'healthy'],
    ] as const) {
      w.registrations.setHealth(service, 'lobby-1', passes);
      await until(w.clock, async () => {
        assert.equal(await health(), word);
      });
    }
    assert.deepEqual(only(w).calls, ['put', 'health healthy', 'health unhealthy', 'health healthy']);
    await w.registrations.shutdown('keep');
  });

  it('onUnhealthy remove takes the record out and puts it back', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert({ ...checked, onUnhealthy: 'remove' }));
    w.registrations.setHealth(service, 'lobby-1', false);
    await until(w.clock, async () => {
      assert.deepEqual(await only(w).instances(), []);
    });
    assert.equal(w.registrations.list().length, 1, 'the registration itself stays');
    w.registrations.setHealth(service, 'lobby-1', true);
    await until(w.clock, async () => {
      assert.equal((await only(w).instances()).length, 1);
    });
    await w.registrations.shutdown('keep');
  });

  it('a registry without a word for unhealthy gets weight 0, one without weights must not have the record', async () => {
    for (const [keeps, expected] of [
      [new Set(['weight'] as const), [0]],
      [new Set([] as const), []],
    ] as const) {
      const w = await world();
      const { setHealth: _, ...plain } = only(w).adapter;
      only(w).adapter = { ...plain, capabilities: { ...plain.capabilities, keeps } };
      await during(w.clock, w.registrations.upsert(checked));
      w.registrations.setHealth(service, 'lobby-1', false);
      await until(w.clock, async () => {
        assert.deepEqual(
          (await only(w).instances()).map(({ weight }) => weight),
          expected,
        );
      });
      w.registrations.setHealth(service, 'lobby-1', true);
      await until(w.clock, async () => {
        assert.deepEqual(
          (await only(w).instances()).map(({ weight }) => weight),
          [100],
        );
      });
      await w.registrations.shutdown('keep');
    }
  });

  it('a verdict ends with its check, and with the address that it was about', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(checked));
    w.registrations.setHealth(service, 'lobby-1', false);
    const health = async () => (await only(w).instances())[0]?.health;
    await until(w.clock, async () => assert.equal(await health(), 'unhealthy'));
    await during(w.clock, w.registrations.upsert({ ...checked, weight: 7 }));
    assert.equal(await health(), 'unhealthy', 'another weight says nothing of the health');
    await during(w.clock, w.registrations.upsert({ ...checked, port: 8001 }));
    assert.equal(await health(), 'unknown');
    w.registrations.setHealth(service, 'lobby-1', false);
    await until(w.clock, async () => assert.equal(await health(), 'unhealthy'));
    await during(w.clock, w.registrations.upsert(request));
    assert.equal(await health(), 'healthy', 'without a check nobody could ever bring it back');
    await w.registrations.shutdown('keep');
  });

  it('a change during a call that hangs is made up for after it', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(checked));
    only(w).hang = true;
    w.registrations.setHealth(service, 'lobby-1', true);
    await pass(w.clock, 300);
    w.registrations.setHealth(service, 'lobby-1', false);
    only(w).hang = false;
    await pass(w.clock, 8_000);
    assert.equal((await only(w).instances())[0]?.health, 'unhealthy');
    await w.registrations.shutdown('keep');
  });
});

describe('registrations: the journal', () => {
  it('after kill -9 everything is taken up again by renewal: no second put, no gap, same record', async () => {
    const w = await world(['a', 'b']);
    await during(w.clock, w.registrations.upsert({ ...request, healthCheck: {}, metadata: new Map([['__proto__', 'x']]) }));
    w.registrations.setHealth(service, 'lobby-1', true);
    await until(w.clock, async () => assert.match(await readFile(w.path, 'utf8'), /"health":"healthy".*"health":"healthy"/));
    const journal = await readFile(w.path);
    const before = await w.sites[0]?.instances();
    // Killed: nothing of the old process runs on; the file is what it was.
    await w.registrations.shutdown('keep');
    await writeFile(w.path, journal);
    for (const site of w.sites) {
      site.calls = [];
      site.adapter = site.client();
    }
    let shrank = false;
    const unsubscribe = w.sites[0]?.hold.registry.subscribe({
      changed: () => {
        shrank = true;
      },
      cut() {},
    });
    const again = await w.open();
    assert.equal(again.list()[0]?.targets.get('a')?.state, 'pending');
    await pass(w.clock, 30_000);
    assert.deepEqual(
      [...(again.list()[0]?.targets.values() ?? [])].map(({ state }) => state),
      ['live', 'live'],
    );
    for (const site of w.sites)
      assert.ok(site.calls.length >= 4 && site.calls.every((call) => call === 'renew'), site.calls.join());
    assert.equal(shrank, false, 'nobody who reads the registry saw a change');
    assert.deepEqual(await w.sites[0]?.instances(), before);
    unsubscribe?.();
    await again.shutdown('keep');
  });

  it('a restart that took longer than the lease puts again, with the old receipt as proof', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    await w.registrations.shutdown('keep');
    await w.clock.advance(60_000);
    assert.equal((await only(w).instances()).length, 0);
    only(w).adapter = only(w).client();
    const again = await w.open();
    await until(w.clock, async () => {
      assert.equal((await only(w).instances()).length, 1);
    });
    await again.shutdown('keep');
  });

  it('deregister at shutdown removes everything; what could not be removed is removed at the next start', async () => {
    const w = await world(['a', 'b']);
    await during(w.clock, w.registrations.upsert(request));
    const [a, b] = w.sites;
    assert.ok(a !== undefined && b !== undefined);
    b.fail = new SourceError('lost', 'unreachable');
    await during(w.clock, w.registrations.shutdown('deregister'), 50);
    assert.deepEqual([(await a.instances()).length, (await b.instances({ ...service, name: 'b-lobby' })).length], [0, 1]);
    assert.equal(w.clock.pending, 0);
    b.fail = null;
    const again = await w.open();
    assert.deepEqual(again.list(), []);
    await until(w.clock, async () => {
      assert.equal((await b.instances({ ...service, name: 'b-lobby' })).length, 0);
    });
    await during(w.clock, again.shutdown('deregister'));
    const third = await w.open();
    assert.equal(third.counts().get('pending'), 0);
    await third.shutdown('keep');
  });

  it('a removal that was asked for before a crash is not forgotten by it', async () => {
    const w = await world();
    await during(w.clock, w.registrations.upsert(request));
    only(w).fail = new SourceError('lost', 'unreachable');
    await during(w.clock, w.registrations.remove(service, 'lobby-1'), 50);
    assert.equal((await only(w).instances()).length, 1);
    await w.registrations.shutdown('keep');
    only(w).fail = null;
    const again = await w.open();
    await until(w.clock, async () => {
      assert.deepEqual(await only(w).instances(), []);
    });
    await again.shutdown('keep');
  });
});

describe('registrations: weir.yaml', () => {
  const declared = registrationOf(request);

  it('declared ones come and go with the file; the same list again writes nothing', async () => {
    const w = await world();
    await w.registrations.replaceDeclared([declared]);
    await pass(w.clock, 300);
    await w.registrations.replaceDeclared([declared]);
    await until(w.clock, async () => {
      assert.equal(only(w).calls.join(), 'put');
    });
    await assert.rejects(
      w.registrations.upsert(request),
      (thrown) => thrown instanceof WeirError && thrown.code === 'REGISTRATION_CONFLICT',
    );
    await assert.rejects(w.registrations.remove(service, 'lobby-1'), (thrown) => thrown instanceof WeirError);
    await during(w.clock, w.registrations.upsert({ ...request, id: 'api', port: 9_000 }));
    await w.registrations.replaceDeclared([]);
    await until(w.clock, async () => {
      assert.deepEqual(
        (await only(w).instances()).map(({ id }) => id),
        ['api'],
        "what the API registered is not the file's",
      );
    });
    await w.registrations.shutdown('keep');
  });

  it('after a restart the same file changes nothing, another one removes what is gone from it', async () => {
    const w = await world();
    await w.registrations.replaceDeclared([declared, registrationOf({ ...request, id: 'two', port: 8_002 })]);
    await pass(w.clock, 300);
    await w.registrations.shutdown('keep');
    only(w).calls = [];
    only(w).adapter = only(w).client();
    const again = await w.open();
    await again.replaceDeclared([declared]);
    await until(w.clock, async () => {
      assert.deepEqual(
        (await only(w).instances()).map(({ id }) => id),
        ['lobby-1'],
      );
    });
    await until(w.clock, () => assert.deepEqual([...new Set(only(w).calls)].toSorted(), ['remove', 'renew']));
    await again.shutdown('keep');
  });

  it('a source that goes is deregistered from first; new targets are chosen when sources change', async () => {
    const w = await world(['a', 'b']);
    await during(w.clock, w.registrations.upsert(request));
    // As app shows a source that is leaving.
    const stays = w.sites[0]?.source ?? assert.fail();
    Object.defineProperty(w.sites[0], 'source', {
      get: () => ({ ...stays, registerByDefault: false, canRegister: false }),
      configurable: true,
    });
    await during(w.clock, w.registrations.leaveSource('a'));
    assert.deepEqual(await w.sites[0]?.instances(), []);
    const a = w.sites.shift();
    await w.registrations.retarget();
    assert.deepEqual([...(w.registrations.list()[0]?.targets.keys() ?? [])], ['b']);
    assert.ok(a !== undefined);
    Object.defineProperty(a, 'source', { value: stays });
    w.sites.push(a);
    await w.registrations.retarget();
    await until(w.clock, async () => {
      assert.equal((await a.instances()).length, 1);
    });
    assert.equal(serviceId(service), 'game/lobby');
    await w.registrations.shutdown('keep');
  });
});
