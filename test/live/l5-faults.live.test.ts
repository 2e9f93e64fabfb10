// The L5 adapter on the L5 server of a real Polaris: the golden vectors on the wire, names, sets, other servers behind the address, and
// faults of process and network, under which no instance may leave a view that the registry still has.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { describe } from 'node:test';
import { bytes, NO_NAME, V1, V3, V5, V5_LIST } from '../../adapters/l5/vectors.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { type PolarisServer, type StartPolarisOptions, startPolaris } from '../registries/polaris.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { Bench, Console, key, makeAdapter, never } from './l5-support.ts';
import { itPolaris } from './source-bench.ts';

type Defer = (end: () => unknown) => void;

const SIDS = Array.from({ length: 20 }, (_, n) => `1001:${n + 1}`);
const addresses = (n: number): string[] => [1, 2, 3].map((i) => `10.0.${n}.${i}:8000`);

async function polaris(defer: Defer, options: StartPolarisOptions = {}): Promise<{ server: PolarisServer; native: Console }> {
  const server = await startPolaris(options);
  defer(() => server.stop());
  return { server, native: new Console(server) };
}

async function fill(native: Console, sids: readonly string[]): Promise<void> {
  for (const [n, sid] of sids.entries()) {
    await native.put(
      sid,
      addresses(n).map((address) => ({ host: address.split(':')[0] ?? '', port: 8_000 })),
    );
  }
}

function bench(servers: readonly string[], defer: Defer, config: object = { sids: SIDS }): Bench {
  const made = new Bench(makeAdapter(servers, config));
  defer(() => made.close());
  return made;
}

async function whole(b: Bench, sids: readonly string[] = SIDS, withinMs = 20_000): Promise<void> {
  await eventually(
    () => {
      for (const [n, sid] of sids.entries()) assert.deepEqual(b.view(sid), addresses(n));
    },
    withinMs,
    50,
  );
}

/** What the server says to these bytes, `length` of them; hexadecimal. */
function ask(endpoint: string, hex: string, length: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const [host = '', port] = endpoint.split(':');
    const socket = connect(Number(port), host);
    let got = '';
    const end = (): void => {
      socket.destroy();
      resolve(got);
    };
    socket.setTimeout(10_000, end);
    socket.on('error', reject);
    socket.on('close', end);
    socket.on('data', (chunk) => {
      got += chunk.toString('hex');
      if (got.length >= 2 * length) end();
    });
    socket.write(bytes(hex));
  });
}

function instances(snapshot: Snapshot): [string, number][] {
  return snapshot.kind === 'absent' ? [] : snapshot.instances.map(({ host, weight }): [string, number] => [host, weight]).sort();
}

