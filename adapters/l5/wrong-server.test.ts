// Servers of another kind behind the address: the source says which it found, in words that tell what to change, and nothing is removed.
import assert from 'node:assert/strict';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { asSourceError, type SourceError } from '../../src/model/snapshot.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { resolveConfig } from './config.ts';
import { foreignProtocol, printable } from './errors.ts';
import { startFakeL5 } from './fake.ts';
import { factory } from './index.ts';

const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
const NEVER = new AbortController().signal;
const KEY = { namespace: 'default', name: '1:2' };

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function listening(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  ends.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  return address !== null && typeof address === 'object' ? address.port : 0;
}

/** A server that answers the first bytes with these, or at once when it speaks first. */
function speaker(hex: string, first = false): Server {
  return createServer((socket) => {
    socket.on('error', () => {});
    if (first) socket.write(Buffer.from(hex, 'hex'));
    else socket.once('data', () => socket.end(Buffer.from(hex, 'hex')));
  });
}

function adapter(servers: readonly string[]) {
  const clock = new FakeClock();
  const deps = { sourceId: 'test', clock, random: seededRandom(1), dial: () => null, log: silentLog, count: () => {} };
  const made = factory.create({ servers, sids: ['1:2'] }, PLAIN, deps);
  ends.push(() => made.close());
  return { made, clock };
}

async function failure(port: number): Promise<SourceError> {
  const { made, clock } = adapter([`127.0.0.1:${port}`]);
  let error: SourceError | null = null;
  const seen: string[] = [];
  void (async () => {
    try {
      for await (const { kind } of made.watch(KEY, NEVER)) seen.push(kind);
    } catch (thrown) {
      error = asSourceError(thrown);
    }
  })();
  await eventually(async () => {
    if (error === null) await clock.advance(100);
    assert.ok(error !== null);
  }, 20_000);
  assert.deepEqual(seen, [], 'a server of another kind said something about a service');
  return error ?? assert.fail();
}

