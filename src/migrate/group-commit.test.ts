// What waits together is written together, and everyone hears of their own batch.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { settle } from '../../test/support/fake-clock.ts';
import { GroupCommit } from './group-commit.ts';

describe('a group commit', () => {
  it('writes what comes in one turn at once, and what comes meanwhile as the next batch', async () => {
    const batches: string[] = [];
    const gates: (() => void)[] = [];
    const commit = new GroupCommit<string>((items) => {
      batches.push(items.join(''));
      return new Promise((resolve) => gates.push(resolve));
    });
    const done: string[] = [];
    const add = (item: string): void => void commit.add([item]).then(() => done.push(item));
    add('a');
    add('b');
    await settle();
    add('c');
    add('d');
    await settle();
    assert.deepEqual([batches, done], [['ab'], []]);
    gates[0]?.();
    await settle();
    assert.deepEqual(
      [batches, done],
      [
        ['ab', 'cd'],
        ['a', 'b'],
      ],
    );
    gates[1]?.();
    await commit.idle();
    assert.deepEqual(done, ['a', 'b', 'c', 'd']);
  });

  it('rejects those of a batch that failed and goes on with the next', async () => {
    let fails = true;
    const commit = new GroupCommit<string>(async () => {
      if (fails) throw new Error('full');
    });
    const results = await Promise.allSettled([commit.add(['a']), commit.add(['b'])]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    fails = false;
    await commit.add(['c']);
    await commit.idle();
  });
});
