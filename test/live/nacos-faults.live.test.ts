// The nacos adapter under faults of a real server, judged at the catalog: 200 watched services, nothing is wrongly removed, all is well
// again without a restart of ours. WEIR_TEST_NACOS_HOME=<folder of a Nacos distribution>: the tests start, kill, freeze and wipe it.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Adapter } from '../../src/adapter/contract.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type NacosProcess, nacosHome, startNacos } from '../registries/nacos.ts';
import { eventually } from '../support/eventually.ts';
import { Bench, type Front, makeAdapter, PLAIN, startFront } from './nacos-support.ts';

const { path, how } = await nacosHome();
const SKIP = { skip: path === null ? `no Nacos to break: ${how}` : false };
const SERVICES: readonly ServiceKey[] = Array.from({ length: 200 }, (_, n) => ({ namespace: 'default', name: `svc-${n}` }));
/** The server needs 15 to 25 s to start. */
const LONG_MS = 120_000;

/** Registers over a connection of its own, as services do: what it registered comes back by itself. */
class Publisher {
  readonly adapter: Adapter;

  constructor(address: string, auth: object = {}) {
    this.adapter = makeAdapter({ servers: [address] }, { ...PLAIN, auth }).adapter;
  }

  /** Instances 1 to `count` of every service. */
  async publish(count: number): Promise<void> {
    const numbers = Array.from({ length: count }, (_, n) => n + 1);
    const writes = SERVICES.flatMap((key) => numbers.map((n) => ({ key, instance: sampleInstance(n) })));
    const results = await this.adapter.put?.(writes, { as: 'own', ttl: 15_000, liveness: 'beat' }, AbortSignal.timeout(60_000));
    for (const result of results ?? []) if (result instanceof Error) throw result;
  }
}

async function complete(bench: Bench, count: number): Promise<void> {
  await eventually(
    () => {
      const short = SERVICES.filter((key) => bench.size(key) !== count || bench.held(key) !== 0);
      const [first] = short;
      const said = first === undefined ? '' : `${first.name} has ${bench.size(first)}, ${bench.held(first)} of them held`;
      assert.equal(short.length, 0, `${short.length} services have not ${count} instances: ${said}; ${bench.lastError}`);
    },
    LONG_MS,
    100,
  );
}

/** One more instance of every service reaches the views: the source is heard again. */
async function heardAgain(bench: Bench, publisher: Publisher, count: number): Promise<void> {
  await eventually(() => publisher.publish(count), LONG_MS, 500);
  await complete(bench, count);
  assert.equal(bench.supervisor.summary().state, 'live');
  assert.deepEqual(bench.removed, []);
}

describe('nacos adapter under faults of a real server', SKIP, () => {
  let server: NacosProcess;
  let front: Front;
  before(async () => {
    server = await startNacos();
    front = await startFront(server.address, server.grpcPort);
  });
  after(async () => {
    await front?.close();
    await server?.stop();
  });

  /** A reader through the proxy, and a publisher past it; two instances of each service are seen. */
  async function rig(body: (bench: Bench, publisher: Publisher) => Promise<void>): Promise<void> {
    const publisher = new Publisher(server.address);
    const bench = new Bench(front.config);
    try {
      await publisher.publish(2);
      await complete(bench, 2);
      await body(bench, publisher);
    } finally {
      Object.assign(front.grpc.link, { delayMs: 0, jitterMs: 0, sliceBytes: 0 });
      await bench.close();
      await publisher.adapter.close();
      // What a killed connection published leaves the server when it notices.
      await eventually(async () => assert.equal(await left(server), 0), LONG_MS, 500);
    }
  }

  it('SIGKILL and a restart remove nothing; few connections are tried meanwhile, and changes are heard again', {
    timeout: 3 * LONG_MS,
  }, async (t) => {
    await rig(async (bench, publisher) => {
      const tried = front.grpc.accepted + front.http.accepted;
      const from = performance.now();
      await server.kill('SIGKILL');
      await eventually(() => bench.supervisor.summary().state === 'stale', 20_000);
      for (const key of SERVICES) assert.equal(bench.size(key), 2);
      await server.restart();
      await heardAgain(bench, publisher, 3);
      const seconds = (performance.now() - from) / 1_000;
      const connections = front.grpc.accepted + front.http.accepted - tried;
      t.diagnostic(`${connections} connections in ${seconds.toFixed(0)} s`);
      // One line for all watches: its back-off, and a few for HTTP (version, names).
      assert.ok(connections <= 10 + seconds, `${connections} connections in ${seconds} s`);
    });
  });

  it('a wiped server whose publishers are away removes nothing; what registers again is taken', {
    timeout: 3 * LONG_MS,
  }, async () => {
    await rig(async (bench, publisher) => {
      await publisher.adapter.close();
      await server.wipe();
      await eventually(() => SERVICES.every((key) => bench.size(key) === 2 && bench.held(key) === 2), LONG_MS, 100);
      assert.deepEqual(bench.removed, []);
      const again = new Publisher(server.address);
      try {
        await again.publish(2);
        await complete(bench, 2);
        await heardAgain(bench, again, 3);
      } finally {
        await again.adapter.close();
      }
    });
  });

  it('a frozen server is noticed by the health call, removes nothing, and is heard again when it wakes', {
    timeout: 3 * LONG_MS,
  }, async () => {
    await rig(async (bench, publisher) => {
      await server.kill('SIGSTOP');
      try {
        await eventually(() => bench.supervisor.summary().state === 'stale', 30_000, 50);
        assert.match(bench.lastError, /no answer within/);
        for (const key of SERVICES) assert.equal(bench.size(key), 2);
      } finally {
        await server.kill('SIGCONT');
      }
      await heardAgain(bench, publisher, 3);
    });
  });

  it('a half-open connection is noticed within 30 s and replaced, and a slow link in pieces loses nothing', {
    timeout: 3 * LONG_MS,
  }, async () => {
    await rig(async (bench, publisher) => {
      front.grpc.halfOpen();
      const from = performance.now();
      await publisher.publish(3);
      await complete(bench, 3);
      assert.ok(performance.now() - from < 30_000, `${performance.now() - from} ms`);
      Object.assign(front.grpc.link, { delayMs: 40, jitterMs: 40, sliceBytes: 300 });
      await heardAgain(bench, publisher, 4);
      front.cut();
      await heardAgain(bench, publisher, 5);
    });
  });
});

