// The Consul adapter, its supervisor and the catalog against a real server under faults: nothing is removed wrongly, nothing stays deaf,
// and all recovers without a restart of ours.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe } from 'node:test';
import type { Instance } from '../../src/model/instance.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type ConsulServer, type StartConsulOptions, startConsul } from '../registries/consul.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { itLive, makeAdapter, PLAIN, Raw, Rig, withCleanup } from './consul-support.ts';

const ROOT = 'root-token';
const NAMES = Array.from({ length: 12 }, (_, n) => `svc-${n}`);

interface Bench {
  readonly server: ConsulServer;
  readonly proxy: FaultProxy;
  readonly raw: Raw;
  readonly rig: Rig;
}

function instances(n: number, count = 4): Instance[] {
  return Array.from({ length: count }, (_, i) => sampleInstance(i + 1, { host: `192.0.2.${n + 1}` }));
}

async function fill(raw: Raw): Promise<void> {
  for (const [n, name] of NAMES.entries()) for (const one of instances(n)) await raw.register(name, one);
}

function full(rig: Rig): boolean {
  return NAMES.every((name) => rig.addresses(name).length === 4);
}

async function bench(
  defer: (end: () => unknown) => void,
  options: StartConsulOptions,
  token: string | null = options.rootToken ?? null,
  config: object = {},
): Promise<Bench> {
  const server = await startConsul(options);
  defer(() => server.stop());
  const proxy = await startFaultProxy(server.endpoint);
  defer(() => proxy.close());
  const raw = new Raw(server.address, options.rootToken ?? null);
  await fill(raw);
  const auth = token === null ? {} : { token };
  const rig = new Rig(makeAdapter(`http://${proxy.endpoint}`, { ...PLAIN, auth }, config));
  defer(() => rig.close());
  if (token === (options.rootToken ?? null)) await eventually(() => full(rig), 20_000, 50);
  return { server, proxy, raw, rig };
}

/** A change is seen, so nobody is deaf; then it is taken back. */
async function hears({ raw, rig }: Bench, withinMs: number): Promise<void> {
  for (const name of [NAMES[0] ?? '', NAMES.at(-1) ?? '']) {
    const extra = sampleInstance(77, { host: '192.0.2.200' });
    await raw.register(name, extra);
    await eventually(() => rig.addresses(name).includes('192.0.2.200:8077'), withinMs, 20);
  }
}

// With one query of its own for a single service all the others come by the firehose.
for (const maxWatches of [98, 1]) {
  const way = maxWatches === 1 ? 'by the firehose' : 'by queries of their own';
  describe(`consul under faults of a real server, ${way}`, () => {
    itLive('killed and restarted with its data: stale, nothing removed, heard again', 90_000, () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, { data: true }, null, { maxWatches });
        await b.server.kill('SIGKILL');
        await eventually(() => b.rig.state === 'stale', 10_000, 20);
        assert.ok(full(b.rig));
        await b.server.restart();
        await eventually(() => b.rig.state === 'live', 30_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
        await hears(b, 35_000);
      }),
    );

    itLive('wiped: every instance is held, and what registers again is heard', 90_000, () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, {}, null, { maxWatches });
        await b.server.wipe();
        const held = (name: string): boolean => b.rig.catalog.get(`default/${name}`)?.instances.every((one) => one.held) === true;
        await eventually(() => NAMES.every(held), 40_000, 50);
        assert.ok(full(b.rig));
        await fill(b.raw);
        await eventually(() => b.rig.catalog.holds().length === 0 && full(b.rig), 45_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
        await hears(b, 35_000);
      }),
    );

    itLive('wiped and partly filled again before we look, above every old index: what is missing is held', 90_000, () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, {}, null, { maxWatches });
        b.proxy.retarget('127.0.0.1:1');
        b.proxy.cut();
        await b.server.wipe();
        for (let n = 0; n < 60; n++) await b.raw.register('noise', sampleInstance(1, { port: 2_000 + n }));
        for (const [n, name] of NAMES.entries()) for (const one of instances(n, 3)) await b.raw.register(name, one);
        b.proxy.retarget(b.server.endpoint);
        const heldOne = (name: string): boolean =>
          b.rig.catalog.get(`default/${name}`)?.instances.filter((one) => one.held).length === 1;
        await eventually(() => NAMES.every(heldOne), 45_000, 50);
        assert.ok(full(b.rig));
        await fill(b.raw);
        await eventually(() => b.rig.catalog.holds().length === 0 && full(b.rig), 45_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
      }),
    );

    itLive('frozen for longer than two guard calls: noticed within 30 s, heard again when it wakes', 120_000, () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, { data: true }, null, { maxWatches });
        await b.server.kill('SIGSTOP');
        await eventually(() => b.rig.state === 'stale', 30_000, 50);
        await b.server.kill('SIGCONT');
        await eventually(() => b.rig.state === 'live', 45_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
        await hears(b, 35_000);
      }),
    );

    itLive('a half-open connection is noticed within 30 s', 120_000, () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, { data: true }, null, { maxWatches });
        b.proxy.halfOpen();
        await b.raw.register(NAMES[0] ?? '', sampleInstance(66, { host: '192.0.2.200' }));
        // 30 s to notice, 1 s to open again, and the read.
        await eventually(() => b.rig.addresses(NAMES[0] ?? '').includes('192.0.2.200:8066'), 32_000, 50);
        await eventually(() => b.rig.state === 'live', 30_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
        await hears(b, 35_000);
      }),
    );
  });
}

