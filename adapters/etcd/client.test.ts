// Where calls go and what failures say: endpoints, another member, wrong servers, configuration, lists in pages.
import assert from 'node:assert/strict';
import { createServer as createHttp } from 'node:http';
import { createServer } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { systemClock } from '../../src/kernel/clock.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { etcdBench, instance, KEY, NEVER, PLAIN, Watching } from '../../test/support/etcd-bench.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { EtcdClient, parseEndpoint } from './client.ts';
import { resolveConfig } from './config.ts';
import { EtcdFailure, sourceError, unknownOutcome } from './errors.ts';
import { type FakeEtcd, startFakeEtcd } from './fake.ts';
import { listPrefix, MAX_KEYS } from './lister.ts';
import { prefixEnd, type RangeResponse } from './protocol.ts';
import { knownFaults, progressInOrder } from './server-version.ts';

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

function client(...addresses: string[]): EtcdClient {
  const endpoints = addresses.map((address) => ({ address, tls: false }));
  const made = new EtcdClient(endpoints, { ...PLAIN, timeout: 1_000 }, { clock: systemClock, random: () => 0 });
  ends.push(() => made.close());
  return made;
}

async function fake(): Promise<FakeEtcd> {
  const started = await startFakeEtcd('3.6.16', new FakeClock());
  ends.push(() => started.close());
  return started;
}

const range = { key: Buffer.from('/') };

describe('endpoints', () => {
  for (const [text, tls, want] of [
    ['http://10.0.0.1:2379', false, { address: '10.0.0.1:2379', tls: false }],
    ['https://etcd.example', false, { address: 'etcd.example:2379', tls: true }],
    ['10.0.0.1:1', true, { address: '10.0.0.1:1', tls: true }],
    ['http://[2001:DB8::1]:7/', false, { address: '[2001:db8::1]:7', tls: false }],
    ['http://10.0.0.1:2379', true, /tls is set/],
    ['ftp://10.0.0.1', false, /expected http/],
    ['10.0.0.1:0', false, /port/],
    ['10.0.0.1:99999', false, /port/],
    ['http://user@host:1', false, /expected http/],
    ['http://010.0.0.1:1', false, /expected http/],
  ] as const) {
    it(`${text}${tls ? ' with tls' : ''} is ${want instanceof RegExp ? 'refused' : want.address}`, () => {
      const got = parseEndpoint(text, tls);
      if (want instanceof RegExp) assert.match(String(got), want);
      else assert.deepEqual(got, want);
    });
  }

  it('a member that is gone loses the call, and the next call asks the next member', async () => {
    const [one, two] = [await fake(), await fake()];
    const asked = client(one.endpoint, two.endpoint);
    await asked.call('Range', range, NEVER);
    assert.deepEqual([one.log.length, two.log.length], [1, 0]);
    await one.down();
    await assert.rejects(asked.call('Range', range, NEVER), EtcdFailure);
    await asked.call('Range', range, NEVER);
    assert.equal(two.log.length, 1);
  });

  it('a read that confirms asks another member than the one in use', async () => {
    const [one, two] = [await fake(), await fake()];
    const asked = client(one.endpoint, two.endpoint);
    await asked.call('Range', range, NEVER, true);
    assert.deepEqual([one.log.length, two.log.length], [0, 1]);
  });

  it('an abort rejects with its reason and leaves no timer', async () => {
    const one = await fake();
    one.halfOpen = true;
    const clock = new FakeClock();
    const asked = new EtcdClient([{ address: one.endpoint, tls: false }], PLAIN, { clock, random: () => 0 });
    ends.push(() => asked.close());
    const stop = new AbortController();
    const call = asked.call('Range', range, stop.signal);
    const reason = new Error('enough');
    setImmediate(() => stop.abort(reason));
    await assert.rejects(call, (thrown) => thrown === reason);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(clock.pending, 0);
  });
});

