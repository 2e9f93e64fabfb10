// The three kinds of checks against real servers on loopback: what passes, what fails and how, what is never done.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcp, type Server, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { type DialPolicy, dialPolicy } from '../kernel/dial.ts';
import { DEFAULT_HEALTH_CHECK, type HealthCheckPolicy } from '../model/policy.ts';
import { type Probe, type ProbeResult, type ProbeRun, type ProbeTarget, targetOf } from './probe.ts';
import { GrpcProbe } from './probe-grpc.ts';
import { HttpProbe } from './probe-http.ts';
import { TcpProbe } from './probe-tcp.ts';

const closing: (() => void | Promise<void>)[] = [];
after(async () => {
  for (const close of closing) await close();
});

function managed<P extends Probe>(probe: P): P {
  closing.push(() => probe.close());
  return probe;
}

async function listening(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address: AddressInfo | string | null = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}

const ALLOW: DialPolicy = () => null;

function target(port: number, over: Partial<HealthCheckPolicy>, host = '127.0.0.1'): ProbeTarget {
  return targetOf({ ...DEFAULT_HEALTH_CHECK, ...over }, '', host, port);
}

function how(over: Partial<ProbeRun> = {}): ProbeRun {
  return { signal: AbortSignal.timeout(2_000), dial: ALLOW, keep: true, ...over };
}

/** A deadline as the prober sets it. */
function deadline(ms: number): AbortSignal {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error('timeout')), ms);
  closing.push(() => clearTimeout(timer));
  return controller.signal;
}

const reason = (result: ProbeResult): string => (result.ok ? 'pass' : result.reason);

