// The life of a request on a clock that stands still: timeouts, own lateness, retry bounds, books that always balance.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { settle } from '../../test/support/fake-clock.ts';
import { ExchangeRig, responseHead } from '../../test/support/fake-exchange.ts';
import { OUTCOME_CONNECT_FAILURE, OUTCOME_IGNORED, OUTCOME_LOCAL_FAILURE, OUTCOME_TIMEOUT } from '../cluster/pick-interface.ts';
import { DEFAULT_RETRY } from '../model/policy.ts';
import { STREAM_IDLE_MS } from './exchange.ts';
import { TUNNEL_IDLE_MS } from './tunnel.ts';

const CONNECT = { class: 'unsent', cause: 'connect', message: 'x', reused: false } as const;

test('a small request and reply: one send, one reply, no timer left', () => {
  const rig = new ExchangeRig();
  rig.request();
  assert.match(rig.upstream.sent, /^GET \/ HTTP\/1\.1\r\nhost: hello\.demo\.weir\r\n.*x-weir-attempt-count: 1\r\n\r\n$/s);
  rig.respond(200, 'ok', 'Server: x');
  assert.equal(
    rig.down.last?.head,
    'HTTP/1.1 200 X\r\nServer: x\r\nvia: 1.1 weir-me\r\nx-weir-attempts: 1\r\nx-weir-upstream: 10.0.0.1:1\r\n',
  );
  assert.deepEqual([rig.down.last?.body, rig.wheel.armed, rig.exchange.busy], ['ok', 0, false]);
  assert.deepEqual([rig.cluster.outcomes, rig.cluster.firsts], [[200], 1]);
});

test('a small body leaves with its head in one send, once it is whole', () => {
  const rig = new ExchangeRig();
  rig.request('POST', 'abc');
  assert.equal(rig.pool.connections.length, 1);
  assert.ok(rig.upstream.sent.endsWith('content-length: 3\r\n\r\nabc'));
  assert.equal(rig.upstream.ended, true);
});

test('a body that does not come in the same turn is streamed', async () => {
  const rig = new ExchangeRig();
  rig.begin('POST', 'chunked', -1);
  assert.equal(rig.pool.connections.length, 0);
  await settle();
  rig.exchange.body(Buffer.from('abc'));
  rig.exchange.requestEnd(null);
  assert.ok(rig.upstream.sent.endsWith('transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n'));
});

test('the route timeout: 504 after 15 s of the whole request, blamed on the upstream', () => {
  const rig = new ExchangeRig();
  rig.request();
  rig.clock.advance(14_990);
  assert.equal(rig.down.replies.length, 0);
  rig.clock.advance(40);
  assert.deepEqual([rig.down.last?.status, rig.cluster.outcomes, rig.upstream.abandoned], [504, [OUTCOME_TIMEOUT], true]);
});

test('the route timeout starts when the whole request has arrived', async () => {
  const rig = new ExchangeRig();
  rig.begin('POST', 'length', 2);
  await settle();
  rig.clock.advance(30_000);
  rig.exchange.body(Buffer.from('ab'));
  rig.exchange.requestEnd(null);
  rig.clock.advance(14_900);
  assert.equal(rig.down.replies.length, 0);
  rig.clock.advance(200);
  assert.equal(rig.down.last?.status, 504);
});

test('a timer of ours that fires over 500 ms late blames nobody; at 400 ms late it does', () => {
  for (const [late, outcome] of [
    [600, OUTCOME_IGNORED],
    [400, OUTCOME_TIMEOUT],
  ] as const) {
    const rig = new ExchangeRig({ timeout: 1_000, retry: { ...DEFAULT_RETRY, perTryTimeout: 0 } });
    rig.request();
    rig.clock.advance(980);
    rig.clock.stall(20 + late);
    rig.clock.advance(20);
    assert.deepEqual([rig.down.last?.status, rig.cluster.outcomes], [504, [outcome]]);
  }
});

