// Table tests of the request pipeline: every row of proxy-semantics §12, refused by codec or filter, whoever comes first.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FieldName } from '../http1/exchange.ts';
import { internName } from '../http1/fields.ts';
import { Framing, frameRequest } from '../http1/framing.ts';
import { parseRequestHead } from '../http1/head.ts';
import { DEFAULT_METHODS, type FilterContext, filterRequest, hasPassed, type Peer, RequestPlan } from './request-filter.ts';

const MAIN: FilterContext = { pseudonym: 'weir-me', methods: new Set(DEFAULT_METHODS), direction: 'outbound', main: true };
const INBOUND: FilterContext = { ...MAIN, direction: 'inbound', main: false };
const PEER: Peer = { address: '10.9.8.7', trusted: false };

interface How {
  readonly context?: FilterContext;
  readonly peer?: Peer;
}

/** The status of the first refusal on the way of one head through codec and filter, or the plan. */
function pass(lines: string, how: How = {}): number | RequestPlan {
  const parsed = parseRequestHead(lines);
  if (parsed.refused) return parsed.status;
  const framing = new Framing();
  const refusal = frameRequest(parsed, framing);
  if (refusal !== null) return refusal.status;
  const plan = new RequestPlan();
  const reply = filterRequest(parsed, framing.kind, how.context ?? MAIN, how.peer ?? PEER, () => 'new-id', plan);
  return reply === null ? plan : reply.status;
}

function head(line: string, ...fields: string[]): string {
  return [line, ...fields].join('\r\n').concat('\r\n');
}

function get(...fields: string[]): string {
  return head('GET /p HTTP/1.1', 'Host: a.b.weir', ...fields);
}

const REFUSED: readonly (readonly [string, string, number, How?])[] = [
  ['two Host fields', get('Host: a.b.weir'), 400],
  ['no Host on 1.1', head('GET / HTTP/1.1', 'X: y'), 400],
  ['no Host on 1.0', head('GET / HTTP/1.0', 'X: y'), 400],
  ['empty Host', head('GET / HTTP/1.1', 'Host:'), 400],
  ...['h/evil', 'h, evil', 'h evil', 'a@h', 'h:99999', 'h:abc', '[::1', '[::1%25lo]', 'h?x', '[nope]', `${'h'.repeat(256)}`].map(
    (host): [string, string, number] => [`Host ${host.slice(0, 12)}`, head('GET / HTTP/1.1', `Host: ${host}`), 400],
  ),
  ['absolute-form with user information', head('GET http://u@a.b.weir/ HTTP/1.1', 'Host: a.b.weir'), 400],
  ['absolute-form with another scheme', head('GET ftp://a.b.weir/ HTTP/1.1', 'Host: a.b.weir'), 400],
  ['absolute-form with https', head('GET https://a.b.weir/ HTTP/1.1', 'Host: a.b.weir'), 400],
  ['absolute-form with a port that is none', head('GET http://a:999999/ HTTP/1.1', 'Host: a'), 400],
  ['absolute-form on a dedicated listener, other host', head('GET http://x/ HTTP/1.1', 'Host: y'), 400, { context: INBOUND }],
  ['asterisk with GET', head('GET * HTTP/1.1', 'Host: a'), 400],
  ['fragment in the target', head('GET /a#frag HTTP/1.1', 'Host: a'), 400],
  ['target without a slash', head('GET a/b HTTP/1.1', 'Host: a'), 400],
  ['TE gzip, chunked', head('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: gzip, chunked'), 501],
  ['TE ,chunked', head('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: ,chunked'), 400],
  ['TE identity, chunked', head('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: identity, chunked'), 501],
  ['TE empty', head('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding:'), 400],
  ['TE on 1.0', head('POST / HTTP/1.0', 'Host: a', 'Transfer-Encoding: chunked'), 400],
  ['TE beside CL', head('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', 'Content-Length: 3'), 400],
  ['CL list', head('POST / HTTP/1.1', 'Host: a', 'Content-Length: 3, 3'), 400],
  ['CL twice', head('POST / HTTP/1.1', 'Host: a', 'Content-Length: 3', 'Content-Length: 3'), 400],
  ['CL signed', head('POST / HTTP/1.1', 'Host: a', 'Content-Length: +3'), 400],
  ['CL hex', head('POST / HTTP/1.1', 'Host: a', 'Content-Length: 0x3'), 400],
  ['CL overflowing', head('POST / HTTP/1.1', 'Host: a', 'Content-Length: 9999999999999999999'), 400],
  ...['content-length', 'transfer-encoding', 'host', 'close, Host'].map((token): [string, string, number] => [
    `Connection names ${token}`,
    get(`Connection: ${token}`),
    400,
  ]),
  ['Connection that is no list of tokens', get('Connection: a b'), 400],
  ['HTTP/2.0', head('GET / HTTP/2.0', 'Host: a'), 505],
  ['ICE/1.0', head('GET / ICE/1.0', 'Host: a'), 505],
  ['RTSP/1.0', head('GET / RTSP/1.0', 'Host: a'), 505],
  ['TRACE', head('TRACE / HTTP/1.1', 'Host: a'), 405],
  ['an unknown method', head('PURGE / HTTP/1.1', 'Host: a'), 405],
  ['get in lower case', head('get / HTTP/1.1', 'Host: a'), 405],
  ['CONNECT', head('CONNECT a:443 HTTP/1.1', 'Host: a:443'), 403],
  ['two spaces in the request line', head('GET  / HTTP/1.1', 'Host: a'), 400],
  ['obs-fold', get('A: b', ' c'), 400],
  ['space before the colon', get('A : b'), 400],
  ['NUL in a value', get('A: b\0c'), 400],
  ['Expect with another word', get('Expect: 200-ok'), 417],
  ['own pseudonym in Via', get('Via: 1.1 weir-me'), 508],
  ['own pseudonym among others in Via', get('Via: 1.0 fred, 1.1 weir-me (x)'), 508],
  ['own pseudonym in a second Via', get('Via: 1.0 fred', 'Via: 1.1 WEIR-ME'), 508],
  ['x-weir-service twice', get('x-weir-service: a/b', 'x-weir-service: a/c'), 400],
];

