// Streaming both ways: back-pressure, truncation that the client can see, deadlines in mid-body, early replies, dirty sockets.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, afterEach, before, test } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { ProxyRig, request } from '../support/proxy-rig.ts';
import { drip, echo, hang, hello, inTurn, raw, rawThen, type Script } from '../support/upstream-farm.ts';

let rig: ProxyRig;

before(async () => {
  rig = await new ProxyRig().open();
});

afterEach(async () => {
  await rig.close();
  rig = await new ProxyRig().open();
});

after(() => rig.close());

const BIG = 25 * 1024 * 1024;

/** Bytes that differ at every offset, so that a view that was reused shows. */
function pattern(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i + 4 <= length; i += 4) bytes.writeUInt32LE(Math.imul(i, 2_654_435_761) >>> 0, i);
  return bytes;
}

function sha(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

for (const kind of ['length', 'chunked', 'close'] as const) {
  test(`25 MiB to a slow reader arrive unchanged (${kind}), while little of it is buffered`, async () => {
    const body = pattern(BIG);
    const up = await rig.farm.add((_request, reply) => {
      if (kind === 'length') reply.raw(`HTTP/1.1 200 OK\r\nContent-Length: ${BIG}\r\n\r\n`);
      else if (kind === 'close') reply.raw('HTTP/1.1 200 OK\r\n\r\n');
      else reply.raw('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      if (kind === 'chunked') {
        for (let at = 0; at < BIG; at += 100_000) {
          const piece = body.subarray(at, at + 100_000);
          reply.raw(`${piece.length.toString(16)}\r\n`);
          reply.raw(piece);
          reply.raw('\r\n');
        }
        reply.raw('0\r\n\r\n');
      } else reply.raw(body);
      if (kind === 'close') reply.socket.end();
    });
    rig.serve([up.port]);
    const client = await rig.client();
    client.write(request('GET', '/'));
    await eventually(() => client.unread.length > 0);
    client.socket.pause();
    await eventually(() => assert.ok((up.sockets()[0]?.writableLength ?? 0) > 0));
    let stood = -1;
    // What the upstream could write stands still while the client does not read: no queue grows.
    await eventually(
      () => {
        const waiting = up.sockets()[0]?.writableLength ?? 0;
        const still = waiting === stood;
        stood = waiting;
        return still;
      },
      30_000,
      100,
    );
    assert.ok(stood > BIG / 2, `${stood} bytes wait at the upstream`);
    client.socket.resume();
    const response = await client.response();
    assert.equal(response.complete, true);
    assert.equal(sha(response.body), sha(body));
  });
}

for (const kind of ['length', 'chunked'] as const) {
  test(`25 MiB of upload arrive unchanged (${kind}) at an upstream that reads late`, async () => {
    rig.serve([], { maxRequestBody: 2 * BIG });
    const body = pattern(BIG);
    const up = await rig.farm.add(
      async (seen, reply) => {
        reply.socket.pause();
        setTimeout(() => reply.socket.resume(), 300);
        const whole = await reply.whole;
        reply.send(200, `${sha(whole)} ${seen.id}`);
      },
      { atHead: true },
    );
    rig.serve([up.port], { maxRequestBody: 2 * BIG });
    const client = await rig.client();
    if (kind === 'length') {
      client.write(request('POST', '/', `Content-Length: ${BIG}`, 'X-Request-Id: u'));
      client.write(body);
    } else {
      client.write(request('POST', '/', 'Transfer-Encoding: chunked', 'X-Request-Id: u'));
      for (let at = 0; at < BIG; at += 77_777) {
        const piece = body.subarray(at, at + 77_777);
        client.write(`${piece.length.toString(16)}\r\n`);
        client.write(piece);
        client.write('\r\n');
      }
      client.write('0\r\n\r\n');
    }
    await eventually(() => assert.equal(up.seen.length, 1));
    assert.ok(client.socket.writableLength > BIG / 2, 'the client could write far more than was read');
    assert.equal((await client.response()).body.toString(), `${sha(body)} u`);
  });
}

test('an upstream that answers while it reads (echo) gets and gives 5 MiB', async () => {
  const size = 5 * 1024 * 1024;
  const body = pattern(size);
  const up = await rig.farm.add(
    (_seen, reply) => {
      reply.raw(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
      reply.socket.on('data', (chunk: Buffer) => reply.raw(chunk));
    },
    { atHead: true },
  );
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('POST', '/', `Content-Length: ${size}`));
  // The head's own read holds no body, so that the script's listener sees all of it.
  await eventually(() => assert.equal(up.seen.length, 1));
  client.write(body);
  const response = await client.response();
  assert.deepEqual([response.complete, sha(response.body)], [true, sha(body)]);
});

const CUTS: readonly (readonly [string, Script])[] = [
  ['short Content-Length, then close', rawThen('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc', 'end')],
  ['short Content-Length, then reset', rawThen('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc', 'reset')],
  ['no last chunk, then close', rawThen('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', 'end')],
  ['broken chunk size', raw('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n')],
  ['chunk cut in the middle', rawThen('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc', 'end')],
  ['body by close, then reset', rawThen('HTTP/1.1 200 OK\r\n\r\nabc', 'reset')],
];

for (const [name, script] of CUTS) {
  test(`a reply that breaks off is never a clean end: ${name}`, async () => {
    const up = await rig.farm.add(script);
    rig.serve([up.port]);
    const client = await rig.client();
    client.write(request('GET', '/', 'X-Request-Id: r'));
    // The abort may overtake the head: both are visible failures.
    const response = await client.response().catch(() => null);
    assert.equal(response?.complete ?? false, false);
    await client.waitClosed();
    assert.equal(up.executed('r'), 1);
    await eventually(() => assert.equal(up.open, 0));
  });
}

test('a drip that outlives the route timeout is cut, not ended', async () => {
  const up = await rig.farm.add(drip('x'.repeat(100), 50));
  rig.serve([up.port], { timeout: 400 });
  const before = performance.now();
  const response = await rig.get();
  assert.deepEqual([response.status, response.complete], [200, false]);
  const took = performance.now() - before;
  // All of the drip takes 5 s.
  assert.ok(took >= 395 && took < 4_000, `took ${took}`);
});

test('no response within the route timeout: 504, also for POST, and the upstream connection is given up', async () => {
  const up = await rig.farm.add(hang);
  rig.serve([up.port], { timeout: 200 });
  for (const method of ['GET', 'POST']) {
    const response = await rig.ask(request(method, '/'));
    assert.deepEqual(
      [response.status, response.fields.get('x-weir-error'), response.fields.get('x-weir-attempts')],
      [504, ['UPSTREAM_TIMEOUT'], ['1']],
    );
  }
  await eventually(() => assert.equal(up.open, 0));
});

test('an upstream that takes no more of the body is bounded by the route timeout', async () => {
  const up = await rig.farm.add((_seen, reply) => void reply.socket.pause(), { atHead: true });
  rig.serve([up.port], { timeout: 300 });
  const client = await rig.client();
  client.write(request('POST', '/', `Content-Length: ${9 * 1024 * 1024}`));
  client.write(Buffer.alloc(9 * 1024 * 1024));
  const response = await client.response();
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [504, ['UPSTREAM_TIMEOUT']]);
});

