import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type GuardFacts, hostAllowList, hostOfField, judge } from './guard.ts';

const ALLOWED = hostAllowList(['weir.example', '[2001:DB8::1]', 'other.example:7900', '0.0.0.0', '[::]']);

function code(more: Partial<GuardFacts> & { headers?: readonly string[] }): string | null {
  const headers = more.headers ?? ['Host', 'localhost:7900'];
  return (
    judge({ method: 'GET', target: '/v1/sources', rawHeaders: headers, localAddress: '127.0.0.1', ...more }, ALLOWED)?.code ??
    null
  );
}

const json = ['Host', 'localhost', 'Content-Type', 'application/json'];

describe('the guard', () => {
  it('lets through what a local tool sends', () => {
    for (const host of [
      'localhost',
      'localhost:7900',
      'LOCALHOST:1',
      '127.0.0.1:7900',
      '[::1]:7900',
      'weir.example',
      'other.example',
      'WEIR.example.:80',
      '[2001:db8:0::1]:7900',
    ]) {
      assert.equal(code({ headers: ['Host', host] }), null, host);
    }
    for (const type of ['application/json', 'Application/JSON; charset=utf-8', 'application/json;charset="UTF-8"']) {
      assert.equal(code({ method: 'PUT', headers: ['host', 'localhost', 'content-type', type] }), null, type);
    }
    assert.equal(code({ method: 'DELETE', headers: json }), null);
    assert.equal(
      code({ headers: ['Host', 'localhost:7900', 'Origin', 'http://localhost:7900', 'Sec-Fetch-Site', 'same-origin'] }),
      null,
    );
    assert.equal(
      code({ headers: ['Host', '10.0.0.5:7900'], localAddress: '::ffff:10.0.0.5' }),
      null,
      'the address that the client connected to',
    );
  });

  const refused: readonly [string, string, Partial<GuardFacts> & { headers?: readonly string[] }][] = [
    ['a rebound name', 'HOST_NOT_ALLOWED', { headers: ['Host', 'evil.example'] }],
    ['a name below an allowed one', 'HOST_NOT_ALLOWED', { headers: ['Host', 'localhost.evil.example'] }],
    ['an address of another host', 'HOST_NOT_ALLOWED', { headers: ['Host', '10.0.0.5'] }],
    ['an address on a unix socket', 'HOST_NOT_ALLOWED', { headers: ['Host', '10.0.0.5'], localAddress: undefined }],
    ['the unspecified address, though we listen on it', 'HOST_NOT_ALLOWED', { headers: ['Host', '0.0.0.0:7900'] }],
    ['the same in IPv6', 'HOST_NOT_ALLOWED', { headers: ['Host', '[::]:7900'] }],
    ['no Host', 'BAD_REQUEST', { headers: [] }],
    ['two Hosts', 'BAD_REQUEST', { headers: ['Host', 'localhost', 'hOST', 'localhost'] }],
    ['an empty Host', 'BAD_REQUEST', { headers: ['Host', ''] }],
    ['a list of Hosts', 'BAD_REQUEST', { headers: ['Host', 'localhost, evil'] }],
    ['a Host with a path', 'BAD_REQUEST', { headers: ['Host', 'localhost/evil'] }],
    ['a Host with user info', 'BAD_REQUEST', { headers: ['Host', 'a@localhost'] }],
    ['a Host with a bad port', 'BAD_REQUEST', { headers: ['Host', 'localhost:99999'] }],
    ['a Host in another spelling of loopback', 'BAD_REQUEST', { headers: ['Host', '127.1'] }],
    ['a foreign origin', 'ORIGIN_NOT_ALLOWED', { headers: ['Host', 'localhost', 'Origin', 'http://evil.example'] }],
    [
      'an origin of another port',
      'ORIGIN_NOT_ALLOWED',
      { headers: ['Host', 'localhost:7900', 'Origin', 'http://localhost:3000'] },
    ],
    ['a null origin', 'ORIGIN_NOT_ALLOWED', { headers: ['Host', 'localhost', 'Origin', 'null'] }],
    [
      'a second, foreign origin',
      'ORIGIN_NOT_ALLOWED',
      { headers: ['Host', 'localhost', 'Origin', 'http://localhost', 'origin', 'http://evil'] },
    ],
    ['a cross-site fetch', 'ORIGIN_NOT_ALLOWED', { headers: ['Host', 'localhost', 'Sec-Fetch-Site', 'cross-site'] }],
    [
      'a same-site fetch of another port',
      'ORIGIN_NOT_ALLOWED',
      { headers: ['Host', 'localhost', 'Sec-Fetch-Site', 'same-site'] },
    ],
    ['OPTIONS (no preflight is granted)', 'METHOD_NOT_ALLOWED', { method: 'OPTIONS' }],
    ['TRACE', 'METHOD_NOT_ALLOWED', { method: 'TRACE' }],
    ['PATCH', 'METHOD_NOT_ALLOWED', { method: 'PATCH' }],
    ['a method of WebDAV', 'METHOD_NOT_ALLOWED', { method: 'PROPFIND' }],
    ['an absolute target', 'BAD_REQUEST', { target: 'http://evil.example/v1/sources' }],
    ['an asterisk', 'BAD_REQUEST', { target: '*' }],
    ['a fragment', 'BAD_REQUEST', { target: '/v1/sources#x' }],
    ['a control character', 'BAD_REQUEST', { target: '/v1/\u0001' }],
    ['an 8-bit character', 'BAD_REQUEST', { target: '/v1/\u00e4' }],
    ['POST without a content type', 'CONTENT_TYPE', { method: 'POST', headers: ['Host', 'localhost'] }],
    [
      'POST as a form',
      'CONTENT_TYPE',
      { method: 'POST', headers: ['Host', 'localhost', 'content-type', 'application/x-www-form-urlencoded'] },
    ],
    [
      'POST as text',
      'CONTENT_TYPE',
      { method: 'POST', headers: ['Host', 'localhost', 'content-type', 'text/plain;application/json'] },
    ],
    [
      'POST as multipart',
      'CONTENT_TYPE',
      { method: 'POST', headers: ['Host', 'localhost', 'content-type', 'multipart/form-data; boundary=x'] },
    ],
    ['two content types', 'CONTENT_TYPE', { method: 'POST', headers: [...json, 'content-type', 'text/plain'] }],
    [
      'JSON in another charset',
      'CONTENT_TYPE',
      { method: 'PUT', headers: ['Host', 'localhost', 'content-type', 'application/json; charset=utf-7'] },
    ],
    ['a compressed body', 'CONTENT_TYPE', { method: 'PUT', headers: [...json, 'content-encoding', 'gzip'] }],
    ['DELETE without a content type', 'CONTENT_TYPE', { method: 'DELETE', headers: ['Host', 'localhost'] }],
    ['GET with a body', 'BAD_REQUEST', { headers: ['Host', 'localhost', 'Content-Length', '5'] }],
    ['GET with a chunked body', 'BAD_REQUEST', { headers: ['Host', 'localhost', 'Transfer-Encoding', 'chunked'] }],
  ];
  for (const [what, expected, facts] of refused) it(`refuses ${what}`, () => assert.equal(code(facts), expected));

  it('reads a Host field strictly', () => {
    assert.equal(hostOfField('Example.COM.:80'), 'example.com');
    assert.equal(hostOfField('[::ffff:127.0.0.1]'), '127.0.0.1');
    for (const field of ['', ':80', 'a:', 'a:0', 'a b', '[::1', '::1', '0x7f.1', `${'a'.repeat(256)}`])
      assert.equal(hostOfField(field), null, field);
  });
});
