// The migrations of a fleet on fakes of etcd and Consul: one owner at a time, a stale one is refused, nothing is read that does not fit.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startFakeConsul } from '../../adapters/consul/fake.ts';
import { makeAdapter as makeConsul, PLAIN as PLAIN_CONSUL, withCleanup } from '../../test/live/consul-support.ts';
import { type Bench, etcdBench, PLAIN } from '../../test/support/etcd-bench.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { docsNow, emptyPage, ledgerPage, migrationDoc, NEVER, sidecarReport } from '../../test/support/migration-fixture.ts';
import type { Adapter } from '../adapter/contract.ts';
import type { StateStore } from '../adapter/state-store.ts';
import { WeirError } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { SourceError } from '../model/snapshot.ts';
import type { LedgerPage } from './migration.ts';
import type { MigrationStore, Ownership, StoredDoc } from './ports.ts';
import { openSharedStore } from './shared-store.ts';

interface Rig {
  readonly bench: Bench;
  /** A sidecar of its own: another connection, another store. */
  sidecar(name: string): {
    readonly store: MigrationStore;
    readonly state: StateStore;
    readonly adapter: Adapter;
    readonly target: Adapter;
  };
  keys(prefix: string): string[];
}

function claim(name: string, body: (rig: Rig) => Promise<void>): void {
  it(name, { timeout: 30_000 }, async () => {
    const bench = await etcdBench('3.6.16', PLAIN, { prefix: '/weir/' });
    const stores: MigrationStore[] = [];
    try {
      await body({
        bench,
        sidecar(name) {
          const adapter = bench.another(PLAIN, { prefix: '/weir/' });
          const target = bench.another(PLAIN, { prefix: '/services/' });
          const state = adapter.stateStore?.() ?? assert.fail('no store');
          const stateOf = (source: string): StateStore | null =>
            source === 'etcd-main' ? (target.stateStore?.() ?? null) : null;
          const store = openSharedStore({ state, stateOf, sidecar: name, log: silentLog, clock: bench.clock });
          stores.push(store);
          return { store, state, adapter, target };
        },
        keys: (prefix) =>
          bench.fake.store
            .range({ key: Buffer.from(prefix), rangeEnd: Buffer.from(`${prefix.slice(0, -1)}0`) })
            .kvs.map(({ key }) => key.toString()),
      });
    } finally {
      for (const store of stores) await store.close();
      await bench.close();
    }
  });
}

/** Starts waiting for the right to write. */
function wanting(store: MigrationStore, signal = NEVER): { owned: Ownership | null; error: unknown } {
  const state: { owned: Ownership | null; error: unknown } = { owned: null, error: null };
  store.own('move', ['etcd-main', 'consul-sz'], signal).then(
    (owned) => {
      state.owned = owned;
    },
    (thrown: unknown) => {
      state.error = thrown;
    },
  );
  return state;
}

const isOwned = ({ owned }: { readonly owned: Ownership | null }): boolean => owned !== null;
const isFenced = (thrown: unknown): boolean => thrown instanceof SourceError && thrown.causeKind === 'fenced';
const isDamage = (thrown: unknown): boolean => thrown instanceof WeirError && thrown.code === 'MIGRATION_JOURNAL';
const ports = (count: number): number[] => Array.from({ length: count }, (_, n) => n + 1);

async function pagesOf(store: MigrationStore): Promise<readonly LedgerPage[]> {
  const pages = [...(await store.ledger('move', NEVER)).values()];
  return pages.sort((a, b) => (a.service < b.service ? -1 : 1));
}

