// Owns the framing of gRPC messages inside an HTTP/2 stream: one flag byte, four bytes of length, the message.
// Called by grpc-call.ts; must never keep more of a chunk than the message that it does not complete.

const HEAD = 5;
const COMPRESSED = 1;

/** What comes in is no gRPC message, or one over the limit. */
export class FrameFault extends Error {
  readonly kind: 'tooLarge' | 'malformed';

  constructor(kind: 'tooLarge' | 'malformed', message: string) {
    super(message);
    this.name = 'FrameFault';
    this.kind = kind;
  }
}

/** Messages with their heads, as one piece: one write costs a tenth of many. */
export function framed(messages: readonly Uint8Array[]): Buffer {
  const out = Buffer.allocUnsafe(messages.reduce((sum, { length }) => sum + HEAD + length, 0));
  let at = 0;
  for (const message of messages) {
    out[at] = 0;
    out.writeUInt32BE(message.length, at + 1);
    out.set(message, at + HEAD);
    at += HEAD + message.length;
  }
  return out;
}

export class FrameReader {
  readonly #maxBytes: number;
  /** Chunks of a message that is not whole yet. */
  #parts: Buffer[] = [];
  #held = 0;
  /** Bytes that the head and, once it is known, the message need. */
  #needed = HEAD;

  /** `maxBytes`: of one message. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Calls back with every message that is whole now (a view of the chunk: copy what you keep). Throws FrameFault. */
  push(chunk: Buffer, onMessage: (message: Buffer) => void): void {
    let bytes = chunk;
    if (this.#held > 0) {
      this.#parts.push(chunk);
      this.#held += chunk.length;
      // A message of 50 MiB comes in thousands of chunks: they are put together once.
      if (this.#held < this.#needed) return;
      bytes = Buffer.concat(this.#parts, this.#held);
      this.#parts = [];
      this.#held = 0;
    }
    let at = 0;
    this.#needed = HEAD;
    while (bytes.length - at >= HEAD) {
      this.#needed = HEAD + this.#lengthAt(bytes, at);
      if (bytes.length - at < this.#needed) break;
      onMessage(bytes.subarray(at + HEAD, at + this.#needed));
      at += this.#needed;
      this.#needed = HEAD;
    }
    if (at === bytes.length) return;
    this.#parts = [at === 0 ? bytes : bytes.subarray(at)];
    this.#held = bytes.length - at;
  }

  #lengthAt(bytes: Buffer, at: number): number {
    const flag = bytes[at] ?? 0;
    if (flag === COMPRESSED) throw new FrameFault('malformed', 'a compressed message that we did not ask for');
    if (flag !== 0) throw new FrameFault('malformed', `invalid content-type: no gRPC message begins with ${flag}`);
    const length = bytes.readUInt32BE(at + 1);
    if (length > this.#maxBytes) {
      throw new FrameFault('tooLarge', `Received message larger than max (${length} vs ${this.#maxBytes})`);
    }
    return length;
  }
}
