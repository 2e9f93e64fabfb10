// Copies whose fleet is gone: judged by the owner's lock alone, silenced once, never removed.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { Capabilities } from '../adapter/capabilities.ts';
import type { Adapter, WriteReceipt } from '../adapter/contract.ts';
import type { StateEntry, StateStore } from '../adapter/state-store.ts';
import type { SourceAccount } from '../catalog/view.ts';
import { silentLog } from '../kernel/log.ts';
import type { Instance, RegistryHealth } from '../model/instance.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import { Events } from '../telemetry/events.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { Orphans } from './orphans.ts';

const S = 'default/web';
const KEY = { namespace: 'default', name: 'web' };
const LOCK = '.weir/lock/m1/consul';

function copy(port: number, migration = 'm1'): Instance {
  const metadata = new Map([
    ['weir-origin', 'old'],
    ['weir-migration', migration],
    ['weir-hops', '1'],
  ]);
  const at = { id: `weir-m1-0/${port}`, host: '10.0.0.1', port, transport: 'tcp' as const };
  return { ...at, weight: 100, health: 'healthy', isolated: false, metadata };
}

function bench(
  options: {
    heartbeat?: Capabilities['heartbeat'];
    copiesStand?: boolean;
    known?: readonly string[];
    locks?: readonly string[];
  } = {},
) {
  const clock = new FakeClock();
  const instances = [copy(1), copy(2), copy(3, 'm2'), { ...copy(4), metadata: new Map() }];
  const state = { held: new Set<string>(), frozen: false, lost: false, holding: 0 };
  const silenced: string[] = [];
  const lines: AuditLine[] = [];
  const entries: StateEntry[] = (options.locks ?? [LOCK]).map((key) => ({ key, value: '', revision: '1' }));
  /** As Consul does: a lock that is given up leaves nothing behind. */
  const release = async (key: string): Promise<void> => {
    state.holding--;
    const at = entries.findIndex((one) => one.key === key);
    if (at >= 0) entries.splice(at, 1);
  };
  const store: StateStore = {
    get: () => assert.fail('nothing is read'),
    cas: () => assert.fail('nothing is written to the store'),
    async *watch(prefix) {
      if (state.lost) throw new Error('the registry is lost');
      yield entries.filter(({ key }) => key.startsWith(prefix));
    },
    async lock(key, _ttl, signal) {
      if (state.held.has(key)) await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      state.holding++;
      const fence = { key, createRevision: '1', leaseId: '1' };
      return { lost: new AbortController().signal, fence, release: () => release(key) };
    },
  };
  const adapter: Adapter = {
    kind: 'fake',
    capabilities: {
      ...{ watch: 'push', list: true, register: true, heartbeat: options.heartbeat ?? 'none' },
      ...(options.copiesStand === undefined ? {} : { copiesStand: options.copiesStand }),
      ...{ reads: new Set(), keeps: new Set(), tellsDeregistration: false, tellsAbsent: true },
    },
    watch: () => assert.fail('nothing is watched'),
    read: () => assert.fail('nothing is read'),
    async setHealth({ nativeId }: WriteReceipt, health: RegistryHealth) {
      assert.equal(state.holding, 1, 'no owner can begin meanwhile');
      silenced.push(`${nativeId} ${health}`);
      const at = instances.findIndex(({ id }) => id === nativeId);
      const found = instances[at];
      if (found !== undefined) instances[at] = { ...found, health };
    },
    stateStore: () => store,
    close: async () => {},
  };
  const events = new Events(clock, silentLog, new Metrics());
  const orphans = new Orphans({
    ...{ clock, log: silentLog, events },
    audit: (line) => void lines.push(line),
    catalog: {
      servicesOf: () => [S],
      account: (source): SourceAccount => ({
        ...{ source, key: KEY, live: true, epoch: '1', goodAt: 0, presence: 'present' },
        instances: instances.map((instance) => ({ instance, held: false })),
      }),
    },
    sources: { adapter: () => adapter, ids: ['consul'] },
    known: () => new Set(options.known ?? []),
    frozen: () => state.frozen,
  });
  orphans.start();
  const minutes = async (n: number): Promise<void> => {
    for (let at = 0; at < n * 60; at += 5) await clock.advance(5_000);
  };
  return { orphans, clock, state, silenced, lines, minutes };
}

describe('copies whose owner is gone', () => {
  it('are set unhealthy, not removed, once its lock has been free for five minutes; others are left alone', async () => {
    const { orphans, silenced, lines, minutes, clock } = bench();
    await minutes(5);
    assert.deepEqual(silenced, []);
    await minutes(1);
    assert.deepEqual(silenced, ['weir-m1-0/1 unhealthy', 'weir-m1-0/2 unhealthy']);
    assert.deepEqual(
      lines.map(({ what, migration, instance, result }) => [what, migration, instance, result].join(' ')),
      ['orphan health unhealthy m1 weir-m1-0/1 ok', 'orphan health unhealthy m1 weir-m1-0/2 ok'],
    );
    await minutes(10);
    assert.equal(silenced.length, 2, 'once is enough');
    await orphans.close();
    assert.equal(clock.pending, 0);
  });

  it('are left alone while the owner holds its lock, and five minutes are counted from its end', async () => {
    const { orphans, state, silenced, minutes } = bench();
    await minutes(4);
    state.held.add(LOCK);
    await minutes(20);
    state.held.clear();
    await minutes(4);
    assert.deepEqual(silenced, []);
    await minutes(2);
    assert.equal(silenced.length, 2);
    await orphans.close();
  });

  it('are left alone while only one of its locks is free, or the registry does not answer', async () => {
    const other = '.weir/lock/m1/consul-sz';
    const { orphans, state, silenced, minutes } = bench({ locks: [LOCK, other] });
    state.held.add(other);
    await minutes(10);
    state.held.clear();
    await minutes(4);
    state.lost = true;
    await minutes(2);
    state.lost = false;
    await minutes(4);
    assert.deepEqual(silenced, [], 'what was not seen free was not free');
    await orphans.close();
  });

  it('are set unhealthy, too, where own instances have leases and copies have none', async () => {
    const { orphans, silenced, minutes } = bench({ heartbeat: 'core', copiesStand: true });
    await minutes(6);
    assert.equal(silenced.length, 2);
    await orphans.close();
  });

  for (const [why, options] of [
    ['of a migration that this sidecar knows', { known: ['m1'] }],
    ['where records have leases', { heartbeat: 'core' }],
    ['whose owner never took a lock there', { locks: [] }],
  ] as const) {
    it(`are left alone ${why}`, async () => {
      const { orphans, silenced, minutes } = bench(options);
      await minutes(20);
      assert.deepEqual(silenced, []);
      await orphans.close();
    });
  }

  it('are left alone while migrations are frozen here', async () => {
    const { orphans, state, silenced, minutes } = bench();
    state.frozen = true;
    await minutes(20);
    assert.deepEqual(silenced, []);
    await orphans.close();
  });
});
