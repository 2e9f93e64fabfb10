// What counts as pressure of the event loop.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAlive, LastingDelay, ownLife, PressureMeter } from './process-facts.ts';

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

test('a lock of a crashed life does not stop the next start when another process has got its pid', () => {
  const own = ownLife();
  assert.equal(isAlive(own), true);
  assert.equal(isAlive({ pid: own.pid, birth: 'another-boot 1' }), false);
  assert.equal(isAlive({ pid: 1, birth: '' }), true, 'unknown birth: whoever has the pid');
  assert.equal(isAlive({ pid: 2 ** 22 + 1, birth: '' }), false);
});
