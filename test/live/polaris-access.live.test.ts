// The polaris adapter on a real server that does not take everything from everybody: tokens with few rights, limited rates, bytes that
// are no Polaris. And what it reads and writes of places.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe } from 'node:test';
import type { WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type PolarisServer, startPolaris } from '../registries/polaris.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { Bench, makeAdapter, never, PLAIN, Raw } from './polaris-support.ts';
import { itPolaris } from './source-bench.ts';

const OWN: WriteMode = { as: 'own', ttl: 6_000, liveness: 'beat' };
const key = (name: string, namespace = 'default'): ServiceKey => ({ namespace, name });
const withToken = (token: string) => ({ ...PLAIN, auth: { token } });

/** A user below the owner, without a policy of its own. */
async function subUser(polaris: PolarisServer, name: string): Promise<{ readonly id: string; readonly token: string }> {
  await polaris.console('POST', '/core/v1/users', [{ name, password: 'weir-weir', source: 'Polaris' }]);
  const { users } = await polaris.console('GET', `/core/v1/users?name=${name}&limit=1&offset=0`);
  const [{ id }] = Object(users);
  // The server's own cache has the user up to a second later.
  return eventually(async () => {
    const { user } = await polaris.console('GET', `/core/v1/user/token?id=${id}`);
    return { id, token: String(Object(user)['auth_token']) };
  }, 10_000);
}

/** READ_WRITE for the user on these resources. */
async function allow(polaris: PolarisServer, user: string, resources: object): Promise<void> {
  await polaris.console('POST', '/core/v1/auth/strategy', {
    name: `weir-${randomBytes(4).toString('hex')}`,
    principals: { users: [{ id: user }], groups: [] },
    resources: { namespaces: [], services: [], config_groups: [], ...resources },
    action: 'READ_WRITE',
  });
}

