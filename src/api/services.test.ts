import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type FakeApi, fakeApi, sourceState, viewInstance } from '../../test/support/api-fakes.ts';
import { settle } from '../../test/support/fake-clock.ts';

const LOCAL = { host: 'localhost:7900' };

function get(fake: FakeApi, url: string, headers: Record<string, string> = {}) {
  return fake.api.app.inject({ method: 'GET', url, headers: { ...LOCAL, ...headers } });
}

describe('GET /v1/services', () => {
  let fake: FakeApi;
  before(async () => {
    fake = await fakeApi();
    for (let i = 0; i < 1_203; i++) fake.catalog.put(`game/s${String(i).padStart(4, '0')}`, [viewInstance('10.0.0.1', 80)]);
    fake.catalog.put('shop/GROUP@@cart', [viewInstance('10.0.0.1', 80), viewInstance('10.0.0.2', 80)], ['healthy', 'unhealthy']);
    fake.catalog.stateOf.set('shop/GROUP@@cart', [
      sourceState({ state: 'stale', ageMs: 90_000.4 }),
      sourceState({ source: 'b', presence: 'absent' }),
    ]);
  });
  after(() => fake.api.close());

  it('pages through every name exactly once, in order', async () => {
    const seen: string[] = [];
    let url = '/v1/services?limit=250';
    for (;;) {
      const body = (await get(fake, url)).json();
      seen.push(...body.services.map((one: { namespace: string; name: string }) => `${one.namespace}/${one.name}`));
      if (body.next === undefined) break;
      url = `/v1/services?limit=250&cursor=${body.next}`;
    }
    assert.equal(seen.length, 1_204);
    assert.deepEqual(seen, [...new Set(seen)].sort());
  });

  it('gives no `next` when the page ends with the last name', async () => {
    const body = (await get(fake, '/v1/services?namespace=shop&limit=1')).json();
    assert.deepEqual(Object.keys(body), ['services']);
  });

  it('counts instances and healthy ones, and says which source is stale by how much', async () => {
    const body = (await get(fake, '/v1/services?namespace=shop')).json();
    assert.deepEqual(body.services, [
      {
        namespace: 'shop',
        name: 'GROUP@@cart',
        instances: 2,
        healthy: 1,
        routable: 1,
        sources: ['local'],
        revision: 2_204,
        stale: true,
        ageMs: 90_000,
      },
    ]);
  });

  it('filters by part, by pattern and by source', async () => {
    const names = async (query: string) =>
      (await get(fake, `/v1/services?${query}`)).json().services.map((one: { name: string }) => one.name);
    assert.deepEqual(await names('q=s1202'), ['s1202']);
    assert.deepEqual(await names('q=game/s120*'), ['s1200', 's1201', 's1202']);
    assert.deepEqual(await names('q=*cart&source=local'), ['GROUP@@cart']);
    assert.deepEqual(await names('q=*cart&source=b'), [], 'b answers that it does not know it');
  });

  it('refuses unknown keys, bad limits, cursors and patterns with the path of the fault', async () => {
    for (const [query, path] of [
      ['limt=1', 'query.limt'],
      ['limit=0', 'query.limit'],
      ['limit=x', 'query.limit'],
      ['cursor=%21', 'query.cursor'],
      ['q=a*[b]', 'query.q'],
      ['namespace=a&namespace=b', 'query.namespace'],
    ]) {
      const answer = await get(fake, `/v1/services?${query}`);
      assert.equal(answer.statusCode, 400, query);
      assert.equal(answer.json().error.code, 'BAD_REQUEST');
      assert.equal(answer.json().error.details.faults[0].path, path);
    }
  });
});

