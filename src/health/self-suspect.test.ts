// When most targets fail at once it is us: R8's numbers, spread over services, fast and slow checks apart, thaw.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SelfSuspect, type Suspectable } from './self-suspect.ts';

interface Target extends Suspectable {
  readonly service: string;
}

function targets(count: number, services: number, interval = 2_000): Target[] {
  return Array.from({ length: count }, (_, i) => {
    const service = `s/${i % services}`;
    return { interval, service, services: () => [service] };
  });
}

/** All pass at 0, then the first `failing` fail one after the other from `at` on; the change that the last one brought. */
function outage(all: readonly Target[], failing: number, at = 1_000): { suspect: SelfSuspect<Target>; froze: number | null } {
  const suspect = new SelfSuspect<Target>();
  for (const target of all) suspect.note(target, true, true, 0);
  let froze: number | null = null;
  for (const [i, target] of all.slice(0, failing).entries()) {
    if (suspect.note(target, true, false, at + i) === 'froze') froze ??= i + 1;
  }
  return { suspect, froze };
}

describe('suspecting ourselves', () => {
  it('needs more than 70 % of the targets', () => {
    assert.equal(outage(targets(20, 4), 14).froze, null);
    assert.equal(outage(targets(20, 4), 15).froze, 15);
  });

  it('needs at least 10 targets', () => {
    assert.equal(outage(targets(9, 3), 9).froze, null);
    assert.equal(outage(targets(10, 3), 10).froze, 8);
  });

  it('needs at least 2 services', () => {
    assert.equal(outage(targets(50, 1), 50).froze, null);
    assert.notEqual(outage(targets(50, 2), 50).froze, null);
  });

  it('counts only targets whose check before passed', () => {
    const suspect = new SelfSuspect<Target>();
    const all = targets(20, 4);
    for (const target of all) assert.equal(suspect.note(target, false, false, 1), null);
    assert.equal(suspect.frozen, false);
  });

  it('counts only failures within one interval', () => {
    const all = targets(20, 4);
    const suspect = new SelfSuspect<Target>();
    let frozen = false;
    // One target fails every 400 ms while all others go on passing every 2 s: 5 of 20 within an interval.
    for (let t = 0; t < 8_000; t += 400) {
      for (const [i, target] of all.entries()) {
        const failing = i * 400 <= t;
        if (failing && i * 400 === t) frozen ||= suspect.note(target, true, false, t) === 'froze';
        else if (!failing && t % 2_000 === 0) suspect.note(target, true, true, t);
      }
    }
    assert.equal(frozen, false);
  });

  it('does not let many slow checks hide an outage of the fast ones', () => {
    const suspect = new SelfSuspect<Target>();
    const slow = targets(1_000, 10, 60_000);
    const fast = targets(20, 4, 2_000);
    for (const target of [...slow, ...fast]) suspect.note(target, true, true, 0);
    const changes = fast.map((target, i) => suspect.note(target, true, false, 1_000 + i));
    assert.ok(changes.includes('froze'));
  });

  it('judges targets of several intervals together when no interval has 10', () => {
    const suspect = new SelfSuspect<Target>();
    const all = [...targets(6, 2, 2_000), ...targets(6, 2, 5_000)];
    for (const target of all) suspect.note(target, true, true, 0);
    assert.ok(all.map((target, i) => suspect.note(target, true, false, 1_000 + i)).includes('froze'));
  });

  it('ends as soon as at most 70 % of those targets still fail', () => {
    const all = targets(20, 4);
    const { suspect } = outage(all, 20);
    const { targets: size } = suspect.counts;
    assert.equal(size, 20);
    const changes = all.slice(0, 6).map((target) => suspect.note(target, false, true, 5_000));
    assert.deepEqual(changes, [null, null, null, null, null, 'thawed']);
    assert.equal(suspect.frozen, false);
  });

  it('ends when so many of those targets leave that fewer than 10 are left', () => {
    const all = targets(12, 3);
    const { suspect } = outage(all, 12);
    assert.deepEqual(
      all.slice(0, 3).map((target) => suspect.forget(target)),
      [null, null, 'thawed'],
    );
  });

  it('takes no notice of targets that came meanwhile', () => {
    const { suspect } = outage(targets(12, 3), 12);
    for (const target of targets(50, 5)) assert.equal(suspect.note(target, false, true, 3_000), null);
    assert.equal(suspect.frozen, true);
  });
});
