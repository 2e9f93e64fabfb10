import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import { FirstUses, MAX_PENDING_NAMES } from './first-uses.ts';

function make(): { clock: FakeClock; wheel: TimerWheel; uses: FirstUses<string> } {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  return { clock, wheel, uses: new FirstUses<string>(wheel, 'too late') };
}

test('every waiter of a name gets its answer once, waiters of other names do not', () => {
  const { uses, wheel } = make();
  const got: string[] = [];
  const waiter = (answer: string): void => void got.push(answer);
  uses.start('a');
  uses.start('b');
  uses.wait('a', waiter);
  uses.wait('a', waiter);
  uses.wait('b', () => got.push('wrong'));
  uses.answer('a', 'yes');
  uses.answer('a', 'again');
  assert.deepEqual(got, ['yes', 'yes'], 'one function that waits twice is called twice');
  assert.equal(uses.size, 1);
  assert.equal(wheel.armed, 1);
});

test('a second without an answer is one, and the name may be asked for again', () => {
  const { uses, clock, wheel } = make();
  const got: string[] = [];
  uses.start('a');
  uses.wait('a', (answer) => got.push(answer));
  clock.advanceSync(999);
  assert.ok(uses.has('a'));
  clock.advanceSync(25);
  assert.deepEqual(got, ['too late']);
  assert.equal(uses.has('a'), false);
  assert.equal(wheel.armed, 0);
  assert.ok(uses.start('a'));
});

test('a waiter that cancels another while it is called keeps that one from being called', () => {
  const { uses } = make();
  const got: string[] = [];
  uses.start('a');
  let cancelSecond = (): void => {};
  uses.wait('a', () => {
    got.push('first');
    cancelSecond();
  });
  cancelSecond = uses.wait('a', () => got.push('second'));
  uses.answer('a', 'yes');
  assert.deepEqual(got, ['first']);
});

test('a waiter that asks for the same name while it is called begins a new first use', () => {
  const { uses } = make();
  const got: string[] = [];
  uses.start('a');
  uses.wait('a', () => {
    assert.equal(uses.has('a'), false);
    uses.start('a');
    uses.wait('a', (answer) => got.push(answer));
  });
  uses.answer('a', 'one');
  assert.deepEqual(got, []);
  uses.answer('a', 'two');
  assert.deepEqual(got, ['two']);
});

test('an answer to a name that nobody asked for does nothing', () => {
  const { uses } = make();
  uses.answer('a', 'yes');
  assert.equal(uses.size, 0);
});

test('no more names than the bound are pending', () => {
  const { uses } = make();
  for (let i = 0; i < MAX_PENDING_NAMES; i++) assert.ok(uses.start(`n${i}`));
  assert.equal(uses.start('more'), false);
  assert.equal(uses.size, MAX_PENDING_NAMES);
});

test('the close answers everyone and leaves no timer', () => {
  const { uses, wheel } = make();
  const got: string[] = [];
  for (const name of ['a', 'b']) {
    uses.start(name);
    uses.wait(name, (answer) => got.push(`${name} ${answer}`));
  }
  uses.close();
  assert.deepEqual(got, ['a too late', 'b too late']);
  assert.equal(wheel.armed, 0);
});
