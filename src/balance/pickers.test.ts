import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../kernel/random.ts';
import type { LoadBalancerPolicy } from '../model/policy.ts';
import { buildPicker } from './build.ts';
import { LeastRequestPicker } from './least-request.ts';
import type { Candidate } from './picker.ts';
import { edfSequence, MAX_SEQUENCE_SLOTS, RoundRobinPicker } from './round-robin.ts';

interface Host extends Candidate {
  active: number;
}

const POLICIES: readonly LoadBalancerPolicy[] = ['leastRequest', 'roundRobin', 'random'];

function hosts(...weights: number[]): Host[] {
  return weights.map((weight) => ({ weight, active: 0 }));
}

function letters(sequence: Uint32Array): string {
  return Array.from(sequence, (i) => String.fromCharCode(97 + i)).join('');
}

/** Earliest deadline first as it is defined, step by step, to compare the laid out sequence with. */
function simulateEdf(weights: readonly number[], picks: number): number[] {
  const queue = weights.flatMap((weight, index) => (weight > 0 ? [{ index, turn: 1, weight, order: index }] : []));
  let order = weights.length;
  const picked: number[] = [];
  for (let i = 0; i < picks; i++) {
    queue.sort((a, b) => a.turn * b.weight - b.turn * a.weight || a.order - b.order);
    const first = queue[0];
    assert.ok(first);
    picked.push(first.index);
    first.turn++;
    first.order = order++;
  }
  return picked;
}

test('weights a=2, b=1 give a b a, again and again', () => {
  assert.equal(letters(edfSequence([2, 1])), 'aba');
  const picker = new RoundRobinPicker(hosts(200, 100));
  const picks = Array.from({ length: 9 }, () => picker.pick(() => 0));
  assert.deepEqual(picks, [0, 1, 0, 0, 1, 0, 0, 1, 0]);
});

test('the laid out sequence is what earliest deadline first does step by step', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 8 }), (weights) => {
      fc.pre(weights.some((weight) => weight > 0));
      const sequence = [...edfSequence(weights)];
      const twice = simulateEdf(weights, sequence.length * 2);
      assert.deepEqual([...sequence, ...sequence], twice);
    }),
    { numRuns: 300 },
  );
});

test('a sequence never exceeds 4,096 + n slots and leaves out nobody with a weight', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 65_535 }), { minLength: 1, maxLength: 200 }), (weights) => {
      const sequence = edfSequence(weights);
      assert.ok(sequence.length <= MAX_SEQUENCE_SLOTS + weights.length);
      const seen = new Set(sequence);
      weights.forEach((weight, i) => {
        assert.equal(seen.has(i), weight > 0);
      });
    }),
    { numRuns: 100 },
  );
});

test('weights that had to be scaled keep their proportions within a slot', () => {
  const sequence = edfSequence([60_001, 30_000, 1]);
  const counts = [0, 1, 2].map((i) => sequence.filter((index) => index === i).length);
  assert.ok(Math.abs((counts[0] ?? 0) - 2 * (counts[1] ?? 0)) <= 2, String(counts));
  assert.equal(counts[2], 1);
});

test('round robin starts at a random place and takes everyone in turn', () => {
  const picker = new RoundRobinPicker(hosts(1, 1, 1, 1));
  assert.deepEqual(
    [0.5, 0, 0, 0, 0].map((random) => picker.pick(() => random)),
    [2, 3, 0, 1, 2],
  );
});

test('two choices are two different hosts, and every ordered pair is equally likely', () => {
  // All are busy but one: it wins whenever it is drawn, so its share is that of the pairs which hold it, 2/n.
  const n = 5;
  const list = hosts(...new Array(n).fill(100));
  for (const host of list) host.active = 1;
  const idle = list[3];
  assert.ok(idle);
  idle.active = 0;
  const picker = new LeastRequestPicker(list);
  const grid = 200;
  let wins = 0;
  for (let a = 0; a < grid; a++) {
    for (let b = 0; b < grid; b++) {
      const draws = [(a + 0.5) / grid, (b + 0.5) / grid];
      if (picker.pick(() => draws.shift() ?? 0) === 3) wins++;
    }
  }
  assert.equal(wins / (grid * grid), 2 / n);
});

