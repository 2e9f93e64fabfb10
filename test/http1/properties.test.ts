// Claims over all inputs: nothing but a refusal comes out of any bytes, heads come back as they were written, and the time spent
// grows with the input, not faster.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChunkedDecoder, chunkStart, lastChunk } from '../../src/http1/chunked.ts';
import { internName } from '../../src/http1/fields.ts';
import { Framing, frameRequest, frameResponse } from '../../src/http1/framing.ts';
import { parseRequestHead, parseResponseHead, parseTrailers } from '../../src/http1/head.ts';
import { fieldLine, requestLine, statusLine } from '../../src/http1/writer.ts';
import { REQUESTS, RESPONSES } from './corpus.ts';
import { runRequests, runResponse } from './record.ts';

const bytes = fc.uint8Array({ maxLength: 400 }).map((array) => Buffer.from(array));
/** Text made of pieces of the grammar, so that parsers are reached behind the first line. */
const grammar = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        'GET',
        ' ',
        '/',
        ' HTTP/1.1',
        '\r\n',
        '\n',
        '\r',
        'Host: h',
        ':',
        'Content-Length: 3',
        'Transfer-Encoding: chunked',
        '\r\n\r\n',
        '3',
        ';a="',
      ),
      fc.constantFrom(...REQUESTS.map(({ text }) => text.slice(0, 200)), ...RESPONSES.map(({ text }) => text.slice(0, 200))),
      fc.string({ unit: 'binary', maxLength: 6 }),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.from(parts.join(''), 'latin1'));
const anything = fc.oneof(bytes, grammar);

test('no bytes make a parser throw: a head or a refusal, nothing else', () => {
  const framing = new Framing();
  fc.assert(
    fc.property(anything, (input) => {
      const text = input.toString('latin1');
      const request = parseRequestHead(text);
      if (request.refused) assert.ok(request.status >= 400 && request.status <= 505 && request.reason.length > 0);
      else frameRequest(request, framing);
      const response = parseResponseHead(text);
      if (response.refused) assert.equal(response.status, 502);
      else frameResponse(response, 'GET', framing);
      parseTrailers(text);
      const decoder = new ChunkedDecoder();
      const next = decoder.decode(Buffer.from(input), 0, input.length);
      assert.ok(next >= 0 && next <= input.length && decoder.bodyEnd <= input.length && decoder.bodyStart <= decoder.bodyEnd);
    }),
    { numRuns: 3_000 },
  );
});

test('no bytes make a connection throw, and whatever is refused is answered and closed', async () => {
  await fc.assert(
    fc.asyncProperty(anything, async (input) => {
      const run = await runRequests([input]);
      if (run.refused !== 0) assert.equal(run.closed, true);
      assert.equal(run.written === '' || run.written.startsWith('HTTP/1.1 '), true);
      const response = await runResponse([input]);
      assert.equal(response.destroyed, true);
      assert.ok(response.failed !== null || response.response !== null);
    }),
    { numRuns: 500 },
  );
});

const token = fc
  .array(fc.constantFrom(..."!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"), { minLength: 1, maxLength: 20 })
  .map((chars) => chars.join(''))
  .filter((text) => !['host', 'content-length', 'transfer-encoding', 'connection', 'expect'].includes(text.toLowerCase()));
const inner = fc
  .array(
    fc.integer({ min: 0x20, max: 0xff }).filter((code) => code !== 0x7f),
    { maxLength: 40 },
  )
  .map((codes) => String.fromCharCode(...codes).trim());
const value = inner.map((text) => text.replace(/^[ \t]+|[ \t]+$/g, ''));
const fields = fc.array(fc.tuple(token, value), { maxLength: 20 });

