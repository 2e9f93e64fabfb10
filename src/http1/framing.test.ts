import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Framing, frameRequest, frameResponse, interimFault, keepAliveHint } from './framing.ts';
import { parseRequestHead, parseResponseHead } from './head.ts';

const framing = new Framing();

function frame(fields: string, line = 'POST / HTTP/1.1') {
  const text = `${line}\r\nHost: h\r\n${fields}`;
  const head = parseRequestHead(`${text}\r\n`, text.length - 2);
  assert.ok(!head.refused);
  const refusal = frameRequest(head, framing);
  return refusal === null ? [framing.kind, framing.length, framing.keepAlive, framing.expectContinue] : refusal.status;
}

function reply(fields: string, line = 'HTTP/1.1 200 OK', method = 'GET') {
  const text = `${line}\r\n${fields}`;
  const head = parseResponseHead(`${text}\r\n`, text.length - 2);
  assert.ok(!head.refused);
  const refusal = frameResponse(head, method, framing);
  return refusal === null ? [framing.kind, framing.length, framing.keepAlive] : refusal.status;
}

test('requests: the table of framing and persistence', () => {
  const rows: [string, string, unknown][] = [
    ['', '1', ['none', -1, true, false]],
    ['', '0', ['none', -1, false, false]],
    ['Connection: keep-alive\r\n', '0', ['none', -1, true, false]],
    ['Connection: close\r\n', '1', ['none', -1, false, false]],
    ['Connection: keep-alive, close\r\n', '1', ['none', -1, false, false]],
    ['Connection: keep-alive\r\nConnection: Close\r\n', '0', ['none', -1, false, false]],
    ['Content-Length: 0\r\n', '1', ['length', 0, true, false]],
    ['Content-Length: 999999999999999\r\n', '1', ['length', 999_999_999_999_999, true, false]],
    ['Content-Length: 1000000000000000\r\n', '1', 400],
    ['Transfer-Encoding: chunked\r\n', '1', ['chunked', -1, true, false]],
    ['Transfer-Encoding: ChUnKeD\r\n', '1', ['chunked', -1, true, false]],
    ['Transfer-Encoding: chunked\r\n', '0', 400],
    ['Transfer-Encoding: gzip, chunked\r\n', '1', 501],
    ['Transfer-Encoding: chunked, chunked\r\n', '1', 400],
    ['Transfer-Encoding: gzip\r\n', '1', 400],
    ['Content-Length: 1\r\nTransfer-Encoding: chunked\r\n', '1', 400],
    ['Content-Length: 1\r\nContent-Length: 1\r\n', '1', 400],
    ['Connection: host\r\n', '1', 400],
    ['Connection: x-foo, Content-Length\r\n', '1', 400],
    ['Connection: a b\r\n', '1', 400],
    ['Expect: 100-continue\r\nContent-Length: 1\r\n', '1', ['length', 1, true, true]],
    ['Expect: 100-continue\r\nContent-Length: 1\r\n', '0', ['length', 1, false, false]],
    ['Expect: 100-continue\r\nContent-Length: 0\r\n', '1', ['length', 0, true, false]],
    ['Expect: 100-continue\r\n', '1', ['none', -1, true, false]],
    ['Expect: other\r\n', '1', 417],
    ['Expect: 100-continue, other\r\n', '1', 417],
  ];
  for (const [fields, minor, expected] of rows)
    assert.deepEqual(frame(fields, `POST / HTTP/1.${minor}`), expected, `${fields} on 1.${minor}`);
});

