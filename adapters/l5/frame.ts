// Owns the 6-byte head around every message: u16 mark, u32 length that includes the head, both little-endian. Pure.
// Called by link.ts. Must never hold more than one answer of the largest allowed size, and never allocate by an announced length.

export const HEAD_BYTES = 6;
const SOH = 1;
/** A buffer that grew beyond this is given back as soon as it is empty. */
const KEEP_BYTES = 256 * 1024;

/** The bytes are no frame. `tooLarge`: they may be one, over the limit. */
export class FrameFault extends Error {
  readonly tooLarge: boolean;

  constructor(message: string, tooLarge: boolean) {
    super(message);
    this.name = 'FrameFault';
    this.tooLarge = tooLarge;
  }
}

/** A body with its head. */
export function frame(body: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + body.length);
  bytes.writeUInt16LE(SOH, 0);
  bytes.writeUInt32LE(bytes.length, 2);
  body.copy(bytes, HEAD_BYTES);
  return bytes;
}

/** Cuts a stream into bodies. Its buffer grows with the data that came. */
export class FrameReader {
  readonly #max: number;
  #buffer: Buffer = Buffer.alloc(0);
  #used = 0;

  /** `max`: the largest `total_length` that is taken, bytes. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Bytes of a frame that is not whole yet. */
  get waiting(): number {
    return this.#used;
  }

  /** Bytes held, whether used or not. */
  get capacity(): number {
    return this.#buffer.length;
  }

  /** Up to `count` bytes of the frame that is not whole yet; a copy. */
  peek(count: number): Buffer {
    return Buffer.from(this.#buffer.subarray(0, Math.min(count, this.#used)));
  }

  /** Gives every whole body to `onBody`, which must not keep it: the bytes are used again. Throws FrameFault, or what `onBody` throws. */
  push(chunk: Buffer, onBody: (body: Buffer) => void): void {
    this.#append(chunk);
    let start = 0;
    try {
      for (;;) {
        const length = this.#lengthAt(start);
        if (length === null || this.#used - start < length) break;
        const end = start + length;
        const body = this.#buffer.subarray(start + HEAD_BYTES, end);
        start = end;
        onBody(body);
      }
    } finally {
      this.#drop(start);
    }
  }

  #lengthAt(start: number): number | null {
    if (this.#used - start < HEAD_BYTES) return null;
    const length = this.#buffer.readUInt32LE(start + 2);
    if (length > HEAD_BYTES && length <= this.#max) return length;
    const big = this.#buffer.readUInt32BE(start + 2);
    const hint =
      big > HEAD_BYTES && big <= this.#max ? ` (it would be ${big} in big-endian order, which this protocol does not use)` : '';
    if (length <= HEAD_BYTES)
      throw new FrameFault(`an answer of ${length} bytes is announced, the head alone has 6${hint}`, false);
    throw new FrameFault(`an answer of ${length} bytes is announced, at most ${this.#max} are taken${hint}`, hint === '');
  }

  #append(chunk: Buffer): void {
    const need = this.#used + chunk.length;
    if (need > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(need, Math.min(2 * this.#buffer.length, this.#max)));
      this.#buffer.copy(grown, 0, 0, this.#used);
      this.#buffer = grown;
    }
    chunk.copy(this.#buffer, this.#used);
    this.#used = need;
  }

  #drop(count: number): void {
    if (count > 0) this.#buffer.copyWithin(0, count, this.#used);
    this.#used -= count;
    if (this.#used === 0 && this.#buffer.length > KEEP_BYTES) this.#buffer = Buffer.alloc(0);
  }
}
