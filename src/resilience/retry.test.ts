import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_RETRY, type RetryCondition, type RetryPolicy } from '../model/policy.ts';
import { type AttemptEnd, decideRetry, isIdempotent, mayRepeat, type RetryAnswer, type RetryFacts } from './retry.ts';

const policy = DEFAULT_RETRY;
const ENDS: readonly AttemptEnd[] = ['connect', 'refusedStream', 'reset', 'perTryTimeout', 'status', 'final'];

function facts(over: Partial<RetryFacts> = {}): RetryFacts {
  return {
    method: 'GET',
    hasBody: false,
    hasIdempotencyKey: false,
    bodyReplayable: true,
    responseStarted: false,
    retries: 0,
    overloaded: false,
    markedFinal: false,
    ...over,
  };
}

function decide(end: AttemptEnd, over: Partial<RetryFacts> = {}, by: RetryPolicy = policy, status = 503): RetryAnswer {
  return decideRetry(by, facts(over), end, status);
}

test('an unsent attempt is retried whatever the method, the body or its length', () => {
  for (const method of ['GET', 'POST', 'PATCH', 'DELETE']) {
    assert.equal(decide('connect', { method, hasBody: true, bodyReplayable: false }), 'retry', method);
    assert.equal(decide('refusedStream', { method, hasBody: true, bodyReplayable: false }), 'retry', method);
  }
});

test('after bytes were sent only idempotent methods are retried', () => {
  for (const end of ['reset', 'perTryTimeout', 'status'] as const) {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']) assert.equal(decide(end, { method }), 'retry', method);
    for (const method of ['POST', 'PATCH', 'CUSTOM', 'get']) assert.equal(decide(end, { method }), 'notIdempotent', method);
  }
});

test('GET, HEAD and DELETE with a body are retried unsent only, PUT with a kept body is', () => {
  for (const method of ['GET', 'HEAD', 'DELETE']) {
    assert.equal(decide('reset', { method, hasBody: true }), 'notIdempotent', method);
    assert.equal(mayRepeat({ ...policy, nonIdempotent: true }, { method, hasBody: true, hasIdempotencyKey: true }), false);
  }
  assert.equal(decide('reset', { method: 'PUT', hasBody: true }), 'retry');
});

test('a route may allow non-idempotent methods, or those that carry Idempotency-Key', () => {
  assert.equal(decide('reset', { method: 'POST' }, { ...policy, nonIdempotent: true }), 'retry');
  assert.equal(decide('reset', { method: 'POST', hasIdempotencyKey: true }, { ...policy, idempotencyKey: true }), 'retry');
  assert.equal(decide('reset', { method: 'POST', hasIdempotencyKey: true }), 'notIdempotent', 'only where the route honours it');
  assert.equal(decide('reset', { method: 'POST' }, { ...policy, idempotencyKey: true }), 'notIdempotent');
});

test('a body that is not kept whole forbids all but unsent retries', () => {
  assert.equal(decide('reset', { method: 'PUT', hasBody: true, bodyReplayable: false }), 'bodyNotKept');
});

test('conditions cover exactly their failures', () => {
  const rows: [RetryCondition, AttemptEnd[], number[]][] = [
    ['connectFailure', ['connect'], []],
    ['refusedStream', ['refusedStream'], []],
    ['reset', ['connect', 'reset', 'perTryTimeout'], []],
    ['gatewayError', ['perTryTimeout'], [502, 503, 504]],
    ['5xx', ['connect', 'refusedStream', 'reset', 'perTryTimeout'], [500, 501, 502, 503, 504, 599]],
    ['retriable4xx', [], [409]],
    ['retriableStatusCodes', [], [418, 429]],
  ];
  for (const [condition, ends, statuses] of rows) {
    const only: RetryPolicy = { ...policy, on: [condition], statusCodes: [418, 429] };
    for (const end of ENDS) {
      if (end === 'status' || end === 'final') continue;
      assert.equal(decide(end, {}, only), ends.includes(end) ? 'retry' : 'notListed', `${condition} ${end}`);
    }
    for (const status of [200, 404, 409, 418, 429, 500, 501, 502, 503, 504, 599]) {
      assert.equal(
        decide('status', {}, only, status),
        statuses.includes(status) ? 'retry' : 'notListed',
        `${condition} ${status}`,
      );
    }
  }
});

test('by default 502, 503 and 504 are retried, 500 and 429 are not', () => {
  assert.deepEqual(
    [500, 429, 502, 503, 504].map((status) => decide('status', {}, policy, status)),
    ['notListed', 'notListed', 'retry', 'retry', 'retry'],
  );
});

test('two retries, not three', () => {
  assert.equal(decide('connect', { retries: 1 }), 'retry');
  assert.equal(decide('connect', { retries: 2 }), 'attemptsUsedUp');
});

test('the reason given is the first one in the order of the rules', () => {
  const worst: Partial<RetryFacts> = {
    method: 'POST',
    responseStarted: true,
    bodyReplayable: false,
    retries: 9,
    overloaded: true,
    markedFinal: true,
  };
  const nothing: RetryPolicy = { ...policy, on: [] };
  const order: [Partial<RetryFacts>, AttemptEnd, RetryPolicy, RetryAnswer][] = [
    [worst, 'final', nothing, 'responseStarted'],
    [{ ...worst, responseStarted: false }, 'final', nothing, 'neverRetried'],
    [{ ...worst, responseStarted: false }, 'reset', nothing, 'notIdempotent'],
    [{ ...worst, responseStarted: false, method: 'GET' }, 'reset', nothing, 'bodyNotKept'],
    [{ ...worst, responseStarted: false, method: 'GET', bodyReplayable: true }, 'reset', nothing, 'notListed'],
    [{ ...worst, responseStarted: false, method: 'GET', bodyReplayable: true }, 'reset', policy, 'attemptsUsedUp'],
    [{ overloaded: true, markedFinal: true }, 'reset', policy, 'overloaded'],
    [{ markedFinal: true }, 'reset', policy, 'markedFinal'],
  ];
  for (const [over, end, by, answer] of order) assert.equal(decide(end, over, by), answer);
});

test('no request is ever sent twice against its promise', () => {
  fc.assert(
    fc.property(
      fc.record({
        method: fc.constantFrom('GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'POST', 'PATCH', 'QUERY'),
        hasBody: fc.boolean(),
        hasIdempotencyKey: fc.boolean(),
        bodyReplayable: fc.boolean(),
        responseStarted: fc.boolean(),
        retries: fc.nat(4),
        overloaded: fc.boolean(),
        markedFinal: fc.boolean(),
      }),
      fc.constantFrom(...ENDS),
      fc.integer({ min: 200, max: 599 }),
      (given, end, status) => {
        if (decideRetry(policy, given, end, status) !== 'retry') return;
        assert.equal(given.responseStarted, false);
        assert.notEqual(end, 'final');
        if (end === 'connect' || end === 'refusedStream') return;
        assert.ok(isIdempotent(given.method) && given.bodyReplayable);
      },
    ),
  );
});