test('a per-try timeout that fires over 500 ms late blames nobody, and the request goes on', () => {
  const rig = new ExchangeRig({ retry: { ...DEFAULT_RETRY, perTryTimeout: 1_000 } });
  rig.request();
  rig.clock.advance(980);
  rig.clock.stall(700);
  rig.clock.advance(20);
  assert.deepEqual(rig.cluster.outcomes, [OUTCOME_IGNORED]);
  rig.clock.advance(100);
  assert.equal(rig.pool.connections.length, 2);
});

test('a connect that timed out because our loop stood still blames nobody; one that took its second does', () => {
  for (const [stall, outcome] of [
    [2_000, OUTCOME_IGNORED],
    [1_020, OUTCOME_CONNECT_FAILURE],
  ] as const) {
    const rig = new ExchangeRig();
    rig.pool.mode = 'queue';
    rig.request();
    rig.clock.stall(stall);
    rig.pool.waiting?.failed(CONNECT);
    assert.deepEqual(rig.cluster.outcomes, [outcome]);
  }
});

test('a per-try timeout that is not below the route timeout is ignored', () => {
  const rig = new ExchangeRig({ timeout: 1_000, retry: { ...DEFAULT_RETRY, perTryTimeout: 1_000 } });
  rig.request();
  rig.clock.advance(1_100);
  assert.deepEqual([rig.down.last?.status, rig.cluster.picks], [504, 1]);
});

test('while it waits for a connection a request is unsent: its per-try timeout lets even a POST go on', () => {
  const rig = new ExchangeRig({ retry: { ...DEFAULT_RETRY, perTryTimeout: 500 } });
  rig.pool.mode = 'queue';
  rig.request('POST', 'abc');
  rig.clock.advance(505);
  assert.equal(rig.pool.cancelled, 1);
  rig.pool.mode = 'connect';
  rig.clock.advance(100);
  rig.respond(200);
  assert.deepEqual([rig.down.last?.status, rig.cluster.outcomes], [200, [OUTCOME_TIMEOUT, 200]]);
});

test('timeouts shrink under pressure', () => {
  const rig = new ExchangeRig();
  rig.gate.update({ memory: 0.949, fds: 0, loopDelay: 0 });
  rig.request();
  rig.clock.advance(1_800);
  assert.equal(rig.down.last?.status, 504);
});

test('timeout 0: a response may take as long as something moves, and is cut after 5 min of nothing', () => {
  const rig = new ExchangeRig({ timeout: 0 });
  rig.request();
  rig.upstream.user.response(responseHead(200), 'chunked', -1);
  for (let i = 0; i < 10; i++) {
    rig.clock.advance(STREAM_IDLE_MS - 5_000);
    rig.upstream.user.responseBody(Buffer.from('x'));
  }
  assert.equal(rig.down.destroyed, false);
  rig.clock.advance(STREAM_IDLE_MS + 2_000);
  assert.deepEqual([rig.down.destroyed, rig.down.last?.ended, rig.cluster.outcomes], [true, false, [OUTCOME_TIMEOUT]]);
});

test("streaming routes lift the codec's deadline and do not count as requests in flight", () => {
  const rig = new ExchangeRig({ streaming: true });
  rig.request();
  assert.deepEqual([rig.down.lifted, rig.gate.requests], [true, 0]);
  const plain = new ExchangeRig();
  plain.request();
  assert.deepEqual([plain.down.lifted, plain.gate.requests], [false, 1]);
});

test('back-off before retry n is uniform in [0, 25 ms), then [0, 75 ms)', () => {
  const rig = new ExchangeRig();
  rig.random = 0.999;
  rig.request();
  rig.fail({});
  rig.clock.advance(20);
  assert.equal(rig.cluster.picks, 1);
  rig.clock.advance(30);
  assert.equal(rig.cluster.picks, 2);
  rig.fail({});
  rig.clock.advance(60);
  assert.equal(rig.cluster.picks, 2);
  rig.clock.advance(40);
  assert.equal(rig.cluster.picks, 3);
  assert.deepEqual(rig.cluster.tried, [0, 1, 2]);
  rig.fail({});
  assert.deepEqual([rig.down.last?.status, rig.cluster.granted, rig.cluster.retriesEnded], [502, 2, 2]);
});

