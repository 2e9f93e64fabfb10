// The etcd adapter against real servers under faults: nothing lost, nothing invented, the store's state again within 5 s of the recovery.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import {
  assertOrdered,
  assertSameState,
  expected,
  Follower,
  itPerVersion,
  type Made,
  makeAdapter,
  Raw,
  value,
} from './etcd-support.ts';

const CONVERGE_MS = 5_000;

/** Runs `body` and tears down in the reverse order of `defer`. */
async function withCleanup(body: (defer: (end: () => unknown) => void) => Promise<void>): Promise<void> {
  const ends: (() => unknown)[] = [];
  try {
    await body((end) => ends.push(end));
  } finally {
    for (const end of ends.reverse()) await end();
  }
}

interface Bench extends Made {
  readonly server: EtcdServer;
  readonly raw: Raw;
  readonly defer: (end: () => unknown) => void;
}

/** A server, a raw client on it, an adapter on `endpoint` (default: the server). */
async function bench(server: EtcdServer, defer: (end: () => unknown) => void, endpoint = server.endpoint): Promise<Bench> {
  const raw = new Raw(server.endpoint);
  const made = makeAdapter([endpoint]);
  defer(() => server.stop());
  defer(() => raw.close());
  defer(() => made.adapter.close());
  return { ...made, server, raw, defer };
}

function follow({ adapter, defer }: Bench, services: readonly string[]): Follower {
  const follower = new Follower(adapter, services);
  defer(() => follower.stop());
  return follower;
}

async function converged({ raw }: Bench, follower: Follower, withinMs = CONVERGE_MS): Promise<void> {
  await eventually(async () => assertSameState(follower.state(), expected(await raw.truth())), withinMs, 50);
}

