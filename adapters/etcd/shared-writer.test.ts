// Writes into keys that hold many instances and belong to somebody else (layout apisix), on fakes of both versions.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { type Bench, etcdBench, instance, NEVER, PLAIN, Watching } from '../../test/support/etcd-bench.ts';

const HOW: WriteMode = { as: 'own', ttl: 15_000, liveness: 'persistent' };
const WEB = { namespace: 'default', name: 'web' };
const UPSTREAM = { id: '7', name: 'web', type: 'roundrobin', retries: 2, nodes: { '10.9.9.9:80': 1 }, update_time: 5 };

function claim(name: string, body: (bench: Bench) => Promise<void>): void {
  for (const version of ['3.4.23', '3.6.16'] as const) {
    it(`${name} (${version})`, { timeout: 30_000 }, async () => {
      const bench = await etcdBench(version, PLAIN, { layout: 'apisix' });
      try {
        admin(bench, UPSTREAM);
        await body(bench);
      } finally {
        await bench.close();
      }
    });
  }
}

/** What the operator writes. */
function admin(b: Bench, value: object, id = '7', lease = '0'): void {
  const key = Buffer.from(`/apisix/upstreams/${id}`);
  b.fake.store.put({ key, value: Buffer.from(JSON.stringify(value)), lease });
}

function stored(b: Bench, id = '7') {
  const [kv] = b.fake.store.range({ key: Buffer.from(`/apisix/upstreams/${id}`) }).kvs;
  return kv === undefined ? null : JSON.parse(kv.value.toString());
}

function write(port: number, fields: Partial<Instance> = {}, previous?: WriteReceipt): Write {
  return { key: WEB, instance: instance(port, fields), ...(previous === undefined ? {} : { previous }) };
}

async function put(b: Bench, writes: readonly Write[], how = HOW): Promise<readonly (WriteReceipt | SourceError)[]> {
  return (await b.adapter.put?.(writes, how, NEVER)) ?? assert.fail('not writable');
}

async function made(b: Bench, ...writes: readonly Write[]): Promise<WriteReceipt> {
  const [result] = await put(b, writes);
  if (result === undefined || result instanceof Error) throw result ?? new Error('no answer');
  return result;
}

function refusal(result: unknown, pattern: RegExp, cause = 'refused'): void {
  assert.ok(result instanceof SourceError, `expected a refusal, got ${JSON.stringify(result)}`);
  assert.equal(result.causeKind, cause);
  assert.match(result.message, pattern);
}

const txns = (b: Bench): number => b.fake.log.filter(({ call }) => call === 'Txn').length;

describe('a put into a shared key', () => {
  claim('adds all instances of one call in one transaction, and changes nodes and update_time only', async (b) => {
    const results = await put(b, [write(80), write(81, { weight: 200 }), write(82, { health: 'unhealthy' })]);
    assert.deepEqual(
      results.map((result) => (result instanceof Error ? result.message : result.nativeId)),
      ['10.0.0.1:80', '10.0.0.1:81', '10.0.0.1:82'],
    );
    const { nodes, update_time, ...rest } = stored(b);
    const { nodes: _nodes, update_time: _time, ...given } = UPSTREAM;
    assert.deepEqual(rest, given);
    assert.deepEqual(nodes, { '10.9.9.9:80': 1, '10.0.0.1:80': 1, '10.0.0.1:81': 2, '10.0.0.1:82': 0 });
    assert.equal(update_time, Math.floor(b.clock.wallNow() / 1_000));
    assert.equal(txns(b), 1);
  });

  claim('loses nothing when calls of this process and of another one run at the same time', async (b) => {
    const other = b.another();
    const calls = [80, 81, 82, 83].map((port, n) => (n % 2 === 0 ? b.adapter : other).put?.([write(port)], HOW, NEVER));
    for (const results of await Promise.all(calls)) assert.ok(results?.every((result) => !(result instanceof Error)));
    assert.deepEqual(Object.keys(stored(b).nodes).sort(), [
      '10.0.0.1:80',
      '10.0.0.1:81',
      '10.0.0.1:82',
      '10.0.0.1:83',
      '10.9.9.9:80',
    ]);
  });

  claim('that changes nothing writes nothing', async (b) => {
    await made(b, write(80));
    const { revision } = b.fake.store;
    await made(b, write(80));
    assert.equal(b.fake.store.revision, revision);
  });

  claim('keeps the lease that the operator gave the key', async (b) => {
    const { id } = b.fake.store.grant(60, '0');
    admin(b, UPSTREAM, '7', id);
    await made(b, write(80));
    assert.equal(b.fake.store.range({ key: Buffer.from('/apisix/upstreams/7') }).kvs[0]?.lease, id);
  });

  claim('leaves the node of another owner alone, and its neighbours in the call are written', async (b) => {
    const results = await put(b, [write(80, { host: '10.9.9.9', weight: 500 }), write(81)]);
    refusal(results[0], /another owner/);
    assert.equal(results[1] instanceof Error, false);
    assert.deepEqual(stored(b).nodes, { '10.9.9.9:80': 1, '10.0.0.1:81': 1 });
  });

  claim('by its receipt changes the weight, and moves to another address in one step', async (b) => {
    const receipt = await made(b, write(80));
    const heavier = await made(b, write(80, { weight: 300 }, receipt));
    assert.equal(stored(b).nodes['10.0.0.1:80'], 3);
    await made(b, write(90, {}, heavier));
    assert.deepEqual(stored(b).nodes, { '10.9.9.9:80': 1, '10.0.0.1:90': 1 });
    assert.equal(txns(b), 3);
  });

  claim('is refused where no upstream, more than one, or one with service_name is there; nothing is made', async (b) => {
    const name = (text: string): Write => ({ key: { ...WEB, name: text }, instance: instance(80) });
    admin(b, { ...UPSTREAM, name: 'twice' }, '8');
    admin(b, { ...UPSTREAM, name: 'twice' }, '9');
    admin(b, { name: 'elsewhere', service_name: 'x', discovery_type: 'nacos' }, '10');
    const { revision } = b.fake.store;
    const results = await put(b, [
      name('unknown'),
      name('twice'),
      name('elsewhere'),
      { key: { ...WEB, namespace: 'x' }, instance: instance(1) },
    ]);
    refusal(results[0], /create it first/);
    refusal(results[1], /2 keys/);
    refusal(results[2], /service_name/);
    refusal(results[3], /namespace/);
    refusal((await put(b, [write(80)], { ...HOW, liveness: 'connection' }))[0], /connection/);
    assert.equal(b.fake.store.revision, revision);
  });

  claim('that failed but was carried out is found by reading it back', async (b) => {
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'before' };
    await made(b, write(80));
    assert.equal(stored(b).nodes['10.0.0.1:80'], 1);
  });

  claim('that failed and is carried out late cannot undo what the operator wrote after it', async (b) => {
    b.fake.writeFault = { code: 4, details: 'Deadline exceeded', apply: 'late' };
    refusal((await put(b, [write(80)]))[0], /./, 'lost');
    b.fake.writeFault = null;
    admin(b, { ...UPSTREAM, retries: 9 });
    b.fake.applyLate();
    assert.equal(stored(b).retries, 9);
    assert.deepEqual(stored(b).nodes, UPSTREAM.nodes);
  });

  claim('without the leader key is fenced, also when nothing would change', async (b) => {
    await made(b, write(80));
    const lock = await b.adapter.stateStore?.().lock('lead', 6_000, NEVER);
    const fence = lock?.fence ?? assert.fail('no lock');
    assert.equal((await put(b, [write(81)], { ...HOW, fence }))[0] instanceof Error, false);
    b.fake.store.deleteRange({ key: Buffer.from(fence.key) });
    refusal((await put(b, [write(82)], { ...HOW, fence }))[0], /owner/, 'fenced');
    refusal((await put(b, [write(81)], { ...HOW, fence }))[0], /owner/, 'fenced');
    assert.equal(stored(b).nodes['10.0.0.1:82'], undefined);
  });
});

