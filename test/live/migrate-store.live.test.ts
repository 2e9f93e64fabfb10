// The shared store of migrations on real etcd servers: an owner that dies is followed, and what it still sends is refused by store and target.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import type { WriteMode } from '../../src/adapter/contract.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { silentLog } from '../../src/kernel/log.ts';
import type { MigrationStore } from '../../src/migrate/ports.ts';
import { openSharedStore } from '../../src/migrate/shared-store.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { startEtcd } from '../registries/start.ts';
import { instance, KEY } from '../support/etcd-bench.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { docsNow, ledgerPage, migrationDoc, sidecarReport } from '../support/migration-fixture.ts';
import { itPerVersion, makeAdapter, never, PLAIN, Raw } from './etcd-support.ts';

const COPY: WriteMode = { as: 'copy', ttl: 60_000, liveness: 'beat' };
const PORTS = Array.from({ length: 2_000 }, (_, n) => n + 1);

describe('the shared store of migrations on real etcd servers', () => {
  itPerVersion(
    'an owner that dies is followed within 10 s, with its whole ledger, and is refused by the target',
    60_000,
    async (version, t) => {
      const server = await startEtcd({ version });
      const ends: (() => unknown)[] = [() => server.stop()];
      try {
        const sidecar = (name: string) => {
          const { adapter } = makeAdapter([server.endpoint], PLAIN, { prefix: '/weir/' });
          const { adapter: target } = makeAdapter([server.endpoint]);
          const state = adapter.stateStore?.() ?? assert.fail('no store');
          const stateOf = () => target.stateStore?.() ?? null;
          const store: MigrationStore = openSharedStore({ state, stateOf, sidecar: name, log: silentLog, clock: systemClock });
          ends.push(
            () => adapter.close(),
            () => target.close(),
            () => store.close(),
          );
          return { store, adapter, target };
        };
        const [one, two] = [sidecar('h1'), sidecar('h2')];
        const revision = await one.store.putDoc(migrationDoc('move'), null, never());
        assert.equal(await two.store.putDoc(migrationDoc('move'), null, never()), null);
        await one.store.report('move', sidecarReport('h1'), never());
        await two.store.report('move', sidecarReport('h2'), never());
        assert.deepEqual(await docsNow(two.store), [
          { kind: 'doc', doc: migrationDoc('move'), revision, reports: [sidecarReport('h1'), sidecarReport('h2')] },
        ]);

        const owned = await one.store.own('move', ['etcd-main'], never());
        await one.store.ledger('move', never());
        await one.store.savePages('move', [ledgerPage('a/1', PORTS), ledgerPage('a/2', [1])], never());
        const fence = owned.fences.get('etcd-main') ?? assert.fail('no fence');
        const put = async (port: number) =>
          (await one.target.put?.([{ key: KEY, instance: instance(port) }], { ...COPY, fence }, never()))?.[0];
        const made = await put(80);
        assert.ok(made !== undefined && !(made instanceof SourceError), String(made));

        // Its connection to the store is gone, the one to the target is not: the worst of stale owners.
        const waiting = two.store.own('move', ['etcd-main'], never());
        await one.adapter.close();
        const since = performance.now();
        const next = await waiting;
        assertFigure(t, `takeover on etcd ${version}`, performance.now() - since, 10_000, 'ms');
        assert.equal(owned.lost.aborted, true);
        const stale = await put(81);
        assert.ok(stale instanceof SourceError && stale.causeKind === 'fenced', String(stale));
        const ledger = await two.store.ledger('move', never());
        assert.deepEqual([ledger.get('a/1')?.entries.length, ledger.get('a/2')?.entries.length], [PORTS.length, 1]);
        await two.store.savePages('move', [ledgerPage('a/1', [1])], never());

        const removed = await two.target.remove?.(
          [made],
          { fence: next.fences.get('etcd-main') ?? assert.fail('no fence') },
          never(),
        );
        assert.deepEqual(removed, [true]);
        await next.release();
        assert.equal(await two.store.dropDoc('move', revision ?? '', never()), true);
        const raw = new Raw(server.endpoint);
        ends.push(() => raw.close());
        await eventually(async () => {
          const { kvs } = await raw.client.call('Range', { key: Buffer.from('/'), rangeEnd: Buffer.from('0') }, never());
          assert.deepEqual(
            kvs.map(({ key }) => key.toString()),
            [],
          );
        });
      } finally {
        for (const end of ends.reverse()) await end();
      }
    },
  );
});
