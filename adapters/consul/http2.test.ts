// HTTP/2 to a server that is not Consul's: streams share connections, a lost or dead connection costs nobody else, what is cut is never
// taken for whole, and a server without HTTP/2 is spoken to otherwise.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createSecureServer, type Http2SecureServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { createServer as createTls } from 'node:tls';
import { withCleanup } from '../../test/live/consul-support.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startFaultProxy } from '../../test/support/fault-proxy.ts';
import { Http2 } from './http2.ts';
import type { HeadsRequest, Lane, Transport, WireAnswer, WireHead, WireRequest } from './transport.ts';

/** Self-signed for 127.0.0.1, made for this test, of no other use. */
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGOumQA9nsceVs1b8
H+M+w3MoiUIguP3uIBb2psCJmWKhRANCAARnOiziyh+9y1htbYbyJvPkUXSZLZ3o
gbhw3MPQrDI2l0mvJhnFkglzRf4GLGaPOdVWkOjEG2sJEsG3TDaSF51X
-----END PRIVATE KEY-----
`;
const CERT = `-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUAqCOaKBWhRBcOPU78SJNmdKz3TEwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNTAxNTE1M1oYDzIxMjYxMTAx
MDE1MTUzWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARnOiziyh+9y1htbYbyJvPkUXSZLZ3ogbhw3MPQrDI2l0mvJhnFkglz
Rf4GLGaPOdVWkOjEG2sJEsG3TDaSF51Xo2QwYjAdBgNVHQ4EFgQUwDNyaWiLFjEc
75MvkHrQtwJxjiEwHwYDVR0jBBgwFoAUwDNyaWiLFjEc75MvkHrQtwJxjiEwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IGFiA5damMBe59nQezL5ath/mpCqYulk4L3LoaijU5qrAiEA6JHrFhdamELjlnIv
6Kft9F4fGJHRR8g5sROUTMEmZV8=
-----END CERTIFICATE-----
`;

interface Rig {
  readonly clock: FakeClock;
  readonly server: Http2SecureServer;
  readonly sessions: ServerHttp2Session[];
  /** Streams that were not answered yet. */
  readonly held: ServerHttp2Stream[];
  readonly spoke: boolean[];
  readonly transport: Http2;
  readonly proxy: Awaited<ReturnType<typeof startFaultProxy>>;
  ask(lane?: Lane, path?: string, signal?: AbortSignal): Promise<WireAnswer>;
}

class Refused implements Transport {
  readonly breaks = 0;
  readonly asked: string[] = [];
  async request(_lane: Lane, { path }: WireRequest): Promise<WireAnswer> {
    this.asked.push(path);
    throw new Error('the fallback was asked');
  }
  async heads({ paths }: HeadsRequest): Promise<readonly WireHead[]> {
    this.asked.push(...paths);
    return paths.map(() => ({ status: 200, headers: { 'x-consul-index': '7' } }));
  }
  async close(): Promise<void> {}
}

function rig(body: (r: Rig) => Promise<void>, settings: { maxConcurrentStreams?: number } = {}): Promise<void> {
  return withCleanup(async (defer) => {
    const clock = new FakeClock();
    const server = createSecureServer({ key: KEY, cert: CERT, settings: { maxConcurrentStreams: 250, ...settings } });
    const sessions: ServerHttp2Session[] = [];
    const held: ServerHttp2Stream[] = [];
    server.on('session', (session) => {
      sessions.push(session);
      session.on('error', () => {});
    });
    server.on('stream', (stream, headers) => {
      stream.on('error', () => {});
      if (headers[':path'] === '/now') {
        stream.respond({ ':status': 200, 'x-consul-index': '7' });
        stream.end('[1]');
      } else if (headers[':path'] === '/half') {
        stream.respond({ ':status': 200, 'content-length': '100' });
        stream.write('[1');
        held.push(stream);
      } else held.push(stream);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const proxy = await startFaultProxy(`127.0.0.1:${portOf(server.address())}`);
    const spoke: boolean[] = [];
    const transport = new Http2({
      origin: `https://${proxy.endpoint}`,
      clock,
      tls: async () => ({ ca: Buffer.from(CERT) }),
      fallback: new Refused(),
      spoke: (h2) => spoke.push(h2),
    });
    defer(async () => {
      await transport.close();
      for (const session of sessions) session.destroy();
      await proxy.close();
      server.close();
    });
    const ask = (lane: Lane = 'watch', path = '/hold', signal = new AbortController().signal): Promise<WireAnswer> =>
      transport.request(lane, { method: 'GET', path, headers: { accept: 'application/json' }, body: null, signal });
    await body({ clock, server, sessions, held, spoke, transport, proxy, ask });
  });
}

function portOf(address: AddressInfo | string | null): number {
  return address !== null && typeof address === 'object' ? address.port : 0;
}

async function textOf({ body }: WireAnswer): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function release(stream: ServerHttp2Stream | undefined, text = '[]'): void {
  stream?.respond({ ':status': 200 });
  stream?.end(text);
}