describe('a removal from a shared key', () => {
  const remove = async (b: Bench, ...receipts: WriteReceipt[]) => b.adapter.remove?.(receipts, {}, NEVER);

  claim('takes out our nodes only, is idempotent, and leaves the key', async (b) => {
    const one = await made(b, write(80));
    const two = await made(b, write(81));
    assert.deepEqual(await remove(b, one, two), [true, true]);
    assert.deepEqual(stored(b).nodes, UPSTREAM.nodes);
    const { revision } = b.fake.store;
    assert.deepEqual(await remove(b, one), [true]);
    assert.equal(b.fake.store.revision, revision);
  });

  claim('leaves an upstream alone that was removed and made again, and counts one that is gone as done', async (b) => {
    const receipt = await made(b, write(80));
    b.fake.store.deleteRange({ key: Buffer.from('/apisix/upstreams/7') });
    assert.deepEqual(await remove(b, receipt), [true]);
    admin(b, { ...UPSTREAM, nodes: { '10.0.0.1:80': 1 } });
    assert.deepEqual(await remove(b, receipt), [true]);
    assert.deepEqual(stored(b).nodes, { '10.0.0.1:80': 1 });
    assert.equal(b.counts.get('registrations.foreign'), 1);
  });
});

describe('a shared key', () => {
  claim('is looked at by renewal: there, or forgotten; lost while the server is away', async (b) => {
    const receipt = await made(b, write(80));
    assert.equal(b.adapter.capabilities.heartbeat, 'none');
    assert.equal((await b.adapter.renew?.([receipt], NEVER))?.map((result) => 'kind' in result && result.kind)[0], 'renewed');
    admin(b, UPSTREAM);
    assert.deepEqual(await b.adapter.renew?.([receipt], NEVER), [{ kind: 'forgotten' }]);
    await b.fake.down();
    refusal((await b.adapter.renew?.([receipt], NEVER))?.[0], /./, 'lost');
  });

  claim('is watched as one service whose nodes come and go; a read says the same', async (b) => {
    const watching = new Watching(b.adapter, WEB);
    await b.until(() => watching.ids === '10.9.9.9:80', 'the first node');
    const receipt = await made(b, write(80));
    await b.until(() => watching.ids === '10.0.0.1:80 10.9.9.9:80', 'our node');
    const read = await b.adapter.read(WEB, NEVER);
    assert.deepEqual(read, watching.last);
    await b.adapter.remove?.([receipt], {}, NEVER);
    await b.until(() => watching.ids === '10.9.9.9:80', 'our node gone');
    admin(b, { ...UPSTREAM, name: 'renamed' });
    await b.until(() => watching.last?.kind === 'absent', 'the name gone');
    watching.stop();
  });
});
