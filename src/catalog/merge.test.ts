// M1-M8 by the vectors of catalog-rules §7: identity, presence, precedence, conflicts, copies, determinism.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ALL_FIELDS, addresses, CatalogFixture, instance, source } from '../../test/support/catalog-fixture.ts';
import type { MergePolicy } from '../model/policy.ts';
import { DEFAULT_SERVICE_POLICY } from '../model/policy.ts';
import { markersOf } from './copies.ts';
import { NO_OVERLAY } from './evidence.ts';
import { instanceId } from './identity.ts';

const S = 'default/one';
const A = '10.0.0.1:80';

function fixtureOf(ids: readonly string[], merge?: MergePolicy): CatalogFixture {
  const fixture = new CatalogFixture({ sources: ids.map((id) => source(id)) });
  if (merge !== undefined) {
    fixture.policies.set(S, { ...DEFAULT_SERVICE_POLICY, merge });
    fixture.configure(ids.map((id) => source(id)));
  }
  return fixture;
}

function only(fixture: CatalogFixture) {
  const view = fixture.catalog.get(S);
  assert.equal(view?.instances.length, 1);
  const [one] = view.instances;
  assert.ok(one !== undefined);
  return one;
}

function conflictFields(fixture: CatalogFixture): string[] {
  return (fixture.catalog.get(S)?.conflicts ?? []).map((one) => one.field);
}

function copy(address: string, origin: string, over = {}) {
  return instance(address, { id: `copy-${address}`, metadata: new Map(markersOf({ origin, migration: 'm1' })), ...over });
}

describe('merge: identity (M1, M2)', () => {
  it('one address in two sources is one instance: weight by authority, health unknown, conflict listed, two provenances', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, [instance(A)]);
    fixture.say('b', S, [instance(A, { id: 'nacos-1', health: 'unhealthy' })]);
    const one = only(fixture);
    assert.deepEqual([one.weight, one.registryHealth, one.provenance.map((p) => p.source)], [100, 'unknown', ['a', 'b']]);
    assert.deepEqual(
      fixture.catalog.get(S)?.conflicts.map(({ field, values, chosen, instance: at }) => [at, field, values, chosen]),
      [
        [
          A,
          'health',
          [
            { source: 'a', value: 'healthy' },
            { source: 'b', value: 'unhealthy' },
          ],
          'unknown',
        ],
      ],
    );
    assert.ok(fixture.eventTypes().includes('conflict') && fixture.eventTypes().includes('service_merged'));
  });

  it('spellings of one host are one instance: ::ffff: forms, upper case, a trailing dot', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, ['10.0.0.1:80', 'node-1:80', instance('x:80', { host: '2001:DB8::0:1', port: 80 })]);
    fixture.say('b', S, [
      instance('x:80', { host: '::ffff:10.0.0.1' }),
      instance('y:80', { host: 'Node-1.' }),
      instance('z:80', { host: '2001:db8::1' }),
    ]);
    assert.deepEqual(fixture.view(S), ['10.0.0.1:80', '[2001:db8::1]:80', 'node-1:80']);
    assert.deepEqual(
      fixture.catalog.get(S)?.instances.map((one) => one.provenance.length),
      [2, 2, 2],
    );
  });

  it('with authority [b, a] a Nacos weight of 2.5 (250) wins', () => {
    const fixture = fixtureOf(['a', 'b'], { kind: 'prefer', order: ['b', 'a'] });
    fixture.say('a', S, [instance(A)]);
    fixture.say('b', S, [instance(A, { weight: 250 })]);
    assert.equal(only(fixture).weight, 250);
  });

  it('weights are never summed or averaged: 100 and 0 give 100 or 0 by authority', () => {
    for (const [order, weight] of [[['a', 'b'], 100] as const, [['b', 'a'], 0] as const]) {
      const fixture = fixtureOf(['a', 'b'], { kind: 'prefer', order });
      fixture.say('a', S, [instance(A, { weight: 100 })]);
      fixture.say('b', S, [instance(A, { weight: 0 })]);
      assert.equal(only(fixture).weight, weight);
    }
  });

  it('a name and its address are two instances; different networks and transports never merge', () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b', { network: 'dc2' })] });
    fixture.say('a', S, ['node-1:80', A, instance(A, { id: 'u', transport: 'udp' })]);
    fixture.say('b', S, [A]);
    assert.equal(fixture.size(S), 4);
    const ids = fixture.catalog.get(S)?.instances.map((one) => instanceId(S, one)) ?? [];
    assert.equal(new Set(ids).size, 4);
    for (const id of ids) assert.match(id, /^[0-9a-f]{16}$/);
  });

  it('the same address twice in one snapshot: native before copy, then the smaller id, and a conflict `duplicate`', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, [copy(A, 'b', { id: 'a0' }), instance(A, { id: 'z' }), instance(A, { id: 'm' })]);
    assert.equal(only(fixture).provenance[0]?.nativeId, 'm');
    const [conflict] = fixture.catalog.get(S)?.conflicts ?? [];
    assert.deepEqual(
      [conflict?.field, conflict?.chosen, conflict?.values.map((one) => one.value)],
      ['duplicate', 'm', ['m', 'z', 'a0']],
    );
  });

  it('two sources that share no address raise the conflict `disjoint`', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, addresses(2, 1));
    fixture.say('b', S, addresses(2, 2));
    assert.deepEqual(conflictFields(fixture), ['disjoint']);
    fixture.say('b', S, [...addresses(1, 1), ...addresses(2, 2)]);
    assert.deepEqual(conflictFields(fixture), []);
  });
});

