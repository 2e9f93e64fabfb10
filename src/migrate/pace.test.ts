// Calls to one target: not more than so many a second, a batch being one.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Pace } from './pace.ts';

const never = new AbortController().signal;

describe('pace', () => {
  it('lets a small burst through at once and then keeps the rate', async () => {
    const clock = new FakeClock();
    const pace = new Pace(clock, 50);
    let sent = 0;
    const sending = (async () => {
      for (;;) {
        await pace.spend(1, never);
        sent++;
        if (sent === 200) return;
      }
    })();
    await clock.advance(0);
    assert.equal(sent, 10);
    await clock.advance(1_000);
    assert.ok(sent >= 58 && sent <= 61, `${sent} calls in the first second`);
    await clock.advance(3_000);
    await sending;
  });

  it('does not save up more than a burst', async () => {
    const clock = new FakeClock();
    const pace = new Pace(clock, 10);
    await clock.advance(60_000);
    await pace.spend(2, never);
    let third = false;
    const waiting = pace.spend(1, never).then(() => {
      third = true;
    });
    await clock.advance(50);
    assert.equal(third, false);
    await clock.advance(60);
    await waiting;
  });

  it('counts a batch by the calls that it is worth, and cuts batches to a burst', () => {
    assert.deepEqual([Pace.calls(100, 100), Pace.calls(101, 100), Pace.calls(7, 1)], [1, 2, 7]);
    const pace = new Pace(new FakeClock(), 50);
    assert.deepEqual([pace.batchSize(1), pace.batchSize(100), pace.batchSize(5)], [10, 100, 50]);
    assert.equal(new Pace(new FakeClock(), 1).batchSize(1), 1);
  });

  it('gives up with its signal', async () => {
    const pace = new Pace(new FakeClock(), 1);
    const stop = new AbortController();
    await pace.spend(1, stop.signal);
    const waiting = pace.spend(1, stop.signal);
    stop.abort(new Error('over'));
    await assert.rejects(waiting, /over/);
  });
});
