// The outbound policy at connect time: what is refused before a socket is made, and names that are pinned.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import type { DialRefusal, OwnListener } from '../kernel/dial.ts';
import { type ConnectPolicyDeps, connectPolicy } from './connect-policy.ts';

const server = net.createServer((socket) => socket.end());
let port = 0;

before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  port = typeof address === 'object' && address !== null ? address.port : 0;
});

after(() => server.close());

/** What became of one connect: `open`, or the code and the rule of the refusal. */
async function attempt(
  host: string,
  to: number,
  deps: Partial<ConnectPolicyDeps> = {},
): Promise<{ result: string; refused: DialRefusal[] }> {
  const refused: DialRefusal[] = [];
  const connect = connectPolicy({ own: () => [], onRefused: (rule) => refused.push(rule), ...deps });
  try {
    const socket = connect(host, to, { buffer: Buffer.alloc(64), callback: () => true });
    const result = await new Promise<string>((resolve) => {
      socket.once('connect', () => resolve(`open ${socket.remoteAddress}`));
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    socket.destroy();
    return { result, refused };
  } catch (thrown) {
    return { result: thrown instanceof Error && 'code' in thrown ? String(thrown.code) : 'thrown', refused };
  }
}

const LITERALS: readonly (readonly [string, number, DialRefusal])[] = [
  ['169.254.169.254', 80, 'linkLocal'],
  ['fe80::1', 80, 'linkLocal'],
  ['0.0.0.0', 80, 'unspecified'],
  ['::', 80, 'unspecified'],
  ['224.0.0.1', 80, 'multicast'],
  ['255.255.255.255', 80, 'broadcast'],
  ['64:ff9b::a9fe:a9fe', 80, 'linkLocal'],
  ['::ffff:127.0.0.1', 80, 'badHost'],
  ['0x7f.1', 80, 'badHost'],
  ['2130706433', 80, 'badHost'],
  ['10.0.0.1', 0, 'badPort'],
];

for (const [host, to, rule] of LITERALS) {
  test(`${host}:${to} is refused (${rule}) before a socket is made`, async () => {
    assert.deepEqual(await attempt(host, to), { result: 'DIAL_REFUSED', refused: [rule] });
  });
}

test('a literal that may be used is connected to', async () => {
  assert.deepEqual(await attempt('127.0.0.1', port), { result: 'open 127.0.0.1', refused: [] });
});

test('own listeners are asked for at each connection', async () => {
  let own: readonly OwnListener[] = [];
  const deps = { own: () => own };
  assert.equal((await attempt('127.0.0.1', port, deps)).result, 'open 127.0.0.1');
  for (const host of ['127.0.0.1', '*']) {
    own = [{ host, port }];
    assert.deepEqual(await attempt('127.0.0.1', port, deps), { result: 'DIAL_REFUSED', refused: ['ownListener'] });
  }
});

function names(...addresses: string[]): Pick<ConnectPolicyDeps, 'resolve'> {
  return {
    resolve: (_name, done) =>
      done(
        null,
        addresses.map((address) => ({ address, family: net.isIPv6(address) ? 6 : 4 })),
      ),
  };
}

test('a name that leads to loopback is refused unless it says so itself', async () => {
  assert.deepEqual(await attempt('db.example', port, names('127.0.0.1')), { result: 'DIAL_REFUSED', refused: ['loopback'] });
  assert.equal((await attempt('localhost', port, names('127.0.0.1'))).result, 'open 127.0.0.1');
  assert.equal((await attempt('db.localhost', port, names('127.0.0.1'))).result, 'open 127.0.0.1');
});

test('of several addresses the first that may be used is taken, and no other', async () => {
  const { result, refused } = await attempt('db.localhost', port, names('169.254.169.254', '127.0.0.1', '127.0.0.2'));
  assert.deepEqual([result, refused], ['open 127.0.0.1', []]);
});

test('a name none of whose addresses may be used is refused with the rule', async () => {
  assert.deepEqual(await attempt('db.example', port, names('169.254.169.254', '::1')), {
    result: 'DIAL_REFUSED',
    refused: ['loopback'],
  });
});

test('a name that leads to one of our own listeners is refused', async () => {
  const deps = { ...names('127.0.0.1'), own: () => [{ host: '127.0.0.1', port }] };
  assert.deepEqual(await attempt('self.localhost', port, deps), { result: 'DIAL_REFUSED', refused: ['ownListener'] });
});

test('a name that does not resolve fails like a failed connection', async () => {
  const resolve: ConnectPolicyDeps['resolve'] = (_name, done) => done(new Error('ENOTFOUND'), []);
  assert.deepEqual(await attempt('gone.example', port, { resolve }), { result: 'ENOTFOUND', refused: [] });
});