describe('a server of the wrong kind', () => {
  it('HTTP', async () => {
    const error = await failure(await listening(createHttp()));
    assert.match(error.message, /an HTTP server answers at this address.*set servers/);
    assert.equal(error.causeKind, 'malformed');
  });

  it('gRPC (HTTP/2)', async () => {
    const error = await failure(await listening(createHttp2()));
    assert.match(error.message, /gRPC \(HTTP\/2\) server answers.*set servers/);
    assert.equal(error.causeKind, 'malformed');
  });

  for (const [what, server, words, cause] of [
    ['TLS', () => speaker('15030100020246'), /speaks TLS/, 'malformed'],
    [
      'Redis',
      () => speaker(Buffer.from('-ERR unknown command\r\n').toString('hex')),
      /answers in text \("-ERR unknown/,
      'malformed',
    ],
    [
      'SSH, which speaks first',
      () => speaker(Buffer.from('SSH-2.0-x\r\n').toString('hex'), true),
      /text \("SSH-2\.0-x/,
      'malformed',
    ],
    ['MySQL, which speaks first', () => speaker('4a0000000a382e302e3333', true), /bytes is announced.*set servers/, 'malformed'],
    [
      'one that closes',
      () => createServer((socket) => socket.once('data', () => socket.destroy())),
      /closed without an answer.*7779/,
      'lost',
    ],
    [
      'one that says nothing',
      () => createServer((socket) => socket.resume()),
      /no answer within 5000 ms.*no L5 server: set servers/,
      'lost',
    ],
    [
      'L5 bytes of another message',
      () => speaker('01000a00000008071064'),
      /command 100 instead of 101.*set servers/,
      'malformed',
    ],
  ] as const) {
    it(what, async () => {
      const error = await failure(await listening(server()));
      assert.match(error.message, words);
      assert.equal(error.causeKind, cause);
    });
  }

  it('none at all: connection refused, with what to do', async () => {
    const server = createServer();
    const port = await listening(server);
    await new Promise((resolve) => server.close(resolve));
    const error = await failure(port);
    assert.match(error.message, /connection refused.*service-l5/);
    assert.equal(error.causeKind, 'lost');
  });

  it('of several servers that all fail every one is named, and a wrong one does not hide a right one', async () => {
    const http = await listening(createHttp());
    const fake = await startFakeL5(new FakeClock());
    ends.push(() => fake.stop());
    fake.store.put('1:2', [{ host: '10.0.0.1', port: 80, weight: 100 }]);
    const { made, clock } = adapter([`127.0.0.1:${http}`, fake.endpoint]);
    const kinds: string[] = [];
    void (async () => {
      for (;;) {
        try {
          for await (const item of made.watch(KEY, NEVER)) kinds.push(item.kind);
          return;
        } catch {
          await clock.sleep(1_000);
        }
      }
    })();
    await eventually(async () => {
      if (kinds.length === 0) await clock.advance(100);
      assert.deepEqual(kinds, ['present']);
    }, 20_000);
    const dead = createServer();
    const port = await listening(dead);
    await new Promise((resolve) => dead.close(resolve));
    const none = adapter([`127.0.0.1:${port}`, `localhost:${port}`]);
    await assert.rejects(
      none.made.read(KEY, NEVER),
      new RegExp(`localhost:${port}: connection refused.*127\\.0\\.0\\.1:${port}: connection refused`),
    );
  });
});

describe('first bytes', () => {
  it('of an L5 answer belong to no other protocol, whatever its mark', () => {
    for (const soh of ['0100', '0000', 'ffff', '4854']) {
      assert.equal(foreignProtocol(Buffer.from(`${soh}1a00000008071065186428ff`, 'hex')), null);
    }
    assert.equal(foreignProtocol(Buffer.alloc(0)), null);
  });
  it('shown text is bounded and has no control characters', () => {
    assert.equal(printable('a\u0000b\u2028c\ud800', 50), 'a?b?c\ufffd');
    assert.equal(printable('x'.repeat(100), 10), `${'x'.repeat(10)}…`);
  });
});

describe('configuration', () => {
  const good = { servers: ['127.0.0.1:7779'] };
  it('has defaults for all but servers', () => {
    const config = resolveConfig(
      { servers: ['L5.example', '127.0.0.1:1', 'l5.example:7779'], sids: ['2:1', '1:2', '2:1'] },
      PLAIN,
    );
    assert.ok(typeof config !== 'string');
    assert.deepEqual(
      config.servers.map(({ text }) => text),
      ['l5.example:7779', '127.0.0.1:1'],
    );
    assert.deepEqual(config.sids, [
      { modid: 1, cmdid: 2 },
      { modid: 2, cmdid: 1 },
    ]);
    const { namespace, agentIp, pollMs, batch, maxAnswer, normalWeight, aliases, names } = config;
    assert.deepEqual(
      { namespace, agentIp, pollMs, batch, maxAnswer, normalWeight, aliases, names },
      {
        namespace: 'default',
        agentIp: null,
        pollMs: 1_000,
        batch: 1_000,
        maxAnswer: 16_777_216,
        normalWeight: 100,
        aliases: false,
        names: [],
      },
    );
  });

  for (const [what, value, options, words] of [
    ['no servers', {}, {}, /servers/],
    ['a server that is none', { servers: ['http://x'] }, {}, /servers: http:\/\/x: expected host:port/],
    ['port 0', { servers: ['x:0'] }, {}, /expected host:port/],
    ['a SID over 32 bits', { ...good, sids: ['4294967296:1'] }, {}, /sids: 4294967296:1: expected modid:cmdid/],
    ['a SID among the names', { ...good, names: ['1:2'] }, {}, /write it under sids/],
    ['a name with a control character', { ...good, names: ['a\nb'] }, {}, /control character/],
    ['a namespace with a slash', { ...good, namespace: 'a/b' }, {}, /namespace/],
    ['an agentIp that is none', { ...good, agentIp: '300.1.1.1' }, {}, /agentIp/],
    ['a poll interval of 1 ms', { ...good, pollInterval: '1ms' }, {}, /pollInterval/],
    ['a protocol for what is no SID', { ...good, protocols: { demo: 'grpc' } }, {}, /protocols: demo: expected modid:cmdid/],
    ['an unknown key', { ...good, sid: [] }, {}, /sid/],
    ['tls', good, { tls: {} }, /has no TLS/],
    ['a password', good, { auth: { password: 'secret' } }, /no credentials/],
  ] as const) {
    it(`${what} is refused in words, by every call`, async () => {
      const clock = new FakeClock();
      const deps = { sourceId: 'test', clock, random: seededRandom(1), dial: () => null, log: silentLog, count: () => {} };
      const made = factory.create(value, { ...PLAIN, ...options }, deps);
      await assert.rejects(made.read(KEY, NEVER), words);
      await assert.rejects(made.watch(KEY, NEVER)[Symbol.asyncIterator]().next(), words);
      assert.equal(made.capabilities.register, false);
      await made.close();
    });
  }

  it('the source is read-only: it has no call that writes, and its capabilities say so', () => {
    const { made } = adapter(['127.0.0.1:1']);
    assert.deepEqual([made.put, made.renew, made.remove, made.setHealth, made.alias, made.stateStore], Array(6).fill(undefined));
    const { register, heartbeat, keeps, watch } = made.capabilities;
    assert.deepEqual([register, heartbeat, keeps.size, watch], [false, 'none', 0, 'poll']);
  });
});
