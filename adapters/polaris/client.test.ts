// Calls against a scripted HTTP/2 server: what a server can say at the end of a call, and what becomes of the connection.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { createServer as createTcp } from 'node:net';
import { describe, it } from 'node:test';
import { systemClock } from '../../src/kernel/clock.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Connection } from './client.ts';
import { PolarisFailure, sourceError } from './errors.ts';
import { MAX_ANSWER_BYTES } from './grpc-call.ts';
import { framed } from './grpc-frame.ts';
import { codec } from './protocol.ts';

const { encodeResponse } = codec('RegisterInstance');
const OK = framed([encodeResponse({ code: { value: 200_000 } })]);
const HEADERS = { ':status': 200, 'content-type': 'application/grpc' };

type Answer = (stream: ServerHttp2Stream, body: Buffer, headers: IncomingHttpHeaders) => void;

interface Rig {
  readonly address: string;
  readonly connection: Connection;
  readonly sessions: Set<ServerHttp2Session>;
  answer: Answer;
  /** What the last call failed with. */
  failure(): Promise<PolarisFailure>;
}

/** Ends a call with these trailers. */
function trailers(stream: ServerHttp2Stream, fields: Record<string, string>, body: Buffer | null = OK): void {
  stream.respond(HEADERS, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(fields));
  if (body === null) stream.end();
  else stream.end(body);
}

async function rig(body: (r: Rig) => Promise<void>, token: string | null = null, clock = systemClock): Promise<void> {
  const server: Http2Server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => {});
    session.on('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => r.answer(stream, Buffer.concat(chunks), headers));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = Object(server.address());
  const connection = new Connection(`127.0.0.1:${port}`, null, token, 5_000, clock);
  const r: Rig = {
    address: `127.0.0.1:${port}`,
    connection,
    sessions,
    answer: (stream) => trailers(stream, { 'grpc-status': '0' }),
    async failure() {
      try {
        await connection.call('RegisterInstance', {}, new AbortController().signal);
      } catch (thrown) {
        return thrown instanceof PolarisFailure ? thrown : assert.fail(String(thrown));
      }
      return assert.fail('it did not fail');
    },
  };
  try {
    await body(r);
  } finally {
    connection.close();
    for (const session of sessions) session.destroy();
    server.close();
  }
}

function call({ connection }: Rig, signal = new AbortController().signal) {
  return connection.call('RegisterInstance', { host: { value: 'h' } }, signal);
}

/** What it rejects with. */
function thrownBy(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => assert.fail('it did not fail'),
    (thrown: unknown) => thrown,
  );
}

