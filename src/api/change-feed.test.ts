import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FakeCatalog } from '../../test/support/api-fakes.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { ChangeFeed, type WaitEnd } from './change-feed.ts';

function setUp() {
  const clock = new FakeClock();
  const catalog = new FakeCatalog();
  return { clock, catalog, feed: new ChangeFeed(catalog, clock) };
}

describe('waiting for a service', () => {
  it('ends by a change past the index, not by one at or below it', async () => {
    const { catalog, feed } = setUp();
    const index = catalog.index();
    const ended: WaitEnd[] = [];
    void feed.wait('a/b', index + 1, 1_000).ended.then((how) => ended.push(how));
    catalog.put('a/b', []);
    await Promise.resolve();
    assert.deepEqual(ended, [], 'the change had the index that the reader knows');
    catalog.put('a/b', []);
    await Promise.resolve();
    assert.deepEqual(ended, ['changed']);
    assert.equal(feed.waiting, 0);
  });

  it('ends by its time, by cancel and by close, each once, and leaves nothing behind', async () => {
    const { clock, feed } = setUp();
    const slow = feed.wait('a/b', 0, 5_000);
    const gone = feed.wait('a/b', 0, 5_000);
    const closed = feed.wait('a/c', 0, 500_000);
    gone.cancel();
    gone.cancel();
    assert.equal(await gone.ended, 'cancelled');
    await clock.advance(5_200);
    assert.equal(await slow.ended, 'timeout');
    feed.close();
    assert.equal(await closed.ended, 'cancelled');
    assert.equal(await feed.wait('a/b', 0, 5_000).ended, 'cancelled');
    assert.equal(feed.waiting, 0);
    await clock.advance(1_000);
    assert.equal(clock.pending, 0);
  });

  it('costs 10,000 readers one timer, and none of them is looked at when another service changes', async () => {
    const { clock, catalog, feed } = setUp();
    const waits = Array.from({ length: 10_000 }, () => feed.wait('a/b', 0, 600_000).ended);
    assert.equal(clock.pending, 1);
    catalog.reads = 0;
    catalog.put('a/other', []);
    assert.equal(catalog.reads, 1);
    assert.equal(feed.waiting, 10_000);
    catalog.put('a/b', []);
    assert.deepEqual([...new Set(await Promise.all(waits))], ['changed']);
    assert.equal(feed.waiting, 0);
  });

  it('may start new waits from within a change without ending them by it', async () => {
    const { catalog, feed } = setUp();
    let second: WaitEnd | null = null;
    const first = feed.wait('a/b', 0, 1_000).ended.then(() =>
      feed.wait('a/b', catalog.index(), 1_000).ended.then((how) => {
        second = how;
      }),
    );
    catalog.put('a/b', []);
    await Promise.resolve();
    assert.equal(second, null);
    catalog.put('a/b', []);
    await first;
    assert.equal(second, 'changed');
  });
});

describe('going on from a stamp', () => {
  it('gives every service that changed or went since, in order, whatever order the indexes were told in', () => {
    const operation = fc.record({ service: fc.integer({ min: 0, max: 5 }), remove: fc.boolean(), late: fc.boolean() });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), fc.nat(40), (operations, from) => {
        const { catalog, feed } = setUp();
        const waiting: (() => void)[] = [];
        const told: string[] = [];
        feed.subscribe((service) => told.push(service));
        let stamp = feed.stamp;
        let toldBefore = 0;
        operations.forEach(({ service, remove, late }, i) => {
          if (i === from) {
            stamp = feed.stamp;
            toldBefore = told.length;
          }
          const id = `s/${service}`;
          if (remove && catalog.services.has(id)) catalog.remove(id);
          else if (late) waiting.push(catalog.putLate(id, []));
          else catalog.put(id, []);
          if (i % 3 === 0) waiting.shift()?.();
        });
        if (from >= operations.length) {
          stamp = feed.stamp;
          toldBefore = told.length;
        }
        const since = feed.since(stamp);
        const expected = [...new Set(told.slice(toldBefore).reverse())].reverse();
        assert.deepEqual(
          since?.map(([service]) => service),
          expected,
        );
        const stamps = since?.map(([, at]) => at) ?? [];
        assert.deepEqual(
          stamps,
          [...new Set(stamps)].sort((a, b) => a - b),
        );
      }),
    );
  });

  it('is impossible from before our time or from another epoch', () => {
    const { catalog, feed } = setUp();
    const start = feed.stamp;
    catalog.put('a/b', []);
    assert.equal(feed.since(start - 1), null);
    assert.equal(feed.since(feed.stamp + 1), null);
    assert.deepEqual(feed.since(feed.stamp), []);
  });

  it('remembers 10,000 removals, and knows what it has forgotten', () => {
    const { catalog, feed } = setUp();
    const start = feed.stamp;
    for (let i = 0; i < 10_001; i++) {
      catalog.put(`a/${i}`, []);
      catalog.remove(`a/${i}`);
    }
    assert.equal(feed.since(start), null);
    assert.equal(feed.removedAt('a/0'), null);
    assert.ok(feed.removedAt('a/1') !== null);
    assert.equal(feed.since(start + 2)?.length, 10_000);
    catalog.put('a/1', []);
    assert.equal(feed.removedAt('a/1'), null, 'it is back');
  });
});
