// Writes: guarded, leased, fenced, honest about what they do not know. On fakes of both versions.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Fence, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { type Bench, etcdBench, instance, KEY, NEVER, PLAIN } from '../../test/support/etcd-bench.ts';

const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };

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

async function put(
  b: Bench,
  fields: Parameters<typeof instance>[1] = {},
  how = OWN,
  previous?: WriteReceipt,
): Promise<WriteReceipt | SourceError> {
  const write = { key: KEY, instance: instance(80, { id: 'a', ...fields }), ...(previous === undefined ? {} : { previous }) };
  const [result] = (await b.adapter.put?.([write], how, NEVER)) ?? [];
  return result ?? assert.fail('no answer');
}

async function made(b: Bench, ...rest: Parameters<typeof put> extends [Bench, ...infer R] ? R : never): Promise<WriteReceipt> {
  const result = await put(b, ...rest);
  if (result instanceof Error) throw result;
  return result;
}

function stored(b: Bench, id = 'a') {
  return b.fake.store.range({ key: Buffer.from(`/services/svc/${id}`) }).kvs[0];
}

function foreign(b: Bench, id = 'a', lease = '0'): void {
  const value = Buffer.from('{"Op":0,"Addr":"10.9.9.9:1"}');
  b.fake.store.put({ key: Buffer.from(`/services/svc/${id}`), value, lease });
}

function refusal(result: unknown): SourceError {
  assert.ok(result instanceof SourceError, `expected a refusal, got ${JSON.stringify(result)}`);
  return result;
}

async function remove(b: Bench, receipt: WriteReceipt, fence?: Fence) {
  return (await b.adapter.remove?.([receipt], fence === undefined ? {} : { fence }, NEVER))?.[0];
}

