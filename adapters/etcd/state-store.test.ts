// The state store: compare-and-set, a watched prefix, and locks that are given up in time. On fakes of both versions.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StateEntry, StateLock, StateStore } from '../../src/adapter/state-store.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { type Bench, etcdBench, NEVER, PLAIN } from '../../test/support/etcd-bench.ts';

function claim(name: string, body: (bench: Bench, store: StateStore) => Promise<void>): void {
  for (const version of ['3.4.23', '3.6.16'] as const) {
    it(`${name} (${version})`, { timeout: 30_000 }, async () => {
      const bench = await etcdBench(version, PLAIN, { prefix: '/weir/' });
      try {
        await body(bench, bench.adapter.stateStore?.() ?? assert.fail('no store'));
      } finally {
        await bench.close();
      }
    });
  }
}

function other(b: Bench): StateStore {
  return b.another().stateStore?.() ?? assert.fail('no store');
}

/** Starts waiting for a lock and tells when it is held. */
function wanting(store: StateStore, signal = NEVER): { held: StateLock | null; error: unknown } {
  const state: { held: StateLock | null; error: unknown } = { held: null, error: null };
  store.lock('lead', 6_000, signal).then(
    (lock) => {
      state.held = lock;
    },
    (thrown: unknown) => {
      state.error = thrown;
    },
  );
  return state;
}

function isHeld({ held }: { held: StateLock | null }): boolean {
  return held !== null;
}

describe('values of the state store', () => {
  claim('are written only over the revision that was expected', async (b, store) => {
    assert.equal(await store.get('k', NEVER), null);
    const first = await store.cas('k', 'one', null, NEVER);
    assert.equal(first?.value, 'one');
    assert.equal(await store.cas('k', 'two', null, NEVER), null, 'it exists');
    assert.equal(await store.cas('k', 'two', '1', NEVER), null, 'another revision');
    const second = await store.cas('k', 'two', first?.revision ?? null, NEVER);
    assert.deepEqual(await store.get('k', NEVER), second);
    assert.ok(await store.cas('k', null, second?.revision ?? null, NEVER));
    assert.equal(await store.get('k', NEVER), null);
    assert.equal(b.fake.store.range({ key: Buffer.from('/weir/k') }).kvs.length, 0);
  });

  claim('that were written by a call that failed are found by reading back', async (b, store) => {
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'before' };
    assert.equal((await store.cas('k', 'one', null, NEVER))?.value, 'one');
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'never' };
    await assert.rejects(store.cas('x', 'one', null, NEVER), (thrown) => asSourceError(thrown).causeKind === 'lost');
  });

  claim('are watched as a whole set, again after every change', async (b, store) => {
    await store.cas('m/1', 'a', null, NEVER);
    const sets: (readonly StateEntry[])[] = [];
    const stop = new AbortController();
    const done = (async () => {
      for await (const set of store.watch('m/', stop.signal)) sets.push(set);
    })();
    const last = (): string => (sets.at(-1) ?? []).map(({ key, value }) => `${key}=${value}`).join(' ');
    await b.until(() => last() === 'm/1=a', 'the first set');
    await store.cas('m/2', 'b', null, NEVER);
    await store.cas('n/3', 'c', null, NEVER);
    await b.until(() => last() === 'm/1=a m/2=b', 'both');
    stop.abort();
    await done;
  });

  claim('stop being watched with an error when the server is cut', async (b, store) => {
    const iterator = store.watch('m/', NEVER)[Symbol.asyncIterator]();
    assert.deepEqual((await iterator.next()).value, []);
    await b.until(() => b.fake.openWatches === 1, 'the stream');
    const next = iterator.next().catch((thrown: unknown) => thrown);
    b.fake.cut();
    let ended: unknown = null;
    void next.then((value) => {
      ended = value;
    });
    await b.until(() => ended !== null, 'the loss');
    assert.ok(ended instanceof SourceError);
  });
});

describe('a lock', () => {
  claim('is held by one, and goes to the next when it is released', async (b, store) => {
    const one = wanting(store);
    await b.until(() => one.held !== null, 'the first');
    const two = wanting(other(b));
    await b.until(
      () => b.fake.store.range({ key: Buffer.from('/weir/lead/'), rangeEnd: Buffer.from('/weir/lead0') }).kvs.length === 2,
      'both candidates',
    );
    await b.advance(1_000);
    assert.equal(isHeld(two), false);
    await one.held?.release();
    await b.until(() => two.held !== null, 'the second');
    assert.equal(one.held?.lost.aborted, true);
    assert.equal(two.held?.lost.aborted, false);
    assert.match(two.held?.fence.key ?? '', /^\/weir\/lead\/[0-9a-f]+$/);
  });

  claim('is kept by renewals for as long as the server answers', async (b, store) => {
    const one = wanting(store);
    await b.until(() => one.held !== null, 'it');
    for (let second = 0; second < 30; second++) {
      await b.advance(1_000);
      await b.until(() => true, 'a turn');
      // The answers travel over a real socket: time must not outrun them.
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(one.held?.lost.aborted, false);
  });

  claim('is lost 0.8 of its ttl after the last renewal when the server does not answer, and not before', async (b, store) => {
    const one = wanting(store);
    await b.until(() => one.held !== null, 'it');
    const since = b.clock.now();
    b.fake.halfOpen = true;
    while (one.held?.lost.aborted === false && b.clock.now() - since < 6_000) await b.advance(50);
    const after = b.clock.now() - since;
    assert.ok(after >= 4_600 && after <= 4_850, `${after} ms`);
  });

  claim('is lost at once when its key is deleted or its lease revoked, at the next renewal', async (b, store) => {
    const one = wanting(store);
    await b.until(() => one.held !== null, 'it');
    b.fake.store.deleteRange({ key: Buffer.from(one.held?.fence.key ?? '') });
    await b.until(() => one.held?.lost.aborted === true, 'the loss', 100);
    const two = wanting(store);
    await b.until(() => two.held !== null, 'it again');
    b.fake.store.revoke(two.held?.fence.leaseId ?? '');
    await b.until(() => two.held?.lost.aborted === true, 'the loss', 100);
  });

  claim('that is no longer wanted leaves no candidate behind', async (b, store) => {
    const one = wanting(store);
    await b.until(() => one.held !== null, 'it');
    const stop = new AbortController();
    const two = wanting(other(b), stop.signal);
    const keys = (): number =>
      b.fake.store.range({ key: Buffer.from('/weir/lead/'), rangeEnd: Buffer.from('/weir/lead0') }).kvs.length;
    await b.until(() => keys() === 2, 'both candidates');
    stop.abort(new Error('not wanted'));
    await b.until(() => two.error !== null && keys() === 1, 'its end');
    assert.match(String(two.error), /not wanted/);
  });

  claim('goes to another when its holder dies, after the ttl', async (b, store) => {
    const one = wanting(store);
    await b.until(() => one.held !== null, 'it');
    const two = wanting(other(b));
    await b.until(() => b.fake.openWatches > 0, 'the wait');
    // The holder is gone without a word: nobody renews its lease.
    await b.adapter.close();
    await b.until(() => two.held !== null, 'the next holder', 100);
    assert.equal(one.held?.lost.aborted, true);
  });
});
