import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../kernel/random.ts';
import { AliasTable, evenPick } from './alias-table.ts';

/** Exact probability of each index: the table's columns are even, so a grid of draws as fine as the total counts them exactly. */
function exactShares(weights: readonly number[]): number[] {
  const table = new AliasTable(weights);
  const n = weights.filter((weight) => weight > 0).length;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const counts = weights.map(() => 0);
  // Column c is cut at a multiple of 1/total, so the midpoints of total cells per column meet every part by its size.
  for (let column = 0; column < n; column++) {
    for (let cell = 0; cell < total; cell++) {
      const index = table.pick(() => (column + (cell + 0.5) / total) / n);
      counts[index] = (counts[index] ?? 0) + 1;
    }
  }
  return counts.map((count) => count / n);
}

test('every index is drawn exactly in proportion to its whole weight', () => {
  const weights = fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(weights, (list) => {
      fc.pre(list.some((weight) => weight > 0));
      const shares = exactShares(list);
      list.forEach((weight, i) => {
        assert.ok(Math.abs((shares[i] ?? 0) - weight) < 1e-6, `index ${i}: ${shares[i]} for weight ${weight}`);
      });
    }),
    { numRuns: 200 },
  );
});

test('an index of weight 0 is never drawn, whatever the other weights and the random number', () => {
  const weights = fc.array(
    fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 65_535 }), fc.double({ min: 0, max: 1e6, noNaN: true })),
    {
      minLength: 1,
      maxLength: 50,
    },
  );
  fc.assert(
    fc.property(weights, fc.array(fc.double({ min: 0, max: 0.999_999_999, noNaN: true }), { maxLength: 50 }), (list, draws) => {
      const table = new AliasTable(list);
      const anyone = list.some((weight) => weight > 0);
      for (const draw of draws) {
        const index = table.pick(() => draw);
        if (anyone) assert.ok((list[index] ?? 0) > 0, `drew ${index} of ${list}`);
        else assert.equal(index, -1);
      }
    }),
  );
});

test('negative and NaN weights count as 0', () => {
  const table = new AliasTable([-5, Number.NaN, 3]);
  assert.equal(table.size, 1);
  for (let i = 0; i < 100; i++) assert.equal(table.pick(seededRandom(i)), 2);
});

test('an even draw over none is -1, over some stays within them', () => {
  assert.equal(
    evenPick(0, () => 0.5),
    -1,
  );
  assert.equal(
    evenPick(3, () => 0.999_999),
    2,
  );
});
