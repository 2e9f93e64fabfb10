// The codec over the shared corpus: each case's outcome, and that no way of splitting the bytes changes it (http1.md rule 4).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REQUESTS, RESPONSES } from './corpus.ts';
import { runRequests, runResponse } from './record.ts';
import { splits } from './splits.ts';

const CR_CASE_LIMIT = 400;

for (const { name, text, status } of REQUESTS) {
  test(`request "${name}" is ${status === 0 ? 'accepted' : `refused with ${status}`}`, async () => {
    const run = await runRequests([Buffer.from(text, 'latin1')]);
    assert.equal(run.refused, status, run.reason);
    assert.equal(run.closed, status !== 0 || /close/.test(run.written), 'a refusal closes');
    if (status !== 0) {
      const last = run.written.slice(run.written.lastIndexOf(`HTTP/1.1 ${status}`));
      assert.match(last, new RegExp(`^HTTP/1.1 ${status} [^\r\n]+\r\n`));
      assert.match(last, /x-weir-error: BAD_REQUEST\r\nx-weir-attempts: 0\r\ncontent-length: \d+\r\nconnection: close\r\n\r\n/);
    }
  });
}

test('no split of the bytes of a request changes what is seen of it', async () => {
  for (const { name, text } of REQUESTS) {
    const bytes = Buffer.from(text, 'latin1');
    const whole = await runRequests([bytes]);
    for (const pieces of splits(bytes, CR_CASE_LIMIT)) {
      assert.deepEqual(await runRequests(pieces), whole, `${name}, split as ${pieces.map((piece) => piece.length)}`);
    }
  }
});

for (const { name, text, method = 'GET', outcome, reusable } of RESPONSES) {
  test(`response "${name}" to ${method} is ${outcome}${reusable ? ', socket reusable' : ''}`, async () => {
    const run = await runResponse([Buffer.from(text, 'latin1')], method);
    assert.equal(run.failed === null ? 'ok' : run.failed.cause, outcome, run.failed?.message);
    assert.equal(run.reusable, reusable);
    assert.equal(run.destroyed, true, 'after the end of the upstream nothing is left open');
    if (outcome === 'ok') assert.notEqual(run.response?.trailers, null);
  });
}

test('no split of the bytes of a response changes what is seen of it', async () => {
  for (const { name, text, method } of RESPONSES) {
    const bytes = Buffer.from(text, 'latin1');
    const whole = await runResponse([bytes], method);
    for (const pieces of splits(bytes, CR_CASE_LIMIT)) {
      const run = await runResponse(pieces, method);
      assert.deepEqual(run, whole, `${name}, split as ${pieces.map((piece) => piece.length)}`);
    }
  }
});
