import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { Clock } from './clock.ts';
import { Deadline, TimerWheel } from './timer-wheel.ts';

test('a deadline never fires early and at most one tick late', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 60_000 }), { minLength: 1, maxLength: 50 }),
      fc.integer({ min: 0, max: 19 }),
      (waits, phase) => {
        const clock = new FakeClock(1_000 + phase);
        const wheel = new TimerWheel(clock, 20, 64);
        const start = clock.now();
        const fired: { wanted: number; at: number }[] = [];
        for (const wait of waits) {
          wheel.arm(new Deadline(() => fired.push({ wanted: start + wait, at: clock.now() })), wait);
        }
        clock.advanceSync(61_000);
        assert.equal(fired.length, waits.length);
        for (const { wanted, at } of fired) {
          assert.ok(at >= wanted, `fired ${wanted - at} ms early`);
          assert.ok(at - wanted <= 40, `fired ${at - wanted} ms late`);
        }
        assert.equal(wheel.armed, 0);
      },
    ),
    { numRuns: 200 },
  );
});

test('a disarmed deadline does not fire, and one armed again fires once at its new time', () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const fired: number[] = [];
  const gone = new Deadline(() => fired.push(-1));
  const moved = new Deadline(() => fired.push(clock.now()));
  wheel.arm(gone, 100);
  wheel.arm(moved, 100);
  wheel.disarm(gone);
  wheel.disarm(gone);
  wheel.arm(moved, 500);
  clock.advanceSync(450);
  assert.deepEqual(fired, []);
  clock.advanceSync(100);
  assert.equal(fired.length, 1);
  assert.equal(wheel.armed, 0);
});

test('the wheel sets no timer while nothing is armed, and none after close', () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  assert.equal(clock.pending, 0);
  const deadline = new Deadline(() => assert.fail('closed'));
  wheel.arm(deadline, 10);
  wheel.disarm(deadline);
  clock.advanceSync(100);
  assert.equal(clock.pending, 0);
  wheel.arm(deadline, 10);
  wheel.close();
  clock.advanceSync(100);
  assert.equal(clock.pending, 0);
  wheel.arm(deadline, 10);
  assert.equal(clock.pending, 0);
});

test('a callback may disarm its neighbours and arm itself again', () => {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock, 20, 8);
  let rounds = 0;
  const victim = new Deadline(() => assert.fail('was disarmed'));
  const first: Deadline = new Deadline(() => {
    wheel.disarm(victim);
    if (++rounds < 3) wheel.arm(first, 0);
  });
  wheel.arm(first, 10);
  wheel.arm(victim, 10);
  clock.advanceSync(200);
  assert.equal(rounds, 3);
});

test('a stall of many turns fires everything that is due, with its lateness', () => {
  let now = 1_000;
  let tick: (() => void) | null = null;
  const clock: Clock = {
    now: () => now,
    wallNow: () => now,
    setTimer(_ms, fn) {
      tick = fn;
      return { cancel() {} };
    },
    sleep: () => Promise.reject(new Error('not used')),
  };
  const wheel = new TimerWheel(clock, 20, 8);
  const late: number[] = [];
  for (const wait of [10, 100, 500, 4_000]) wheel.arm(new Deadline((ms) => late.push(wait + ms)), wait);
  wheel.arm(new Deadline(() => assert.fail('not due yet')), 6_000);
  now += 5_000;
  const fire: (() => void) | null = tick;
  assert.ok(fire !== null);
  Reflect.apply(fire, undefined, []);
  assert.deepEqual(late, [5_000, 5_000, 5_000, 5_000]);
  assert.equal(wheel.armed, 1);
});
