// The places of blocking queries: never more than there are, none lost, and more of them where queries share connections.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MAX_BLOCKING, MAX_BLOCKING_H2 } from './config.ts';
import { holdSlots, Slots } from './slots.ts';

describe('places of blocking queries', () => {
  it('100 services and what they share fit, and one place is left for those without', () => {
    const slots = new Slots();
    slots.take();
    const taken = Array.from({ length: 100 }, () => slots.tryTake(100));
    assert.ok(taken.every((slot) => slot !== null));
    assert.equal(slots.tryTake(200), null, 'the last one is for the firehose');
    slots.take();
    assert.equal(slots.held, MAX_BLOCKING);
    taken[0]?.release();
    taken[0]?.release();
    assert.equal(slots.held, MAX_BLOCKING - 1, 'given back once');
  });

  it('more places wake as many of those who wait as there is room for; fewer take none away', () => {
    const slots = new Slots();
    for (let n = 0; n < 101; n++) slots.tryTake(1_000);
    let woken = 0;
    for (let n = 0; n < 50; n++) slots.whenFree(1_000, () => woken++);
    slots.resize(MAX_BLOCKING + 20);
    assert.equal(woken, 20);
    slots.resize(MAX_BLOCKING_H2);
    assert.equal(woken, 50);
    const held = slots.held;
    slots.resize(10);
    assert.deepEqual([slots.held, slots.tryTake(1_000)], [held, null]);
  });

  it('who allows fewer services than there are places is not woken for more places', () => {
    const slots = new Slots();
    for (let n = 0; n < 5; n++) slots.tryTake(5);
    let woken = 0;
    slots.whenFree(5, () => woken++);
    slots.resize(MAX_BLOCKING_H2);
    assert.equal(woken, 0);
  });

  it('all sources of one address share the places while one of them lives', () => {
    const [a, b] = [holdSlots('https://a:1'), holdSlots('https://a:1')];
    assert.equal(a.slots, b.slots);
    assert.notEqual(holdSlots('https://b:1').slots, a.slots);
    a.leave();
    a.leave();
    assert.equal(holdSlots('https://a:1').slots, b.slots);
  });
});