describe('merge: presence (M3)', () => {
  const [ofA, ofB] = [addresses(2, 1), addresses(2, 2)];

  it('prefer takes the first source that has instances; later ones fill in only when it has none', () => {
    const fixture = fixtureOf(['a', 'b', 'c'], { kind: 'prefer', order: ['b', 'a'] });
    fixture.say('a', S, ofA);
    assert.deepEqual(fixture.view(S), ofA);
    fixture.say('b', S, ofB);
    assert.deepEqual(fixture.view(S), ofB);
    fixture.say('b', S, []);
    assert.equal(fixture.heldIn(S), 2, 'a held list still counts');
    fixture.catalog.releaseHolds();
    assert.deepEqual(fixture.view(S), ofA);
  });

  it('a stale source still counts with its last good list', () => {
    const fixture = fixtureOf(['a', 'b'], { kind: 'prefer', order: ['b', 'a'] });
    fixture.say('a', S, ofA);
    fixture.say('b', S, ofB);
    fixture.lose('b');
    assert.deepEqual(fixture.view(S), ofB);
  });

  it('an expired source does not count, and says so', async () => {
    const fixture = new CatalogFixture({ sources: [source('a', { expireAfter: 60_000 }), source('b')] });
    fixture.list('a', [S]);
    fixture.say('a', S, ofA);
    fixture.say('b', S, ofB);
    fixture.lose('a');
    await fixture.clock.advance(59_000);
    assert.equal(fixture.size(S), 4);
    await fixture.clock.advance(3_000);
    assert.deepEqual(fixture.view(S), ofB);
    assert.equal(fixture.catalog.serviceStates(S)[0]?.state, 'failed');
    fixture.say('a', S, ofA);
    assert.equal(fixture.size(S), 4);
  });

  it('weighted: groups are the sources that have the instance, an empty source has no share', () => {
    const shares = [
      { source: 'a', share: 90 },
      { source: 'b', share: 10 },
    ];
    const fixture = fixtureOf(['a', 'b', 'c'], { kind: 'weighted', shares });
    fixture.say('a', S, [A, '10.0.0.2:80']);
    assert.deepEqual(fixture.catalog.get(S)?.shares, [{ source: 'a', share: 90 }]);
    fixture.say('b', S, [A]);
    fixture.say('c', S, ['10.9.9.9:80']);
    const view = fixture.catalog.get(S);
    assert.deepEqual(view?.shares, shares);
    assert.deepEqual(
      view?.instances.map((one) => one.groups),
      [['a', 'b'], ['a']],
      'a source without share adds nothing',
    );
  });

  it('while a migration runs the members are the union whatever it prefers, and what one side lacks is in both groups', () => {
    const over = (merge: MergePolicy, holdsByTime: boolean) => ({
      ...NO_OVERLAY,
      overlayOf: () => ({ merge, migration: 'm1', holdsByTime }),
    });
    const shares = [
      { source: 'a', share: 100 },
      { source: 'b', share: 0 },
    ];
    const cases = [
      { merge: { kind: 'prefer', order: ['b', 'a'] }, running: true, size: 3 },
      { merge: { kind: 'prefer', order: ['b', 'a'] }, running: false, size: 2 },
      { merge: { kind: 'weighted', shares }, running: true, size: 3 },
    ] as const;
    for (const { merge, running, size } of cases) {
      const fixture = new CatalogFixture({ sources: [source('a'), source('b')], overlay: over(merge, !running) });
      fixture.say('a', S, [A, '10.0.0.2:80']);
      fixture.say('b', S, [A, '10.0.0.3:80']);
      assert.equal(fixture.size(S), size);
      const groups = fixture.catalog.get(S)?.instances.map((one) => one.groups);
      if (merge.kind === 'weighted')
        assert.deepEqual(groups, [
          ['a', 'b'],
          ['a', 'b'],
          ['a', 'b'],
        ]);
      assert.deepEqual(fixture.catalog.mergeOf(S), { policy: merge, from: 'migration', migration: 'm1' });
    }
  });
});

