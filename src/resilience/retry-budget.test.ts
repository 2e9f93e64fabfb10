import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_RETRY } from '../model/policy.ts';
import { allowedRetries, RetryBudget } from './retry-budget.ts';

const policy = DEFAULT_RETRY.budget;
const envoyForm = { ...policy, interval: 0 };

function grantedAfter(firsts: number): number {
  const budget = new RetryBudget();
  for (let i = 0; i < firsts; i++) budget.countFirst(policy, 5_000);
  let granted = 0;
  while (budget.tryRetry(policy, 5_001, 0)) granted++;
  return granted;
}

test('first attempts in the window allow 20 % retries, at least three', () => {
  for (const [firsts, retries] of [
    [0, 3],
    [15, 3],
    [16, 3],
    [20, 4],
    [1_000, 200],
  ] as const) {
    assert.equal(grantedAfter(firsts), retries, `${firsts} first attempts`);
  }
});

test('without a window, active and pending requests allow 20 % retries in flight, at least three', () => {
  for (const [inFlight, retries] of [
    [5, 3],
    [20, 4],
    [100, 20],
  ] as const) {
    const budget = new RetryBudget();
    let granted = 0;
    while (budget.tryRetry(envoyForm, 0, inFlight)) granted++;
    assert.equal(granted, retries, `${inFlight} in flight`);
  }
});

test('without a window, a retry that ended makes room for another', () => {
  const budget = new RetryBudget();
  for (let i = 0; i < 3; i++) assert.ok(budget.tryRetry(envoyForm, 0, 10));
  assert.equal(budget.tryRetry(envoyForm, 0, 10), false);
  budget.endRetry();
  assert.equal(budget.activeRetries, 2);
  assert.ok(budget.tryRetry(envoyForm, 0, 10));
});

test('without a window, retries whose end was never told do not block the budget once the requests are gone', () => {
  const budget = new RetryBudget();
  while (budget.tryRetry(envoyForm, 0, 100));
  assert.ok(budget.tryRetry(envoyForm, 0, 1));
});

test('an end that was told once too often does no harm', () => {
  const budget = new RetryBudget();
  budget.endRetry();
  assert.equal(budget.activeRetries, 0);
});

test('what is older than the window counts no more, and what is younger does', () => {
  const budget = new RetryBudget();
  for (let i = 0; i < 100; i++) budget.countFirst(policy, 0);
  for (let i = 0; i < 20; i++) assert.ok(budget.tryRetry(policy, 100, 0));
  assert.equal(budget.tryRetry(policy, 8_999, 0), false);
  // Everything so far is in the first tenth; from 10 s on only the floor of three is left.
  for (let i = 0; i < 3; i++) assert.ok(budget.tryRetry(policy, 10_000, 0));
  assert.equal(budget.tryRetry(policy, 10_000, 0), false);
});

test('a pause longer than the window forgets everything', () => {
  const budget = new RetryBudget();
  for (let i = 0; i < 3; i++) assert.ok(budget.tryRetry(policy, 0, 0));
  assert.ok(budget.tryRetry(policy, 3_600_000, 0));
});

test('a changed interval starts a new window', () => {
  const budget = new RetryBudget();
  for (let i = 0; i < 3; i++) budget.tryRetry(policy, 0, 0);
  assert.ok(budget.tryRetry({ ...policy, interval: 1_000 }, 0, 0));
});

test('20 % of 5 attempts is exactly one retry', () => {
  assert.equal(allowedRetries({ percent: 20, minConcurrency: 0, interval: 1 }, 5), 1);
});

test('in any history a retry is granted exactly when the retries of the last ten parts are below the floor or a fifth of the first attempts', () => {
  const step = fc.record({
    wait: fc.integer({ min: 0, max: 3_000 }),
    firsts: fc.integer({ min: 0, max: 60 }),
    retries: fc.integer({ min: 0, max: 30 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const budget = new RetryBudget();
      const firsts: number[] = [];
      const retries: number[] = [];
      let now = 0;
      for (const { wait, firsts: f, retries: r } of steps) {
        now += wait;
        const part = Math.floor(now / 1_000);
        const inWindow = (at: number): boolean => Math.floor(at / 1_000) > part - 10;
        for (let i = 0; i < f; i++) {
          budget.countFirst(policy, now);
          firsts.push(now);
        }
        for (let i = 0; i < r; i++) {
          const expected = retries.filter(inWindow).length < Math.max(3, Math.floor(firsts.filter(inWindow).length / 5));
          assert.equal(budget.tryRetry(policy, now, 0), expected);
          if (expected) retries.push(now);
        }
      }
    }),
    { numRuns: 60 },
  );
});
