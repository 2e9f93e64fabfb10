// Names, hosts and weights in both directions, and what broken hosts become.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dialPolicy } from '../../src/kernel/dial.ts';
import type { Instance } from '../../src/model/instance.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { badName, keyOf, type MappingOptions, mapHosts, nativeId, nativeInstance, nativeName } from './mapping.ts';

const counts = new Map<string, number>();
const OPTIONS: MappingOptions = {
  clusters: null,
  clusterAsZone: false,
  normalWeight: 1,
  writeCluster: 'DEFAULT',
  isolate: 'weight',
  dial: dialPolicy({ allowLoopback: false, allowNames: false, cidrs: [], ports: [] }, () => []),
  count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
};
const HOST = {
  instanceId: '10.0.0.1#80#DEFAULT#DEFAULT_GROUP@@web',
  ip: '10.0.0.1',
  port: 80,
  weight: 1.0,
  healthy: true,
  enabled: true,
  ephemeral: true,
  clusterName: 'DEFAULT',
  serviceName: 'DEFAULT_GROUP@@web',
  metadata: {},
};

function only(host: object, options: MappingOptions = OPTIONS, word: 'believed' | 'protected' = 'believed'): Instance {
  const { instances, rejected } = mapHosts([host], word, options);
  return instances[0] ?? assert.fail(rejected[0]?.reason ?? 'nothing');
}

function reason(host: unknown): string {
  const { instances, rejected } = mapHosts([host], 'believed', OPTIONS);
  assert.equal(instances.length, 0);
  return rejected[0]?.reason ?? assert.fail('not rejected');
}

describe('names of Nacos and ours', () => {
  const config = { namespace: 'public', group: 'DEFAULT_GROUP', groups: null };

  it('public is default, the default group has plain names, another one stands in front, both ways', () => {
    for (const [native, key] of [
      [
        { group: 'DEFAULT_GROUP', name: 'web' },
        { namespace: 'default', name: 'web' },
      ],
      [
        { group: 'OTHER', name: 'web' },
        { namespace: 'default', name: 'OTHER@@web' },
      ],
    ] as const) {
      assert.deepEqual(keyOf(config, native), key);
      assert.deepEqual(nativeName(config, key), native);
    }
    assert.deepEqual(keyOf({ ...config, namespace: 'game-1' }, { group: 'DEFAULT_GROUP', name: 'a' }), {
      namespace: 'game-1',
      name: 'a',
    });
  });

  it('another namespace, a group that is not configured and names that Nacos refuses are refused with words', () => {
    const refused = (key: { namespace: string; name: string }, groups: ReadonlySet<string> | null, pattern: RegExp): void => {
      assert.throws(
        () => nativeName({ ...config, groups }, key),
        (thrown) => thrown instanceof SourceError && thrown.causeKind === 'refused' && pattern.test(thrown.message),
      );
    };
    refused({ namespace: 'elsewhere', name: 'web' }, null, /holds the namespace default only/);
    refused({ namespace: 'default', name: 'B@@web' }, new Set(['A']), /not among groups/);
    refused({ namespace: 'default', name: 'a b' }, null, /white space/);
    refused({ namespace: 'default', name: 'bad group@@web' }, null, /group/);
    assert.match(badName({ group: 'G', name: '服务' }) ?? '', /CJK/);
    assert.match(badName({ group: 'G', name: 'a@@b' }) ?? '', /@@/);
    assert.equal(badName({ group: 'G', name: '__proto__' }), null);
  });
});