describe('documents of a fleet', () => {
  claim(
    'are written only over the revision that was expected, and dropped with all that belongs to them',
    async ({ sidecar, keys }) => {
      const { store } = sidecar('h1');
      assert.equal(store.shared, true);
      const revision = await store.putDoc(migrationDoc('move'), null, NEVER);
      assert.ok(revision !== null);
      assert.equal(await store.putDoc(migrationDoc('move'), null, NEVER), null, 'it exists');
      assert.equal(await store.putDoc(migrationDoc('move'), '1', NEVER), null);
      const second = await store.putDoc(migrationDoc('move', { weight: 50 }), revision, NEVER);
      assert.deepEqual(await docsNow(store), [
        { kind: 'doc', doc: migrationDoc('move', { weight: 50 }), revision: second, reports: [] },
      ]);
      await store.report('move', sidecarReport('h1'), NEVER);
      const owned = await store.own('move', [], NEVER);
      await store.ledger('move', NEVER);
      await store.savePages('move', [ledgerPage('a/1', [1]), ledgerPage('a/2', ports(1_000))], NEVER);
      await owned.release();
      assert.equal(await store.dropDoc('move', revision, NEVER), false);
      assert.equal(await store.dropDoc('move', second ?? '', NEVER), true);
      assert.deepEqual(keys('/weir/'), []);
    },
  );

  claim('are seen by every sidecar with the reports of all, again after each change', async ({ bench, sidecar }) => {
    const [one, two] = [sidecar('h1'), sidecar('h2')];
    let last: readonly StoredDoc[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const docs of two.store.watch(stop.signal)) last = docs;
    })();
    const text = (): string =>
      last
        .map((it) =>
          it.kind === 'doc' ? [it.doc.weight, ...it.reports.map((r) => `${r.sidecar}:${r.weight}`)].join(' ') : it.reason,
        )
        .join();
    const revision = await one.store.putDoc(migrationDoc('move'), null, NEVER);
    await bench.until(() => text() === '25', 'the document');
    await one.store.report('move', sidecarReport('h1'), NEVER);
    await two.store.report('move', sidecarReport('h2', 20), NEVER);
    await two.store.report('move', sidecarReport('h2', 25), NEVER);
    await bench.until(() => text() === '25 h1:25 h2:25', 'both reports');
    await one.store.putDoc(migrationDoc('move', { weight: 30 }), revision, NEVER);
    await bench.until(() => text() === '30 h1:25 h2:25', 'the change');
    stop.abort();
    await watching;
  });

  claim('that cannot be read are broken, with the key and the reason; the others are read', async ({ sidecar }) => {
    const { store, state } = sidecar('h1');
    await store.putDoc(migrationDoc('good'), null, NEVER);
    await state.cas('migrations/doc/bad', '{"version":2}', null, NEVER);
    await state.cas('migrations/doc/worse', '{', null, NEVER);
    await state.cas('migrations/report/good/h9', '{"version":2}', null, NEVER);
    assert.deepEqual(
      (await docsNow(store)).map((one) => (one.kind === 'broken' ? [one.id, one.reason] : [one.doc.spec.id, one.reports.length])),
      [
        ['bad', 'shared store, key migrations/doc/bad: journal of version 2, this weir reads 1'],
        ['good', 0],
        ['worse', 'shared store, key migrations/doc/worse: no JSON'],
      ],
    );
  });

  claim('throw out of a watch when the store is lost, and end it quietly when it is closed', async ({ bench, sidecar }) => {
    const { store } = sidecar('h1');
    const seen = store.watch(NEVER)[Symbol.asyncIterator]();
    await seen.next();
    await bench.until(() => bench.fake.openWatches >= 2, 'both streams');
    const next = seen.next().then(
      () => 'an item',
      (thrown: unknown) => thrown,
    );
    bench.fake.cut();
    let ended: unknown = null;
    void next.then((value) => {
      ended = value;
    });
    await bench.until(() => ended !== null, 'the loss');
    assert.ok(ended instanceof SourceError);
    const other = sidecar('h2').store;
    const quiet = (async () => {
      for await (const _ of other.watch(NEVER));
    })();
    await docsNow(other);
    await other.close();
    await quiet;
    await assert.rejects(other.ledger('move', NEVER), /closed/);
  });
});

