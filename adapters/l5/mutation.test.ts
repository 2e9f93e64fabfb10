// Generated payloads through framing, decoding and mapping: every one is taken or refused in words, nothing crashes, memory is bounded.
// WEIR_MUTATIONS sets how many (100,000 before a release), WEIR_SEED another seed.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Random, randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { foreignProtocol } from './errors.ts';
import { FakeL5Store } from './fake-store.ts';
import { decodeRequest, encodeAnswer } from './fake-wire.ts';
import { FrameFault, FrameReader, frame } from './frame.ts';
import { snapshotOf, statesOf } from './mapping.ts';
import { decodeAnswer } from './messages.ts';
import { parseSid } from './sid.ts';
import { ANSWERS, bytes, V1, V3 } from './vectors.ts';
import { WireFault } from './wire.ts';

const COUNT = Number(process.env['WEIR_MUTATIONS'] ?? 5_000);
const SEED = Number(process.env['WEIR_SEED'] ?? 20_250_607);
const MAX = 65_536;
const INTERESTING = [0, 1, 0x0a, 0x1a, 0x7f, 0x80, 0xff, 0x5a, 0x7a, 0x08, 0x10, 0x0b, 0x0c];

function mutant(corpus: readonly Buffer[], random: Random): Buffer {
  let out = Buffer.from(corpus[randomBelow(random, corpus.length)] ?? Buffer.alloc(0));
  for (let n = 1 + randomBelow(random, 4); n > 0; n--) out = once(out, corpus, random);
  return out;
}

function once(bytes: Buffer, corpus: readonly Buffer[], random: Random): Buffer<ArrayBuffer> {
  const at = randomBelow(random, Math.max(1, bytes.length));
  const byte = Buffer.from([INTERESTING[randomBelow(random, INTERESTING.length)] ?? 0]);
  const end = Math.min(bytes.length, at + randomBelow(random, 12));
  switch (randomBelow(random, 7)) {
    case 0:
      return Buffer.concat([bytes.subarray(0, at), byte, bytes.subarray(at + 1)]);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), byte, bytes.subarray(at)]);
    case 2:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 3:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at, end), bytes.subarray(end)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at), corpus[randomBelow(random, corpus.length)] ?? byte]);
    case 5: {
      // The head says what is true again, so that the body is looked at.
      const copy = Buffer.from(bytes);
      if (copy.length > 6) copy.writeUInt32LE(copy.length, 2);
      return copy;
    }
    default: {
      const copy = Buffer.from(bytes);
      if (copy.length > 0) copy[at] = (copy[at] ?? 0) ^ (1 << randomBelow(random, 8));
      return copy;
    }
  }
}

/** Answers as servers make them, of any size and content. */
function generated(random: Random): Buffer {
  const store = new FakeL5Store();
  const sids = Array.from({ length: randomBelow(random, 4) }, (_, n) => `${n}:${randomBelow(random, 3)}`);
  for (const sid of sids) {
    const instances = Array.from({ length: randomBelow(random, 5) }, () => ({
      host: Array.from({ length: 4 }, () => randomBelow(random, 300)).join('.'),
      port: randomBelow(random, 70_000) - 1_000,
      weight: randomBelow(random, 400) - 100,
    }));
    store.put(sid, instances, { name: random() < 0.5 ? '__proto__' : '' });
  }
  const asked = sids.map((sid) => [parseSid(sid)?.modid ?? 0, parseSid(sid)?.cmdid ?? 0] as const);
  const request = { seqno: 7, cmd: 100, ip: -1, agentIp: -1, syncFlow: 1, sids: asked, names: [] };
  return frame(encodeAnswer(store.answer(request, random) ?? assert.fail()));
}

/** 'taken' or the class of the refusal; anything else is thrown on. */
function through(bytes: Buffer, random: Random): string {
  const reader = new FrameReader(MAX);
  const asked = [
    { modid: 192_002_625, cmdid: 487_373 },
    { modid: 0, cmdid: 0 },
  ];
  try {
    foreignProtocol(bytes.subarray(0, 16));
    for (let at = 0; at < bytes.length; ) {
      const end = at + 1 + randomBelow(random, bytes.length);
      reader.push(bytes.subarray(at, end), (body) => {
        const { sync } = decodeAnswer(body);
        if (sync === null) return;
        for (const state of statesOf(sync, asked).states.values()) {
          const snapshot = snapshotOf(state, true, {
            dial: () => null,
            normalWeight: 100,
            protocols: new Map(),
            count: () => {},
          });
          assert.ok(snapshot.kind === 'present');
          for (const { weight, id } of snapshot.instances) assert.ok(weight > 0 && weight <= 65_535 && id.length < 60);
        }
      });
      assert.ok(reader.capacity <= MAX + 2 * bytes.length, `${reader.capacity} bytes held`);
      at = end;
    }
    return 'taken';
  } catch (thrown) {
    if (thrown instanceof FrameFault || thrown instanceof WireFault) return thrown.name;
    throw new Error(`crash on ${bytes.toString('hex')}`, { cause: thrown });
  }
}

describe(`${COUNT} generated payloads (seed ${SEED})`, () => {
  it('answers are taken or refused in words', { timeout: 3_600_000 }, () => {
    const random = seededRandom(SEED);
    const outcomes = new Map<string, number>();
    for (let n = 0; n < COUNT; n++) {
      const fresh = random() < 0.2 ? [generated(random)] : ANSWERS.map(bytes);
      const outcome = through(mutant(fresh, random), random);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    // A run in which one way is hardly taken would prove little.
    for (const outcome of ['taken', 'FrameFault', 'WireFault']) {
      assert.ok((outcomes.get(outcome) ?? 0) > COUNT / 50, `${outcome}: ${outcomes.get(outcome) ?? 0} of ${COUNT}`);
    }
  });

  it('requests are taken or refused by the fake', { timeout: 3_600_000 }, () => {
    const random = seededRandom(SEED + 1);
    for (let n = 0; n < COUNT; n++) {
      const bytesOf = mutant([bytes(V1).subarray(6), bytes(V3).subarray(6)], random);
      try {
        decodeRequest(bytesOf);
      } catch (thrown) {
        assert.ok(thrown instanceof WireFault, String(thrown));
      }
    }
  });
});