describe('hosts become instances', () => {
  it('the id is built from ip, port and cluster, never from instanceId', () => {
    assert.equal(only(HOST).id, '10.0.0.1#80#DEFAULT');
    const { instanceId: _, ...bare } = HOST;
    assert.equal(only(bare).id, '10.0.0.1#80#DEFAULT');
    assert.equal(only({ ...HOST, instanceId: 'free text', clusterName: '' }).id, '10.0.0.1#80#DEFAULT');
  });

  it('weights are scaled by the normal one: 1.0 is 100, 0.5 is 50, 0 stays 0, little never becomes 0, over 10000 is clamped', () => {
    for (const [native, ours] of [
      [1, 100],
      [0.5, 50],
      [2.5, 250],
      [0, 0],
      [0.0001, 1],
      [20_000, 65_535],
    ] as const) {
      assert.equal(only({ ...HOST, weight: native }).weight, ours);
    }
    assert.equal(only({ ...HOST, weight: 100 }, { ...OPTIONS, normalWeight: 100 }).weight, 100);
    assert.match(reason({ ...HOST, weight: -1 }), /negative/);
    assert.match(reason({ ...HOST, weight: 'heavy' }), /weight/);
  });

  it('protection makes health unknown, disabled is isolated', () => {
    assert.equal(only(HOST, OPTIONS, 'protected').health, 'unknown');
    assert.equal(only({ ...HOST, healthy: false }).health, 'unhealthy');
    assert.equal(only({ ...HOST, enabled: false }).isolated, true);
  });

  it('version, protocol and locality are lifted out of the metadata, cluster and kind are shown, the rest stays', () => {
    const metadata = {
      version: '1.2',
      protocol: 'grpc',
      region: 's',
      zone: 'a',
      campus: 'c',
      left: 'yes',
      gone: null,
      n: 7,
      'internal-nacos-cluster': 'X',
    };
    const made = only({ ...HOST, metadata, clusterName: 'A' });
    assert.deepEqual([made.version, made.protocol, made.locality], ['1.2', 'grpc', { region: 's', zone: 'a', campus: 'c' }]);
    assert.deepEqual(
      [...made.metadata],
      [
        ['nacos.cluster', 'A'],
        ['nacos.ephemeral', 'true'],
        ['left', 'yes'],
        ['n', '7'],
      ],
    );
    assert.deepEqual(only({ ...HOST, clusterName: 'A' }, { ...OPTIONS, clusterAsZone: true }).locality, { zone: 'A' });
  });

  it('clusters that are not configured are left out without a word', () => {
    const { instances, rejected } = mapHosts([HOST, { ...HOST, ip: '10.0.0.2', clusterName: 'B' }], 'believed', {
      ...OPTIONS,
      clusters: new Set(['B']),
    });
    assert.deepEqual([instances.map(({ host }) => host), rejected], [['10.0.0.2'], []]);
  });

  it('of two hosts with one address the healthy one stays, then the heavier one; it is counted', () => {
    counts.clear();
    const two = (a: object, b: object): Instance[] => [
      ...mapHosts(
        [
          { ...HOST, ...a },
          { ...HOST, ...b },
        ],
        'believed',
        OPTIONS,
      ).instances,
    ];
    assert.deepEqual(
      two({ weight: 1 }, { weight: 2 }).map(({ weight }) => weight),
      [200],
    );
    assert.deepEqual(
      two({ weight: 1 }, { weight: 2, healthy: false }).map(({ weight }) => weight),
      [100],
    );
    assert.deepEqual(
      two({ clusterName: 'B' }, { clusterName: 'A' }).map(({ id }) => id),
      ['10.0.0.1#80#A'],
    );
    assert.equal(counts.get('instances.duplicate'), 3);
  });

  it("a copy stands beside its provider's own record, whatever their health and weight, also once it is kept", () => {
    counts.clear();
    for (const marker of ['weir-origin', 'weir-kept']) {
      const copy = { ...HOST, weight: 9, metadata: { [marker]: 'old' } };
      const { instances } = mapHosts([copy, { ...HOST, healthy: false }], 'believed', OPTIONS);
      assert.deepEqual(
        instances.map(({ id, health }) => [id, health]),
        [
          ['10.0.0.1#80#DEFAULT', 'unhealthy'],
          ['10.0.0.1#80#DEFAULT#copy', 'healthy'],
        ],
      );
    }
    assert.equal(counts.get('instances.duplicate'), undefined);
  });

  it('what is no host is rejected alone, with the reason', () => {
    assert.match(reason({ ...HOST, port: 0 }), /port/);
    assert.match(reason({ ...HOST, port: 70_000 }), /port/);
    assert.match(reason({ ...HOST, port: 'x' }), /port/);
    assert.match(reason({ ...HOST, ip: '' }), /host is missing/);
    assert.match(reason({ ...HOST, ip: undefined }), /host is missing/);
    assert.match(reason({ ...HOST, ip: '0.0.0.0' }), /0\.0\.0\.0/);
    assert.match(reason({ ...HOST, ip: '127.0.0.1' }), /loopback/);
    assert.match(reason({ ...HOST, ip: 'service.example' }), /allowNames/);
    assert.match(reason({ ...HOST, metadata: 'x' }), /metadata/);
    assert.match(reason(null), /no object/);
    const { instances, rejected } = mapHosts([HOST, 7], 'believed', OPTIONS);
    assert.deepEqual([instances.length, rejected.length], [1, 1]);
  });

  it('the digest changes with what is shown, not with the order of hosts or keys', () => {
    const b = { ...HOST, ip: '10.0.0.2', metadata: { x: '1', y: '2' } };
    const digest = (...hosts: object[]): string => mapHosts(hosts, 'believed', OPTIONS).digest;
    assert.equal(digest(HOST, b), digest({ ...b, metadata: { y: '2', x: '1' } }, { ...HOST, instanceId: 'other' }));
    assert.notEqual(digest(HOST, b), digest(HOST, { ...b, weight: 2 }));
  });
});

