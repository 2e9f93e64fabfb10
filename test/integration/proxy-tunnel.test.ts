// WebSocket tunnels (proxy-semantics §15) over real sockets.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { ProxyRig, type RawClient, request } from '../support/proxy-rig.ts';
import { type FakeUpstream, inTurn, resetAtOnce, type Script, status } from '../support/upstream-farm.ts';

const rig = new ProxyRig();
let up: FakeUpstream;

before(async () => {
  await rig.open();
  up = await rig.farm.add();
  rig.serve([up.port]);
});

after(() => rig.close());

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
const ACCEPT = createHash('sha1').update(`${KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
const SWITCH = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n\r\n`;

function handshake(...fields: string[]): string {
  return request(
    'GET',
    '/ws',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${KEY}`,
    ...fields,
  );
}

/** Switches, sends `early` behind the head, then gives every byte back. */
function echoing(early = ''): Script {
  return (_seen, reply) => {
    reply.raw(SWITCH + early);
    reply.tunnel((chunk) => void reply.socket.write(chunk));
  };
}

async function open(script: Script, early = ''): Promise<RawClient> {
  up.script = script;
  const client = await rig.client();
  client.write(handshake() + early);
  const response = await client.response();
  assert.equal(response.status, 101);
  assert.deepEqual(response.fields.get('sec-websocket-accept'), [ACCEPT]);
  assert.deepEqual(response.fields.get('upgrade'), ['websocket']);
  assert.deepEqual(response.fields.get('connection'), ['upgrade']);
  assert.deepEqual(response.fields.get('x-weir-attempts'), ['1']);
  return client;
}

test('a handshake becomes a tunnel: bytes pass both ways, and it does not count as a request in flight', async () => {
  const client = await open(echoing());
  client.write('ping');
  assert.equal((await client.bytes(4)).toString(), 'ping');
  assert.equal(rig.plane.counts().requests, 0);
  const seen = up.seen.at(-1);
  assert.deepEqual([seen?.fields.get('upgrade'), seen?.fields.get('connection')], [['websocket'], ['upgrade']]);
  client.destroy();
  await eventually(() => assert.equal(up.open, 0));
});

test('bytes right behind the 101 arrive', async () => {
  const client = await open(echoing('early'));
  assert.equal((await client.bytes(5)).toString(), 'early');
  client.destroy();
});

test('bytes that the client sent behind its handshake arrive', async () => {
  const client = await open(echoing(), 'eager');
  assert.equal((await client.bytes(5)).toString(), 'eager');
  client.destroy();
});

test('half-close of the client reaches the upstream, whose last bytes still come back', async () => {
  up.script = (_seen, reply) => {
    reply.raw(SWITCH);
    reply.tunnel(() => {});
    reply.socket.removeAllListeners('end');
    reply.socket.on('end', () => setTimeout(() => reply.socket.end('bye'), 50));
  };
  const client = await rig.client();
  client.write(handshake());
  await client.response();
  client.socket.end();
  assert.equal((await client.bytes(3)).toString(), 'bye');
  await client.waitClosed();
  await eventually(() => assert.equal(rig.plane.counts().connections, 0));
});

test('half-close of the upstream reaches the client, whose bytes still go up', async () => {
  const got: Buffer[] = [];
  up.script = (_seen, reply) => {
    reply.socket.end(Buffer.from(SWITCH, 'latin1'));
    reply.tunnel((chunk) => void got.push(chunk));
  };
  const client = await rig.client();
  client.socket.allowHalfOpen = true;
  client.write(handshake());
  await client.response();
  await client.waitClosed();
  client.write('after');
  await eventually(() => assert.equal(Buffer.concat(got).toString(), 'after'));
  client.destroy();
  await eventually(() => assert.equal(up.open, 0));
});

test('a reset of either side cuts the other', async () => {
  const client = await open((_seen, reply) => {
    reply.raw(SWITCH);
    setTimeout(() => reply.reset(), 50);
  });
  await client.waitClosed();
  const other = await open(echoing());
  other.socket.resetAndDestroy();
  await eventually(() => assert.deepEqual([up.open, rig.plane.counts().connections], [0, 0]));
});

test('8 MiB echo through a client that reads late, unchanged', async () => {
  const client = await open(echoing());
  const bytes = Buffer.alloc(8 * 1024 * 1024);
  for (let i = 0; i + 4 <= bytes.length; i += 4) bytes.writeUInt32LE(Math.imul(i, 2_654_435_761) >>> 0, i);
  client.socket.pause();
  client.write(bytes);
  // All stand still while the client does not read.
  await eventually(() => assert.ok(client.socket.writableLength > 0));
  client.socket.resume();
  const back = await client.bytes(bytes.length);
  assert.ok(back.equals(bytes));
  client.destroy();
});

test('a non-101 reply is an ordinary response and the connection lives on', async () => {
  up.script = inTurn(status(403), status(404));
  const client = await rig.client();
  client.write(handshake());
  assert.equal((await client.response()).status, 403);
  client.write(request('GET', '/'));
  assert.equal((await client.response()).status, 404);
  client.destroy();
});

test('a handshake that was sent is not repeated', async () => {
  up.script = resetAtOnce;
  const response = await rig.ask(handshake('X-Request-Id: ws-once'));
  assert.equal(response.status, 502);
  assert.equal(up.executed('ws-once'), 1);
});

test('a switch to something else is a malformed response', async () => {
  up.script = (_seen, reply) => reply.raw('HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n');
  const response = await rig.ask(handshake());
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [502, ['UPSTREAM_PROTOCOL']]);
});

test('h2c and other tokens are never passed on', async () => {
  up.script = (_seen, reply) => reply.send(200, 'plain');
  await rig.ask(request('GET', '/', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'));
  const seen = up.seen.at(-1);
  assert.doesNotMatch(seen?.head ?? '', /upgrade|http2-settings/i);
});
