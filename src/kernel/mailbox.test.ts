// What a reader of a mailbox sees: merging within a turn, the quiet end, the one call of `leave`.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { settle } from '../../test/support/fake-clock.ts';
import { Mailbox } from './mailbox.ts';

const never = new AbortController().signal;

describe('reading a mailbox', () => {
  it('what comes in one turn while the reader waits is one item, by the rule of the mailbox', async () => {
    const box = new Mailbox<string>((waiting, incoming) => `${waiting}${incoming}`);
    const reader = box.read(never);
    const waiting = reader.next();
    box.put('a');
    box.put('b');
    assert.deepEqual(await waiting, { done: false, value: 'ab' });
  });

  it('values come in order, one for each next, however many wait', async () => {
    const box = new Mailbox<number>();
    const reader = box.read(never);
    const both = Promise.all([reader.next(), reader.next()]);
    box.put(1);
    await settle();
    box.put(2);
    assert.deepEqual(
      (await both).map(({ value }) => value),
      [1, 2],
    );
  });

  it('an abort ends it quietly, also when a value lies there unread', async () => {
    const controller = new AbortController();
    const box = new Mailbox<number>();
    const reader = box.read(controller.signal);
    const waiting = reader.next();
    controller.abort();
    assert.equal((await waiting).done, true);
    box.put(1);
    assert.equal((await reader.next()).done, true);
    assert.equal((await new Mailbox<number>().read(controller.signal).next()).done, true);
  });

  it('leave is called once, at the end, whatever the end is', async () => {
    const ends: ((box: Mailbox<number>, abort: () => void) => void)[] = [
      (box) => box.end(),
      (box) => box.fail(new Error('cut')),
      (_box, abort) => abort(),
    ];
    for (const end of ends) {
      const controller = new AbortController();
      const box = new Mailbox<number>();
      let left = 0;
      const reader = box.read(controller.signal, () => left++);
      const waiting = reader.next().catch(() => null);
      await settle();
      assert.equal(left, 0);
      end(box, () => controller.abort());
      await waiting;
      await reader.return?.();
      assert.equal((await reader.next()).done, true);
      assert.equal(left, 1);
    }
  });

  it('a return ends at once, also while a next waits, and leaves no listener at the signal', async () => {
    const controller = new AbortController();
    let added = 0;
    const { signal } = controller;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      added++;
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      added--;
      removeEventListener.apply(signal, args);
    };
    const reader = new Mailbox<number>().read(signal);
    const waiting = reader.next();
    assert.equal(added, 1);
    await reader.return?.();
    assert.equal((await waiting).done, true);
    assert.equal(added, 0);
  });

  it('a failure comes after the last value, once; then it is over', async () => {
    const box = new Mailbox<number>();
    const reader = box.read(never);
    const waiting = reader.next();
    box.put(1);
    box.fail(new Error('cut'));
    assert.equal((await waiting).value, 1);
    await assert.rejects(reader.next(), /cut/);
    assert.equal((await reader.next()).done, true);
    const late = new Mailbox<number>();
    const pending = late.read(never).next();
    late.fail(new Error('late'));
    await assert.rejects(pending, /late/);
  });
});
