// The rules of blocking queries against the test vectors of the protocol notes, section 10.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Bucket, type Cursor, deadlineMs, START, step, waitMs } from './blocking.ts';

type Backend = 'blocking-query' | 'streaming';

/** The indexes that are asked with, for answers in this order; `null`: none. */
function asked(
  answers: readonly (readonly [bigint, Backend])[],
  streamable: boolean,
): { asked: (bigint | null)[]; regresses: number } {
  let cursor: Cursor = START;
  const indexes: (bigint | null)[] = [null];
  let regresses = 0;
  for (const [index, backend] of answers) {
    const { next, regress } = step(cursor, index, backend, streamable);
    cursor = next;
    if (regress) regresses++;
    indexes.push(cursor.index);
  }
  return { asked: indexes, regresses };
}

describe('index of the next request', () => {
  it('follows a plain backend and starts without index when it goes back', () => {
    const plain = [10n, 12n, 5n, 5n, 6n].map((index) => [index, 'blocking-query'] as const);
    assert.deepEqual(asked(plain, false), { asked: [null, 10n, 12n, null, 5n, 6n], regresses: 1 });
  });

  it('starts streaming with 1, whatever the plain index was, and counts no new epoch for the change of backends', () => {
    const answers = [[331n, 'blocking-query'] as const, [115n, 'streaming'] as const];
    assert.deepEqual(asked(answers, true), { asked: [null, 1n, 115n], regresses: 0 });
  });

  it('starts streaming anew with 1 when its own index goes back', () => {
    const answers = [[10n, 'blocking-query'] as const, [12n, 'streaming'] as const, [5n, 'streaming'] as const];
    assert.deepEqual(asked(answers, true), { asked: [null, 1n, 12n, 1n], regresses: 1 });
  });

  it('never sends index 0', () => {
    assert.deepEqual(
      asked(
        [
          [10n, 'blocking-query'],
          [0n, 'blocking-query'],
          [0n, 'blocking-query'],
        ],
        false,
      ).asked,
      [null, 10n, 1n, 1n],
    );
  });

  it('asks plainly again when streaming knows nothing', () => {
    assert.deepEqual(
      asked(
        [
          [331n, 'blocking-query'],
          [1n, 'streaming'],
        ],
        true,
      ).asked,
      [null, 1n, null],
    );
  });

  it('takes a server without streaming as it is', () => {
    const answers = [[331n, 'blocking-query'] as const, [331n, 'blocking-query'] as const, [340n, 'blocking-query'] as const];
    assert.deepEqual(asked(answers, true), { asked: [null, 1n, 331n, 340n], regresses: 0 });
  });
});

describe('pace', () => {
  /** Requests in `ms` when the server answers at once, each answer changed or not. */
  function requests(ms: number, changed: (n: number) => boolean): number[] {
    const bucket = new Bucket(0);
    const at: number[] = [];
    for (let now = 0; ; ) {
      now += bucket.take(now);
      if (now > ms) return at;
      at.push(now);
      bucket.returned(changed(at.length), now);
    }
  }

  it('1,000 changing answers a second make at most 2 requests a second', () => {
    const at = requests(60_000, () => true);
    assert.ok(at.length <= 62, `${at.length} in a minute`);
    for (const start of at) assert.ok(at.filter((one) => one >= start && one < start + 1_000).length <= 3);
  });

  it('answers without news make at most 4 requests a minute, until one has news', () => {
    const at = requests(600_000, () => false);
    for (let minute = 1; minute < 9; minute++) {
      const count = at.filter((one) => one >= minute * 60_000 && one < (minute + 1) * 60_000).length;
      assert.ok(count <= 4, `${count} in minute ${minute}`);
    }
    const woken = requests(120_000, (n) => n >= 15);
    assert.ok(woken.length > 45, 'news bring the quick pace back');
  });

  it('waits vary, and the deadline leaves the server its sixteenth and shows a dead link within 30 s', () => {
    assert.deepEqual([waitMs(() => 0), waitMs(() => 0.999_999)], [20_000, 23_500]);
    assert.equal(deadlineMs(32_000), 39_000);
    assert.ok(deadlineMs(waitMs(() => 1)) <= 30_000);
  });
});
