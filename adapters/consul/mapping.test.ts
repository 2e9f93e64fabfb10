// Tables of the mapping, both ways, and a fuzzer: no payload may crash it, and none may make an instance that breaks the model.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import type { Instance } from '../../src/model/instance.ts';
import { sampleInstance } from '../../test/conformance/adapter.ts';
import { foldChecks, type MappedList, type MappingOptions, mapList } from './mapping.ts';
import { decodeKeys, decodeNames, decodeNodeServices, decodeSelf, decodeTxnErrors, type NativeCheck } from './native.ts';
import { escapeKey, nativeFields, statusOf, unescapeKey } from './native-fields.ts';

const counts = new Map<string, number>();
const OPTIONS: MappingOptions = {
  normalWeight: 1,
  taggedAddress: null,
  tagFields: false,
  kinds: new Set(),
  dial: dialPolicy({ allowLoopback: false, allowNames: false, cidrs: [], ports: [] }, () => []),
  count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
};

function check(status: string, checkId = 'service:web1', output = ''): NativeCheck {
  return { node: 'n1', checkId, status, notes: '', output, serviceId: 'web1', serviceName: 'web', modifyIndex: '1' };
}

function entry(service: object = {}, more: object = {}): Record<string, unknown> {
  return {
    Node: { Node: 'n1', Address: '10.0.0.9', Datacenter: '' },
    Service: {
      ID: 'web1',
      Service: 'web',
      Address: '',
      Port: 80,
      Weights: { Passing: 10, Warning: 1 },
      Tags: null,
      Meta: null,
      ...service,
    },
    Checks: [],
    ...more,
  };
}

function mapped(body: unknown, options: Partial<MappingOptions> = {}): MappedList {
  return mapList(body, 'web', { ...OPTIONS, ...options }) ?? assert.fail('no list');
}

function only(service: object = {}, more: object = {}, options: Partial<MappingOptions> = {}): Instance {
  const { instances, rejected } = mapped([entry(service, more)], options);
  assert.deepEqual(rejected, []);
  return instances[0] ?? assert.fail('no instance');
}

describe('health of an instance', () => {
  for (const [name, checks, state, maintenance] of [
    ['no check is passing', [], 'passing', false],
    ['the worst counts', [check('passing'), check('warning')], 'warning', false],
    ['node checks count', [check('critical', 'serfHealth'), check('passing')], 'critical', false],
    ['text that is no status is critical', [check('passing'), check('weird')], 'critical', false],
    ['service maintenance', [check('passing'), check('critical', '_service_maintenance:web1')], 'passing', true],
    ['node maintenance', [check('critical', '_node_maintenance'), check('critical')], 'critical', true],
    ["another's maintenance is a failure like any other", [check('critical', '_service_maintenance:web2')], 'critical', false],
    ['an isolated copy', [check('critical', 'weir:web1', 'isolated')], 'passing', true],
  ] as const) {
    it(name, () => assert.deepEqual(foldChecks(checks, 'web1'), { state, maintenance }));
  }

  it('a warning takes the warning weight and stays healthy', () => {
    const instance = only({}, { Checks: [{ ...{ CheckID: 'c', Status: 'warning' } }] });
    assert.deepEqual([instance.health, instance.weight], ['healthy', 100]);
  });

  it('what is no check cannot vouch for anybody', () => {
    assert.equal(only({}, { Checks: [7] }).health, 'unhealthy');
  });
});

