import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addressClass, canonicalHost, hostPort, parseCidr, splitHostPort } from './address.ts';

const CANONICAL: readonly (readonly [string, string | null])[] = [
  ['10.0.0.1', '10.0.0.1'],
  ['010.0.0.1', null],
  ['0x7f.0.0.1', null],
  ['127.1', null],
  ['2130706433', null],
  ['0x7f000001', null],
  ['1.2.3.4.', null],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['::FFFF:0a00:0001', '10.0.0.1'],
  ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['2001:db8::0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
  ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:7:0'],
  ['::', '::'],
  ['[::1]', '::1'],
  ['fe80::1%eth0', null],
  ['[::1', null],
  ['Node-1.', 'node-1'],
  ['node-1', 'node-1'],
  ['a_b.example.COM', 'a_b.example.com'],
  ['a..b', null],
  ['-a', null],
  ['a b', null],
  ['a%2eb', null],
  ['', null],
  ['a@b', null],
  ['x'.repeat(256), null],
  ['example.0x10', null],
];

test('hosts have one spelling, and odd spellings of addresses are refused', () => {
  for (const [text, expected] of CANONICAL) assert.equal(canonicalHost(text), expected, text);
});

test('canonical text is a fixed point', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()), (text) => {
      const once = canonicalHost(text);
      if (once !== null) assert.equal(canonicalHost(once), once);
    }),
  );
});

test('addresses fall into the classes of the outbound policy', () => {
  const table: readonly (readonly [string, string])[] = [
    ['10.1.2.3', 'public'],
    ['8.8.8.8', 'public'],
    ['127.0.0.1', 'loopback'],
    ['127.255.255.254', 'loopback'],
    ['0.0.0.0', 'unspecified'],
    ['0.1.2.3', 'unspecified'],
    ['169.254.169.254', 'linkLocal'],
    ['224.0.0.1', 'multicast'],
    ['239.255.255.255', 'multicast'],
    ['255.255.255.255', 'broadcast'],
    ['::', 'unspecified'],
    ['::1', 'loopback'],
    ['fe80::1', 'linkLocal'],
    ['febf::1', 'linkLocal'],
    ['ff02::1', 'multicast'],
    ['2001:db8::1', 'public'],
    ['::7f00:1', 'loopback'],
    ['64:ff9b::a9fe:a9fe', 'linkLocal'],
    ['2002:7f00:1::', 'loopback'],
  ];
  for (const [ip, expected] of table) assert.equal(addressClass(ip), expected, ip);
  assert.throws(() => addressClass('example.com'), RangeError);
});

test('host:port splits only when both parts are sound', () => {
  assert.deepEqual(splitHostPort('10.0.0.1:80'), { host: '10.0.0.1', port: 80 });
  assert.deepEqual(splitHostPort('[2001:db8::1]:443'), { host: '2001:db8::1', port: 443 });
  assert.deepEqual(splitHostPort('fd00::5:8888', true), { host: 'fd00::5', port: 8888 });
  for (const bad of [
    '10.0.0.1',
    ':80',
    '10.0.0.1:0',
    '10.0.0.1:65536',
    '10.0.0.1:080',
    '10.0.0.1:8a',
    'fd00::5:8888',
    'a:b:80',
  ]) {
    assert.equal(splitHostPort(bad), null, bad);
  }
  assert.equal(hostPort('::1', 80), '[::1]:80');
  assert.equal(hostPort('a', 80), 'a:80');
});

test('CIDR blocks match by bits within their family', () => {
  const ten = parseCidr('10.0.0.0/8');
  assert.ok(ten?.('10.255.0.1'));
  assert.ok(!ten?.('11.0.0.1'));
  assert.ok(!ten?.('::a00:1'));
  assert.ok(parseCidr('2001:db8::/32')?.('2001:db8:ffff::1'));
  assert.ok(parseCidr('0.0.0.0/0')?.('1.2.3.4'));
  assert.ok(parseCidr('192.168.1.1')?.('192.168.1.1'));
  for (const bad of ['10.0.0.0/33', '10.0.0.0/x', 'name/8', '10.0.0/8', '/8']) assert.equal(parseCidr(bad), null, bad);
});
