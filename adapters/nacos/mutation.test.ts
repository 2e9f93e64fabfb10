// Generated payloads: whatever a server sends, nothing crashes, and what comes out keeps the model's limits. WEIR_MUTATIONS sets how
// many (5,000), WEIR_SEED where they begin.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { canonicalHost } from '../../src/kernel/address.ts';
import { isRecord, parseJson } from '../../src/kernel/decode.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { type Random, randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { MAX_METADATA_KEYS, MAX_METADATA_VALUE_BYTES } from '../../src/model/metadata.ts';
import { refusalOf } from './errors.ts';
import { type MappingOptions, mapHosts } from './mapping.ts';
import { decodeAnswer, decodeServiceInfo } from './native.ts';
import { loadWire } from './wire.ts';

const RUNS = Number(process.env['WEIR_MUTATIONS'] ?? 5_000);
const SEED = Number(process.env['WEIR_SEED'] ?? 20_260_101);

const PUSH = {
  headers: {},
  requestId: '1',
  serviceInfo: {
    name: 'web',
    groupName: 'DEFAULT_GROUP',
    clusters: '',
    cacheMillis: 10_000,
    hosts: [
      {
        instanceId: 'x',
        ip: '10.0.0.1',
        port: 80,
        weight: 1.0,
        healthy: true,
        enabled: true,
        ephemeral: true,
        clusterName: 'DEFAULT',
        serviceName: 'DEFAULT_GROUP@@web',
        metadata: { a: 'b', zone: 'z' },
      },
      {
        ip: '2001:db8::1',
        port: 81,
        weight: 0.5,
        healthy: false,
        enabled: true,
        ephemeral: false,
        clusterName: 'B',
        metadata: {},
      },
    ],
    lastRefTime: 1_700_000_000_000,
    checksum: '',
    allIps: false,
    reachProtectionThreshold: false,
    valid: true,
  },
  module: 'naming',
};
const ANSWER = { resultCode: 200, errorCode: 0, message: 'success', success: true };
const ODD: readonly unknown[] = [
  null,
  undefined,
  true,
  -1,
  0,
  1e308,
  Number.NaN,
  70_000,
  '',
  '0.0.0.0',
  '\u0000',
  '::ffff:10.0.0.1',
  '__proto__',
  'x'.repeat(3_000),
  [],
  {},
  [[[]]],
  { constructor: { prototype: 1 } },
  JSON.parse('{"__proto__":{"polluted":true}}'),
  '\ud800',
  '１２７.0.0.1',
  '127.1',
  'DEFAULT_GROUP@@x',
];

const options: MappingOptions = {
  clusters: null,
  clusterAsZone: true,
  normalWeight: 1,
  writeCluster: 'DEFAULT',
  isolate: 'weight',
  dial: dialPolicy({ allowLoopback: false, allowNames: true, cidrs: [], ports: [] }, () => []),
  count: () => {},
};

/** A copy in which some values are replaced, removed, doubled or renamed. */
function mutated(value: unknown, random: Random, depth = 0): unknown {
  if (random() < 0.04) return ODD[randomBelow(random, ODD.length)];
  if (Array.isArray(value)) {
    const items = value.map((item) => mutated(item, random, depth + 1));
    if (random() < 0.1) items.push(mutated(items[0] ?? 1, random, depth + 1));
    return items;
  }
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => {
      if (random() < 0.03) return [];
      return [[random() < 0.02 ? '__proto__' : key, mutated(inner, random, depth + 1)]];
    }),
  );
}

function garbled(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes);
  for (let n = randomBelow(random, 4); n >= 0; n--) copy[randomBelow(random, copy.length)] = randomBelow(random, 256);
  return random() < 0.3 ? copy.subarray(0, randomBelow(random, copy.length)) : copy;
}

function check(json: unknown): void {
  const info = decodeServiceInfo(isRecord(json) ? json['serviceInfo'] : json);
  if (info === null) return;
  const { instances, rejected } = mapHosts(info.hosts, info.protected ? 'protected' : 'believed', options);
  assert.ok(instances.length + rejected.length <= info.hosts.length);
  for (const { host, port, weight, metadata, id } of instances) {
    assert.equal(canonicalHost(host), host);
    assert.ok(
      Number.isInteger(port) && port >= 1 && port <= 65_535 && Number.isInteger(weight) && weight >= 0 && weight <= 65_535,
    );
    assert.ok(
      metadata.size <= MAX_METADATA_KEYS &&
        [...metadata.values()].every((text) => Buffer.byteLength(text) <= MAX_METADATA_VALUE_BYTES),
    );
    assert.ok(!/[\u0000-\u001f]/.test(id));
  }
}

const wire = await loadWire();

describe('generated payloads', () => {
  it(`${RUNS} mutations of pushes, answers and frames crash nothing`, { timeout: 3_600_000 }, () => {
    const random = seededRandom(SEED);
    const frame = wire.encode('NotifySubscriberRequest', PUSH, { accessToken: 'x' });
    for (let run = 0; run < RUNS; run++) {
      check(mutated(PUSH, random));
      const answer = decodeAnswer('X', mutated(ANSWER, random));
      if (answer !== null && !answer.ok) assert.ok(refusalOf('here', 'X', answer).message.length < 1_000);
      const decoded = wire.decode(garbled(frame, random));
      if (decoded === null) continue;
      const parsed = parseJson(decoded.body, { maxBytes: 1_000_000 });
      if (parsed.ok) check(parsed.value);
    }
    assert.equal(Object.hasOwn(Object.prototype, 'polluted'), false);
  });

  it('nesting, invalid UTF-8 and too many hosts are refused as a whole', () => {
    assert.equal(parseJson('['.repeat(1_000_000), { maxBytes: 10_000_000 }).ok, false);
    assert.equal(decodeServiceInfo({ name: 'x', hosts: new Array(20_001).fill({}) }), null);
    assert.equal(decodeServiceInfo({ name: 'x', hosts: null }), null);
    assert.equal(decodeServiceInfo({ name: 'x' }), null);
    assert.equal(wire.decode(Buffer.from([0xff, 0xff, 0xff])), null);
  });
});