describe('the one owner of a migration', () => {
  claim('writes pages, which every sidecar reads; large ones in parts; others are refused', async ({ sidecar, keys }) => {
    const [one, two] = [sidecar('h1').store, sidecar('h2').store];
    await assert.rejects(one.savePages('move', [ledgerPage('a/1', [1])], NEVER), isFenced);
    const owned = await one.own('move', ['etcd-main'], NEVER);
    assert.equal((await one.ledger('move', NEVER)).size, 0);
    await one.savePages('move', [ledgerPage('a/1', [1]), ledgerPage('größe/2', [2])], NEVER);
    await Promise.all([3, 4, 5].map((port) => one.savePages('move', [ledgerPage('a/1', [port])], NEVER)));
    assert.deepEqual(await pagesOf(two), [ledgerPage('a/1', [5]), ledgerPage('größe/2', [2])]);
    await one.savePages('move', [ledgerPage('a/1', ports(3_000))], NEVER);
    assert.equal((await two.ledger('move', NEVER)).get('a/1')?.entries.length, 3_000);
    assert.ok(keys('/weir/migrations/ledger/move/').length > 3);
    await one.savePages('move', [ledgerPage('a/1', [6]), emptyPage('größe/2')], NEVER);
    assert.deepEqual(keys('/weir/migrations/ledger/move/'), ['/weir/migrations/ledger/move/a%2F1'], 'parts and page are gone');
    assert.deepEqual(await pagesOf(two), [ledgerPage('a/1', [6])]);
    await assert.rejects(two.savePages('move', [ledgerPage('a/1', [7])], NEVER), isFenced);
    await owned.release();
    await assert.rejects(one.savePages('move', [ledgerPage('a/1', [8])], NEVER), isFenced);
  });

  claim('has a fence in the target, which is no service there, and leaves no key behind', async ({ bench, sidecar, keys }) => {
    const { store, target } = sidecar('h1');
    bench.put('shop', 'i1', 80);
    const owned = await store.own('move', ['etcd-main', 'consul-sz', 'etcd-main'], NEVER);
    assert.deepEqual([...owned.fences.keys()], ['etcd-main']);
    const fence = owned.fences.get('etcd-main');
    const [held] = bench.fake.store.range({ key: Buffer.from(fence?.key ?? '') }).kvs;
    assert.deepEqual([held?.createRevision, held?.lease], [fence?.createRevision, fence?.leaseId]);
    assert.match(fence?.key ?? '', /^\/services\/\.weir\/lock\/move\/etcd-main\//);
    for await (const list of target.services?.(NEVER) ?? []) {
      assert.deepEqual(list.keys, [{ namespace: 'default', name: 'shop' }]);
      break;
    }
    assert.equal(bench.counts.get('keys.bad') ?? 0, 0);
    await owned.release();
    assert.equal(owned.lost.aborted, true);
    assert.deepEqual([...keys('/weir/'), ...keys('/services/')], ['/services/shop/i1']);
  });

  claim('is followed by the next at once when it gives the right up', async ({ bench, sidecar }) => {
    const [one, two] = [sidecar('h1').store, sidecar('h2').store];
    const first = wanting(one);
    await bench.until(() => first.owned !== null, 'the first');
    const second = wanting(two);
    await bench.advance(3_000);
    assert.ok(!isOwned(second));
    await first.owned?.release();
    await bench.until(() => second.owned !== null, 'the second');
    assert.equal(second.owned?.lost.aborted, false);
  });

  claim('that dies is followed within 10 s by another, which has the whole ledger', async ({ bench, sidecar }) => {
    const [one, two] = [sidecar('h1'), sidecar('h2')];
    const first = wanting(one.store);
    await bench.until(() => first.owned !== null, 'the first');
    await one.store.ledger('move', NEVER);
    await one.store.savePages('move', [ledgerPage('a/1', [1], { state: 'intent', receipt: null })], NEVER);
    const second = wanting(two.store);
    await bench.until(() => bench.fake.openWatches > 0, 'the wait');
    // Gone without a word: nobody renews its leases, nothing is given back.
    await one.adapter.close();
    await one.target.close();
    const since = bench.clock.now();
    await bench.until(() => second.owned !== null, 'the next owner', 100);
    const took = bench.clock.now() - since;
    assert.ok(took <= 10_000, `${took} ms`);
    assert.equal(first.owned?.lost.aborted, true);
    assert.deepEqual(await pagesOf(two.store), [ledgerPage('a/1', [1], { state: 'intent', receipt: null })]);
    await two.store.savePages('move', [ledgerPage('a/1', [1])], NEVER);
  });

  claim('loses every lock with one of them', async ({ bench, sidecar, keys }) => {
    const { store } = sidecar('h1');
    const state = wanting(store);
    await bench.until(() => state.owned !== null, 'it');
    bench.fake.store.deleteRange({ key: Buffer.from(state.owned?.fences.get('etcd-main')?.key ?? '') });
    await bench.until(() => state.owned?.lost.aborted === true, 'the loss', 100);
    await bench.until(() => keys('/weir/migrations/lock/').length === 0, 'the end of the other', 100);
    await assert.rejects(store.savePages('move', [ledgerPage('a/1', [1])], NEVER), isFenced);
  });

  claim('that does not know of its end is refused by the page it writes, and for good', async ({ sidecar }) => {
    const one = sidecar('h1');
    const owned = await one.store.own('move', ['etcd-main'], NEVER);
    await one.store.ledger('move', NEVER);
    await one.store.savePages('move', [ledgerPage('a/1', [1]), ledgerPage('a/2', [2])], NEVER);
    // Another owner, who had the right to: the lock of the first is still believed here.
    const key = 'migrations/ledger/move/a%2F1';
    const now = await one.state.get(key, NEVER);
    const other = JSON.stringify({ ...JSON.parse(now?.value ?? ''), writer: 'another owner' });
    assert.ok(await one.state.cas(key, other, now?.revision ?? null, NEVER));
    await assert.rejects(one.store.savePages('move', [ledgerPage('a/1', [3])], NEVER), isFenced);
    await assert.rejects(one.store.savePages('move', [ledgerPage('a/2', [3])], NEVER), isFenced);
    assert.equal((await one.state.get(key, NEVER))?.value, other);
    await owned.release();
    // Owning and reading again, it goes on.
    await one.store.own('move', ['etcd-main'], NEVER);
    assert.deepEqual(await pagesOf(one.store), [ledgerPage('a/1', [1]), ledgerPage('a/2', [2])]);
    await one.store.savePages('move', [ledgerPage('a/1', [3])], NEVER);
    assert.deepEqual(await pagesOf(sidecar('h2').store), [ledgerPage('a/1', [3]), ledgerPage('a/2', [2])]);
  });

  claim('that wrote without reading first is refused where pages stand', async ({ sidecar }) => {
    const one = sidecar('h1').store;
    const owned = await one.own('move', [], NEVER);
    await one.ledger('move', NEVER);
    await one.savePages('move', [ledgerPage('a/1', [1])], NEVER);
    await owned.release();
    await one.own('move', [], NEVER);
    await assert.rejects(one.savePages('move', [ledgerPage('a/1', [2])], NEVER), isFenced);
    assert.deepEqual(await pagesOf(one), [ledgerPage('a/1', [1])]);
  });

  for (const apply of ['before', 'late', 'never'] as const) {
    claim(`takes its own write for its own when the answer was lost (carried out: ${apply})`, async ({ bench, sidecar }) => {
      const one = sidecar('h1').store;
      await one.own('move', [], NEVER);
      await one.ledger('move', NEVER);
      await one.savePages('move', [ledgerPage('a/1', [1])], NEVER);
      bench.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply };
      await one.savePages('move', [ledgerPage('a/1', [2])], NEVER).catch(() => undefined);
      bench.fake.writeFault = null;
      if (apply === 'late') bench.fake.applyLate();
      await one.savePages('move', [ledgerPage('a/1', [3])], NEVER);
      await one.savePages('move', [emptyPage('a/1')], NEVER);
      await one.savePages('move', [ledgerPage('a/1', [4])], NEVER);
      assert.deepEqual(await pagesOf(one), [ledgerPage('a/1', [4])]);
    });
  }

  claim('waits through a loss of the store, and not longer than it is wanted', async ({ bench, sidecar }) => {
    const { store } = sidecar('h1');
    await bench.fake.down();
    const state = wanting(store);
    const stop = new AbortController();
    const unwanted = wanting(sidecar('h2').store, stop.signal);
    await bench.advance(2_000);
    stop.abort(new Error('not wanted'));
    await bench.until(() => unwanted.error !== null, 'its end');
    assert.match(String(unwanted.error), /not wanted/);
    await bench.fake.up();
    await bench.until(() => state.owned !== null, 'it', 100);
  });

  claim('of a damaged ledger writes nothing, and the migration is shown as broken', async ({ sidecar }) => {
    const { store, state } = sidecar('h1');
    await store.putDoc(migrationDoc('move'), null, NEVER);
    await state.cas('migrations/ledger/move/a%2F1', '{"version":2}', null, NEVER);
    await store.own('move', [], NEVER);
    await assert.rejects(store.ledger('move', NEVER), isDamage);
    await assert.rejects(store.savePages('move', [ledgerPage('a/2', [1])], NEVER), isDamage);
    assert.deepEqual(
      (await docsNow(store)).map((one) => (one.kind === 'broken' ? one.reason : one.kind)),
      ['shared store, key migrations/ledger/move/a%2F1: journal of version 2, this weir reads 1'],
    );
    assert.equal((await state.get('migrations/ledger/move/a%2F1', NEVER))?.value, '{"version":2}');
  });

  claim('of a new migration never meets the ledger of an old one of its id', async ({ sidecar }) => {
    const { store, state } = sidecar('h1');
    await store.own('move', [], NEVER);
    await store.ledger('move', NEVER);
    await store.savePages('move', [ledgerPage('a/1', [1])], NEVER);
    await state.cas('migrations/report/move/h9', JSON.stringify({ version: 1, ...sidecarReport('h9') }), null, NEVER);
    await store.putDoc(migrationDoc('move'), null, NEVER);
    assert.deepEqual(await pagesOf(store), []);
    assert.deepEqual(
      (await docsNow(store)).map((one) => one.kind === 'doc' && one.reports),
      [[]],
    );
  });
});