describe('merge: fields (M4, M5)', () => {
  it('while a migration shifts, fields are those of the side that most requests are drawn over', () => {
    for (const [a, b, weight] of [
      [100, 0, 10],
      [50, 50, 10],
      [49, 51, 20],
      [0, 100, 20],
    ] as const) {
      const shares = [
        { source: 'a', share: a },
        { source: 'b', share: b },
      ];
      const overlay = {
        ...NO_OVERLAY,
        overlayOf: () => ({ merge: { kind: 'weighted', shares } as const, migration: 'm1', holdsByTime: false }),
      };
      const fixture = new CatalogFixture({ sources: [source('a'), source('b')], overlay });
      fixture.say('a', S, [instance(A, { weight: 10 })]);
      fixture.say('b', S, [instance(A, { weight: 20 })]);
      assert.equal(only(fixture).weight, weight, `${a}:${b}`);
    }
  });

  it('a field is taken from the first source whose adapter declares it', () => {
    const reads = new Set(['health'] as const);
    const fixture = new CatalogFixture({ sources: [source('a', { reads }), source('b')] });
    const rich = { weight: 40, protocol: 'grpc', version: '2', locality: { zone: 'z' }, metadata: new Map([['k', 'v']]) };
    fixture.say('a', S, [instance(A, { weight: 1, protocol: 'http' })]);
    assert.deepEqual([only(fixture).weight, only(fixture).protocol], [100, undefined]);
    fixture.say('b', S, [instance(A, rich)]);
    const { weight, protocol, version, locality, metadata } = only(fixture);
    assert.deepEqual({ weight, protocol, version, locality, metadata }, rich);
  });

  it('metadata is merged per key by authority, locality is never mixed, empty texts are passed over', () => {
    const fixture = fixtureOf(['a', 'b']);
    const m = (entries: Record<string, string>) => new Map(Object.entries(entries));
    fixture.say('a', S, [instance(A, { metadata: m({ x: 'a', y: 'a' }), version: '', locality: { zone: 'za' } })]);
    fixture.say('b', S, [instance(A, { metadata: m({ y: 'b', z: 'b' }), version: '3', locality: { region: 'rb', zone: 'zb' } })]);
    const one = only(fixture);
    assert.deepEqual(Object.fromEntries(one.metadata), { x: 'a', y: 'a', z: 'b' });
    assert.deepEqual([one.locality, one.version], [{ zone: 'za' }, '3']);
    assert.deepEqual(conflictFields(fixture), ['locality', 'metadata.y']);
  });

  it('isolated by any live source isolates with weight 0; its end ends it', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, [A]);
    fixture.say('b', S, [instance(A, { isolated: true })]);
    assert.deepEqual([only(fixture).isolated, only(fixture).weight], [true, 0]);
    assert.deepEqual(conflictFields(fixture), ['isolated']);
    fixture.say('b', S, [A]);
    assert.deepEqual([only(fixture).isolated, only(fixture).weight], [false, 100]);
  });

  it('a stale source alone keeps its isolation; beside a live one it has no voice', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('b', S, [instance(A, { isolated: true })]);
    fixture.lose('b');
    assert.equal(only(fixture).isolated, true);
    fixture.say('a', S, [A]);
    assert.equal(only(fixture).isolated, false);
  });

  it('while a migration is cut over, the old side alone does not isolate what the new side has natively', () => {
    const overlay = {
      ...NO_OVERLAY,
      overlayOf: () => ({
        merge: { kind: 'prefer', order: ['b', 'a'] } as const,
        migration: 'm',
        holdsByTime: false,
        isolationIgnores: 'a',
      }),
    };
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')], overlay });
    fixture.say('a', S, [instance(A, { isolated: true })]);
    assert.equal(only(fixture).isolated, true, 'nobody else has it');
    fixture.say('b', S, [copy(A, 'a')]);
    assert.equal(only(fixture).isolated, true, 'a copy is no native word');
    fixture.say('b', S, [A]);
    assert.equal(only(fixture).isolated, false);
  });

  it('health: live sources that agree say it; stale ones, distrust and silence make it unknown', () => {
    const fixture = fixtureOf(['a', 'b']);
    const say = (id: string, health: 'healthy' | 'unhealthy' | 'unknown') => fixture.say(id, S, [instance(A, { health })]);
    say('a', 'unhealthy');
    assert.equal(only(fixture).registryHealth, 'unhealthy');
    say('b', 'unhealthy');
    assert.equal(only(fixture).registryHealth, 'unhealthy');
    say('b', 'unknown');
    assert.equal(only(fixture).registryHealth, 'unknown', 'Nacos protection');
    fixture.lose('b');
    assert.equal(only(fixture).registryHealth, 'unhealthy', 'only the live one speaks');
    fixture.lose('a');
    assert.equal(only(fixture).registryHealth, 'unknown');
    const silent = new CatalogFixture({
      sources: [source('e', { reads: new Set([...ALL_FIELDS].filter((f) => f !== 'health')) })],
    });
    silent.say('e', S, [A]);
    assert.equal(only(silent).registryHealth, 'unknown');
  });

  it('a held instance keeps its weight and last word, so that a hold changes no pick', () => {
    const fixture = fixtureOf(['a']);
    fixture.say('a', S, [instance(A, { weight: 30, health: 'unhealthy' })]);
    fixture.say('a', S, []);
    const one = only(fixture);
    assert.deepEqual([one.weight, one.registryHealth, one.held, one.suspect], [30, 'unhealthy', true, true]);
  });

  it('a source that holds the instance has no voice beside a live one that lists it', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, [instance(A, { health: 'unhealthy', isolated: true })]);
    fixture.say('b', S, [A]);
    fixture.say('a', S, []);
    const one = only(fixture);
    assert.deepEqual([one.registryHealth, one.isolated, one.held], ['healthy', false, false]);
    assert.deepEqual(conflictFields(fixture), []);
  });

  it('keys weir-* from a registry leave unless they make a valid marker', () => {
    const fixture = fixtureOf(['a']);
    const forged = new Map([
      ['weir-origin', 'b'],
      ['weir-hops', '2'],
      ['weir-anything', 'x'],
      ['zone', 'z'],
    ]);
    fixture.say('a', S, [instance(A, { metadata: forged })]);
    assert.deepEqual([...only(fixture).metadata], [['zone', 'z']]);
    assert.equal(only(fixture).provenance[0]?.copyOf, undefined);
  });
});

