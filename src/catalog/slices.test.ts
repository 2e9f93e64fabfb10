import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { Slices } from './slices.ts';

describe('slices', () => {
  it('works on each item once, in order, and ends a slice after 5 ms', async () => {
    const clock = new FakeClock();
    const slices: number[][] = [[]];
    let turn = 0;
    const queue = new Slices<number>(clock, (n) => {
      if (turn !== slices.length) {
        setImmediate(() => slices.push([]));
        turn = slices.length;
      }
      slices.at(-1)?.push(n);
      clock.advanceSync(0.5);
    });
    for (let n = 0; n < 100; n++) queue.add(n % 90);
    assert.equal(queue.size, 90);
    await settle(20);
    assert.deepEqual(
      slices.flat(),
      Array.from({ length: 90 }, (_, n) => n),
    );
    assert.ok(
      slices.every((slice) => slice.length <= 16),
      'the clock is looked at every 16 items',
    );
    assert.equal(queue.size, 0);
  });

  it('items that are added while it works are worked on, deleted ones are not, and a closed queue does nothing', async () => {
    const seen: string[] = [];
    const queue = new Slices<string>(new FakeClock(), (one) => {
      seen.push(one);
      if (one === 'a') queue.add('late');
      if (one === 'a') queue.delete('gone');
    });
    for (const one of ['a', 'gone', 'b']) queue.add(one);
    await settle();
    assert.deepEqual(seen, ['a', 'b', 'late']);
    queue.add('c');
    queue.close();
    queue.add('d');
    await settle();
    assert.equal(seen.length, 3);
  });
});
