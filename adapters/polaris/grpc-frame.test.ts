// Messages come out as they went in, however the bytes are cut.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FrameFault, FrameReader, framed } from './grpc-frame.ts';

function read(reader: FrameReader, chunk: Buffer): string[] {
  const out: string[] = [];
  reader.push(chunk, (message) => out.push(message.toString('hex')));
  return out;
}

describe('gRPC frames', () => {
  it('a frame is flag 0, four bytes of length, the message', () => {
    assert.equal(framed([Buffer.from('abc'), Buffer.alloc(0)]).toString('hex'), '00000000036162630000000000');
  });

  it('messages are read whole, in order and once, however their bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 40 }),
        (messages, cuts) => {
          const bytes = framed(messages);
          const reader = new FrameReader(1_000);
          const out: string[] = [];
          let at = 0;
          for (const cut of [...cuts, bytes.length + 1]) {
            if (at >= bytes.length) break;
            out.push(...read(reader, bytes.subarray(at, at + cut)));
            at += cut;
          }
          assert.deepEqual(
            out,
            messages.map((message) => Buffer.from(message).toString('hex')),
          );
        },
      ),
    );
  });

  it('a message over the limit is refused by its head, before its bytes are kept', () => {
    const reader = new FrameReader(10);
    assert.deepEqual(read(reader, framed([Buffer.alloc(10)])), ['00'.repeat(10)]);
    const isTooLarge = (thrown: unknown): boolean => thrown instanceof FrameFault && thrown.kind === 'tooLarge';
    assert.throws(() => read(reader, Buffer.from('000000000b', 'hex')), isTooLarge);
  });

  it('a compressed message and text are no gRPC', () => {
    for (const hex of ['0100000000', Buffer.from('HTTP/1.1 400').toString('hex')]) {
      const isMalformed = (thrown: unknown): boolean => thrown instanceof FrameFault && thrown.kind === 'malformed';
      assert.throws(() => read(new FrameReader(10), Buffer.from(hex, 'hex')), isMalformed);
    }
  });
});
