import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inPanic } from './panic.ts';

test('panic begins below the threshold, not at it', () => {
  for (const [available, total, panic] of [
    [1, 2, false],
    [2, 5, true],
    [5, 10, false],
    [4, 10, true],
    [0, 1, true],
    [1, 1, false],
  ] as const) {
    assert.equal(inPanic(available, total, 50), panic, `${available} of ${total}`);
  }
});

test('a threshold of 0 disables panic', () => {
  assert.equal(inPanic(0, 10, 0), false);
});

test('a cluster without hosts is not in panic', () => {
  assert.equal(inPanic(0, 0, 50), false);
});

test('a threshold above 71.4 % panics only once the total health is below 100', () => {
  assert.equal(inPanic(8, 10, 90), false, '80 % available is full health at a factor of 1.4');
  assert.equal(inPanic(7, 10, 90), true);
});
