// Ways to cut bytes into pieces: byte by byte, two halves at every offset, and a few random ones; fewer for long inputs.
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';

/** Yields the ways; inputs above `limit` bytes are halved at some 60 offsets only, those at their ends among them. */
export function* splits(bytes: Buffer, limit: number): Generator<Buffer[]> {
  if (bytes.length <= limit) yield Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
  const step = bytes.length <= limit ? 1 : Math.ceil(bytes.length / 40);
  for (let at = 1; at < bytes.length; at += step) yield [bytes.subarray(0, at), bytes.subarray(at)];
  for (let at = Math.max(1, bytes.length - 10); at < bytes.length; at++) yield [bytes.subarray(0, at), bytes.subarray(at)];
  const random = seededRandom(bytes.length + 1);
  for (let n = 0; n < 4; n++) yield randomPieces(bytes, random);
}

/** Cuts at up to 20 random places. */
export function randomPieces(bytes: Buffer, random: () => number): Buffer[] {
  const cuts = Array.from({ length: randomBelow(random, 20) }, () => randomBelow(random, bytes.length + 1)).sort((a, b) => a - b);
  const pieces: Buffer[] = [];
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    if (cut > from) pieces.push(bytes.subarray(from, cut));
    from = cut;
  }
  return pieces;
}
