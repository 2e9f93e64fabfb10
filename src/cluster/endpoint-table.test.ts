import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_OUTLIER } from '../model/policy.ts';
import { OutlierState } from '../resilience/outlier.ts';
import type { EndpointUpdate } from './cluster-update.ts';
import type { Endpoint } from './endpoint.ts';
import { EndpointTable, REMEMBER_MS } from './endpoint-table.ts';

function table(): EndpointTable {
  return new EndpointTable({
    makePool: () => {
      throw new Error('a diff must not make a pool');
    },
  });
}

function at(host: string, over: Partial<EndpointUpdate> = {}): EndpointUpdate {
  return { host, port: 80, weight: 100, verdict: 'healthy', ...over };
}

function names(endpoints: Iterable<Endpoint>): string[] {
  return [...endpoints].map((endpoint) => endpoint.address);
}

/** Gives the endpoint a failure to remember. */
function mark(endpoint: Endpoint | undefined): void {
  assert.ok(endpoint);
  endpoint.outlier = new OutlierState();
  endpoint.outlier.count(500, DEFAULT_OUTLIER);
}

test('a push names who joined and who left, in its own order', () => {
  const own = table();
  assert.deepEqual(names(own.apply([at('a'), at('b')], 0).joined), ['a:80', 'b:80']);
  const diff = own.apply([at('c'), at('b')], 1);
  assert.deepEqual([names(diff.joined), names(diff.left), diff.changed], [['c:80'], ['a:80'], true]);
  assert.deepEqual(names(own.values()), ['b:80', 'c:80']);
});

test('only weight, verdict, groups and membership call for a new picker', () => {
  const own = table();
  own.apply([at('a', { groups: ['x'] })], 0);
  for (const [over, changed] of [
    [{ groups: ['x'] }, false],
    [{ groups: ['x'], locality: { zone: 'z' }, metadata: new Map([['k', 'v']]), recoveredAt: 5 }, false],
    [{ groups: ['x'], weight: 50 }, true],
    [{ groups: ['x'], weight: 50, verdict: 'unknown' }, true],
    [{ groups: ['x', 'y'], weight: 50, verdict: 'unknown' }, true],
    [{ groups: ['y', 'x'], weight: 50, verdict: 'unknown' }, true],
    [{ weight: 50, verdict: 'unknown' }, true],
  ] as const) {
    assert.equal(own.apply([at('a', over)], 0).changed, changed, JSON.stringify(over));
  }
});

test('the same host on two ports is two endpoints, the same address twice is one with the later word', () => {
  const own = table();
  own.apply([at('a'), at('a', { port: 81 }), at('a', { weight: 7 })], 0);
  assert.deepEqual(names(own.values()), ['a:80', 'a:81']);
  assert.equal([...own.values()][0]?.weight, 7);
});

test('an IPv6 address has its brackets', () => {
  const own = table();
  own.apply([at('2001:db8::1')], 0);
  assert.deepEqual(names(own.values()), ['[2001:db8::1]:80']);
});

test('a recovery is told once, when it is new', () => {
  const own = table();
  assert.deepEqual(
    names(own.apply([at('a', { recoveredAt: 5 })], 0).recovered),
    [],
    'a new endpoint has nothing to recover from',
  );
  assert.deepEqual(names(own.apply([at('a', { recoveredAt: 5 })], 0).recovered), []);
  assert.deepEqual(names(own.apply([at('a', { recoveredAt: 6 })], 0).recovered), ['a:80']);
  assert.deepEqual(names(own.apply([at('a')], 0).recovered), []);
});

test('a removed endpoint that comes back within ten minutes is the same object, and may have recovered meanwhile', () => {
  const own = table();
  const [endpoint] = own.apply([at('a')], 0).joined;
  own.apply([], 1_000);
  assert.equal(endpoint?.removed, true);
  const diff = own.apply([at('a', { recoveredAt: 9 })], 2_000);
  assert.equal(diff.joined[0], endpoint);
  assert.equal(endpoint?.removed, false);
  assert.deepEqual(names(diff.recovered), ['a:80']);
  assert.equal(own.goneSize, 0);
});

test('ten minutes after its removal an endpoint is forgotten, and not earlier', () => {
  const own = table();
  own.apply([at('a'), at('b')], 0);
  own.apply([at('b')], 1_000);
  own.apply([], 2_000);
  assert.equal(own.nextForget(), 1_000 + REMEMBER_MS);
  assert.deepEqual(names(own.forgetOld(999 + REMEMBER_MS)), []);
  assert.deepEqual(names(own.forgetOld(1_000 + REMEMBER_MS)), ['a:80']);
  assert.equal(own.nextForget(), 2_000 + REMEMBER_MS);
  assert.deepEqual(names(own.forgetOld(2_000 + REMEMBER_MS)), ['b:80']);
  assert.equal(own.nextForget(), null);
});

test('a second removal counts its ten minutes anew and queues behind earlier ones', () => {
  const own = table();
  own.apply([at('a'), at('b')], 0);
  own.apply([at('b')], 0);
  own.apply([at('a')], 100);
  own.apply([], 200);
  assert.deepEqual(names(own.gone()), ['b:80', 'a:80']);
  assert.deepEqual(names(own.forgetOld(100 + REMEMBER_MS)), ['b:80']);
});

test('a removed endpoint is given up at once exactly when it has no attempt and no memory', () => {
  const own = table();
  const [plain, busy, marked] = own.apply([at('a'), at('b'), at('c')], 0).joined;
  assert.ok(plain && busy && marked);
  busy.active = 1;
  mark(marked);
  own.apply([], 0);
  assert.deepEqual(
    [plain, busy, marked].map((endpoint) => own.forgetIfEmpty(endpoint)),
    [true, false, false],
  );
  assert.deepEqual(names(own.gone()), ['b:80', 'c:80']);
  busy.active = 0;
  assert.equal(own.forgetIfEmpty(busy), true);
});

test('an endpoint of the cluster is never given up', () => {
  const own = table();
  const [endpoint] = own.apply([at('a')], 0).joined;
  assert.ok(endpoint);
  assert.equal(own.forgetIfEmpty(endpoint), false);
});
