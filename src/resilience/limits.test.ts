import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Limit } from './limits.ts';

test('a limit lets in as many as it says and makes room when one ends', () => {
  const limit = new Limit(2);
  assert.deepEqual([limit.tryStart(), limit.tryStart(), limit.tryStart()], [true, true, false]);
  limit.end();
  assert.ok(limit.tryStart());
  assert.equal(limit.active, 2);
});

test('a lowered cap keeps who is in and lets nobody in until there is room', () => {
  const limit = new Limit(3);
  for (let i = 0; i < 3; i++) limit.tryStart();
  limit.max = 1;
  limit.end();
  limit.end();
  assert.equal(limit.tryStart(), false);
  limit.end();
  assert.ok(limit.tryStart());
});