describe('an instance of Consul', () => {
  it('is named by node and id, takes the address of the node and ten times the normal weight', () => {
    assert.deepEqual(only(), {
      ...sampleInstance(0),
      id: 'n1/web1',
      host: '10.0.0.9',
      port: 80,
      weight: 1_000,
      metadata: new Map(),
    });
  });

  it('keeps tags, datacenter, version, protocol and place', () => {
    const meta = { zone: 'a', protocol: 'grpc', plain: 'x' };
    const instance = only(
      { Tags: ['v1', 'version=2.0'], Meta: meta },
      { Node: { Node: 'n1', Address: '10.0.0.9', Datacenter: 'dc1' } },
    );
    assert.deepEqual([instance.version, instance.protocol, instance.locality], ['2.0', 'grpc', { zone: 'a' }]);
    assert.deepEqual([...instance.metadata].sort(), [
      ['consul.dc', 'dc1'],
      ['consul.tags', 'v1,version=2.0'],
      ['plain', 'x'],
    ]);
  });

  it('splits tags into fields only when told to', () => {
    assert.equal(only({ Tags: ['color=red'] }).metadata.get('color'), undefined);
    assert.equal(only({ Tags: ['color=red'] }, {}, { tagFields: true }).metadata.get('color'), 'red');
  });

  it('listens at its tagged address when that is wanted', () => {
    const wan = { TaggedAddresses: { wan: { address: '203.0.113.9', port: 8080 } } };
    assert.deepEqual([only(wan).host, only(wan, {}, { taggedAddress: 'wan' }).host], ['10.0.0.9', '203.0.113.9']);
    assert.equal(only(wan, {}, { taggedAddress: 'wan' }).port, 8_080);
  });

  it('is one per scheme where URLs stand in its tagged addresses', () => {
    const tagged = {
      grpc: { Address: 'grpc://10.0.0.7:9000', Port: 9000 },
      http: { Address: 'http://10.0.0.7:8000', Port: 8000 },
    };
    const { instances } = mapped([entry({ TaggedAddresses: tagged })]);
    assert.deepEqual(
      instances.map(({ id, port, protocol }) => [id, port, protocol]),
      [
        ['n1/web1#grpc', 9_000, 'grpc'],
        ['n1/web1#http', 8_000, 'http'],
      ],
    );
  });

  it('is refused alone for a bad port, address, socket or weight', () => {
    const bad = [
      { Port: 0 },
      { Port: 70_000 },
      { Port: '80' },
      { Address: '0.0.0.0' },
      { Address: '127.0.0.1' },
      { SocketPath: '/s' },
      { Weights: { Passing: -1 } },
    ];
    for (const service of bad) {
      const { instances, rejected } = mapped([entry(service), entry({ ID: 'good' })]);
      assert.deepEqual([instances.length, rejected.length], [1, 1], JSON.stringify(service));
    }
  });

  it('is not shown when it is a proxy, or has the name in other letters', () => {
    assert.equal(mapped([entry({ Kind: 'connect-proxy' })]).instances.length, 0);
    assert.equal(mapped([entry({ Kind: 'connect-proxy' })], { kinds: new Set(['connect-proxy']) }).instances.length, 1);
    assert.equal(mapped([entry({ Service: 'WEB' })]).instances.length, 0);
  });

  it('the last of two with one id wins, and the order of the list makes no difference to the digest', () => {
    assert.deepEqual(
      mapped([entry(), entry({ Port: 81 })]).instances.map(({ port }) => port),
      [81],
    );
    const [a, b] = [entry(), entry({ ID: 'web2', Port: 81 })];
    assert.equal(mapped([a, b]).digest, mapped([b, a]).digest);
    assert.notEqual(mapped([a, b]).digest, mapped([a]).digest);
  });
});

describe('an instance of ours in Consul', () => {
  it('writes both weights, from 1 on', () => {
    for (const [weight, native] of [
      [1, 1],
      [100, 1],
      [250, 3],
      [1_000, 10],
      [65_535, 655],
      [0, 1],
    ] as const) {
      const fields = nativeFields(sampleInstance(1, { weight }), 1, () => {});
      assert.deepEqual(fields.weights, { Passing: native, Warning: native });
      assert.equal(fields.silent, weight === 0);
    }
    assert.equal(nativeFields(sampleInstance(1, { weight: 250 }), 100, () => {}).weights.Passing, 250);
  });

  it('counts what Consul cannot hold', () => {
    let lost = 0;
    const metadata = new Map([
      ['long', 'x'.repeat(600)],
      ['k'.repeat(129), 'v'],
      ...Array.from({ length: 70 }, (_, n) => [`k${n}`, 'v'] as const),
    ]);
    const { meta } = nativeFields(sampleInstance(1, { metadata }), 1, (_what, by = 1) => {
      lost += by;
    });
    assert.equal(Object.keys(meta).length, 64);
    assert.equal(lost, 72 - 64);
  });

  it('gives back the tags and leaves out what only reading shows', () => {
    const metadata = new Map([
      ['consul.tags', 'a,b'],
      ['consul.dc', 'dc1'],
      ['x', 'y'],
    ]);
    const fields = nativeFields(sampleInstance(1, { metadata }), 1, () => {});
    assert.deepEqual([fields.tags, fields.meta], [['a', 'b'], { x: 'y' }]);
  });

  it('says unknown by a warning', () => {
    assert.deepEqual([statusOf('healthy'), statusOf('unhealthy'), statusOf('unknown')], ['passing', 'critical', 'warning']);
  });

  it('escapes keys so that they come back', () => {
    assert.equal(escapeKey('preserved.register.source'), 'preserved_x2e_register_x2e_source');
    assert.equal(escapeKey('consul-x'), '_x63_onsul-x');
    fc.assert(
      fc.property(
        fc
          .string({ unit: 'grapheme', minLength: 1 })
          .filter((text) => !/[\u0000-\u001f\ufffd]/.test(text) && text.isWellFormed()),
        (key) => {
          assert.match(escapeKey(key), /^[a-zA-Z0-9_-]+$/);
          assert.equal(unescapeKey(escapeKey(key)), key);
        },
      ),
    );
    for (const key of ['_x2e_', '__x2e_', '_x5f_x2e_', 'größe']) assert.equal(unescapeKey(escapeKey(key)), key);
  });

  it('foreign keys that look escaped are left alone', () => {
    assert.equal(only({ Meta: { a_x2e_b: '1' } }).metadata.get('a_x2e_b'), '1');
    assert.equal(only({ Meta: { a_x2e_b: '1', 'weir-origin': 's' } }).metadata.get('a.b'), '1');
  });
});

