// Tables of the mapping, both ways.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { dialPolicy } from '../../src/kernel/dial.ts';
import type { Instance } from '../../src/model/instance.ts';
import { sampleInstance } from '../../test/conformance/adapter.ts';
import { healthCheck, instanceOf, instancesOf, listOf, nativeOf, rewritable } from './mapping.ts';
import { codec, type NativeInstance } from './protocol.ts';
import { TEST_MAPPING } from './test-support.ts';

const KEY = { namespace: 'default', name: 'demo' };
const GOOD: NativeInstance = {
  id: { value: 'i1' },
  host: { value: '10.0.0.1' },
  port: { value: 80 },
  healthy: { value: true },
  isolate: {},
};

function read(fields: Partial<NativeInstance>): Instance {
  const made = instanceOf({ ...GOOD, ...fields }, TEST_MAPPING);
  return typeof made === 'string' ? assert.fail(made) : made;
}

function refusal(fields: Partial<NativeInstance>): string {
  const made = instanceOf({ ...GOOD, ...fields }, TEST_MAPPING);
  return typeof made === 'string' ? made : assert.fail('was taken');
}

describe('polaris mapping, reading', () => {
  it('health, isolation and weight are read with the difference of absent and zero', () => {
    assert.equal(read({}).health, 'healthy');
    assert.equal(read({ healthy: {} }).health, 'unhealthy');
    const { healthy: _, ...silent } = GOOD;
    const made = instanceOf(silent, TEST_MAPPING);
    assert.ok(typeof made !== 'string' && made.health === 'unknown');
    assert.equal(read({ isolate: { value: true } }).isolated, true);
    assert.equal(read({}).isolated, false);
    assert.equal(read({}).weight, 100);
    assert.equal(read({ weight: {} }).weight, 0);
    assert.equal(read({ weight: { value: 70_000 } }).weight, 65_535);
  });

  it('isolated and unhealthy are two facts: one does not hide the other', () => {
    const both = read({ isolate: { value: true }, healthy: {} });
    assert.deepEqual([both.isolated, both.health], [true, 'unhealthy']);
  });

  it('the keys that the server adds to the metadata are left out, other values of the same keys stay', () => {
    const location = { region: { value: 'south' }, zone: { value: 'a' }, campus: {} };
    const metadata = [
      { key: 'region', value: 'south' },
      { key: 'zone', value: 'mine' },
      { key: 'campus', value: '' },
      { key: 'version', value: '1' },
      { key: 'protocol', value: 'grpc' },
      { key: 'env', value: 'prod' },
    ];
    const one = read({ location, metadata, version: { value: '1' }, protocol: { value: 'http' } });
    assert.deepEqual(
      [...one.metadata],
      [
        ['zone', 'mine'],
        ['protocol', 'grpc'],
        ['env', 'prod'],
      ],
    );
    assert.deepEqual(one.locality, { region: 'south', zone: 'a' });
    assert.deepEqual([one.version, one.protocol], ['1', 'http']);
  });

  it('metadata that the server keeps for itself can be read', () => {
    assert.equal(read({ metadata: [{ key: 'internal-lastheartbeat', value: '0' }] }).metadata.get('internal-lastheartbeat'), '0');
  });

  it('what is no address, no id or no port is refused with a reason', () => {
    for (const [fields, reason] of [
      [{ id: {} }, /id/],
      [{ id: { value: 'bad \ufffd' } }, /id/],
      [{ host: {} }, /host/],
      [{ host: { value: '0x7f.1' } }, /host/],
      [{ host: { value: '0.0.0.0' } }, /no addresses/],
      [{ host: { value: 'name.example' } }, /names are not allowed/],
      [{ port: {} }, /port/],
      [{ port: { value: 65_536 } }, /port/],
    ] as const) {
      assert.match(refusal(fields), reason);
    }
  });

  it('the policy of the source judges loopback addresses', () => {
    const dial = dialPolicy({ allowLoopback: false, allowNames: true, cidrs: [], ports: [] }, () => []);
    assert.match(String(instanceOf({ ...GOOD, host: { value: '127.0.0.1' } }, { ...TEST_MAPPING, dial })), /loopback/);
    const named = instanceOf({ ...GOOD, host: { value: 'Name.Example.' } }, { ...TEST_MAPPING, dial });
    assert.ok(typeof named !== 'string' && named.host === 'name.example');
  });

  it('a list is sorted by id, whatever its order; an id that stands twice is told', () => {
    const natives = ['c', 'a', 'b', 'a'].map((id) => ({ ...GOOD, id: { value: id } }));
    const { instances, rejected } = instancesOf({ instances: natives }, TEST_MAPPING);
    assert.deepEqual(
      instances.map(({ id }) => id),
      ['a', 'b', 'c'],
    );
    assert.equal(rejected.length, 1);
  });

  it('a list of names leaves out what breaks our limits, and the system namespace unless it was asked for', () => {
    const bad = new Map<string, number>();
    const count = (what: string): void => void bad.set(what, (bad.get(what) ?? 0) + 1);
    const service = (namespace: string, name: string) => ({ namespace: { value: namespace }, name: { value: name } });
    const services = [
      service('default', 'a'),
      service('Polaris', 'polaris.checker'),
      service('x/y', 'b'),
      service('default', ''),
    ];
    assert.deepEqual(listOf({ services }, '', count).keys, [{ namespace: 'default', name: 'a' }]);
    assert.equal(bad.get('services.badName'), 2);
    assert.equal(listOf({ services: services.slice(1, 2) }, 'Polaris', count).keys.length, 1);
  });
});

