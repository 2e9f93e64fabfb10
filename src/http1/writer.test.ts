import assert from 'node:assert/strict';
import { test } from 'node:test';
import { internName } from './fields.ts';
import { contentLength, fieldLine, requestLine, safeField, statusLine, statusOf } from './writer.ts';

test('a status line has the registered reason, or the one given, or none', () => {
  assert.equal(statusLine(200), 'HTTP/1.1 200 OK\r\n');
  assert.equal(statusLine(200, 'OK'), 'HTTP/1.1 200 OK\r\n');
  assert.equal(statusLine(200, 'O'), 'HTTP/1.1 200 O\r\n');
  assert.equal(statusLine(200, ''), 'HTTP/1.1 200 \r\n');
  assert.equal(statusLine(200, 'Fine'), 'HTTP/1.1 200 Fine\r\n');
  assert.equal(statusLine(599), 'HTTP/1.1 599 \r\n');
  assert.equal(statusOf(statusLine(404)), 404);
});

test('lines of parsed parts are written as they are', () => {
  assert.equal(requestLine('GET', '/a?b'), 'GET /a?b HTTP/1.1\r\n');
  assert.equal(fieldLine(internName('X-Foo'), 'a b'), 'X-Foo: a b\r\n');
  assert.equal(contentLength(5), 'content-length: 5\r\n');
});

test('a name or value that could break out of its line is never written', () => {
  assert.equal(safeField('a', 'b'), 'a: b\r\n');
  for (const [name, value] of [
    ['a', 'b\r\nc: d'],
    ['a\r\nb', 'c'],
    ['a:', 'b'],
    ['', 'b'],
    ['a', 'b\0'],
    ['a', '\u4e2d'],
  ] as const) {
    assert.throws(() => safeField(name, value), RangeError, JSON.stringify([name, value]));
  }
});