test('streaming: a response outlives the route timeout, which bounds its head only', async () => {
  const up = await rig.farm.add(inTurn(drip('x'.repeat(10), 60), hang));
  rig.serve([up.port], { timeout: 250, streaming: true });
  const response = await rig.get();
  assert.deepEqual([response.complete, response.body.length], [true, 10]);
  assert.equal((await rig.get()).status, 504);
});

test('an early refusal is passed on, the rest of the upload is not read, both connections close', async () => {
  const up = await rig.farm.add((_seen, reply) => reply.send(403, 'no'), { atHead: true });
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('POST', '/', 'Content-Length: 5000000'));
  client.write('x'.repeat(100_000));
  const response = await client.response();
  assert.deepEqual([response.status, response.body.toString(), response.fields.get('connection')], [403, 'no', ['close']]);
  await client.waitClosed();
  await eventually(() => assert.equal(up.open, 0));
});

test('an early success is passed on, and both connections close', async () => {
  const up = await rig.farm.add((_seen, reply) => reply.send(200, 'enough'), { atHead: true });
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('POST', '/', 'Content-Length: 5000000'));
  const response = await client.response();
  assert.deepEqual([response.status, response.body.toString()], [200, 'enough']);
  await client.waitClosed();
  await eventually(() => assert.equal(up.open, 0));
});