for (const [name, text, status, how] of REFUSED) {
  test(`request refused with ${status}: ${name}`, () => assert.equal(pass(text, how), status));
}

function plan(text: string, how?: How): RequestPlan {
  const got = pass(text, how);
  assert.ok(got instanceof RequestPlan, `refused with ${String(got)}`);
  return got;
}

/** The forwarded fields as lines, without what weir always adds on an outbound listener. */
function fields(text: string, how?: How): string[] {
  const lines = plan(text, how).fields.split('\r\n').slice(0, -1);
  return lines.filter((line) => !/^(via: 1\.1 weir-me|x-forwarded-for: 10\.9\.8\.7|x-request-id: new-id)$/.test(line));
}

const FORWARDED: readonly (readonly [string, string, readonly string[], How?])[] = [
  ['plain fields stay as written, in order', get('B: 1', 'a: 2', 'B: 3'), ['B: 1', 'a: 2', 'B: 3']],
  ['8-bit values pass', get('X: \xe9\xff'), ['X: \xe9\xff']],
  ['empty values pass', get('X:'), ['X: ']],
  ['names of object members pass', get('__proto__: a', 'constructor: b'), ['__proto__: a', 'constructor: b']],
  ['named by Connection: gone', get('Connection: close, x-foo', 'X-Foo: 1', 'X-Bar: 2'), ['X-Bar: 2']],
  ['named before it appears in Connection: gone', get('X-Foo: 1', 'Connection: X-FOO'), []],
  ['Authorization named by Connection: kept', get('Connection: authorization', 'Authorization: x'), ['Authorization: x']],
  [
    'Cookie and Content-Type named by Connection: kept',
    get('Connection: cookie, content-type', 'Cookie: x', 'Content-Type: y'),
    ['Cookie: x', 'Content-Type: y'],
  ],
  [
    'hop-by-hop fields never go on',
    get(
      'Keep-Alive: 5',
      'Proxy-Connection: x',
      'TE: trailers',
      'Trailer: x',
      'Upgrade: h2c',
      'HTTP2-Settings: x',
      'Proxy-Authenticate: x',
      'Proxy-Authorization: x',
      'Expect: 100-continue',
    ),
    [],
  ],
  ['framing fields are not copied', head('POST / HTTP/1.1', 'Host: a', 'Content-Length: 003'), []],
  [
    'look-alikes are dropped',
    get(
      'Content_Length: 5',
      'Transfer_Encoding: chunked',
      'X_Forwarded_For: 1.1.1.1',
      'x_weir_service: a/b',
      'HOST_: x',
      'a_b: 1',
    ),
    ['HOST_: x', 'a_b: 1'],
  ],
  [
    'x-weir-* of an untrusted peer is dropped',
    get('x-weir-service: a/b', 'x-weir-attempt-count: 7', 'x-weir-identity: root'),
    [],
  ],
  [
    'x-weir-* of a trusted peer passes, but not our own two',
    get('x-weir-service: a/b', 'x-weir-attempt-count: 7', 'x-weir-identity: root'),
    ['x-weir-identity: root'],
    { peer: { ...PEER, trusted: true } },
  ],
  ['client certificate field of an untrusted peer is dropped', get('X-Forwarded-Client-Cert: x'), []],
  [
    'outbound keeps proto, host and Forwarded',
    get('X-Forwarded-Proto: https', 'X-Forwarded-Host: h', 'Forwarded: for=1'),
    ['X-Forwarded-Proto: https', 'X-Forwarded-Host: h', 'Forwarded: for=1'],
  ],
  [
    'inbound replaces them',
    get('X-Forwarded-Proto: https', 'X-Forwarded-Host: h', 'Forwarded: for=1', 'X-Forwarded-For: 6.6.6.6'),
    ['x-forwarded-proto: http'],
    { context: INBOUND },
  ],
  [
    'outbound appends to X-Forwarded-For',
    get('X-Forwarded-For: 1.1.1.1', 'x-forwarded-for: 2.2.2.2, 3.3.3.3'),
    ['x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.9.8.7'],
  ],
  [
    'inbound from a trusted peer appends',
    get('X-Forwarded-For: 1.1.1.1'),
    ['x-forwarded-proto: http', 'x-forwarded-for: 1.1.1.1, 10.9.8.7'],
    { context: INBOUND, peer: { ...PEER, trusted: true } },
  ],
  ['Via is appended to', get('Via: 1.0 fred', 'via: 1.1 weir-mexico'), ['via: 1.0 fred, 1.1 weir-mexico, 1.1 weir-me']],
  ['a good x-request-id is kept', get('X-Request-Id: abc-123'), ['X-Request-Id: abc-123']],
  ['a long x-request-id is replaced', get(`X-Request-Id: ${'a'.repeat(65)}`), []],
  ['an x-request-id with a space is replaced', get('X-Request-Id: a b'), []],
  ['a second x-request-id is dropped', get('X-Request-Id: a', 'X-Request-Id: b'), ['X-Request-Id: a']],
  ['traceparent passes', get('traceparent: 00-1-2-3'), ['traceparent: 00-1-2-3']],
];

