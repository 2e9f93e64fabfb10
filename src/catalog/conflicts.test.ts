import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConflictBook, type FoundConflict } from './conflicts.ts';

const found = (n: number, chosen = 'x'): FoundConflict[] =>
  Array.from({ length: n }, (_, i) => ({ instance: `10.0.0.${i}:80`, field: 'weight', values: [], chosen, rule: 'M4' }));

describe('conflict book (M6)', () => {
  it('a conflict keeps the time since when it stands while it stands', () => {
    const book = new ConflictBook();
    const first = book.replace([], found(2), 100);
    const second = book.replace(first, found(3, 'y'), 200);
    assert.deepEqual(
      second.map((one) => [one.chosen, one.since]),
      [
        ['y', 100],
        ['y', 100],
        ['y', 200],
      ],
    );
    assert.equal(book.listed, 3);
    assert.deepEqual(book.replace(second, [], 300), []);
    assert.equal(book.listed, 0);
    assert.equal(book.replace([], found(1), 400)[0]?.since, 400);
  });

  it('lists at most 10,000 over all services, counts the rest, and uses room that becomes free', () => {
    const book = new ConflictBook();
    const first = book.replace([], found(9_999), 1);
    const second = book.replace([], found(5), 1);
    assert.deepEqual([second.length, book.listed, book.unlisted], [1, 10_000, 4]);
    book.replace(first, found(9_000), 2);
    assert.equal(book.replace(second, found(5), 2).length, 5);
  });
});
