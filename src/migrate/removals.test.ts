// How fast copies may go.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Removals } from './removals.ts';

const S = 'default/web';

describe('removals', () => {
  it('leave 15 % of a service a minute, at least one, in any minute', () => {
    const removals = new Removals(15);
    assert.equal(removals.left('b', S, 100, 0).count, 15);
    assert.equal(removals.left('b', S, 3, 0).count, 1);
    for (let n = 0; n < 15; n++) removals.take('b', S, n * 1_000);
    assert.deepEqual(removals.left('b', S, 85, 20_000), { count: 0, nextAt: 60_000 });
    assert.equal(removals.left('b', S, 85, 61_000).count, 1);
    assert.equal(removals.left('b', 'default/other', 85, 20_000).count, 12);
  });

  it('never let more than the share of what stood a minute ago go in any minute', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 60 }),
        (copies, steps) => {
          const removals = new Removals(15);
          const times: number[] = [];
          let now = 0;
          for (const step of steps) {
            now += step;
            const { count } = removals.left('b', S, copies - times.length, now);
            for (let n = 0; n < count && times.length < copies; n++) {
              removals.take('b', S, now);
              times.push(now);
            }
          }
          for (const at of times) {
            const inMinute = times.filter((time) => time >= at && time < at + 60_000).length;
            assert.ok(inMinute <= Math.max(1, Math.floor(copies * 0.15)), `${inMinute} of ${copies}`);
          }
        },
      ),
    );
  });

  it('forget services that lost nothing for a minute', () => {
    const removals = new Removals(15);
    removals.take('b', S, 0);
    removals.sweep(59_000);
    assert.equal(removals.size, 1);
    removals.sweep(60_000);
    assert.equal(removals.size, 0);
  });
});
