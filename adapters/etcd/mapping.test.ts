// Keys and values → instances and back: the vectors of the protocol notes (section 11), limits, and a seeded flood of broken input.
// WEIR_MUTATIONS sets how many broken payloads (5,000), WEIR_SEED the seed.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { type Instance, NO_METADATA } from '../../src/model/instance.ts';
import { instance } from '../../test/support/etcd-bench.ts';
import { customLayout } from './layouts/custom.ts';
import type { Layout } from './layouts/layout.ts';
import { LAYOUTS } from './layouts/table.ts';
import { type KeyRecord, keyOfId, type MappingOptions, recordOf, writeForm } from './mapping.ts';
import { combined, mergeKeys } from './merge.ts';
import type { KeyValue } from './protocol.ts';

const custom = customLayout({
  key: '{namespace}/{service}/nodes/{id}',
  value: 'json',
  lease: true,
  normalWeight: 10,
  pointers: { host: '/net/host', port: '/net/port', weight: '/w', metadata: '/meta', version: '/v' },
});
assert.ok(typeof custom !== 'string');
const plain = customLayout({ key: '{service}/{id}', value: 'plain', lease: false, normalWeight: 1, pointers: {} });
assert.ok(typeof plain !== 'string');
const ALL = new Map<string, Layout>([...LAYOUTS, ['custom', custom], ['plain', plain]]);

const NO_PREFIX = new Map([
  ['custom', '/c/'],
  ['rpcx', 'rpcx_base/'],
]);

function options(name: string, fields: Partial<MappingOptions> = {}): MappingOptions {
  const layout = ALL.get(name) ?? assert.fail(name);
  const dial = dialPolicy({ allowLoopback: false, allowNames: false, cidrs: [], ports: [] }, () => []);
  const prefix = layout.prefix === '' ? (NO_PREFIX.get(layout.name) ?? '') : layout.prefix;
  return { layout, prefix, namespace: 'default', normalWeight: layout.normalWeight ?? 100, dial, count: () => {}, ...fields };
}

function kv(key: string, value: string | Uint8Array, lease = '0'): KeyValue {
  return { key: Buffer.from(key), createRevision: '2', modRevision: '3', version: '1', value: Buffer.from(value), lease };
}

function read(name: string, key: string, value: string | Uint8Array, lease = '0'): KeyRecord {
  return recordOf(key, kv(key, value, lease), null, options(name));
}

/** What the service of a record shows when this is its only key. */
function alone(layout: string, key: string, record: KeyRecord): readonly Instance[] {
  if (record.service === null) return [];
  return mergeKeys(combined(record.service, [{ key, record, modRevision: 3n }], options(layout))).instances;
}

