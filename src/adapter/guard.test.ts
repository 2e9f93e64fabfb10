// How soon servers that failed may be tried again.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { SourceError } from '../model/snapshot.ts';
import { Guard } from './guard.ts';

function failure(message = 'reset'): SourceError {
  return new SourceError('lost', message);
}

/** How long the guard says no after each of `n` failures in a row, ms. */
function waits(n: number, free?: number): number[] {
  const clock = new FakeClock();
  const guard = new Guard(clock, free);
  return Array.from({ length: n }, () => {
    guard.failed(failure(), 0);
    return guard.tooEarly()?.retryAfterMs ?? 0;
  });
}

describe('guard', () => {
  it('lets no try through for 0.5 s, 1 s ... 15 s after failures in a row', () => {
    assert.deepEqual(waits(8), [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
    assert.equal(waits(2_000).at(-1), 15_000);
  });

  it('lets each of several servers have one try first', () => {
    assert.deepEqual(waits(5, 3), [0, 0, 0, 500, 1_000]);
  });

  it('says the last failure as long as it is too early, and then nothing', async () => {
    const clock = new FakeClock();
    const guard = new Guard(clock);
    assert.equal(guard.tooEarly(), null);
    const denied = new SourceError('denied', 'no such token');
    guard.failed(failure(), 0);
    guard.failed(denied, 0);
    await clock.advance(400);
    const said = guard.tooEarly();
    assert.deepEqual([said?.causeKind, said?.message, said?.retryAfterMs, said?.cause], ['denied', 'no such token', 600, denied]);
    await clock.advance(600);
    assert.equal(guard.tooEarly(), null);
  });

  it('counts anew after a connection that stood for 30 s, and not before', () => {
    const clock = new FakeClock();
    const guard = new Guard(clock);
    const after = (livedMs: number): number | undefined => {
      guard.failed(failure(), livedMs);
      return guard.tooEarly()?.retryAfterMs;
    };
    assert.deepEqual([after(0), after(29_999), after(30_000)], [500, 1_000, 500]);
  });
});
