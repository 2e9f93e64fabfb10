// The rules of reading against the fake: what may remove, how often is asked, what every oddity of a server leads to. On a fake clock.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { asSourceError, type Snapshot, type SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../../test/conformance/adapter.ts';
import { key, type Made, makeAdapter, never, PLAIN, Raw, withCleanup } from '../../test/live/consul-support.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeConsul, startFakeConsul } from './fake.ts';

interface Rig {
  readonly clock: FakeClock;
  readonly fake: FakeConsul;
  readonly raw: Raw;
  readonly made: Made;
  /** Lets `ms` pass in small steps, with real time for the sockets. */
  pass(ms: number, step?: number): Promise<void>;
  until(what: string, claim: () => boolean, maxMs?: number): Promise<void>;
}

const ROOT = 'root';

function rig(body: (r: Rig) => Promise<void>, options: { token?: string | null; config?: object } = {}): Promise<void> {
  return withCleanup(async (defer) => {
    const clock = new FakeClock();
    const fake = await startFakeConsul(clock);
    defer(() => fake.close());
    const token = options.token ?? null;
    const made = makeAdapter(fake.address, { ...PLAIN, auth: token === null ? {} : { token } }, options.config ?? {}, clock);
    defer(() => made.adapter.close());
    const turn = async (ms: number): Promise<void> => {
      await clock.advance(ms);
      await new Promise<void>((resolve) => setTimeout(resolve, 2));
    };
    await body({
      clock,
      fake,
      raw: new Raw(fake.address, token === null ? null : ROOT),
      made,
      async pass(ms, step = 250) {
        for (let left = ms; left > 0; left -= step) await turn(Math.min(step, left));
      },
      async until(what, claim, maxMs = 60_000) {
        for (let passed = 0; !claim(); passed += 50) {
          assert.ok(passed < maxMs, `not seen: ${what}`);
          await turn(50);
        }
      },
    });
  });
}

/** One watch, opened again half a second after each loss. */
function follow(
  { made, clock }: Rig,
  name: string,
): { items: (Snapshot | Unchanged)[]; losses: SourceError[]; sizes(): number[]; stop(): void } {
  const stop = new AbortController();
  const items: (Snapshot | Unchanged)[] = [];
  const losses: SourceError[] = [];
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        for await (const item of made.adapter.watch(key(name), stop.signal)) items.push(item);
      } catch (thrown) {
        losses.push(asSourceError(thrown));
      }
      await clock.sleep(500, stop.signal).catch(() => {});
    }
  };
  void run();
  const sizes = (): number[] =>
    items.flatMap((item) => (item.kind === 'unchanged' ? [] : [item.kind === 'absent' ? 0 : item.instances.length]));
  return { items, losses, sizes, stop: () => stop.abort(new Error('enough')) };
}

