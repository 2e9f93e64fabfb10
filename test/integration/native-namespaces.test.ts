// What each kind says of its native namespaces, as built from a configuration: names.ts decides by it what can be written where (M2).
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { NativeNamespaces } from '../../src/adapter/contract.ts';
import { adapterLoader } from '../../src/app/loader.ts';
import { Names } from '../../src/catalog/names.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { FakeClock } from '../support/fake-clock.ts';

async function namespacesOf(kind: string, config: object): Promise<NativeNamespaces | undefined> {
  const factory = await adapterLoader().load(kind);
  assert.ok(factory);
  const options = { auth: {}, tls: null, timeout: 1_000, normalWeight: null };
  const deps = {
    sourceId: kind,
    clock: new FakeClock(),
    random: seededRandom(1),
    dial: () => null,
    log: silentLog,
    count: () => {},
  };
  const adapter = factory.create(config, options, deps);
  try {
    return adapter.namespaces;
  } finally {
    await adapter.close();
  }
}

const etcd = { endpoints: ['http://127.0.0.1:1'] };
const custom = (key: string) => ({ ...etcd, layout: 'custom', prefix: '/x/', custom: { key } });
const nacos = { servers: ['127.0.0.1:1'] };
const polaris = { servers: ['127.0.0.1:1'] };
const ROWS: readonly [what: string, kind: string, config: object, NativeNamespaces | undefined][] = [
  ['Consul community', 'consul', {}, { home: 'default', others: 'none' }],
  ['Consul Enterprise', 'consul', { namespace: 'team-a' }, { home: 'team-a', others: 'none' }],
  ['Nacos public, which is our default', 'nacos', { ...nacos, namespace: 'public' }, { home: 'default', others: 'none' }],
  ['another namespace of Nacos', 'nacos', { ...nacos, namespace: '3f2a' }, { home: '3f2a', others: 'none' }],
  ['one namespace of Polaris', 'polaris', { ...polaris, namespace: 'Production' }, { home: 'Production', others: 'stated' }],
  ['all namespaces of Polaris', 'polaris', { ...polaris, namespace: '*' }, { home: null, others: 'any' }],
  ['an etcd layout without namespaces', 'etcd', { ...etcd, namespace: 'shop' }, { home: 'shop', others: 'none' }],
  ['an etcd layout with namespaces', 'etcd', { ...etcd, layout: 'goframe' }, { home: 'default', others: 'any' }],
  ['a custom key without {namespace}', 'etcd', custom('{service}/{id}'), { home: 'default', others: 'none' }],
  ['a custom key with {namespace}', 'etcd', custom('{namespace}/{service}/{id}'), { home: 'default', others: 'any' }],
  ['CL5/L5', 'l5', { servers: ['127.0.0.1:1'], sids: ['1:2'] }, { home: 'default', others: 'none' }],
  ['memory', 'memory', {}, undefined],
];

describe('native namespaces of each kind', () => {
  for (const [what, kind, config, expected] of ROWS) {
    it(what, async () => {
      assert.deepEqual(await namespacesOf(kind, config), expected);
    });
  }

  it('a Nacos source of `public` takes templates and `as` into the namespace that its adapter knows', async () => {
    const namespaces = await namespacesOf('nacos', { ...nacos, namespace: 'public' });
    assert.ok(namespaces);
    const rules = [{ match: 'game/*', names: new Map([['n', 'GAME@@{name}']]) }];
    const names = new Names({ sources: new Map([['n', { as: 'shop', namespaces }]]), rules });
    assert.deepEqual(names.toWrite('n', 'game/lobby'), { namespace: 'default', name: 'GAME@@lobby' });
    assert.equal(names.toOurs('n', { namespace: 'default', name: 'GAME@@lobby' }), 'game/lobby');
    assert.deepEqual(names.toWrite('n', 'shop/cart'), { namespace: 'default', name: 'cart' });
  });
});
