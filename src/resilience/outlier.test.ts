import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_OUTLIER, type OutlierPolicy } from '../model/policy.ts';
import { CONNECT_FAILURE, LOCAL_FAILURE, type Outcome, TIMEOUT } from './outcome.ts';
import { mayEject, OutlierState, startsCounting } from './outlier.ts';

const policy = DEFAULT_OUTLIER;
const split: OutlierPolicy = { ...policy, splitExternalLocalOriginErrors: true };

/** Types detected over a row of outcomes. */
function detected(outcomes: readonly Outcome[], by: OutlierPolicy = policy, state = new OutlierState()): string[] {
  return outcomes.flatMap((outcome) => (state.count(outcome, by) ?? []).map((detection) => detection.type));
}

function times(n: number, outcome: Outcome): Outcome[] {
  return new Array(n).fill(outcome);
}

function allowed(hosts: number, by: OutlierPolicy): number {
  let ejected = 0;
  while (ejected < hosts && mayEject(by, ejected, hosts)) ejected++;
  return ejected;
}

test('at 50 % and one always, the guard allows the ejections of the table', () => {
  for (const [hosts, ejections] of [
    [1, 1],
    [2, 1],
    [3, 1],
    [4, 2],
    [5, 2],
    [9, 4],
    [10, 5],
    [20, 10],
  ] as const) {
    assert.equal(allowed(hosts, policy), ejections, `${hosts} hosts`);
  }
});

test("at Envoy's 10 % without one always, clusters below ten hosts eject nobody", () => {
  const envoy = { ...policy, maxEjectionPercent: 10, alwaysEjectOneHost: false };
  for (let hosts = 1; hosts <= 9; hosts++) assert.equal(allowed(hosts, envoy), 0, `${hosts} hosts`);
  assert.equal(allowed(10, envoy), 1);
  assert.equal(allowed(20, envoy), 2);
});

test('the guard never lets more than its share be ejected, one aside', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 500 }), fc.integer({ min: 0, max: 100 }), fc.boolean(), (hosts, percent, one) => {
      const ejected = allowed(hosts, { ...policy, maxEjectionPercent: percent, alwaysEjectOneHost: one });
      assert.ok(100 * ejected <= percent * hosts || (one && ejected === 1));
      assert.ok(100 * (ejected + 1) > percent * hosts, 'and no ejection that it allows is refused');
    }),
  );
});

test('ejections at a base of 30 s last 30, 60, 90 … 270, 300, 300 s', () => {
  const state = new OutlierState();
  const lasted: number[] = [];
  for (let i = 0; i < 13; i++) {
    state.eject(policy, 0, 0, 0);
    lasted.push(state.ejectedFor(0) / 1_000);
    state.unEject(0);
  }
  assert.deepEqual(lasted, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300, 300]);
  assert.equal(state.multiplier, 11, 'k stops where k · base reaches max + base');
});

test('jitter is added on top of the capped time', () => {
  const state = new OutlierState();
  state.eject({ ...policy, maxEjectionTimeJitter: 10_000 }, 0, 0, 0.5);
  assert.equal(state.ejectedFor(0), 35_000);
});

test('a sweep at 29,999 ms keeps the ejection, at 30,001 ms it ends', () => {
  const state = new OutlierState();
  state.eject(policy, 0, 0, 0);
  assert.equal(state.sweep(policy, 29_999), false);
  assert.ok(state.ejected);
  assert.equal(state.sweep(policy, 30_001), true);
  assert.equal(state.ejected, false);
});

test('four 500s, a 200 and five 500s are one detection', () => {
  assert.deepEqual(detected([...times(4, 500), 200, ...times(5, 500)]), ['consecutive_5xx']);
});

test('the counter starts anew after a detection, applied or not', () => {
  assert.deepEqual(detected(times(9, 500)), ['consecutive_5xx']);
  assert.deepEqual(detected(times(10, 500)), ['consecutive_5xx', 'consecutive_5xx']);
});

test('gateway failures count on both counters; a 500 resets the gateway one only', () => {
  assert.deepEqual(detected(times(5, 503)), ['consecutive_gateway_failure', 'consecutive_5xx']);
  assert.deepEqual(detected([...times(3, 503), 500, 503]), ['consecutive_5xx']);
  assert.deepEqual(detected([503, 500, ...times(4, 502)], { ...policy, consecutive5xx: 100 }), []);
});

test('local failures are seen as 5xx while errors are not split: connect and timeout as gateway failures, a reset not', () => {
  assert.deepEqual(detected(times(5, CONNECT_FAILURE)), ['consecutive_gateway_failure', 'consecutive_5xx']);
  assert.deepEqual(detected(times(5, TIMEOUT)), ['consecutive_gateway_failure', 'consecutive_5xx']);
  assert.deepEqual(detected(times(5, LOCAL_FAILURE)), ['consecutive_5xx']);
});

test('split, local failures have a counter of their own, which any status resets', () => {
  assert.deepEqual(detected(times(5, LOCAL_FAILURE), split), ['consecutive_local_origin_failure']);
  assert.deepEqual(detected([...times(4, CONNECT_FAILURE), 500, ...times(4, TIMEOUT)], split), []);
  assert.deepEqual(
    detected([...times(4, 500), LOCAL_FAILURE, 500], split),
    ['consecutive_5xx'],
    'a local failure does not reset 5xx',
  );
});

test('every non-5xx status resets the counters, 4xx and 429 included', () => {
  for (const status of [200, 304, 404, 429]) assert.deepEqual(detected([...times(4, 503), status, ...times(4, 503)]), []);
});

test('an ejected endpoint learns nothing, and comes back with counters at 0', () => {
  const state = new OutlierState();
  detected(times(4, 500), policy, state);
  state.eject(policy, 0, 0, 0);
  assert.deepEqual(detected(times(20, 500), policy, state), []);
  state.unEject(30_000);
  assert.deepEqual(detected(times(4, 500), policy, state), []);
});

test('an endpoint that is not ejected for an interval loses one remembered ejection per sweep', () => {
  const state = new OutlierState();
  for (let i = 0; i < 2; i++) {
    state.eject(policy, 0, 0, 0);
    state.unEject(100_000);
  }
  state.sweep(policy, 109_999);
  assert.equal(state.multiplier, 2, 'less than an interval ago');
  state.sweep(policy, 110_000);
  state.sweep(policy, 120_000);
  assert.equal(state.multiplier, 0);
  assert.equal(state.needsSweep, false);
  state.sweep(policy, 130_000);
  assert.equal(state.multiplier, 0);
});

test('a check that recovered after the ejection began ends it, an older recovery does not', () => {
  const state = new OutlierState();
  state.eject(policy, 0, 5_000, 0);
  assert.equal(state.recovered(4_999, 10), false);
  assert.equal(state.recovered(5_001, 10), true);
  assert.equal(state.ejected, false);
  assert.equal(state.recovered(6_000, 10), false, 'nothing to end');
});

test('an endpoint is idle exactly while nothing would be lost with it', () => {
  const state = new OutlierState();
  assert.ok(state.idle);
  state.count(500, policy);
  assert.equal(state.idle, false);
  state.count(200, policy);
  assert.ok(state.idle);
  state.eject(policy, 0, 0, 0);
  state.unEject(1);
  assert.equal(state.idle, false, 'the multiplier is remembered');
});

test('only failures start a state', () => {
  assert.deepEqual([200, 429, 499].map(startsCounting), [false, false, false]);
  assert.deepEqual([500, 503, LOCAL_FAILURE, TIMEOUT, CONNECT_FAILURE].map(startsCounting), [true, true, true, true, true]);
});
