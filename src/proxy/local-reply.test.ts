// The table of local replies.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  failureReply,
  LOCAL_CODES,
  type LocalCode,
  localReply,
  localReplyBody,
  localReplyHead,
  REPLIES,
  reasonOf,
} from './local-reply.ts';

const STATUS: Readonly<Record<LocalCode, number>> = {
  BAD_REQUEST: 400,
  ROUTE_NOT_FOUND: 404,
  UPSTREAM_CONNECT_FAILED: 502,
  UPSTREAM_RESET: 502,
  UPSTREAM_PROTOCOL: 502,
  UPSTREAM_TIMEOUT: 504,
  LOOP_DETECTED: 508,
  NO_HEALTHY_UPSTREAM: 503,
  UPSTREAM_OVERFLOW: 503,
  BREAKER_OPEN: 503,
  OVERLOADED: 503,
  DRAINING: 503,
  CATALOG_NOT_READY: 503,
};

test('every code has the status of proxy-semantics §18 and a reason phrase', () => {
  assert.deepEqual(Object.fromEntries(Object.entries(LOCAL_CODES).map(([code, { status }]) => [code, status])), STATUS);
  for (const status of [...Object.values(STATUS), 403, 405, 408, 413, 414, 417, 431, 501, 505])
    assert.notEqual(reasonOf(status), '', String(status));
});

test('503 carries Retry-After where load or time is the cause', () => {
  for (const { code, status } of Object.values(REPLIES)) {
    const waits = localReplyHead(localReply(code, 'x'), '').includes('\r\nretry-after: 1\r\n');
    assert.equal(waits, status === 503, code);
  }
  assert.ok(!localReplyHead(failureReply('NO_HEALTHY_UPSTREAM'), '').includes('retry-after'));
});

test('head and body', () => {
  const reply = localReply('BAD_REQUEST', 'say "it"', 413);
  assert.equal(
    localReplyHead(reply, 'x-weir-attempts: 0\r\n'),
    'HTTP/1.1 413 Content Too Large\r\ncontent-type: application/json\r\nx-weir-error: BAD_REQUEST\r\nx-weir-attempts: 0\r\n',
  );
  assert.deepEqual(JSON.parse(localReplyBody(reply)), { error: { code: 'BAD_REQUEST', message: 'say "it"' } });
});

test('every failure of an attempt has words of its own', () => {
  for (const code of [
    'UPSTREAM_CONNECT_FAILED',
    'UPSTREAM_RESET',
    'UPSTREAM_PROTOCOL',
    'UPSTREAM_TIMEOUT',
    'UPSTREAM_OVERFLOW',
    'NO_HEALTHY_UPSTREAM',
    'BREAKER_OPEN',
  ] as const) {
    assert.notEqual(failureReply(code).message, 'the request failed', code);
    assert.equal(failureReply(code).status, STATUS[code]);
  }
});
