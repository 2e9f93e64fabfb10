import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { matchesGlob, selects } from './select.ts';

describe('select', () => {
  it('patterns match the whole printed name', () => {
    const rows: [string, string, boolean][] = [
      ['ns/*', 'ns/a', true],
      ['ns/*', 'ns/', true],
      ['ns/*', 'nsx/a', false],
      ['*', 'anything/at/all', true],
      ['*/lobby', 'game/lobby', true],
      ['*/lobby', 'game/lobby2', false],
      ['a*b*c', 'aXbYc', true],
      ['a*b*c', 'aXbY', false],
      ['a.c', 'abc', false],
      ['', '', true],
      ['**', 'x', true],
    ];
    for (const [pattern, text, expected] of rows) assert.equal(matchesGlob(pattern, text), expected, `${pattern} on ${text}`);
  });

  it('agrees with the regular expression of the same meaning', () => {
    const text = fc.stringMatching(/^[ab/]{0,8}$/);
    const pattern = fc.stringMatching(/^[ab/*]{0,6}$/);
    fc.assert(
      fc.property(pattern, text, (p, t) => {
        const regex = new RegExp(`^${p.replaceAll('*', '.*')}$`);
        assert.equal(matchesGlob(p, t), regex.test(t));
      }),
    );
  });

  it('a hostile pattern costs no more than pattern times text', () => {
    const from = performance.now();
    assert.equal(matchesGlob(`${'*a'.repeat(120)}b`, 'a'.repeat(255)), false);
    assert.ok(performance.now() - from < 2_000);
  });

  it('all takes every name, onDemand none', () => {
    const key = { namespace: 'a', name: 'b' };
    assert.equal(selects({ kind: 'all' }, key), true);
    assert.equal(selects({ kind: 'onDemand' }, key), false);
    assert.equal(selects({ kind: 'patterns', patterns: [] }, key), false);
    assert.equal(selects({ kind: 'patterns', patterns: ['x', 'a/b'] }, key), true);
  });
});