describe('what is not an etcd says so', () => {
  async function message(address: string): Promise<SourceError> {
    return client(address)
      .call('Range', range, NEVER)
      .then(
        () => assert.fail('it answered'),
        (thrown: unknown) => sourceError(thrown),
      );
  }

  it('nothing listening', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    await new Promise((resolve) => server.close(resolve));
    const error = await message(`127.0.0.1:${address.port}`);
    assert.equal(error.causeKind, 'lost');
    assert.match(error.message, /nothing listens/);
  });

  it('an HTTP/1 server', async () => {
    const server = createHttp((_request, response) => response.end('hello'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ends.push(() => server.close());
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const error = await message(`127.0.0.1:${address.port}`);
    assert.ok(['lost', 'malformed'].includes(error.causeKind));
    assert.match(error.message, /127\.0\.0\.1/);
  });

  it('a server that accepts and says nothing ends at the deadline, and its socket is not left open', async () => {
    let open = 0;
    const server = createServer((socket) => {
      open++;
      socket.resume();
      socket.on('error', () => {});
      socket.once('close', () => open--);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ends.push(() => server.close());
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const error = await message(`127.0.0.1:${address.port}`);
    assert.match(error.message, /no answer/);
    await eventually(() => open === 0);
  });
});

describe('a failure', () => {
  for (const [code, details, cause, hint] of [
    [16, 'etcdserver: invalid auth token', 'denied', /check auth/],
    [3, 'etcdserver: user name is empty', 'denied', /auth\.username/],
    [7, 'etcdserver: permission denied', 'denied', /grant its role/],
    [7, 'something new', 'denied', /refused us/],
    [8, 'etcdserver: mvcc: database space exceeded', 'refused', /defragment/],
    [8, 'grpc: received message larger than max (3145741 vs. 2097152)', 'refused', /over the limit of the server/],
    [8, 'Received message larger than max (7373038 vs 4194304)', 'limit', /narrow prefix/],
    [8, 'Bandwidth exhausted or memory limit exceeded', 'lost', /pings/],
    [12, 'unknown service', 'malformed', /2379/],
    [14, 'etcdserver: no leader', 'lost', /leader/],
    [14, 'etcdserver: request timed out', 'lost', /failed/],
    [4, 'Deadline exceeded after 1.000s', 'lost', /in time/],
    [5, 'etcdserver: requested lease not found', 'refused', /refused the request/],
    [2, 'a riddle', 'lost', /failed/],
  ] as const) {
    it(`${code} "${details}" is ${cause} and says what to do`, () => {
      const error = sourceError(new EtcdFailure(code, details, '10.0.0.1:2379'));
      assert.equal(error.causeKind, cause);
      assert.match(error.message, hint);
      assert.ok(error.message.includes(details.slice(0, 20)), 'the words of the server are kept');
    });
  }

  it('that is none of ours counts as lost, and a SourceError stays what it is', () => {
    assert.equal(sourceError(new TypeError('a bug')).causeKind, 'lost');
    const own = new SourceError('limit', 'x');
    assert.equal(sourceError(own), own);
  });

  it('leaves the outcome of a write unknown when the connection or the time ran out, not when the server refused', () => {
    assert.equal(unknownOutcome(new EtcdFailure(4, 'x', 'e')), true);
    assert.equal(unknownOutcome(new EtcdFailure(14, 'x', 'e')), true);
    assert.equal(unknownOutcome(new EtcdFailure(7, 'x', 'e')), false);
    assert.equal(unknownOutcome(new EtcdFailure(5, 'x', 'e')), false);
  });
});

describe('a list in pages', () => {
  const header = (revision: number) => ({ clusterId: '1', memberId: '1', raftTerm: '1', revision: String(revision) });
  const kv = (key: string) => ({
    key: Buffer.from(key),
    createRevision: '1',
    modRevision: '1',
    version: '1',
    value: Buffer.alloc(0),
    lease: '0',
  });
  const page = (revision: number, keys: string[], more: boolean, count = 3): RangeResponse => ({
    header: header(revision),
    kvs: keys.map(kv),
    more,
    count: String(count),
  });

  it('is read at the revision of its first page although later headers carry newer ones', async () => {
    const asked: (string | undefined)[] = [];
    const pages = [page(6, ['/a/1', '/a/2'], true), page(9, ['/a/3'], false, 1)];
    const listing = await listPrefix((request) => {
      asked.push(`${request.key.toString('latin1')} ${request.revision}`);
      return Promise.resolve(pages[asked.length - 1] ?? assert.fail('too many pages'));
    }, '/a/');
    assert.deepEqual(asked, ['/a/ undefined', '/a/2\0 6']);
    assert.equal(listing.header.revision, '6');
    assert.equal(listing.kvs.length, 3);
  });

  it('starts again when its revision is compacted away in between, and gives up after a few times', async () => {
    let calls = 0;
    const compacted = new EtcdFailure(11, 'etcdserver: mvcc: required revision has been compacted', 'e');
    const listing = await listPrefix(() => {
      calls++;
      if (calls === 2) return Promise.reject(compacted);
      return Promise.resolve(calls === 1 ? page(6, ['/a/1'], true) : page(8, ['/a/2'], false, 1));
    }, '/a/');
    assert.deepEqual([listing.header.revision, listing.kvs.length], ['8', 1]);
    await assert.rejects(
      listPrefix(() => Promise.reject(compacted), '/a/'),
      (thrown) => thrown === compacted,
    );
  });

  it('asks for smaller pages when one is over our receive limit', async () => {
    const limits: (string | undefined)[] = [];
    await listPrefix((request) => {
      limits.push(request.limit);
      if (Number(request.limit) > 10) return Promise.reject(new EtcdFailure(8, 'Received message larger than max (1 vs 0)', 'e'));
      return Promise.resolve(page(6, ['/a/1'], false, 1));
    }, '/a/');
    assert.deepEqual(limits, ['1000', '125', '16', '2']);
  });

  it('of more keys than allowed is a limit, seen on the first page', async () => {
    await assert.rejects(
      listPrefix(() => Promise.resolve(page(6, ['/a/1'], true, MAX_KEYS + 1)), '/a/'),
      (thrown) => thrown instanceof SourceError && thrown.causeKind === 'limit',
    );
  });

  it('covers exactly its prefix', () => {
    assert.equal(prefixEnd(Buffer.from('/a/')).toString(), '/a0');
    assert.deepEqual(prefixEnd(Buffer.from([0x61, 0xff, 0xff])), Buffer.from([0x62]));
    assert.deepEqual(prefixEnd(Buffer.from([0xff])), Buffer.from([0]));
  });
});

describe('the version of the server', () => {
  it('tells whether progress comes after the events it covers', () => {
    for (const [version, want] of [
      ['3.4.23', false],
      ['3.4.25', true],
      ['3.5.7', false],
      ['3.5.8', true],
      ['3.6.0', true],
      ['3.3.9', false],
      ['4.0.0', true],
      ['nonsense', false],
      [null, false],
    ] as const) {
      assert.equal(progressInOrder(version), want, String(version));
    }
  });

  it('names the known faults of old members and none of new ones', () => {
    assert.ok(knownFaults('3.4.23').length >= 5);
    assert.deepEqual(knownFaults('3.6.16'), []);
    assert.deepEqual(knownFaults('nonsense'), []);
  });

  it('is warned of once per source', async () => {
    const bench = await etcdBench('3.4.23');
    ends.push(() => bench.close());
    for (let n = 0; n < 2; n++) {
      const watching = new Watching(bench.adapter);
      await bench.until(() => bench.fake.openWatches === 1, 'a stream');
      watching.stop();
      await bench.until(() => bench.fake.openWatches === 0, 'its end');
    }
    assert.equal(bench.lines.filter((line) => line.includes('known faults')).length, 1);
  });
});

describe('the configuration', () => {
  const endpoints = ['10.0.0.1:2379'];

  it('has defaults: layout grpc, its prefix, namespace default, the normal weight of the layout', () => {
    const config = resolveConfig({ endpoints }, PLAIN);
    assert.ok(typeof config !== 'string');
    assert.deepEqual(
      [config.layout.name, config.prefix, config.namespace, config.normalWeight],
      ['grpc', '/services/', 'default', 100],
    );
  });

  it('ends every prefix with the separator and takes a weight that the user sets', () => {
    const config = resolveConfig({ endpoints, layout: 'kitex', prefix: '/x' }, { ...PLAIN, normalWeight: 50 });
    assert.ok(typeof config !== 'string');
    assert.deepEqual([config.prefix, config.normalWeight], ['/x/', 50]);
  });

  for (const [name, config, hint] of [
    ['an unknown layout', { endpoints, layout: 'x' }, /expected one of grpc/],
    ['registrator', { endpoints, layout: 'registrator' }, /v2 store/],
    ['go-zero without a prefix', { endpoints, layout: 'go-zero' }, /set prefix/],
    ['a namespace with a slash', { endpoints, namespace: 'a/b' }, /namespace/],
    ['a custom layout without address', { endpoints, layout: 'custom', custom: { pointers: { host: '/h' } } }, /address/],
    ['an unknown key', { endpoints, nonsense: 1 }, /nonsense/],
    ['a bad endpoint', { endpoints: ['x://y'] }, /expected http/],
  ] as const) {
    it(`with ${name} is refused by a sentence, which every call repeats`, async () => {
      assert.match(String(resolveConfig(config, PLAIN)), hint);
      const { factory } = await import('./index.ts');
      const bench = await etcdBench('3.6.16');
      ends.push(() => bench.close());
      const adapter = factory.create(config, PLAIN, {
        sourceId: 'x',
        clock: bench.clock,
        random: () => 0,
        dial: () => null,
        log: { debug() {}, info() {}, warn() {}, error() {}, child: () => assert.fail('unused') },
        count() {},
      });
      const refused = (thrown: unknown): boolean =>
        thrown instanceof SourceError && thrown.causeKind === 'refused' && hint.test(thrown.message);
      await assert.rejects(adapter.read(KEY, NEVER), refused);
      await assert.rejects(adapter.watch(KEY, NEVER)[Symbol.asyncIterator]().next(), refused);
      await adapter.close();
    });
  }

  it('custom reads and writes what it describes', async () => {
    const custom = {
      key: '{namespace}/{service}/{id}',
      value: 'json',
      pointers: { address: '/addr', weight: '/w' },
      normalWeight: 1,
    };
    const bench = await etcdBench('3.6.16', PLAIN, { layout: 'custom', prefix: '/reg/', custom });
    ends.push(() => bench.close());
    const key = { namespace: 'prod', name: 'web' };
    await bench.adapter.put?.(
      [{ key, instance: instance(80, { weight: 200 }) }],
      { as: 'own', ttl: 15_000, liveness: 'beat' },
      NEVER,
    );
    const [kv] = bench.fake.store.range({ key: Buffer.from('/reg/prod/web/i80') }).kvs;
    assert.equal(kv?.value.toString(), '{"addr":"10.0.0.1:80","w":2}');
    const snapshot = await bench.adapter.read(key, NEVER);
    assert.equal(snapshot.kind === 'present' && snapshot.instances[0]?.weight, 200);
  });
});
