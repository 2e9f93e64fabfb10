// The plain forward path over real sockets: what goes up, what comes back, framing both ways, local replies.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { ProxyRig, request, SERVICE } from '../support/proxy-rig.ts';
import { echo, type FakeUpstream, hello, raw, rawThen } from '../support/upstream-farm.ts';

const rig = new ProxyRig();
let upstream: FakeUpstream;

before(async () => {
  await rig.open();
  upstream = await rig.farm.add();
  rig.serve([upstream.port]);
});

beforeEach(() => {
  upstream.script = hello;
  upstream.seen.length = 0;
});

after(() => rig.close());

test('a GET goes up rewritten by the filters and its reply comes back with what weir says of it', async () => {
  const response = await rig.get('/a?b=c', 'X-One: 1', 'Connection: x-two', 'X-Two: 2', 'X-Request-Id: r-1');
  assert.equal(response.status, 200);
  assert.equal(response.body.toString(), 'hello');
  assert.deepEqual(response.fields.get('x-weir-attempts'), ['1']);
  assert.deepEqual(response.fields.get('x-weir-upstream'), [`127.0.0.1:${upstream.port}`]);
  assert.deepEqual(response.fields.get('via'), ['1.1 weir-test']);
  assert.equal(response.fields.has('x-weir-error'), false);
  const seen = upstream.seen[0];
  assert.equal(
    seen?.head,
    [
      'GET /a?b=c HTTP/1.1',
      'host: x',
      'X-One: 1',
      'X-Request-Id: r-1',
      'via: 1.1 weir-test',
      'x-forwarded-for: 127.0.0.1',
      'x-weir-attempt-count: 1',
    ].join('\r\n'),
  );
});

test('keep-alive: one client connection and one upstream connection serve many requests', async () => {
  const client = await rig.client();
  const before = upstream.connections;
  for (let i = 0; i < 20; i++) {
    client.write(request('GET', `/${i}`));
    const response = await client.response();
    assert.equal(response.body.toString(), 'hello');
  }
  assert.ok(upstream.connections - before <= 1);
  client.destroy();
});

test('pipelined requests are answered in order, one at a time', async () => {
  upstream.script = (seen, reply) => reply.send(200, seen.target);
  const client = await rig.client();
  client.write(Array.from({ length: 50 }, (_, i) => request('GET', `/${i}`)).join(''));
  for (let i = 0; i < 50; i++) assert.equal((await client.response()).body.toString(), `/${i}`);
  client.destroy();
});

test('a body with Content-Length and one in chunks arrive whole, framed anew', async () => {
  upstream.script = echo;
  const sized = await rig.ask(request('POST', '/', 'Content-Length: 5'), 'abcde');
  assert.equal(sized.body.toString(), 'abcde');
  assert.deepEqual(upstream.seen[0]?.fields.get('content-length'), ['5']);
  const chunked = await rig.ask(request('PUT', '/', 'Transfer-Encoding: chunked'), '3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n');
  assert.equal(chunked.body.toString(), 'abcde');
  assert.deepEqual(upstream.seen[1]?.fields.get('transfer-encoding'), ['chunked']);
});