describe('L5 adapter on a real Polaris', () => {
  itPolaris('golden vectors: V1 is answered with V5 (with or without a server list), V3 without SIDs', 120_000, async (defer) => {
    const { server } = await polaris(defer);
    const v5 = await ask(server.l5, V1, 26);
    // A server that has registered itself names itself in the list.
    assert.ok(
      [V5, V5_LIST].some((hex) => hex === v5),
      v5,
    );
    assert.equal(await ask(server.l5, V3, 24), NO_NAME);
  });

  itPolaris('names, aliases, sets and weights, ids beyond 2^31', 120_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await native.service('1001:1', 'demo.l5', true);
    await native.put('1001:1', [{ host: '10.0.0.1', port: 80, weight: 100 }]);
    await native.put('1001:1', [{ host: '10.0.0.2', port: 80, weight: 100 }], {
      'internal-cl5-setId': 'A,NOSET',
      'internal-cl5-weight': '5,7',
    });
    await native.put('1001:1', [{ host: '10.0.0.3', port: 80 }], { 'internal-cl5-setId': 'A' });
    await native.put('1001:1', [{ host: '10.0.0.4', port: 80, weight: 0 }]);
    await native.put('1001:1', [{ host: '10.0.0.5', port: 80, isolated: true }]);
    await native.put('1001:1', [{ host: '10.0.0.6', port: 80, health: 'unhealthy' }]);
    await native.alias('1001:77', '1001:1');
    await native.put('4294967295:4294967294', [{ host: '10.0.1.1', port: 81 }]);
    const { adapter } = makeAdapter([server.l5], { names: ['demo.l5', 'nobody'], aliases: true });
    defer(() => adapter.close());
    const served: [string, number][] = [
      ['10.0.0.1', 100],
      ['10.0.0.2', 7],
    ];
    const read = (name: string): Promise<Snapshot> => adapter.read(key(name), never());
    for (const name of ['1001:1', 'demo.l5', '1001:77']) {
      await eventually(async () => assert.deepEqual(instances(await read(name)), served), 10_000, 100);
    }
    await eventually(async () => assert.deepEqual(instances(await read('4294967295:4294967294')), [['10.0.1.1', 100]]), 10_000);
    assert.equal((await read('nobody')).kind, 'absent');
    const snapshot = await read('1001:77');
    assert.ok(snapshot.kind === 'present');
    assert.deepEqual(Object.fromEntries(snapshot.instances[0]?.metadata ?? []), {
      'l5.cmdid': '77',
      'l5.modid': '1001',
      'l5.name': 'demo.l5',
      'l5.policy': '1',
    });
    const names: ServiceKey[] = [];
    const stop = new AbortController();
    for await (const list of adapter.services?.(stop.signal) ?? assert.fail()) {
      names.push(...list.keys);
      break;
    }
    assert.deepEqual(
      names.map(({ name }) => name),
      ['1001:1', 'demo.l5'],
    );
  });

  itPolaris(
    'other ports of the same server behind the address: the source says what it found, and shows nothing',
    120_000,
    async (defer) => {
      const { server } = await polaris(defer);
      for (const [address, words] of [
        [server.grpc, /gRPC \(HTTP\/2\) server answers at this address.*set servers/],
        [server.http, /an HTTP server answers at this address.*set servers|no L5 server.*set servers/],
        [server.nacos, /an HTTP server answers at this address.*set servers|no L5 server.*set servers/],
        ['127.0.0.1:1', /connection refused.*set servers/],
      ] as const) {
        const b = bench([address], defer, { sids: ['1001:1'] });
        await eventually(() => assert.match(b.lastError, words), 20_000, 50);
        assert.notEqual(b.state, 'live');
        assert.deepEqual(b.view('1001:1'), []);
      }
    },
  );

  itPolaris('SIGKILL and restart, three times: no instance leaves a view, and changes are seen again', 180_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await fill(native, SIDS);
    const b = bench([server.l5], defer);
    await whole(b);
    for (let round = 0; round < 3; round++) {
      await server.kill('SIGKILL');
      await eventually(() => assert.ok(b.lost), 10_000);
      await server.restart();
      await eventually(() => assert.ok(!b.lost), 20_000, 50);
      await whole(b);
      const extra = { host: `10.9.0.${round + 1}`, port: 9_000 };
      await native.put('1001:1', [extra]);
      await eventually(() => assert.ok(b.view('1001:1').includes(`${extra.host}:9000`)), 20_000, 50);
      await native.remove('1001:1', [`${extra.host}:9000`]);
      await whole(b);
    }
    assert.deepEqual(
      b.removed.filter((text) => !text.includes('10.9.0.')),
      [],
    );
  });

  itPolaris('a frozen server is noticed within the answer timeout, and nothing leaves a view', 120_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await fill(native, SIDS);
    const b = bench([server.l5], defer);
    await whole(b);
    await server.kill('SIGSTOP');
    const frozen = performance.now();
    await eventually(() => assert.ok(b.lost), 30_000);
    const noticed = performance.now() - frozen;
    assert.ok(noticed < 15_000, `noticed after ${noticed} ms`);
    assert.match(b.lastError, /no answer within/);
    await server.kill('SIGCONT');
    await eventually(() => assert.ok(!b.lost), 30_000, 50);
    await whole(b);
    assert.deepEqual(b.removed, []);
  });

  itPolaris('a connection that goes half-open is noticed and replaced, and nothing leaves a view', 120_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await fill(native, SIDS);
    const proxy = await startFaultProxy(server.l5);
    defer(() => proxy.close());
    const b = bench([proxy.endpoint], defer);
    await whole(b);
    proxy.halfOpen();
    await eventually(() => assert.ok(b.lost), 30_000);
    await native.put('1001:1', [{ host: '10.9.0.1', port: 9_000 }]);
    await eventually(() => assert.ok(b.view('1001:1').includes('10.9.0.1:9000')), 30_000, 50);
    assert.deepEqual(b.removed, []);
  });

  itPolaris('a server whose data are wiped keeps every view: all is held, and it is heard again', 120_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await fill(native, SIDS);
    const b = bench([server.l5], defer);
    await whole(b);
    await server.wipe();
    await eventually(() => assert.ok(SIDS.every((sid) => b.held(sid) === 3)), 30_000, 50);
    native.forget();
    await fill(native, SIDS.slice(0, 5));
    await eventually(() => assert.ok(SIDS.slice(0, 5).every((sid) => b.held(sid) === 0)), 30_000, 50);
    await whole(b);
    assert.deepEqual(b.removed, []);
  });

  itPolaris('every connection reset after a second: few connections, and the views stay whole', 120_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await fill(native, SIDS);
    const proxy = await startFaultProxy(server.l5);
    defer(() => proxy.close());
    const b = bench([proxy.endpoint], defer);
    await whole(b);
    const before = proxy.accepted;
    for (let n = 0; n < 10; n++) {
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      proxy.cut();
    }
    assert.ok(proxy.accepted - before <= 15, `${proxy.accepted - before} connections in 10 s`);
    await eventually(() => assert.ok(!b.lost), 30_000, 50);
    await whole(b);
    assert.deepEqual(b.removed, []);
  });

  itPolaris('a second server takes over when the first one dies', 180_000, async (defer) => {
    const one = await polaris(defer);
    const two = await polaris(defer);
    for (const { native } of [one, two]) await fill(native, SIDS);
    const b = bench([one.server.l5, two.server.l5], defer);
    await whole(b);
    await one.server.kill('SIGKILL');
    await two.native.put('1001:1', [{ host: '10.9.0.1', port: 9_000 }]);
    await eventually(() => assert.ok(b.view('1001:1').includes('10.9.0.1:9000')), 30_000, 50);
    assert.deepEqual(b.removed, []);
  });

  itPolaris('older data after a restore hold what is missing in them, and later changes are seen', 180_000, async (defer) => {
    const { server, native } = await polaris(defer);
    await fill(native, SIDS.slice(0, 5));
    await server.snapshotData();
    // One of four that is gone may well be meant; most of them at once is held.
    await native.put(
      '1001:1',
      [1, 2, 3, 4, 5, 6].map((n) => ({ host: `10.9.0.${n}`, port: 9_000 })),
    );
    await native.put('1001:9', [{ host: '10.9.0.9', port: 9_000 }]);
    const b = bench([server.l5], defer);
    await eventually(() => assert.deepEqual([b.view('1001:1').length, b.view('1001:9').length], [9, 1]), 20_000, 50);
    await server.restoreData();
    await eventually(() => assert.deepEqual([b.held('1001:1'), b.held('1001:9')], [6, 1]), 40_000, 50);
    native.forget();
    await native.put('1001:9', [{ host: '10.9.0.9', port: 9_000 }]);
    await eventually(() => assert.equal(b.held('1001:9'), 0), 40_000, 50);
    assert.deepEqual(b.removed, []);
  });

  itPolaris(
    'garbage instead of L5, answers that break off, a slow link: nothing leaves a view, and it is heard again',
    180_000,
    async (defer) => {
      const { server, native } = await polaris(defer);
      await fill(native, SIDS);
      const proxy = await startFaultProxy(server.l5);
      defer(() => proxy.close());
      const b = bench([proxy.endpoint], defer);
      await whole(b);
      const garbage = createServer((socket) => {
        socket.on('error', () => {});
        socket.on('data', () => socket.write(randomBytes(200)));
      });
      garbage.listen(0, '127.0.0.1');
      await once(garbage, 'listening');
      defer(() => garbage.close());
      proxy.retarget(`127.0.0.1:${Object(garbage.address()).port}`);
      proxy.cut();
      await eventually(() => assert.match(b.lastError, /set servers|no answer within|L5/), 30_000, 50);
      assert.ok(b.lost);
      proxy.retarget(server.l5);
      for (const bytes of [10, 300]) {
        proxy.cutAfter(bytes);
        proxy.cut();
        await eventually(() => assert.ok(b.lost), 20_000, 20);
      }
      proxy.cutAfter(Number.POSITIVE_INFINITY);
      Object.assign(proxy.link, { delayMs: 40, jitterMs: 40, sliceBytes: 100 });
      await native.put('1001:1', [{ host: '10.9.0.1', port: 9_000 }]);
      await eventually(() => assert.ok(b.view('1001:1').includes('10.9.0.1:9000')), 60_000, 50);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris('a Polaris without l5Open, or without the port, is told in words that name the option', 120_000, async (defer) => {
    const { server } = await polaris(defer, { l5Open: false });
    const b = bench([server.l5], defer, { sids: ['1001:1'] });
    await eventually(() => assert.match(b.lastError, /naming\.l5Open: true/), 30_000, 20);
    // That question ended the process: the port is closed from then on.
    await eventually(() => assert.match(b.lastError, /connection refused.*set servers/), 30_000, 50);
    assert.notEqual(b.state, 'live');
    assert.deepEqual(b.removed, []);
  });
});