describe('what may remove', () => {
  it('a token that loses its rights shrinks nothing, on streaming nor plainly, and is told as denied', () =>
    rig(
      async (r) => {
        let blind = false;
        r.fake.acl = new Map([
          [ROOT, () => true],
          ['reader', () => !blind],
        ]);
        await r.raw.register('web', sampleInstance(1));
        await r.raw.register('web', sampleInstance(2));
        const seen = follow(r, 'web');
        await r.until('both', () => seen.sizes().at(-1) === 2);
        blind = true;
        await r.pass(70_000);
        assert.ok(seen.losses.length > 0 && seen.losses.every(({ causeKind }) => causeKind === 'denied'));
        assert.deepEqual([...new Set(seen.sizes())], [2]);
        blind = false;
        await r.until('live again', () => seen.items.length > 1);
        await r.raw.register('web', sampleInstance(3));
        await r.until('the third', () => seen.sizes().at(-1) === 3);
        seen.stop();
      },
      { token: 'reader' },
    ));

  it('a token that may read services but no nodes sees names and empty lists: denied', () =>
    rig(
      async (r) => {
        r.fake.acl = new Map([
          [ROOT, () => true],
          ['reader', (name: string) => name !== '*node'],
        ]);
        await r.raw.register('web', sampleInstance(1));
        await assert.rejects(r.made.adapter.read(key('web'), never()), (thrown) => asSourceError(thrown).causeKind === 'denied');
      },
      { token: 'reader' },
    ));

  it('without a token and with default deny an empty list and an empty list of names are denied', () =>
    rig(async (r) => {
      r.fake.acl = new Map([[ROOT, () => true]]);
      await assert.rejects(r.made.adapter.read(key('web'), never()), /auth\.token/);
      const list = r.made.adapter.services?.(never())[Symbol.asyncIterator]();
      await assert.rejects(async () => list?.next(), /auth\.token/);
    }));

  it('a list of names that is filtered is not complete', () =>
    rig(
      async (r) => {
        r.fake.acl = new Map([
          [ROOT, () => true],
          ['reader', (name: string) => name === 'web' || name.startsWith('*')],
        ]);
        await r.raw.register('web', sampleInstance(1));
        await r.raw.register('secret', sampleInstance(2));
        for await (const list of r.made.adapter.services?.(never()) ?? []) {
          assert.deepEqual([list.keys.map(({ name }) => name), list.complete], [['web'], false]);
          break;
        }
      },
      { token: 'reader' },
    ));

  it('servers that are lost make the watch lost although streaming looks well, until the guard call is good again', () =>
    rig(async (r) => {
      await r.raw.register('web', sampleInstance(1));
      const seen = follow(r, 'web');
      await r.until('it', () => seen.sizes().length > 0);
      r.fake.lastContactMs = 10_533;
      r.fake.leader = false;
      await r.until('the loss', () => seen.losses.length > 0, 20_000);
      const before = seen.sizes().length;
      r.fake.store.removeService('native', 'web-192.0.2.1:8001');
      await r.pass(20_000);
      assert.equal(seen.sizes().length, before);
      r.fake.lastContactMs = 0;
      r.fake.leader = true;
      await r.until('the removal', () => seen.sizes().at(-1) === 0);
      seen.stop();
    }));

  it('an agent that knows nothing answers streaming with an empty list: no removal', () =>
    rig(async (r) => {
      await r.raw.register('web', sampleInstance(1));
      const seen = follow(r, 'web');
      await r.until('it', () => seen.sizes().length > 0);
      r.fake.hook = ({ path, query }) =>
        path === '/v1/health/service/web' && query.has('index')
          ? { headers: { 'x-consul-index': '1', 'x-consul-query-backend': 'streaming' }, body: [] }
          : null;
      await r.raw.register('web', sampleInstance(2));
      await r.until('the second, by a plain read', () => seen.sizes().at(-1) === 2);
      await r.pass(60_000);
      assert.ok(seen.sizes().every((size) => size > 0));
      seen.stop();
    }));
});

