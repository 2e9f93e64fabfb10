// Cutting a stream into frames: any split, bad heads, bounded memory.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FrameFault, FrameReader, frame } from './frame.ts';
import { ANSWERS, BAD_HEADS, bytes, V2, V5 } from './vectors.ts';

const MAX = 16 * 1024 * 1024;

function cut(reader: FrameReader, chunks: readonly Buffer[]): string[] {
  const bodies: string[] = [];
  for (const chunk of chunks) reader.push(chunk, (body) => bodies.push(body.toString('hex')));
  return bodies;
}

describe('frames', () => {
  it('any split of any answers gives the same bodies', () => {
    const whole = Buffer.concat(ANSWERS.map(bytes));
    const want = ANSWERS.map((hex) => hex.slice(12));
    assert.deepEqual(cut(new FrameReader(MAX), [whole]), want);
    assert.deepEqual(
      cut(
        new FrameReader(MAX),
        [...whole].map((byte) => Buffer.from([byte])),
      ),
      want,
    );
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: whole.length - 1 }), { maxLength: 20 }), (cuts) => {
        const places = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
        const chunks = places.slice(1).map((end, n) => whole.subarray(places[n], end));
        assert.deepEqual(cut(new FrameReader(MAX), chunks), want);
      }),
    );
  });

  it('the mark in front of the length may be anything', () => {
    for (const soh of [0, 1, 0xffff]) {
      const odd = bytes(V5);
      odd.writeUInt16LE(soh, 0);
      assert.deepEqual(cut(new FrameReader(MAX), [odd]), [V5.slice(12)]);
    }
  });

  for (const hex of [...BAD_HEADS, '010001000001']) {
    it(`the head ${hex} is refused before anything is allocated`, () => {
      const reader = new FrameReader(MAX);
      assert.throws(() => cut(reader, [bytes(hex)]), FrameFault);
      assert.ok(reader.capacity < 100);
    });
  }

  it('a big-endian head is named as such', () => {
    const big = bytes(V2);
    big.writeUInt32BE(big.length, 2);
    assert.throws(() => cut(new FrameReader(MAX), [big]), /big-endian/);
  });

  it('only a length over the limit is a matter of the limit', () => {
    const tooLarge = (hex: string): boolean => {
      try {
        cut(new FrameReader(1_000), [bytes(hex)]);
      } catch (thrown) {
        return thrown instanceof FrameFault && thrown.tooLarge;
      }
      return false;
    };
    assert.deepEqual(['0100e9030000', '010006000000', '0100e8030000'].map(tooLarge), [true, false, false]);
  });

  it('an announced length costs nothing until the bytes come, and a large buffer is given back', () => {
    const reader = new FrameReader(MAX);
    reader.push(bytes('010000000001'), () => assert.fail('nothing is whole'));
    assert.ok(reader.capacity < 100, `${reader.capacity}`);
    const chunk = Buffer.alloc(64 * 1024);
    let bodies = 0;
    for (let sent = 6; sent < MAX; sent += chunk.length) {
      reader.push(chunk.subarray(0, MAX - sent), () => bodies++);
      assert.ok(reader.capacity <= Math.max(2 * sent + 2 * chunk.length, 100), `${reader.capacity} for ${sent}`);
      assert.ok(reader.capacity <= MAX + chunk.length);
    }
    assert.equal(bodies, 1);
    assert.equal(reader.capacity, 0);
  });

  it('an answer that comes byte by byte needs few buffers', () => {
    const reader = new FrameReader(MAX);
    const whole = frame(Buffer.alloc(200_000));
    let grown = 0;
    let before = 0;
    for (const byte of whole) {
      reader.push(Buffer.from([byte]), () => {});
      if (reader.capacity !== before) grown++;
      before = reader.capacity;
    }
    assert.ok(grown < 30, `${grown} buffers`);
  });
});
