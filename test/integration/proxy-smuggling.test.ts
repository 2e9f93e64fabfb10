// Request smuggling (proxy-semantics §12, reliability D6 D7): whatever the client sends, the upstream sees exactly the requests
// that weir has understood, and nothing that was hidden inside another one.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { ProxyRig, request } from '../support/proxy-rig.ts';
import { echo, type FakeUpstream } from '../support/upstream-farm.ts';

const rig = new ProxyRig();
let up: FakeUpstream;

before(async () => {
  await rig.open();
  up = await rig.farm.add(echo);
  rig.serve([up.port]);
});

beforeEach(() => {
  up.seen.length = 0;
});

after(() => rig.close());

const HIDDEN = request('GET', '/hidden');

function post(...fields: string[]): string {
  return request('POST', '/open', ...fields);
}

/** What the client sends, and the status that closes the connection; nothing may reach the upstream. */
const REFUSED: readonly (readonly [string, string, number])[] = [
  ['CL.TE', `${post('Content-Length: 6', 'Transfer-Encoding: chunked')}0\r\n\r\n${HIDDEN}`, 400],
  ['TE.CL', `${post('Transfer-Encoding: chunked', 'Content-Length: 4')}5c\r\n${HIDDEN}\r\n0\r\n\r\n`, 400],
  ['TE.TE, a second coding', `${post('Transfer-Encoding: chunked', 'Transfer-Encoding: identity')}0\r\n\r\n${HIDDEN}`, 400],
  ['TE with a vertical tab', `${post('Transfer-Encoding: \x0bchunked')}0\r\n\r\n${HIDDEN}`, 400],
  ['TE with a parameter', `${post('Transfer-Encoding: chunked;a=b')}0\r\n\r\n${HIDDEN}`, 400],
  ['TE with a space before the colon', `${post('Transfer-Encoding : chunked')}0\r\n\r\n${HIDDEN}`, 400],
  ['TE folded', `${post('Transfer-Encoding:\r\n chunked')}0\r\n\r\n${HIDDEN}`, 400],
  ['TE in quotes', `${post('Transfer-Encoding: "chunked"')}0\r\n\r\n${HIDDEN}`, 400],
  ['CL.CL', `${post('Content-Length: 0', 'Content-Length: 44')}${HIDDEN}`, 400],
  ['CL list', `${post('Content-Length: 0, 44')}${HIDDEN}`, 400],
  ['CL with a plus', `${post('Content-Length: +0')}${HIDDEN}`, 400],
  ['CL with a minus', `${post('Content-Length: -1')}${HIDDEN}`, 400],
  ['CL in hex', `${post('Content-Length: 0x0')}${HIDDEN}`, 400],
  ['CL with an inner space', `${post('Content-Length: 0 0')}${HIDDEN}`, 400],
  ['CL with an underscore', `${post('Content-Length: 1_0')}${HIDDEN}`, 400],
  ['CL of 2^64', `${post('Content-Length: 18446744073709551616')}${HIDDEN}`, 400],
  ['CL empty', `${post('Content-Length:')}${HIDDEN}`, 400],
  ['Connection hides the length', `${post('Connection: content-length', 'Content-Length: 0')}${HIDDEN}`, 400],
  ['bare LF between fields', `POST / HTTP/1.1\nHost: x\nContent-Length: 0\n\n${HIDDEN}`, 400],
  ['bare CR in a value', `${post('X: a\rContent-Length: 5')}${HIDDEN}`, 400],
  ['LF in a value', `${post('X: a\nContent-Length: 5')}${HIDDEN}`, 400],
  ['NUL in a value', `${post('X: a\0b')}${HIDDEN}`, 400],
  ['space in a name', `${post('Content Length: 5')}${HIDDEN}`, 400],
  ['empty name', `${post(': 5')}${HIDDEN}`, 400],
  ['two Host fields', `${request('GET', '/', 'Host: y')}`, 400],
  ['absolute-form against Host', `GET http://u@hello.demo.weir/ HTTP/1.1\r\nHost: x\r\n\r\n`, 400],
];

for (const [name, bytes, status] of REFUSED) {
  test(`refused before an upstream sees anything: ${name}`, async () => {
    const client = await rig.client();
    client.write(bytes);
    const response = await client.response();
    assert.equal(response.status, status);
    await client.waitClosed();
    assert.equal(client.unread.length, 0, 'a second response came');
    assert.deepEqual(up.seen, []);
  });
}