describe('polaris adapter on a real server: rights, limits, places', () => {
  itPolaris(
    'with client auth any valid token reads everything; writing needs the right on the service or its namespace, and aliases too',
    120_000,
    async (defer) => {
      const polaris = await startPolaris({ clientAuth: 'strict' });
      defer(() => polaris.stop());
      const raw = new Raw(polaris.grpc, polaris.token);
      defer(() => raw.close());
      for (const one of [key('theirs'), key('granted'), key('inside', 'weir-ns')]) await raw.put(one, [sampleInstance(1)]);
      const user = await subUser(polaris, 'weir-user');
      const { adapter } = makeAdapter([polaris.grpc, `http://${polaris.http}`], withToken(user.token));
      defer(() => adapter.close());
      const put = async (of: ServiceKey, n: number): Promise<string> => {
        const [one] = (await adapter.put?.([{ key: of, instance: sampleInstance(n) }], OWN, never())) ?? [];
        return one instanceof SourceError ? one.causeKind : one === undefined ? 'nothing' : 'written';
      };
      // 1. Reading: the token alone.
      await eventually(async () => {
        const seen = await adapter.read(key('theirs'), never());
        assert.ok(seen.kind === 'present' && seen.instances.length === 1);
      }, 20_000);
      // 2. What a plan asks beforehand: the right on each service, and nothing is written by the question.
      const mayNot = async (...names: readonly string[]): Promise<readonly string[]> =>
        (
          (await adapter.mayWrite?.(
            names.map((name) => key(name)),
            never(),
          )) ?? assert.fail()
        ).map(({ message }) => message);
      const [fault = '', ...others] = await mayNot('theirs', 'mine');
      assert.match(fault, /default\/theirs may not be written: .*READ_WRITE/);
      assert.deepEqual(others, []);
      const kept = await adapter.read(key('theirs'), never());
      assert.ok(kept.kind === 'present' && kept.instances.length === 1);
      // Writing: not into a service of others, freely into one that the first register makes (not in a namespace of others).
      assert.equal(await put(key('theirs'), 2), 'denied');
      assert.equal(await put(key('mine'), 2), 'written');
      assert.equal(await put(key('made', 'weir-ns'), 2), 'denied');
      // 3. The right on a namespace makes new services in it; that on a service writes into it, and makes its aliases.
      const alias = (): Promise<string> =>
        adapter.alias?.(key('granted'), '1001:5', never()).then(
          () => 'written',
          (thrown: unknown) => (thrown instanceof SourceError ? thrown.causeKind : String(thrown)),
        ) ?? assert.fail();
      assert.equal(await alias(), 'denied');
      await allow(polaris, user.id, { namespaces: [{ id: 'weir-ns' }] });
      await eventually(async () => assert.equal(await put(key('made', 'weir-ns'), 2), 'written'), 15_000, 200);
      assert.equal(await put(key('inside', 'weir-ns'), 2), 'denied');
      const { services } = await polaris.console('GET', '/naming/v1/services?name=granted&namespace=default&limit=1&offset=0');
      const [{ id }] = Object(services);
      await allow(polaris, user.id, { services: [{ id }] });
      await eventually(async () => assert.equal(await put(key('granted'), 2), 'written'), 15_000, 200);
      assert.equal(await alias(), 'written');
      assert.equal(await put(key('theirs'), 3), 'denied', 'no right has leaked to other services');
      // 4. A mirror writes into what others made: all services.
      await allow(polaris, user.id, { services: [{ id: '*' }] });
      await eventually(async () => assert.equal(await put(key('inside', 'weir-ns'), 2), 'written'), 15_000, 200);
      assert.equal(await put(key('theirs'), 3), 'written');
      assert.deepEqual(await mayNot('theirs', 'granted'), []);
    },
  );

  itPolaris(
    'over the rate limit of the server the source says so, keeps what it has, asks less, and recovers',
    120_000,
    async (defer) => {
      const polaris = await startPolaris({ apiLimit: { method: '/v1.PolarisGRPC/Discover', rate: 20 } });
      defer(() => polaris.stop());
      const raw = new Raw(polaris.grpc);
      defer(() => raw.close());
      const keys = Array.from({ length: 30 }, (_, n) => key(`limited-${n}`));
      for (const one of keys) await raw.put(one, [sampleInstance(1)]);
      const b = new Bench([polaris.grpc]);
      defer(() => b.close());
      // 30 services each second are more than 20 requests: some are refused all the time, and each comes through in the end.
      await eventually(() => keys.every((one) => b.view(one).length === 1), 60_000, 100);
      await eventually(() => assert.match(b.lastError, /the server limits our rate/), 30_000, 20);
      await eventually(() => assert.ok(b.supervisor.summary().lostWatches < keys.length), 20_000, 50);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris(
    'garbage instead of Polaris, from the first byte or in the middle, removes nothing and is told in words',
    120_000,
    async (defer) => {
      const polaris = await startPolaris();
      defer(() => polaris.stop());
      const raw = new Raw(polaris.grpc);
      defer(() => raw.close());
      await raw.put(key('a'), [sampleInstance(1)]);
      const proxy = await startFaultProxy(polaris.grpc);
      defer(() => proxy.close());
      const b = new Bench([proxy.endpoint]);
      defer(() => b.close());
      await eventually(() => b.view(key('a')).length === 1, 30_000, 50);
      const garbage = createServer((socket) => {
        socket.on('error', () => {});
        socket.on('data', () => socket.write(randomBytes(200)));
      });
      garbage.listen(0, '127.0.0.1');
      await once(garbage, 'listening');
      defer(() => garbage.close());
      proxy.retarget(`127.0.0.1:${Object(garbage.address()).port}`);
      proxy.cut();
      await eventually(() => assert.match(b.lastError, /no gRPC there/), 30_000, 50);
      assert.deepEqual([b.view(key('a')).length, b.removed], [1, []]);
      proxy.retarget(polaris.grpc);
      proxy.cut();
      await raw.put(key('a'), [sampleInstance(2)]);
      await eventually(() => b.view(key('a')).length === 2, 40_000, 50);
      // An answer that ends in its middle.
      for (const bytes of [40, 200, 700]) {
        proxy.cutAfter(bytes);
        proxy.cut();
        await eventually(() => assert.equal(b.supervisor.summary().state, 'stale'), 20_000, 20);
      }
      proxy.cutAfter(Number.POSITIVE_INFINITY);
      await raw.put(key('a'), [sampleInstance(3)]);
      await eventually(() => b.view(key('a')).length === 3, 60_000, 50);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris(
    'a storm of losses with 300 services costs few connections, and all of them are heard again',
    120_000,
    async (defer, t) => {
      const polaris = await startPolaris();
      defer(() => polaris.stop());
      const raw = new Raw(polaris.grpc);
      defer(() => raw.close());
      const keys = Array.from({ length: 300 }, (_, n) => key(`storm-${n}`));
      for (let n = 0; n < keys.length; n += 100) {
        await Promise.all(keys.slice(n, n + 100).map((one) => raw.put(one, [sampleInstance(1)])));
      }
      const proxy = await startFaultProxy(polaris.grpc);
      defer(() => proxy.close());
      const b = new Bench([proxy.endpoint]);
      defer(() => b.close());
      await eventually(() => keys.every((one) => b.view(one).length === 1), 60_000, 100);
      const before = proxy.accepted;
      const started = performance.now();
      while (performance.now() - started < 8_000) {
        // Whatever connects is reset at once: a server that dies at every start.
        proxy.cut();
        await new Promise<void>((resolve) => setTimeout(resolve, 50));
      }
      const connections = proxy.accepted - before;
      t.diagnostic(`300 watched services, every connection reset for 8 s: ${connections} connections`);
      assert.ok(connections <= 8, `${connections} connections`);
      await eventually(() => b.supervisor.summary().lostWatches === 0, 60_000, 50);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris(
    'places and what Polaris routes nearby by are the same both ways: written by us, by others, read by both',
    120_000,
    async (defer) => {
      const polaris = await startPolaris();
      defer(() => polaris.stop());
      const { adapter } = makeAdapter([polaris.grpc]);
      defer(() => adapter.close());
      const near: Instance = sampleInstance(1, {
        locality: { region: 'south-china', zone: 'ap-guangzhou', campus: 'ap-guangzhou-3' },
        metadata: new Map([['lane', 'blue']]),
      });
      const partly = sampleInstance(2, { locality: { zone: 'ap-guangzhou' }, metadata: new Map() });
      const [receipt] = await eventually(async () => {
        const made =
          (await adapter.put?.(
            [near, partly].map((instance) => ({ key: key('near'), instance })),
            OWN,
            never(),
          )) ?? [];
        assert.ok(made.every((one) => !(one instanceof Error)));
        return made as readonly WriteReceipt[];
      }, 10_000);
      const ours = async (): Promise<readonly Instance[]> => {
        const seen = await adapter.read(key('near'), never());
        return seen.kind === 'present' ? seen.instances : [];
      };
      await eventually(async () => assert.equal((await ours()).length, 2), 10_000, 100);
      const at = async (host: string): Promise<Instance> => (await ours()).find((one) => one.host === host) ?? assert.fail(host);
      assert.deepEqual((await at(near.host)).locality, near.locality);
      assert.deepEqual([...(await at(near.host)).metadata], [['lane', 'blue']], 'the keys that the server adds are no metadata');
      assert.deepEqual((await at(partly.host)).locality, partly.locality);
      // As the console shows it, and as the console writes it.
      const { instances } = await polaris.console('GET', '/naming/v1/instances?service=near&namespace=default&limit=10&offset=0');
      const shown = Object(instances).find(({ host }: { host: string }) => host === near.host);
      assert.deepEqual(shown.location, near.locality);
      assert.equal(shown.metadata.lane, 'blue');
      const change = {
        id: receipt?.nativeId,
        location: { region: 'r', zone: 'z', campus: '' },
        metadata: { lane: 'green', 'internal-x': '1' },
        healthy: false,
        isolate: true,
      };
      await polaris.console('PUT', '/naming/v1/instances', [change]);
      await eventually(async () => assert.deepEqual((await at(near.host)).locality, { region: 'r', zone: 'z' }), 10_000, 100);
      const changed = await at(near.host);
      assert.deepEqual(
        [changed.isolated, changed.metadata.get('lane'), changed.metadata.get('internal-x')],
        [true, 'green', '1'],
      );
    },
  );
});
