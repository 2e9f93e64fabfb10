import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AbsentNames, MAX_ABSENT_NAMES } from './absent-names.ts';

test('an answer counts for its time and is then forgotten, not just hidden', () => {
  const names = new AbsentNames();
  names.set('a/b', 'unknown', 0);
  names.set('a/c', 'notReady', 0);
  assert.equal(names.get('a/b', 29_999), 'unknown');
  assert.equal(names.get('a/c', 999), 'notReady');
  assert.equal(names.get('a/b', 30_000), undefined);
  assert.equal(names.get('a/c', 1_000), undefined);
  assert.equal(names.size, 0);
});

test('a name that nobody spoke of has no answer', () => {
  assert.equal(new AbsentNames().get('a/b', 0), undefined);
});

test('the newest word counts, from the time it came', () => {
  const names = new AbsentNames();
  names.set('a/b', 'notReady', 0);
  names.set('a/b', 'unknown', 900);
  assert.equal(names.size, 1);
  assert.equal(names.get('a/b', 30_899), 'unknown');
});

test('one name more than the bound pushes out the oldest word, not the oldest name', () => {
  const names = new AbsentNames();
  for (let i = 0; i < MAX_ABSENT_NAMES; i++) names.set(`n/${i}`, 'unknown', 0);
  names.set('n/0', 'unknown', 1);
  names.set('n/new', 'unknown', 2);
  assert.equal(names.size, MAX_ABSENT_NAMES);
  assert.equal(names.get('n/0', 3), 'unknown', 'it was spoken of again');
  assert.equal(names.get('n/1', 3), undefined);
});

test('a deleted name has no answer', () => {
  const names = new AbsentNames();
  names.set('a/b', 'unknown', 0);
  names.delete('a/b');
  assert.equal(names.get('a/b', 1), undefined);
});
