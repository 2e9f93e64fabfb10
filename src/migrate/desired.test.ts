// The record that a copy should be: markers that survive, mapped metadata, digests that mean something.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { instance } from '../../test/support/mirror-rig.ts';
import type { InstanceField } from '../adapter/capabilities.ts';
import { isForeignCopy, readMarker } from '../catalog/copies.ts';
import type { Instance } from '../model/instance.ts';
import { MAX_METADATA_KEYS } from '../model/metadata.ts';
import { type CopyRules, copyId, type Desired, desiredCopy, digestOf, keptCopy, sameAgain, showsAll } from './desired.ts';

const ALL = new Set<InstanceField>(['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata']);

function rules(fields: Partial<CopyRules> = {}): CopyRules {
  const metadata = { rename: new Map<string, string>(), drop: new Set<string>(), set: new Map<string, string>() };
  return { origin: 'a', migration: 'm1', epoch: 7, metadata, backwards: false, keeps: ALL, ...fields };
}

function copy(origin: Instance, how = rules()): Desired {
  const made = desiredCopy(origin, how);
  return made.kind === 'record' ? made : assert.fail(made.reason);
}

describe('a desired copy', () => {
  it('carries markers, and none of the origin’s weir keys or what an adapter only shows', () => {
    const metadata = new Map([
      ['weir-kept', 'x'],
      ['weir-foo', 'y'],
      ['etcd.lease', 'ff'],
      ['k', 'v'],
    ]);
    const made = copy(instance(1, { metadata })).instance;
    assert.deepEqual(readMarker(made.metadata), { origin: 'a', migration: 'm1', epoch: '7' });
    assert.deepEqual([...made.metadata.keys()].sort(), ['k', 'weir-epoch', 'weir-hops', 'weir-migration', 'weir-origin']);
  });

  it('keeps its markers first, whatever the origin has', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.string({ minLength: 1 }), fc.string()), { maxLength: 100 }), (entries) => {
        const made = copy(instance(1, { metadata: new Map(entries) })).instance;
        assert.ok(made.metadata.size <= MAX_METADATA_KEYS);
        assert.deepEqual([...made.metadata.keys()].slice(0, 4), ['weir-origin', 'weir-migration', 'weir-hops', 'weir-epoch']);
        assert.notEqual(readMarker(made.metadata), null);
      }),
    );
  });

  it('has a stable id that tells transports and origins apart', () => {
    const ids = [instance(1), instance(1, { transport: 'udp' }), instance(1, { host: '::1' })].map((one) => copyId('a', one));
    assert.deepEqual(ids, ['a-10.0.0.1:1', 'a-10.0.0.1:1-udp', 'a-[::1]:1']);
    assert.equal(copy(instance(1, { id: 'whatever' })).instance.id, ids[0]);
  });

  it('`set` wins over the origin, `drop` names the origin’s keys, renames are undone on the way back', () => {
    const metadata = { rename: new Map([['old', 'new']]), drop: new Set(['gone']), set: new Map([['team', 'z']]) };
    const origin = instance(1, {
      metadata: new Map([
        ['team', 'a'],
        ['gone', '1'],
        ['old', '2'],
      ]),
    });
    const own = (one: Desired) => [...one.instance.metadata].filter(([key]) => !key.startsWith('weir-'));
    assert.deepEqual(own(copy(origin, rules({ metadata }))), [
      ['team', 'z'],
      ['new', '2'],
    ]);
    const back = instance(1, {
      metadata: new Map([
        ['team', 'z'],
        ['new', '2'],
      ]),
    });
    assert.deepEqual(own(copy(back, rules({ metadata, backwards: true }))), [
      ['team', 'z'],
      ['old', '2'],
    ]);
  });
});

describe('a digest', () => {
  it('is the same for the same content in any order, whatever health and epoch', () => {
    const one = instance(1, {
      metadata: new Map([
        ['a', '1'],
        ['b', '2'],
      ]),
    });
    const other = instance(1, {
      health: 'unhealthy',
      metadata: new Map([
        ['weir-epoch', '9'],
        ['b', '2'],
        ['a', '1'],
      ]),
    });
    assert.equal(digestOf(one, ALL), digestOf(other, ALL));
  });

  it('tells each kept field', () => {
    const base = digestOf(instance(1), ALL);
    const changes: Partial<Instance>[] = [
      { port: 2 },
      { host: '10.0.0.2' },
      { transport: 'udp' },
      { weight: 1 },
      { isolated: true },
      { protocol: 'x' },
      { version: 'x' },
      { locality: { zone: 'x' } },
      { metadata: new Map([['x', '']]) },
    ];
    for (const change of changes) assert.notEqual(digestOf(instance(1, change), ALL), base, Object.keys(change).join());
  });

  it('a record shows all that we wrote though the registry added entries, not though it lost one', () => {
    const { instance: wanted } = copy(instance(1, { metadata: new Map([['k', 'v']]) }));
    assert.equal(showsAll({ ...wanted, metadata: new Map([...wanted.metadata, ['more', '1']]) }, wanted, ALL), true);
    const less = new Map([...wanted.metadata].filter(([key]) => key !== 'k'));
    assert.equal(showsAll({ ...wanted, metadata: less }, wanted, ALL), false);
    assert.equal(showsAll({ ...wanted, weight: 99 }, wanted, ALL), false);
  });
});

describe('a kept copy', () => {
  it('is an ordinary record in the place of the copy', () => {
    const { instance: made } = copy(instance(1, { metadata: new Map([['k', 'v']]) }));
    const kept = keptCopy(made, 'a', 'm1');
    assert.deepEqual([kept.id, readMarker(kept.metadata), isForeignCopy(kept.metadata)], [made.id, null, false]);
    assert.deepEqual(
      [...kept.metadata],
      [
        ['weir-kept', 'a'],
        ['weir-migration', 'm1'],
        ['k', 'v'],
      ],
    );
  });
  it('and a copy written again as it stands stays the same', () => {
    const { instance: made, digest } = copy(instance(1));
    assert.equal(digestOf(sameAgain({ ...made, id: 'registry-own' }, 'a'), ALL), digest);
    assert.equal(sameAgain({ ...made, id: 'registry-own' }, 'a').id, made.id);
  });
});
