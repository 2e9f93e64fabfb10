import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../kernel/random.ts';
import { DEFAULT_BREAKER, DEFAULT_OUTLIER } from '../model/policy.ts';
import { Breaker } from '../resilience/breaker.ts';
import { OutlierState } from '../resilience/outlier.ts';
import { availability, isEligible } from './availability.ts';
import type { EndpointUpdate } from './cluster-update.ts';
import { Endpoint } from './endpoint.ts';
import { PickSet } from './pick-set.ts';

const maker = {
  makePool: (): never => {
    throw new Error('choosing must not make a pool');
  },
};

function endpoint(n: number, over: Partial<EndpointUpdate> = {}): Endpoint {
  const host = `10.0.0.${n}`;
  return new Endpoint(`${host}:80`, { host, port: 80, weight: 100, verdict: 'healthy', ...over }, maker);
}

function withBreaker(one: Endpoint, state: 'open' | 'halfOpen' | 'probing'): Endpoint {
  one.breaker = new Breaker();
  for (let i = 0; i < 10; i++) one.breaker.failure(DEFAULT_BREAKER, 0);
  if (state !== 'open') one.breaker.wake(30_000);
  if (state === 'probing') one.breaker.takeSlot();
  return one;
}

function ejected(one: Endpoint): Endpoint {
  one.outlier = new OutlierState();
  one.outlier.eject(DEFAULT_OUTLIER, 0, 0, 0);
  return one;
}

function addresses(endpoints: readonly Endpoint[]): string[] {
  return endpoints.map((one) => one.host);
}

test('candidates, slots and breakers are told apart', () => {
  const all = [
    endpoint(1),
    endpoint(2, { verdict: 'unknown' }),
    endpoint(3),
    withBreaker(endpoint(4), 'halfOpen'),
    withBreaker(endpoint(5), 'probing'),
    withBreaker(endpoint(6), 'open'),
    ejected(endpoint(7)),
    endpoint(8, { verdict: 'unhealthy' }),
  ];
  const result = availability(all, null, 50);
  assert.deepEqual(addresses(result.candidates), ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
  assert.deepEqual(addresses(result.slots), ['10.0.0.4']);
  assert.equal(result.breakerBlocks, true);
  assert.equal(result.panic, false, '5 of 8');
});

test('in panic the ejected and the unhealthy are candidates, the isolated, removed and weightless are not', () => {
  const removed = endpoint(5);
  removed.removed = true;
  const all = [
    ejected(endpoint(1)),
    endpoint(2, { verdict: 'unhealthy' }),
    endpoint(3, { verdict: 'isolated' }),
    endpoint(4, { weight: 0 }),
    removed,
  ];
  const result = availability(all, null, 50);
  assert.equal(result.panic, true);
  assert.deepEqual(addresses(result.candidates), ['10.0.0.1', '10.0.0.2']);
  assert.equal(result.breakerBlocks, false);
});

test('with shares, only members of a group with a share are eligible', () => {
  const shares = new Map([['a', 1]]);
  assert.equal(isEligible(endpoint(1, { groups: ['a'] }), shares), true);
  assert.equal(isEligible(endpoint(1, { groups: ['b', 'a'] }), shares), true);
  assert.equal(isEligible(endpoint(1, { groups: ['b'] }), shares), false);
  assert.equal(isEligible(endpoint(1), shares), false);
});

test('each slot is given once', () => {
  const set = new PickSet([withBreaker(endpoint(1), 'halfOpen'), withBreaker(endpoint(2), 'halfOpen')], null, 'random', 50);
  assert.equal(set.hasCandidates, false);
  const taken = [set.takeSlot(), set.takeSlot()].map((one) => one?.host).sort();
  assert.deepEqual(taken, ['10.0.0.1', '10.0.0.2']);
  assert.equal(set.hasSlot, false);
  assert.equal(set.takeSlot(), null);
});

test('the shares of all endpoints make one, with groups and without, and match what is drawn', () => {
  const member = fc.record({ weight: fc.constantFrom(0, 1, 50, 100), groups: fc.subarray(['a', 'b', 'c']) });
  fc.assert(
    fc.property(fc.array(member, { minLength: 1, maxLength: 5 }), fc.boolean(), fc.integer(), (members, grouped, seed) => {
      const all = members.map((over, i) => endpoint(i + 1, over));
      const shares = grouped
        ? new Map([
            ['a', 5],
            ['b', 2.5],
          ])
        : null;
      const set = new PickSet(all, shares, 'random', 50);
      const told = all.map((one) => set.shareOf(one));
      const total = told.reduce((sum, share) => sum + share, 0);
      assert.ok(Math.abs(total - (set.hasCandidates ? 1 : 0)) < 1e-9, `sum ${total}`);
      const random = seededRandom(seed);
      const counts = new Map<Endpoint | null, number>();
      const draws = 2_000;
      for (let i = 0; i < draws; i++) {
        const drawn = set.draw(random);
        counts.set(drawn, (counts.get(drawn) ?? 0) + 1);
      }
      // Five standard deviations of a share's estimate are at most 5 · 0.5 / √draws.
      all.forEach((one, i) => {
        assert.ok(
          Math.abs((counts.get(one) ?? 0) / draws - (told[i] ?? 0)) < 0.06,
          `${one.host}: ${counts.get(one)} for ${told[i]}`,
        );
      });
    }),
    { numRuns: 60 },
  );
});

test('drawing again finds the one that was not tried, wherever it stands', () => {
  for (let n = 2; n <= 6; n++) {
    const all = Array.from({ length: n }, (_, i) => endpoint(i + 1));
    const set = new PickSet(all, null, 'leastRequest', 50);
    for (const left of all) {
      const tried = all.filter((one) => one !== left);
      // Least request would not take it by itself.
      left.active = 50;
      for (let seed = 0; seed < 20; seed++) assert.equal(set.drawAgain(seededRandom(seed), tried), left);
      left.active = 0;
    }
  }
});

test('a probe that was tried counts as its endpoint', () => {
  const [first, second] = [endpoint(1), endpoint(2)];
  const set = new PickSet([first, second], null, 'random', 50);
  for (let seed = 0; seed < 20; seed++) assert.equal(set.drawAgain(seededRandom(seed), [first.probe]), second);
});

test('a place in [0, 1) keeps its group while the border between the groups moves over it only once', () => {
  const both = [endpoint(1, { groups: ['old'] }), endpoint(2, { groups: ['new'] })];
  const places = [0, 0.1, 0.25, 0.5, 0.75, 0.999];
  const drawnAt = (weight: number): (string | null)[] => {
    const shares = new Map([
      ['old', 100 - weight],
      ['new', weight],
    ]);
    const picks = new PickSet(both, shares, 'roundRobin', 0);
    return places.map((place) => {
      const picked = picks.draw(seededRandom(1), place);
      assert.equal(picked?.host, picks.drawn === 'old' ? '10.0.0.1' : '10.0.0.2');
      return picks.drawn;
    });
  };
  assert.deepEqual(drawnAt(10), ['old', 'old', 'old', 'old', 'old', 'new']);
  assert.deepEqual(drawnAt(50), ['old', 'old', 'old', 'new', 'new', 'new']);
  assert.deepEqual(drawnAt(90), ['old', 'new', 'new', 'new', 'new', 'new']);
  // Who was on the new side once stays there while its weight grows.
  for (const place of places.keys()) {
    let moved = false;
    for (let weight = 1; weight < 100; weight++) {
      const side = drawnAt(weight)[place];
      if (side === 'new') moved = true;
      else assert.equal(moved, false, `place ${place} went back at ${weight}`);
    }
  }
});
