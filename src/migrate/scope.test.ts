import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { spec } from '../../test/migrate/docs.ts';
import { compilePattern } from '../settings/pattern.ts';
import type { MigrationCatalog } from './ports.ts';
import { meet, overlap, Scope } from './scope.ts';

function catalog(changes: Partial<MigrationCatalog> = {}): MigrationCatalog {
  return {
    account: () => null,
    servicesOf: (source) => (source === 'old' ? ['game/b', 'game/a', 'web/x'] : ['game/c', 'game/a']),
    toNative: (_source, service) => ({
      namespace: service.slice(0, service.indexOf('/')),
      name: service.slice(service.indexOf('/') + 1),
    }),
    toOurs: (_source, { namespace, name }) => `${namespace}/${name}`,
    use() {},
    touch() {},
    subscribe: () => () => {},
    ...changes,
  };
}

describe('scope of a migration', () => {
  it('is what either side knows and a pattern takes, sorted', () => {
    assert.deepEqual(new Scope(spec(), catalog()).services(), ['game/a', 'game/b', 'game/c']);
  });

  it('a template that leads to another service of ours is refused with the names entry that would make it right', () => {
    const scope = new Scope(spec({ mapping: { name: '{namespace}-{name}' } }), catalog());
    const key = scope.keyIn('new', 'game/a');
    assert.ok('reason' in key);
    assert.match(key.reason, /add `names: \{new: "game\/game-a"\}` to the services entry of game\/a/);
    assert.equal(scope.key('new', 'game/a'), null);
    assert.deepEqual(scope.keyIn('old', 'game/a'), { namespace: 'game', name: 'a' });
  });

  it('a template that names: knows is taken', () => {
    const known = catalog({
      toOurs: (source, { name }) => (source === 'new' ? `game/${name.replace('game-', '')}` : `game/${name}`),
    });
    const scope = new Scope(spec({ mapping: { name: '{namespace}-{name}' } }), known);
    assert.deepEqual(scope.keyIn('new', 'game/a'), { namespace: 'game', name: 'game-a' });
  });

  it('a service without a name in the target is said, never given a default', () => {
    const scope = new Scope(spec(), catalog({ toNative: () => null }));
    const key = scope.keyIn('new', 'game/a');
    assert.ok('reason' in key);
    assert.match(key.reason, /game\/a has no name in new: say one under `names:`/);
  });
});

describe('overlap of two orders', () => {
  it('is found where a text fits a pattern of both', () => {
    assert.deepEqual(overlap(spec(), spec({ services: ['web/*', 'game/lobby'] })), { a: 'game/*', b: 'game/lobby' });
    assert.equal(overlap(spec(), spec({ services: ['web/*'] })), null);
    for (const [a, b, expected] of [
      ['*', 'x/y', true],
      ['a*b', 'ab', true],
      ['a*b', 'a', false],
      ['a*', '*b', true],
      ['*a*', '*b*', true],
      ['game/a*', 'game/b*', false],
      ['', '', true],
      ['a*a', 'a', false],
    ] as const) {
      assert.equal(meet(a, b), expected, `${a} and ${b}`);
    }
  });

  it('never misses a text that fits both (property)', () => {
    const piece = fc.stringMatching(/^[ab*]{0,6}$/).map((text) => text.replace(/\*+/g, '*'));
    const text = fc.stringMatching(/^[ab]{0,8}$/);
    fc.assert(
      fc.property(piece, piece, text, (a, b, word) => {
        if (compilePattern(a)(word) && compilePattern(b)(word)) assert.ok(meet(a, b), `${a} and ${b} meet in ${word}`);
        assert.equal(meet(a, b), meet(b, a));
      }),
      { numRuns: 2_000 },
    );
  });

  it('is quick for the longest patterns', () => {
    const long = `${'a*'.repeat(255)}a`;
    assert.equal(meet(long, `${'a*'.repeat(255)}b`), false);
  });
});
