import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChunkedDecoder, chunkStart, lastChunk } from './chunked.ts';
import { internName } from './fields.ts';

interface Decoded {
  body: string;
  status: number;
  done: boolean;
  rest: string;
  trailers: string[];
}

function decode(text: string, size = text.length || 1): Decoded {
  const decoder = new ChunkedDecoder();
  let body = '';
  for (let at = 0; at < text.length; at += size) {
    const piece = Buffer.from(text.slice(at, at + size), 'latin1');
    const next = decoder.decode(piece, 0, piece.length);
    body += piece.toString('latin1', decoder.bodyStart, decoder.bodyEnd);
    if (decoder.done || decoder.refusal !== null) {
      const trailers = decoder.trailers?.names.map((name, i) => `${name.text}=${decoder.trailers?.values[i]}`) ?? [];
      const rest = decoder.done ? text.slice(at + next) : '';
      return { body, status: decoder.refusal?.status ?? 0, done: decoder.done, rest, trailers };
    }
  }
  return { body, status: 0, done: false, rest: '', trailers: [] };
}

function outcome(text: string): number | string {
  const { status, done } = decode(text);
  return status !== 0 ? status : done ? 'done' : 'more';
}

test('chunks of one buffer come out as one range, and what follows the body is left', () => {
  assert.deepEqual(decode('2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nGET'), {
    body: 'hello',
    status: 0,
    done: true,
    rest: 'GET',
    trailers: [],
  });
  assert.deepEqual(decode('0\r\nA: b\r\nC:d\r\n\r\nX'), { body: '', status: 0, done: true, rest: 'X', trailers: ['A=b', 'C=d'] });
});

test('every size of piece gives the same body, end, trailers and refusal', () => {
  for (const text of [
    '2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n',
    '1\r\na\r\n'.repeat(50),
    '5\r\nhello\r\n0\r\n\r\n',
    '5\r\nhelloX',
    '2\r\nab\r\n0\r\nContent-Length: 5\r\n\r\n',
  ]) {
    const whole = decode(text);
    for (const size of [1, 2, 3, 7])
      assert.deepEqual({ ...decode(text, size), rest: '' }, { ...whole, rest: '' }, `${text} by ${size}`);
  }
});

test('the digits of a size are 1 to 13, leading zeros count', () => {
  assert.equal(outcome('0000000000000\r\n\r\n'), 'done');
  assert.equal(outcome('00000000000000\r\n\r\n'), 400);
  assert.equal(outcome('fffffffffffff\r\n'), 'more');
  assert.equal(outcome('10000000000000\r\n'), 400);
});

test('extensions are dropped up to 256 bytes a chunk, semicolon included', () => {
  assert.equal(outcome(`1;${'a'.repeat(255)}\r\nx\r\n0\r\n\r\n`), 'done');
  assert.equal(outcome(`1;${'a'.repeat(256)}\r\nx\r\n0\r\n\r\n`), 413);
  assert.equal(outcome('1;a;b=c;d="x;\\"y"\r\nx\r\n0;z\r\n\r\n'), 'done');
  for (const bad of [
    '1 \r\n',
    '1; a\r\n',
    '1;\r\n',
    '1;a=\r\n',
    '1;a="b\r\n',
    '1;a="b"c\r\n',
    '1;a=b=c\r\n',
    '1;;a\r\n',
    '1;a\n',
  ])
    assert.equal(outcome(bad), 400, bad);
});

test('framing above 64 KiB and above 8 times the body is refused with 413; either alone passes', () => {
  const wide = `1;${'a'.repeat(250)}\r\nx\r\n`;
  const frames = Math.floor(65_536 / (wide.length - 1));
  assert.equal(outcome(wide.repeat(frames - 1)), 'more');
  assert.equal(outcome(wide.repeat(frames + 2)), 413);
  const useful = `800;${'a'.repeat(250)}\r\n${'x'.repeat(0x800)}\r\n`;
  assert.equal(outcome(useful.repeat(1_000)), 'more');
});

test('16 trailer fields pass, 17 do not; 4 KiB pass, one byte more does not', () => {
  assert.equal(outcome(`0\r\n${'a: b\r\n'.repeat(16)}\r\n`), 'done');
  assert.equal(outcome(`0\r\n${'a: b\r\n'.repeat(17)}\r\n`), 431);
  const line = (bytes: number): string => `0\r\na: ${'b'.repeat(bytes - 3 - 4)}\r\n\r\n`;
  assert.equal(outcome(line(4_096)), 'done');
  assert.equal(outcome(line(4_097)), 431);
});

test('a decoder that was reset knows nothing of the body before', () => {
  const decoder = new ChunkedDecoder();
  for (const text of ['zz', '3\r\nab', '0\r\nA: b\r\n\r\n', '0\r\nA: ']) {
    decoder.reset();
    decoder.decode(Buffer.from(text), 0, text.length);
  }
  decoder.reset();
  assert.deepEqual([decoder.done, decoder.refusal, decoder.trailers], [false, null, null]);
  const buffer = Buffer.from('1\r\nx\r\n0\r\n\r\n');
  assert.equal(decoder.decode(buffer, 0, buffer.length), buffer.length);
  assert.equal(decoder.done, true);
});

test('what the encoder writes the decoder reads back', () => {
  const trailers = { names: [internName('A'), internName('grpc-status')], values: ['x y', ''] };
  const text = `${chunkStart(26)}${'z'.repeat(26)}\r\n${lastChunk(trailers)}`;
  assert.deepEqual(decode(text), { body: 'z'.repeat(26), status: 0, done: true, rest: '', trailers: ['A=x y', 'grpc-status='] });
  assert.equal(lastChunk(null), '0\r\n\r\n');
  assert.equal(lastChunk({ names: [], values: [] }), '0\r\n\r\n');
});
