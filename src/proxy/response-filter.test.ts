// Table tests of the response pipeline.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { internName } from '../http1/fields.ts';
import { parseResponseHead } from '../http1/head.ts';
import { filterInformational, filterResponse, filterTrailers, ResponsePlan, retryMarks } from './response-filter.ts';

function parse(...lines: string[]) {
  const head = parseResponseHead(lines.join('\r\n').concat('\r\n'));
  if (head.refused) assert.fail(head.reason);
  return head;
}

function passed(...fields: string[]): string[] | null {
  const plan = new ResponsePlan();
  if (!filterResponse(parse('HTTP/1.1 200 OK', ...fields), 'weir-me', plan)) return null;
  const lines = plan.head.split('\r\n').slice(0, -1);
  assert.equal(lines.shift(), 'HTTP/1.1 200 OK');
  return lines.filter((line) => line !== 'via: 1.1 weir-me');
}

const ROWS: readonly (readonly [string, readonly string[], readonly string[] | null])[] = [
  ['plain fields stay as written', ['Server: x', 'Date: y', 'a: 1'], ['Server: x', 'Date: y', 'a: 1']],
  ['Set-Cookie lines stay separate', ['Set-Cookie: a=1', 'Set-Cookie: b=2'], ['Set-Cookie: a=1', 'Set-Cookie: b=2']],
  [
    'hop-by-hop and framing never go on',
    [
      'Connection: keep-alive',
      'Keep-Alive: timeout=5',
      'Transfer-Encoding: chunked',
      'Trailer: x',
      'Upgrade: h2c',
      'Proxy-Authenticate: x',
      'TE: x',
    ],
    [],
  ],
  ['content-length is not copied', ['Content-Length: 5'], []],
  ['named by Connection: gone', ['Connection: x-foo', 'X-Foo: 1', 'X-Bar: 2'], ['X-Bar: 2']],
  ['Set-Date named by Connection: protected date kept', ['Connection: date', 'Date: x'], ['Date: x']],
  ['a malformed Connection is a protocol failure', ['Connection: a b'], null],
  ['look-alikes are dropped', ['Content_Length: 5', 'Transfer_Encoding: chunked'], []],
  [
    "x-weir-* is ours, but the upstream weir's error code goes on",
    ['x-weir-attempts: 9', 'x-weir-upstream: evil', 'x-weir-error: OVERLOADED', 'x-weir-retry-final: 1'],
    ['x-weir-error: OVERLOADED'],
  ],
  ['Via is appended to', ['Via: 1.1 a', 'via: 1.1 b'], ['via: 1.1 a, 1.1 b, 1.1 weir-me']],
];

for (const [name, fields, want] of ROWS) {
  test(`response fields: ${name}`, () => assert.deepEqual(passed(...fields), want));
}

test('the status line keeps status and reason, the length is told apart', () => {
  const plan = new ResponsePlan();
  assert.ok(filterResponse(parse('HTTP/1.0 404 Nope', 'Content-Length: 12', 'Content_Length: 1'), 'weir-me', plan));
  assert.deepEqual([plan.head, plan.contentLength, plan.twins], ['HTTP/1.1 404 Nope\r\nvia: 1.1 weir-me\r\n', 12, 1]);
  assert.ok(filterResponse(parse('HTTP/1.1 204 No Content'), 'weir-me', plan));
  assert.deepEqual([plan.contentLength, plan.twins], [-1, 0]);
});

test('a 103 goes on as a whole head', () => {
  const text = filterInformational(
    parse('HTTP/1.1 103 Early Hints', 'Link: </a>', 'Connection: close'),
    'weir-me',
    new ResponsePlan(),
  );
  assert.equal(text, 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nvia: 1.1 weir-me\r\n\r\n');
});

const MARKS: readonly (readonly [string, number, readonly string[], boolean, number])[] = [
  ['none', 503, ['Server: x'], false, -1],
  ['retry-final', 502, ['x-weir-retry-final: 1'], true, -1],
  ['x-weir-error on a 503', 503, ['x-weir-error: OVERLOADED'], true, -1],
  ['x-weir-error on a 502 does not stop retries', 502, ['x-weir-error: UPSTREAM_RESET'], false, -1],
  ['Retry-After in seconds', 503, ['Retry-After: 2'], false, 2_000],
  ['Retry-After as a date is not read', 503, ['Retry-After: Wed, 21 Oct 2015 07:28:00 GMT'], false, -1],
  ['X-RateLimit-Reset', 503, ['X-RateLimit-Reset: 1007'], false, 7_000],
  ['X-RateLimit-Reset in the past', 503, ['X-RateLimit-Reset: 3'], false, 0],
  ['Retry-After wins', 503, ['X-RateLimit-Reset: 1007', 'Retry-After: 1'], false, 1_000],
];

for (const [name, status, fields, final, waitMs] of MARKS) {
  test(`retry marks: ${name}`, () => {
    assert.deepEqual(retryMarks(parse(`HTTP/1.1 ${status} x`, ...fields), { wallNow: () => 1_000_000 }), { final, waitMs });
  });
}

test('trailers go on by allow-list and only to a client that asked', () => {
  const names = ['grpc-status', 'X-Secret', 'Server-Timing'].map(internName);
  const trailers = { names, values: ['0', 'x', 't'] };
  assert.deepEqual(filterTrailers(trailers, true), { names: [names[0], names[2]], values: ['0', 't'] });
  assert.equal(filterTrailers(trailers, false), null);
  assert.equal(filterTrailers({ names: names.slice(1, 2), values: ['x'] }, true), null);
  assert.equal(filterTrailers(null, true), null);
});
