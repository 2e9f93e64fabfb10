// The reload protocol: prepare all, commit all in one turn, or keep what runs; one at a time, the newest wins.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Type } from 'typebox';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { AdapterLoader } from '../adapter/contract.ts';
import { silentLog } from '../kernel/log.ts';
import { Events } from '../telemetry/events.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { type Loaded, SettingsLoader, settingsOrThrow } from './load.ts';
import type { Settings } from './settings.ts';
import { SettingsStore, type SettingsUser } from './store.ts';

const adapters: AdapterLoader = {
  kinds: ['memory', 'etcd'],
  load: async (kind) => ({
    kind,
    config: Type.Object(kind === 'etcd' ? { endpoints: Type.Array(Type.String()) } : {}, { additionalProperties: false }),
    create() {
      throw new Error('not created here');
    },
  }),
};
const around = { env: () => undefined, readFile: () => Promise.reject(new Error('ENOENT')), hostName: 'h', stateDir: '/s' };

async function rig(text = '') {
  const clock = new FakeClock();
  const metrics = new Metrics();
  const events = new Events(clock, silentLog, metrics);
  const loader = new SettingsLoader(adapters, around);
  const load = (yaml: string): Promise<Loaded> => loader.load(Buffer.from(yaml), 'w.yaml');
  const store = new SettingsStore({ clock, events, metrics, log: silentLog }, settingsOrThrow(await load(text)), 'w.yaml');
  const told = (): string[] => events.recent(100).map(({ type }) => type);
  return { clock, events, metrics, load, store, told, reload: async (yaml: string) => store.reload(await load(yaml)) };
}

/** A user that writes down what happens to it. */
function recorder(name: string, log: string[], fails: () => boolean = () => false): SettingsUser {
  return {
    name,
    async prepare(next) {
      log.push(`${name} prepare ${next.sources.length}`);
      if (fails()) throw new Error(`${name} cannot`);
      return { commit: () => void log.push(`${name} commit`), discard: () => void log.push(`${name} discard`) };
    },
  };
}

const TWO = 'sources: [{id: a, kind: memory}, {id: b, kind: memory}]';
const THREE = 'sources: [{id: a, kind: memory}, {id: b, kind: memory}, {id: c, kind: memory}]';

