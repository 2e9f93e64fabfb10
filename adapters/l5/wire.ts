// Owns the protobuf wire format as far as L5 needs it: varints, length-delimited fields, skipping what is not known.
// Pure; called by messages.ts and by the fake. Must never read beyond the field it is in, nor allocate by an announced length.

/** The bytes are no message of this protocol. */
export class WireFault extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WireFault';
  }
}

export const VARINT = 0;
export const BYTES = 2;
const FIXED64 = 1;
const FIXED32 = 5;
const MAX_VARINT_BYTES = 10;

/** Reads one message; `end` is where it ends. Every method throws WireFault. */
export class WireReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  #at: number;

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  get more(): boolean {
    return this.#at < this.#end;
  }

  /** `field << 3 | wire type`. */
  tag(): number {
    const tag = this.#unsigned();
    if (tag < 8 || tag > 0xffff_ffff) throw new WireFault(`a field number that is none (tag ${tag})`);
    return tag;
  }

  /** A varint as int32: read as 64 bits, cut to 32 (a negative value has 10 bytes). */
  int32(): number {
    let value = 0;
    for (let n = 0; n < MAX_VARINT_BYTES; n++) {
      const byte = this.#byte();
      if (n < 5) value |= (byte & 0x7f) << (7 * n);
      if (byte < 0x80) return value;
    }
    throw new WireFault('a number of more than 10 bytes');
  }

  /** A nested message, whole within this one. */
  message(): WireReader {
    const length = this.#length();
    const start = this.#at;
    this.#at += length;
    return new WireReader(this.#bytes, start, this.#at);
  }

  /** UTF-8; broken sequences become U+FFFD. */
  text(): string {
    const length = this.#length();
    const start = this.#at;
    this.#at += length;
    return this.#bytes.toString('utf8', start, this.#at);
  }

  /** Passes over the field of this tag. */
  skip(tag: number): void {
    switch (tag & 7) {
      case VARINT:
        this.#unsigned();
        return;
      case FIXED64:
        return this.#pass(8);
      case BYTES:
        return this.#pass(this.#length());
      case FIXED32:
        return this.#pass(4);
      default:
        throw new WireFault(`a field of wire type ${tag & 7}`);
    }
  }

  #pass(count: number): void {
    if (count > this.#end - this.#at) throw new WireFault('a field that is longer than its message');
    this.#at += count;
  }

  #length(): number {
    const length = this.#unsigned();
    if (length > this.#end - this.#at) throw new WireFault('a field that is longer than its message');
    return length;
  }

  /** Exact below 2^53, and beyond it still larger than every length. */
  #unsigned(): number {
    let value = 0;
    for (let n = 0; n < MAX_VARINT_BYTES; n++) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** (7 * n);
      if (byte < 0x80) return value;
    }
    throw new WireFault('a number of more than 10 bytes');
  }

  #byte(): number {
    const byte = this.#at < this.#end ? this.#bytes[this.#at] : undefined;
    if (byte === undefined) throw new WireFault('a message that ends inside a field');
    this.#at++;
    return byte;
  }
}

/** Builds one message. */
export class WireWriter {
  readonly #bytes: number[] = [];

  /** Sign-extended to 64 bits: a negative value takes 10 bytes. */
  int32(field: number, value: number): this {
    this.#unsigned((field << 3) | VARINT);
    return this.#signed(value | 0);
  }

  text(field: number, text: string): this {
    return this.#delimited(field, Buffer.from(text));
  }

  message(field: number, fill: (inner: WireWriter) => void): this {
    const inner = new WireWriter();
    fill(inner);
    return this.#delimited(field, inner.#bytes);
  }

  toBuffer(): Buffer {
    return Buffer.from(this.#bytes);
  }

  #delimited(field: number, bytes: Iterable<number> & { readonly length: number }): this {
    this.#unsigned((field << 3) | BYTES);
    this.#unsigned(bytes.length);
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  #signed(value: number): this {
    if (value >= 0) return this.#unsigned(value);
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 0x7fn) {
      this.#bytes.push(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    this.#bytes.push(Number(rest));
    return this;
  }

  /** Below 2^32. */
  #unsigned(value: number): this {
    let rest = value;
    while (rest > 0x7f) {
      this.#bytes.push((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.#bytes.push(rest);
    return this;
  }
}
