// What only real sockets can show: that views arrive intact however slow the reader, that refusals are read by the client, that
// dead and half-dead sockets are noticed; and the round trip through node:http on both sides.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { exchange, type Hop, listen, startHop } from './hop.ts';

const SIZE = 25 * 1024 * 1024;

/** Bytes in which a shifted or repeated piece shows. */
function pattern(size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  for (let i = 0; i + 4 <= size; i += 4) bytes.writeUInt32LE((Math.imul(i, 2_654_435_761) ^ i) >>> 0, i);
  return bytes;
}

function sha(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function withHop(handler: http.RequestListener, run: (hop: Hop) => Promise<void>): Promise<void> {
  const upstream = http.createServer(handler);
  const hop = await startHop(await listen(upstream));
  try {
    await run(hop);
  } finally {
    await hop.close();
    upstream.closeAllConnections();
    upstream.close();
  }
}

/** Reads an answer in small sips, so that every write of the hop has to wait. */
async function readSlowly(stream: http.IncomingMessage): Promise<string> {
  const hash = createHash('sha256');
  let sips = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    sips++;
    if (sips % 16 === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    if (sips % 200 === 0) await new Promise<void>((resolve) => setTimeout(resolve, 5));
  }
  return hash.digest('hex');
}

for (const framing of ['content-length', 'chunked', 'until close']) {
  test(`25 MiB by ${framing} arrive intact at a slow reader`, async () => {
    const bytes = pattern(SIZE);
    await withHop(
      (_request, response) => {
        response.useChunkedEncodingByDefault = framing === 'chunked';
        if (framing === 'content-length') response.setHeader('content-length', SIZE);
        response.flushHeaders();
        response.end(bytes);
      },
      async (hop) => {
        const response = await get(hop.port, '/');
        assert.equal(response.headers['transfer-encoding'], framing === 'content-length' ? undefined : 'chunked');
        assert.equal(await readSlowly(response), sha(bytes));
      },
    );
  });
}

for (const framing of ['content-length', 'chunked']) {
  test(`25 MiB of request body by ${framing} arrive intact at a slow upstream`, async () => {
    const bytes = pattern(SIZE);
    await withHop(
      (request, response) => {
        void readSlowly(request).then((hash) => response.end(hash));
      },
      async (hop) => {
        const request = http.request({ port: hop.port, method: 'POST', agent: false });
        if (framing === 'content-length') request.setHeader('content-length', SIZE);
        request.end(bytes);
        const response = await answer(request);
        let text = '';
        for await (const chunk of response) text += chunk;
        assert.equal(text, sha(bytes));
      },
    );
  });
}

async function answer(request: http.ClientRequest): Promise<http.IncomingMessage> {
  return await new Promise((resolve, reject) => {
    request.on('response', resolve);
    request.on('error', reject);
  });
}

async function get(port: number, path: string): Promise<http.IncomingMessage> {
  return await answer(http.get({ port, path, agent: false }));
}

test('round trip: what we write, node:http reads back with the same method, target, fields, body and trailers', async () => {
  const seen: unknown[] = [];
  await withHop(
    (request, response) => {
      let body = '';
      request.setEncoding('latin1');
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => {
        seen.push([request.method, request.url, request.rawHeaders, body, request.rawTrailers]);
        response.writeHead(201, 'Made \xe9', [
          'X-A',
          '1',
          'x-a',
          '\xff',
          'Set-Cookie',
          'a',
          'Set-Cookie',
          'b',
          'Trailer',
          'Server-Timing',
        ]);
        response.write('one');
        response.addTrailers({ 'Server-Timing': 't' });
        response.end('two');
      });
    },
    async (hop) => {
      const text = await exchange(
        hop.port,
        'PATCH /a//b?c=%2F HTTP/1.1\r\nHost: h\r\nX-B: \xe9\t z\r\nConnection: close, x-b2\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nGrpc-Status: 0\r\n\r\n',
      );
      assert.deepEqual(seen, [
        ['PATCH', '/a//b?c=%2F', ['Host', 'h', 'X-B', '\xe9\t z', 'transfer-encoding', 'chunked'], 'abc', ['Grpc-Status', '0']],
      ]);
      assert.match(text, /^HTTP\/1.1 201 Made \xe9\r\nX-A: 1\r\nx-a: \xff\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n/);
      assert.match(
        text,
        /transfer-encoding: chunked\r\nconnection: close\r\n\r\n(?:3\r\none\r\n3\r\ntwo|6\r\nonetwo)\r\n0\r\nServer-Timing: t\r\n\r\n$/,
      );
    },
  );
});

test('a refused upload is answered so that a client that is still sending reads the answer', async () => {
  await withHop(
    () => {},
    async (hop) => {
      const junk = `POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz${'x'.repeat(4_000_000)}`;
      const text = await exchange(hop.port, junk);
      assert.match(text, /^HTTP\/1.1 400 Bad Request\r\n/);
      assert.deepEqual(hop.refusals, [400]);
    },
  );
});

test('pipelined requests on one socket are answered in order', async () => {
  await withHop(
    (request, response) => void response.end(request.url),
    async (hop) => {
      const many = Array.from(
        { length: 50 },
        (_, n) => `GET /${n} HTTP/1.1\r\nHost: h\r\n${n === 49 ? 'Connection: close\r\n' : ''}\r\n`,
      ).join('');
      const text = await exchange(hop.port, many);
      assert.deepEqual(
        [...text.matchAll(/\r\n\r\n\/(\d+)/g)].map((match) => Number(match[1])),
        Array.from({ length: 50 }, (_, n) => n),
      );
      assert.equal(hop.pool.active, 0);
    },
  );
});

test('an upstream that closes its idle socket is noticed before the next request', async () => {
  const upstream = http.createServer((_request, response) => void response.end('ok'));
  const hop = await startHop(await listen(upstream));
  const text = await exchange(hop.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n', /ok$/);
  assert.match(text, /200 OK/);
  assert.equal(hop.pool.idle, 1);
  upstream.closeAllConnections();
  await eventually(() => hop.pool.idle === 0);
  await hop.close();
  upstream.close();
});

test('a client that goes away in mid-answer frees the upstream socket', async () => {
  let cut = false;
  await withHop(
    (request, response) => {
      response.write('x'.repeat(100));
      request.on('close', () => {
        cut = true;
      });
    },
    async (hop) => {
      await exchange(hop.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n', /xxx/);
      await eventually(() => cut && hop.pool.active === 0);
    },
  );
});

test('an upstream that cuts its answer cuts the client too, never a clean last chunk', async () => {
  const upstream = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n');
      setImmediate(() => socket.resetAndDestroy());
    });
  });
  const hop = await startHop(await listen(upstream));
  const text = await exchange(hop.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n');
  assert.equal(text.includes('\r\n0\r\n'), false, text);
  await hop.close();
  upstream.close();
});
