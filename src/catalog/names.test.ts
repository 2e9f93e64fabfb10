// M2 both ways: default names, `as`, templates, and names that a template takes from their default.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';

import { addresses, CatalogFixture, source } from '../../test/support/catalog-fixture.ts';
import type { NativeNamespaces } from '../adapter/contract.ts';
import { type NameRules, Names } from './names.ts';

const key = (text: string) => {
  const slash = text.indexOf('/');
  return { namespace: text.slice(0, slash), name: text.slice(slash + 1) };
};

function names(
  rules: readonly (readonly [match: string, names: Record<string, string>])[],
  as: Record<string, [string | null, string | null, NativeNamespaces['others']?]> = {},
) {
  const sources = new Map(
    Object.entries(as).map(([id, [ns, home, others = 'any']]) => [id, { as: ns, namespaces: { home, others } }] as const),
  );
  const list: NameRules[] = rules.map(([match, map]) => ({ match, names: new Map(Object.entries(map)) }));
  return new Names({ sources, rules: list });
}

/** native (as ns/name) → ours, and back to the same native. */
function bothWays(mapping: Names, id: string, native: string, ours: string | null): void {
  assert.equal(mapping.toOurs(id, key(native)), ours, `${native} → ours`);
  if (ours !== null) assert.deepEqual(mapping.toNative(id, ours), key(native), `${ours} → native`);
}

