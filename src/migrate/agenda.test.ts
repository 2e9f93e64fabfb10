// When services are looked at: coalesced after a change, at their time, and once in five minutes.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Agenda } from './agenda.ts';

function bench(services: readonly string[] = []) {
  const clock = new FakeClock();
  const looked: string[] = [];
  const swept: string[] = [];
  const agenda = new Agenda({
    clock,
    look: (service) => void looked.push(service),
    turned: () => {},
    all: () => services,
    sweep: (service) => void swept.push(service),
  });
  return { clock, looked, swept, agenda };
}

describe('agenda', () => {
  it('a storm of changes of one service is one look, first come first served', async () => {
    const { clock, looked, agenda } = bench();
    for (let n = 0; n < 1_000; n++) agenda.add(n % 2 === 0 ? 'b' : 'a');
    assert.equal(agenda.oldest(), clock.now());
    await clock.advance(20);
    assert.deepEqual([looked, agenda.oldest(), clock.pending], [['b', 'a'], null, 0]);
  });

  it('many changed services are looked at in slices', async () => {
    const { clock, looked, agenda } = bench();
    for (let n = 0; n < 500; n++) agenda.add(`s${n}`);
    await clock.advance(20);
    assert.equal(looked.length, 200);
    await clock.advance(2);
    assert.equal(looked.length, 500);
  });

  it('one timer serves all that wait for time, whatever their order', async () => {
    const { clock, looked, agenda } = bench();
    const start = clock.now();
    for (const [service, ms] of [
      ['c', 3_000],
      ['a', 1_000],
      ['b', 2_000],
      ['never', Number.POSITIVE_INFINITY],
    ] as const)
      agenda.later(service, start + ms);
    assert.equal(clock.pending, 1);
    agenda.later('b', start + 500);
    agenda.drop('c');
    await clock.advance(600);
    assert.deepEqual(looked, ['b']);
    await clock.advance(5_000);
    assert.deepEqual(looked, ['b', 'a']);
  });

  it('the sweep visits each service once in five minutes, spread evenly', async () => {
    const services = Array.from({ length: 1_000 }, (_, n) => `s${n}`);
    const { clock, swept, agenda } = bench(services);
    agenda.start();
    await clock.advance(5_000);
    assert.equal(swept.length, 17);
    await clock.advance(295_000);
    assert.equal(new Set(swept).size, 1_000);
    agenda.close();
    assert.equal(clock.pending, 0);
  });

  it('without services the sweep costs nothing and goes on', async () => {
    const { clock, swept, agenda } = bench();
    agenda.start();
    await clock.advance(60_000);
    assert.deepEqual([swept, clock.pending], [[], 1]);
  });
});