test('an upstream that closes during the upload: 502, and nothing is executed twice', async () => {
  const up = await rig.farm.add((_seen, reply) => void reply.socket.end(), { atHead: true });
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('POST', '/', 'Content-Length: 5000000', 'X-Request-Id: r'));
  client.write('x'.repeat(300_000));
  const response = await client.response();
  assert.deepEqual([response.status, up.executed('r')], [502, 1]);
});

test('late bytes of one response never reach another request', async () => {
  const up = await rig.farm.add(
    inTurn(raw('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'), hello),
  );
  rig.serve([up.port]);
  const client = await rig.client();
  for (let i = 0; i < 10; i++) {
    client.write(request('GET', '/'));
    assert.equal((await client.response()).body.toString(), i === 0 ? 'ok' : 'hello');
  }
});

test('bytes on an idle upstream connection drop it', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  await rig.get();
  for (const socket of up.sockets()) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
  await eventually(() => assert.equal(up.open, 0));
  assert.equal((await rig.get()).body.toString(), 'hello');
});

test('a flood of informational responses is 502', async () => {
  const up = await rig.farm.add(
    raw(`${'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(17)}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n`),
  );
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('POST', '/'));
  let response = await client.response();
  while (response.status < 200) response = await client.response();
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [502, ['UPSTREAM_PROTOCOL']]);
});

const MALFORMED: readonly (readonly [string, string])[] = [
  ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx'],
  ['length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['unknown coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n'],
  ['chunks on 1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['folded line', 'HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n'],
  ['NUL', 'HTTP/1.1 200 OK\r\nA: \0\r\n\r\n'],
  ['status 600', 'HTTP/1.1 600 OK\r\n\r\n'],
  ['status 099', 'HTTP/1.1 099 OK\r\n\r\n'],
  ['status 1000', 'HTTP/1.1 1000 OK\r\n\r\n'],
  ['version 2', 'HTTP/2.0 200 OK\r\n\r\n'],
  ['long head', `HTTP/1.1 200 OK\r\nA: ${'x'.repeat(17_000)}\r\n\r\n`],
  ['unasked 101', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n'],
  ['malformed Connection', 'HTTP/1.1 200 OK\r\nConnection: a b\r\nContent-Length: 0\r\n\r\n'],
];

for (const [name, bytes] of MALFORMED) {
  test(`a malformed response is 502 and its connection is never used again: ${name}`, async () => {
    const up = await rig.farm.add(raw(bytes));
    rig.serve([up.port]);
    const response = await rig.ask(request('POST', '/'));
    assert.deepEqual([response.status, response.fields.get('x-weir-error')], [502, ['UPSTREAM_PROTOCOL']]);
    await eventually(() => assert.equal(up.open, 0));
  });
}

test('a client that goes away takes its upstream request with it, and nobody is blamed', async () => {
  const up = await rig.farm.add(hang);
  rig.serve([up.port]);
  for (let i = 0; i < 12; i++) {
    const client = await rig.client();
    client.write(request('GET', '/'));
    await eventually(() => assert.equal(up.seen.length, i + 1));
    client.destroy();
  }
  await eventually(() => assert.deepEqual([up.open, rig.plane.counts().requests], [0, 0]));
  const endpoint = rig.plane.state('demo/hello')?.endpoints[0];
  assert.deepEqual([endpoint?.active, endpoint?.ejected, endpoint?.breaker], [0, false, 'closed']);
});

test('a slow body is answered 408 and closed', async () => {
  await rig.close();
  rig = await new ProxyRig({ limits: { requestTimeoutMs: 200, minRateAfterMs: 100 } }).open();
  const up = await rig.farm.add(echo);
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('POST', '/', 'Content-Length: 100'));
  client.write('x');
  const response = await client.response();
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [408, ['BAD_REQUEST']]);
  await client.waitClosed();
  await eventually(() => assert.deepEqual([rig.plane.counts().requests, up.open], [0, 0]));
});
