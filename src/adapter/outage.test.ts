import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { seededRandom } from '../kernel/random.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import { SourceError } from '../model/snapshot.ts';
import { HEALTHY_MS, Outage } from './outage.ts';

const LOST = new SourceError('lost', 'cut');
/** The wheel's tick and the clock's step. */
const LATE_MS = 50;

/** Streams by name that open at once when they may; what opened is in `opened`. */
function setup() {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock, 25);
  const outage = new Outage({ clock, random: seededRandom(3), wheel, maxBackoff: 30_000 });
  const streams = new Map<string, object>();
  const opened: { readonly name: string; readonly at: number }[] = [];
  const who = (name: string): object => {
    const known = streams.get(name) ?? { name };
    streams.set(name, known);
    return known;
  };
  return {
    clock,
    outage,
    opened,
    fail(name: string, live: boolean, error = LOST, ms = 500): void {
      outage.failed(who(name), error, live);
      outage.wait(who(name), ms, live, () => opened.push({ name, at: clock.now() }));
    },
    left: (name: string, live: boolean) => outage.left(who(name), live),
    names: () => opened.map(({ name }) => name),
  };
}

/** Lets time pass until one more opened; what opened, and the time it took. */
async function nextOpened({ clock, opened }: ReturnType<typeof setup>): Promise<{ name: string; after: number }> {
  const before = opened.length;
  const from = clock.now();
  while (opened.length === before) await clock.advance(25);
  assert.equal(opened.length, before + 1, 'one at a time');
  return { name: opened.at(-1)?.name ?? '', after: clock.now() - from };
}

describe('outage', () => {
  it('a stream that is lost alone waits its own time, whatever the others do', async () => {
    const { clock, outage, opened, fail } = setup();
    outage.answered();
    outage.answered();
    fail('a', true, LOST, 700);
    assert.equal(outage.nextTryAt, null);
    await clock.advance(699);
    assert.deepEqual(opened, []);
    await clock.advance(LATE_MS);
    assert.equal(opened.length, 1);
  });

  it('without a live stream one at a time goes ahead, in turn, on one back-off of R7', async () => {
    const rig = setup();
    const names = ['a', 'b', 'c'];
    for (const _ of names) rig.outage.answered();
    for (const name of names) rig.fail(name, true);
    for (let round = 0; round < 9; round++) {
      const { name, after } = await nextOpened(rig);
      const cap = Math.min(30_000, 1_000 * 2 ** round);
      assert.equal(name, names[round % names.length]);
      assert.ok(after >= cap / 2 && after <= cap + LATE_MS, `try ${round + 1} after ${after} of ${cap}`);
      rig.fail(name, false);
    }
  });

  it('the first answer lets all follow at once who wait for the source, and nobody who waits for himself', async () => {
    const rig = setup();
    const { outage, clock, fail } = rig;
    outage.answered();
    outage.answered();
    outage.answered();
    fail('broken', false, new SourceError('malformed', 'his own'), 25_000);
    for (const name of ['a', 'b', 'c']) fail(name, true, LOST, 20_000);
    const { name } = await nextOpened(rig);
    assert.equal(name, 'a');
    outage.answered();
    assert.deepEqual(rig.names(), ['a', 'b', 'c']);
    await clock.advance(26_000);
    assert.deepEqual(rig.names(), ['a', 'b', 'c', 'broken']);
  });

  it('a source that was never there is tried by one stream at a time, too', async () => {
    const rig = setup();
    for (const name of ['a', 'b', 'c']) rig.fail(name, false);
    await rig.clock.advance(120_000);
    assert.equal(rig.opened.length, 1, 'the first one is still under way');
  });

  it('a refusal of one stream before anything was live holds nobody else back', async () => {
    const { clock, outage, fail, names } = setup();
    fail('refused', false, new SourceError('refused', 'no such name'), 900);
    fail('also', false, new SourceError('refused', 'no such name'), 500);
    assert.equal(outage.nextTryAt, null);
    await clock.advance(1_000);
    assert.deepEqual(names(), ['also', 'refused']);
  });

  it('a try of one who is not wanted any more goes to the next one', async () => {
    const rig = setup();
    rig.outage.answered();
    rig.outage.answered();
    for (const name of ['a', 'b']) rig.fail(name, true);
    assert.equal((await nextOpened(rig)).name, 'a');
    rig.left('a', false);
    assert.deepEqual(rig.names(), ['a', 'b']);
  });

  it('counts anew only after 30 s of health', async () => {
    const rig = setup();
    const { clock, outage, fail } = rig;
    const cycle = async (healthyMs: number): Promise<number> => {
      outage.answered();
      await clock.advance(healthyMs);
      fail('a', true);
      return (await nextOpened(rig)).after;
    };
    for (let n = 0; n < 4; n++) await cycle(1_000);
    assert.ok((await cycle(1_000)) >= 8_000);
    assert.ok((await cycle(HEALTHY_MS)) <= 1_000 + LATE_MS);
  });

  it("a server's own word takes the place of the back-off, spread over half of it", async () => {
    const rig = setup();
    rig.outage.answered();
    rig.fail('a', true, new SourceError('lost', 'throttled', { retryAfterMs: 20_000 }));
    const { after } = await nextOpened(rig);
    assert.ok(after >= 20_000 && after <= 30_000 + LATE_MS, String(after));
  });

  it('property: after any sequence of losses and answers nobody waits for ever', async () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = seededRandom(seed);
      const rig = setup();
      const state = new Map<string, 'opening' | 'live' | 'waiting'>();
      for (const name of ['a', 'b', 'c', 'd']) state.set(name, 'opening');
      const sync = (): void => {
        for (const { name } of rig.opened.splice(0)) state.set(name, 'opening');
      };
      for (let step = 0; step < 60; step++) {
        const [name, now] = [...state][Math.floor(random() * state.size)] ?? assert.fail();
        if (now === 'opening' && random() < 0.3) {
          state.set(name, 'live');
          rig.outage.answered();
        } else if (now !== 'waiting') {
          state.set(name, 'waiting');
          rig.fail(name, now === 'live', random() < 0.2 ? new SourceError('denied', 'no') : LOST, random() * 30_000);
        }
        await rig.clock.advance(random() * 3_000);
        sync();
      }
      // From now on everything is answered.
      for (let step = 0; step < 70; step++) {
        for (const [name, now] of state) {
          if (now !== 'opening') continue;
          state.set(name, 'live');
          rig.outage.answered();
        }
        await rig.clock.advance(1_000);
        sync();
      }
      assert.deepEqual([...state.values()], ['live', 'live', 'live', 'live'], `seed ${seed}`);
    }
  });
});