describe('consul, real server: rights, garbage, older data', () => {
  const policy = (rules: string): object => ({ Name: 'weir', Rules: rules });
  const READ = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }';
  const TOKEN = { SecretID: '6a9d8f5e-0a3c-4b7e-9a51-1f2e3d4c5b6a', AccessorID: 'b1d6a0de-1111-4222-8333-444455556666' };

  itLive(
    'a token that is deleted, and a policy that is narrowed: denied, nothing removed, heard again when given back',
    150_000,
    () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, { rootToken: ROOT }, TOKEN.SecretID);
        const made = await b.raw.call('PUT', '/acl/policy', policy(READ));
        const id = String(Object(made).ID);
        const give = (): Promise<unknown> => b.raw.call('PUT', '/acl/token', { ...TOKEN, Policies: [{ ID: id }] });
        await give();
        await eventually(() => full(b.rig), 40_000, 50);
        await b.raw.call('DELETE', `/acl/token/${TOKEN.AccessorID}`);
        await eventually(() => b.rig.catalog.sourceSummary('test')?.cause === 'denied', 45_000, 50);
        assert.ok(full(b.rig));
        await give();
        await eventually(() => b.rig.state === 'live', 45_000, 50);
        await hears(b, 35_000);
        await b.raw.call('PUT', `/acl/policy/${id}`, { ID: id, ...policy('service_prefix "other" { policy = "read" }') });
        await eventually(() => b.rig.catalog.sourceSummary('test')?.cause === 'denied', 45_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
        await b.raw.call('PUT', `/acl/policy/${id}`, { ID: id, ...policy(READ) });
        await eventually(() => b.rig.state === 'live', 45_000, 50);
        assert.deepEqual(b.rig.shrinks, []);
      }),
  );

  itLive('garbage, and a server of another kind, in its place: nothing removed, heard again', 120_000, () =>
    withCleanup(async (defer) => {
      const b = await bench(defer, { data: true });
      const answers = [
        'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]',
        'HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull',
        '\u0000\u0001garbage\r\n\r\n',
        'HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n',
      ];
      let at = 0;
      const other = createServer((socket) => {
        socket.on('error', () => {});
        socket.on('data', () => socket.end(answers[at++ % answers.length] ?? ''));
      });
      await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
      defer(() => other.close());
      const address = other.address();
      b.proxy.retarget(`127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`);
      b.proxy.cut();
      // Each of them was given; while all fail the supervisor asks ever more seldom.
      await eventually(() => at >= answers.length && b.rig.state === 'stale', 45_000, 50);
      assert.ok(full(b.rig));
      b.proxy.retarget(b.server.endpoint);
      b.proxy.cut();
      await eventually(() => b.rig.state === 'live', 45_000, 50);
      assert.deepEqual(b.rig.shrinks, []);
      await hears(b, 35_000);
    }),
  );

  itLive('restored from an older copy: a new epoch, additions of the gap are held, nobody is deaf', 120_000, () =>
    withCleanup(async (defer) => {
      const b = await bench(defer, { data: true });
      await b.server.snapshotData();
      await eventually(() => b.rig.state === 'live', 45_000, 50);
      const name = NAMES[0] ?? '';
      for (let n = 5; n <= 12; n++) await b.raw.register(name, sampleInstance(n, { host: '192.0.2.1' }));
      await eventually(() => b.rig.addresses(name).length === 12, 40_000, 50);
      await b.server.restoreData();
      await eventually(() => (b.rig.made.counts.get('epochs') ?? 0) > 0, 45_000, 50);
      assert.equal(b.rig.addresses(name).length, 12, 'eight of twelve at once are held');
      await hears(b, 35_000);
      assert.deepEqual(b.rig.shrinks, []);
    }),
  );

  itLive('cut every second for 10 s: no storm, nothing removed, whole in the end', 90_000, () =>
    withCleanup(async (defer) => {
      const b = await bench(defer, { data: true });
      const before = b.proxy.accepted;
      for (let n = 0; n < 10; n++) {
        b.proxy.cut();
        await new Promise((resolve) => setTimeout(resolve, 1_000));
      }
      const perSecond = (b.proxy.accepted - before) / 10 / (NAMES.length + 2);
      assert.ok(perSecond <= 2, `${perSecond} connections a second and stream`);
      await eventually(() => b.rig.state === 'live' && full(b.rig), 45_000, 50);
      assert.deepEqual(b.rig.shrinks, []);
    }),
  );
});
