// Retries over real sockets: which failures are repeated, which never are, and what bounds them. Executions are counted at the
// upstreams by request id, so "not executed twice" is counted, not inferred.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { type ClusterPolicy, DEFAULT_CLUSTER_POLICY, DEFAULT_RETRY } from '../../src/model/policy.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { ProxyRig, request } from '../support/proxy-rig.ts';
import { closedPort, hang, hello, inTurn, raw, rawThen, resetAtOnce, type Script, status } from '../support/upstream-farm.ts';

let rig: ProxyRig;

before(async () => {
  rig = await new ProxyRig().open();
});

afterEach(async () => {
  await rig.close();
  rig = await new ProxyRig().open();
});

after(() => rig.close());

function retry(change: Partial<ClusterPolicy['retry']>): Partial<ClusterPolicy> {
  return { retry: { ...DEFAULT_RETRY, ...change } };
}

/** For tests of other things than the budget. */
const ROOMY = { ...DEFAULT_RETRY.budget, minConcurrency: 100 };

/** Two upstreams that answer by `first`, then, at the second attempt wherever it goes, by hello. */
async function failThenServe(first: Script, policy: Partial<ClusterPolicy> = {}): Promise<void> {
  const script = inTurn(first, hello);
  const a = await rig.farm.add(script);
  const b = await rig.farm.add(script);
  rig.serve([a.port, b.port], policy);
}

/** What decides whether a request may be repeated once it was sent. */
const METHODS: readonly (readonly [string, string, boolean])[] = [
  ['GET', '', true],
  ['HEAD', '', true],
  ['OPTIONS', '', true],
  ['PUT', 'abc', true],
  ['DELETE', '', true],
  ['POST', 'abc', false],
  ['PATCH', 'abc', false],
  ['GET', 'abc', false],
  ['DELETE', 'abc', false],
];

const FAILURES: readonly (readonly [string, Script, number, string])[] = [
  ['a reset without a response', resetAtOnce, 502, 'UPSTREAM_RESET'],
  ['a close without a response', rawThen('', 'end'), 502, 'UPSTREAM_RESET'],
  ['a malformed response', raw('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n'), 502, 'UPSTREAM_PROTOCOL'],
];

for (const [method, body, safe] of METHODS) {
  for (const [name, script, code, error] of FAILURES) {
    test(`${name}: ${method}${body === '' ? '' : ' with a body'} is executed ${safe ? 'again' : 'once'}`, async () => {
      await failThenServe(script);
      const fields = body === '' ? [] : [`Content-Length: ${body.length}`];
      const response = await rig.ask(request(method, '/', 'X-Request-Id: r', ...fields), body);
      assert.equal(rig.farm.executed('r'), safe ? 2 : 1);
      assert.equal(response.status, safe ? 200 : code);
      assert.deepEqual(response.fields.get('x-weir-attempts'), [safe ? '2' : '1']);
      assert.deepEqual(response.fields.get('x-weir-error'), safe ? undefined : [error]);
      assert.deepEqual(response.fields.get('x-weir-retry-final'), safe ? undefined : ['1']);
    });
  }
}

for (const code of [502, 503, 504]) {
  test(`status ${code}: GET is tried again at another upstream, POST is passed on as final`, async () => {
    await failThenServe(status(code));
    const get = await rig.get('/', 'X-Request-Id: g');
    assert.deepEqual([get.status, rig.farm.executed('g')], [200, 2]);
    const seen = rig.farm.upstreams.flatMap((upstream) => upstream.seen);
    assert.deepEqual(seen.map((one) => one.fields.get('x-weir-attempt-count')?.[0]).sort(), ['1', '2']);
    assert.deepEqual(
      rig.farm.upstreams.map((upstream) => upstream.seen.length),
      [1, 1],
    );
  });

  test(`status ${code} to a POST is passed on, marked final`, async () => {
    await failThenServe(status(code));
    const post = await rig.ask(request('POST', '/', 'X-Request-Id: p', 'Content-Length: 1'), 'x');
    assert.deepEqual([post.status, rig.farm.executed('p')], [code, 1]);
    assert.deepEqual(post.fields.get('x-weir-retry-final'), ['1']);
    assert.equal(post.fields.has('x-weir-error'), false);
  });
}

for (const code of [500, 501, 404, 429]) {
  test(`status ${code} is not tried again by default`, async () => {
    await failThenServe(status(code));
    const response = await rig.get('/', 'X-Request-Id: r');
    assert.deepEqual([response.status, rig.farm.executed('r')], [code, 1]);
  });
}

