import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readinessWaits } from './readiness.ts';

const FACTS = { listening: true, unanswered: ['etcd'], restored: false, timeUp: false };

test('readiness waits for every source, unless a last-good file was loaded or 10 s are over', () => {
  assert.deepEqual(readinessWaits(FACTS), ['first answer of source etcd']);
  assert.deepEqual(readinessWaits({ ...FACTS, unanswered: [] }), []);
  assert.deepEqual(readinessWaits({ ...FACTS, restored: true }), []);
  assert.deepEqual(readinessWaits({ ...FACTS, timeUp: true }), []);
});

test('a draining process is not ready whatever else is true', () => {
  assert.equal(readinessWaits({ listening: false, unanswered: [], restored: true, timeUp: true }).length, 1);
});