describe('what anybody may have written', () => {
  const MUTATIONS = Number(process.env['WEIR_MUTATIONS'] ?? 5_000);

  it(`${MUTATIONS} generated payloads crash nothing and make no instance outside of the model`, () => {
    const random = seededRandom(20_260_101);
    const words = [
      '',
      'passing',
      'critical',
      '_node_maintenance',
      '0.0.0.0',
      '::1',
      '10.0.0.1',
      'grpc://10.0.0.1:1',
      '\u0000',
      '__proto__',
      'x'.repeat(2_000),
      'größe',
    ];
    const pick = (from: readonly unknown[]): unknown => from[Math.floor(random() * from.length)];
    const scalar = (): unknown => pick([null, true, 0, -1, 1.5, 80, 65_536, 1e308, Number.MAX_SAFE_INTEGER, ...words]);
    const junk = (depth: number): unknown => {
      const kind = random();
      if (depth <= 0 || kind < 0.5) return scalar();
      if (kind < 0.7) return Array.from({ length: Math.floor(random() * 4) }, () => junk(depth - 1));
      return Object.fromEntries(
        Array.from({ length: Math.floor(random() * 4) }, () => [String(pick([...words, 'ID', 'Address'])), junk(depth - 1)]),
      );
    };
    const mutate = (value: unknown, depth: number): unknown => {
      if (random() < 0.06) return junk(3);
      if (Array.isArray(value)) return value.map((one) => mutate(one, depth + 1));
      if (typeof value !== 'object' || value === null) return random() < 0.1 ? scalar() : value;
      return Object.fromEntries(
        Object.entries(value)
          .filter(() => random() > 0.04)
          .map(([name, one]) => [name, mutate(one, depth + 1)]),
      );
    };
    const good = entry(
      {
        Meta: { a: 'b', 'weir-origin': 's', a_x2e_b: 'c' },
        Tags: ['v=1'],
        TaggedAddresses: { wan: { Address: '10.0.0.1', Port: 1 } },
      },
      { Checks: [{ Node: 'n1', CheckID: 'c', Status: 'passing', ServiceID: 'web1', ServiceName: 'web', ModifyIndex: 4 }] },
    );
    for (let n = 0; n < MUTATIONS; n++) {
      const body = mutate([good, good], 0);
      const list = mapList(body, 'web', { ...OPTIONS, tagFields: n % 2 === 0, taggedAddress: n % 3 === 0 ? 'wan' : null });
      for (const instance of list?.instances ?? []) {
        assert.ok(Number.isInteger(instance.port) && instance.port >= 1 && instance.port <= 65_535);
        assert.ok(Number.isInteger(instance.weight) && instance.weight >= 0 && instance.weight <= 65_535);
        assert.equal(OPTIONS.dial(instance.host, instance.port), null);
        assert.ok(instance.metadata.size <= 64);
      }
      decodeNames(body);
      decodeKeys(body);
      decodeNodeServices(mutate({ Node: { Node: 'n' }, Services: [good['Service']] }, 0));
      decodeSelf(mutate({ Config: { NodeName: 'n', Datacenter: 'd' } }, 0));
      decodeTxnErrors(mutate({ Errors: [{ OpIndex: 0, What: 'x' }] }, 0));
    }
    assert.equal(Object.hasOwn(Object.prototype, 'ID'), false);
  });
});