describe('HTTP/2 to an agent', () => {
  it('500 held queries share three connections, and what does not block has one of its own', () =>
    rig(async ({ ask, held, sessions, spoke, proxy }) => {
      const all = Array.from({ length: 500 }, () => ask());
      await eventually(() => held.length === 500, 10_000, 10);
      assert.equal(proxy.open, 3);
      const now = await ask('read', '/now');
      assert.deepEqual([now.status, now.headers['x-consul-index'], await textOf(now)], [200, '7', '[1]']);
      assert.equal(await textOf(await ask('control', '/now')), '[1]');
      assert.deepEqual([proxy.open, sessions.length, spoke], [4, 4, [true, true, true, true]]);
      for (const stream of held) release(stream);
      assert.equal((await Promise.all((await Promise.all(all)).map(textOf))).filter((text) => text === '[]').length, 500);
      await ask('watch', '/now');
      assert.equal(proxy.open, 4, 'what is free is used again');
    }));

  it('heads of many paths come in their order over the connection of what does not block', () =>
    rig(async ({ transport, proxy }) => {
      const paths = Array.from({ length: 80 }, () => '/now');
      const heads = await transport.heads({ paths, headers: {}, signal: new AbortController().signal });
      assert.equal(heads.filter(({ status, headers }) => status === 200 && headers['x-consul-index'] === '7').length, 80);
      assert.equal(proxy.open, 1);
    }));

  it('a server that allows fewer streams gets no more of them', () =>
    rig(
      async ({ ask, held, proxy }) => {
        const all = Array.from({ length: 25 }, () => ask());
        await eventually(() => held.length === 25, 10_000, 10);
        assert.equal(proxy.open, 3);
        for (const stream of held) release(stream);
        await Promise.all(all);
      },
      { maxConcurrentStreams: 10 },
    ));

  it('a broken connection fails what it carried and is counted; the next request makes another one', () =>
    rig(async ({ ask, held, proxy, transport }) => {
      const all = [1, 2, 3].map(() => ask().then(textOf));
      await eventually(() => held.length === 3, 10_000, 10);
      proxy.cut();
      for (const result of await Promise.allSettled(all)) assert.equal(result.status, 'rejected');
      await eventually(() => transport.breaks === 1, 5_000, 5);
      assert.equal(await textOf(await ask('watch', '/now')), '[1]');
    }));

  it('an answer that is cut in its middle is an error, never a short one', () =>
    rig(async ({ ask, held }) => {
      const answer = await ask('watch', '/half');
      const text = textOf(answer);
      await eventually(() => held.length === 1, 5_000, 5);
      held[0]?.close(8);
      await assert.rejects(text);
    }));

  it('an abort ends its stream alone, and a living connection is used on', () =>
    rig(async ({ ask, held, proxy }) => {
      const stop = new AbortController();
      const other = ask();
      const aborted = ask('watch', '/hold', stop.signal);
      await eventually(() => held.length === 2, 5_000, 5);
      stop.abort(new Error('enough'));
      await assert.rejects(aborted, /enough/);
      await eventually(() => held.some(({ closed }) => closed), 5_000, 5);
      await eventually(
        async () => textOf(await ask('watch', '/now')).then((text) => text === '[1]' && proxy.open === 1),
        5_000,
        20,
      );
      for (const stream of held) if (!stream.closed) release(stream);
      assert.equal(await textOf(await other), '[]');
    }));

  it('a dead connection is left at once, and dropped when it answers no ping', () =>
    rig(async ({ ask, held, proxy, clock, transport }) => {
      const stop = new AbortController();
      const other = assert.rejects(ask(), /answers no ping/);
      const late = ask('watch', '/hold', stop.signal);
      await eventually(() => held.length === 2, 5_000, 5);
      proxy.halfOpen();
      stop.abort(new Error('late'));
      await assert.rejects(late, /late/);
      assert.equal(await textOf(await ask('watch', '/now')), '[1]', 'another connection');
      await clock.advance(5_000);
      await other;
      assert.equal(transport.breaks, 1);
    }));

  it('a server that says goodbye finishes what it has; what is new goes over another connection', () =>
    rig(async ({ ask, held, sessions, proxy }) => {
      const old = ask();
      await eventually(() => held.length === 1, 5_000, 5);
      sessions[0]?.goaway(0);
      await eventually(async () => textOf(await ask('watch', '/now')).then(() => proxy.accepted === 2), 5_000, 20);
      release(held[0]);
      assert.equal(await textOf(await old), '[]');
    }));

  it('a server that offers no h2 gets HTTP/1.1 from then on', () =>
    withCleanup(async (defer) => {
      const server = createTls({ key: KEY, cert: CERT }, (socket) => socket.on('error', () => {}));
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      defer(() => server.close());
      const fallback = new Refused();
      const spoke: boolean[] = [];
      const transport = new Http2({
        origin: `https://127.0.0.1:${portOf(server.address())}`,
        clock: new FakeClock(),
        tls: async () => ({ ca: Buffer.from(CERT) }),
        fallback,
        spoke: (h2) => spoke.push(h2),
      });
      defer(() => transport.close());
      const { signal } = new AbortController();
      for (const path of ['/a', '/b']) {
        const request = { method: 'GET' as const, path, headers: {}, body: null, signal };
        await assert.rejects(transport.request('watch', request), /fallback was asked/);
      }
      assert.deepEqual([fallback.asked, spoke], [['/a', '/b'], [false]]);
    }));
});