for (const [name, text, want, how] of FORWARDED) {
  test(`request fields: ${name}`, () => assert.deepEqual(fields(text, how), want));
}

test('every request carries Via, X-Forwarded-For and an x-request-id', () => {
  assert.equal(plan(get()).fields, 'via: 1.1 weir-me\r\nx-forwarded-for: 10.9.8.7\r\nx-request-id: new-id\r\n');
});

test('drops are counted by reason', () => {
  const got = plan(get('Connection: x-a', 'X-A: 1', 'Content_Length: 1', 'Te_: x', 'x-weir-a: 1'));
  assert.deepEqual([got.named, got.twins, got.identity], [1, 1, 1]);
});

const TARGETS: readonly (readonly [string, string, string, string, boolean])[] = [
  ['origin-form byte for byte', 'GET //evil/%2e%2E/p?a=/../b HTTP/1.1', '//evil/%2e%2E/p?a=/../b', 'a.b.weir', false],
  ['asterisk with OPTIONS', 'OPTIONS * HTTP/1.1', '*', 'a.b.weir', false],
  ['absolute-form replaces Host', 'GET http://C.d.weir:80/p?q HTTP/1.1', '/p?q', 'C.d.weir:80', true],
  ['absolute-form without a path', 'GET http://c.d.weir HTTP/1.1', '/', 'c.d.weir', true],
  ['absolute-form with a query alone', 'GET HTTP://c.d.weir?q HTTP/1.1', '/?q', 'c.d.weir', true],
];