describe('how often is asked', () => {
  const PATH = '/v1/health/service/web';

  for (const [name, body, most] of [
    [
      '1,000 answers a second with news',
      (n: number) => [{ Node: { Node: 'n', Address: '10.0.0.1' }, Service: { ID: 'a', Service: 'web', Port: (n % 60_000) + 1 } }],
      130,
    ],
    ['1,000 answers a second without news', () => [], 25],
    ['index 0 for ever', () => [], 25],
  ] as const) {
    it(`${name}: a minute costs at most ${most} requests of the watch`, () =>
      rig(async (r) => {
        const zero = name.startsWith('index 0');
        r.fake.hook = ({ path, nth }) =>
          path === PATH ? { headers: { 'x-consul-index': zero ? '0' : String(100 + nth) }, body: body(nth) } : null;
        const seen = follow(r, 'web');
        await r.pass(60_000);
        seen.stop();
        const count = r.fake.asked(PATH).length;
        assert.ok(count >= 3 && count <= most, `${count} requests`);
        assert.deepEqual(seen.losses, []);
      }));
  }

  it('a missing index is told once, then polled every 15 s', () =>
    rig(async (r) => {
      r.fake.hook = ({ path }) => (path === PATH ? { headers: { 'x-consul-index': null }, body: [] } : null);
      const seen = follow(r, 'web');
      await r.pass(90_000);
      seen.stop();
      assert.equal(seen.losses.length, 1);
      assert.ok((r.made.counts.get('index.missing') ?? 0) <= 9);
      assert.ok(r.fake.asked(PATH).length <= 9);
    }));

  it('150 services hold at most 100 blocking queries, and all changes are seen', () =>
    rig(async (r) => {
      const names = Array.from({ length: 150 }, (_, n) => `svc-${n}`);
      for (const name of names) await r.raw.register(name, sampleInstance(1));
      const all = names.map((name) => follow(r, name));
      await r.until('all', () => all.every((one) => one.sizes().at(-1) === 1), 120_000);
      await r.pass(10_000);
      assert.ok(r.fake.maxHeld <= 102, `${r.fake.maxHeld} held`);
      const last = all.at(-1) ?? assert.fail('none');
      await r.raw.register('svc-149', sampleInstance(2));
      await r.until('an instance', () => last.sizes().at(-1) === 2, 3_000);
      await r.raw.deregister('native/svc-149-192.0.2.1:8001');
      await r.until('a removal', () => last.sizes().at(-1) === 1, 3_000);
      await r.raw.call('PUT', '/catalog/register', {
        Node: 'bare',
        Address: '192.0.2.9',
        Service: { ID: 'x', Service: 'svc-149', Port: 9 },
      });
      await r.until('an instance without checks, by the list of names', () => last.sizes().at(-1) === 2, 20_000);
      r.fake.store.setNode('bare', '192.0.2.10', null);
      await r.until(
        'the address of a node, by the sweep',
        () => {
          const item = last.items.findLast((one) => one.kind === 'present');
          return item?.instances.some(({ host }) => host === '192.0.2.10') === true;
        },
        80_000,
      );
      for (const one of all) one.stop();
    }));

  it('a node that fails its check fails every service on it, also those of the firehose', () =>
    rig(
      async (r) => {
        for (const name of ['a', 'b', 'c']) await r.raw.register(name, sampleInstance(1));
        const all = ['a', 'b', 'c'].map((name) => follow(r, name));
        await r.until('all', () => all.every((one) => one.sizes().length > 0));
        const unhealthy = (n: number): boolean => {
          const item = all[n]?.items.findLast((one) => one.kind === 'present');
          return item?.instances[0]?.health === 'unhealthy';
        };
        await r.pass(3_000);
        r.fake.store.setCheck({ Node: 'native', CheckID: 'serfHealth', Name: 's', Status: 'critical' });
        await r.until('all failed', () => [0, 1, 2].every(unhealthy), 3_000);
        r.fake.store.removeCheck('native', 'serfHealth');
        await r.until('all well', () => ![0, 1, 2].some(unhealthy), 3_000);
        for (const one of all) one.stop();
      },
      { config: { maxWatches: 1 } },
    ));
});

