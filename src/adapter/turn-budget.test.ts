// How much runs in one turn, and in which order the rest follows.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TurnBudget } from './turn-budget.ts';

/** Each piece of work takes `ms` of a clock that only work moves. */
function rig(ms: number) {
  let now = 0;
  const budget = new TurnBudget({ now: () => now });
  const done: number[] = [];
  const run = (n: number): void =>
    budget.run(() => {
      now += ms;
      done.push(n);
    });
  return { run, done };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('TurnBudget', () => {
  it('runs at once what the turn has room for, and the rest in later turns, in order', async () => {
    const { run, done } = rig(1);
    for (let n = 0; n < 10; n++) run(n);
    assert.deepEqual(done, [0, 1, 2, 3]);
    await turn();
    assert.deepEqual(done, [0, 1, 2, 3, 4, 5, 6, 7]);
    // What comes meanwhile does not overtake what waits.
    run(10);
    await turn();
    await turn();
    assert.deepEqual(done, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  it('a piece that takes longer than the turn has is run all the same, alone', async () => {
    const { run, done } = rig(50);
    for (let n = 0; n < 3; n++) run(n);
    assert.deepEqual(done, [0]);
    await turn();
    assert.deepEqual(done, [0, 1]);
    await turn();
    assert.deepEqual(done, [0, 1, 2]);
  });

  it('a turn without work leaves the next one its whole room', async () => {
    const { run, done } = rig(3);
    run(0);
    run(1);
    await turn();
    await turn();
    run(2);
    run(3);
    assert.deepEqual(done, [0, 1, 2, 3]);
  });

  it('work may give more work', async () => {
    const budget = new TurnBudget({ now: () => 0 });
    const done: string[] = [];
    budget.run(() => {
      done.push('outer');
      budget.run(() => done.push('inner'));
    });
    assert.deepEqual(done, ['outer', 'inner']);
  });
});
