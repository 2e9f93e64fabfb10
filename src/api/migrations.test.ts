import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type FakeApi, fakeApi } from '../../test/support/api-fakes.ts';
import { WeirError } from '../kernel/errors.ts';

const HEADERS = { host: 'localhost' };

describe('/v1/migrations', () => {
  let fake: FakeApi;
  before(async () => {
    fake = await fakeApi();
  });
  after(() => fake.api.close());
  beforeEach(() => {
    fake.migrations.known.clear();
    fake.migrations.calls.length = 0;
    fake.migrations.refusal = null;
  });
  const get = (url: string) => fake.api.app.inject({ method: 'GET', url, headers: HEADERS });
  const post = (url: string, body?: unknown) =>
    fake.api.app.inject({
      method: 'POST',
      url,
      headers: { ...HEADERS, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
    });

  it('takes an order with its defaults and answers the migration', async () => {
    const answer = await post('/v1/migrations', { id: 'm7', from: 'old', to: 'new', services: ['game/*'] });
    assert.equal(answer.statusCode, 200, answer.body);
    const body = answer.json();
    assert.deepEqual([body.id, body.phase, body.weight, body.spec.limits.callsPerSecond], ['m7', 'plan', 0, 50]);
    assert.deepEqual(body.counts, { services: 0, copies: {} });
  });

  it('refuses an order with the path of every fault', async () => {
    const answer = await post('/v1/migrations', { id: 'm7', from: 'a', to: 'a', services: ['**'], what: 1 });
    assert.equal(answer.statusCode, 400);
    assert.equal(answer.json().error.code, 'BAD_REQUEST');
    const paths = answer.json().error.details.faults.map((fault: { path: string }) => fault.path);
    assert.ok(
      paths.some((path: string) => path.startsWith('body')),
      paths.join(),
    );
    assert.equal(fake.migrations.known.size, 0);
  });

  it('passes every step on as it was asked', async () => {
    fake.migrations.put();
    const steps: [string, unknown, unknown][] = [
      ['start', {}, { kind: 'start' }],
      ['shift', { weight: 30 }, { kind: 'shift', weight: 30 }],
      ['cutover', undefined, { kind: 'cutover' }],
      ['rollback', {}, { kind: 'rollback' }],
      ['finish', { keepCopies: true }, { kind: 'finish', keepCopies: true }],
      ['finish', {}, { kind: 'finish', keepCopies: false }],
      ['abort', { force: true }, { kind: 'abort', force: true }],
    ];
    for (const [path, body, expected] of steps) {
      const answer = await post(`/v1/migrations/m1/${path}`, body);
      assert.equal(answer.statusCode, 200, answer.body);
      assert.deepEqual(fake.migrations.calls.at(-1), ['m1', expected]);
    }
    await post('/v1/migrations/m1/collect', {});
    assert.deepEqual(fake.migrations.calls.at(-1), ['m1', 'collect']);
    await post('/v1/migrations/m1/forget', { sidecar: 'host-3' });
    assert.deepEqual(fake.migrations.calls.at(-1), ['m1', 'forget', 'host-3']);
    assert.equal((await post('/v1/migrations/freeze', { frozen: true })).json().migrations.length, 1);
    assert.deepEqual(fake.migrations.calls.at(-1), ['freeze', true]);
  });

  it('refuses bodies that a step does not take, and asks nobody', async () => {
    fake.migrations.put();
    for (const [path, body] of [
      ['m1/shift', {}],
      ['m1/shift', { weight: 101 }],
      ['m1/shift', { weight: 1.5 }],
      ['m1/start', { force: true }],
      ['m1/finish', { keepCopies: 'yes' }],
      ['m1/forget', {}],
      ['freeze', {}],
    ] as const) {
      assert.equal((await post(`/v1/migrations/${path}`, body)).statusCode, 400, path);
    }
    assert.deepEqual(fake.migrations.calls, []);
  });

  it('a step that is not allowed now is 409 with everything that is missing', async () => {
    fake.migrations.put();
    fake.migrations.refusal = new WeirError('MIGRATION_PHASE', 'cutover: a (and 1 more)', { details: { missing: ['a', 'b'] } });
    const answer = await post('/v1/migrations/m1/cutover', {});
    assert.equal(answer.statusCode, 409);
    assert.deepEqual(answer.json().error.details.missing, ['a', 'b']);
  });

  it('an unknown migration is 404, a broken journal is shown with its reason', async () => {
    assert.equal((await get('/v1/migrations/none')).statusCode, 404);
    fake.migrations.put({}, { doc: null, broken: 'journal of version 2' });
    const [one] = (await get('/v1/migrations')).json().migrations;
    assert.deepEqual([one.phase, one.error], ['broken', 'journal of version 2']);
  });

  it('shows who writes, who is behind and the traffic of both sides', async () => {
    const side = { requests: 1, failed: 0, errorRate: 0, p50Ms: 1, p99Ms: 2 };
    fake.migrations.put(
      { phase: 'shift', weight: 40, stopped: { at: 5, reason: 'errors' } },
      { behind: ['b'], sidecars: ['a', 'b'], shared: true, sides: { windowMs: 1_000, from: side, to: side } },
    );
    const one = (await get('/v1/migrations/m1')).json();
    assert.deepEqual(one.fleet, { shared: true, sidecars: ['a', 'b'], behind: ['b'], forgotten: [] });
    assert.deepEqual([one.weight, one.stopped.reason, one.sides.to.p99Ms], [40, 'errors', 2]);
  });

  it('gives the plan, the last verify and a new one', async () => {
    fake.migrations.put();
    assert.deepEqual((await get('/v1/migrations/m1/plan')).json(), { services: [], errors: [], warnings: [] });
    assert.deepEqual((await get('/v1/migrations/m1/verify')).json(), { result: null });
    const summary = { outcome: 'ok' as const, at: 1, services: 0, missing: 0, extra: 0, differing: 0, unreachable: 0 };
    fake.migrations.verified = { outcome: 'ok', summary, services: [] };
    assert.equal((await post('/v1/migrations/m1/verify', {})).json().result.outcome, 'ok');
  });
});