describe('many services with few queries of their own', () => {
  const few = { config: { maxWatches: 1 } };
  const names = Array.from({ length: 60 }, (_, n) => `svc-${n}`);
  const lists = (r: Rig): number => names.reduce((sum, name) => sum + plain(r, name).length, 0);
  /** Whole lists of a service that were read; a read of its index alone names a tag. */
  const plain = ({ fake }: Rig, name: string) =>
    fake.asked(`/v1/health/service/${name}`).filter(({ path, query }) => path.endsWith(`/${name}`) && !query.has('tag'));

  async function settled(r: Rig): Promise<ReturnType<typeof follow>[]> {
    for (const name of names) await r.raw.register(name, sampleInstance(1));
    const all = names.map((name) => follow(r, name));
    await r.until('all', () => all.every((one) => one.sizes().at(-1) === 1), 120_000);
    await r.pass(10_000);
    return all;
  }
  const weight = (r: Rig, name: string, to: number): void => {
    const service = r.fake.store.servicesNamed(name)[0] ?? assert.fail(name);
    r.fake.store.setService(service.node, { ...service.body, Weights: { Passing: to, Warning: to } });
  };
  const weightOf = (one: ReturnType<typeof follow> | undefined): number | undefined => {
    const item = one?.items.findLast((item) => item.kind === 'present');
    return item?.kind === 'present' ? item.instances[0]?.weight : undefined;
  };

  it('changed fields, which no check shows, are heard within a second, each by one read of its service alone', () =>
    rig(async (r) => {
      const all = await settled(r);
      const before = lists(r);
      for (let n = 1; n <= 40; n++) {
        weight(r, `svc-${n}`, 7);
        await r.until(`weight of svc-${n}`, () => weightOf(all[n]) === 700, 1_100);
      }
      assert.ok(lists(r) - before <= 45, `${lists(r) - before} lists read`);
      assert.equal(r.made.counts.get('sweeps.failed'), undefined);
      for (const one of all) one.stop();
    }, few));

  it('a change behind some of services with a query of their own, after a long rest, is heard within a second', () =>
    rig(async (r) => {
      const all = await settled(r);
      await r.pass(200_000, 1_000);
      for (let n = 0; n < 6; n++) {
        weight(r, 'svc-0', 20 + n);
        await r.pass(600, 50);
      }
      weight(r, 'svc-30', 5);
      await r.until('the weight', () => weightOf(all[30]) === 500, 1_100);
      assert.equal(weightOf(all[0]), 2_500);
      for (const one of all) one.stop();
    }, few));

  it('at rest indices are asked once a minute, lists once in five; each service is still told to be in contact', () =>
    rig(async (r) => {
      const all = await settled(r);
      const [before, sweeps] = [lists(r), r.made.counts.get('sweeps') ?? 0];
      const told = all.map(({ items }) => items.length);
      await r.pass(130_000, 500);
      // svc-0 has a query of its own.
      assert.ok(lists(r) - before <= 12, `${lists(r) - before} lists read`);
      const swept = (r.made.counts.get('sweeps') ?? 0) - sweeps;
      assert.ok(swept >= 1 && swept <= 4, `${swept} sweeps`);
      assert.ok(all.every(({ items }, n) => items.length > (told[n] ?? 0)));
      await r.pass(240_000, 1_000);
      assert.ok(lists(r) - before >= 59, 'every list was read once');
      for (const one of all) one.stop();
    }, few));

  it('changes of what nobody watches cost less and less, and what is watched is then heard at the slower pace', () =>
    rig(async (r) => {
      const all = await settled(r);
      const before = r.made.counts.get('sweeps') ?? 0;
      for (let n = 0; n < 60; n++) {
        await r.raw.register('noise', sampleInstance(1, { weight: 100 * (n + 1) }));
        await r.pass(500);
      }
      const swept = (r.made.counts.get('sweeps') ?? 0) - before;
      assert.ok(swept >= 8 && swept <= 26, `${swept} sweeps in 30 s`);
      weight(r, 'svc-5', 9);
      await r.until('the weight', () => weightOf(all[5]) === 900, 4_600);
      weight(r, 'svc-6', 9);
      await r.until('the next weight', () => weightOf(all[6]) === 900, 1_100);
      for (const one of all) one.stop();
    }, few));

  it('an index that cannot be asked for is no news lost: everybody is read whole instead, and the failure is counted', () =>
    rig(async (r) => {
      const all = await settled(r);
      r.fake.hook = ({ query }) => (query.has('tag') ? { status: 500, body: 'no', cut: true } : null);
      weight(r, 'svc-3', 3);
      await r.until('the weight', () => weightOf(all[3]) === 300, 20_000);
      assert.ok((r.made.counts.get('sweeps.failed') ?? 0) > 0);
      assert.deepEqual(
        all.flatMap(({ losses }) => losses),
        [],
      );
      for (const one of all) one.stop();
    }, few));

  it('an index that stays another one than its list’s is looked at up to three times, not for ever', () =>
    rig(async (r) => {
      const all = await settled(r);
      r.fake.hook = ({ path, query }) =>
        path === '/v1/health/service/svc-7' && query.has('tag') ? { headers: { 'x-consul-index': '3' }, body: [] } : null;
      const before = plain(r, 'svc-7').length;
      for (let n = 0; n < 20; n++) {
        weight(r, 'svc-9', 10 + n);
        await r.pass(1_000);
      }
      // Two that come within a second are one read.
      const reads = plain(r, 'svc-7').length - before;
      assert.ok(reads >= 2 && reads <= 3, `${reads} reads`);
      assert.equal(weightOf(all[9]), 2_900);
      for (const one of all) one.stop();
    }, few));

  it('a service id that goes over to another name leaves the old one within five minutes and a bit', () =>
    rig(async (r) => {
      const all = await settled(r);
      const old = r.fake.store.servicesNamed('svc-8')[0] ?? assert.fail();
      // The plain index of the old name does not move while others of it stand.
      await r.raw.register('svc-8', sampleInstance(2));
      await r.until('both', () => all[8]?.sizes().at(-1) === 2, 3_000);
      r.fake.store.setService(old.node, { ...old.body, Service: 'svc-9' });
      await r.until('the move', () => all[8]?.sizes().at(-1) === 1 && all[9]?.sizes().at(-1) === 2, 340_000);
      for (const one of all) one.stop();
    }, few));
});

