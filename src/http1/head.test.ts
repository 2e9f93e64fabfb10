import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bareLineFeed, HEAD_LIMITS, parseRequestHead, parseResponseHead, parseTrailers } from './head.ts';
import { HeadReader } from './head-reader.ts';

/** `text` ends with the empty line. */
function request(text: string) {
  return parseRequestHead(text, text.length - 4);
}

function statusOf(result: { refused: boolean; status?: number }): number {
  return result.refused ? (result.status ?? -1) : 0;
}

test('a request head is its method, target, minor version, and fields in the order and case received', () => {
  const head = request('PUT /a?b=c HTTP/1.0\r\nHost: h:80\r\nB: 1\r\na:  x y \t\r\nB: 2\r\n\r\n');
  assert.ok(!head.refused);
  assert.deepEqual([head.method, head.target, head.minor], ['PUT', '/a?b=c', 0]);
  assert.deepEqual(
    head.names.map((name) => name.text),
    ['Host', 'B', 'a', 'B'],
  );
  assert.deepEqual(head.values, ['h:80', '1', 'x y', '2']);
});

test('a tab behind the value of a framing field is refused: other parsers read another end of the message', () => {
  for (const field of ['Content-Length: 5\t', 'Transfer-Encoding: chunked\t', 'transfer-encoding: chunked \t ']) {
    assert.equal(statusOf(request(`POST / HTTP/1.1\r\nHost: h\r\n${field}\r\n\r\n`)), 400, field);
    const response = `HTTP/1.1 200 OK\r\n${field}\r\n\r\n`;
    assert.equal(parseResponseHead(response, response.length - 4).refused, true, field);
  }
  assert.equal(statusOf(request('POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\t5 \r\n\r\n')), 0);
});

test('a method is a token of any kind but CONNECT; the request filter decides which go on', () => {
  for (const method of ['GET', 'TRACE', 'PURGE', 'get', 'M-SEARCH', 'GETX']) {
    const head = request(`${method} / HTTP/1.1\r\nHost: h\r\n\r\n`);
    assert.ok(!head.refused);
    assert.equal(head.method, method);
  }
  assert.equal(statusOf(request('CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n')), 403);
});

test('the caps of target and fields hold at -1, 0 and +1', () => {
  for (const [over, status] of [
    [-1, 0],
    [0, 0],
    [1, 414],
  ] as const) {
    const target = `/${'a'.repeat(HEAD_LIMITS.target - 1 + over)}`;
    assert.equal(statusOf(request(`GET ${target} HTTP/1.1\r\nHost: h\r\n\r\n`)), status, `target ${over}`);
  }
  for (const [over, status] of [
    [-1, 0],
    [0, 0],
    [1, 431],
  ] as const) {
    const fields = 'a: b\r\n'.repeat(HEAD_LIMITS.fields - 1 + over);
    assert.equal(statusOf(request(`GET / HTTP/1.1\r\nHost: h\r\n${fields}\r\n`)), status, `fields ${over}`);
  }
});

test('the fault that comes first in byte order is the one reported', () => {
  assert.equal(statusOf(request('GET / HTTP/3.0\r\nA b\r\n\r\n')), 505);
  assert.equal(statusOf(request(`GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(101)}bad line\r\n\r\n`)), 431);
  assert.equal(statusOf(request(`GET / HTTP/1.1\r\nbad line\r\n${'a: b\r\n'.repeat(101)}\r\n`)), 400);
});