describe('etcd adapter under faults of real servers', () => {
  itPerVersion(
    'SIGKILL and restart under 1,000 watched services with a writer: nothing lost, nothing invented',
    120_000,
    (version) =>
      withCleanup(async (defer) => {
        const b = await bench(await startEtcd({ version }), defer);
        const services = Array.from({ length: 1_000 }, (_, n) => `s${n}`);
        const written = new Set<string>();
        const put = async (n: number, weight: number): Promise<void> => {
          written.add(`s${n} i ${8_000 + (n % 1_000)} ${weight}`);
          await b.raw.put(`s${n}`, 'i', value(8_000 + (n % 1_000), weight));
        };
        await Promise.all(services.map((_, n) => put(n, 1)));
        const follower = follow(b, services);
        const invented: string[] = [];
        follower.onSnapshot = (service, now) => {
          for (const { id, port, weight } of now.kind === 'present' ? now.instances : []) {
            const fact = `${service} ${id} ${port} ${weight}`;
            if (!written.has(fact)) invented.push(fact);
          }
        };
        await eventually(() => follower.complete, 20_000);
        let writing = true;
        const writer = (async () => {
          for (let i = 0; writing; i++) {
            const n = (i * 7) % 1_000;
            // While the server is down writes fail; what was carried out nevertheless is read back by `truth`.
            await (i % 9 === 0 ? b.raw.remove(`s${n}`, 'i') : put(n, 2 + i)).catch(() => {});
          }
        })();
        for (let round = 0; round < 3; round++) {
          await new Promise((resolve) => setTimeout(resolve, 700));
          await b.server.kill('SIGKILL');
          await b.server.restart();
        }
        await eventually(async () => (await b.raw.truth()).size > 0, 5_000);
        writing = false;
        await writer;
        await converged(b, follower);
        assertOrdered(follower);
        assert.equal(b.counts.get('watch.missedEvents') ?? 0, 0);
        assert.ok(follower.losses.length >= 3_000, 'every watch felt every kill');
        assert.ok(follower.losses.every(({ causeKind }) => causeKind === 'lost'));
      }),
  );

  itPerVersion('compaction behind a cut link: deletes in the gap are seen', 60_000, (version) =>
    withCleanup(async (defer) => {
      const server = await startEtcd({ version });
      const proxy = await startFaultProxy(server.endpoint);
      defer(() => proxy.close());
      const b = await bench(server, defer, proxy.endpoint);
      for (let n = 0; n < 20; n++) await b.raw.put('svc', `i${n}`, value(8_000 + n, 1));
      const follower = follow(b, ['svc', 'other']);
      await converged(b, follower);
      await proxy.refuse();
      for (let n = 0; n < 10; n++) await b.raw.remove('svc', `i${n}`);
      for (let n = 0; n < 50; n++) await b.raw.put('other', 'x', value(9_000, n));
      await b.raw.compact(await b.raw.revision());
      await proxy.accept();
      await converged(b, follower);
      assert.equal(follower.state().size, 11);
      assertOrdered(follower);
    }),
  );

  itPerVersion(
    'wiped, then restored to an older state, then to one that passed our revision: heard again each time',
    120_000,
    (version) =>
      withCleanup(async (defer) => {
        const b = await bench(await startEtcd({ version }), defer);
        for (let n = 0; n < 30; n++) await b.raw.put('svc', `i${n}`, value(8_000 + n, 1));
        const follower = follow(b, ['svc', 'new']);
        await converged(b, follower);
        await b.server.snapshotData();
        await converged(b, follower);
        for (let n = 0; n < 200; n++) await b.raw.put('svc', `i${n % 40}`, value(8_000 + (n % 40), n));
        await converged(b, follower);
        const before = follower.snapshotOf('svc')?.epoch;

        await b.server.restoreData();
        await converged(b, follower);
        const restored = follower.snapshotOf('svc')?.epoch;
        assert.notEqual(restored, before, 'older data are a new epoch');
        await b.raw.put('new', 'n', value(9_000, 5));
        await converged(b, follower);

        await b.server.kill('SIGKILL');
        await b.server.wipe();
        await b.raw.put('new', 'only', value(9_001, 6));
        await converged(b, follower);
        assert.deepEqual([...follower.state().keys()], ['new only']);
        assert.notEqual(follower.snapshotOf('new')?.epoch, restored);

        // Down, wiped, and already past our revision when we are back: no field of the protocol shows it, only the list does.
        const proxy = await startFaultProxy(b.server.endpoint);
        defer(() => proxy.close());
        const behind = { ...b, ...makeAdapter([proxy.endpoint]) };
        defer(() => behind.adapter.close());
        const second = follow(behind, ['svc', 'new']);
        await converged(behind, second);
        await proxy.refuse();
        await b.server.wipe();
        for (let n = 0; n < 60; n++) await b.raw.put('svc', 'z', value(9_002, n));
        await proxy.accept();
        await converged(behind, second);
        assert.deepEqual([...second.state().keys()], ['svc z']);
      }),
  );

  itPerVersion('a half-open connection is noticed within 30 s and followed again', 90_000, (version) =>
    withCleanup(async (defer) => {
      const server = await startEtcd({ version });
      const proxy = await startFaultProxy(server.endpoint);
      defer(() => proxy.close());
      const b = await bench(server, defer, proxy.endpoint);
      await b.raw.put('svc', 'a', value(8_001, 1));
      const follower = follow(b, ['svc']);
      await converged(b, follower);
      proxy.halfOpen();
      await b.raw.put('svc', 'b', value(8_002, 1));
      await converged(b, follower, 30_000);
      assert.equal(follower.losses[0]?.causeKind, 'lost');
    }),
  );

  itPerVersion('a frozen server is noticed within 30 s, and followed again when it wakes', 90_000, (version) =>
    withCleanup(async (defer) => {
      const b = await bench(await startEtcd({ version }), defer);
      await b.raw.put('svc', 'a', value(8_001, 1));
      const follower = follow(b, ['svc']);
      await converged(b, follower);
      await b.server.kill('SIGSTOP');
      await eventually(() => follower.losses.length > 0, 30_000, 50);
      await b.server.kill('SIGCONT');
      await eventually(() => b.raw.put('svc', 'b', value(8_002, 1)), 10_000);
      await converged(b, follower);
    }),
  );

  itPerVersion('SIGTERM loses the watch, a restart brings it back', 60_000, (version) =>
    withCleanup(async (defer) => {
      const b = await bench(await startEtcd({ version }), defer);
      await b.raw.put('svc', 'a', value(8_001, 1));
      const follower = follow(b, ['svc']);
      await converged(b, follower);
      await b.server.kill('SIGTERM');
      await eventually(() => follower.losses.length > 0, 10_000);
      await b.server.restart();
      await b.raw.put('svc', 'b', value(8_002, 1)).catch(() => b.raw.put('svc', 'b', value(8_002, 1)));
      await converged(b, follower);
    }),
  );

  itPerVersion('a list and a catch-up over 4 MiB arrive whole', 90_000, (version) =>
    withCleanup(async (defer) => {
      const server = await startEtcd({ version });
      const proxy = await startFaultProxy(server.endpoint);
      defer(() => proxy.close());
      const b = await bench(server, defer, proxy.endpoint);
      const fat = (port: number, weight: number): string =>
        JSON.stringify({ Op: 0, Addr: `10.0.0.1:${port}`, Metadata: { weight, filler: 'x'.repeat(7_000) } });
      for (let n = 0; n < 1_000; n++) await b.raw.put('svc', `i${n}`, fat(8_000 + n, 1));
      const follower = follow(b, ['svc']);
      await converged(b, follower, 10_000);
      await proxy.refuse();
      for (let n = 0; n < 1_000; n++) await b.raw.put('svc', `i${n}`, fat(8_000 + n, 2));
      await b.raw.remove('svc', 'i7');
      await proxy.accept();
      await converged(b, follower, 10_000);
      assert.equal(follower.state().size, 999);
      assert.equal(b.counts.get('watch.missedEvents') ?? 0, 0);
    }),
  );

  itPerVersion('a slow, jittery link that cuts everything in pieces loses nothing', 60_000, (version) =>
    withCleanup(async (defer) => {
      const server = await startEtcd({ version });
      const proxy = await startFaultProxy(server.endpoint);
      defer(() => proxy.close());
      Object.assign(proxy.link, { delayMs: 40, jitterMs: 40, sliceBytes: 700 });
      const b = await bench(server, defer, proxy.endpoint);
      const follower = follow(b, ['svc']);
      for (let n = 0; n < 300; n++) await b.raw.put('svc', `i${n % 50}`, value(8_000 + (n % 50), n));
      await converged(b, follower);
      assert.equal(b.counts.get('watch.missedEvents') ?? 0, 0);
      assertOrdered(follower);
    }),
  );
});