test('Retry-After 2 waits in [2 s, 3 s]; one above 300 s is skipped for the ordinary back-off', () => {
  for (const [header, random, early, due] of [
    ['2', 0, 1_980, 2_040],
    ['2', 0.999, 2_960, 3_040],
    ['301', 0, 0, 40],
  ] as const) {
    const rig = new ExchangeRig();
    rig.random = random;
    rig.request();
    rig.respond(503, 'no', `Retry-After: ${header}`);
    rig.clock.advance(early);
    assert.equal(rig.cluster.picks, 1, `${header} too early`);
    rig.clock.advance(due - early);
    assert.equal(rig.cluster.picks, 2, `${header} too late`);
  }
});

test('no retry is started that would not fit the time left', () => {
  const rig = new ExchangeRig({ timeout: 1_000 });
  rig.random = 0.999;
  rig.request();
  rig.clock.advance(980);
  rig.fail({});
  assert.deepEqual([rig.down.last?.status, rig.cluster.granted], [502, 0]);
});

test('a budget that is used up passes the failure on', () => {
  const rig = new ExchangeRig();
  rig.cluster.grants = false;
  rig.request();
  rig.respond(503, 'no');
  assert.deepEqual([rig.down.last?.status, rig.down.last?.body], [503, 'no']);
  assert.match(rig.down.last?.head ?? '', /x-weir-retry-final: 1/);
});

test('while shedding, new requests are 503 and open ones are not retried', () => {
  const rig = new ExchangeRig();
  rig.request();
  rig.gate.update({ memory: 0.96, fds: 0, loopDelay: 0 });
  rig.fail({});
  assert.deepEqual([rig.down.last?.status, rig.cluster.picks], [502, 1]);
  rig.request();
  assert.deepEqual([rig.down.last?.status, rig.cluster.started], [503, 1]);
  assert.match(rig.down.last?.head ?? '', /x-weir-error: OVERLOADED\r\nretry-after: 1/);
});

test('what each failure teaches the cluster', () => {
  for (const [failure, outcome] of [
    [{ class: 'unsent', cause: 'connect' }, OUTCOME_CONNECT_FAILURE],
    [{ class: 'no-response', cause: 'reset' }, OUTCOME_LOCAL_FAILURE],
    [{ class: 'started', cause: 'reset' }, OUTCOME_LOCAL_FAILURE],
    [{ class: 'started', cause: 'protocol' }, OUTCOME_LOCAL_FAILURE],
    [{ class: 'unsent', cause: 'overflow' }, OUTCOME_IGNORED],
    [{ class: 'unsent', cause: 'cancelled' }, OUTCOME_IGNORED],
  ] as const) {
    const rig = new ExchangeRig();
    rig.request('POST', 'x');
    rig.fail(failure);
    assert.equal(rig.cluster.outcomes[0], outcome, JSON.stringify(failure));
  }
});

test('a body that is above 64 KiB and no longer kept cannot be sent again, even when the attempt was unsent', async () => {
  const rig = new ExchangeRig();
  rig.begin('PUT', 'chunked', -1);
  await settle();
  for (let i = 0; i < 3; i++) rig.exchange.body(Buffer.alloc(40_000));
  assert.equal(rig.gate.bytes, 0);
  rig.fail({ class: 'unsent', cause: 'reset' });
  assert.deepEqual([rig.down.last?.status, rig.cluster.picks], [502, 1]);
});