describe('nacos adapter and rights that are taken away', SKIP, () => {
  it('a changed password makes the source denied in words that hold no part of it, removes nothing, and the right one is taken again', {
    timeout: 4 * LONG_MS,
  }, async () => {
    const password = 'first-Secret-1';
    const server = await startNacos({ password, tokenTtl: 10 });
    const publisher = new Publisher(server.address, { username: 'nacos', password });
    const bench = new Bench({ servers: [server.address] }, { ...PLAIN, auth: { username: 'nacos', password } });
    try {
      await publisher.publish(2);
      await complete(bench, 2);
      await changePassword(server, password, 'second-Secret-2');
      await eventually(() => assert.equal(bench.supervisor.summary().cause, 'denied'), LONG_MS, 200);
      assert.match(bench.lastError, /check auth\.username and auth\.password/);
      assert.ok(!bench.lastError.includes(password) && !bench.made.lines.join('\n').includes(password));
      for (const key of SERVICES) assert.equal(bench.size(key), 2);
      assert.deepEqual(bench.removed, []);
      await changePassword(server, 'second-Secret-2', password);
      await heardAgain(bench, publisher, 3);
    } finally {
      await bench.close();
      await publisher.adapter.close();
      await server.stop();
    }
  });
});

/** Instances that the server lists still. */
async function left({ address }: NacosProcess): Promise<number> {
  const name = SERVICES.at(-1)?.name ?? '';
  const answer = await fetch(`http://${address}/nacos/v1/ns/instance/list?serviceName=DEFAULT_GROUP@@${name}`);
  const text = await answer.text();
  return [...text.matchAll(/"instanceId"/g)].length;
}

/** By the administrator, who is the user itself. */
async function changePassword({ address, generation }: NacosProcess, old: string, fresh: string): Promise<void> {
  const [login, user] = generation === 3 ? ['/v3/auth/user/login', '/v3/auth/user'] : ['/v1/auth/users/login', '/v1/auth/users'];
  await eventually(
    async () => {
      const url = `http://${address}/nacos`;
      const entered = await fetch(`${url}${login}`, {
        method: 'POST',
        body: new URLSearchParams({ username: 'nacos', password: old }),
      });
      const text = await entered.text();
      const token = /"accessToken":"([^"]+)"/.exec(text)?.[1];
      assert.ok(token !== undefined, text);
      const query = new URLSearchParams({ username: 'nacos', newPassword: fresh });
      const changed = await fetch(`${url}${user}?${query}`, { method: 'PUT', headers: { accessToken: token } });
      assert.equal(changed.status, 200, await changed.text());
    },
    LONG_MS,
    1_000,
  );
}
