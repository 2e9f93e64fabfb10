// M2 both ways: default names, `as`, templates, and names that a template takes from their default.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { addresses, CatalogFixture, source } from '../../test/support/catalog-fixture.ts';
import { type NameRules, Names } from './names.ts';

const key = (text: string) => {
  const slash = text.indexOf('/');
  return { namespace: text.slice(0, slash), name: text.slice(slash + 1) };
};

function names(
  rules: readonly (readonly [match: string, names: Record<string, string>])[],
  as: Record<string, [string | null, string]> = {},
) {
  const sources = new Map(Object.entries(as).map(([id, [ns, namespace]]) => [id, { as: ns, namespace }] as const));
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