/** `service id host:port wN protocol version k=v…` of each instance. */
function told({ service, instances }: Pick<KeyRecord, 'service' | 'instances'>): string[] {
  return instances.map(({ id, host, port, weight, protocol, version, metadata }) =>
    [
      service?.name,
      id,
      host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`,
      `w${weight}`,
      ...(protocol === undefined ? [] : [protocol]),
      ...(version === undefined ? [] : [version]),
      ...[...metadata].map(([key, value]) => `${key}=${value}`).sort(),
    ].join(' '),
  );
}

const VECTORS: readonly (readonly [layout: string, key: string, value: string, want: readonly string[] | 'skip' | 'bad'])[] = [
  [
    'grpc',
    '/services/demo.Hello/10.0.0.1:9000',
    '{"Op":0,"Addr":"10.0.0.1:9000","Metadata":{"weight":50}}',
    ['demo.Hello 10.0.0.1:9000 10.0.0.1:9000 w50'],
  ],
  ['grpc', '/services/demo.Hello/x', '{"Op":1,"Addr":"10.0.0.14:9000","Metadata":null}', ['demo.Hello x 10.0.0.14:9000 w100']],
  ['grpc', '/services/demo.Hello/x', '{"Op":0,"Metadata":null}', 'bad'],
  ['grpc', '/services/demo.Hello', '{}', 'skip'],
  [
    'grpc',
    '/services/s/x',
    '{"Addr":"10.0.0.1:1","Metadata":{"n":{"a":[1]},"t":true}}',
    ['s x 10.0.0.1:1 w100 n={"a":[1]} t=true'],
  ],
  ['grpc', '/services/s/x', '{"Addr":"[2001:DB8::1]:1"}', ['s x [2001:db8::1]:1 w100']],
  ['go-zero', 'user.rpc/7587848943239472652', '10.0.0.2:8080', ['user.rpc 7587848943239472652 10.0.0.2:8080 w100']],
  ['go-zero', 'a/b/7', '10.0.0.2:8080\n', ['a/b 7 10.0.0.2:8080 w100']],
  ['go-zero', 'user.rpc/name', '10.0.0.2:8080', 'skip'],
  ['go-zero', 'user.rpc/7', '10.0.0.2', 'bad'],
  [
    'kratos',
    '/microservices/hello/i1',
    '{"id":"i1","name":"hello","version":"v1","metadata":{"zone":"a"},"endpoints":["grpc://10.0.0.3:9000?isSecure=false","http://10.0.0.3:8000"]}',
    ['hello i1#grpc 10.0.0.3:9000 w100 grpc v1', 'hello i1#http 10.0.0.3:8000 w100 http v1'],
  ],
  [
    'kratos',
    '/microservices/hello/i1',
    '{"name":"hello","endpoints":["grpc://10.0.0.3:9000?isSecure=true"],"metadata":null}',
    ['hello i1#grpc 10.0.0.3:9000 w100 grpc tls=true'],
  ],
  ['kratos', '/microservices/hello2/i9', '{"name":"hello","endpoints":["grpc://10.0.0.3:1"]}', 'bad'],
  ['kratos', '/microservices/hello/i1', '{"name":"hello","endpoints":null}', []],
  [
    'go-micro',
    '/micro/registry/a-b/n1',
    '{"name":"a/b","version":"1","nodes":[{"id":"n1","address":"10.0.0.4:1"}]}',
    ['a/b n1 10.0.0.4:1 w100 1'],
  ],
  [
    'go-micro',
    '/micro/registry/s/n',
    '{"name":"s","metadata":{"k":"s","o":"1"},"nodes":[{"id":"n","address":"10.0.0.4:1","metadata":{"k":"n"}}]}',
    ['s n 10.0.0.4:1 w100 k=n o=1'],
  ],
  [
    'kitex',
    'kitex/registry-etcd/echo/10.0.0.5:8888',
    '{"network":"tcp","address":"10.0.0.5:8888","weight":0,"tags":{"k":"v"}}',
    ['echo 10.0.0.5:8888 10.0.0.5:8888 w100 k=v'],
  ],
  [
    'kitex',
    'kitex/registry-etcd/echo/fd00::5:8888',
    '{"network":"tcp","address":"fd00::5:8888","weight":5,"tags":null}',
    ['echo fd00::5:8888 [fd00::5]:8888 w50'],
  ],
  ['kitex', 'kitex/registry-etcd/echo/x', '{"network":"unix","address":"/tmp/x","weight":5}', 'skip'],
  [
    'hertz',
    'hertz/registry-etcd/echo/[fd00::5]:8888',
    '{"network":"tcp","address":"[fd00::5]:8888","weight":20}',
    ['echo [fd00::5]:8888 [fd00::5]:8888 w200'],
  ],
  [
    'trpc',
    ' trpc/registry/services/app-hello/h-1-2',
    '{"name":"app/hello","id":"h/1/2","address":"10.0.0.6:8000","metadata":null,"weight":3}',
    ['app/hello h-1-2 10.0.0.6:8000 w300'],
  ],
  ['trpc', ' trpc/registry/services/svc2/x', '{"name":"svc","address":"10.0.0.6:8000"}', 'bad'],
  [
    'custom',
    '/c/prod/web/nodes/n1',
    '{"net":{"host":"10.0.0.7","port":80},"w":20,"v":"2","meta":{"a":"b"}}',
    ['web n1 10.0.0.7:80 w200 2 a=b'],
  ],
  ['custom', '/c/prod/web/other/n1', '{}', 'skip'],
  ['custom', '/c/prod/web/nodes/n1', '{"net":{"host":"10.0.0.7"}}', 'bad'],
  ['skydns', '/skydns/local/svc/x1', '{"host":"10.0.0.7","port":80}', ['svc.local x1 10.0.0.7:80 w100']],
  [
    'skydns',
    '/skydns/local/svc/x1',
    '{"host":"fd00::7","port":80,"weight":20,"priority":5,"group":"g","ttl":60,"targetstrip":1,"text":null}',
    ['svc.local x1 [fd00::7]:80 w20 group=g priority=5'],
  ],
  ['skydns', '/skydns/local/svc/x1', '{"text":"only text"}', 'skip'],
  ['skydns', '/skydns/local/svc/x1', '{"host":"10.0.0.7","port":25,"mail":true}', 'skip'],
  ['skydns', '/skydns/local/svc/x1', '{"host":"10.0.0.7"}', 'bad'],
  ['skydns', '/skydns/local/svc/x1', '{"host":"10.0.0.7","port":"80"}', 'bad'],
  ['skydns', '/skydns/local/svc/x1', '{"host":"10.0.0.7","port":80,"weight":1.5}', 'bad'],
  ['skydns', '/skydns/local/svc/x1', '{"host":"name.example","port":80}', 'bad'],
  ['skydns', '/skydns/local/svc/x1', 'text', 'bad'],
  ['skydns', '/skydns/local', '{"host":"10.0.0.7","port":80}', 'skip'],
  ['skydns', '/skydns/lo.cal/svc/x1', '{"host":"10.0.0.7","port":80}', 'skip'],
  ['skydns', '/skydns/arpa/in-addr/10/0/0/7', '{"host":"x1.svc.local"}', 'skip'],
  ['skydns', `/skydns/${'a/'.repeat(17)}x`, '{"host":"10.0.0.7","port":80}', 'bad'],
  [
    'apisix',
    '/apisix/upstreams/1',
    '{"id":"1","type":"roundrobin","nodes":{"10.0.0.8:80":1,"10.0.0.9:80":0}}',
    ['1 10.0.0.8:80 10.0.0.8:80 w100', '1 10.0.0.9:80 10.0.0.9:80 w0'],
  ],
  ['apisix', '/apisix/upstreams/', 'init_dir', 'skip'],
  [
    'apisix',
    '/apisix/upstreams/1',
    '{"id":"1","name":"web","scheme":"grpcs","nodes":{"10.0.0.8":1,"[fd00::8]":2,"[fd00::9]:90":3}}',
    [
      'web 10.0.0.8:443 10.0.0.8:443 w100 grpcs',
      'web [fd00::8]:443 [fd00::8]:443 w200 grpcs',
      'web [fd00::9]:90 [fd00::9]:90 w300 grpcs',
    ],
  ],
  [
    'apisix',
    '/apisix/upstreams/1',
    '{"nodes":[{"host":"10.0.0.8","weight":1},{"host":"fd00::8","port":81,"weight":2,"priority":-1,"metadata":{"a":"b"}}]}',
    ['1 10.0.0.8:80 10.0.0.8:80 w100', '1 [fd00::8]:81 [fd00::8]:81 w200 a=b priority=-1'],
  ],
  ['apisix', '/apisix/upstreams/1', '{"nodes":{"fd00::8":1}}', 'bad'],
  ['apisix', '/apisix/upstreams/1', '{"nodes":{"10.0.0.8:80":"1"}}', 'bad'],
  ['apisix', '/apisix/upstreams/1', '{"scheme":"tcp","nodes":[{"host":"10.0.0.8","weight":1}]}', 'bad'],
  ['apisix', '/apisix/upstreams/1', '{"id":"1"}', 'bad'],
  ['apisix', '/apisix/upstreams/1', '{"id":"1","nodes":{}}', []],
  ['apisix', '/apisix/upstreams/1', '{"service_name":"web","discovery_type":"nacos"}', 'skip'],
  [
    'apisix-seed',
    '/apisix/upstreams/1',
    '{"id":"1","_service_name":"web","_discovery_type":"nacos","nodes":[{"host":"10.0.0.8","port":80,"weight":1}]}',
    ['1 10.0.0.8:80 10.0.0.8:80 w100 discovery_type=nacos service_name=web'],
  ],
  ['apisix-seed', '/apisix/upstreams/1', '{"service_name":"web","discovery_type":"nacos"}', 'skip'],
  [
    'dubbo',
    '/dubbo/com.x.Y/providers/dubbo%3A%2F%2F10.0.0.10%3A20880%2Fcom.x.Y%3Fversion%3D1.0%26weight%3D200',
    '',
    ['com.x.Y::1.0 10.0.0.10:20880 10.0.0.10:20880 w200 dubbo 1.0'],
  ],
  [
    'dubbo',
    '/dubbo/com.x.Y%24Z/providers/tri%3A%2F%2F%3A%40%5Bfd00%3A%3A1%5D%3A20880%2Fcom.x.Y%2524Z%3Fgroup%3Dg%26note%3Da%2520b',
    '',
    ['com.x.Y$Z:g: [fd00::1]:20880 [fd00::1]:20880 w100 tri group=g note=a b'],
  ],
  ['dubbo', '/dubbo/com.x.Y', '', 'skip'],
  ['dubbo', '/dubbo/com.x.Y/providers', '', 'skip'],
  ['dubbo', '/dubbo/com.x.Y/consumers/consumer%3A%2F%2F10.0.0.10%2Fcom.x.Y', '', 'skip'],
  ['dubbo', '/dubbo/com.x.Y/configurators/override%3A%2F%2F0.0.0.0%2Fcom.x.Y', '', 'skip'],
  ['dubbo', '/dubbo/com.x.Y/providers/empty%3A%2F%2F10.0.0.10%3A1%2Fcom.x.Y', '', 'skip'],
  ['dubbo', '/dubbo/com.x.Y/providers/dubbo%3A%2F%2F10.0.0.10%2Fcom.x.Y', '', 'bad'],
  ['dubbo', '/dubbo/com.x.Y/providers/%zz', '', 'bad'],
  ['rpcx', 'rpcx_base/Arith', 'Arith', 'skip'],
  [
    'rpcx',
    'rpcx_base/Arith/tcp@10.0.0.11:8972',
    'calls=0.00&connections=0.00&group=a&weight=7',
    ['Arith tcp@10.0.0.11:8972 10.0.0.11:8972 w700 tcp group=a'],
  ],
  [
    'rpcx',
    'rpcx_base/Arith/quic@[fd00::1]:8972',
    'group=a&group=b&version=2',
    ['Arith quic@[fd00::1]:8972 [fd00::1]:8972 w100 quic 2 group=a,b'],
  ],
  ['rpcx', 'rpcx_base/Arith/unix@/tmp/x', '', 'skip'],
  ['rpcx', 'rpcx_base/Arith/tcp@10.0.0.11', '', 'bad'],
  [
    'goframe',
    '/service/default/default/hello.svc/latest/10.0.0.12:8000,10.0.0.13:8000',
    '{"protocol":"http"}',
    ['hello.svc 10.0.0.12:8000 10.0.0.12:8000 w100 http latest', 'hello.svc 10.0.0.13:8000 10.0.0.13:8000 w100 http latest'],
  ],
  [
    'goframe',
    '/service/default/default/hello.svc/v2/10.0.0.12:8000',
    '{"weight":"3","insecure":true}',
    ['hello.svc 10.0.0.12:8000 10.0.0.12:8000 w300 v2 insecure=true'],
  ],
  ['goframe', '/service/default/default/hello.svc/v2/10.0.0.12:8000', '', ['hello.svc 10.0.0.12:8000 10.0.0.12:8000 w100 v2']],
  ['goframe', '/service/default/default/hello.svc/latest', '', 'skip'],
  ['goframe', '/service/default/default/hello.svc/latest/10.0.0.12:8000', 'x', 'bad'],
];

describe('a key and its value', () => {
  for (const [layout, key, value, want] of VECTORS) {
    it(`${layout}: ${key} is ${typeof want === 'string' ? want : `${want.length} instance(s)`}`, () => {
      const record = read(layout, key, value);
      if (want === 'skip') assert.deepEqual([record.instances, record.rejected], [[], []]);
      else if (want === 'bad') assert.deepEqual([record.instances.length, record.rejected.length], [0, 1]);
      else assert.deepEqual(told({ service: record.service, instances: alone(layout, key, record) }), want);
    });
  }

  it('custom takes the namespace from the key, the others from the source', () => {
    assert.equal(read('custom', '/c/prod/web/nodes/n1', '{"net":{"host":"10.0.0.7","port":80}}').service?.namespace, 'prod');
    assert.equal(read('grpc', '/services/s/x', '{"Addr":"10.0.0.1:1"}').service?.namespace, 'default');
  });

  it('under a lease shows it in hexadecimal and is healthy; without lease and in a layout without leases the health is unknown', () => {
    const [leased] = read('grpc', '/services/s/x', '{"Addr":"10.0.0.1:1"}', '3322708812232101646').instances;
    assert.equal(leased?.metadata.get('etcd.lease'), '2e1ca20f6d278f0e');
    assert.equal(leased?.health, 'healthy');
    const [free] = recordOf('/c/s/x', kv('/c/s/x', '10.0.0.1:1'), null, options('plain', { prefix: '/c/' })).instances;
    assert.equal(free?.health, 'unknown');
  });

  it('lifts version, protocol and locality out of the metadata', () => {
    const value =
      '{"Addr":"10.0.0.1:1","Metadata":{"version":"2","protocol":"grpc","region":"r","zone":"z","campus":"c","other":"o"}}';
    const [one] = read('grpc', '/services/s/x', value).instances;
    assert.deepEqual([one?.version, one?.protocol, one?.locality], ['2', 'grpc', { region: 'r', zone: 'z', campus: 'c' }]);
    assert.deepEqual([...(one?.metadata ?? [])], [['other', 'o']]);
  });

  for (const [name, address] of [
    ['port 0', '10.0.0.1:0'],
    ['port 65536', '10.0.0.1:65536'],
    ['no port', '10.0.0.1'],
    ['octal', '010.0.0.1:80'],
    ['short form', '127.1:80'],
    ['unspecified', '0.0.0.0:80'],
    ['multicast', '224.0.0.1:80'],
    ['link-local', '169.254.169.254:80'],
    ['loopback that is not allowed', '127.0.0.1:80'],
    ['a name where names are not allowed', 'host.example:80'],
    ['bare IPv6', '2001:db8::1:80'],
    ['zone id', '[fe80::1%eth0]:80'],
    ['a number', 7],
  ] as const) {
    it(`an address that is ${name} is rejected alone`, () => {
      const record = read('grpc', '/services/s/x', JSON.stringify({ Addr: address }));
      assert.equal(record.instances.length, 0);
      assert.equal(record.rejected[0]?.nativeId, 'x');
    });
  }

  it('that became undecodable stays with the service that its value named', () => {
    const key = '/apisix/upstreams/1';
    const good = read('apisix', key, '{"id":"1","name":"web","nodes":{"10.0.0.8:80":1}}');
    const bad = recordOf(key, kv(key, '{"id":'), good, options('apisix'));
    assert.deepEqual([bad.service?.name, bad.instances, bad.rejected.length], ['web', good.instances, 1]);
    assert.deepEqual(recordOf(key, kv(key, '{"id":'), null, options('apisix')).service?.name, '1');
  });

  it('that is put again without a change gives the very record that it had', () => {
    const key = 'rpcx_base/Arith/tcp@10.0.0.11:8972';
    const first = read('rpcx', key, 'calls=1&connections=2&weight=7');
    const opts = options('rpcx');
    assert.equal(recordOf(key, kv(key, 'calls=9&connections=0&weight=7'), first, opts), first);
    assert.notEqual(recordOf(key, kv(key, 'calls=9&weight=8'), first, opts), first);
    assert.notEqual(recordOf(key, kv(key, 'weight=7', '77'), first, opts), first, 'another lease is shown');
    assert.equal(recordOf(key, kv(key, 'weight=7&state=inactive'), first, opts).instances[0]?.isolated, true);
  });

  it('of a datagram network is told apart from the same address over tcp', () => {
    const record = read('rpcx', 'rpcx_base/Arith/quic@10.0.0.11:8972', '');
    assert.equal(record.instances[0]?.transport, 'udp');
    const tcp = read('rpcx', 'rpcx_base/Arith/tcp@10.0.0.11:8972', '');
    assert.equal(mergeKeys([record, tcp].map((one) => ({ record: one, modRevision: 3n }))).instances.length, 2);
  });

  it('with one bad entry of many loses that entry only', () => {
    const nodes = read('apisix', '/apisix/upstreams/1', '{"nodes":{"10.0.0.8:80":1,"10.0.0.9:99999":1,"10.0.0.10:80":-1}}');
    assert.deepEqual([nodes.instances.length, nodes.rejected.length], [1, 2]);
    const endpoints = read('goframe', '/service/default/default/s/latest/10.0.0.12:8000,x', '');
    assert.deepEqual([endpoints.instances.length, endpoints.rejected.map(({ nativeId }) => nativeId)], [1, ['x']]);
  });

  it('of dubbo is isolated when it is not enabled, and of another category is none', () => {
    const key = (query: string) => `/dubbo/com.x.Y/providers/${encodeURIComponent(`dubbo://10.0.0.10:20880/com.x.Y?${query}`)}`;
    assert.equal(read('dubbo', key('enabled=false'), '').instances[0]?.isolated, true);
    assert.equal(read('dubbo', key('category=routers'), '').instances.length, 0);
    assert.deepEqual(told(read('dubbo', key('weight=abc&timestamp=7&warmup=9'), '')), [
      'com.x.Y 10.0.0.10:20880 10.0.0.10:20880 w100 dubbo timestamp=7 warmup=9',
    ]);
  });

  it('of goframe names its namespace', () => {
    const record = read('goframe', '/service/default/prod/hello.svc/latest/10.0.0.12:8000', '');
    assert.deepEqual(record.service, { namespace: 'prod', name: 'hello.svc' });
  });

  it('that became undecodable keeps its last good instances and is rejected', () => {
    const good = read('grpc', '/services/s/x', '{"Addr":"10.0.0.1:1"}');
    const bad = recordOf('/services/s/x', kv('/services/s/x', '{"Addr":'), good, options('grpc'));
    assert.deepEqual(bad.instances, good.instances);
    assert.equal(bad.rejected.length, 1);
  });

  it('over the limits is rejected or cut: value of more than 1 MiB, nesting over 32, 70 metadata, a negative weight, bad UTF-8', () => {
    const counted = new Map<string, number>();
    const opts = options('grpc', { count: (what, by = 1) => void counted.set(what, (counted.get(what) ?? 0) + by) });
    const judge = (value: string | Uint8Array): KeyRecord => recordOf('/services/s/x', kv('/services/s/x', value), null, opts);
    assert.equal(judge(`{"Addr":"10.0.0.1:1","Metadata":{"x":"${'x'.repeat(1_048_576)}"}}`).rejected.length, 1);
    assert.equal(judge(`{"Addr":"10.0.0.1:1","Metadata":${'['.repeat(40)}${']'.repeat(40)}}`).rejected.length, 1);
    assert.equal(judge('{"Addr":"10.0.0.1:1","Metadata":{"weight":-1}}').rejected.length, 1);
    assert.equal(judge(Buffer.from([0x7b, 0xff, 0x7d])).rejected.length, 1);
    const many = Object.fromEntries(Array.from({ length: 70 }, (_, n) => [`k${n}`, 'v']));
    assert.equal(judge(JSON.stringify({ Addr: '10.0.0.1:1', Metadata: many })).instances[0]?.metadata.size, 64);
    assert.equal(counted.get('metadata.cut'), 6);
  });
});

describe('one service of several keys', () => {
  const record = (id: string, port: number): KeyRecord => ({
    service: { namespace: 'default', name: 's' },
    instances: [instance(port, { id })],
    rejected: [],
  });

  it('shows one address once: the record with the highest revision', () => {
    const merged = mergeKeys([
      { record: record('old', 1), modRevision: 3n },
      { record: record('new', 1), modRevision: 9n },
      { record: record('a', 2), modRevision: 4n },
    ]);
    assert.deepEqual(
      merged.instances.map(({ id }) => id),
      ['a', 'new'],
    );
    assert.equal(merged.duplicates, 1);
  });
});

describe('what is written is read back', () => {
  for (const [name] of [...ALL].filter(([, { write }]) => write !== undefined)) {
    it(`in layout ${name}, within the fields that it keeps`, () => {
      const opts = options(name, name === 'plain' || name === 'go-zero' ? { prefix: '/p/' } : {});
      const service = { namespace: name === 'custom' ? 'prod' : 'default', name: 'app.web' };
      for (const host of ['10.0.0.1', '2001:db8::7']) {
        const given = instance(8_080, {
          id: 'i-1',
          host,
          weight: 200,
          version: '1.2',
          protocol: 'http',
          locality: { zone: 'a' },
          metadata: new Map([
            ['k', 'v'],
            ['__proto__', 'x'],
          ]),
        });
        const form = writeForm(service, given, opts);
        assert.ok(typeof form !== 'string', String(form));
        const back = recordOf(form.key, kv(form.key, form.value), null, opts);
        assert.deepEqual(back.service, service);
        const [got] = alone(name, form.key, back);
        assert.deepEqual([got?.host, got?.port, got?.id], [host, 8_080, form.id]);
        assert.equal(keyOfId(service, form.id, opts), form.key);
        for (const field of opts.layout.keeps) {
          if (field === 'metadata') assert.deepEqual([...(got?.metadata ?? [])].sort(), [...given.metadata].sort());
          else assert.deepEqual(got?.[field], given[field], field);
        }
      }
    });
  }

  it('weight 0 is refused where readers take it for the normal one, or where there is no weight', () => {
    for (const name of ['kitex', 'hertz', 'go-zero', 'kratos', 'go-micro', 'skydns']) {
      const form = writeForm({ namespace: 'default', name: 's' }, instance(1, { weight: 0 }), options(name, { prefix: '/p/' }));
      assert.match(String(form), /weight 0/);
    }
    const form = writeForm({ namespace: 'default', name: 's' }, instance(1, { weight: 0 }), options('trpc'));
    assert.ok(typeof form !== 'string');
  });

  it('a go-zero id is a number, and the same one after a restart', () => {
    const form = writeForm(
      { namespace: 'default', name: 's' },
      instance(1, { id: 'lobby-1' }),
      options('go-zero', { prefix: '/p/' }),
    );
    assert.ok(typeof form !== 'string');
    assert.match(form.id, /^[1-9]\d*$/);
    assert.ok(BigInt(form.id) < 2n ** 63n);
    const again = writeForm(
      { namespace: 'default', name: 's' },
      instance(1, { id: 'lobby-1' }),
      options('go-zero', { prefix: '/p/' }),
    );
    assert.deepEqual(again, form);
  });
});

describe('custom layouts', () => {
  const base = { value: 'json', lease: true, normalWeight: 1, pointers: { address: '/a' } } as const;
  for (const [name, given] of [
    ['no {service}', { ...base, key: '{id}' }],
    ['{id} twice', { ...base, key: '{service}/{id}/{id}' }],
    ['a placeholder beside text', { ...base, key: 'x{service}/{id}' }],
    ['an empty part', { ...base, key: '{service}//{id}' }],
    ['an unknown placeholder', { ...base, key: '{service}/{id}/{zone}' }],
    ['no address at all', { ...base, key: '{service}/{id}', pointers: { host: '/h' } }],
    ['a pointer that is none', { ...base, key: '{service}/{id}', pointers: { address: 'a' } }],
  ] as const) {
    it(`with ${name} are refused by a sentence`, () => assert.equal(typeof customLayout(given), 'string'));
  }
});

it('no broken payload throws, pollutes a prototype, or gives an instance that breaks the model', () => {
  const count = Number(process.env['WEIR_MUTATIONS'] ?? 5_000);
  const random = seededRandom(Number(process.env['WEIR_SEED'] ?? 1));
  const pick = <T>(items: readonly [T, ...T[]]): T => items[randomBelow(random, items.length)] ?? items[0];
  const nasty: readonly [string, ...string[]] = [
    '__proto__',
    'constructor',
    'prototype',
    '\u0000',
    '\u202e',
    '/',
    '//',
    '..',
    '1e999',
    '-1',
    '65536',
    'NaN',
    'null',
    '[',
    '{',
    '"',
    '\\u0000',
  ];
  let seen = 0;
  for (let n = 0; n < count; n++) {
    const [layout, key, value] = VECTORS[randomBelow(random, VECTORS.length)] ?? assert.fail('no vectors');
    let bytes = Buffer.from(value);
    let name = key;
    for (let edits = randomBelow(random, 4); edits >= 0; edits--) {
      const at = randomBelow(random, bytes.length + 1);
      const kind = randomBelow(random, 6);
      if (kind === 0) bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(nasty)), bytes.subarray(at)]);
      else if (kind === 1) bytes = bytes.subarray(0, at);
      else if (kind === 2 && bytes.length > 0) bytes[randomBelow(random, bytes.length)] = randomBelow(random, 256);
      else if (kind === 3)
        bytes = Buffer.from(
          JSON.stringify({
            [pick(nasty)]: { polluted: 1 },
            Addr: pick<unknown>([1, null, [], '10.0.0.1:1']),
            Metadata: { __proto__: { polluted: 1 } },
          }),
        );
      else if (kind === 4) name = name.replace(/[^/]*$/, pick(nasty));
      else
        bytes = Buffer.from(
          bytes.toString().replace(/\d+/, pick(nasty)).replace('"Metadata":null', '"Metadata":{"__proto__":{"polluted":1}}'),
        );
    }
    const opts = options(random() < 0.9 ? layout : 'grpc');
    const record = recordOf(name, kv(name, bytes), null, opts);
    const edited = opts.layout.edit?.apply(bytes, [{ id: 'x', host: '10.0.0.1', port: 1, weight: 1, ours: false }], 1);
    if (edited !== undefined && typeof edited !== 'string' && edited.value !== null) JSON.parse(edited.value);
    const shown = record.service === null ? [] : combined(record.service, [{ key: name, record, modRevision: 3n }], opts);
    for (const { host, port, weight, metadata, id } of mergeKeys(shown).instances) {
      seen++;
      assert.equal(opts.dial(host, port), null);
      assert.ok(Number.isInteger(weight) && weight >= 0 && weight <= 65_535, `weight ${weight}`);
      assert.ok(metadata instanceof Map && metadata.size <= 65);
      assert.ok(!/[\u0000-\u001f]/.test(id) && id.length > 0);
    }
  }
  assert.ok(seen > count / 20, 'the mutations are not all refused');
  assert.equal(Reflect.get({}, 'polluted'), undefined);
  assert.equal(NO_METADATA.size, 0);
});
