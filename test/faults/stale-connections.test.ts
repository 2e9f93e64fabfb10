// B7, the keep-alive race: upstreams close connections that weir holds idle. A request that a kept connection failed goes on over one that
// was opened for it, so that stale connections cost at most one try, however many of them a pool holds.
// In process: the race is made to order. Against processes: upstreams.test.ts.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { type ClusterPolicy, DEFAULT_CLUSTER_POLICY, DEFAULT_RETRY } from '../../src/model/policy.ts';
import { ProxyRig, request } from '../support/proxy-rig.ts';
import type { Script } from '../support/upstream-farm.ts';
import { SEED, sleep } from './harness/bench.ts';

let rig: ProxyRig;

before(async () => {
  rig = await new ProxyRig().open();
});

after(() => rig.close());

/** Serves the first request of each connection, and resets at every later one: all that a pool holds is stale. */
const oncePerConnection: Script = async (seen, reply) => {
  if (seen.nth > 1) return reply.reset();
  await sleep(20);
  reply.send(200, 'ok');
};

/** Nothing but the pool and the retries decides. */
const ONLY_THE_RACE: Partial<ClusterPolicy> = {
  outlierDetection: { ...DEFAULT_CLUSTER_POLICY.outlierDetection, enabled: false },
  breaker: { ...DEFAULT_CLUSTER_POLICY.breaker, enabled: false },
};

/** Fills the pool with `n` idle connections. */
async function warm(n: number): Promise<void> {
  const answers = await Promise.all(Array.from({ length: n }, () => rig.get()));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
}

test('B7: of a pool full of stale connections an idempotent request meets one: the second try is answered', async () => {
  const up = await rig.farm.add(oncePerConnection);
  rig.serve([up.port]);
  await warm(12);
  for (const method of ['GET', 'PUT', 'DELETE']) {
    const response = await rig.ask(request(method, '/', `X-Request-Id: s-${method}`));
    assert.deepEqual([response.status, response.fields.get('x-weir-attempts')], [200, ['2']]);
    assert.equal(up.executed(`s-${method}`), 2);
  }
});

test('B7: a second upstream whose connections are stale, too, costs no further try', async () => {
  const farm = [await rig.farm.add(oncePerConnection), await rig.farm.add(oncePerConnection)];
  rig.serve(farm.map(({ port }) => port));
  await warm(12);
  const response = await rig.get('/', 'X-Request-Id: two');
  assert.deepEqual([response.status, response.fields.get('x-weir-attempts')], [200, ['2']]);
});

test('B7: a POST that a stale connection failed after it was sent is told so and not repeated', async () => {
  const up = await rig.farm.add(oncePerConnection);
  rig.serve([up.port]);
  await warm(3);
  const response = await rig.ask(request('POST', '/', 'X-Request-Id: post', 'Content-Length: 1'), 'x');
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [502, ['UPSTREAM_RESET']]);
  assert.equal(up.executed('post'), 1);
});

test('B7: a reset on a fresh connection is no race: it uses up the tries as before', async () => {
  const up = await rig.farm.add((_seen, reply) => reply.reset());
  rig.serve([up.port]);
  const response = await rig.get('/', 'X-Request-Id: dead');
  assert.deepEqual([response.status, response.fields.get('x-weir-attempts'), up.executed('dead')], [502, ['3'], 3]);
});

test('B7: a race takes nothing from the budget, and there are no more of them than connections that have served', async () => {
  const empty = { ...DEFAULT_RETRY, budget: { ...DEFAULT_RETRY.budget, minConcurrency: 0, percent: 0 } };
  const up = await rig.farm.add(oncePerConnection);
  rig.serve([up.port], { ...ONLY_THE_RACE, retry: empty });
  await warm(8);
  const all = await Promise.all(Array.from({ length: 8 }, (_, n) => rig.get('/', `X-Request-Id: race${n}`)));
  assert.deepEqual(new Set(all.map(({ status }) => status)), new Set([200]));
  // Now it fails all: whoever meets a connection that has served may try once more, everybody else has no budget to.
  const kept = up.open;
  up.script = (_seen, reply) => reply.reset();
  const before = up.seen.length;
  for (let n = 0; n < 40; n++) assert.equal((await rig.get('/')).status, 502);
  assert.ok(up.seen.length - before <= 40 + kept, `${up.seen.length - before} executions for 40 requests, ${kept} were kept`);
});

test('B7: without retries in the policy a race is told as it is', async () => {
  const up = await rig.farm.add(oncePerConnection);
  rig.serve([up.port], { ...ONLY_THE_RACE, retry: { ...DEFAULT_RETRY, attempts: 0 } });
  await warm(3);
  const response = await rig.get('/', 'X-Request-Id: off');
  assert.deepEqual([response.status, up.executed('off')], [502, 1]);
});

test('B7: at the cap of connections the try that must be fresh still gets one', async () => {
  const up = await rig.farm.add(oncePerConnection);
  rig.serve([up.port], { limits: { maxConnections: 2, maxPendingRequests: 10, maxRequests: 100 } });
  await warm(2);
  const answers = await Promise.all(Array.from({ length: 2 }, (_, n) => rig.get('/', `X-Request-Id: cap${n}`)));
  for (const { status, fields } of answers)
    assert.deepEqual([status, Number(fields.get('x-weir-attempts')?.[0]) <= 2], [200, true]);
});

test('B7: upstreams that close within 60 ms of an answer, many seeds: no idempotent request fails, no POST runs twice', async (t) => {
  let sent = 0;
  let repeated = 0;
  for (let seed = SEED; seed < SEED + 6; seed++) {
    const random = seededRandom(seed);
    const script: Script = (_seen, reply) => {
      reply.send(200, 'ok');
      setTimeout(() => reply.socket.end(), random() * 60);
    };
    const farm = [await rig.farm.add(script), await rig.farm.add(script), await rig.farm.add(script)];
    rig.serve(
      farm.map(({ port }) => port),
      ONLY_THE_RACE,
    );
    const one = async (lane: number): Promise<void> => {
      const client = await rig.client();
      for (let n = 0; n < 20; n++) {
        const id = `${seed}-${lane}-${n}`;
        const method = randomBelow(random, 5) === 0 ? 'POST' : 'GET';
        client.write(request(method, '/', `X-Request-Id: ${id}`, ...(method === 'POST' ? ['Content-Length: 0'] : [])));
        const { status, fields } = await client.response();
        sent++;
        if (Number(fields.get('x-weir-attempts')?.[0]) > 1) repeated++;
        const found = [status, fields.get('x-weir-error'), fields.get('x-weir-attempts')].join(' ');
        if (method === 'GET') assert.equal(status, 200, `[WEIR_SEED=${seed}] GET ${id}: ${found}`);
        else assert.ok(rig.farm.executed(id) <= 1, `[WEIR_SEED=${seed}] POST ${id} ran twice`);
        await sleep(random() * 40);
      }
      client.destroy();
    };
    await Promise.all(Array.from({ length: 25 }, (_, lane) => one(lane)));
  }
  t.diagnostic(`${sent} requests, ${repeated} of them raced and were repeated`);
  assert.ok(repeated > 0, 'the race was met');
});
