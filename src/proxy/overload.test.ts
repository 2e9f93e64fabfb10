// The ladder of proxy-semantics §16.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { MAX_BUFFERED_BYTES, MAX_IN_FLIGHT, OverloadGate, timeoutScale, watchPressure } from './overload.ts';

test('timeouts shrink linearly from 0.85 to a tenth at 0.95', () => {
  for (const [pressure, scale] of [
    [0, 1],
    [0.85, 1],
    [0.9, 0.55],
    [0.95, 0.1],
    [2, 0.1],
  ] as const) {
    assert.ok(Math.abs(timeoutScale(pressure) - scale) < 1e-9, String(pressure));
  }
});

const LADDER: readonly (readonly [number, boolean, boolean, boolean])[] = [
  [0.919, false, false, false],
  [0.92, true, false, false],
  [0.95, true, true, false],
  [0.98, true, true, true],
];

for (const [pressure, closing, shedding, stop] of LADDER) {
  test(`at ${pressure} the actions are close ${closing}, shed ${shedding}, stop ${stop}, whichever resource is short`, () => {
    for (const resource of ['memory', 'fds', 'loopDelay'] as const) {
      const gate = new OverloadGate();
      gate.update({ memory: 0, fds: 0, loopDelay: 0, [resource]: pressure });
      assert.deepEqual([gate.closing, gate.shedding, gate.stopAccepting, gate.full], [closing, shedding, stop, shedding]);
    }
  });
}

test('the gate is full at the caps of requests and of bytes', () => {
  const gate = new OverloadGate();
  gate.requests = MAX_IN_FLIGHT - 1;
  assert.equal(gate.full, false);
  gate.requests = MAX_IN_FLIGHT;
  assert.equal(gate.full, true);
  gate.requests = 0;
  gate.bytes = MAX_BUFFERED_BYTES;
  assert.equal(gate.full, true);
});

test('pressure is sampled every 250 ms and a change of actions is told once', async () => {
  const clock = new FakeClock();
  const gate = new OverloadGate();
  let memory = 0.5;
  let samples = 0;
  let changes = 0;
  const sampler = () => {
    samples++;
    return { memory, fds: 0, loopDelay: 0 };
  };
  const timer = watchPressure(gate, sampler, clock, () => changes++);
  await clock.advance(1_000);
  assert.deepEqual([samples, changes], [4, 0]);
  memory = 0.99;
  await clock.advance(500);
  assert.deepEqual([samples, changes, gate.stopAccepting], [6, 1, true]);
  timer.cancel();
  await clock.advance(1_000);
  assert.equal(samples, 6);
});