describe('what a bad answer leads to', () => {
  const cases: readonly (readonly [name: string, answer: object, cause: string, text: RegExp])[] = [
    ['400', { status: 400, body: 'Invalid index', headers: { 'x-consul-index': '1' } }, 'refused', /Invalid index/],
    [
      'namespace',
      { status: 400, body: 'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature' },
      'refused',
      /remove namespace/,
    ],
    ['403 of an unknown token', { status: 403, body: 'ACL not found' }, 'denied', /auth\.token/],
    ['403 of streaming', { status: 403, body: 'rpc error: code = Unknown desc = ACL not found' }, 'denied', /auth\.token/],
    [
      '404 of another server',
      { status: 404, body: 'nothing here', headers: { 'x-consul-index': null, 'x-consul-query-backend': null } },
      'malformed',
      /8500/,
    ],
    ['429', { status: 429, body: 'Your IP is issuing too many concurrent connections' }, 'lost', /http_max_conns_per_client/],
    ['500 without leader', { status: 500, body: 'No cluster leader' }, 'lost', /no leader/],
    ['500 of a datacenter', { status: 500, body: 'No path to datacenter' }, 'lost', /datacenter/],
    ['a redirect', { status: 307, body: '', headers: { location: 'http://169.254.169.254/' } }, 'malformed', /redirect/],
    [
      'TLS behind a plain address',
      { status: 400, body: 'Client sent an HTTP request to an HTTPS server.\n' },
      'malformed',
      /https:\/\//,
    ],
    ['HTML', { body: '<html>' }, 'malformed', /JSON/],
    ['null', { body: 'null' }, 'malformed', /no list/],
    ['an object', { body: '{}' }, 'malformed', /no list/],
    ['bytes that are no UTF-8', { body: Buffer.from([0x5b, 0x22, 0xff, 0x22, 0x5d]) }, 'malformed', /UTF-8/],
    ['a million brackets', { body: '['.repeat(1_000_000) }, 'malformed', /nesting/],
    ['a body that is cut', { body: '[1,2,3,4,5,6,7,8]', cut: true }, 'lost', /./],
    ['a gzip that was not asked for', { body: 'x', headers: { 'content-encoding': 'gzip' } }, 'malformed', /encoding/],
    ['a follower without leader', { body: '[]', headers: { 'x-consul-knownleader': 'false' } }, 'lost', /leader/],
  ];
  for (const [name, answer, cause, text] of cases) {
    it(`${name}: ${cause}, in words that tell what to change`, () =>
      rig(async (r) => {
        r.fake.hook = () => answer;
        const reading = r.made.adapter.read(key('web'), never());
        const settled = reading.then(() => assert.fail('it was read'), asSourceError);
        await r.pass(100);
        const error = await settled;
        assert.equal(error.causeKind, cause);
        assert.match(error.message, text);
        r.fake.hook = () => null;
        assert.equal((await r.made.adapter.read(key('web'), never())).kind, 'absent');
      }));
  }

  it('one byte in a minute is over at the deadline of the call', () =>
    rig(async (r) => {
      r.fake.hook = () => ({ body: '[     ]', trickle: 1 });
      const settled = r.made.adapter.read(key('web'), never()).then(() => assert.fail('it was read'), asSourceError);
      await r.pass(10_500);
      assert.match((await settled).message, /within 10000 ms/);
    }));

  it('a port that speaks no HTTP, and one where nothing listens, are told apart', async () => {
    const other = createServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end('SSH-2.0-OpenSSH_9.2\r\n'),
    );
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const address = other.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    const read = async (url: string): Promise<SourceError> => {
      const { adapter } = makeAdapter(url);
      const error = await adapter.read(key('web'), never()).then(() => assert.fail('it was read'), asSourceError);
      await adapter.close();
      return error;
    };
    const speaks = await read(`http://127.0.0.1:${port}`);
    assert.deepEqual([speaks.causeKind, /HTTP port/.test(speaks.message)], ['malformed', true], speaks.message);
    const tls = await read(`https://127.0.0.1:${port}`);
    assert.match(tls.message, /speaks plain HTTP|speaks plain text/);
    await new Promise<void>((resolve) => other.close(() => resolve()));
    const nothing = await read(`http://127.0.0.1:${port}`);
    assert.deepEqual([nothing.causeKind, /nothing listens/.test(nothing.message)], ['lost', true]);
  });
});

