// When a stream is opened and what becomes of one that is given back before, while and after that.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Mailbox } from '../kernel/mailbox.ts';
import { opened } from './opened.ts';

const never = new AbortController().signal;

function reading(values: readonly number[]): { stream: AsyncIterator<number, void, void>; left: () => number } {
  const box = new Mailbox<number>((a, b) => a * 10 + b);
  let left = 0;
  for (const value of values) box.put(value);
  box.end();
  return { stream: box.read(never, () => left++), left: () => left };
}

describe('opened', () => {
  it('opens at the first next, once', async () => {
    let opens = 0;
    const items = opened(() => {
      opens++;
      return reading([1, 2]).stream;
    });
    assert.equal(opens, 0);
    assert.equal((await items.next()).value, 12);
    assert.equal((await items.next()).done, true);
    assert.equal(opens, 1);
  });

  it('what opens late is waited for; nothing opened is a stream without items', async () => {
    const late = opened(async () => reading([3]).stream);
    const seen: number[] = [];
    for await (const item of late) seen.push(item);
    assert.deepEqual(seen, [3]);
    assert.equal((await opened(() => null).next()).done, true);
    assert.equal((await opened(async () => null).next()).done, true);
  });

  it('a throw of the opening is the answer to the first next; then it is over', async () => {
    const failing = [
      opened<number>(() => {
        throw new Error('no');
      }),
      opened<number>(() => Promise.reject(new Error('no'))),
    ];
    for (const items of failing) {
      await assert.rejects(items.next(), /no/);
      assert.equal((await items.next()).done, true);
    }
  });

  it('given back before the first next it never opens', async () => {
    let opens = 0;
    const items = opened(() => {
      opens++;
      return reading([]).stream;
    });
    await items.return?.();
    assert.equal((await items.next()).done, true);
    assert.equal(opens, 0);
  });

  it('given back, the stream is left: open, or opening', async () => {
    const first = reading([1]);
    const open = opened(() => first.stream);
    await open.next();
    await open.return?.();
    assert.equal(first.left(), 1);

    const second = reading([1]);
    const { promise, resolve } = Promise.withResolvers<AsyncIterator<number, void, void>>();
    const opening = opened(() => promise);
    const waiting = opening.next();
    const back = opening.return?.();
    resolve(second.stream);
    await back;
    assert.equal((await waiting).done, true);
    assert.equal(second.left(), 1);
  });
});