async function httpServer(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<number> {
  return listening(createServer(handler));
}

/** Answers every connection with these bytes after the first bytes of a request. */
async function rawServer(bytes: string): Promise<number> {
  return listening(createTcp((socket) => socket.once('data', () => socket.write(bytes))));
}

async function unusedPort(): Promise<number> {
  const server = createTcp();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 1;
}

describe('an HTTP check', () => {
  const HTTP = { kind: 'http', path: '/healthz' } as const;

  it('passes on an expected status, and asks with GET, the path and the Host of the policy', async () => {
    const seen: string[] = [];
    const port = await httpServer((request, response) => {
      seen.push(`${request.method} ${request.url} ${request.headers.host}`);
      response.end('ok');
    });
    const probe = managed(new HttpProbe());
    assert.deepEqual(await probe.run(target(port, HTTP), how()), { ok: true });
    assert.deepEqual(await probe.run(target(port, { ...HTTP, host: 'shop.example', path: '/h?deep=1' }), how()), { ok: true });
    assert.deepEqual(seen, [`GET /healthz 127.0.0.1:${port}`, 'GET /h?deep=1 shop.example']);
  });

  it('fails for certain on another status, a redirect included, and follows none', async () => {
    const paths: string[] = [];
    const port = await httpServer((request, response) => {
      paths.push(request.url ?? '');
      response.writeHead(request.url === '/healthz' ? 302 : 200, { location: '/elsewhere' }).end();
    });
    const probe = managed(new HttpProbe());
    assert.deepEqual(await probe.run(target(port, HTTP), how()), { ok: false, reason: 'status 302', definite: true });
    assert.deepEqual(paths, ['/healthz']);
    const lenient = target(port, { ...HTTP, expectedStatuses: [[300, 399]] });
    assert.equal((await probe.run(lenient, how())).ok, true);
  });

  it('uses its connection again, and a fresh one when it need not be kept', async () => {
    let connections = 0;
    const server = createServer((_request, response) => response.end('ok'));
    server.on('connection', () => connections++);
    const port = await listening(server);
    const probe = managed(new HttpProbe());
    for (let i = 0; i < 3; i++) assert.equal((await probe.run(target(port, HTTP), how())).ok, true);
    assert.equal(connections, 1);
    await probe.run(target(port, HTTP), how({ keep: false }));
    await probe.run(target(port, HTTP), how());
    assert.equal(connections, 2);
  });

  it('that fails on a used connection is repeated once on a fresh one', async () => {
    let connections = 0;
    const port = await listening(
      createTcp((socket) => {
        connections++;
        let requests = 0;
        socket.on('data', () => {
          if (++requests > 1) socket.destroy();
          else socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
        });
      }),
    );
    const probe = managed(new HttpProbe());
    assert.equal((await probe.run(target(port, HTTP), how())).ok, true);
    assert.equal((await probe.run(target(port, HTTP), how())).ok, true);
    assert.equal(connections, 2);
  });

  it('that fails on a fresh connection is not repeated', async () => {
    let connections = 0;
    const port = await listening(
      createTcp((socket) => {
        connections++;
        socket.once('data', () => socket.destroy());
      }),
    );
    const result = await managed(new HttpProbe()).run(target(port, HTTP), how());
    assert.equal(result.ok, false);
    assert.equal(result.ok || result.definite, false);
    assert.equal(connections, 1);
  });

  it('fails when nobody listens, with the system’s word', async () => {
    assert.equal(reason(await managed(new HttpProbe()).run(target(await unusedPort(), HTTP), how())), 'ECONNREFUSED');
  });

  for (const [what, bytes] of [
    ['accepts and says nothing', ''],
    ['drips a head that never ends', 'HTTP/1.1 200 OK\r\nx: '],
    ['sends 103 without end', 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(50)],
    ['promises a body and hangs in the middle of it', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'],
  ] as const) {
    it(`fails at its deadline when the server ${what}`, async () => {
      const port = await rawServer(bytes);
      const before = performance.now();
      const result = await managed(new HttpProbe()).run(target(port, HTTP), how({ signal: deadline(150) }));
      assert.match(reason(result), /timeout|body/);
      assert.ok(performance.now() - before < 1_000);
    });
  }

  for (const [what, bytes] of [
    ['is no HTTP', 'hello\r\n\r\n'],
    ['has two content-lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab'],
    ['has a head over 16 KiB', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`],
  ] as const) {
    it(`fails on an answer that ${what}`, async () => {
      const result = await managed(new HttpProbe()).run(target(await rawServer(bytes), HTTP), how());
      assert.equal(result.ok, false, reason(result));
    });
  }

  it('reads at most 64 KiB of a body and gives the connection up then', async () => {
    let sent = 0;
    const port = await httpServer((_request, response) => {
      const more = (): void => {
        while (!response.destroyed && sent < 64 * 1_048_576 && response.write(Buffer.alloc(65_536))) sent += 65_536;
        response.once('drain', more);
      };
      more();
    });
    const result = await managed(new HttpProbe()).run(target(port, HTTP), how());
    assert.ok(sent < 16 * 1_048_576, `${sent} bytes`);
    assert.equal(reason(result), 'pass', 'the status has spoken');
  });

  it('connects to no address that the outbound policy refuses, not even over an open connection', async () => {
    let requests = 0;
    const port = await httpServer((_request, response) => {
      requests++;
      response.end();
    });
    const probe = managed(new HttpProbe());
    await probe.run(target(port, HTTP), how());
    const strict = dialPolicy({ allowLoopback: false, allowNames: true, cidrs: [], ports: [] }, () => []);
    assert.match(reason(await probe.run(target(port, HTTP), how({ dial: strict }))), /not dialled/);
    assert.equal(requests, 1);
  });
});

describe('a TCP check', () => {
  const TCP = { kind: 'tcp' } as const;

  it('passes when the connect is accepted, sends nothing and leaves', async () => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const port = await listening(
      createTcp((socket) => {
        let bytes = 0;
        socket.on('data', (data) => {
          bytes += data.length;
        });
        socket.on('close', () => resolve(bytes));
      }),
    );
    assert.deepEqual(await managed(new TcpProbe()).run(target(port, TCP), how()), { ok: true });
    assert.equal(await promise, 0);
  });

  it('fails when nobody listens, and at its deadline when it was aborted before', async () => {
    const probe = managed(new TcpProbe());
    assert.equal(reason(await probe.run(target(await unusedPort(), TCP), how())), 'ECONNREFUSED');
    assert.equal(reason(await probe.run(target(1, TCP), how({ signal: AbortSignal.abort(new Error('timeout')) }))), 'timeout');
  });

  it('resolves a name, judges what came out of it, and connects to that address alone', async () => {
    const port = await listening(createTcp(() => {}));
    const asked: string[] = [];
    const probe = managed(
      new TcpProbe(async (name) => {
        asked.push(name);
        return ['169.254.169.254', '127.0.0.1'];
      }),
    );
    const judged: string[] = [];
    const base = dialPolicy({ allowLoopback: true, allowNames: true, cidrs: [], ports: [] }, () => []);
    const dial: DialPolicy = (host, at) => {
      judged.push(host);
      return base(host, at);
    };
    assert.equal(reason(await probe.run(target(port, TCP, 'app.internal'), how({ dial }))), 'pass');
    assert.deepEqual(asked, ['app.internal']);
    assert.deepEqual(judged, ['app.internal', '169.254.169.254', '127.0.0.1']);
  });

  it('fails when a name leads only to addresses that are refused, or is not allowed at all', async () => {
    const probe = managed(new TcpProbe(async () => ['169.254.169.254']));
    const names = dialPolicy({ allowLoopback: true, allowNames: true, cidrs: [], ports: [] }, () => []);
    const noNames = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
    assert.match(reason(await probe.run(target(80, TCP, 'meta.internal'), how({ dial: names }))), /link-local/);
    assert.match(reason(await probe.run(target(80, TCP, 'meta.internal'), how({ dial: noNames }))), /host names are not allowed/);
  });

  it('ends at its deadline while a name does not resolve', async () => {
    const probe = managed(new TcpProbe(() => new Promise(() => {})));
    assert.equal(reason(await probe.run(target(80, TCP, 'slow.internal'), how({ signal: deadline(50) }))), 'timeout');
  });
});

describe('a gRPC check', () => {
  const GRPC = { kind: 'grpc' } as const;

  /** A health service that answers by the name asked for; messages are read and written by hand. */
  async function healthServer(at = 0): Promise<{ port: number; authorities: string[] }> {
    const server = new grpc.Server();
    const authorities: string[] = [];
    const statuses = new Map([
      ['', 1],
      ['down', 2],
      ['nobody', 3],
    ]);
    server.addService(
      {
        Check: {
          path: '/grpc.health.v1.Health/Check',
          requestStream: false,
          responseStream: false,
          requestSerialize: (value: Buffer) => value,
          requestDeserialize: (bytes: Buffer) => bytes,
          responseSerialize: (value: Buffer) => value,
          responseDeserialize: (bytes: Buffer) => bytes,
        },
      },
      {
        Check: (call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) => {
          authorities.push(call.getHost());
          const service = call.request.length > 2 ? call.request.subarray(2).toString() : '';
          const status = statuses.get(service);
          if (status === undefined) callback({ code: grpc.status.NOT_FOUND, details: 'no such service' });
          else callback(null, Buffer.from([0x08, status]));
        },
      },
    );
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    server.bindAsync(`127.0.0.1:${at}`, grpc.ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
    closing.push(() => server.forceShutdown());
    return { port: await promise, authorities };
  }

  it('passes on SERVING and fails on every other status and on an unknown service, by thresholds', async () => {
    const { port } = await healthServer();
    const probe = managed(new GrpcProbe());
    assert.deepEqual(await probe.run(target(port, GRPC), how()), { ok: true });
    assert.deepEqual(await probe.run(target(port, GRPC), how()), { ok: true });
    const down = await probe.run(target(port, { ...GRPC, grpcService: 'down' }), how());
    assert.deepEqual(down, { ok: false, reason: 'gRPC status NOT_SERVING', definite: false });
    assert.equal(reason(await probe.run(target(port, { ...GRPC, grpcService: 'x' }), how())), 'gRPC NOT_FOUND: no such service');
  });

  it('connects to the judged address and names the host as authority', async () => {
    const { port, authorities } = await healthServer();
    const probe = managed(new GrpcProbe(async () => ['127.0.0.1']));
    assert.equal((await probe.run(target(port, GRPC, 'app.internal'), how())).ok, true);
    assert.deepEqual(authorities, [`app.internal:${port}`]);
  });

  it('fails at its deadline when the server is silent, and when nobody listens', async () => {
    const probe = managed(new GrpcProbe());
    const silent = await listening(createTcp(() => {}));
    const before = performance.now();
    assert.equal(reason(await probe.run(target(silent, GRPC), how({ signal: deadline(200) }))), 'timeout');
    assert.ok(performance.now() - before < 1_000);
    assert.match(
      reason(await probe.run(target(await unusedPort(), GRPC), how({ signal: deadline(1_000) }))),
      /ECONNREFUSED|UNAVAILABLE|gRPC 14|timeout/,
    );
  });

  it('passes again at once when the server is back: no channel sits in its own back-off', async () => {
    const port = await unusedPort();
    const probe = managed(new GrpcProbe());
    assert.equal((await probe.run(target(port, GRPC), how())).ok, false);
    await healthServer(port);
    assert.equal(reason(await probe.run(target(port, GRPC), how({ signal: deadline(500) }))), 'pass');
  });

  it('is refused by the outbound policy like every other', async () => {
    const { port, authorities } = await healthServer();
    const strict = dialPolicy({ allowLoopback: false, allowNames: true, cidrs: [], ports: [] }, () => []);
    assert.match(reason(await managed(new GrpcProbe()).run(target(port, GRPC), how({ dial: strict }))), /not dialled/);
    assert.deepEqual(authorities, []);
  });
});