describe('a put', () => {
  claim('hangs on one lease for all instances of a ttl, and on another for another ttl', async (b) => {
    const one = await made(b);
    const two = await made(b, { id: 'b', port: 81 });
    const other = await made(b, { id: 'c', port: 82 }, { ...OWN, ttl: 60_000 });
    assert.equal(one.leaseId, two.leaseId);
    assert.notEqual(one.leaseId, other.leaseId);
    assert.equal(stored(b)?.lease, one.leaseId);
    assert.equal(b.fake.log.filter(({ call }) => call === 'LeaseGrant').length, 2);
  });

  claim('of a key that another owner holds is refused and leaves it alone', async (b) => {
    foreign(b);
    const lease = b.fake.store.grant(60, '0').id;
    foreign(b, 'b', lease);
    for (const id of ['a', 'b']) {
      const error = refusal(await put(b, { id }));
      assert.equal(error.causeKind, 'refused');
      assert.match(error.message, /another owner/);
      assert.match(stored(b, id)?.value.toString() ?? '', /10\.9\.9\.9/);
    }
  });

  claim('of a copy takes over a copy of the same migration under another lease, and no other record', async (b) => {
    const copy = (migration: string) => ({
      metadata: new Map([
        ['weir-origin', 'a'],
        ['weir-migration', migration],
        ['weir-hops', '1'],
      ]),
    });
    const asCopy: WriteMode = { ...OWN, as: 'copy' };
    await made(b, copy('m1'), asCopy);
    const next = b.another();
    const over = async (fields: object, how: WriteMode) =>
      (await next.put?.([{ key: KEY, instance: instance(80, { id: 'a', ...fields }) }], how, NEVER))?.[0];
    assert.equal(refusal(await over(copy('m2'), asCopy)).causeKind, 'refused');
    assert.equal(refusal(await over(copy('m1'), OWN)).causeKind, 'refused');
    const taken = await over({ ...copy('m1'), weight: 50 }, asCopy);
    assert.ok(taken !== undefined && !(taken instanceof Error), String(taken));
    assert.equal(stored(b)?.lease, taken.leaseId);
    assert.equal((await next.renew?.([taken], NEVER))?.[0] instanceof Error, false);
    assert.equal(await next.remove?.([taken], {}, NEVER).then(([first]) => first), true);
    assert.equal(stored(b), undefined);
  });

  claim('whose id changes under the same key (kratos: another scheme) keeps the record that it wrote', async (b) => {
    const kratos = b.another(PLAIN, { layout: 'kratos', prefix: '/services/' });
    const write = async (protocol: string, previous?: WriteReceipt): Promise<WriteReceipt> => {
      const one = { key: KEY, instance: instance(80, { id: 'a', protocol }), ...(previous === undefined ? {} : { previous }) };
      const result = (await kratos.put?.([one], OWN, NEVER))?.[0];
      return result === undefined || result instanceof Error ? assert.fail(String(result)) : result;
    };
    const first = await write('http');
    const second = await write('grpc', first);
    assert.deepEqual([first.nativeId, second.nativeId], ['a#http', 'a#grpc']);
    assert.match(stored(b)?.value.toString() ?? 'gone', /grpc:\/\//);
    assert.equal((await kratos.remove?.([second], {}, NEVER))?.[0], true);
    assert.equal(stored(b), undefined);
  });

  claim('that changes nothing writes nothing', async (b) => {
    await made(b);
    const { revision } = b.fake.store;
    await made(b);
    assert.equal(b.fake.store.revision, revision);
  });

  claim('after a restart takes its own record over by the receipt, under a new lease', async (b) => {
    const receipt = await made(b);
    const next = b.another();
    const write = { key: KEY, instance: instance(80, { id: 'a', weight: 300 }), previous: receipt };
    const [again] = (await next.put?.([write], OWN, NEVER)) ?? [];
    assert.ok(again !== undefined && !(again instanceof Error));
    assert.notEqual(again.leaseId, receipt.leaseId);
    assert.equal(stored(b)?.lease, again.leaseId);
  });

  claim('whose lease was taken off by a foreign put of the same key brings the lease back', async (b) => {
    const receipt = await made(b);
    b.fake.store.put({ key: Buffer.from('/services/svc/a'), value: stored(b)?.value ?? Buffer.alloc(0) });
    assert.deepEqual(await b.adapter.renew?.([receipt], NEVER), [{ kind: 'forgotten' }]);
    await made(b, {}, OWN, receipt);
    assert.equal(stored(b)?.lease, receipt.leaseId);
  });

  claim('on a lease that is gone grants another one once', async (b) => {
    const receipt = await made(b);
    b.fake.store.revoke(receipt.leaseId ?? '');
    const again = await made(b);
    assert.notEqual(again.leaseId, receipt.leaseId);
    assert.equal(stored(b)?.lease, again.leaseId);
  });

  claim('that moves to another key leaves nothing behind under the old one', async (b) => {
    const receipt = await made(b);
    await made(b, { id: 'moved' }, OWN, receipt);
    assert.equal(stored(b), undefined);
    assert.ok(stored(b, 'moved'));
  });

  claim('persistent has no lease, and renewing it only looks whether it is there', async (b) => {
    const how: WriteMode = { ...OWN, liveness: 'persistent' };
    const receipt = await made(b, {}, how);
    assert.equal(receipt.leaseId, undefined);
    assert.equal(stored(b)?.lease, '0');
    assert.equal((await b.adapter.renew?.([receipt], NEVER))?.[0] instanceof Error, false);
    assert.equal(await remove(b, receipt), true);
    assert.equal(stored(b), undefined);
    assert.deepEqual(await b.adapter.renew?.([receipt], NEVER), [{ kind: 'forgotten' }]);
    assert.equal(refusal(await put(b, {}, { ...OWN, liveness: 'connection' })).causeKind, 'refused');
  });

  claim('that failed but was carried out is found by reading it back', async (b) => {
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'before' };
    const receipt = await made(b);
    assert.equal(stored(b)?.lease, receipt.leaseId);
    assert.equal(receipt.token?.split('.')[1], stored(b)?.modRevision);
  });

  claim('that failed and is carried out late cannot overwrite what came after it', async (b) => {
    await made(b);
    b.fake.writeFault = { code: 4, details: 'Deadline exceeded', apply: 'late' };
    assert.equal(refusal(await put(b, { weight: 1 })).causeKind, 'lost');
    b.fake.writeFault = null;
    await made(b, { weight: 200 });
    b.fake.applyLate();
    assert.match(stored(b)?.value.toString() ?? '', /"weight":200/);
  });

  claim('that never arrived is an error, and the key is as it was', async (b) => {
    b.fake.writeFault = { code: 14, details: 'etcdserver: request timed out', apply: 'never' };
    assert.equal(refusal(await put(b)).causeKind, 'lost');
    assert.equal(stored(b), undefined);
  });

  claim('over the quota says what to do', async (b) => {
    b.fake.writeFault = { code: 8, details: 'etcdserver: mvcc: database space exceeded', apply: 'never' };
    const error = refusal(await put(b));
    assert.equal(error.causeKind, 'refused');
    assert.match(error.message, /defragment/);
  });

  claim('of a namespace or a name that the layout cannot hold is refused', async (b) => {
    const [space] = (await b.adapter.put?.([{ key: { namespace: 'x', name: 'svc' }, instance: instance(1) }], OWN, NEVER)) ?? [];
    assert.match(refusal(space).message, /namespace/);
    const [slash] =
      (await b.adapter.put?.([{ key: { namespace: 'default', name: 'a/b' }, instance: instance(1) }], OWN, NEVER)) ?? [];
    assert.match(refusal(slash).message, /cannot write a service name/);
  });

  claim('of an isolated or unhealthy instance writes weight 0', async (b) => {
    await made(b, { isolated: true });
    assert.match(stored(b)?.value.toString() ?? '', /"weight":0/);
    await made(b, { health: 'unhealthy' });
    assert.match(stored(b)?.value.toString() ?? '', /"weight":0/);
  });
});

