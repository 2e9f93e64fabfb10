// What kind nacos does on a real Nacos beyond the conformance suite: ways of living of a record, hidden instances, groups, tokens, and
// the figures of its issue. WEIR_TEST_NACOS=<host:port>; for tokens WEIR_TEST_NACOS_AUTH=<user>:<password>@<host:port>.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Adapter, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { type Snapshot, SourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { measureMemory } from './nacos-memory.ts';
import { makeAdapter, PLAIN, Raw } from './nacos-support.ts';

const GIVEN = process.env['WEIR_TEST_NACOS'];
const server = GIVEN ?? '';
const SKIP = { skip: GIVEN === undefined ? 'no Nacos: set WEIR_TEST_NACOS=<host:port>' : false };
const AUTH = /^([^:@]+):([^@]+)@(.+)$/.exec(process.env['WEIR_TEST_NACOS_AUTH'] ?? '');

function key(name: string): ServiceKey {
  return { namespace: 'default', name: `${name}-${process.pid}` };
}

function never(): AbortSignal {
  return new AbortController().signal;
}

async function present(adapter: Adapter, of: ServiceKey): Promise<readonly Instance[]> {
  const snapshot = await adapter.read(of, never());
  return snapshot.kind === 'present' ? snapshot.instances : [];
}

async function putOne(adapter: Adapter, of: ServiceKey, instance: Instance, how: WriteMode): Promise<WriteReceipt> {
  const [receipt] = (await adapter.put?.([{ key: of, instance }], how, never())) ?? [];
  if (receipt === undefined || receipt instanceof Error) throw receipt ?? new Error('no answer');
  return receipt;
}

describe('real Nacos: how records live', SKIP, () => {
  it('a copy by beats outlives the process that made it; another process beats, changes and removes it', {
    timeout: 60_000,
  }, async () => {
    const of = key('copy');
    const how: WriteMode = { as: 'copy', ttl: 15_000, liveness: 'beat' };
    const first = makeAdapter({ servers: [server] }).adapter;
    const receipt = await putOne(first, of, sampleInstance(1), how);
    await first.close();
    const second = makeAdapter({ servers: [server] }).adapter;
    try {
      await eventually(async () => assert.equal((await present(second, of)).length, 1), 10_000, 200);
      assert.deepEqual(await second.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 90_000 }]);
      await putOne(second, of, sampleInstance(1, { health: 'unhealthy' }), how);
      await eventually(async () => assert.equal((await present(second, of))[0]?.health, 'unhealthy'), 10_000, 200);
      assert.deepEqual(await second.remove?.([receipt], {}, never()), [true]);
      await eventually(async () => assert.equal((await present(second, of)).length, 0), 10_000, 200);
      assert.deepEqual(await second.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    } finally {
      await second.close();
    }
  });

  it('a persistent record survives the connection and is removed by its receipt', { timeout: 60_000 }, async () => {
    const of = key('persistent');
    const first = makeAdapter({ servers: [server] }).adapter;
    const receipt = await putOne(first, of, sampleInstance(1), { as: 'copy', ttl: 15_000, liveness: 'persistent' });
    await first.close();
    const second = makeAdapter({ servers: [server] }).adapter;
    try {
      await eventually(
        async () => assert.equal((await present(second, of))[0]?.metadata.get('nacos.ephemeral'), 'false'),
        10_000,
        200,
      );
      assert.deepEqual(await second.remove?.([receipt], {}, never()), [true]);
      await eventually(async () => assert.equal((await present(second, of)).length, 0), 10_000, 200);
    } finally {
      await second.close();
    }
  });

  it('a hand-over by a second process that registers the same leaves no gap', { timeout: 60_000 }, async () => {
    const of = key('hand-over');
    const how: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
    const [old, young, third] = [1, 2, 3].map(() => makeAdapter({ servers: [server] }).adapter);
    assert.ok(old && young && third);
    const stop = new AbortController();
    const sizes: number[] = [];
    try {
      await putOne(old, of, sampleInstance(1), how);
      await eventually(async () => assert.equal((await present(third, of)).length, 1), 10_000, 100);
      const watching = (async () => {
        for await (const item of third.watch(of, stop.signal)) if (item.kind === 'present') sizes.push(item.instances.length);
      })();
      await putOne(young, of, sampleInstance(1), how);
      await old.close();
      const from = performance.now();
      await eventually(() => performance.now() - from > 2_000, 10_000, 100);
      stop.abort();
      await watching;
      assert.ok(sizes.length > 0 && sizes.every((size) => size === 1), sizes.join());
    } finally {
      for (const adapter of [old, young, third]) await adapter.close();
    }
  });

  it('another group is listed with its name in front, and is watched by it', { timeout: 60_000 }, async () => {
    const { adapter } = makeAdapter({ servers: [server] });
    const of = { namespace: 'default', name: `GAME@@${key('grouped').name}` };
    const stop = new AbortController();
    try {
      await putOne(adapter, of, sampleInstance(1), { as: 'own', ttl: 15_000, liveness: 'beat' });
      for await (const list of adapter.services?.(stop.signal) ?? []) if (list.keys.some(({ name }) => name === of.name)) break;
      await eventually(async () => assert.equal((await present(adapter, of)).length, 1), 10_000, 200);
    } finally {
      stop.abort();
      await adapter.close();
    }
  });

  it('what an operator disables is isolated for a read, not gone', { timeout: 60_000 }, async () => {
    const { adapter } = makeAdapter({ servers: [server] });
    const of = key('disabled');
    const raw = new Raw(server, true);
    try {
      await raw.register(of, sampleInstance(1));
      await raw.register(of, sampleInstance(2, { isolated: true }));
      await eventually(
        async () => {
          const seen = (await present(adapter, of)).map(({ port, isolated }) => `${port} ${isolated}`);
          assert.deepEqual(seen, ['8001 false', '8002 true']);
        },
        10_000,
        200,
      );
      for await (const item of adapter.watch(of, never())) {
        assert.ok(item.kind === 'present' && item.instances.length === 1);
        break;
      }
      for (const n of [1, 2]) await raw.remove(of, `192.0.2.${n}#${8_000 + n}#DEFAULT`);
    } finally {
      await adapter.close();
    }
  });
});