test('a response head is its status, reason and minor version; a missing reason is empty', () => {
  for (const [line, status, reason] of [
    ['HTTP/1.1 200 OK', 200, 'OK'],
    ['HTTP/1.0 404 Not  Found\xe9', 404, 'Not  Found\xe9'],
    ['HTTP/1.1 599 ', 599, ''],
    ['HTTP/1.1 100', 100, ''],
  ] as const) {
    const head = parseResponseHead(`${line}\r\n\r\n`, line.length);
    assert.ok(!head.refused, line);
    assert.deepEqual([head.status, head.reason], [status, reason]);
  }
  for (const line of [
    'HTTP/1.1 600 X',
    'HTTP/1.1 099 X',
    'HTTP/1.1 20a X',
    'HTTP/1.1  200 OK',
    'HTTP/1.1 200OK',
    'http/1.1 200 OK',
    'HTTP/1.1 -10 X',
  ]) {
    assert.equal(parseResponseHead(`${line}\r\n\r\n`, line.length).refused, true, line);
  }
});

test('any refusal of a response has status 502', () => {
  const text = `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(101)}\r\n`;
  assert.equal(statusOf(parseResponseHead(text, text.length - 4)), 502);
});

test('trailers keep the field grammar and hold no framing field', () => {
  const good = parseTrailers('A: b\r\nC: d\r\n\r\n', 10);
  assert.ok(!('refused' in good));
  assert.deepEqual(good.values, ['b', 'd']);
  for (const line of ['Content-Length: 1', 'transfer-encoding: chunked', 'A b', ' A: b']) {
    assert.equal('refused' in parseTrailers(`${line}\r\n\r\n`, line.length), true, line);
  }
});

test('a bare LF is found wherever it stands', () => {
  assert.equal(bareLineFeed('a\r\nb\r\n', 0), -1);
  assert.equal(bareLineFeed('a\r\nb\nc', 0), 4);
  assert.equal(bareLineFeed('\n', 0), 0);
  assert.equal(bareLineFeed('a\nb\n', 2), 3);
});

/** Reads in pieces of `size`; returns what the reader made of it. */
function read(text: string, size: number, mayLead = true) {
  const reader = new HeadReader({ bytes: 64, fields: 10, target: 20 }, mayLead);
  const bytes = Buffer.from(text, 'latin1');
  for (let at = 0; at < bytes.length; at += size) {
    const end = Math.min(bytes.length, at + size);
    const next = reader.read(bytes, at, end);
    if (next !== -1) return { text: reader.text.slice(0, reader.end), next, fault: reader.fault };
  }
  return { text: '', next: -1, fault: reader.fault };
}

test('the cap of a head in bytes holds at -1, 0 and +1, however it comes', () => {
  for (const size of [1, 7, 1_000]) {
    for (const [over, fault] of [
      [-1, 'none'],
      [0, 'none'],
      [1, 'too-long'],
    ] as const) {
      const text = `GET / HTTP/1.1\r\n${'a'.repeat(64 + over - 20)}\r\n\r\n`;
      assert.equal(read(text, size).fault, fault, `pieces of ${size}, ${over}`);
    }
  }
});

test('the reader says where the head ends and leaves what follows alone', () => {
  for (const size of [1, 3, 1_000]) {
    assert.deepEqual(read('\r\nGET / X\r\n\r\nbody', size), { text: 'GET / X', next: 13, fault: 'none' });
    assert.equal(read('\r\n\r\nGET / X\r\n\r\n', size).fault, 'broken');
    assert.equal(read('GET / X\n\n', size).fault, 'broken');
    assert.equal(read('GET / X\r\n', size).next, -1);
  }
});

test('the reader never looks at bytes of the buffer behind the piece', () => {
  const buffer = Buffer.alloc(65_536, '\r\n');
  const reader = new HeadReader(HEAD_LIMITS, false);
  buffer.write('A'.repeat(3_000), 'latin1');
  assert.equal(reader.read(buffer, 0, 3_000), -1);
  assert.equal(reader.text, 'A'.repeat(3_000));
});

test('a reader holds no more than its cap', () => {
  const reader = new HeadReader(HEAD_LIMITS, true);
  const piece = Buffer.alloc(60_000, 'a');
  reader.read(piece, 0, piece.length);
  assert.equal(reader.text.length, HEAD_LIMITS.bytes);
  assert.equal(reader.fault, 'too-long');
});
