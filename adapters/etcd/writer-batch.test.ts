// Many records in one call: one transaction, guards and words of refusal for each, single writes where the server takes no batch.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { type Bench, etcdBench, instance, KEY, NEVER } from '../../test/support/etcd-bench.ts';
import { BATCH } from './writer.ts';

const BEAT: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };

function claim(name: string, body: (bench: Bench) => Promise<void>): void {
  for (const version of ['3.4.23', '3.6.16'] as const) {
    it(`${name} (${version})`, { timeout: 30_000 }, async () => {
      const bench = await etcdBench(version);
      try {
        await body(bench);
      } finally {
        await bench.close();
      }
    });
  }
}

const idOf = (n: number): string => `i${n}`;

async function put(b: Bench, ids: readonly string[], weight = 100, how = BEAT, before?: readonly WriteReceipt[]) {
  const writes = ids.map((id, n) => {
    const previous = before?.[n];
    return { key: KEY, instance: instance(8_000 + n, { id, weight }), ...(previous === undefined ? {} : { previous }) };
  });
  return (await b.adapter.put?.(writes, how, NEVER)) ?? assert.fail('no put');
}

async function made(b: Bench, ...rest: [readonly string[], number?]): Promise<readonly WriteReceipt[]> {
  const results = await put(b, ...rest);
  return results.map((result) => (result instanceof SourceError ? assert.fail(result.message) : result));
}

const ids = (n: number): string[] => Array.from({ length: n }, (_, i) => idOf(i));
const stored = (b: Bench, id: string) => b.fake.store.range({ key: Buffer.from(`/services/svc/${id}`) }).kvs[0];
const calls = (b: Bench, name: string): number => b.fake.log.filter(({ call }) => call === name).length;
const weights = (b: Bench, list: readonly string[]): unknown[] =>
  list.map((id) => JSON.parse(stored(b, id)?.value.toString() ?? '{"Metadata":{}}').Metadata.weight);

describe('a put of many records', () => {
  claim('is one transaction for each batch, and each receipt serves the next change and the removal', async (b) => {
    const all = ids(BATCH + 3);
    const receipts = await made(b, all);
    assert.equal(calls(b, 'Txn'), 2);
    assert.equal(new Set(receipts.map(({ nativeId }) => nativeId)).size, all.length);
    const changed = (await put(b, all, 200, BEAT, receipts)) as readonly WriteReceipt[];
    assert.equal(calls(b, 'Txn'), 4);
    assert.deepEqual(
      weights(b, all),
      all.map(() => 200),
    );
    assert.deepEqual(
      await b.adapter.renew?.(changed, NEVER),
      all.map(() => ({ kind: 'renewed', leaseMs: 15_000 })),
    );
    assert.deepEqual(
      await b.adapter.remove?.(changed, {}, NEVER),
      all.map(() => true),
    );
    assert.equal(calls(b, 'Txn'), 6);
    assert.equal(b.fake.store.range({ key: Buffer.from('/services/'), rangeEnd: Buffer.from('/services0') }).kvs.length, 0);
  });

  claim('refuses what another owner holds and writes all the others', async (b) => {
    b.fake.store.put({ key: Buffer.from('/services/svc/i1'), value: Buffer.from('{"Op":0,"Addr":"10.9.9.9:1"}') });
    const results = await put(b, ids(5));
    assert.deepEqual(
      results.map((result) => result instanceof SourceError && result.causeKind),
      [false, 'refused', false, false, false],
    );
    assert.match(stored(b, 'i1')?.value.toString() ?? '', /10\.9\.9\.9/);
    assert.deepEqual(weights(b, ['i0', 'i2', 'i3', 'i4']), [100, 100, 100, 100]);
    // The one that failed and the one that went in.
    assert.equal(calls(b, 'Txn'), 2);
  });

  claim('of one key twice writes both in their order', async (b) => {
    const results = await put(b, ['a', 'b', 'a']);
    assert.ok(results.every((result) => !(result instanceof SourceError)));
    assert.match(stored(b, 'a')?.value.toString() ?? '', /:8002"/);
  });

  claim('that the server refuses as a whole is made one by one', async (b) => {
    b.fake.store.maxTxnOps = 4;
    await made(b, ids(9));
    assert.deepEqual(
      weights(b, ids(9)),
      ids(9).map(() => 100),
    );
  });

  claim('whose answer was lost is read back: what was carried out has its receipt', async (b) => {
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'before' };
    const receipts = await made(b, ids(3));
    assert.deepEqual(
      receipts.map(({ token }) => token?.split('.')[1]),
      ids(3).map((id) => stored(b, id)?.modRevision),
    );
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'never' };
    for (const result of await put(b, ['x', 'y'])) assert.equal(result instanceof SourceError && result.causeKind, 'lost');
  });

  claim('without the leader key is fenced for every record, and so is a removal', async (b) => {
    const lock = await b.adapter.stateStore?.().lock('lead', 6_000, NEVER);
    const fence = lock?.fence ?? assert.fail('no lock');
    const how = { ...BEAT, fence };
    const receipts = (await put(b, ids(3), 100, how)) as readonly WriteReceipt[];
    b.fake.store.deleteRange({ key: Buffer.from(fence.key) });
    for (const result of await put(b, ids(4), 300, how))
      assert.equal(result instanceof SourceError && result.causeKind, 'fenced');
    for (const result of (await b.adapter.remove?.(receipts, { fence }, NEVER)) ?? [])
      assert.equal(result instanceof SourceError && result.causeKind, 'fenced');
    assert.deepEqual(weights(b, ids(4)), [100, 100, 100, undefined]);
  });

  claim('on a lease that is gone grants one more and writes all of them under it', async (b) => {
    const [first] = await made(b, ['a']);
    b.fake.store.revoke(first?.leaseId ?? '');
    const receipts = await made(b, ids(3));
    for (const { leaseId, nativeId } of receipts) assert.equal(stored(b, nativeId)?.lease, leaseId);
  });
});

describe('a removal of many records', () => {
  claim('counts what is gone or foreign as done and removes all the others', async (b) => {
    const receipts = await made(b, ids(4));
    b.remove('svc', 'i0');
    b.remove('svc', 'i1');
    b.fake.store.put({ key: Buffer.from('/services/svc/i1'), value: Buffer.from('{"Op":0,"Addr":"10.9.9.9:1"}') });
    assert.deepEqual(await b.adapter.remove?.(receipts, {}, NEVER), [true, true, true, true]);
    assert.deepEqual(
      ids(4).map((id) => stored(b, id) !== undefined),
      [false, true, false, false],
    );
    assert.equal(b.counts.get('registrations.foreign'), 1);
  });
});
