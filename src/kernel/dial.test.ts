import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DialRules, dialPolicy, REFUSAL_TEXT } from './dial.ts';

const PLAIN: DialRules = { allowLoopback: false, allowNames: false, cidrs: [], ports: [] };
const OWN = [
  { host: '127.0.0.1', port: 7980 },
  { host: '*', port: 7900 },
  { host: '10.0.0.9', port: 9101 },
];

function judge(rules: Partial<DialRules> = {}): (host: string, port: number) => string | null {
  return dialPolicy({ ...PLAIN, ...rules }, () => OWN);
}

test('what a registry may not make us connect to is refused by default', () => {
  const table: readonly (readonly [string, number, string | null])[] = [
    ['10.0.0.1', 80, null],
    ['10.0.0.1', 0, 'badPort'],
    ['10.0.0.1', 65_536, 'badPort'],
    ['10.0.0.1', 1.5, 'badPort'],
    ['10.0.0.1', Number.NaN, 'badPort'],
    ['127.0.0.1', 80, 'loopback'],
    ['::1', 80, 'loopback'],
    ['0.0.0.0', 80, 'unspecified'],
    ['169.254.169.254', 80, 'linkLocal'],
    ['fe80::1', 80, 'linkLocal'],
    ['224.0.0.1', 80, 'multicast'],
    ['255.255.255.255', 80, 'broadcast'],
    ['::ffff:127.0.0.1', 80, 'badHost'],
    ['127.1', 80, 'badHost'],
    ['example.com', 80, 'nameNotAllowed'],
    ['10.0.0.9', 9101, 'ownListener'],
  ];
  for (const [host, port, expected] of table) assert.equal(judge()(host, port), expected, `${host}:${port}`);
});

test('own listeners are refused even where loopback is allowed', () => {
  const local = judge({ allowLoopback: true });
  assert.equal(local('127.0.0.1', 9001), null);
  assert.equal(local('127.0.0.1', 7980), 'ownListener');
  assert.equal(local('127.0.0.1', 7900), 'ownListener');
  assert.equal(local('10.0.0.1', 7900), null);
});

test('cidrs and ports narrow what is allowed, names pass where they are allowed', () => {
  const narrow = judge({ cidrs: ['10.0.0.0/8', '2001:db8::/32'], ports: [80, 443], allowNames: true });
  assert.equal(narrow('10.1.1.1', 80), null);
  assert.equal(narrow('2001:db8::5', 443), null);
  assert.equal(narrow('192.168.0.1', 80), 'notInCidrs');
  assert.equal(narrow('10.1.1.1', 81), 'portDenied');
  assert.equal(narrow('example.com', 80), null);
  assert.throws(() => dialPolicy({ ...PLAIN, cidrs: ['nonsense'] }, () => []), RangeError);
});

test('every refusal has words for a person', () => {
  for (const text of Object.values(REFUSAL_TEXT)) assert.ok(text.length > 20);
});
