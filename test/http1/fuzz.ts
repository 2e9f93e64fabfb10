// npm run fuzz -- http1 [seconds] [seed]: mutants of the corpus through the codec, whole and split, against node:http and undici.
import assert from 'node:assert/strict';
import { seededRandom } from '../../src/kernel/random.ts';
import { REQUESTS, RESPONSES } from './corpus.ts';
import { compareRequest, compareResponse } from './differential.ts';
import { mutant } from './mutate.ts';
import { runRequests, runResponse } from './record.ts';
import { randomPieces } from './splits.ts';

const requests = REQUESTS.map(({ text }) => text);
const responses = RESPONSES.map(({ text }) => text);

/** Runs for the given time; throws on the first fault, with the input that showed it. The seed repeats the run. */
export async function fuzz(options: { seconds: number; seed: number }): Promise<void> {
  const random = seededRandom(options.seed);
  const end = performance.now() + options.seconds * 1_000;
  let inputs = 0;
  let compared = 0;
  while (performance.now() < end) {
    compared += await oneRequest(Buffer.from(mutant(requests, random), 'latin1'), random, inputs);
    const method = inputs % 8 === 0 ? 'HEAD' : 'GET';
    compared += await oneResponse(Buffer.from(mutant(responses, random), 'latin1'), method, random, inputs);
    inputs++;
  }
  console.log(`${inputs} requests and as many responses, ${compared} accepted and compared`);
}

async function oneRequest(bytes: Buffer, random: () => number, n: number): Promise<number> {
  const whole = await runRequests([bytes]);
  const pieces = randomPieces(bytes, random);
  assert.deepEqual(await runRequests(pieces), whole, `request ${n} split ${pieces.map((piece) => piece.length)}: ${show(bytes)}`);
  const { fault, accepted } = await compareRequest(bytes, whole);
  assert.equal(fault, null, `request ${n}: ${show(bytes)}`);
  return accepted;
}

async function oneResponse(bytes: Buffer, method: string, random: () => number, n: number): Promise<number> {
  const whole = await runResponse([bytes], method);
  const pieces = randomPieces(bytes, random);
  assert.deepEqual(
    await runResponse(pieces, method),
    whole,
    `response ${n} split ${pieces.map((piece) => piece.length)}: ${show(bytes)}`,
  );
  const { fault, accepted } = await compareResponse(bytes, method, whole);
  assert.equal(fault, null, `response ${n} to ${method}: ${show(bytes)}`);
  return accepted;
}

function show(bytes: Buffer): string {
  return JSON.stringify(bytes.toString('latin1').slice(0, 4_000));
}
