import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { conflict, type FakeApi, fakeApi, liveSource, viewInstance } from '../../test/support/api-fakes.ts';
import type { HoldState } from '../catalog/view.ts';
import type { ClusterState, EndpointState } from '../cluster/interest.ts';

const HEADERS = { host: 'localhost' };

function get(fake: FakeApi, url: string) {
  return fake.api.app.inject({ method: 'GET', url, headers: HEADERS });
}

function send(fake: FakeApi, method: 'PUT' | 'POST' | 'DELETE', url: string, body?: unknown) {
  return fake.api.app.inject({
    method,
    url,
    headers: { ...HEADERS, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
  });
}

function endpoint(host: string, more: Partial<EndpointState> = {}): EndpointState {
  return {
    host,
    port: 80,
    active: 0,
    ejected: false,
    ejectedForMs: 0,
    breaker: 'closed',
    connections: { active: 0, idle: 0, pending: 0 },
    share: 0.5,
    ...more,
  };
}

describe('the resources of the API', () => {
  let fake: FakeApi;
  before(async () => {
    fake = await fakeApi();
  });
  after(() => fake.api.close());

  it('GET /v1/sources lists the records and names that a source was refused', async () => {
    const fake = await fakeApi();
    const refused = { source: 'local', service: 'shop/web', nativeId: '', reason: 'names: gives it to another service', at: 5 };
    fake.sources.push(liveSource({ id: 'c', rejected: 1, recentRejected: [refused] }));
    const { sources } = (await get(fake, '/v1/sources')).json();
    const { source: _source, ...shown } = refused;
    assert.deepEqual(sources[1].recentRejected, [shown]);
    await fake.api.close();
  });

  it('GET /v1/sources shows state, ages and capabilities as plain JSON', async () => {
    fake.sources.push(
      liveSource({
        id: 'consul-sz',
        kind: 'consul',
        state: 'failed',
        cause: 'denied',
        ageMs: null,
        contactAgeMs: null,
        capabilities: null,
        counts: new Map([['cutMetadata', 3]]),
      }),
    );
    const { sources } = (await get(fake, '/v1/sources')).json();
    assert.deepEqual(sources[0].capabilities.reads, ['health', 'weight']);
    assert.equal(sources[0].ageMs, 11);
    assert.deepEqual(
      [sources[1].id, sources[1].state, sources[1].cause, sources[1].ageMs, sources[1].capabilities, sources[1].counts],
      ['consul-sz', 'failed', 'denied', null, null, { cutMetadata: 3 }],
    );
    fake.sources.pop();
  });

  it('/readyz names what is waited for, /livez always answers', async () => {
    assert.deepEqual((await get(fake, '/readyz')).json(), { ready: true, waiting: [] });
    fake.waiting.push('first list of consul-sz');
    const answer = await get(fake, '/readyz');
    assert.equal(answer.statusCode, 503);
    assert.deepEqual(answer.json(), { ready: false, waiting: ['first list of consul-sz'] });
    assert.equal((await get(fake, '/livez')).statusCode, 200);
    fake.waiting.pop();
  });

  it('GET /v1/events gives the newest, oldest first, by type and after an id', async () => {
    for (let i = 0; i < 5; i++) fake.events.emit(i % 2 === 0 ? 'source_live' : 'conflict', { i });
    const of = async (query: string) =>
      (await get(fake, `/v1/events${query}`)).json().events.map((one: { details: { i: number } }) => one.details.i);
    assert.deepEqual(await of(''), [0, 1, 2, 3, 4]);
    assert.deepEqual(await of('?limit=2'), [3, 4]);
    assert.deepEqual(await of('?type=conflict'), [1, 3]);
    assert.deepEqual(await of('?after=3'), [3, 4]);
    assert.match((await get(fake, '/v1/events?limit=1')).json().events[0].at, /^\d{4}-\d\d-\d\dT/);
  });

  it('GET /v1/config shows the effective configuration and the faults of the newest reload', async () => {
    const body = (await get(fake, '/v1/config')).json();
    assert.equal(body.effective.api.tokens.write, '[hidden]');
    assert.deepEqual([body.reload.ok, body.reload.faults[0].line], [false, 3]);
  });

  it('GET /metrics has our series and those of the process', async () => {
    fake.metrics.gauge('weir_catalog_services').set(7);
    const answer = await get(fake, '/metrics');
    assert.match(String(answer.headers['content-type']), /^text\/plain; version=0\.0\.4/);
    assert.match(answer.body, /^weir_catalog_services 7$/m);
    assert.match(answer.body, /^process_cpu_seconds_total /m);
    assert.equal((await get(fake, '/metrics')).statusCode, 200, 'a second scrape works, too');
  });

  it('GET /v1/prometheus/targets is http_sd, IPv6 in brackets, label names allowed', async () => {
    assert.equal((await get(fake, '/v1/prometheus/targets?namespace=none')).body, '[]');
    fake.catalog.put(
      'mon/app',
      [viewInstance('2001:db8::1', 9100, { metadata: new Map([['a.b-c', 'v']]), locality: { zone: 'z1' } })],
      ['unhealthy'],
    );
    const groups = (await get(fake, '/v1/prometheus/targets?q=mon/*')).json();
    assert.deepEqual(groups[0].targets, ['[2001:db8::1]:9100']);
    assert.deepEqual(
      [
        groups[0].labels.__meta_weir_service,
        groups[0].labels.__meta_weir_verdict,
        groups[0].labels.__meta_weir_zone,
        groups[0].labels.__meta_weir_metadata_a_b_c,
      ],
      ['app', 'unhealthy', 'z1', 'v'],
    );
    for (let i = 0; i < 450; i++) fake.catalog.put(`mon/m${i}`, [viewInstance('10.0.0.1', 1)]);
    assert.equal((await get(fake, '/v1/prometheus/targets?namespace=mon')).json().length, 451);
  });

  it('docs/api.md names every call that there is', async () => {
    const docs = readFileSync(new URL('../../docs/api.md', import.meta.url), 'utf8');
    const api = (await get(fake, '/openapi.json')).json();
    assert.deepEqual(
      Object.keys(api.paths).filter((path) => !docs.includes(path)),
      [],
    );
  });

  it('/openapi.json describes every call with parameters and bodies', async () => {
    const api = (await get(fake, '/openapi.json')).json();
    assert.equal(api.openapi, '3.1.0');
    const paths = Object.keys(api.paths);
    for (const path of [
      '/v1/sources',
      '/v1/services',
      '/v1/services/{ns}/{name}',
      '/v1/services/{ns}/{name}/explain',
      '/v1/watch',
      '/v1/registrations',
      '/v1/registrations/{ns}/{name}/{id}',
      '/v1/holds',
      '/v1/holds/release',
      '/v1/overrides',
      '/v1/overrides/{ns}/{name}/{address}',
      '/v1/events',
      '/v1/config',
      '/v1/prometheus/targets',
      '/metrics',
      '/livez',
      '/readyz',
      '/v1/migrations',
      '/v1/migrations/{id}',
      '/v1/migrations/{id}/verify',
      '/v1/migrations/freeze',
    ]) {
      assert.ok(paths.includes(path), path);
    }
    const one = api.paths['/v1/services/{ns}/{name}'].get.parameters.map((parameter: { name: string }) => parameter.name);
    assert.deepEqual(one.sort(), ['healthy', 'index', 'name', 'ns', 'source', 'wait', 'zone']);
    const body = api.paths['/v1/registrations/{ns}/{name}/{id}'].put.requestBody.content['application/json'].schema;
    assert.deepEqual(body.required, ['host', 'port']);
  });

  describe('holds', () => {
    const hold: HoldState = {
      service: 'game/lobby',
      source: 'local',
      kind: 'service',
      addresses: ['10.0.0.1:80'],
      sinceMs: 5,
      confirmsInMs: 100,
      missing: 'second read',
    };

    it('are listed and released by service and source, with an audit line', async () => {
      fake.holds.all = [hold, { ...hold, service: 'game/other' }];
      assert.equal((await get(fake, '/v1/holds')).json().holds.length, 2);
      const answer = await send(fake, 'POST', '/v1/holds/release', { service: 'game/lobby', source: 'local' });
      assert.deepEqual(answer.json(), { released: 1 });
      assert.deepEqual(fake.holds.released.at(-1), { service: 'game/lobby', source: 'local' });
      assert.deepEqual(fake.audit.at(-1)?.what, 'release');
      assert.deepEqual((await send(fake, 'POST', '/v1/holds/release', {})).json(), { released: 1 });
    });

    it('refuse what is no service, no source or no key', async () => {
      assert.equal(
        (await send(fake, 'POST', '/v1/holds/release', { service: 'lobby' })).json().error.details.faults[0].path,
        'body.service',
      );
      assert.equal((await send(fake, 'POST', '/v1/holds/release', { source: 'nobody' })).json().error.code, 'SOURCE_NOT_FOUND');
      assert.equal(
        (await send(fake, 'POST', '/v1/holds/release', { services: 'a/b' })).json().error.details.faults[0].path,
        'body.services',
      );
      assert.equal((await send(fake, 'POST', '/v1/holds/release', [])).statusCode, 400);
    });
  });

  describe('overrides', () => {
    it('isolate an address for a while, are listed and end', async () => {
      const put = await send(fake, 'PUT', '/v1/overrides/game/lobby/%5B2001:db8::0:1%5D:80', { isolated: true, for: '90s' });
      assert.deepEqual(put.json(), {
        service: 'game/lobby',
        address: '[2001:db8::1]:80',
        isolated: true,
        until: new Date(fake.clock.wallNow() + 90_000).toISOString(),
      });
      assert.equal((await get(fake, '/v1/overrides')).json().overrides.length, 1);
      assert.equal((await send(fake, 'DELETE', '/v1/overrides/game/lobby/[2001:db8::1]:80')).statusCode, 200);
      assert.equal(
        (await send(fake, 'DELETE', '/v1/overrides/game/lobby/[2001:db8::1]:80')).json().error.code,
        'OVERRIDE_NOT_FOUND',
      );
      assert.deepEqual(
        fake.audit.slice(-2).map((line) => line.what),
        ['isolate', 'unisolate'],
      );
    });

    it('last 10 minutes by default and at most a day', async () => {
      const put = await send(fake, 'PUT', '/v1/overrides/game/lobby/10.0.0.1:80', { isolated: true });
      assert.equal(Date.parse(put.json().until), fake.clock.wallNow() + 600_000);
      for (const body of [
        { isolated: true, for: '25h' },
        { isolated: true, for: '0s' },
        { isolated: true, for: 5 },
        { for: '5s' },
        {},
      ]) {
        assert.equal(
          (await send(fake, 'PUT', '/v1/overrides/game/lobby/10.0.0.1:80', body)).statusCode,
          400,
          JSON.stringify(body),
        );
      }
      assert.deepEqual(
        (await send(fake, 'PUT', '/v1/overrides/game/lobby/10.0.0.1:80', { isolated: false })).json().isolated,
        false,
      );
    });

    it('refuse what is no address', async () => {
      for (const address of ['10.0.0.1', '10.0.0.1:0', '10.0.0.1:99999', '127.1:80', 'a%20b:80']) {
        const answer = await send(fake, 'PUT', `/v1/overrides/game/lobby/${address}`, { isolated: true });
        assert.equal(answer.json().error.details.faults[0].path, 'path.address', address);
      }
    });
  });

  describe('registrations', () => {
    const url = '/v1/registrations/game/lobby/lobby-1';

    it('are upserted with the defaults of the configuration, listed and removed', async () => {
      const put = await send(fake, 'PUT', url, {
        host: '::ffff:10.0.0.5',
        port: 8000,
        metadata: { zone: 'a' },
        ttl: '20s',
        healthCheck: { http: { path: '/healthz' } },
      });
      assert.deepEqual(put.json(), {
        id: 'lobby-1',
        service: 'game/lobby',
        host: '10.0.0.5',
        port: 8000,
        targets: { local: { state: 'pending' } },
      });
      const kept = fake.registrations.upserts.at(-1);
      assert.deepEqual(
        [kept?.weight, kept?.ttl, kept?.sources, kept?.onUnhealthy, kept?.healthCheck?.path],
        [100, 20_000, null, 'unhealthy', '/healthz'],
      );
      assert.equal((await get(fake, '/v1/registrations')).json().registrations.length, 1);
      assert.equal((await send(fake, 'DELETE', url)).statusCode, 200);
      assert.equal((await send(fake, 'DELETE', url)).json().error.code, 'REGISTRATION_NOT_FOUND');
    });

    it('pass on a conflict as 409 with its details', async () => {
      fake.registrations.refuse = conflict();
      const answer = await send(fake, 'PUT', url, { host: '10.0.0.5', port: 8000 });
      assert.equal(answer.statusCode, 409);
      assert.deepEqual(answer.json().error.details, { owner: 'someone' });
      assert.match(fake.audit.at(-1)?.result ?? '', /another owner/);
      fake.registrations.refuse = null;
    });

    const good = { host: '10.0.0.5', port: 8000 };
    const bad: readonly [object, string][] = [
      [{ port: 8000 }, 'body'],
      [{ ...good, port: 0 }, 'body.port'],
      [{ ...good, port: '8000' }, 'body.port'],
      [{ ...good, host: '127.1' }, 'body.host'],
      [{ ...good, weight: -1 }, 'body.weight'],
      [{ ...good, weight: 65_536 }, 'body.weight'],
      [{ ...good, ttl: '4s' }, 'body.ttl'],
      [{ ...good, ttl: '61s' }, 'body.ttl'],
      [{ ...good, metadata: { a: 1 } }, 'body.metadata.a'],
      [{ ...good, metadata: { 'weir-origin': 'x' } }, 'body.metadata'],
      [{ ...good, metadata: { a: 'x\u0000' } }, 'body.metadata'],
      [{ ...good, healthCheck: {} }, 'body.healthCheck'],
      [{ ...good, healthCheck: { http: { path: 'http://evil/' } } }, 'body.healthCheck.http.path'],
      [{ ...good, onUnhealthy: 'explode' }, 'body.onUnhealthy'],
      [{ ...good, sources: [] }, 'body.sources'],
      [{ ...good, prot: 'http' }, 'body.prot'],
    ];
    for (const [body, path] of bad) {
      it(`refuse ${JSON.stringify(body)} at ${path}`, async () => {
        const answer = await send(fake, 'PUT', url, body);
        assert.equal(answer.statusCode, 400);
        assert.equal(answer.json().error.details.faults[0].path, path);
      });
    }

    it('refuse an id or a service that is none', async () => {
      assert.equal(
        (await send(fake, 'PUT', '/v1/registrations/game/lobby/a%2Fb', good)).json().error.details.faults[0].path,
        'path.id',
      );
      assert.equal(
        (await send(fake, 'PUT', '/v1/registrations/ga%2Fme/lobby/a', good)).json().error.details.faults[0].path,
        'path.ns',
      );
    });
  });

  describe('explain', () => {
    const cluster = (more: Partial<ClusterState>): ClusterState => ({
      service: 'x/y',
      revision: 1,
      panic: false,
      activeRequests: 0,
      lastPickAgeMs: 1,
      endpoints: [],
      ...more,
    });

    it('gives the reason for every instance in or out', async () => {
      const isolatedBy = [
        { source: 'nacos', nativeId: 'n', weight: 100, health: 'healthy' as const, isolated: true, held: false },
      ];
      fake.catalog.put(
        'x/y',
        [
          viewInstance('10.0.0.1', 80),
          viewInstance('10.0.0.2', 80),
          viewInstance('10.0.0.3', 80, { weight: 0 }),
          viewInstance('10.0.0.4', 80, { isolated: true, provenance: isolatedBy }),
          viewInstance('10.0.0.5', 80),
          viewInstance('10.0.0.6', 80),
          viewInstance('10.0.0.9', 80),
        ],
        ['healthy', 'unknown', 'healthy', 'isolated', 'healthy', 'isolated', 'unhealthy'],
      );
      fake.clusters.set(
        'x/y',
        cluster({
          endpoints: [
            endpoint('10.0.0.1'),
            endpoint('10.0.0.2', { breaker: 'open', share: 0 }),
            endpoint('10.0.0.5', { ejected: true, ejectedForMs: 12_345, share: 0 }),
          ],
        }),
      );
      fake.holds.all = [
        {
          service: 'x/y',
          source: 'local',
          kind: 'service',
          addresses: ['10.0.0.1:80'],
          sinceMs: 5,
          confirmsInMs: null,
          missing: 'second read',
        },
      ];
      const body = (await get(fake, '/v1/services/x/y/explain')).json();
      const verdicts = body.instances.map((one: { instance: string; in: boolean; reason: string }) => [
        one.instance,
        one.in,
        one.reason,
      ]);
      assert.deepEqual(verdicts, [
        ['10.0.0.1:80', true, '50.0 % of picks'],
        ['10.0.0.2:80', false, 'its breaker is open'],
        ['10.0.0.3:80', false, 'weight 0 takes no traffic'],
        ['10.0.0.4:80', false, 'isolated by nacos'],
        ['10.0.0.5:80', false, 'ejected as an outlier for another 13 s'],
        ['10.0.0.6:80', false, 'isolated by an override of this sidecar'],
        ['10.0.0.9:80', false, 'unhealthy: HTTP check failed 3 times: status 503'],
      ]);
      assert.deepEqual(body.counts, { candidates: 7, in: 1, breaker: 1, weight: 1, isolated: 2, ejection: 1, health: 1 });
      assert.equal(body.instances[0].holds[0].missing, 'second read');
      assert.deepEqual(body.merge, { policy: { kind: 'union' }, from: 'settings' });
      fake.holds.all = [];
    });

    it('says that panic ignores health and ejection, but never isolation, an open breaker or weight 0', async () => {
      fake.clusters.set(
        'x/y',
        cluster({
          panic: true,
          endpoints: [endpoint('10.0.0.2', { breaker: 'open' }), endpoint('10.0.0.5', { ejected: true, ejectedForMs: 1 })],
        }),
      );
      const body = (await get(fake, '/v1/services/x/y/explain')).json();
      const inside = body.instances.filter((one: { in: boolean }) => one.in).map((one: { instance: string }) => one.instance);
      assert.deepEqual(inside, ['10.0.0.1:80', '10.0.0.5:80', '10.0.0.9:80']);
      assert.match(body.instances[4].reason, /panic/);
      fake.clusters.clear();
    });

    it('says so when no request has used the service, and 404 for an unknown one', async () => {
      const body = (await get(fake, '/v1/services/x/y/explain')).json();
      assert.equal(body.cluster, null);
      assert.match(body.instances[0].reason, /no request has used/);
      assert.equal((await get(fake, '/v1/services/x/nobody/explain')).statusCode, 404);
    });
  });
});