describe('a reload', () => {
  it('prepares every user in order, then commits all, then is the current settings', async () => {
    const { store, reload, told } = await rig();
    const log: string[] = [];
    store.addUser(recorder('one', log));
    store.addUser(recorder('two', log));
    assert.deepEqual(await reload(TWO), { kind: 'reloaded', needRestart: [] });
    assert.deepEqual(log, ['one prepare 2', 'two prepare 2', 'one commit', 'two commit']);
    assert.equal(store.current.sources.length, 2);
    assert.deepEqual(told(), ['config_reloaded']);
    assert.equal(store.lastReload.ok, true);
  });

  it('commits all users within one turn of the loop: nobody sees half of it', async () => {
    const { store, reload } = await rig();
    const seen: number[] = [];
    const state = { one: 0, two: 0 };
    for (const key of ['one', 'two'] as const) {
      store.addUser({
        name: key,
        prepare: (next: Settings) => ({
          commit: () => {
            state[key] = next.sources.length;
            queueMicrotask(() => seen.push(state.one, state.two));
          },
        }),
      });
    }
    await reload(TWO);
    assert.deepEqual(seen, [2, 2, 2, 2]);
  });

  it('that one user cannot prepare is refused: the others discard, the old settings run, the API can tell why', async () => {
    const { store, reload, told, metrics } = await rig();
    const before = store.current;
    const log: string[] = [];
    store.addUser(recorder('one', log));
    store.addUser(recorder('two', log, () => true));
    store.addUser(recorder('three', log));
    const result = await reload(TWO);
    assert.equal(result.kind, 'refused');
    assert.deepEqual(log, ['one prepare 2', 'two prepare 2', 'one discard']);
    assert.equal(store.current, before);
    assert.deepEqual(told(), ['config_reload_failed']);
    assert.equal(metrics.counter('weir_config_reloads_total', 'refused').value, 1);
    assert.equal(store.lastReload.ok, false);
    assert.deepEqual(
      store.lastReload.faults.map(({ path, got }) => [path, got]),
      [['two', 'two cannot']],
    );
  });

  it('of a faulty file keeps the running settings and the places of the faults', async () => {
    const { store, reload, events } = await rig(TWO);
    const before = store.current;
    const log: string[] = [];
    store.addUser(recorder('one', log));
    assert.equal((await reload('sources: [{id: a, kind: memry}]')).kind, 'refused');
    assert.equal(store.current, before);
    assert.deepEqual(log, [], 'nobody was asked');
    assert.deepEqual(
      store.lastReload.faults.map(({ line, col }) => [line, col]),
      [[1, 25]],
    );
    assert.match(JSON.stringify(events.recent(1)[0]?.details), /w\.yaml:1:25 sources\[0\]\.kind/);
  });

  it('of an equal file does nothing, and ends the fault of the one before', async () => {
    const { store, reload, told } = await rig(TWO);
    const log: string[] = [];
    store.addUser(recorder('one', log));
    assert.deepEqual(await reload(`# a comment\n${TWO}`), { kind: 'unchanged' });
    assert.deepEqual([log, told()], [[], []]);
    await reload('a: 1');
    assert.deepEqual(await reload(TWO), { kind: 'unchanged' });
    assert.deepEqual(told(), ['config_reload_failed', 'config_reloaded']);
    assert.equal(store.lastReload.ok, true);
  });

  it('that changes api, proxy, state or id says so and leaves them as they run, the rest is taken', async () => {
    const { store, reload, told } = await rig();
    const result = await reload(
      `${TWO}\napi: {listen: "127.0.0.1:1"}\nproxy: {listen: "127.0.0.1:2"}\nstate: {lastGoodMaxAge: 1h}\nid: other`,
    );
    assert.deepEqual(result, { kind: 'reloaded', needRestart: ['id', 'api', 'proxy', 'state'] });
    assert.deepEqual([store.current.api.listen.port, store.current.proxy.listen.port, store.current.id], [7_900, 7_980, 'h']);
    assert.equal(store.current.sources.length, 2);
    assert.deepEqual(store.lastReload.needRestart, ['id', 'api', 'proxy', 'state']);
    assert.deepEqual(told(), ['config_reloaded']);
  });

  it('that freezes migrations is taken at once; one that changes the shared store waits for the next start', async () => {
    const { store, reload } = await rig();
    assert.equal(store.current.migrations.frozen, false);
    assert.deepEqual(await reload('migrations: {frozen: true}'), { kind: 'reloaded', needRestart: [] });
    assert.equal(store.current.migrations.frozen, true);
    const result = await reload('state: {shared: {kind: etcd, endpoints: [a]}}');
    assert.deepEqual(result, { kind: 'reloaded', needRestart: ['state'] });
    assert.deepEqual([store.current.migrations.frozen, store.current.state.shared], [false, null]);
  });

  it('waits for the one before, and only the newest of those that wait is run', async () => {
    const { store, load } = await rig();
    const log: string[] = [];
    const gate = Promise.withResolvers<void>();
    store.addUser({
      name: 'slow',
      async prepare(next) {
        log.push(`prepare ${next.sources.map(({ id }) => id).join('')}`);
        await gate.promise;
        return { commit: () => void log.push('commit') };
      },
    });
    const [first, second, third] = [await load(TWO), await load(THREE), await load('sources: [{id: z, kind: memory}]')];
    const results = Promise.all([store.reload(first), store.reload(second), store.reload(third)]);
    gate.resolve();
    assert.deepEqual(
      (await results).map(({ kind }) => kind),
      ['reloaded', 'superseded', 'reloaded'],
    );
    assert.deepEqual(log, ['prepare ab', 'commit', 'prepare z', 'commit']);
  });

  it('a thousand times, a tenth of them faulty, never leaves a user and the store with different settings', async () => {
    const { store, reload } = await rig();
    let applied = 1;
    const commit = (next: Settings): void => {
      applied = next.sources.length;
    };
    store.addUser({ name: 'u', prepare: (next) => ({ commit: () => commit(next) }) });
    for (let i = 0; i < 1_000; i++) {
      const result = await reload(i % 10 === 9 ? 'x: 1' : ([TWO, THREE][i % 2] ?? ''));
      assert.equal(result.kind === 'refused', i % 10 === 9, `reload ${i}`);
      assert.equal(store.current.sources.length, applied);
    }
  });

  it('goes on although a commit or a discard throws', async () => {
    const { store, reload } = await rig();
    const log: string[] = [];
    store.addUser({
      name: 'bad',
      prepare: () => ({
        commit() {
          throw new Error('no');
        },
      }),
    });
    store.addUser(recorder('good', log));
    assert.equal((await reload(TWO)).kind, 'reloaded');
    assert.deepEqual(log, ['good prepare 2', 'good commit']);
  });

  it('asks no user that left', async () => {
    const { store, reload } = await rig();
    const log: string[] = [];
    store.addUser(recorder('one', log))();
    await reload(TWO);
    assert.deepEqual(log, []);
  });
});