describe('a fleet on Consul', () => {
  it('has one owner, whose fence is its session, and shares pages of every size', { timeout: 30_000 }, () =>
    withCleanup(async (defer) => {
      const clock = new FakeClock();
      const fake = await startFakeConsul(clock);
      defer(() => fake.close());
      const sidecar = (name: string): MigrationStore => {
        const { adapter } = makeConsul(fake.address, PLAIN_CONSUL, {}, clock);
        defer(() => adapter.close());
        const state = adapter.stateStore?.() ?? assert.fail('no store');
        const stateOf = (source: string): StateStore | null => (source === 'consul-sz' ? state : null);
        const store = openSharedStore({ state, stateOf, sidecar: name, log: silentLog, clock });
        defer(() => store.close());
        return store;
      };
      const [one, two] = [sidecar('h1'), sidecar('h2')];
      await one.putDoc(migrationDoc('move'), null, NEVER);
      const owned = await one.own('move', ['consul-sz'], NEVER);
      assert.ok(fake.kv.sessions.has(owned.fences.get('consul-sz')?.leaseId ?? ''));
      await one.ledger('move', NEVER);
      await one.savePages('move', [ledgerPage('a/1', ports(1_500)), ledgerPage('a/2', [2])], NEVER);
      assert.equal((await two.ledger('move', NEVER)).get('a/1')?.entries.length, 1_500);
      const second = wanting(two);
      await owned.release();
      await eventually(async () => {
        await clock.advance(500);
        return second.owned !== null;
      });
      assert.equal((await two.ledger('move', NEVER)).size, 2);
      await two.savePages('move', [emptyPage('a/1')], NEVER);
      assert.deepEqual([...(await one.ledger('move', NEVER)).keys()], ['a/2']);
      await second.owned?.release();
      const [stored] = await docsNow(one);
      assert.ok(stored?.kind === 'doc' && (await one.dropDoc('move', stored.revision, NEVER)));
      assert.deepEqual([...fake.kv.keys.keys()], [], 'nothing of it is left, its locks included');
    }),
  );
});