test('a refused connection is unsent: even a POST is tried elsewhere', async () => {
  const up = await rig.farm.add();
  const dead = await closedPort();
  rig.serve([dead, up.port], retry({ budget: ROOMY }));
  for (let i = 0; i < 8; i++) {
    const response = await rig.ask(request('POST', '/', `X-Request-Id: p${i}`, 'Content-Length: 3'), 'abc');
    assert.equal(response.status, 200);
    assert.equal(rig.farm.executed(`p${i}`), 1);
  }
});

test('a large streamed upload survives a refused connection', async () => {
  const up = await rig.farm.add((seen, reply) => reply.send(200, String(seen.body.length)));
  const dead = await closedPort();
  rig.serve([dead, up.port], retry({ budget: ROOMY }));
  const body = Buffer.alloc(1_000_000, 'x');
  for (let i = 0; i < 4; i++) {
    const response = await rig.ask(request('POST', '/', `Content-Length: ${body.length}`), body);
    assert.equal(response.body.toString(), '1000000');
  }
});

test('every upstream refuses: 502 UPSTREAM_CONNECT_FAILED after three attempts', async () => {
  rig.serve([await closedPort(), await closedPort(), await closedPort()]);
  const response = await rig.get();
  assert.equal(response.status, 502);
  assert.deepEqual(response.fields.get('x-weir-error'), ['UPSTREAM_CONNECT_FAILED']);
  assert.deepEqual(response.fields.get('x-weir-attempts'), ['3']);
});

test('a body above 64 KiB is not kept: PUT is not repeated once it was sent', async () => {
  await failThenServe(resetAtOnce);
  const body = Buffer.alloc(200_000, 'x');
  const response = await rig.ask(request('PUT', '/', 'X-Request-Id: r', `Content-Length: ${body.length}`), body);
  assert.deepEqual([response.status, rig.farm.executed('r')], [502, 1]);
});

test('a body of 64 KiB is kept: PUT is repeated with the same bytes', async () => {
  const bodies: number[] = [];
  await failThenServe((seen, reply) => {
    bodies.push(seen.body.length);
    reply.reset();
  });
  const body = Buffer.alloc(65_536, 'x');
  const response = await rig.ask(request('PUT', '/', 'X-Request-Id: r', `Content-Length: ${body.length}`), body);
  const again = rig.farm.upstreams.flatMap((upstream) => upstream.seen.map((seen) => seen.body.length));
  assert.equal(response.status, 200);
  assert.deepEqual([bodies, again], [[65_536], [65_536, 65_536]]);
});

test('a chunked PUT is repeated in chunks', async () => {
  await failThenServe(resetAtOnce);
  const response = await rig.ask(
    request('PUT', '/', 'X-Request-Id: r', 'Transfer-Encoding: chunked'),
    '3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
  );
  const bodies = rig.farm.upstreams.flatMap((upstream) => upstream.seen.map((seen) => seen.body.toString()));
  assert.equal(response.status, 200);
  assert.deepEqual(bodies, ['abcde', 'abcde']);
});

test('nonIdempotent lets a POST be repeated; idempotencyKey only one that carries the key', async () => {
  await failThenServe(resetAtOnce, retry({ nonIdempotent: true }));
  await rig.ask(request('POST', '/', 'X-Request-Id: a', 'Content-Length: 1'), 'x');
  assert.equal(rig.farm.executed('a'), 2);
});

test('idempotencyKey lets a POST with the key be repeated, and no other', async () => {
  const up = await rig.farm.add(resetAtOnce);
  rig.serve([up.port], retry({ idempotencyKey: true }));
  await rig.ask(request('POST', '/', 'X-Request-Id: without', 'Content-Length: 1'), 'x');
  await rig.ask(request('POST', '/', 'X-Request-Id: with', 'Idempotency-Key: k', 'Content-Length: 1'), 'x');
  assert.deepEqual([up.executed('without'), up.executed('with')], [1, 3]);
});

test('a keep-alive connection that the upstream closes costs an idempotent client nothing and runs a POST at most once', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  for (let i = 0; i < 30; i++) {
    assert.equal((await rig.get('/', `X-Request-Id: g${i}`)).status, 200);
    up.closeConnections();
    const method = i % 2 === 0 ? 'GET' : 'POST';
    const response = await rig.ask(request(method, '/', `X-Request-Id: m${i}`));
    if (method === 'GET') assert.equal(response.status, 200);
    assert.ok(rig.farm.executed(`m${i}`) <= (method === 'GET' ? 3 : 1));
  }
});