/** Bad chunks: the request was already open, so the head may have gone up; what is hidden must not. */
const BROKEN_CHUNKS: readonly (readonly [string, string])[] = [
  ['size with a sign', '+1\r\na\r\n0\r\n\r\n'],
  ['size with 0x', '0x1\r\na\r\n0\r\n\r\n'],
  ['size with a space', '1 \r\na\r\n0\r\n\r\n'],
  ['size too long', `${'0'.repeat(20)}1\r\na\r\n0\r\n\r\n`],
  ['size of 2^64', '10000000000000000\r\na\r\n0\r\n\r\n'],
  ['bare LF after the size', '1\na\r\n0\r\n\r\n'],
  ['data longer than its size', '1\r\nab\r\n0\r\n\r\n'],
  ['LF in an extension', '1;a\nb\r\na\r\n0\r\n\r\n'],
  ['length among the trailers', '1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n'],
  ['coding among the trailers', '1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ['bare LF ends the trailers', '1\r\na\r\n0\r\n\n'],
];

for (const [name, chunks] of BROKEN_CHUNKS) {
  test(`a broken chunked body is 400, never passed on whole: ${name}`, async () => {
    const client = await rig.client();
    client.write(`${post('Transfer-Encoding: chunked')}${chunks}${HIDDEN}`);
    const response = await client.response();
    assert.equal(response.status, 400);
    await client.waitClosed();
    assert.equal(client.unread.length, 0);
    assert.ok(!up.seen.some((seen) => seen.target === '/hidden'));
    assert.ok(!up.seen.some((seen) => seen.body.length > 0), 'a broken body was completed');
  });
}

test('chunk extensions and leading zeros are not passed on', async () => {
  const response = await rig.ask(post('Transfer-Encoding: chunked'), '0001;a="b;c";d\r\na\r\n0;x\r\n\r\n');
  assert.equal(response.body.toString(), 'a');
  assert.equal(up.seen.length, 1);
});

test('a flood of chunk extensions is refused: 413', async () => {
  const client = await rig.client();
  client.write(post('Transfer-Encoding: chunked'));
  client.write(`1;${'e'.repeat(200)}\r\na\r\n`.repeat(400));
  const response = await client.response();
  assert.equal(response.status, 413);
  await client.waitClosed();
});

/** Understood: exactly these targets arrive, in order. */
const UNDERSTOOD: readonly (readonly [string, string, readonly string[]])[] = [
  ['a body that looks like a request stays a body', `${post(`Content-Length: ${HIDDEN.length}`)}${HIDDEN}`, ['/open']],
  [
    'a GET with a body that looks like a request',
    `${request('GET', '/open', `Content-Length: ${HIDDEN.length}`)}${HIDDEN}`,
    ['/open'],
  ],
  ['two requests are two requests', `${post('Content-Length: 0')}${request('GET', '/second')}`, ['/open', '/second']],
  [
    'a chunked one, then another',
    `${post('Transfer-Encoding: Chunked')}1\r\na\r\n0\r\n\r\n${request('GET', '/second')}`,
    ['/open', '/second'],
  ],
  ['an empty line between requests', `${post('Content-Length: 0')}\r\n${request('GET', '/second')}`, ['/open', '/second']],
  [
    'look-alikes of length and coding mean nothing',
    `${post('Content_Length: 50', 'Transfer_Encoding: chunked', 'Content-Length: 0')}${request('GET', '/second')}`,
    ['/open', '/second'],
  ],
  ['a length with leading zeros', `${post('Content-Length: 0003')}abc${request('GET', '/second')}`, ['/open', '/second']],
];

for (const [name, bytes, targets] of UNDERSTOOD) {
  test(`understood: ${name}`, async () => {
    const client = await rig.client();
    client.write(bytes);
    for (const _ of targets) assert.equal((await client.response()).status, 200);
    assert.deepEqual(
      up.seen.map((seen) => seen.target),
      targets,
    );
    for (const seen of up.seen) {
      assert.ok(!seen.fields.has('content_length') && !seen.fields.has('transfer_encoding'));
      assert.ok((seen.fields.get('content-length')?.length ?? 0) + (seen.fields.get('transfer-encoding')?.length ?? 0) <= 1);
    }
    client.destroy();
  });
}

test('any split of the same bytes gives the same requests upstream', async () => {
  const bytes = `${post('Transfer-Encoding: chunked')}3;x=y\r\nabc\r\n0\r\n\r\n${request('GET', '/second')}${post('Content-Length: 2')}de`;
  for (const step of [1, 7, 64]) {
    up.seen.length = 0;
    const client = await rig.client();
    for (let at = 0; at < bytes.length; at += step) {
      client.write(bytes.slice(at, at + step));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    const bodies: string[] = [];
    for (let i = 0; i < 3; i++) bodies.push((await client.response()).body.toString());
    assert.deepEqual(bodies, ['abc', '', 'de']);
    assert.deepEqual(
      up.seen.map((seen) => seen.target),
      ['/open', '/second', '/open'],
    );
    client.destroy();
  }
});

test('5,000 requests deep on one socket: one in flight at a time, all answered', async () => {
  let inFlight = 0;
  let most = 0;
  up.script = (_seen, reply) => {
    most = Math.max(most, ++inFlight);
    setImmediate(() => {
      inFlight--;
      reply.send(200, 'x');
    });
  };
  const client = await rig.client();
  client.write(request('GET', '/').repeat(5_000));
  for (let i = 0; i < 5_000; i++) assert.equal((await client.response()).status, 200);
  assert.equal(most, 1);
  client.destroy();
  up.script = echo;
});