describe('polaris gRPC client', { timeout: 60_000 }, () => {
  it('a call carries its message and the token, and gives the answer', () =>
    rig(async (r) => {
      let asked: Buffer = Buffer.alloc(0);
      let headers: IncomingHttpHeaders = {};
      r.answer = (stream, body, sent) => {
        asked = body;
        headers = sent;
        trailers(stream, { 'grpc-status': '0' });
      };
      assert.deepEqual(await call(r), { code: { value: 200_000 } });
      assert.equal(asked.toString('hex'), `00000000052203${'0a0168'}`);
      const { ':path': path, 'content-type': type, te } = headers;
      assert.deepEqual([path, type, te], ['/v1.PolarisGRPC/RegisterInstance', 'application/grpc', 'trailers']);
      assert.equal(headers['x-polaris-token'], 'secret');
      assert.equal(r.sessions.size, 1);
      await Promise.all([call(r), call(r)]);
      assert.equal(r.sessions.size, 1, 'one connection for all calls');
    }, 'secret'));

  it('a status in trailers, or in headers alone, is the failure with its decoded text', () =>
    rig(async (r) => {
      r.answer = (stream) => trailers(stream, { 'grpc-status': '8', 'grpc-message': 'too%20much' }, null);
      assert.deepEqual([(await r.failure()).status, (await r.failure()).details], [8, 'too much']);
      r.answer = (stream) => {
        stream.respond({ ...HEADERS, 'grpc-status': '12', 'grpc-message': 'unknown service %zz' }, { endStream: true });
      };
      assert.deepEqual([(await r.failure()).status, (await r.failure()).details], [12, 'unknown service %zz']);
    }));

  it('an end without a status, without an answer, or with something that is no gRPC is a failure in words', () =>
    rig(async (r) => {
      const cases: [Answer, number, RegExp][] = [
        [(stream) => trailers(stream, { 'grpc-status': '0' }, null), 13, /no answer in an OK status/],
        [(stream) => stream.respond({ ':status': 404 }, { endStream: true }), 14, /HTTP status code 404/],
        [(stream) => stream.respond({ ':status': 200, 'content-type': 'text/html' }), 14, /invalid content-type/],
        [
          (stream) => {
            stream.respond(HEADERS);
            stream.end(OK);
          },
          14,
          /closed before the call ended/,
        ],
        [(stream) => stream.close(7), 14, /RST_STREAM with code 7/],
        [(stream) => trailers(stream, { 'grpc-status': '0' }, framed([Buffer.from('ffffff', 'hex')])), 13, /cannot be decoded/],
        [(stream) => trailers(stream, { 'grpc-status': '0' }, Buffer.from('0100000000', 'hex')), 13, /compressed/],
      ];
      for (const [answer, status, words] of cases) {
        r.answer = answer;
        const failure = await r.failure();
        assert.match(failure.message, words);
        assert.equal(failure.status, status, failure.message);
      }
    }));

  it('an answer over the limit is refused by its length alone', () =>
    rig(async (r) => {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(MAX_ANSWER_BYTES + 1, 1);
      r.answer = (stream) => {
        stream.respond(HEADERS);
        stream.write(head);
      };
      const error = sourceError(await r.failure());
      assert.equal(error.causeKind, 'limit');
      assert.match(error.message, /50 MiB/);
    }));

  it('a long answer comes whole: no window or memory limit of the connection stops it', () =>
    rig(async (r) => {
      const metadata = Array.from({ length: 24 }, (_, n) => ({ key: String(n), value: 'x'.repeat(1024 * 1024) }));
      r.answer = (stream) =>
        trailers(stream, { 'grpc-status': '0' }, framed([encodeResponse({ code: { value: 200_000 }, instance: { metadata } })]));
      const { instance } = await call(r);
      assert.deepEqual(
        instance?.metadata?.map(({ key, value = '' }) => [key, value.length]),
        metadata.map(({ key }) => [key, 1024 * 1024]),
      );
    }));

  it('GOAWAY tells why, a cut connection too, and the next call opens another one', () =>
    rig(async (r) => {
      const answer = r.answer;
      r.answer = (stream) => stream.session?.goaway(11, 0, Buffer.from('too_many_pings'));
      assert.match(sourceError(await r.failure()).message, /to protect itself/);
      r.answer = (stream) => stream.session?.destroy();
      assert.match(sourceError(await r.failure()).message, /the connection broke/);
      r.answer = answer;
      assert.deepEqual(await call(r), { code: { value: 200_000 } });
    }));

  it('messages of one turn of a stream go out as one frame of HTTP/2, and an end by the server is told once', () =>
    rig(async (r) => {
      const ends: PolarisFailure[] = [];
      const got: number[] = [];
      r.answer = (stream, body) => {
        got.push(body.length);
        trailers(stream, { 'grpc-status': '0' }, null);
      };
      const stream = r.connection.stream(
        'Discover',
        () => {},
        (failure) => ends.push(failure),
      );
      for (let n = 0; n < 10; n++) stream.write(Buffer.from('abc'));
      stream.retire();
      await eventually(() => assert.deepEqual(got, [80]));
      const second = r.connection.stream(
        'BatchHeartbeat',
        () => {},
        (failure) => ends.push(failure),
      );
      second.write(Buffer.from('abc'));
      for (const session of r.sessions) session.destroy();
      await eventually(() => assert.equal(ends.length, 1));
      second.cancel();
      assert.match(ends[0]?.message ?? '', /polaris 127/);
    }));

  it('a deadline and an abort end the call at once, and no timer stays', async () => {
    const clock = new FakeClock();
    await rig(
      async (r) => {
        let arrived = 0;
        r.answer = () => void arrived++;
        const late = thrownBy(call(r));
        await eventually(() => assert.equal(arrived, 1));
        await clock.advance(5_001);
        const thrown = await late;
        assert.ok(thrown instanceof PolarisFailure && thrown.status === 4, String(thrown));
        const stop = new AbortController();
        const aborted = thrownBy(call(r, stop.signal));
        await eventually(() => assert.equal(arrived, 2));
        const reason = new Error('enough');
        stop.abort(reason);
        assert.equal(await aborted, reason);
        assert.equal(clock.pending, 0);
      },
      null,
      clock,
    );
  });

  it('ports that speak something else or nothing are told in words, and closing leaves no socket', async () => {
    const says = async (server: ReturnType<typeof createTcp>, words: RegExp): Promise<void> => {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = Object(server.address());
      const connection = new Connection(`127.0.0.1:${port}`, null, null, 500, systemClock);
      const thrown = await thrownBy(connection.call('RegisterInstance', {}, new AbortController().signal));
      assert.match(sourceError(thrown).message, words);
      connection.close();
      // Closes only when the last socket is gone.
      await new Promise<void>((resolve) => server.close(() => resolve()));
    };
    await says(
      createTcp((socket) =>
        socket
          .on('error', () => {})
          .resume()
          .end('HTTP/1.1 400 Bad Request\r\n\r\n'),
      ),
      /no gRPC there/,
    );
    await says(
      createTcp((socket) => void socket.on('error', () => {}).resume()),
      /no answer in time/,
    );
    await says(
      createTcp((socket) => socket.on('error', () => {}).destroy()),
      /the connection broke/,
    );
    const closed = new Connection('127.0.0.1:1', null, null, 5_000, systemClock);
    const refused = await thrownBy(closed.call('Heartbeat', {}, new AbortController().signal));
    assert.match(sourceError(refused).message, /nothing listens there/);
    closed.close();
    const after = await thrownBy(closed.call('Heartbeat', {}, new AbortController().signal));
    assert.equal(sourceError(after).causeKind, 'lost');
  });
});