test('with equal load two choices are unbiased: every host has the same share', () => {
  for (const n of [2, 3, 4, 7]) {
    const picker = new LeastRequestPicker(hosts(...new Array(n).fill(1)));
    const counts: number[] = new Array(n).fill(0);
    const grid = n * (n - 1);
    for (let a = 0; a < grid; a++) {
      for (let b = 0; b < grid; b++) {
        const draws = [(a + 0.5) / grid, (b + 0.5) / grid];
        const index = picker.pick(() => draws.shift() ?? 0);
        counts[index] = (counts[index] ?? 0) + 1;
      }
    }
    assert.deepEqual(counts, new Array(n).fill((grid * grid) / n));
  }
});

test('of two hosts the one with fewer requests in flight is always taken', () => {
  const list = hosts(100, 100);
  const picker = new LeastRequestPicker(list);
  const [first] = list;
  assert.ok(first);
  first.active = 1;
  const random = seededRandom(1);
  for (let i = 0; i < 200; i++) assert.equal(picker.pick(random), 1);
});

test('unequal weights compare active / weight', () => {
  const list = hosts(300, 100);
  const [heavy, light] = list;
  assert.ok(heavy && light);
  const picker = new LeastRequestPicker(list);
  // Draws by weight: 0 is the heavy one's column, then the light one's own part.
  const both = (): (() => number) => {
    const draws = [0, 0.5];
    return () => draws.shift() ?? 0;
  };
  heavy.active = 2;
  light.active = 1;
  assert.equal(picker.pick(both()), 0, '2/300 is below 1/100');
  heavy.active = 4;
  assert.equal(picker.pick(both()), 1, '4/300 is above 1/100');
});

test('an idle cluster is shared by weight: a canary of a hundredth gets a hundredth', () => {
  const weights = [9_900, 100];
  const picker = new LeastRequestPicker(hosts(...weights));
  const random = seededRandom(11);
  const rounds = 100_000;
  let canary = 0;
  for (let i = 0; i < rounds; i++) if (picker.pick(random) === 1) canary++;
  assert.ok(Math.abs(canary / rounds - 0.01) < 0.002, `share ${canary / rounds}`);
});

test('under load least request settles in proportion to weight', () => {
  const list = hosts(300, 100);
  const picker = new LeastRequestPicker(list);
  const random = seededRandom(3);
  for (let i = 0; i < 400; i++) {
    const host = list[picker.pick(random)];
    assert.ok(host);
    host.active++;
  }
  assert.ok(Math.abs((list[0]?.active ?? 0) - 300) <= 8, `in flight ${list[0]?.active}`);
});

for (const policy of POLICIES) {
  test(`${policy}: a weight of 0 is never picked, and no weights at all give -1`, () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(0, 0, 1, 100, 100, 333), { maxLength: 12 }), fc.integer(), (weights, seed) => {
        const picker = buildPicker(policy, hosts(...weights));
        const random = seededRandom(seed);
        for (let i = 0; i < 40; i++) {
          const index = picker.pick(random);
          if (weights.some((weight) => weight > 0)) assert.ok((weights[index] ?? 0) > 0, `${weights} gave ${index}`);
          else assert.equal(index, -1);
        }
      }),
    );
  });
}

test('random and round robin give each host its share of picks', () => {
  for (const policy of ['random', 'roundRobin'] as const) {
    const picker = buildPicker(policy, hosts(100, 300));
    const random = seededRandom(5);
    let heavy = 0;
    for (let i = 0; i < 20_000; i++) if (picker.pick(random) === 1) heavy++;
    assert.ok(Math.abs(heavy / 20_000 - 0.75) < 0.015, `${policy}: ${heavy}`);
  }
});
