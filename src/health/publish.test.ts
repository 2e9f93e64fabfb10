// From views and checks to what the API and the data plane are told: first use, updates, holds, suspects, overrides, reload, cost.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Type } from 'typebox';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import type { View, ViewInstance } from '../catalog/view.ts';
import type { ClusterMessage, ClusterUpdate } from '../cluster/cluster-update.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { parseServiceId } from '../model/service.ts';
import { SettingsLoader, settingsOrThrow } from '../settings/load.ts';
import type { Settings } from '../settings/settings.ts';
import { Events } from '../telemetry/events.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { Overrides } from './overrides.ts';
import { failed, PASS, type Probe, type ProbeResult, type ProbeTarget } from './probe.ts';
import { Prober } from './prober.ts';
import { type CatalogPort, Publish } from './publish.ts';

/** The catalog's side of the bargain: views with rising revisions, listeners called synchronously. */
class FakeCatalog implements CatalogPort {
  readonly views = new Map<string, View>();
  readonly listeners = new Set<(service: string, view: View | undefined) => void>();
  readonly touched: string[] = [];
  index = 100;

  get(service: string): View | undefined {
    return this.views.get(service);
  }

  subscribe(listener: (service: string, view: View | undefined) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  touch(service: string): void {
    this.touched.push(service);
  }

  takeIndex(): number {
    return ++this.index;
  }

  allNames(): Iterable<string> {
    return this.views.keys();
  }

  /** A new view; `tell` false: as after a restore from disk. */
  put(service: string, instances: readonly ViewInstance[], extra: Partial<View> = {}, tell = true): View {
    const key = parseServiceId(service);
    assert.ok(key !== null);
    const view: View = { service, key, revision: ++this.index, instances, conflicts: [], ...extra };
    this.views.set(service, view);
    if (tell) for (const listener of this.listeners) listener(service, view);
    return view;
  }

  remove(service: string): void {
    this.views.delete(service);
    for (const listener of this.listeners) listener(service, undefined);
  }
}

function instance(host: string, over: Partial<ViewInstance> = {}): ViewInstance {
  return {
    network: '',
    transport: 'tcp',
    host,
    port: 80,
    weight: 100,
    registryHealth: 'healthy',
    isolated: false,
    metadata: new Map(),
    held: false,
    suspect: false,
    provenance: [{ source: 'local', nativeId: host, weight: 100, health: 'healthy', isolated: false, held: false }],
    ...over,
  };
}

const loader = new SettingsLoader(
  {
    kinds: ['memory'],
    load: async (kind) => ({
      kind,
      config: Type.Object({}, { additionalProperties: false }),
      create() {
        throw new Error('not created here');
      },
    }),
  },
  { env: () => undefined, readFile: () => Promise.reject(new Error('ENOENT')), hostName: 'h', stateDir: '/s' },
);

async function settingsOf(yaml: string): Promise<Settings> {
  return settingsOrThrow(await loader.load(Buffer.from(yaml))).settings;
}

async function rig(yaml = '') {
  const clock = new FakeClock();
  const catalog = new FakeCatalog();
  const answers = new Map<string, ProbeResult>();
  const probed: ProbeTarget[] = [];
  const probe: Probe = {
    run: async (target) => {
      probed.push(target);
      return answers.get(target.host) ?? PASS;
    },
    drop() {},
    close: async () => {},
  };
  const metrics = new Metrics();
  const events = new Events(clock, silentLog, metrics);
  const prober = new Prober({
    clock,
    random: seededRandom(3),
    probes: { http: probe, tcp: probe, grpc: probe },
    events,
    metrics,
  });
  const overrides = new Overrides({ clock, log: silentLog, path: null, uid: null });
  const sent: ClusterMessage[] = [];
  const world = { active: [] as string[], notReady: false, used: [] as string[], demand: false };
  const publish = new Publish(
    {
      clock,
      catalog,
      prober,
      overrides,
      dialOf: () => () => null,
      send: (message) => sent.push(message),
      activeServices: () => world.active,
      notReady: () => world.notReady,
      use: (service) => {
        world.used.push(service);
        return world.demand;
      },
    },
    await settingsOf(yaml),
  );
  const told: string[] = [];
  publish.subscribe((service) => told.push(service));
  const last = (): ClusterUpdate => {
    const message = sent.at(-1);
    assert.ok(message?.kind === 'cluster');
    return message;
  };
  const verdicts = (service: string): readonly string[] => publish.read(service)?.verdicts ?? [];
  return { clock, catalog, answers, probed, prober, overrides, sent, world, publish, told, last, verdicts };
}

const HTTP_CHECK = 'services: [{match: a/*, healthCheck: {http: {path: /h}, interval: 2s}}]';

describe('first use', () => {
  it('of a service is answered at once, and every later change is sent', async () => {
    const { catalog, publish, sent, last } = await rig();
    catalog.put('a/b', [instance('10.0.0.1')]);
    assert.deepEqual(sent, [], 'nobody asked yet');
    publish.firstUse('a/b');
    assert.deepEqual(last().endpoints, [{ host: '10.0.0.1', port: 80, weight: 100, verdict: 'healthy' }]);
    catalog.put('a/b', [instance('10.0.0.1'), instance('10.0.0.2', { registryHealth: 'unhealthy', locality: { zone: 'z' } })]);
    assert.deepEqual(last().endpoints[1], {
      host: '10.0.0.2',
      port: 80,
      weight: 100,
      verdict: 'unhealthy',
      locality: { zone: 'z' },
    });
    assert.equal(sent.length, 2);
  });

  it('asked twice is answered twice: what was sent may be forgotten there', async () => {
    const { catalog, publish, sent } = await rig();
    catalog.put('a/b', []);
    publish.firstUse('a/b');
    publish.firstUse('a/b');
    assert.deepEqual(
      sent.map(({ kind }) => kind),
      ['cluster', 'cluster'],
    );
  });

  it('of a name that is no service is `unknown`, or `notReady` while a source has no first answer', async () => {
    const { publish, sent, world } = await rig();
    publish.firstUse('a/b');
    world.notReady = true;
    publish.firstUse('c/d');
    assert.deepEqual(sent, [
      { kind: 'absent', service: 'a/b', why: 'unknown' },
      { kind: 'absent', service: 'c/d', why: 'notReady' },
    ]);
  });

  it('of a name that becomes a service later brings the update then', async () => {
    const { catalog, publish, sent, last } = await rig();
    publish.firstUse('a/b');
    catalog.put('a/b', [instance('10.0.0.1')]);
    assert.equal(sent.length, 2);
    assert.equal(last().service, 'a/b');
  });

  it('where a watch was started on demand waits for the answer, at most a second', async () => {
    const { clock, catalog, publish, sent, world } = await rig();
    world.demand = true;
    publish.firstUse('a/b');
    publish.firstUse('c/d');
    assert.deepEqual([sent, world.used], [[], ['a/b', 'c/d']]);
    catalog.put('a/b', [instance('10.0.0.1')]);
    assert.deepEqual(
      sent.map(({ service }) => service),
      ['a/b'],
    );
    await clock.advance(1_000);
    assert.deepEqual(sent.slice(1), [{ kind: 'absent', service: 'c/d', why: 'unknown' }]);
  });

  it('of a hundred thousand random names keeps a bounded memory of them', async () => {
    const { catalog, publish, sent } = await rig();
    for (let i = 0; i < 100_000; i++) publish.firstUse(`x/${i}`);
    sent.length = 0;
    for (let i = 0; i < 100_000; i += 1_000) catalog.put(`x/${i}`, []);
    assert.equal(sent.length, 10, 'only the newest 10,000 are remembered');
  });

  it('of a service that went away and came back needs no second first use', async () => {
    const { catalog, publish, sent, last } = await rig();
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    catalog.remove('a/b');
    assert.deepEqual(sent.at(-1), { kind: 'absent', service: 'a/b', why: 'unknown' });
    catalog.put('a/b', [instance('10.0.0.2')]);
    assert.equal(last().endpoints[0]?.host, '10.0.0.2');
  });

  it('of the services of dedicated listeners happens at the start and on reload', async () => {
    const { catalog, publish, sent } = await rig('listeners: [{listen: "127.0.0.1:1", service: a/b}]');
    catalog.put('a/b', [instance('10.0.0.1')], {}, false);
    publish.start();
    assert.deepEqual(
      sent.map(({ service }) => service),
      ['a/b'],
    );
    publish
      .prepare(await settingsOf('listeners: [{listen: "127.0.0.1:1", service: a/b}, {listen: "127.0.0.1:2", service: c/d}]'))
      .commit();
    assert.deepEqual(sent.at(-1), { kind: 'absent', service: 'c/d', why: 'unknown' });
  });
});

describe('the message to the data plane', () => {
  it('has rising revisions whether the view or a verdict changed', async () => {
    const { clock, catalog, publish, sent, overrides } = await rig();
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    catalog.put('x/y', []);
    await overrides.isolate('a/b', '10.0.0.1', 80, 60_000);
    catalog.put('a/b', [instance('10.0.0.1'), instance('10.0.0.2')]);
    await clock.advance(60_001);
    const revisions = sent.flatMap((message) => (message.kind === 'cluster' ? [message.revision] : []));
    assert.equal(revisions.length, 4);
    assert.deepEqual(
      revisions,
      [...new Set(revisions)].sort((a, b) => a - b),
    );
  });

  it('names groups and shares of a weighted merge: the merge’s own word, else the provenances', async () => {
    const { catalog, publish, last } = await rig();
    const provenance = (source: string) => ({
      source,
      nativeId: 'x',
      weight: 100,
      health: 'healthy' as const,
      isolated: false,
      held: false,
    });
    catalog.put(
      'a/b',
      [
        instance('10.0.0.1', { provenance: [provenance('one'), provenance('two')] }),
        instance('10.0.0.2', { groups: ['two'], provenance: [provenance('one')] }),
      ],
      {
        shares: [
          { source: 'one', share: 90 },
          { source: 'two', share: 10 },
        ],
      },
    );
    publish.firstUse('a/b');
    assert.deepEqual(last().groups, [
      { id: 'one', share: 90 },
      { id: 'two', share: 10 },
    ]);
    assert.deepEqual(
      last().endpoints.map(({ groups }) => groups),
      [['one', 'two'], ['two']],
    );
  });

  it('leaves UDP out, and takes one of two equal addresses in two networks', async () => {
    const { catalog, publish, last, verdicts } = await rig();
    catalog.put('a/b', [
      instance('10.0.0.1'),
      instance('10.0.0.1', { network: 'n2', weight: 5 }),
      instance('10.0.0.2', { transport: 'udp' }),
    ]);
    publish.firstUse('a/b');
    assert.deepEqual(
      last().endpoints.map(({ host, weight }) => [host, weight]),
      [['10.0.0.1', 100]],
    );
    assert.equal(verdicts('a/b').length, 3);
  });

  it('can be cloned as it is', async () => {
    const { catalog, publish, last } = await rig(HTTP_CHECK);
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    assert.deepEqual(structuredClone(last()), last());
  });
});

describe('configured checks', () => {
  it('run for every instance, once a minute without traffic and at their interval with it', async () => {
    const { clock, catalog, publish, probed, world } = await rig(HTTP_CHECK);
    catalog.put('a/b', [instance('10.0.0.1')]);
    await clock.advance(0);
    await clock.advance(20_000);
    assert.equal(probed.length, 1);
    assert.deepEqual([probed[0]?.kind, probed[0]?.path], ['http', '/h']);
    publish.firstUse('a/b');
    world.active = ['a/b'];
    await clock.advance(20_000);
    assert.ok(probed.length >= 10, `${probed.length} checks`);
    world.active = [];
    await clock.advance(70_000);
    const before = probed.length;
    await clock.advance(50_000);
    assert.ok(probed.length - before <= 2, `${probed.length - before} checks without traffic`);
  });

  it('make an instance unhealthy at once by a wrong status, tell everyone, and note the recovery', async () => {
    const { clock, catalog, publish, answers, told, last, verdicts, world } = await rig(HTTP_CHECK);
    answers.set('10.0.0.1', failed('status 503', true));
    catalog.put('a/b', [instance('10.0.0.1'), instance('10.0.0.2')]);
    publish.firstUse('a/b');
    world.active = ['a/b'];
    told.length = 0;
    await clock.advance(100);
    assert.deepEqual(verdicts('a/b'), ['unhealthy', 'healthy']);
    assert.equal(publish.verdictReason('a/b', '', '10.0.0.1', 80), 'HTTP check failed: status 503');
    assert.deepEqual(
      last().endpoints.map(({ verdict }) => verdict),
      ['unhealthy', 'healthy'],
    );
    assert.deepEqual(told, ['a/b']);
    assert.deepEqual(publish.counts('a/b'), { total: 2, healthy: 1, routable: 1 });
    answers.delete('10.0.0.1');
    await clock.advance(6_000);
    assert.deepEqual(verdicts('a/b'), ['healthy', 'healthy']);
    assert.ok((last().endpoints[0]?.recoveredAt ?? 0) > 1_700_000_000_000);
    assert.equal(last().endpoints[1]?.recoveredAt, undefined);
  });

  it('follow the policy on reload, and a service that is not touched by it is left alone', async () => {
    const { clock, catalog, publish, probed, sent } = await rig(HTTP_CHECK);
    catalog.put('a/b', [instance('10.0.0.1')]);
    catalog.put('c/d', [instance('10.0.0.2')]);
    publish.firstUse('a/b');
    publish.firstUse('c/d');
    await clock.advance(0);
    sent.length = 0;
    publish.prepare(await settingsOf('services: [{match: a/*, timeout: 3s, healthCheck: {tcp: {}}}]')).commit();
    await clock.advance(0);
    assert.deepEqual([...new Set(sent.map(({ service }) => service))], ['a/b']);
    assert.equal(probed.at(-1)?.kind, 'tcp');
    const message = sent.at(-1);
    assert.ok(message?.kind === 'cluster');
    assert.equal(message.policy.timeout, 3_000);
  });

  it('begin on reload for services that are there already', async () => {
    const { clock, catalog, publish, probed } = await rig();
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.prepare(await settingsOf(HTTP_CHECK)).commit();
    await clock.advance(0);
    assert.equal(probed.length, 1);
  });

  it('end when the instance or the service goes', async () => {
    const { catalog, prober } = await rig(HTTP_CHECK);
    catalog.put('a/b', [instance('10.0.0.1'), instance('10.0.0.2')]);
    assert.equal(prober.targets, 2);
    catalog.put('a/b', [instance('10.0.0.1')]);
    assert.equal(prober.targets, 1);
    catalog.remove('a/b');
    assert.equal(prober.targets, 0);
  });
});

describe('without a configured check', () => {
  it('healthy instances are never probed', async () => {
    const { clock, catalog, publish, probed } = await rig();
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    await clock.advance(10_000);
    assert.deepEqual(probed, []);
  });

  it('unknown and held ones are probed by TCP, only where there is traffic or was a first use within a minute', async () => {
    const { clock, catalog, publish, probed, prober } = await rig();
    catalog.put('a/b', [
      instance('10.0.0.1', { registryHealth: 'unknown' }),
      instance('10.0.0.2', { held: true }),
      instance('10.0.0.3'),
    ]);
    await clock.advance(10_000);
    assert.deepEqual(probed, [], 'nobody uses it');
    publish.firstUse('a/b');
    await clock.advance(100);
    assert.deepEqual(probed.map(({ host, kind }) => `${kind} ${host}`).sort(), ['tcp 10.0.0.1', 'tcp 10.0.0.2']);
    await clock.advance(70_000);
    assert.equal(prober.targets, 0, 'no traffic for a minute');
  });

  it('a TCP connect settles unknown, and failing ones are not routed after the third failure', async () => {
    const { clock, catalog, publish, answers, verdicts, world } = await rig();
    answers.set('10.0.0.2', failed('ECONNREFUSED'));
    catalog.put('a/b', [
      instance('10.0.0.1', { registryHealth: 'unknown' }),
      instance('10.0.0.2', { registryHealth: 'unknown' }),
    ]);
    assert.deepEqual(verdicts('a/b'), ['unknown', 'unknown']);
    publish.firstUse('a/b');
    world.active = ['a/b'];
    await clock.advance(100);
    assert.deepEqual(verdicts('a/b'), ['healthy', 'unknown']);
    await clock.advance(7_000);
    assert.deepEqual(verdicts('a/b'), ['healthy', 'unhealthy']);
  });

  it('evidence about a held instance goes to the catalog, which decides', async () => {
    const { clock, catalog, publish, answers, verdicts, prober, world } = await rig();
    answers.set('10.0.0.1', failed('ECONNREFUSED'));
    catalog.put('a/b', [instance('10.0.0.1', { held: true }), instance('10.0.0.2')]);
    publish.firstUse('a/b');
    world.active = ['a/b'];
    catalog.touched.length = 0;
    await clock.advance(7_000);
    assert.deepEqual(catalog.touched.at(-1), 'a/b');
    assert.ok(prober.evidence.failuresInARow('a/b', '', '10.0.0.1', 80) >= 3);
    assert.deepEqual(verdicts('a/b'), ['unhealthy', 'healthy']);
    const touches = catalog.touched.length;
    await clock.advance(10_000);
    assert.equal(catalog.touched.length, touches, 'a proof is told once');
  });

  it('an instance that has just become held is probed at once', async () => {
    const { clock, catalog, publish, probed, world } = await rig(
      'services: [{match: a/*, healthCheck: {tcp: {}, interval: 60s}}]',
    );
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    world.active = ['a/b'];
    await clock.advance(5_000);
    const before = probed.length;
    catalog.put('a/b', [instance('10.0.0.1', { held: true })]);
    await clock.advance(50);
    assert.equal(probed.length, before + 1);
    await clock.advance(10_000);
    assert.ok(probed.length >= before + 5, 'and every 2 s then');
  });
});

describe('instances from disk that are too old', () => {
  it('are probed before their first use: the dead one is not sent as usable', async () => {
    const { clock, catalog, publish, answers, sent, last } = await rig();
    answers.set('10.0.0.1', failed('ECONNREFUSED'));
    const old = { suspect: true, registryHealth: 'unknown' } as const;
    catalog.put('a/b', [instance('10.0.0.1', old), instance('10.0.0.2', old)], {}, false);
    publish.firstUse('a/b');
    assert.deepEqual(sent, []);
    await clock.advance(50);
    assert.deepEqual(
      last().endpoints.map(({ verdict }) => verdict),
      ['unhealthy', 'healthy'],
    );
  });

  it('do not make the first use wait longer than the data plane does', async () => {
    const { clock, catalog, publish, sent, prober } = await rig();
    catalog.put('a/b', [instance('10.0.0.1', { suspect: true, registryHealth: 'unknown' })], {}, false);
    await prober.close();
    publish.firstUse('a/b');
    await clock.advance(799);
    assert.deepEqual(sent, []);
    await clock.advance(2);
    assert.equal(sent.length, 1);
  });
});

describe('overrides', () => {
  it('isolate at once, survive a push, and end', async () => {
    const { clock, catalog, publish, overrides, verdicts, last, told } = await rig();
    catalog.put('a/b', [instance('10.0.0.1'), instance('10.0.0.2')]);
    publish.firstUse('a/b');
    told.length = 0;
    await overrides.isolate('a/b', '10.0.0.1', 80, 60_000);
    assert.deepEqual(verdicts('a/b'), ['isolated', 'healthy']);
    assert.deepEqual(told, ['a/b']);
    catalog.put('a/b', [instance('10.0.0.1'), instance('10.0.0.2'), instance('10.0.0.3')]);
    assert.deepEqual(
      last().endpoints.map(({ verdict }) => verdict),
      ['isolated', 'healthy', 'healthy'],
    );
    await clock.advance(60_001);
    assert.deepEqual(verdicts('a/b'), ['healthy', 'healthy', 'healthy']);
  });

  it('of a service that was not there yet count when it comes', async () => {
    const { catalog, overrides, verdicts } = await rig();
    await overrides.isolate('a/b', '10.0.0.1', 80, 60_000);
    catalog.put('a/b', [instance('10.0.0.1')]);
    assert.deepEqual(verdicts('a/b'), ['isolated']);
  });
});

describe('what the API reads', () => {
  it('is the same object until something changes, and null for what no source knows', async () => {
    const { catalog, publish, overrides } = await rig();
    assert.equal(publish.read('a/b'), null);
    const view = catalog.put('a/b', [instance('10.0.0.1')]);
    const first = publish.read('a/b');
    assert.equal(first, publish.read('a/b'));
    assert.deepEqual([first?.view, first?.index], [view, view.revision]);
    publish.firstUse('a/b');
    assert.equal(publish.read('a/b'), first);
    await overrides.isolate('a/b', '10.0.0.1', 80, 1_000);
    const second = publish.read('a/b');
    assert.ok(second !== first && (second?.index ?? 0) > (first?.index ?? 0));
    catalog.remove('a/b');
    assert.equal(publish.read('a/b'), null);
  });

  it('of a view that the catalog has not told yet is told afterwards with the same index', async () => {
    const { catalog, publish, told } = await rig();
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    told.length = 0;
    const view = catalog.put('a/b', [instance('10.0.0.2')], {}, false);
    const index = publish.read('a/b')?.index;
    assert.deepEqual(told, []);
    for (const listener of catalog.listeners) listener('a/b', view);
    assert.deepEqual([told, publish.read('a/b')?.index], [['a/b'], index]);
  });
});

describe('cost', () => {
  it('of 10,000 services that nobody uses is no message, no check, no timer; one change touches one service', async () => {
    const { clock, catalog, publish, sent, prober, told } = await rig();
    for (let i = 0; i < 10_000; i++) catalog.put(`s/${i}`, [instance('10.0.0.1', { registryHealth: 'unknown' })]);
    assert.deepEqual([sent.length, prober.targets, clock.pending, told.length], [0, 0, 0, 10_000]);
    publish.firstUse('s/7');
    sent.length = 0;
    told.length = 0;
    catalog.put('s/8', []);
    catalog.put('s/7', []);
    assert.deepEqual([sent.length, told], [1, ['s/8', 's/7']]);
  });

  it('of many results of one service in one turn is one update', async () => {
    const { clock, catalog, publish, sent, world } = await rig(HTTP_CHECK);
    catalog.put(
      'a/b',
      Array.from({ length: 5 }, (_, i) => instance(`10.0.0.${i}`, { registryHealth: 'unknown' })),
    );
    publish.firstUse('a/b');
    world.active = ['a/b'];
    sent.length = 0;
    clock.advanceSync(0);
    await settle();
    assert.ok(sent.length <= 2, `${sent.length} messages`);
  });

  it('ends with the close: no timer, no check, no message', async () => {
    const { clock, catalog, publish, sent, prober } = await rig(HTTP_CHECK);
    catalog.put('a/b', [instance('10.0.0.1')]);
    publish.firstUse('a/b');
    publish.close();
    await prober.close();
    sent.length = 0;
    catalog.put('a/b', []);
    publish.firstUse('a/b');
    assert.deepEqual([sent, clock.pending, prober.targets], [[], 0, 0]);
  });
});
