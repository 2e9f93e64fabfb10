// What we accept, node:http (strict) and undici accept and read alike: over the corpus and over seeded mutants of it.
// WEIR_MUTATIONS sets how many mutants (100,000 and more before a release); WEIR_SEED another seed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../src/kernel/random.ts';
import { REQUESTS, RESPONSES } from './corpus.ts';
import { compareRequest, compareResponse } from './differential.ts';
import { mutant, mutations } from './mutate.ts';

const seed = Number(process.env['WEIR_SEED'] ?? 20_261_124);

test('every request of the corpus that we accept is accepted and read alike by node:http', async () => {
  let accepted = 0;
  for (const { name, text, status } of REQUESTS) {
    const result = await compareRequest(Buffer.from(text, 'latin1'));
    assert.equal(result.fault, null, name);
    if (status === 0 && !text.includes('__proto__')) assert.ok(result.accepted > 0, `${name}: nothing was compared`);
    accepted += result.accepted;
  }
  assert.ok(accepted > 60, `${accepted} requests compared`);
});

test('every response of the corpus that we accept is accepted and read alike by undici', async () => {
  let accepted = 0;
  for (const { name, text, method = 'GET' } of RESPONSES) {
    const result = await compareResponse(Buffer.from(text, 'latin1'), method);
    assert.equal(result.fault, null, name);
    accepted += result.accepted;
  }
  assert.ok(accepted > 20, `${accepted} responses compared`);
});

test('mutated requests: what we accept, node:http accepts and reads alike', async (t) => {
  const random = seededRandom(seed);
  const corpus = REQUESTS.filter(({ text }) => text.length < 2_000).map(({ text }) => text);
  let accepted = 0;
  for (let n = 0; n < mutations(5_000); n++) {
    const text = mutant(corpus, random);
    const result = await compareRequest(Buffer.from(text, 'latin1'));
    assert.equal(result.fault, null, `seed ${seed}, mutant ${n}: ${JSON.stringify(text)}`);
    accepted += result.accepted;
  }
  t.diagnostic(`${accepted} requests compared`);
  assert.ok(accepted > mutations(5_000) / 20, `${accepted} requests compared`);
});

test('mutated responses: what we accept, undici accepts and reads alike', async (t) => {
  const random = seededRandom(seed + 1);
  const corpus = RESPONSES.filter(({ text }) => text.length < 2_000).map(({ text }) => text);
  let accepted = 0;
  for (let n = 0; n < mutations(5_000); n++) {
    const text = mutant(corpus, random);
    const method = n % 10 === 0 ? 'HEAD' : 'GET';
    const result = await compareResponse(Buffer.from(text, 'latin1'), method);
    assert.equal(result.fault, null, `seed ${seed}, mutant ${n}, ${method}: ${JSON.stringify(text)}`);
    accepted += result.accepted;
  }
  t.diagnostic(`${accepted} responses compared`);
  assert.ok(accepted > mutations(5_000) / 20, `${accepted} responses compared`);
});
