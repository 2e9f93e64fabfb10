// Which snapshots the consumers of a source get: layouts with rules across keys, and keys that are only put again.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bench, etcdBench, NEVER, PLAIN, Watching } from '../../test/support/etcd-bench.ts';
import { eventually } from '../../test/support/eventually.ts';

async function withBench(config: object, body: (bench: Bench) => Promise<void>): Promise<void> {
  const bench = await etcdBench('3.6.16', PLAIN, config);
  try {
    await body(bench);
  } finally {
    await bench.close();
  }
}

function put(b: Bench, key: string, value: string): void {
  b.fake.store.put({ key: Buffer.from(key), value: Buffer.from(value) });
}

const of = (name: string) => ({ namespace: 'default', name });
const snapshots = (w: Watching): number => w.items.filter(({ kind }) => kind !== 'unchanged').length;

describe('a key that is put again with nothing new', () => {
  const ARITH = '/rpcx/Arith/tcp@10.0.0.11:8972';

  it('gives no snapshot; the next change does, with the newest revision', () =>
    withBench({ layout: 'rpcx', prefix: '/rpcx' }, async (b) => {
      put(b, ARITH, 'calls=0&weight=1');
      const watching = new Watching(b.adapter, of('Arith'));
      await b.until(() => watching.ids === 'tcp@10.0.0.11:8972', 'the instance');
      for (let calls = 1; calls <= 20; calls++) put(b, ARITH, `calls=${calls}&weight=1`);
      put(b, ARITH, 'calls=21&weight=2');
      await b.until(() => watching.last?.kind === 'present' && watching.last.instances[0]?.weight === 200, 'the weight');
      assert.equal(snapshots(watching), 2);
      assert.equal(watching.last?.sourceRevision, String(b.fake.store.revision));
      watching.stop();
    }));

  it('is shown when it decides which of two records of one address counts', () =>
    withBench({ layout: 'rpcx', prefix: '/rpcx' }, async (b) => {
      put(b, ARITH, 'weight=1');
      put(b, '/rpcx/Arith/http@10.0.0.11:8972', 'weight=2');
      const watching = new Watching(b.adapter, of('Arith'));
      await b.until(() => watching.ids === 'http@10.0.0.11:8972', 'the newer one');
      put(b, ARITH, 'weight=1&calls=3');
      await b.until(() => watching.ids === 'tcp@10.0.0.11:8972', 'the one that is newer now');
      watching.stop();
    }));

  it('is shown when the revisions of the store began anew', () =>
    withBench({ layout: 'rpcx', prefix: '/rpcx' }, async (b) => {
      for (let n = 0; n < 5; n++) put(b, ARITH, `weight=1&calls=${n}`);
      const first = new Watching(b.adapter, of('Arith'));
      await b.until(() => first.ids === 'tcp@10.0.0.11:8972', 'the instance');
      b.fake.wipe();
      put(b, ARITH, 'weight=1&calls=0');
      let watching = first;
      await b.until(
        () => {
          if (watching.ended) watching = new Watching(b.adapter, of('Arith'));
          return (
            watching.last !== undefined && watching.last.epoch !== first.items.find((item) => item.kind === 'present')?.epoch
          );
        },
        'the new epoch',
        500,
      );
      assert.equal(watching.ids, 'tcp@10.0.0.11:8972');
      watching.stop();
    }));
});

describe('skydns names in a feed', () => {
  const SKYDNS = { layout: 'skydns' };

  it('see the keys below them come and go, and the key of their own path when none is left', () =>
    withBench(SKYDNS, async (b) => {
      put(b, '/skydns/local/svc', '{"host":"10.0.0.1","port":1}');
      const watching = new Watching(b.adapter, of('svc.local'));
      await b.until(() => watching.ids === 'svc', 'its own key');
      put(b, '/skydns/local/svc/a/x1', '{"host":"10.0.0.1","port":2}');
      await b.until(() => watching.ids === 'a/x1', 'the deeper key');
      put(b, '/skydns/local/svc/x2', '{"host":"10.0.0.1","port":3,"group":"g"}');
      await b.until(() => watching.ids === 'a/x1 x2', 'both');
      put(b, '/skydns/local/svc/a/x1', '{"host":"10.0.0.1","port":2,"group":"h"}');
      await b.until(() => watching.ids === 'x2', 'the group of the shorter key');
      assert.deepEqual(await b.adapter.read(of('svc.local'), NEVER), watching.last);
      b.fake.store.deleteRange({ key: Buffer.from('/skydns/local/svc/'), rangeEnd: Buffer.from('/skydns/local/svc0') });
      await b.until(() => watching.ids === 'svc', 'its own key again');
      b.fake.store.deleteRange({ key: Buffer.from('/skydns/local/svc') });
      await b.until(() => watching.last?.kind === 'absent', 'nothing');
      watching.stop();
    }));

  it('are listed by parent path only, and no more when their last own key goes', () =>
    withBench(SKYDNS, async (b) => {
      put(b, '/skydns/local/svc/a/x1', '{"host":"10.0.0.1","port":1}');
      put(b, '/skydns/local/svc/x2', '{"host":"10.0.0.1","port":2}');
      const stop = new AbortController();
      let names: string | null = null;
      const reading = (async () => {
        for await (const { keys } of b.adapter.services?.(stop.signal) ?? [])
          names = keys
            .map(({ name }) => name)
            .sort()
            .join(' ');
      })();
      await b.until(() => names === 'a.svc.local svc.local', 'two names');
      b.fake.store.deleteRange({ key: Buffer.from('/skydns/local/svc/x2') });
      await b.until(() => names === 'a.svc.local', 'one name');
      assert.equal((await b.adapter.read(of('svc.local'), NEVER)).kind, 'present');
      stop.abort(new Error('seen enough'));
      await eventually(() => reading.then(() => true));
    }));
});