test('a head that is written is read back the same', () => {
  fc.assert(
    fc.property(
      token.filter((text) => text !== 'CONNECT'),
      fields,
      fc.integer({ min: 200, max: 599 }),
      value,
      (method, list, status, reason) => {
        const lines = list.map(([name, text]) => fieldLine(internName(name), text)).join('');
        const requestText = `${requestLine(method, '/x?y')}Host: h\r\n${lines}\r\n`;
        const request = parseRequestHead(requestText, requestText.length - 4);
        assert.ok(!request.refused);
        assert.equal(request.method, method);
        assert.deepEqual(
          request.names.slice(1).map((name, i) => [name.text, request.values[i + 1]]),
          list,
        );
        const responseText = `${statusLine(status, reason)}${lines}\r\n`;
        const response = parseResponseHead(responseText, responseText.length - 4);
        assert.ok(!response.refused);
        assert.deepEqual([response.status, response.reason], [status, reason]);
        assert.deepEqual(
          response.names.map((name, i) => [name.text, response.values[i]]),
          list,
        );
      },
    ),
    { numRuns: 1_000 },
  );
});

test('a body that is encoded in any chunks and split anywhere is decoded the same', () => {
  const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 12 });
  fc.assert(
    fc.property(chunks, fc.array(fc.nat(3_000), { maxLength: 8 }), (list, cuts) => {
      const text =
        list.map((chunk) => `${chunkStart(chunk.length)}${Buffer.from(chunk).toString('latin1')}\r\n`).join('') + lastChunk(null);
      const wire = Buffer.from(text, 'latin1');
      const decoder = new ChunkedDecoder();
      let body = '';
      let from = 0;
      for (const cut of [...cuts.filter((at) => at < wire.length).sort((a, b) => a - b), wire.length]) {
        const piece = Buffer.from(wire.subarray(from, cut));
        decoder.decode(piece, 0, piece.length);
        body += piece.toString('latin1', decoder.bodyStart, decoder.bodyEnd);
        from = cut;
      }
      assert.equal(decoder.done, true);
      assert.equal(body, Buffer.concat(list).toString('latin1'));
    }),
    { numRuns: 1_000 },
  );
});

/** Least of several runs, so that a pause of the machine does not count. */
async function cost(run: () => Promise<unknown>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let n = 0; n < 5; n++) {
    const start = performance.now();
    await run();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

const START = 'POST / HTTP/1.1\r\nHost: h\r\n';
const CHUNKED = `${START}Transfer-Encoding: chunked\r\n\r\n`;
/** Floods that make a careless parser quadratic. */
const FLOODS: Readonly<Record<string, (size: number) => string>> = {
  'a: without end': (size) => START + 'a:'.repeat(size / 2),
  'a: lines': (size) => START + 'a:\r\n'.repeat(size / 4),
  'CR without end': (size) => START + '\r'.repeat(size),
  'empty lines': (size) => '\r\n'.repeat(size / 2),
  'spaces in a value': (size) => `${START}a: ${' '.repeat(size)}`,
  'one chunk extension': (size) => `${CHUNKED}5;${'a'.repeat(size)}`,
  'chunk extensions': (size) => CHUNKED + `5;${'a'.repeat(200)}\r\nhello\r\n`.repeat(size / 210),
  'tiny chunks': (size) => CHUNKED + '1\r\na\r\n'.repeat(size / 6),
  trailers: (size) => `${CHUNKED}0\r\n${'a: b\r\n'.repeat(size / 6)}`,
  'pipelined requests': (size) => 'GET / HTTP/1.1\r\nHost: h\r\n\r\n'.repeat(size / 27),
};

for (const [name, make] of Object.entries(FLOODS)) {
  test(`1 MiB of ${name} costs at most in proportion to 256 KiB of it`, async () => {
    const small = Buffer.from(make(262_144), 'latin1');
    const large = Buffer.from(make(1_048_576), 'latin1');
    const one = await cost(() => runRequests([small]));
    const four = await cost(() => runRequests([large]));
    assert.ok(four < 4 * one * 3 + 20, `${one.toFixed(2)} ms for 256 KiB, ${four.toFixed(2)} ms for 1 MiB`);
  });
}

test('a head of 16 KiB that comes byte by byte costs less than a second', async () => {
  const text = Buffer.from(`${START}a: ${'b'.repeat(16_000)}\r\n\r\n`, 'latin1');
  const pieces = Array.from(text, (_, i) => text.subarray(i, i + 1));
  const spent = await cost(() => runRequests(pieces));
  assert.ok(spent < 1_000, `${spent} ms`);
});
