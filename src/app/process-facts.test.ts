// What counts as pressure of the event loop and of the memory, and whose lock it is.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAlive, LastingDelay, MemoryPressure, ownLife, PressureMeter } from './process-facts.ts';

test('one stall of the event loop is no overload, however long: requests after it are served', () => {
  const lasting = new LastingDelay();
  const seen = [1, 1, 1, 1, 2_000, 1, 1, 2_000, 1, 1].map((delay) => lasting.after(delay));
  assert.ok(Math.max(...seen) <= 1, seen.join(' '));
});

test('a loop that is late at each of four looks is overloaded, until one look is good', () => {
  const lasting = new LastingDelay();
  const seen = [250, 300, 400, 350, 260, 5, 300].map((delay) => lasting.after(delay));
  assert.deepEqual(seen, [0, 0, 0, 250, 260, 5, 5]);
});

test('a meter shows shares of memory and descriptors, and no loop delay at its first looks', () => {
  const meter = new PressureMeter(1_000_000);
  const { memory, fds, loopDelay } = meter.sample();
  meter.close();
  assert.ok(memory > 0 && memory < 1);
  assert.ok(fds > 0 && fds < 0.1);
  assert.equal(loopDelay, 0);
});

/** A meter of memory on a clock and a memory of 100 that the test sets; a collection takes `takesMs` and leaves `leaves`. */
function memoryBench(takesMs = 10) {
  const state = { used: 50, now: 0, leaves: 40, collected: 0 };
  const meter = new MemoryPressure(
    () => ({ used: state.used, limit: 100 }),
    () => state.now,
    () => {
      state.collected++;
      state.now += takesMs;
      state.used = state.leaves;
      return takesMs;
    },
  );
  const sample = (used: number, afterMs = 250): number => {
    state.used = used;
    state.now += afterMs;
    return meter.sample();
  };
  return { state, sample };
}

test('memory that grew since the last look counts as if it grew as much again, and what shrank is what it is', () => {
  const { sample } = memoryBench();
  const seen = [60, 60, 70, 78, 65, 65].map((used) => sample(used));
  assert.deepEqual(seen, [0.6, 0.6, 0.8, 0.86, 0.65, 0.65]);
});

test('from 0.9 on what is garbage is collected, at once and then every 2 s, and what is left is the pressure', () => {
  const { state, sample } = memoryBench();
  assert.equal(sample(89), 0.89);
  assert.equal(state.collected, 0);
  assert.equal(sample(90), 0.41, 'the growth stays');
  assert.equal(state.collected, 1);
  state.leaves = 95;
  assert.ok(sample(95) >= 0.95);
  assert.equal(state.collected, 1, 'not at each look');
  for (let n = 0; n < 7; n++) sample(95);
  assert.equal(state.collected, 2);
});

test('collections take at most a twentieth of the time, however long one takes', () => {
  const { state, sample } = memoryBench(1_000);
  state.leaves = 95;
  const began = state.now;
  for (let n = 0; n < 400; n++) sample(95);
  const share = (state.collected * 1_000) / (state.now - began);
  assert.ok(share > 0.04 && share <= 0.0501, `${share}`);
});

test('a lock of a crashed life does not stop the next start when another process has got its pid', () => {
  const own = ownLife();
  assert.equal(isAlive(own), true);
  assert.equal(isAlive({ pid: own.pid, birth: 'another-boot 1' }), false);
  assert.equal(isAlive({ pid: 1, birth: '' }), true, 'unknown birth: whoever has the pid');
  assert.equal(isAlive({ pid: 2 ** 22 + 1, birth: '' }), false);
});