describe('GET /v1/services/{ns}/{name}', () => {
  let fake: FakeApi;
  before(async () => {
    fake = await fakeApi();
    fake.catalog.put(
      'game/lobby',
      [
        viewInstance('10.0.0.1', 80, {
          locality: { zone: 'a' },
          metadata: new Map([
            ['tier', 'x'],
            ['__proto__', 'y'],
          ]),
        }),
        viewInstance('2001:db8::1', 81, {
          weight: 0,
          held: true,
          protocol: 'grpc',
          provenance: [{ source: 'b', nativeId: 'n', weight: 0, health: 'unknown', isolated: false, held: true, copyOf: 'a' }],
        }),
      ],
      ['healthy', 'unknown'],
    );
    fake.catalog.put('default/empty', []);
    fake.catalog.put('default/a/b c', [viewInstance('10.0.0.3', 1)]);
  });
  after(() => fake.api.close());

  it('shows the view with verdicts, provenance, metadata and source states', async () => {
    const body = (await get(fake, '/v1/services/game/lobby')).json();
    assert.equal(body.namespace, 'game');
    assert.equal(body.revision, 1_001);
    assert.equal(body.stale, false);
    const { source: _source, ...state } = sourceState({ ageMs: 12, contactAgeMs: 1 });
    assert.deepEqual(body.sources, { local: state });
    assert.deepEqual(
      body.instances.map((one: { host: string; verdict: string; held: boolean; weight: number }) => [
        one.host,
        one.verdict,
        one.held,
        one.weight,
      ]),
      [
        ['10.0.0.1', 'healthy', false, 100],
        ['2001:db8::1', 'unknown', true, 0],
      ],
    );
    assert.match(body.instances[0].id, /^[0-9a-f]{16}$/);
    assert.equal(
      Object.getOwnPropertyDescriptor(body.instances[0].metadata, '__proto__')?.value,
      'y',
      'a metadata key of any name is plain data',
    );
    assert.equal(body.instances[1].provenance[0].copyOf, 'a');
  });

  it('marks ejected instances by what the data plane says', async () => {
    const endpoint = {
      host: '10.0.0.1',
      port: 80,
      active: 0,
      ejected: true,
      ejectedForMs: 5,
      breaker: 'closed' as const,
      connections: { active: 0, idle: 0, pending: 0 },
      share: 0,
    };
    fake.clusters.set('game/lobby', {
      service: 'game/lobby',
      revision: 1,
      panic: false,
      activeRequests: 0,
      lastPickAgeMs: null,
      endpoints: [endpoint],
    });
    await fake.clock.advance(200);
    const body = (await get(fake, '/v1/services/game/lobby')).json();
    assert.deepEqual(
      body.instances.map((one: { ejected: boolean }) => one.ejected),
      [true, false],
    );
    fake.clusters.clear();
    await fake.clock.advance(200);
  });

  it('filters by verdict, zone, source and metadata, all at once', async () => {
    const hosts = async (query: string) =>
      (await get(fake, `/v1/services/game/lobby?${query}`)).json().instances.map((one: { host: string }) => one.host);
    assert.deepEqual(await hosts('healthy=true'), ['10.0.0.1']);
    assert.deepEqual(await hosts('healthy=false'), ['2001:db8::1']);
    assert.deepEqual(await hosts('zone=a&meta.tier=x'), ['10.0.0.1']);
    assert.deepEqual(await hosts('zone=a&meta.tier=z'), []);
    assert.deepEqual(await hosts('meta.__proto__=y'), ['10.0.0.1']);
    assert.deepEqual(await hosts('source=b'), ['2001:db8::1']);
  });

  it('tells known but empty (200, []) from unknown (404) from not ready (503)', async () => {
    const empty = await get(fake, '/v1/services/default/empty');
    assert.equal(empty.statusCode, 200);
    assert.deepEqual(empty.json().instances, []);
    const unknown = await get(fake, '/v1/services/default/nobody');
    assert.equal(unknown.statusCode, 404);
    assert.equal(unknown.json().error.code, 'SERVICE_NOT_FOUND');
    fake.catalog.waitingForFirst = true;
    const early = await get(fake, '/v1/services/default/nobody');
    assert.equal(early.statusCode, 503);
    assert.equal(early.json().error.code, 'CATALOG_NOT_READY');
    assert.equal((await get(fake, '/v1/services/default/empty')).statusCode, 200, 'what is known is answered at once');
    fake.catalog.waitingForFirst = false;
  });

  it('takes names with slashes, spaces and dots, percent-encoded, as plain names', async () => {
    assert.equal((await get(fake, '/v1/services/default/a%2Fb%20c')).json().name, 'a/b c');
    assert.equal((await get(fake, '/v1/services/default/..%2F..%2Fetc')).statusCode, 404);
    assert.equal((await get(fake, '/v1/services/de%2Ffault/x')).json().error.details.faults[0].path, 'path.ns');
    assert.equal((await get(fake, '/v1/services/default/a%00b')).statusCode, 400);
    assert.equal((await get(fake, `/v1/services/default/${'x'.repeat(256)}`)).statusCode, 400);
    assert.equal((await get(fake, '/v1/services/default/%zz')).statusCode, 400);
    const long = 'ä'.repeat(127);
    assert.equal((await get(fake, `/v1/services/default/${encodeURIComponent(long)}`)).statusCode, 404, '254 bytes is a name');
  });

  it('answers 304 to an ETag of equal content, and the ETag changes with revision, source state, hold and ejection', async () => {
    const first = await get(fake, '/v1/services/game/lobby');
    const etag = String(first.headers['etag']);
    assert.match(etag, /^W\/"/);
    const again = await get(fake, '/v1/services/game/lobby', { 'if-none-match': `"other", ${etag}` });
    assert.equal(again.statusCode, 304);
    assert.equal(again.body, '');
    assert.equal(again.headers['x-weir-index'], first.headers['x-weir-index']);
    fake.catalog.stateOf.set('game/lobby', [sourceState({ ageMs: 99 })]);
    await fake.clock.advance(200);
    assert.equal((await get(fake, '/v1/services/game/lobby')).headers['etag'], etag, 'ages alone change nothing');
    fake.catalog.stateOf.set('game/lobby', [sourceState({ state: 'stale' })]);
    await fake.clock.advance(200);
    const stale = await get(fake, '/v1/services/game/lobby', { 'if-none-match': etag });
    assert.equal(stale.statusCode, 200);
    assert.equal(stale.json().stale, true);
    fake.catalog.stateOf.set('game/lobby', [sourceState()]);
    await fake.clock.advance(200);
  });

  it('refuses unknown query keys and waits that are no durations', async () => {
    for (const query of ['indx=1', 'index=-1', 'wait=5', 'wait=5x&index=0', 'healthy=yes', 'meta.a=1&meta.a=2']) {
      assert.equal((await get(fake, `/v1/services/game/lobby?${query}`)).statusCode, 400, query);
    }
  });
});

describe('a blocking read', () => {
  let fake: FakeApi;
  let index = 0;
  before(async () => {
    fake = await fakeApi();
    index = fake.catalog.put('game/lobby', [viewInstance('10.0.0.1', 80)]);
  });
  after(() => fake.api.close());

  /** Starts a read and says whether it has been answered. */
  function start(url: string) {
    const state: { answer: Awaited<ReturnType<typeof get>> | null } = { answer: null };
    const done = get(fake, url).then((answer) => {
      state.answer = answer;
      return answer;
    });
    return { state, done };
  }

  it('answers at once when the revision is past the index', async () => {
    const answer = await get(fake, `/v1/services/game/lobby?index=${index - 1}&wait=30s`);
    assert.equal(answer.headers['x-weir-index'], String(index));
  });

  it('waits for the next change of its own service, and of no other', async () => {
    const { state, done } = start(`/v1/services/game/lobby?index=${index}&wait=30s`);
    await settle();
    fake.catalog.put('game/other', []);
    await settle();
    assert.equal(state.answer, null);
    index = fake.catalog.put('game/lobby', [viewInstance('10.0.0.1', 80), viewInstance('10.0.0.2', 80)]);
    const answer = await done;
    assert.equal(answer.json().instances.length, 2);
    assert.equal(answer.headers['x-weir-index'], String(index));
  });

  it('answers with the same revision when the wait is over', async () => {
    const { state, done } = start(`/v1/services/game/lobby?index=${index}&wait=30s`);
    await fake.clock.advance(29_900);
    assert.equal(state.answer, null);
    await fake.clock.advance(300);
    assert.equal((await done).headers['x-weir-index'], String(index));
  });

  it('answers at once to an index above ours (another epoch)', async () => {
    const answer = await get(fake, `/v1/services/game/lobby?index=${index + 1_000_000}&wait=30s`);
    assert.equal(answer.headers['x-weir-index'], String(index));
  });

  it('waits for a service that is not known yet, and gives 404 with the index when none comes', async () => {
    const found = start('/v1/services/game/new?index=0&wait=10s');
    await settle();
    assert.equal(found.state.answer, null);
    fake.catalog.put('game/new', [viewInstance('10.0.0.7', 1)]);
    assert.equal((await found.done).json().instances[0].host, '10.0.0.7');
    const never = start('/v1/services/game/never?index=0&wait=10s');
    await fake.clock.advance(10_200);
    const answer = await never.done;
    assert.equal(answer.statusCode, 404);
    assert.equal(answer.headers['x-weir-index'], String(fake.catalog.index()));
  });

  it('learns of a removal at once, also when it comes back after it', async () => {
    const before = fake.catalog.put('game/gone', [viewInstance('10.0.0.7', 1)]);
    const waiting = start(`/v1/services/game/gone?index=${before}&wait=30s`);
    await settle();
    const removed = fake.catalog.remove('game/gone');
    assert.equal((await waiting.done).statusCode, 404);
    const late = await get(fake, `/v1/services/game/gone?index=${before}&wait=30s`);
    assert.equal(late.statusCode, 404);
    assert.equal(late.headers['x-weir-index'], String(removed));
    const next = start(`/v1/services/game/gone?index=${removed}&wait=5s`);
    await settle();
    assert.equal(next.state.answer, null, 'nothing is new since the removal');
    await fake.clock.advance(5_200);
    assert.equal((await next.done).statusCode, 404);
  });

  it('costs many readers one timer and one rendering, and a change of another service costs them nothing', async () => {
    const size = 1_000;
    const many = Array.from({ length: size }, () => get(fake, `/v1/services/game/lobby?index=${index}&wait=10m`));
    await settle(20);
    assert.ok(fake.clock.pending <= 2, `${fake.clock.pending} timers are set`);
    fake.catalog.reads = 0;
    fake.catalog.put('game/other', []);
    assert.ok(fake.catalog.reads <= 2, `${fake.catalog.reads} reads for a change of another service`);
    index = fake.catalog.put('game/lobby', []);
    const bodies = new Set((await Promise.all(many)).map((answer) => answer.body));
    assert.equal(bodies.size, 1);
  });

  it('gives a service that is asked for on demand a second to arrive', async () => {
    fake.catalog.onUse = (service) => {
      if (service === 'lazy/one' && !fake.catalog.services.has(service))
        fake.catalog.stateOf.set(service, [sourceState({ state: 'connecting', presence: 'neverSeen' })]);
    };
    const { state, done } = start('/v1/services/lazy/one');
    await settle();
    assert.equal(state.answer, null);
    fake.catalog.stateOf.set('lazy/one', [sourceState()]);
    fake.catalog.put('lazy/one', [viewInstance('10.0.0.1', 80)]);
    assert.equal((await done).statusCode, 200);
    fake.catalog.remove('lazy/one');
    const never = start('/v1/services/lazy/one');
    await fake.clock.advance(1_200);
    assert.equal((await never.done).json().error.code, 'CATALOG_NOT_READY');
  });

  it('ends when the API closes', async () => {
    const other = await fakeApi();
    const at = other.catalog.put('a/b', []);
    const waiting = get(other, `/v1/services/a/b?index=${at}&wait=10m`);
    await settle();
    await other.api.close();
    assert.equal((await waiting).statusCode, 200);
    assert.equal(other.catalog.listeners, 0);
  });
});