test('the retry budget bounds retries under a flood of failures: min 3, then 20 % of first attempts', async () => {
  const up = await rig.farm.add(status(503));
  rig.serve([up.port], { breaker: { ...DEFAULT_CLUSTER_POLICY.breaker, enabled: false } });
  for (let i = 0; i < 100; i++) await rig.get();
  assert.ok(up.seen.length <= 123, `${up.seen.length} attempts for 100 requests`);
  assert.ok(up.seen.length >= 118, `${up.seen.length} attempts for 100 requests`);
});

test('a response that another weir has marked final, or its own 503, is not tried again', async () => {
  for (const fields of [['x-weir-retry-final: 1'], ['x-weir-error: OVERLOADED']]) {
    await failThenServe(status(503, ...fields));
    const response = await rig.get('/', `X-Request-Id: ${fields[0]?.slice(0, 14)}`);
    assert.equal(response.status, 503);
    assert.deepEqual(response.fields.get('x-weir-attempts'), ['1']);
    assert.deepEqual(response.fields.get('x-weir-retry-final'), ['1']);
  }
});

test('Retry-After is waited for when it fits', async (t) => {
  await failThenServe(status(503, 'Retry-After: 1'));
  const before = performance.now();
  const response = await rig.get();
  const waited = performance.now() - before;
  assert.equal(response.status, 200);
  assert.ok(waited >= 990, `waited ${waited}`);
  assertFigure(t, 'answered after', waited, 2_000, 'ms');
});

test('Retry-After that does not fit the route timeout: the response is passed on at once', async () => {
  await failThenServe(status(503, 'Retry-After: 60'));
  const before = performance.now();
  const response = await rig.get();
  assert.equal(response.status, 503);
  assert.deepEqual(response.fields.get('retry-after'), ['60']);
  assert.ok(performance.now() - before < 5_000, 'not after the route timeout of 15 s');
});

test('nothing is tried again once a byte of the response has gone down', async () => {
  await failThenServe(rawThen('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf', 'reset'));
  const response = await rig.get('/', 'X-Request-Id: r');
  assert.deepEqual([response.status, response.complete, rig.farm.executed('r')], [200, false, 1]);
});

test('a response that breaks off inside its head is not tried again', async () => {
  await failThenServe(rawThen('HTTP/1.1 200 OK\r\nContent-Le', 'reset'));
  const response = await rig.get('/', 'X-Request-Id: r');
  assert.deepEqual([response.status, rig.farm.executed('r')], [502, 1]);
  assert.deepEqual(response.fields.get('x-weir-error'), ['UPSTREAM_RESET']);
});

test('a frozen upstream: the per-try timeout moves a GET on, and a POST is answered 504 and not repeated', async () => {
  const frozen = await rig.farm.add(hang);
  const up = await rig.farm.add();
  rig.serve([frozen.port], retry({ perTryTimeout: 150, attempts: 0 }));
  const post = await rig.ask(request('POST', '/', 'X-Request-Id: p', 'Content-Length: 1'), 'x');
  assert.deepEqual([post.status, post.fields.get('x-weir-error')], [504, ['UPSTREAM_TIMEOUT']]);
  rig.serve([frozen.port, up.port], retry({ perTryTimeout: 150, budget: ROOMY }));
  for (let i = 0; i < 6; i++) assert.equal((await rig.get()).status, 200);
  assert.equal(frozen.executed('p'), 1);
});

test('five failures in a row eject an upstream; the others serve without a further retry', async () => {
  const bad = await rig.farm.add(status(500));
  const good = await rig.farm.add();
  rig.serve([bad.port, good.port]);
  for (let i = 0; i < 40; i++) await rig.get();
  const state = rig.plane.state('demo/hello');
  assert.deepEqual(
    state?.endpoints.map((endpoint) => endpoint.ejected),
    [true, false],
  );
  const before = bad.seen.length;
  for (let i = 0; i < 10; i++) assert.equal((await rig.get()).status, 200);
  assert.equal(bad.seen.length, before);
});

test('an open breaker fails fast: 503 BREAKER_OPEN in under 5 ms, marked final', async (t) => {
  rig.serve([await closedPort()], { breaker: { ...DEFAULT_CLUSTER_POLICY.breaker, consecutiveFailures: 2 } });
  await rig.get();
  await rig.get();
  const times: number[] = [];
  const client = await rig.client();
  for (let i = 0; i < 20; i++) {
    const before = performance.now();
    client.write(request('GET', '/'));
    const response = await client.response();
    times.push(performance.now() - before);
    assert.deepEqual(response.fields.get('x-weir-error'), ['BREAKER_OPEN']);
    assert.deepEqual(response.fields.get('retry-after'), ['1']);
  }
  times.sort((a, b) => a - b);
  assertFigure(t, 'median', times[10] ?? Number.NaN, 5, 'ms');
});

