import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_BREAKER } from '../model/policy.ts';
import { Breaker, sleepTime } from './breaker.ts';

const policy = DEFAULT_BREAKER;

function openedAt(now: number): Breaker {
  const breaker = new Breaker();
  for (let i = 0; i < 10; i++) breaker.failure(policy, now);
  assert.equal(breaker.kind, 'open');
  return breaker;
}

test('the tenth failure in a row opens, the ninth does not', () => {
  const breaker = new Breaker();
  for (let i = 0; i < 9; i++) assert.equal(breaker.failure({ ...policy, minimumRequests: 100 }, i), false);
  assert.ok(breaker.closed);
  assert.equal(breaker.failure({ ...policy, minimumRequests: 100 }, 9), true);
  assert.equal(breaker.kind, 'open');
  assert.equal(breaker.openUntil, 30_009);
});

test('a success in between starts the row anew', () => {
  const breaker = new Breaker();
  const patient = { ...policy, minimumRequests: 1_000 };
  for (let i = 0; i < 9; i++) breaker.failure(patient, 0);
  breaker.success(patient, 0);
  for (let i = 0; i < 9; i++) assert.equal(breaker.failure(patient, 0), false);
  assert.equal(breaker.failure(patient, 0), true);
});

test('half of ten results in the window opens, four of ten does not', () => {
  const breaker = new Breaker();
  for (let i = 0; i < 6; i++) breaker.success(policy, i);
  for (let i = 0; i < 4; i++) assert.equal(breaker.failure(policy, i), false);
  breaker.success(policy, 10);
  // 5 of 12, then 6 of 13, then 7 of 14.
  assert.equal(breaker.failure(policy, 11), false);
  assert.equal(breaker.failure(policy, 12), false);
  assert.equal(breaker.failure(policy, 13), true);
});

test('nine results are too few for the rate', () => {
  const breaker = new Breaker();
  for (let i = 0; i < 4; i++) breaker.success(policy, 0);
  for (let i = 0; i < 5; i++) assert.equal(breaker.failure(policy, 0), false);
  assert.equal(breaker.failure(policy, 0), true, '6 of 10');
});

test('results older than the window do not count for the rate', () => {
  const breaker = new Breaker();
  for (let i = 0; i < 8; i++) {
    breaker.failure(policy, 0);
    if (i % 4 === 3) breaker.success({ ...policy, minimumRequests: 1_000 }, 0);
  }
  assert.ok(breaker.closed);
  assert.equal(breaker.failure(policy, 60_000), false, 'the eight failures of the first bucket have left');
});

test('an open breaker wakes at the end of its sleep window, not before, with exactly one slot', () => {
  const breaker = openedAt(1_000);
  assert.equal(breaker.wake(30_999), false);
  assert.equal(breaker.slotFree, false);
  assert.equal(breaker.takeSlot(), false);
  assert.equal(breaker.wake(31_000), true);
  assert.equal(breaker.kind, 'halfOpen');
  assert.ok(breaker.slotFree);
  assert.ok(breaker.takeSlot());
  assert.equal(breaker.slotFree, false);
  assert.equal(breaker.takeSlot(), false, 'the slot is taken');
});

test('a probe that succeeds closes, with every counter at its start', () => {
  const breaker = openedAt(0);
  breaker.wake(30_000);
  breaker.takeSlot();
  breaker.probeSucceeded(policy);
  assert.equal(breaker.kind, 'closed');
  for (let i = 0; i < 9; i++) assert.equal(breaker.failure(policy, 30_000), false);
  assert.equal(breaker.failure(policy, 30_000), true);
});