describe('configuration', () => {
  for (const [config, options, text] of [
    [{ address: 'ftp://x' }, {}, /expected http/],
    [{ address: 'http://x:99999' }, {}, /port/],
    [{ address: 'http://x' }, { tls: {} }, /https/],
    [{}, { auth: { username: 'u', password: 'p' } }, /auth\.token/],
    [{ namespace: '*' }, {}, /one namespace/],
    [{ peer: 'p' }, {}, /peerServices/],
    [{ maxWatches: 200 }, {}, /at most 100 over plain HTTP.*use https/],
    [{ address: 'https://x', maxWatches: 1_001 }, {}, /maxWatches/],
  ] as const) {
    it(`${JSON.stringify(config)} ${JSON.stringify(options)} is refused: ${text.source}`, async () => {
      const { adapter } = makeAdapter(
        '',
        { ...PLAIN, ...options },
        config.address === undefined ? { address: 'http://x', ...config } : config,
      );
      await assert.rejects(adapter.read(key('web'), never()), text);
    });
  }

  it('names of a peer come from the configuration, and nothing is registered there', () =>
    rig(
      async (r) => {
        for await (const list of r.made.adapter.services?.(never()) ?? []) {
          assert.deepEqual(list.keys, [key('web')]);
          break;
        }
        assert.equal(r.made.adapter.capabilities.register, false);
        await r.made.adapter.read(key('web'), never());
        assert.equal(r.fake.asked('/v1/health/service/web')[0]?.query.get('peer'), 'other');
      },
      { config: { peer: 'other', peerServices: ['web'] } },
    ));

  it('names that Consul cannot have, and other namespaces, are refused without asking', () =>
    rig(async (r) => {
      for (const name of ['..', 'a\nb', '']) await assert.rejects(r.made.adapter.read(key(name), never()), /no service can have/);
      await assert.rejects(r.made.adapter.read({ namespace: 'other', name: 'x' }, never()), /namespace default only/);
      assert.equal(r.fake.requests.length, 0);
    }));
});