describe('polaris mapping, writing', () => {
  it('what is written reads back as it was', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 65_535 }),
        fc.constantFrom('healthy', 'unhealthy'),
        fc.boolean(),
        fc.dictionary(fc.stringMatching(/^[a-z]{3,9}$/), fc.stringMatching(/^[ -~äö大]{0,20}$/), { maxKeys: 20 }),
        (weight, health, isolated, metadata) => {
          const instance = sampleInstance(1, {
            weight,
            health,
            isolated,
            protocol: 'grpc',
            version: '1.2',
            locality: { zone: 'a' },
            metadata: new Map(Object.entries(metadata)),
          });
          const native = nativeOf(KEY, instance, { ttl: 5, sendIsolate: true }, TEST_MAPPING);
          assert.ok(typeof native !== 'string');
          const { encodeRequest, decodeRequest } = codec('RegisterInstance');
          const back = instanceOf({ ...decodeRequest(encodeRequest(native)), id: { value: 'x' } }, TEST_MAPPING);
          assert.deepEqual(back, { ...instance, id: 'x' });
        },
      ),
    );
  });

  it('an operator keeps the last word on isolation: without our own flag nothing is sent', () => {
    const native = nativeOf(KEY, sampleInstance(1), { ttl: 5, sendIsolate: false }, TEST_MAPPING);
    assert.ok(typeof native !== 'string' && native.isolate === undefined);
  });

  it('reserved keys are never written', () => {
    const instance = sampleInstance(1, { metadata: new Map([['internal-nacos-cluster', 'c']]) });
    const native = nativeOf(KEY, instance, { ttl: 5, sendIsolate: false }, TEST_MAPPING);
    assert.ok(typeof native !== 'string' && native.metadata?.length === 0);
  });

  it('what Polaris would refuse is refused here, in words', () => {
    const long = 'x'.repeat(4_097);
    for (const [key, instance, reason] of [
      [{ namespace: 'a b', name: 'x' }, sampleInstance(1), /namespace a b does not fit/],
      [{ namespace: 'a'.repeat(65), name: 'x' }, sampleInstance(1), /at most 64/],
      [{ namespace: 'a', name: 'größe' }, sampleInstance(1), /service name/],
      [KEY, sampleInstance(1, { protocol: 'p'.repeat(33) }), /protocol/],
      [KEY, sampleInstance(1, { version: 'p'.repeat(33) }), /version/],
      [KEY, sampleInstance(1, { transport: 'udp' }), /TCP/],
      [KEY, sampleInstance(1, { metadata: new Map([['k', long]]) }), /metadata key k/],
      [KEY, sampleInstance(1, { metadata: new Map(Array.from({ length: 65 }, (_, n) => [`k${n}`, ''])) }), /at most 64 keys/],
    ] as const) {
      assert.match(String(nativeOf(key, instance, { ttl: 5, sendIsolate: false }, TEST_MAPPING)), reason);
    }
  });

  it('the normal weight of the source scales weights both ways', () => {
    const tens = { ...TEST_MAPPING, normalWeight: 10 };
    const native = nativeOf(KEY, sampleInstance(1, { weight: 250 }), { ttl: null, sendIsolate: false }, tens);
    assert.ok(typeof native !== 'string');
    assert.equal(native.weight?.value, 25);
    const back = instanceOf({ ...native, id: { value: 'x' } }, tens);
    assert.ok(typeof back !== 'string' && back.weight === 250);
  });

  it('a health check is on with a heartbeat and off without', () => {
    assert.deepEqual(healthCheck(null), { enableHealthCheck: { value: false } });
    assert.deepEqual(healthCheck(7).healthCheck, { type: 1, heartbeat: { ttl: { value: 7 } } });
  });

  it('a record that is written again carries neither what the server added nor what it reserves', () => {
    const metadata = [
      { key: 'version', value: '1' },
      { key: 'internal-lastheartbeat', value: '5' },
      { key: 'own', value: 'x' },
    ];
    const again = rewritable({ ...GOOD, version: { value: '1' }, revision: { value: 'r' }, metadata });
    assert.deepEqual(again.metadata, [{ key: 'own', value: 'x' }]);
    assert.equal('revision' in again, false);
  });
});
