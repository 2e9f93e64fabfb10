import assert from 'node:assert/strict';
import { test } from 'node:test';
import { benchPick } from './pick.ts';

test('a pick costs about the same at ten endpoints and at ten thousand', () => {
  const figures = benchPick();
  assert.equal(figures.length, 18);
  for (const figure of figures) {
    const small = figures.find(
      (other) => other.endpoints === 10 && other.policy === figure.policy && other.weights === figure.weights,
    );
    assert.ok(small && figure.nsPerPick > 0);
    // A scan would cost a thousand times as much; the factor leaves room for cache misses and a busy machine.
    assert.ok(
      figure.nsPerPick < 20 * small.nsPerPick,
      `${figure.policy} ${figure.weights}: ${small.nsPerPick} → ${figure.nsPerPick}`,
    );
  }
});
