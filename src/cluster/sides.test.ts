import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addCounts, countSide, LATENCY_BOUNDS, noCounts, placeOf } from './sides.ts';

describe('counts of a side', () => {
  it('counts failures and the latency of the rest; what nobody learns from counts nowhere', () => {
    const counts = noCounts();
    for (const [outcome, ms] of [
      [200, 1],
      [404, 2],
      [500, 1],
      [-1, 1],
      [0, 1],
      [200, 99_999],
    ] as const)
      countSide(counts, outcome, ms);
    assert.deepEqual([counts.requests, counts.failed], [5, 2]);
    assert.equal(counts.latency[0], 1);
    assert.equal(counts.latency[1], 1);
    assert.equal(counts.latency[LATENCY_BOUNDS.length], 1);
    const sum = noCounts();
    addCounts(sum, counts);
    addCounts(sum, counts);
    assert.deepEqual([sum.requests, sum.failed, sum.latency[0]], [10, 4, 2]);
  });
});

describe('place of a caller', () => {
  it('is in [0, 1), the same for the same text, and even over many', () => {
    const places = Array.from({ length: 10_000 }, (_, n) => placeOf(`user-${n}`));
    assert.ok(places.every((place) => place >= 0 && place < 1));
    assert.equal(placeOf('user-7'), places[7]);
    for (let tenth = 0; tenth < 10; tenth++) {
      const share = places.filter((place) => Math.floor(place * 10) === tenth).length / places.length;
      assert.ok(share > 0.085 && share < 0.115, `tenth ${tenth} has ${share}`);
    }
  });
});