test('while there is no connection at most about 64 KiB of body are read, and counted', async () => {
  const rig = new ExchangeRig();
  rig.pool.mode = 'queue';
  rig.begin('PUT', 'length', 200_000);
  await settle();
  rig.exchange.body(Buffer.alloc(60_000));
  assert.equal(rig.down.paused, false);
  rig.exchange.body(Buffer.alloc(60_000));
  assert.deepEqual([rig.down.paused, rig.gate.bytes], [true, 120_000]);
  rig.pool.open();
  assert.deepEqual([rig.down.paused, rig.gate.bytes], [false, 0]);
  rig.exchange.body(Buffer.alloc(80_000));
  rig.exchange.requestEnd(null);
  assert.equal(rig.upstream.sent.length - rig.upstream.sent.indexOf('\r\n\r\n') - 4, 200_000);
});

test('an upstream that takes no more stops the reading of the client until it does', async () => {
  const rig = new ExchangeRig();
  rig.begin('PUT', 'length', 200_000);
  await settle();
  rig.upstream.takes = false;
  rig.exchange.body(Buffer.alloc(50_000));
  assert.equal(rig.down.paused, true);
  rig.upstream.user.drained();
  assert.equal(rig.down.paused, false);
});

test('Expect is answered only when a connection is there', async () => {
  const rig = new ExchangeRig();
  rig.pool.mode = 'queue';
  rig.begin('PUT', 'length', 3, 'Expect: 100-continue');
  await settle();
  assert.equal(rig.down.continued, 0);
  rig.pool.open();
  assert.equal(rig.down.continued, 1);
});

test('no endpoint, no room, no catalog: each is answered at once', () => {
  const none = new ExchangeRig();
  none.cluster.empty = true;
  none.cluster.noPick = 'BREAKER_OPEN';
  none.request();
  assert.match(none.down.last?.head ?? '', /503.*x-weir-error: BREAKER_OPEN/s);
  const full = new ExchangeRig();
  full.cluster.admits = false;
  full.request();
  assert.match(full.down.last?.head ?? '', /503.*x-weir-error: UPSTREAM_OVERFLOW/s);
  assert.equal(full.cluster.finished, 0);
  const early = new ExchangeRig();
  early.catalog = 'notReady';
  early.request();
  assert.match(early.down.last?.head ?? '', /503.*x-weir-error: CATALOG_NOT_READY/s);
});

test('a body that comes while the catalog is asked is kept for the answer', async () => {
  const rig = new ExchangeRig();
  rig.catalog = 'pending';
  rig.begin('POST', 'length', 3);
  await settle();
  rig.exchange.body(Buffer.from('abc'));
  rig.exchange.requestEnd(null);
  rig.waiter?.(rig.slot);
  assert.ok(rig.upstream.sent.endsWith('\r\n\r\nabc'));
});

const WS = [
  'Connection: upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
];

test('an idle tunnel ends after 5 min; one on which something moves does not', () => {
  const rig = new ExchangeRig();
  rig.request('GET', null, ...WS);
  rig.upstream.user.upgraded(responseHead(101, ['Upgrade: websocket']));
  assert.deepEqual([rig.gate.requests, rig.cluster.finished, rig.cluster.outcomes], [0, 1, [200]]);
  for (let i = 0; i < 5; i++) {
    rig.clock.advance(TUNNEL_IDLE_MS - 5_000);
    rig.upstream.user.upgradeData(Buffer.from('x'));
  }
  assert.equal(rig.down.destroyed, false);
  rig.clock.advance(TUNNEL_IDLE_MS + 1_500);
  assert.deepEqual([rig.down.destroyed, rig.upstream.abandoned], [true, true]);
  rig.exchange.closed();
  assert.deepEqual([rig.exchange.busy, rig.wheel.armed], [false, 0]);
});