describe('names of sources', () => {
  it('without rules native names are ours', () => {
    bothWays(names([]), 'c', 'default/shop', 'default/shop');
    bothWays(names([]), 'c', 'default/a/b', 'default/a/b');
  });

  it('`as` gives our names another namespace', () => {
    const mapping = names([], { c: ['game', 'default'] });
    bothWays(mapping, 'c', 'default/lobby', 'game/lobby');
    assert.equal(mapping.toNative('c', 'other/lobby'), null);
  });

  it('a template maps both ways, and a name that it takes leaves its default', () => {
    const mapping = names([['game/*', { c: 'game-{name}' }]]);
    bothWays(mapping, 'c', 'default/game-lobby', 'game/lobby');
    bothWays(mapping, 'c', 'default/web', 'default/web');
    bothWays(mapping, 'd', 'default/game-lobby', 'default/game-lobby');
    assert.equal(mapping.toOurs('c', key('game/lobby')), null, 'our game/lobby is another native name there');
    assert.equal(mapping.toNative('c', 'default/game-lobby'), null, 'that native name belongs to game/lobby');
  });

  it('one fixed name, as for an L5 SID', () => {
    const mapping = names([
      ['game/*', { c: 'game-{name}' }],
      ['game/lobby', { cl5: '192002625:487373' }],
    ]);
    bothWays(mapping, 'cl5', 'default/192002625:487373', 'game/lobby');
    bothWays(mapping, 'c', 'default/game-lobby', 'game/lobby');
  });

  it('for each source the first entry that names it and matches decides', () => {
    const mapping = names([
      ['game/lobby', { c: 'special' }],
      ['game/*', { c: 'game-{name}' }],
    ]);
    bothWays(mapping, 'c', 'default/special', 'game/lobby');
    bothWays(mapping, 'c', 'default/game-arena', 'game/arena');
    assert.equal(mapping.toOurs('c', key('default/game-lobby')), 'default/game-lobby', 'no template makes this name');
  });

  it('templates with {namespace}, and with the native namespace in full', () => {
    const both = names([['*/*', { c: '{namespace}.{name}.svc' }]]);
    bothWays(both, 'c', 'default/game.lobby.svc', 'game/lobby');
    assert.equal(both.toOurs('c', key('default/plain')), null, 'every name of ours is another one there');
    const full = names([['game/*', { n: 'Production/{name}-prod' }]], { n: [null, 'Test'] });
    bothWays(full, 'n', 'Production/lobby-prod', 'game/lobby');
    bothWays(full, 'n', 'Test/lobby-prod', 'Test/lobby-prod');
    const space = names([['*/*', { n: '{namespace}/x-{name}' }]]);
    bothWays(space, 'n', 'game/x-lobby', 'game/lobby');
  });

  it('names that break the rules have no place', () => {
    const mapping = names([]);
    for (const bad of ['/x', 'x/', 'a/\u0000', `a/${'n'.repeat(256)}`, '\u202e\u0007/x', 'a/\ud800']) {
      assert.equal(mapping.toOurs('c', key(bad)), null, JSON.stringify(bad));
    }
    for (const odd of ['__proto__/constructor', 'constructor/__proto__', 'a/b c', 'ü/ß']) bothWays(mapping, 'c', odd, odd);
  });

  it('a source of one namespace has no name for a service of another, until a template says one', () => {
    const mapping = names([['game/*', { c: 'game-{name}' }]], { c: [null, 'default', 'none'] });
    bothWays(mapping, 'c', 'default/web', 'default/web');
    bothWays(mapping, 'c', 'default/game-lobby', 'game/lobby');
    assert.equal(mapping.toNative('c', 'shop/web'), null);
    assert.equal(mapping.toWrite('c', 'shop/web'), null);
    assert.deepEqual(mapping.toWrite('c', 'game/lobby'), key('default/game-lobby'));
    assert.equal(names([['game/*', { c: 'other/{name}' }]], { c: [null, 'default', 'none'] }).toNative('c', 'game/a'), null);
  });

  it('where a namespace can be named that is not the own one, it is read as it is and written only when a template says so', () => {
    const mapping = names([['game/*', { p: 'Game/{name}' }]], { p: [null, 'Production', 'stated'] });
    bothWays(mapping, 'p', 'Production/web', 'Production/web');
    bothWays(mapping, 'p', 'Test/web', 'Test/web');
    assert.deepEqual(mapping.toWrite('p', 'Production/web'), key('Production/web'));
    assert.deepEqual(mapping.toWrite('p', 'game/lobby'), key('Game/lobby'));
    assert.equal(mapping.toWrite('p', 'Test/web'), null, 'for writes there is no default');
  });

  it('a source of all namespaces has no place for a template without one, nor for `as`', () => {
    const mapping = names([['game/*', { p: 'g-{name}' }]], { p: [null, null, 'any'] });
    assert.equal(mapping.toNative('p', 'game/lobby'), null);
    bothWays(mapping, 'p', 'Test/g-lobby', 'Test/g-lobby');
    assert.deepEqual(mapping.toWrite('p', 'Test/web'), key('Test/web'));
    assert.equal(names([], { p: ['game', null, 'any'] }).toWrite('p', 'game/lobby'), null);
  });

  it('a template without a namespace reads only the own namespace: the same name elsewhere is another service', () => {
    const mapping = names([['game/*', { n: 'game-{name}' }]], { n: [null, 'Test'] });
    bothWays(mapping, 'n', 'Test/game-lobby', 'game/lobby');
    bothWays(mapping, 'n', 'Other/game-lobby', 'Other/game-lobby');
  });

  it('says why a name has no place: the rules for names, or the template that took it', () => {
    const mapping = names([['game/*', { c: 'game-{name}' }]]);
    assert.deepEqual(mapping.readingOf('c', key('a/\u0000')), { why: 'rules' });
    const taken = mapping.readingOf('c', key('game/lobby'));
    assert.ok(typeof taken !== 'string' && taken.why === 'taken');
    assert.deepEqual([taken.wanted, taken.by.match], ['game/lobby', 'game/*']);
  });

  it('for any rules and names, what maps to ours maps back to the same native name, and never two natives to one', () => {
    const word = fc.stringMatching(/^[ab-]{1,4}$/);
    const template = fc.constantFrom('{name}', 'g-{name}', '{name}-g', 'a{name}b', 'x');
    const match = fc.constantFrom('game/*', 'game/a*', 'game/b', 'ns/*');
    const rule = fc.tuple(match, template).filter(([m, t]) => t.includes('{name}') || !m.includes('*'));
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 4 }), fc.array(word, { maxLength: 12 }), (rules, words) => {
        const mapping = names(rules.map(([m, t]) => [m, { c: t }]));
        const seen = new Map<string, string>();
        for (const name of new Set(words)) {
          const ours = mapping.toOurs('c', { namespace: 'default', name });
          if (ours === null) continue;
          assert.deepEqual(mapping.toNative('c', ours), { namespace: 'default', name });
          assert.equal(seen.get(ours), undefined, `${ours} from ${name} and ${seen.get(ours)}`);
          seen.set(ours, name);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('a name that has no place is counted and listed, and its service enters nothing', () => {
    const fixture = new CatalogFixture({
      sources: [source('c')],
      names: [{ match: 'game/*', names: new Map([['c', 'game-{name}']]) }],
    });
    fixture.list('c', ['default/game-lobby', 'game/lobby']);
    fixture.say('c', 'game/lobby', addresses(1, 2));
    fixture.say('c', 'default/game-lobby', addresses(1, 1));
    assert.deepEqual(fixture.catalog.names({ limit: 9 }).names, ['game/lobby']);
    assert.deepEqual(fixture.view('game/lobby'), addresses(1, 1));
    assert.ok(fixture.metrics.counter('weir_source_rejected_records_total', 'c').value > 0);
    const refused = fixture.catalog.recentRejected('c');
    assert.ok(refused.length > 0 && refused.every(({ service, reason }) => service === 'game/lobby' && /names/.test(reason)));
  });

  it('the catalog writes only where a name was said, also for a service that it reads from that source', () => {
    const namespaces = { home: 'Production', others: 'stated' } as const;
    const fixture = new CatalogFixture({ sources: [source('p', { namespaces })] });
    fixture.say('p', 'Test/web', addresses(1, 1));
    assert.deepEqual(fixture.catalog.toNative('p', 'Test/web'), key('Test/web'));
    assert.equal(fixture.catalog.toWrite('p', 'Test/web'), null);
    assert.deepEqual(fixture.catalog.toWrite('p', 'Production/web'), key('Production/web'));
  });

  it('a reload that changes names moves services, even ones that change places', () => {
    const fixture = new CatalogFixture({ sources: [source('c')] });
    fixture.say('c', 'default/a', addresses(1, 1));
    fixture.say('c', 'default/b', addresses(1, 2));
    fixture.configure(
      [source('c')],
      [
        { match: 'default/a', names: new Map([['c', 'b']]) },
        { match: 'default/b', names: new Map([['c', 'a']]) },
      ],
    );
    assert.deepEqual([fixture.view('default/a'), fixture.view('default/b')], [addresses(1, 2), addresses(1, 1)]);
    fixture.configure([source('c', { asNamespace: 'game' })]);
    assert.deepEqual(fixture.catalog.names({ limit: 9 }).names, ['game/a', 'game/b']);
    assert.equal(fixture.catalog.get('default/a'), undefined);
  });
});