describe('a removal', () => {
  claim('leaves a foreign record under the same key alone and counts as done', async (b) => {
    const receipt = await made(b);
    b.remove('svc', 'a');
    foreign(b);
    assert.equal(await remove(b, receipt), true);
    assert.match(stored(b)?.value.toString() ?? '', /10\.9\.9\.9/);
    assert.equal(b.counts.get('registrations.foreign'), 1);
  });

  claim('of the last key revokes the lease, of an earlier one does not', async (b) => {
    const one = await made(b);
    const two = await made(b, { id: 'b', port: 81 });
    await remove(b, one);
    assert.ok(b.fake.store.timeToLive(two.leaseId ?? '').ttl > 0);
    await remove(b, two);
    assert.equal(b.fake.store.timeToLive(two.leaseId ?? '').ttl, -1);
    await made(b);
    assert.ok(stored(b));
  });

  claim('that failed but was carried out is found by reading it back', async (b) => {
    const receipt = await made(b);
    b.fake.writeFault = { code: 4, details: 'Deadline exceeded', apply: 'before' };
    assert.equal(await remove(b, receipt), true);
  });
});

describe('renewal', () => {
  claim('tells a key that somebody deleted although its lease lives', async (b) => {
    const one = await made(b);
    const two = await made(b, { id: 'b', port: 81 });
    b.remove('svc', 'a');
    const results = await b.adapter.renew?.([one, two], NEVER);
    assert.deepEqual(results, [{ kind: 'forgotten' }, { kind: 'renewed', leaseMs: 15_000 }]);
    assert.equal(b.counts.get('registrations.keyGone'), 1);
    assert.equal(b.fake.log.filter(({ call }) => call === 'LeaseKeepAlive').length, 1, 'one burst for both');
  });

  claim('while the server is away is lost for each, and nothing is forgotten', async (b) => {
    const receipt = await made(b);
    await b.fake.down();
    const [result] = (await b.adapter.renew?.([receipt], NEVER)) ?? [];
    assert.equal(refusal(result).causeKind, 'lost');
    await b.fake.up();
    let again = await b.adapter.renew?.([receipt], NEVER);
    await b.until(async () => {
      if (!(again?.[0] instanceof Error)) return true;
      again = await b.adapter.renew?.([receipt], NEVER);
      return false;
    }, 'a renewal');
    assert.deepEqual(again, [{ kind: 'renewed', leaseMs: 15_000 }]);
  });
});

describe('a fence', () => {
  async function leader(b: Bench): Promise<Fence> {
    const lock = await b.adapter.stateStore?.().lock('lead', 6_000, NEVER);
    return lock?.fence ?? assert.fail('no lock');
  }

  claim('lets the leader write and remove', async (b) => {
    const fence = await leader(b);
    const receipt = await made(b, {}, { ...OWN, fence });
    assert.equal(await remove(b, receipt, fence), true);
    assert.equal(stored(b), undefined);
  });

  for (const [how, spoil] of [
    ['is gone', (b: Bench, fence: Fence) => void b.fake.store.deleteRange({ key: Buffer.from(fence.key) })],
    [
      'lost its lease to a foreign put',
      (b: Bench, fence: Fence) => b.fake.store.put({ key: Buffer.from(fence.key), value: Buffer.alloc(0) }),
    ],
    [
      'was deleted and made again',
      (b: Bench, fence: Fence) => {
        b.fake.store.deleteRange({ key: Buffer.from(fence.key) });
        b.fake.store.put({ key: Buffer.from(fence.key), value: Buffer.alloc(0), lease: fence.leaseId });
      },
    ],
  ] as const) {
    claim(`stops every write when the leader key ${how}`, async (b) => {
      const fence = await leader(b);
      const receipt = await made(b, {}, { ...OWN, fence });
      spoil(b, fence);
      assert.equal(refusal(await put(b, { weight: 300 }, { ...OWN, fence })).causeKind, 'fenced');
      assert.equal(refusal(await put(b, { id: 'new', port: 99 }, { ...OWN, fence })).causeKind, 'fenced');
      assert.equal(refusal(await remove(b, receipt, fence)).causeKind, 'fenced');
      assert.match(stored(b)?.value.toString() ?? '', /"weight":100/);
      assert.equal(stored(b, 'new'), undefined);
    });
  }
});