describe('instances become records of Nacos', () => {
  const instance: Instance = {
    id: 'a',
    host: '10.0.0.1',
    port: 80,
    transport: 'tcp',
    weight: 250,
    health: 'healthy',
    isolated: false,
    version: '1',
    locality: { zone: 'z' },
    metadata: new Map([['k', 'v']]),
  };
  const shape = { ephemeral: true, preserved: {}, unknownIs: false, wholeWeights: false };

  it('weight, health and lifted fields find their places; the cluster of a copy is kept', () => {
    const made = nativeInstance(
      {
        ...instance,
        metadata: new Map([
          ['k', 'v'],
          ['nacos.cluster', 'B'],
        ]),
      },
      shape,
      OPTIONS,
    );
    assert.deepEqual(made, {
      ip: '10.0.0.1',
      port: 80,
      weight: 2.5,
      healthy: true,
      enabled: true,
      ephemeral: true,
      clusterName: 'B',
      metadata: { version: '1', zone: 'z', k: 'v' },
    });
    assert.equal(nativeId(made), '10.0.0.1#80#B');
  });

  it('isolated is weight 0, or disabled by option; unknown is what the caller says; a face without fractions gets whole weights', () => {
    const isolated = { ...instance, isolated: true };
    assert.deepEqual(
      [nativeInstance(isolated, shape, OPTIONS).weight, nativeInstance(isolated, shape, OPTIONS).enabled],
      [0, true],
    );
    const disabled = nativeInstance(isolated, shape, { ...OPTIONS, isolate: 'disable' });
    assert.deepEqual([disabled.weight, disabled.enabled], [2.5, false]);
    const unknown = { ...instance, health: 'unknown' } as const;
    assert.equal(nativeInstance(unknown, shape, OPTIONS).healthy, false);
    assert.equal(nativeInstance(unknown, { ...shape, unknownIs: true }, OPTIONS).healthy, true);
    assert.equal(nativeInstance({ ...instance, weight: 1 }, { ...shape, wholeWeights: true }, OPTIONS).weight, 1);
  });

  it('the 1,024 characters go to what steers the server, then markers, then fields; what is left out is counted', () => {
    counts.clear();
    const metadata = new Map([
      ['long', 'x'.repeat(900)],
      ['weir-origin', 'o'.repeat(100)],
      ['preserved.register.source', 'SPRING_CLOUD'],
      ['short', 'y'],
    ]);
    const made = nativeInstance(
      { ...instance, metadata },
      { ...shape, preserved: { 'preserved.heart.beat.timeout': '90000' } },
      OPTIONS,
    );
    assert.deepEqual(Object.keys(made.metadata), ['preserved.heart.beat.timeout', 'weir-origin', 'version', 'zone', 'short']);
    assert.equal(counts.get('write.lost'), 2);
  });
});