for (const [name, line, path, host, absolute] of TARGETS) {
  test(`request target: ${name}`, () => {
    const got = plan(head(line, 'Host: a.b.weir'));
    assert.deepEqual([got.path, got.host, got.absolute], [path, host, absolute]);
  });
}

test('absolute-form on a dedicated listener passes when it equals Host', () => {
  const got = plan(head('GET http://A.b.weir/p HTTP/1.1', 'Host: a.b.weir'), { context: INBOUND });
  assert.deepEqual([got.path, got.absolute], ['/p', false]);
});

const WS = [
  'Connection: keep-alive, Upgrade',
  'Upgrade: WebSocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
];

test('a whole WebSocket handshake is seen as one', () => assert.equal(plan(get(...WS)).upgrade, true));

for (const [name, text] of [
  ['without the Connection token', get(...WS.slice(1))],
  ['with another protocol', get('Connection: upgrade', 'Upgrade: h2c', ...WS.slice(2))],
  ['with a second protocol', get('Upgrade: h2c', ...WS)],
  ['with version 8', get(WS[0] ?? '', WS[1] ?? '', 'Sec-WebSocket-Version: 8', WS[3] ?? '')],
  ['with a short key', get(...WS.slice(0, 3), 'Sec-WebSocket-Key: abc')],
  ['with two keys', get(...WS, WS[3] ?? '')],
  ['on 1.0', head('GET / HTTP/1.0', 'Host: a', ...WS)],
  ['by POST', head('POST / HTTP/1.1', 'Host: a', ...WS)],
  ['with a body', get(...WS, 'Content-Length: 2')],
] as const) {
  test(`no upgrade ${name}`, () => {
    const got = plan(text);
    assert.equal(got.upgrade, false);
    assert.doesNotMatch(got.fields, /upgrade/i);
  });
}

test('what weir itself needs is noted', () => {
  const got = plan(
    head('POST / HTTP/1.1', 'Host: a', 'TE: gzip, Trailers', 'Expect: 100-Continue', 'Idempotency-Key: k', 'Content-Length: 3'),
  );
  assert.deepEqual([got.trailers, got.expectContinue, got.idempotencyKey], [true, true, true]);
  assert.match(got.fields, /^Idempotency-Key: k\r\n/);
});

test('an expectation of a 1.0 client is not met', () => {
  assert.equal(plan(head('POST / HTTP/1.0', 'Host: a', 'Expect: 100-continue', 'Content-Length: 3')).expectContinue, false);
});

test('extra methods are allowed when configured', () => {
  const context: FilterContext = { ...MAIN, methods: new Set([...DEFAULT_METHODS, 'PURGE']) };
  assert.equal(plan(head('PURGE / HTTP/1.1', 'Host: a'), { context }).method, 'PURGE');
});

test('whoever parses, the filter itself insists on one strict Host', () => {
  const names: FieldName[] = [internName('Host'), internName('Host')];
  const made = { method: 'GET', target: '/', minor: 1, names, values: ['a', 'b'] } as const;
  assert.equal(filterRequest(made, 'none', MAIN, PEER, () => 'i', new RequestPlan())?.status, 400);
  const bad = { ...made, names: names.slice(1), values: ['a@b'] };
  assert.equal(filterRequest(bad, 'none', MAIN, PEER, () => 'i', new RequestPlan())?.status, 400);
});

test('a plan is filled anew: nothing of one request is left in the next', () => {
  const used = new RequestPlan();
  const first = parseRequestHead(get(...WS, 'TE: trailers', 'x-weir-service: a/b', 'Idempotency-Key: k', 'X-Forwarded-Host: h'));
  const second = parseRequestHead(get());
  if (first.refused || second.refused) assert.fail('refused');
  filterRequest(first, 'none', MAIN, PEER, () => 'one', used);
  filterRequest(second, 'none', MAIN, PEER, () => 'new-id', used);
  assert.deepEqual(used, plan(get()));
});

test('hasPassed reads members of Via, not parts of them', () => {
  for (const [via, want] of [
    ['1.1 weir-me', true],
    ['HTTP/1.1 weir-me', true],
    ['1.1 a, 1.1\tweir-me (c)', true],
    ['1.1 weir-me2', false],
    ['1.1 a (weir-me)', false],
    ['weir-me', false],
  ] as const) {
    assert.equal(hasPassed(via, 'weir-me'), want, via);
  }
});