describe('merge: copies (M7)', () => {
  it('a copy goes with its origin, by R2 on the origin alone', () => {
    const fixture = fixtureOf(['a', 'b']);
    const all = addresses(5);
    fixture.say('a', S, all);
    fixture.say(
      'b',
      S,
      all.map((one) => copy(one, 'a')),
    );
    assert.equal(fixture.size(S), 5);
    fixture.say('a', S, all.slice(1));
    assert.deepEqual(fixture.view(S), all.slice(1), 'a small removal in the origin takes the copy along');
    fixture.say('a', S, []);
    assert.equal(fixture.size(S), 4, 'held in the origin');
    assert.equal(fixture.heldIn(S), 4, 'a copy does not vouch for its origin');
    fixture.catalog.releaseHolds();
    assert.equal(fixture.size(S), 0);
    fixture.absent('a', S);
    assert.equal(fixture.size(S), 0);
  });

  it('a copy does not vote while its origin is known', () => {
    const fixture = fixtureOf(['b', 'a']);
    fixture.say('a', S, [instance(A, { weight: 20, health: 'unhealthy' })]);
    fixture.say('b', S, [copy(A, 'a', { weight: 90, isolated: true })]);
    const one = only(fixture);
    assert.deepEqual([one.weight, one.registryHealth, one.isolated, one.metadata.size], [20, 'unhealthy', false, 0]);
    assert.deepEqual(
      one.provenance.map((p) => p.copyOf),
      ['a', undefined],
    );
    assert.deepEqual(conflictFields(fixture), []);
  });

  it('a copy stays while its origin was never heard, or is not configured here', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('b', S, [copy(A, 'a')]);
    assert.equal(fixture.size(S), 1, 'a was not heard yet');
    fixture.list('a', ['default/other']);
    fixture.catalog.touch(S);
    assert.equal(fixture.size(S), 0, 'a lists its services, and this is none of them');
    fixture.configure([source('b')]);
    fixture.catalog.touch(S);
    assert.equal(fixture.size(S), 1);
  });

  it('a lost origin removes nothing', () => {
    const fixture = fixtureOf(['a', 'b']);
    fixture.say('a', S, [A]);
    fixture.say('b', S, [copy(A, 'a')]);
    fixture.lose('a', null, 'denied');
    assert.equal(fixture.size(S), 1);
  });

  it('the ledger makes a copy of a record that lost its markers; a kept copy is an ordinary record', () => {
    const overlay = {
      ...NO_OVERLAY,
      copyOrigin: (_s: string, id: string, host: string) => (id === 'b' && host === '10.0.0.1' ? 'a' : null),
    };
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')], overlay });
    fixture.say('a', S, addresses(3));
    fixture.say('b', S, addresses(3));
    fixture.say('a', S, addresses(2, 0, 2));
    assert.deepEqual(fixture.view(S), addresses(2, 0, 2));
    const kept = fixtureOf(['a', 'b']);
    kept.say('a', S, addresses(3));
    const metadata = new Map([
      ['weir-kept', 'a'],
      ['weir-migration', 'm1'],
    ]);
    kept.say('b', S, [instance(A, { metadata })]);
    kept.say('a', S, addresses(2, 0, 2));
    assert.equal(kept.size(S), 3);
  });
});