test('a body that comes byte by byte arrives whole', async () => {
  upstream.script = echo;
  const client = await rig.client();
  for (const byte of request('POST', '/', 'Content-Length: 10')) client.write(byte);
  for (const byte of '0123456789') {
    client.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal((await client.response()).body.toString(), '0123456789');
  client.destroy();
});

test('POST with an empty body keeps its Content-Length: 0', async () => {
  await rig.ask(request('POST', '/', 'Content-Length: 0'));
  assert.deepEqual(upstream.seen[0]?.fields.get('content-length'), ['0']);
});

test('Expect: 100-continue is answered by weir and not passed on', async () => {
  upstream.script = echo;
  const client = await rig.client();
  client.write(request('POST', '/', 'Expect: 100-continue', 'Content-Length: 3'));
  assert.equal((await client.response()).status, 100);
  client.write('abc');
  assert.equal((await client.response()).body.toString(), 'abc');
  assert.equal(upstream.seen[0]?.fields.has('expect'), false);
  client.destroy();
});

test('HEAD, 204 and 304 have no body, and the connection lives on', async () => {
  const client = await rig.client();
  upstream.script = raw('HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n');
  client.write(request('HEAD', '/'));
  const head = await client.response('HEAD');
  assert.deepEqual(head.fields.get('content-length'), ['1234']);
  upstream.script = raw('HTTP/1.1 204 No Content\r\n\r\n');
  client.write(request('GET', '/'));
  const none = await client.response();
  assert.equal(none.status, 204);
  assert.equal(none.fields.has('content-length'), false);
  upstream.script = raw('HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n');
  client.write(request('GET', '/'));
  const same = await client.response();
  assert.deepEqual([same.status, same.fields.get('content-length')], [304, ['77']]);
  upstream.script = hello;
  client.write(request('GET', '/'));
  assert.equal((await client.response()).body.toString(), 'hello');
  client.destroy();
});

test('a reply that ends by close goes on in chunks to 1.1 and by close to 1.0', async () => {
  upstream.script = rawThen('HTTP/1.0 200 OK\r\n\r\nby close', 'end');
  const chunked = await rig.get();
  assert.deepEqual([chunked.body.toString(), chunked.complete], ['by close', true]);
  assert.deepEqual(chunked.fields.get('transfer-encoding'), ['chunked']);
  const old = await rig.ask(`GET / HTTP/1.0\r\nHost: x\r\nx-weir-service: ${SERVICE}\r\n\r\n`);
  assert.deepEqual([old.body.toString(), old.complete], ['by close', true]);
  assert.equal(old.fields.has('transfer-encoding'), false);
});

test('a 1.0 client gets a whole reply, and keep-alive when it asks', async () => {
  const client = await rig.client();
  client.write(`GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nx-weir-service: ${SERVICE}\r\n\r\n`);
  const first = await client.response();
  assert.deepEqual(first.fields.get('connection'), ['keep-alive']);
  client.write(`GET / HTTP/1.0\r\nHost: x\r\nx-weir-service: ${SERVICE}\r\n\r\n`);
  assert.deepEqual((await client.response()).fields.get('connection'), ['close']);
  await client.waitClosed();
});

test('trailers go on by allow-list to a client that asked, and to no other', async () => {
  upstream.script = raw(
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n3\r\nabc\r\n0\r\nServer-Timing: t\r\nX-Secret: s\r\n\r\n',
  );
  const asked = await rig.get('/', 'TE: trailers');
  assert.deepEqual([asked.body.toString(), asked.trailers], ['abc', 'Server-Timing: t\n']);
  const other = await rig.get();
  assert.deepEqual([other.body.toString(), other.trailers, other.complete], ['abc', '', true]);
});

test('a 103 goes on to a 1.1 client, other informational ones do not', async () => {
  upstream.script = raw(
    'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  );
  const client = await rig.client();
  client.write(request('GET', '/'));
  const early = await client.response();
  assert.deepEqual([early.status, early.fields.get('link')], [103, ['</a>']]);
  assert.equal((await client.response()).body.toString(), 'ok');
  client.destroy();
});

test('rewriteHost replaces Host and keeps the original in X-Forwarded-Host', async () => {
  rig.serve([upstream.port], { rewriteHost: 'inner.example' }, 'demo/rewritten');
  await rig.ask('GET / HTTP/1.1\r\nHost: rewritten.demo.weir\r\n\r\n');
  assert.deepEqual(upstream.seen[0]?.fields.get('host'), ['inner.example']);
  assert.deepEqual(upstream.seen[0]?.fields.get('x-forwarded-host'), ['rewritten.demo.weir']);
});

const WAYS: readonly (readonly [string, string, string])[] = [
  ['Host', 'GET /p HTTP/1.1\r\nHost: hello.demo.weir:7980\r\n\r\n', '/p'],
  ['path', 'GET /svc/demo/hello/p?q HTTP/1.1\r\nHost: x\r\n\r\n', '/p?q'],
  ['absolute-form', 'GET http://hello.demo.weir/p HTTP/1.1\r\nHost: other\r\n\r\n', '/p'],
];

for (const [name, head, target] of WAYS) {
  test(`the service is chosen by ${name}`, async () => {
    assert.equal((await rig.ask(head)).status, 200);
    assert.equal(upstream.seen[0]?.target, target);
  });
}

const LOCAL: readonly (readonly [string, string, number, string])[] = [
  ['no service named', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 404, 'ROUTE_NOT_FOUND'],
  ['unknown service', 'GET / HTTP/1.1\r\nHost: nobody.weir\r\n\r\n', 404, 'ROUTE_NOT_FOUND'],
  ['TRACE', request('TRACE', '/'), 405, 'BAD_REQUEST'],
  ['CONNECT', 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', 403, 'BAD_REQUEST'],
  ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400, 'BAD_REQUEST'],
  ['version', 'GET / HTTP/2.0\r\nHost: x\r\n\r\n', 505, 'BAD_REQUEST'],
  ['transfer coding', request('POST', '/', 'Transfer-Encoding: gzip, chunked'), 501, 'BAD_REQUEST'],
  ['long target', request('GET', `/${'a'.repeat(8_200)}`), 414, 'BAD_REQUEST'],
  ['many fields', request('GET', '/', ...Array.from({ length: 101 }, (_, i) => `a${i}: 1`)), 431, 'BAD_REQUEST'],
  ['expectation', request('POST', '/', 'Expect: 200-ok', 'Content-Length: 1'), 417, 'BAD_REQUEST'],
  ['announced body too large', request('POST', '/', `Content-Length: ${11 * 1024 * 1024}`), 413, 'BAD_REQUEST'],
  ['loop', request('GET', '/', 'Via: 1.1 weir-test'), 508, 'LOOP_DETECTED'],
  ['path that leaves its prefix', 'GET /svc/demo/hello/../../x HTTP/1.1\r\nHost: x\r\n\r\n', 400, 'BAD_REQUEST'],
];

for (const [name, head, status, code] of LOCAL) {
  test(`${status} ${code} for: ${name}; nothing reaches an upstream`, async () => {
    const response = await rig.ask(head);
    assert.equal(response.status, status);
    assert.deepEqual(response.fields.get('x-weir-error'), [code]);
    assert.deepEqual(response.fields.get('x-weir-attempts'), ['0']);
    assert.equal(upstream.seen.length, 0);
  });
}

test('405 names the methods that are allowed', async () => {
  const response = await rig.ask(request('PURGE', '/'));
  assert.deepEqual(response.fields.get('allow'), ['GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']);
});

test('a chunked body that grows above maxRequestBody is 413 and the connection closes', async () => {
  rig.serve([upstream.port], { maxRequestBody: 1_000 }, 'demo/small');
  upstream.script = echo;
  const client = await rig.client();
  client.write('POST /svc/demo/small/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
  client.write(`3e8\r\n${'a'.repeat(1_000)}\r\n`);
  client.write('1\r\na\r\n');
  const response = await client.response();
  assert.equal(response.status, 413);
  assert.deepEqual(response.fields.get('connection'), ['close']);
  await client.waitClosed();
});