test('each failed probe doubles the sleep, up to 300 s; a close resets it', () => {
  const breaker = openedAt(0);
  let now = 0;
  const sleeps: number[] = [];
  for (let i = 0; i < 6; i++) {
    sleeps.push(breaker.openUntil - now);
    now = breaker.openUntil;
    breaker.wake(now);
    breaker.takeSlot();
    breaker.probeFailed(policy, now);
  }
  assert.deepEqual(sleeps, [30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
  now = breaker.openUntil;
  breaker.wake(now);
  breaker.takeSlot();
  breaker.probeSucceeded(policy);
  for (let i = 0; i < 10; i++) breaker.failure(policy, now);
  assert.equal(breaker.openUntil - now, 30_000);
});

test('with three successes asked for, each frees the slot and only the third closes', () => {
  const strict = { ...policy, halfOpenSuccesses: 3 };
  const breaker = openedAt(0);
  breaker.wake(30_000);
  for (let i = 0; i < 3; i++) {
    assert.equal(breaker.kind, 'halfOpen');
    assert.ok(breaker.takeSlot());
    breaker.probeSucceeded(strict);
  }
  assert.equal(breaker.kind, 'closed');
});

test('a probe that told nothing frees the slot and changes nothing', () => {
  const breaker = openedAt(0);
  breaker.wake(30_000);
  breaker.takeSlot();
  breaker.probeIgnored(30_000);
  assert.equal(breaker.kind, 'halfOpen');
  assert.ok(breaker.takeSlot());
});

test('attempts that started before the opening change neither an open nor a half-open breaker', () => {
  const breaker = openedAt(0);
  breaker.success(policy, 1);
  assert.equal(breaker.failure(policy, 1), false);
  assert.equal(breaker.openUntil, 30_000);
  breaker.wake(30_000);
  breaker.takeSlot();
  breaker.success(policy, 30_001);
  assert.equal(breaker.failure(policy, 30_001), false);
  assert.equal(breaker.kind, 'halfOpen');
  assert.equal(breaker.slotFree, false);
});

test('the slot is offered early a second after the opening, not before, and only by offerEarly', () => {
  const breaker = openedAt(1_000);
  assert.equal(breaker.wakeAt, 2_000);
  assert.equal(breaker.offerEarly(1_999), false);
  assert.equal(breaker.wake(2_000), false);
  assert.equal(breaker.takeSlot(), false);
  assert.equal(breaker.offerEarly(2_000), true);
  assert.equal(breaker.offerEarly(2_000), false, 'offered already');
  assert.ok(breaker.earlySlotFree);
  assert.equal(breaker.slotFree, false, 'not a regular slot');
  assert.equal(breaker.wakeAt, 31_000, 'next is the end of the window');
  assert.ok(breaker.takeSlot());
  assert.equal(breaker.kind, 'halfOpen');
  assert.equal(breaker.takeSlot(), false, 'exactly one');
  assert.ok(breaker.sleeping, 'still inside its window');
});

test('early probes that fail leave the window and its doubling as they were; the regular one after them doubles once', () => {
  const breaker = openedAt(0);
  for (let now = 1_000; now <= 28_000; now += 1_000) {
    assert.ok(breaker.offerEarly(now));
    assert.ok(breaker.takeSlot());
    breaker.probeFailed(policy, now);
    assert.equal(breaker.kind, 'open');
    assert.equal(breaker.openUntil, 30_000, `after the probe at ${now}`);
  }
  assert.ok(breaker.wake(30_000));
  assert.equal(breaker.sleeping, false);
  assert.ok(breaker.takeSlot());
  breaker.probeFailed(policy, 30_000);
  assert.equal(breaker.openUntil, 90_000);
});

test('an early probe that succeeds closes with every counter at its start, also the doubling', () => {
  const breaker = openedAt(0);
  breaker.wake(30_000);
  breaker.takeSlot();
  breaker.probeFailed(policy, 30_000);
  assert.ok(breaker.offerEarly(31_000));
  breaker.takeSlot();
  breaker.probeSucceeded(policy);
  assert.equal(breaker.kind, 'closed');
  assert.equal(breaker.wakeAt, 0);
  for (let i = 0; i < 10; i++) breaker.failure(policy, 40_000);
  assert.equal(breaker.openUntil, 70_000);
});

test('an early probe that told nothing is offered again a second later', () => {
  const breaker = openedAt(0);
  breaker.offerEarly(1_000);
  breaker.takeSlot();
  breaker.probeIgnored(1_200);
  assert.equal(breaker.kind, 'open');
  assert.equal(breaker.openUntil, 30_000);
  assert.equal(breaker.offerEarly(2_199), false);
  assert.equal(breaker.offerEarly(2_200), true);
});

test('an early probe in flight at the end of the window is awaited; its failure does not double, and the regular slot comes a second later', () => {
  const breaker = openedAt(0);
  breaker.offerEarly(29_900);
  breaker.takeSlot();
  assert.equal(breaker.wakeAt, 0);
  assert.equal(breaker.wake(30_000), false);
  breaker.probeFailed(policy, 30_500);
  assert.equal(breaker.wakeAt, 31_500);
  assert.ok(breaker.wake(31_500));
  breaker.takeSlot();
  breaker.probeFailed(policy, 31_500);
  assert.equal(breaker.openUntil, 91_500, 'doubled once, for the regular probe');
});

test('with three successes asked for, an early one frees the slot at once, and a failure among them does not double', () => {
  const strict = { ...policy, halfOpenSuccesses: 3 };
  const breaker = openedAt(0);
  breaker.offerEarly(1_000);
  breaker.takeSlot();
  breaker.probeSucceeded(strict);
  assert.ok(breaker.earlySlotFree);
  assert.equal(breaker.wakeAt, 30_000);
  assert.ok(breaker.takeSlot());
  breaker.probeFailed(strict, 1_100);
  assert.equal(breaker.openUntil, 30_000);
  breaker.offerEarly(2_100);
  for (let i = 0; i < 3; i++) {
    assert.ok(breaker.takeSlot());
    breaker.probeSucceeded(strict);
  }
  assert.equal(breaker.kind, 'closed');
});

test('half closed by early successes, it is regular from the end of the window on', () => {
  const strict = { ...policy, halfOpenSuccesses: 2 };
  const breaker = openedAt(0);
  breaker.offerEarly(1_000);
  breaker.takeSlot();
  breaker.probeSucceeded(strict);
  assert.ok(breaker.wake(30_000));
  assert.ok(breaker.slotFree);
  assert.equal(breaker.sleeping, false);
  breaker.takeSlot();
  breaker.probeSucceeded(strict);
  assert.equal(breaker.kind, 'closed');
});

test('a sleep window below a second is not stretched to it', () => {
  const quick = { ...policy, sleepWindow: 200 };
  const breaker = new Breaker();
  for (let i = 0; i < 10; i++) breaker.failure(quick, 0);
  assert.equal(breaker.wakeAt, 200);
  assert.ok(breaker.wake(200));
});

test('a probe result without a half-open state is ignored', () => {
  const breaker = new Breaker();
  breaker.probeFailed(policy, 0);
  breaker.probeSucceeded(policy);
  breaker.probeIgnored(30_000);
  assert.equal(breaker.kind, 'closed');
});

test('a cap below the sleep window does not shorten it', () => {
  assert.equal(sleepTime({ ...policy, sleepWindow: 30_000, maxSleepWindow: 10_000 }, 0), 30_000);
});

test('a rate over the window is counted as a plain list of results would be', () => {
  const step = fc.record({ wait: fc.integer({ min: 0, max: 20_000 }), failed: fc.boolean() });
  // Only the rate: the row never gets long enough.
  const rate = { ...policy, consecutiveFailures: 1_000_000 };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const breaker = new Breaker();
      const results: { bucket: number; failed: boolean }[] = [];
      let now = 0;
      for (const { wait, failed } of steps) {
        now += wait;
        const bucket = Math.floor(now / 6_000);
        results.push({ bucket, failed });
        const inWindow = results.filter((result) => result.bucket > bucket - 10);
        const failures = inWindow.filter((result) => result.failed).length;
        const expected = failed && inWindow.length >= 10 && failures * 2 >= inWindow.length;
        if (failed) assert.equal(breaker.failure(rate, now), expected);
        else breaker.success(rate, now);
        if (expected) return;
      }
    }),
  );
});