/** One thing that may happen next; what does not fit the state is skipped. */
type Step =
  | { readonly kind: 'status'; readonly status: number }
  | { readonly kind: 'stream' }
  | { readonly kind: 'end' }
  | {
      readonly kind: 'fail';
      readonly class: 'unsent' | 'no-response' | 'started';
      readonly cause: 'connect' | 'reset' | 'protocol' | 'overflow' | 'cancelled';
    }
  | { readonly kind: 'time'; readonly ms: number }
  | { readonly kind: 'client' }
  | { readonly kind: 'stop' };

const STEP: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('status' as const), status: fc.constantFrom(200, 404, 500, 503) }),
  fc.record({ kind: fc.constantFrom('stream' as const, 'end' as const, 'client' as const, 'stop' as const) }),
  fc.record({
    kind: fc.constant('fail' as const),
    class: fc.constantFrom('unsent' as const, 'no-response' as const, 'started' as const),
    cause: fc.constantFrom('connect' as const, 'reset' as const, 'protocol' as const, 'overflow' as const, 'cancelled' as const),
  }),
  fc.record({ kind: fc.constant('time' as const), ms: fc.constantFrom(20, 100, 600, 20_000) }),
);

/** Plays steps against one exchange and checks that a request has exactly one end. */
function play(method: string, body: string | null, mode: 'connect' | 'queue' | 'refuse', steps: readonly Step[]): void {
  const rig = new ExchangeRig({ retry: { ...DEFAULT_RETRY, perTryTimeout: 500 } });
  rig.pool.mode = mode === 'refuse' ? CONNECT : mode;
  rig.request(method, body);
  let streaming = -1;
  for (const step of steps) {
    const live = rig.exchange.busy ? rig.pool.connections.at(-1) : undefined;
    const usable = live !== undefined && !live.abandoned && live.sent !== '' && !answered.has(live);
    if (step.kind === 'time') rig.clock.advance(step.ms);
    else if (step.kind === 'client') rig.exchange.aborted('client');
    else if (step.kind === 'stop') rig.exchange.hardStop();
    else if (usable && step.kind === 'end' && streaming === rig.pool.connections.length) {
      answered.add(live);
      live.user.responseEnd(null);
    } else if (usable && step.kind === 'fail') {
      answered.add(live);
      live.user.failed({ class: step.class, cause: step.cause, message: 'x', reused: false });
    } else if (usable && streaming !== rig.pool.connections.length) {
      if (step.kind === 'status') {
        answered.add(live);
        live.user.responseWhole(responseHead(step.status), Buffer.from('x'));
      } else if (step.kind === 'stream') {
        streaming = rig.pool.connections.length;
        live.user.response(responseHead(200), 'chunked', -1);
      }
    }
  }
  rig.exchange.aborted('client');
  const { cluster } = rig;
  assert.equal(rig.exchange.busy, false);
  assert.equal(cluster.outcomes.length, cluster.picks, 'every pick is ended once');
  assert.deepEqual([cluster.started, cluster.finished], [1, 1]);
  assert.equal(cluster.granted, cluster.retriesEnded);
  assert.deepEqual([rig.gate.requests, rig.gate.bytes, rig.wheel.armed], [0, 0, 0]);
  assert.ok(rig.down.replies.length <= 1, 'at most one reply');
  assert.ok(cluster.picks <= 3);
  if (method === 'POST') {
    const sent = rig.pool.connections.filter((connection) => connection.sent !== '').length;
    const unsent = steps.filter((step) => step.kind === 'fail' && step.class === 'unsent').length;
    assert.ok(sent <= 1 + unsent, 'a POST that was sent is not sent again');
  }
}

let answered = new Set<object>();

test('whatever happens in whatever order, a request has one end and every book balances', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('GET', 'POST', 'PUT'),
      fc.constantFrom(null, '', 'abc'),
      fc.constantFrom('connect' as const, 'queue' as const, 'refuse' as const),
      fc.array(STEP, { maxLength: 8 }),
      (method, body, mode, steps) => {
        answered = new Set();
        play(method, body, mode, steps);
      },
    ),
    { numRuns: 3_000 },
  );
});