describe('merge: order and equality (M8)', () => {
  it('equal content keeps the view, its revision and its objects; a change takes the next index', () => {
    const fixture = fixtureOf(['a']);
    fixture.say('a', S, addresses(3));
    const first = fixture.catalog.get(S);
    fixture.say('a', S, addresses(3).reverse());
    assert.equal(fixture.catalog.get(S), first);
    fixture.say('a', S, [instance('10.0.0.1:80', { weight: 1 }), ...addresses(2, 0, 2)]);
    const second = fixture.catalog.get(S);
    assert.ok(first !== undefined && second !== undefined && second.revision > first.revision);
    assert.equal(second.revision, fixture.catalog.index);
    assert.equal(second.instances[1], first.instances[1], 'what did not change is the same object');
  });

  it('random order of the same events, 1,000 runs: identical view bytes', () => {
    const bytes = (view: unknown): string =>
      JSON.stringify(view, (name, value) => (value instanceof Map ? [...value] : name === 'revision' ? undefined : value));
    let expected: string | null = null;
    let seed = 1;
    const random = (): number => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed / 2_147_483_647;
    };
    const meta = (n: number) =>
      new Map(
        [
          ['zone', `z${n}`],
          [`k${n}`, 'v'],
          ['same', 's'],
        ].sort(() => random() - 0.5) as [string, string][],
      );
    for (let run = 0; run < 1_000; run++) {
      const fixture = fixtureOf(['a', 'b', 'c']);
      const events: (() => void)[] = [
        () =>
          fixture.say(
            'a',
            S,
            shuffled(
              [...addresses(6), 'node-1:80'].map((one) => instance(one, { metadata: meta(1) })),
              random,
            ),
          ),
        () =>
          fixture.say(
            'b',
            S,
            shuffled(
              addresses(4, 0, 3).map((one) => instance(one, { weight: 7, metadata: meta(2) })),
              random,
            ),
          ),
        () =>
          fixture.say(
            'c',
            S,
            shuffled(
              [...addresses(8).map((one) => copy(one, 'a')), instance('10.0.0.7:80', { id: 'n', isolated: true })],
              random,
            ),
          ),
      ];
      for (const event of shuffled(events, random)) event();
      const got = bytes(fixture.catalog.get(S));
      expected ??= got;
      assert.equal(got, expected, `run ${run}`);
    }
  });
});

function shuffled<T>(list: readonly T[], random: () => number): T[] {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const [a, b] = [result[i], result[j]];
    if (a !== undefined && b !== undefined) [result[i], result[j]] = [b, a];
  }
  return result;
}