describe('real Nacos: tokens', { skip: AUTH === null ? 'no Nacos with authentication: set WEIR_TEST_NACOS_AUTH' : false }, () => {
  const [, username = '', password = '', address = ''] = AUTH ?? [];
  const first = async (auth: object, namespace = 'public'): Promise<string> => {
    const { adapter } = makeAdapter({ servers: [address], namespace }, { ...PLAIN, auth });
    try {
      for await (const list of adapter.services?.(AbortSignal.timeout(20_000)) ?? []) return `listed ${list.complete}`;
      return 'ended';
    } catch (thrown) {
      return thrown instanceof SourceError ? `${thrown.causeKind}: ${thrown.message}` : String(thrown);
    } finally {
      await adapter.close();
    }
  };

  it('a good login lists; a wrong password, a wrong token, none, and a wrong namespace are told apart', {
    timeout: 60_000,
  }, async () => {
    assert.equal(await first({ username, password }), 'listed true');
    assert.match(await first({ username, password: 'wrong' }), /^denied: .*check auth\.username and auth\.password/);
    assert.match(await first({ token: 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.AAAA' }), /^denied: .*auth\.token/);
    assert.match(await first({}), /^denied: .*valid login/);
    assert.match(await first({ username, password }, 'nonexistent-1'), /^refused: .*no namespace nonexistent-1/);
  });
});

describe('real Nacos: figures', SKIP, () => {
  it('a push is a snapshot within 100 ms at 500 watched services (p99); 1,000 idle ones cost under 3 % of a core', {
    timeout: 300_000,
  }, async (t) => {
    const reader = makeAdapter({ servers: [server] }).adapter;
    const writer = makeAdapter({ servers: [server] }).adapter;
    const stop = new AbortController();
    /** Round → delays of the first snapshot of each service in it; the weight tells the round. */
    const delays = new Map<number, Map<string, number>>();
    const watch = async (of: ServiceKey): Promise<void> => {
      for await (const item of reader.watch(of, stop.signal)) {
        const weight = item.kind === 'present' ? (item.instances[0]?.weight ?? 0) : 0;
        const round = delays.get(weight);
        if (item.kind === 'present' && round !== undefined && !round.has(of.name)) round.set(of.name, delay(item));
      }
    };
    /** From the server's stamp on the list (same clock: loopback) to the snapshot, ms: more than from the arrival of the push. */
    const delay = ({ sourceRevision }: Snapshot): number => Date.now() - Number(sourceRevision);
    const keys = Array.from({ length: 1_000 }, (_, n) => key(`figure-${n}`));
    try {
      const half = keys.slice(0, 500);
      const watches = half.map(watch);
      const how: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
      const p99s: number[] = [];
      // The first two rounds warm the server up.
      for (let round = 1; round <= 5; round++) {
        const seen = new Map<string, number>();
        delays.set(100 * round, seen);
        await Promise.all(half.map((of) => putOne(writer, of, sampleInstance(1, { weight: 100 * round }), how)));
        await eventually(() => seen.size === 500, 60_000, 100);
        const sorted = [...seen.values()].sort((x, y) => x - y);
        const p99 = sorted[494] ?? Number.NaN;
        t.diagnostic(`push to snapshot, 500 services at once, round ${round}: p50 ${sorted[250]} ms, p99 ${p99} ms`);
        if (round > 2) p99s.push(p99);
      }
      const p99 = p99s.sort((x, y) => x - y)[1] ?? Number.NaN;
      watches.push(...keys.slice(500).map(watch));
      const settled = performance.now();
      await eventually(() => performance.now() - settled > 65_000, 90_000, 500);
      const before = process.cpuUsage();
      const from = performance.now();
      await eventually(() => performance.now() - from > 45_000, 90_000, 1_000);
      const { user, system } = process.cpuUsage(before);
      const percent = (user + system) / 10 / (performance.now() - from);
      stop.abort();
      await Promise.all(watches);
      assertFigure(t, 'push to snapshot at 500 watched services, p99', p99, 100, 'ms');
      assertFigure(t, '1,000 watched services, idle', percent, 3, '% of a core');
    } finally {
      stop.abort();
      await reader.close();
      await writer.close();
    }
  });

  it('what a watched service costs in memory', { timeout: 300_000 }, async (t) => {
    const writer = makeAdapter({ servers: [server] }).adapter;
    try {
      const writes = Array.from({ length: 1_001 }, (_, n) => n).flatMap((n) =>
        [1, 2, 3].map((at) => ({ key: { namespace: 'default', name: `figure-${n}` }, instance: sampleInstance(at) })),
      );
      const results = await writer.put?.(writes, { as: 'own', ttl: 15_000, liveness: 'beat' }, never());
      for (const result of results ?? []) if (result instanceof Error) throw result;
      await eventually(
        async () => assert.equal((await present(writer, { namespace: 'default', name: 'figure-1000' })).length, 3),
        30_000,
        200,
      );
      await measureMemory(t, 'real Nacos', { servers: [server] });
    } finally {
      await writer.close();
    }
  });
});
