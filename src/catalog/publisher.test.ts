import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { seededRandom } from '../kernel/random.ts';
import { type Publishable, Publisher } from './publisher.ts';

interface Item extends Publishable {
  readonly name: string;
}

const item = (name: string): Item => ({ name, publishedAt: Number.NEGATIVE_INFINITY, dueStep: 0 });

function setup() {
  const clock = new FakeClock();
  const sent: { name: string; at: number }[] = [];
  const publisher = new Publisher<Item>(clock, ({ name }) => sent.push({ name, at: clock.now() }));
  return { clock, sent, publisher };
}

describe('publisher', () => {
  it('first at once, the next after 200 ms, urgent ones at once and instead of the waiting one', async () => {
    const { clock, sent, publisher } = setup();
    const a = item('a');
    publisher.changed(a, false);
    publisher.changed(a, false);
    assert.equal(sent.length, 1);
    await clock.advance(100);
    publisher.changed(a, true);
    assert.equal(sent.length, 2);
    await clock.advance(1_000);
    assert.equal(sent.length, 2, 'what waited went along with the urgent one');
    assert.equal(clock.pending, 0);
  });

  it('an item that is forgotten is not sent any more', async () => {
    const { clock, sent, publisher } = setup();
    const a = item('a');
    publisher.changed(a, false);
    publisher.changed(a, false);
    publisher.forget(a);
    await clock.advance(1_000);
    assert.equal(sent.length, 1);
  });

  it('one timer serves any number of items', () => {
    const { clock, publisher } = setup();
    for (let i = 0; i < 500; i++) {
      const one = item(`i${i}`);
      publisher.changed(one, false);
      publisher.changed(one, false);
      clock.advanceSync(0.1);
    }
    assert.equal(clock.pending, 1);
    publisher.close();
    assert.equal(clock.pending, 0);
  });

  it('for random changes each item is sent at most once per 200 ms and the last change within 220 ms', async () => {
    const { clock, sent, publisher } = setup();
    const random = seededRandom(5);
    const items = Array.from({ length: 20 }, (_, i) => item(`i${i}`));
    const changedAt = new Map<string, number>();
    for (let i = 0; i < 2_000; i++) {
      const one = items[Math.floor(random() * items.length)];
      if (one === undefined) continue;
      publisher.changed(one, false);
      changedAt.set(one.name, clock.now());
      await clock.advance(Math.floor(random() * 10));
    }
    await clock.advance(1_000);
    for (const { name } of items) {
      const times = sent.filter((one) => one.name === name).map((one) => one.at);
      for (let i = 1; i < times.length; i++) assert.ok((times[i] ?? 0) - (times[i - 1] ?? 0) >= 200);
      const late = (times.at(-1) ?? 0) - (changedAt.get(name) ?? 0);
      assert.ok(late >= 0 && late <= 220, `${name}: ${late}`);
    }
  });
});
