import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { IDLE_MS, OnDemandUse } from './on-demand.ts';

test('a service in use stays, an idle one is dropped once, and no timer is left', async () => {
  const clock = new FakeClock();
  const dropped: string[] = [];
  const uses = new OnDemandUse(clock, (service) => dropped.push(service));
  assert.ok(uses.use('a/busy', false));
  assert.ok(uses.use('a/idle', false));
  for (let i = 0; i < 12; i++) {
    await clock.advance(60_000);
    uses.use('a/busy', false);
  }
  assert.deepEqual(dropped, ['a/idle']);
  await clock.advance(IDLE_MS + 120_000);
  assert.deepEqual(dropped, ['a/idle', 'a/busy']);
  assert.equal(clock.pending, 0);
});

test('new names that no source lists come at 10 a second, known ones always', async () => {
  const clock = new FakeClock(10_000);
  const uses = new OnDemandUse(clock, () => {});
  const taken = Array.from({ length: 15 }, (_unused, i) => uses.use(`a/${i}`, true)).filter(Boolean).length;
  assert.equal(taken, 10);
  assert.ok(uses.use('a/3', true), 'known already');
  assert.ok(uses.use('a/listed', false), 'listed names are not limited');
  await clock.advance(1_000);
  assert.ok(uses.use('a/14', true));
  uses.close();
  assert.equal(uses.use('a/15', false), false);
  assert.equal(clock.pending, 0);
});
