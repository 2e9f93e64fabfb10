// The real catalog and the real prober together: a mass removal is held, probed, not routed once it fails, and believed when proved (R2, R3).
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses, instance, source } from '../../test/support/catalog-fixture.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Catalog } from '../catalog/catalog.ts';
import { NO_OVERLAY } from '../catalog/evidence.ts';
import type { ClusterMessage } from '../cluster/cluster-update.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { SettingsLoader, settingsOrThrow } from '../settings/load.ts';
import { Events } from '../telemetry/events.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { Overrides } from './overrides.ts';
import { failed, PASS, type Probe } from './probe.ts';
import { Prober } from './prober.ts';
import { Publish } from './publish.ts';

const SERVICE = 'game/lobby';
const KEY = { namespace: 'game', name: 'lobby' };

async function rig() {
  const clock = new FakeClock();
  const metrics = new Metrics();
  const events = new Events(clock, silentLog, metrics);
  const dead = new Set<string>();
  const probe: Probe = {
    run: async ({ host }) => (dead.has(host) ? failed('ECONNREFUSED') : PASS),
    drop() {},
    close: async () => {},
  };
  const prober = new Prober({
    clock,
    random: seededRandom(1),
    probes: { http: probe, tcp: probe, grpc: probe },
    events,
    metrics,
  });
  const catalog = new Catalog({
    clock,
    log: silentLog,
    events,
    metrics,
    evidence: prober.evidence,
    overlay: NO_OVERLAY,
    lastIndex: 0,
  });
  const around = { env: () => undefined, readFile: () => Promise.reject(new Error('ENOENT')), hostName: 'h', stateDir: '/s' };
  const memory = { kind: 'memory', config: { type: 'object', properties: {} }, create: () => assert.fail('not created here') };
  const { settings } = settingsOrThrow(
    await new SettingsLoader({ kinds: ['memory'], load: async () => memory }, around).load(null),
  );
  catalog.configure({ sources: [source('a')], names: [], policyOf: (service) => settings.services.policyOf(service) });
  const sent: ClusterMessage[] = [];
  const overrides = new Overrides({ clock, log: silentLog, path: null, uid: null });
  const publish = new Publish(
    {
      clock,
      catalog,
      prober,
      overrides,
      dialOf: () => () => null,
      send: (message) => sent.push(message),
      activeServices: () => [SERVICE],
      notReady: () => false,
      use: () => false,
    },
    settings,
  );
  let revision = 0;
  const say = (given: readonly string[]): void =>
    catalog.snapshot('a', KEY, {
      kind: 'present',
      epoch: 'e',
      sourceRevision: String(++revision),
      rejected: [],
      instances: given.map((one) => instance(one)),
    });
  // A confirming read answers like the registry does now.
  let now: readonly string[] = [];
  catalog.onConfirmRead(() => queueMicrotask(() => say(now)));
  const registry = (given: readonly string[]): void => {
    now = given;
    say(given);
  };
  const endpoints = (): Map<string, string> => {
    const message = sent.at(-1);
    return new Map(message?.kind === 'cluster' ? message.endpoints.map(({ host, verdict }) => [host, verdict]) : []);
  };
  return { clock, dead, catalog, publish, sent, registry, endpoints, events };
}

describe('a registry that answers empty', () => {
  it('while the instances live: every one stays routed, no request could fail', async () => {
    const { clock, publish, registry, endpoints } = await rig();
    registry(addresses(10));
    publish.firstUse(SERVICE);
    registry([]);
    for (let s = 0; s < 60; s++) {
      await clock.advance(1_000);
      assert.equal([...endpoints().values()].filter((verdict) => verdict === 'healthy').length, 10, `after ${s} s`);
    }
  });

  it('for good: dead instances stop being routed within 7 s and are believed gone soon after the second read', async () => {
    const { clock, dead, publish, registry, endpoints, events, catalog } = await rig();
    const all = addresses(10);
    registry(all);
    publish.firstUse(SERVICE);
    for (const address of all) dead.add(address.split(':')[0] ?? '');
    registry([]);
    await clock.advance(7_500);
    assert.deepEqual([...new Set(endpoints().values())], ['unhealthy']);
    assert.equal(endpoints().size, 10, 'held all the same');
    await clock.advance(15_000);
    assert.equal(catalog.get(SERVICE)?.instances.length ?? 0, 0);
    assert.equal(endpoints().size, 0);
    assert.ok(events.recent(20).some(({ type }) => type === 'hold_confirmed'));
  });

  it('and then full again: nothing was ever lost', async () => {
    const { clock, publish, registry, endpoints } = await rig();
    registry(addresses(4));
    publish.firstUse(SERVICE);
    registry([]);
    await clock.advance(9_000);
    registry(addresses(4));
    await clock.advance(1_000);
    assert.deepEqual([...endpoints().values()], ['healthy', 'healthy', 'healthy', 'healthy']);
  });
});

describe('ten addresses replaced by ten new ones', () => {
  it('are twenty until the old ones fail their checks, then ten', async () => {
    const { clock, dead, publish, registry, endpoints } = await rig();
    const old = addresses(10, 1);
    registry(old);
    publish.firstUse(SERVICE);
    for (const address of old) dead.add(address.split(':')[0] ?? '');
    registry(addresses(10, 2));
    await clock.advance(250);
    assert.equal(endpoints().size, 20);
    await clock.advance(7_500);
    assert.equal([...endpoints().values()].filter((verdict) => verdict === 'healthy').length, 10);
    await clock.advance(15_000);
    assert.equal(endpoints().size, 10);
  });
});