test('responses: the table of framing and persistence', () => {
  const rows: [string, string, string, unknown][] = [
    ['', 'HTTP/1.1 200 OK', 'GET', ['close', -1, false]],
    ['', 'HTTP/1.0 200 OK', 'GET', ['close', -1, false]],
    ['Connection: keep-alive\r\n', 'HTTP/1.1 200 OK', 'GET', ['close', -1, false]],
    ['Content-Length: 5\r\n', 'HTTP/1.1 200 OK', 'GET', ['length', 5, true]],
    ['Content-Length: 5\r\n', 'HTTP/1.0 200 OK', 'GET', ['length', 5, false]],
    ['Content-Length: 5\r\nConnection: keep-alive\r\n', 'HTTP/1.0 200 OK', 'GET', ['length', 5, true]],
    ['Content-Length: 5\r\nConnection: close\r\n', 'HTTP/1.1 200 OK', 'GET', ['length', 5, false]],
    ['Transfer-Encoding: chunked\r\n', 'HTTP/1.1 200 OK', 'GET', ['chunked', -1, true]],
    ['Content-Length: 5\r\n', 'HTTP/1.1 200 OK', 'HEAD', ['none', -1, true]],
    ['Transfer-Encoding: chunked\r\n', 'HTTP/1.1 200 OK', 'HEAD', ['none', -1, true]],
    ['', 'HTTP/1.1 200 OK', 'HEAD', ['none', -1, true]],
    ['Content-Length: 5\r\n', 'HTTP/1.1 304 Not Modified', 'GET', ['none', -1, true]],
    ['', 'HTTP/1.1 304 Not Modified', 'GET', ['none', -1, true]],
    ['', 'HTTP/1.1 204 No Content', 'GET', ['none', -1, true]],
    ['Content-Length: 0\r\n', 'HTTP/1.1 204 No Content', 'GET', ['none', -1, true]],
    ['Content-Length: 5\r\n', 'HTTP/1.1 204 No Content', 'GET', ['none', -1, false]],
    ['Transfer-Encoding: chunked\r\n', 'HTTP/1.1 204 No Content', 'GET', ['none', -1, false]],
    ['Transfer-Encoding: chunked\r\n', 'HTTP/1.0 200 OK', 'GET', 502],
    ['Transfer-Encoding: gzip, chunked\r\n', 'HTTP/1.1 200 OK', 'GET', 502],
    ['Content-Length: 5, 5\r\n', 'HTTP/1.1 200 OK', 'GET', 502],
    ['Content-Length: 5, 5\r\n', 'HTTP/1.1 200 OK', 'HEAD', 502],
    ['Connection: transfer-encoding\r\n', 'HTTP/1.1 200 OK', 'GET', 502],
  ];
  for (const [fields, line, method, expected] of rows)
    assert.deepEqual(reply(fields, line, method), expected, `${method} ${line} ${fields}`);
});

test('a framing is filled anew for each message', () => {
  frame('Expect: 100-continue\r\nContent-Length: 7\r\nConnection: close\r\n');
  assert.deepEqual(frame(''), ['none', -1, true, false]);
});

test('informational responses that could mean two things are refused', () => {
  const fault = (text: string): number => {
    const head = parseResponseHead(`${text}\r\n\r\n`, text.length);
    assert.ok(!head.refused);
    return interimFault(head)?.status ?? 0;
  };
  assert.equal(fault('HTTP/1.1 103 E\r\nLink: x'), 0);
  assert.equal(fault('HTTP/1.1 101 S\r\nConnection: upgrade'), 0);
  for (const bad of [
    'HTTP/1.0 103 E',
    'HTTP/1.1 103 E\r\nConnection: x, close',
    'HTTP/1.1 100 C\r\nContent-Length: 0',
    'HTTP/1.1 103 E\r\nTransfer-Encoding: chunked',
  ]) {
    assert.equal(fault(bad), 502, bad);
  }
});

test('the keep-alive hint is the timeout parameter in whole seconds', () => {
  const hint = (value: string): number => {
    const text = `HTTP/1.1 200 OK\r\nKeep-Alive: ${value}`;
    const head = parseResponseHead(`${text}\r\n\r\n`, text.length);
    assert.ok(!head.refused);
    return keepAliveHint(head.names, head.values);
  };
  assert.deepEqual(
    ['timeout=5', 'max=3, timeout=15', 'Timeout = "7"', 'max=3', 'xtimeout=5', 'timeout=', ''].map(hint),
    [5, 15, 7, -1, -1, -1, -1],
  );
});