test('one breaker probe: after the sleep window one request goes up and closes it', async () => {
  const up = await rig.farm.add(status(503));
  rig.serve([up.port], {
    breaker: { ...DEFAULT_CLUSTER_POLICY.breaker, consecutiveFailures: 3, sleepWindow: 300 },
    ...retry({ attempts: 0 }),
  });
  for (let i = 0; i < 3; i++) await rig.get();
  assert.deepEqual((await rig.get()).fields.get('x-weir-error'), ['BREAKER_OPEN']);
  up.script = hello;
  await eventually(async () => assert.equal((await rig.get()).status, 200), 15_000, 50);
  assert.equal(up.seen.length, 4);
});

test('no endpoint: 503 NO_HEALTHY_UPSTREAM; all unhealthy: panic serves and says so', async () => {
  rig.serve([]);
  const none = await rig.get();
  assert.deepEqual([none.status, none.fields.get('x-weir-error')], [503, ['NO_HEALTHY_UPSTREAM']]);
  const up = await rig.farm.add();
  rig.serve([{ port: up.port, verdict: 'unhealthy' }]);
  const panic = await rig.get();
  assert.deepEqual([panic.status, panic.fields.get('x-weir-panic')], [200, ['1']]);
});

test('limits: requests above maxRequests, and above the queue of a full pool, are 503 UPSTREAM_OVERFLOW, not retried', async () => {
  const up = await rig.farm.add(hang);
  rig.serve([up.port], { limits: { maxConnections: 1, maxPendingRequests: 1, maxRequests: 3 } });
  (await rig.client()).write(request('GET', '/'));
  await eventually(() => assert.equal(up.seen.length, 1));
  (await rig.client()).write(request('GET', '/'));
  await eventually(() => assert.equal(rig.plane.counts().requests, 2));
  const queue = await rig.get();
  assert.deepEqual(
    [queue.status, queue.fields.get('x-weir-error'), queue.fields.get('retry-after')],
    [503, ['UPSTREAM_OVERFLOW'], ['1']],
  );
  assert.deepEqual(queue.fields.get('x-weir-attempts'), ['1']);
  rig.serve([up.port], { limits: { maxConnections: 1, maxPendingRequests: 1, maxRequests: 2 } });
  const limit = await rig.get();
  assert.deepEqual(
    [limit.status, limit.fields.get('x-weir-error'), limit.fields.get('x-weir-attempts')],
    [503, ['UPSTREAM_OVERFLOW'], ['0']],
  );
});

test('three weirs in a row over a leaf that fails all: the leaf sees at most 1.2 times the requests', async () => {
  const leaf = await rig.farm.add(status(503));
  const calm = { breaker: { ...DEFAULT_CLUSTER_POLICY.breaker, enabled: false } };
  const middle = await new ProxyRig({ proxy: { instanceId: 'middle' } }).open();
  const last = await new ProxyRig({ proxy: { instanceId: 'last' } }).open();
  rig.serve([middle.port], calm);
  middle.serve([last.port], calm);
  last.serve([leaf.port], calm);
  for (let i = 0; i < 100; i++) {
    const response = await rig.ask('GET /svc/demo/hello/svc/demo/hello/svc/demo/hello/ HTTP/1.1\r\nHost: x\r\n\r\n');
    assert.equal(response.status, 503);
  }
  assert.ok(leaf.seen.length >= 100 && leaf.seen.length <= 123, `${leaf.seen.length} at the leaf`);
  await middle.close();
  await last.close();
});

test('one of three upstreams is killed under load: no idempotent request fails, no POST runs twice', async () => {
  const farm = [await rig.farm.add(), await rig.farm.add(), await rig.farm.add()];
  rig.serve(farm.map((upstream) => upstream.port));
  const failed: string[] = [];
  const posts: string[] = [];
  let sent = 0;
  let stop = false;
  const one = async (): Promise<void> => {
    const client = await rig.client();
    while (!stop) {
      const id = `k${sent++}`;
      const method = sent % 5 === 0 ? 'POST' : 'GET';
      if (method === 'POST') posts.push(id);
      client.write(request(method, '/', `X-Request-Id: ${id}`));
      const response = await client.response();
      if (response.status !== 200) failed.push(`${method} ${response.status}`);
    }
  };
  const load = Promise.all(Array.from({ length: 10 }, one));
  await eventually(() => assert.ok(sent > 300));
  await farm[1]?.kill();
  const before = sent;
  await eventually(() => assert.ok(sent > before + 500));
  stop = true;
  await load;
  assert.deepEqual(
    failed.filter((text) => text.startsWith('GET')),
    [],
  );
  assert.deepEqual(
    posts.filter((id) => rig.farm.executed(id) > 1),
    [],
  );
});
