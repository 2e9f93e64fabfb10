// Pages reach the store many at once, one call at a time, and none is dropped by a failure.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { seededRandom } from '../kernel/random.ts';
import { SourceError } from '../model/snapshot.ts';
import { Saver } from './saver.ts';

function bench() {
  const clock = new FakeClock();
  const calls: string[][] = [];
  const state = { fail: null as SourceError | null, gate: Promise.resolve(), errors: 0, under: 0 };
  const saver = new Saver({
    clock,
    random: seededRandom(1),
    page: (service) => (service === 'gone' ? undefined : { service, baseline: [], entries: [] }),
    save: async (pages) => {
      assert.equal(state.under++, 0, 'one call at a time');
      await state.gate;
      state.under--;
      if (state.fail !== null) throw state.fail;
      calls.push(pages.map(({ service, baseline }) => (baseline === null ? `${service}!` : service)));
    },
    onResult: (error) => {
      if (error !== null) state.errors++;
    },
  });
  return { clock, calls, state, saver };
}

describe('saver', () => {
  it('saves each page once however often it was marked, and what holds nothing as an empty page', async () => {
    const { saver, calls } = bench();
    for (const service of ['a', 'b', 'a', 'gone']) saver.mark(service);
    await saver.flush();
    await saver.flush();
    assert.deepEqual(calls, [['a', 'b', 'gone!']]);
  });

  it('what is marked during a call goes into the next one, and a flush waits for it', async () => {
    const { saver, calls, state } = bench();
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    saver.mark('a');
    const first = saver.flush();
    saver.mark('b');
    const second = saver.flush();
    saver.mark('c');
    const third = saver.flush();
    gate.resolve();
    await Promise.all([first, second, third]);
    assert.deepEqual(calls, [['a'], ['b', 'c']]);
  });

  it('a failure rejects, loses no mark, and `soon` tries until it is saved', async () => {
    const { saver, calls, state, clock } = bench();
    state.fail = new SourceError('lost', 'disk');
    saver.mark('a');
    await assert.rejects(saver.flush(), /disk/);
    assert.equal(saver.waiting, 1);
    saver.soon();
    await clock.advance(5_000);
    assert.ok(state.errors >= 3);
    state.fail = null;
    await clock.advance(10_000);
    assert.deepEqual([calls, saver.waiting], [[['a']], 0]);
    assert.equal(clock.pending, 0);
  });

  it('a flush after a failed call is a new try', async () => {
    const { saver, calls, state } = bench();
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    state.fail = new SourceError('lost', 'disk');
    saver.mark('a');
    const first = saver.flush().catch(() => {
      state.fail = null;
    });
    const second = saver.flush();
    gate.resolve();
    await Promise.all([first, second]);
    assert.deepEqual(calls, [['a']]);
  });

  it('saves at its close and sets no timer then', async () => {
    const { saver, calls, clock } = bench();
    saver.mark('a');
    saver.soon();
    await saver.close();
    saver.soon();
    assert.deepEqual([calls, clock.pending], [[['a']], 0]);
  });

  it('that is abandoned tries nothing again, also when a call is under way', async () => {
    const { saver, calls, state, clock } = bench();
    state.fail = new SourceError('fenced', 'another owner writes');
    saver.mark('a');
    saver.soon();
    await clock.advance(50);
    assert.equal(state.errors, 1);
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    await clock.advance(10_000);
    saver.abandon();
    gate.resolve();
    await clock.advance(60_000);
    assert.deepEqual([calls, state.errors, clock.pending], [[], 2, 0]);
  });
});
