import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from '../kernel/clock.ts';
import { seededRandom } from '../kernel/random.ts';
import { SourceError } from '../model/snapshot.ts';
import { controlRetry } from './control-retry.ts';

const clock: Clock = systemClock;
const how = { clock, random: seededRandom(3), deadlineMs: 5_000, baseMs: 2 };
const never = new AbortController().signal;
const lost = () => new SourceError('lost', 'cut');

describe('controlRetry', () => {
  it('tries again after a loss, as often as it was told, for every call anew', async () => {
    for (let round = 0; round < 3; round++) {
      let calls = 0;
      const value = await controlRetry({ ...how, retries: 3 }, never, async () => {
        if (++calls < 4) throw lost();
        return 'done';
      });
      assert.deepEqual([value, calls], ['done', 4], 'a used-up policy would have given up in the second round');
    }
  });

  it('concurrent calls do not share their tries', async () => {
    const counts = [0, 0, 0];
    const call = (n: number) => async (): Promise<void> => {
      counts[n] = (counts[n] ?? 0) + 1;
      throw lost();
    };
    const results = await Promise.allSettled(counts.map((_, n) => controlRetry({ ...how, retries: 2 }, never, call(n))));
    assert.ok(results.every(({ status }) => status === 'rejected'));
    assert.deepEqual(counts, [3, 3, 3]);
  });

  it('makes at most four retries, whatever it was told', async () => {
    let calls = 0;
    const failing = controlRetry({ ...how, retries: 50 }, never, async () => {
      calls++;
      throw lost();
    });
    await assert.rejects(failing, SourceError);
    assert.equal(calls, 5);
  });

  it('does not repeat what another try cannot mend', async () => {
    for (const cause of ['denied', 'malformed', 'limit', 'refused', 'fenced'] as const) {
      let calls = 0;
      const failing = controlRetry(how, never, async () => {
        calls++;
        throw new SourceError(cause, 'no');
      });
      await assert.rejects(failing, (thrown) => thrown instanceof SourceError && thrown.causeKind === cause);
      assert.equal(calls, 1, cause);
    }
  });

  it('a synchronous throw on a retry rejects and does not escape', async () => {
    let calls = 0;
    const failing = controlRetry(how, never, () => {
      if (++calls === 1) return Promise.reject(lost());
      throw new TypeError('bug');
    });
    await assert.rejects(failing, (thrown) => thrown instanceof SourceError && thrown.message === 'bug');
  });

  it('an abort rejects at once with its reason and no further call is made', async () => {
    const controller = new AbortController();
    const reason = new Error('stop');
    let calls = 0;
    const failing = controlRetry({ ...how, baseMs: 40 }, controller.signal, async () => {
      calls++;
      queueMicrotask(() => controller.abort(reason));
      throw lost();
    });
    await assert.rejects(failing, (thrown) => thrown === reason);
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(calls, 1);
    await assert.rejects(
      controlRetry(how, controller.signal, async () => 1),
      (thrown) => thrown === reason,
    );
  });

  it('the deadline ends it, also when a call hangs', async () => {
    const from = clock.now();
    const failing = controlRetry({ ...how, deadlineMs: 40 }, never, () => new Promise(() => {}));
    await assert.rejects(failing, (thrown) => thrown instanceof SourceError && thrown.causeKind === 'lost');
    assert.ok(clock.now() - from < 10_000);
  });

  it('does not wait longer than two seconds for a registry that asks to come back later', async () => {
    let calls = 0;
    const failing = controlRetry(how, never, async () => {
      calls++;
      throw new SourceError('lost', 'throttled', { retryAfterMs: 60_000 });
    });
    await assert.rejects(failing, SourceError);
    assert.equal(calls, 1);
  });
});
