import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Instance } from './instance.ts';
import { Interner } from './intern.ts';

const labels = fc.record(
  {
    protocol: fc.constantFrom('http', 'grpc'),
    version: fc.constantFrom('v1', 'v2'),
    locality: fc.record({ zone: fc.constantFrom('a', 'b') }),
  },
  { requiredKeys: [] },
);
const instances: fc.Arbitrary<Instance> = fc
  .tuple(labels, fc.dictionary(fc.string(), fc.string(), { maxKeys: 4 }))
  .map(([given, metadata]) => ({
    id: 'i',
    host: '10.0.0.1',
    port: 80,
    transport: 'tcp' as const,
    weight: 100,
    health: 'healthy' as const,
    isolated: false,
    metadata: new Map(Object.entries(metadata)),
    ...given,
  }));

test('a shared instance says what the given one said, no field more and none less', () => {
  const interner = new Interner();
  fc.assert(
    fc.property(instances, (given) => {
      const shared = interner.instance(given, given.metadata);
      assert.deepEqual(Object.keys(shared).sort(), Object.keys(given).sort());
      for (const field of ['id', 'host', 'port', 'weight', 'health', 'isolated', 'protocol', 'version'] as const) {
        assert.equal(shared[field], given[field], field);
      }
      assert.equal(shared.locality?.zone, given.locality?.zone);
      assert.deepEqual([...shared.metadata].sort(), [...given.metadata].sort());
    }),
  );
});

test('equal labels become one object, and what is shared already is taken as it is', () => {
  const interner = new Interner();
  const make = (): Instance => ({
    id: 'i',
    host: '10.0.0.1',
    port: 80,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: new Map([['k', 'v']]),
    locality: { zone: 'a' },
  });
  const first = interner.instance(make(), make().metadata);
  const second = interner.instance(make(), make().metadata);
  assert.notEqual(first, second);
  assert.equal(first.metadata, second.metadata);
  assert.equal(first.locality, second.locality);
  assert.equal(interner.instance(first, first.metadata), first);
  assert.equal(interner.service({ namespace: 'a', name: 'b' }), interner.service({ namespace: 'a', name: 'b' }));
});
