// What is kept of a request's body, and how it is framed anew.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { internName } from '../http1/fields.ts';
import { KEPT_BYTES, RequestBody } from './request-body.ts';

function begun(kind: 'none' | 'length' | 'chunked', length = -1): RequestBody {
  const body = new RequestBody();
  body.begin(kind, length);
  return body;
}

test('no body: no framing field, nothing to send', () => {
  const body = begun('none');
  assert.deepEqual([body.exists, body.whole, body.framing, body.takeFirst(), body.tail], [false, true, '', null, '']);
});

test('an empty body keeps its length field', () => {
  const body = begun('length', 0);
  assert.deepEqual([body.exists, body.whole, body.framing], [false, true, 'content-length: 0\r\n']);
});

test('a sized body goes out as it came, again and again while it is kept', () => {
  const body = begun('length', 6);
  body.add(Buffer.from('abc'), false);
  body.add(Buffer.from('def'), false);
  body.end(null);
  for (let i = 0; i < 3; i++) assert.equal(body.takeFirst()?.toString(), 'abcdef');
  assert.deepEqual([body.framing, body.tail, body.replayable], ['content-length: 6\r\n', '', true]);
});

test('a chunked body that is whole goes out with its last chunk and trailers', () => {
  const body = begun('chunked');
  body.add(Buffer.alloc(16, 'a'), false);
  body.end({ names: [internName('Server-Timing')], values: ['t'] });
  assert.equal(body.takeFirst()?.toString(), `10\r\n${'a'.repeat(16)}\r\n0\r\nServer-Timing: t\r\n\r\n`);
});

test('a chunked body that is not whole goes out without an end, and pieces follow framed', () => {
  const body = begun('chunked');
  body.add(Buffer.from('ab'), false);
  assert.equal(body.takeFirst()?.toString(), '2\r\nab\r\n');
  assert.equal(body.framed(Buffer.from('c')).toString(), '1\r\nc\r\n');
  body.end(null);
  assert.equal(body.tail, '0\r\n\r\n');
});

test('64 KiB are kept; one byte more is let go once it is sent', () => {
  const body = begun('length', KEPT_BYTES + 1);
  body.add(Buffer.alloc(KEPT_BYTES), false);
  body.takeFirst();
  assert.deepEqual([body.replayable, body.held], [true, KEPT_BYTES]);
  body.add(Buffer.from('x'), true);
  assert.deepEqual([body.replayable, body.held, body.total], [false, 0, KEPT_BYTES + 1]);
});

test('before anything is sent more than 64 KiB stay whole for an unsent attempt', () => {
  const body = begun('length', KEPT_BYTES + 10);
  body.add(Buffer.alloc(KEPT_BYTES), false);
  body.add(Buffer.alloc(10), false);
  assert.equal(body.replayable, true);
  assert.equal(body.takeFirst()?.length, KEPT_BYTES + 10);
  assert.deepEqual([body.replayable, body.held], [false, 0]);
});

test('the next request starts anew', () => {
  const body = begun('chunked');
  body.add(Buffer.alloc(KEPT_BYTES + 1), true);
  body.begin('length', 1);
  assert.deepEqual([body.total, body.held, body.replayable, body.whole], [0, 0, true, false]);
});
