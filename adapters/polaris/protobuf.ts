// Owns protobuf for a table of messages: bytes <-> plain objects, with proto3's presence as Polaris uses it (absent stays absent).
// Called by protocol.ts; knows nothing of Polaris. A codec of our own: the packages for it cost every start 10 MB and 50 ms.
//
// What is unknown (field, or a known field of another wire type) is skipped; what is cut or overlong throws. Enums travel as int32.

/** Message -> fields as `[*]type name number`, `*` = repeated. Types: string, uint32, int32, bool, or a message of the table. */
export type MessageTable = Readonly<Record<string, string>>;

interface Field {
  readonly name: string;
  readonly id: number;
  readonly repeated: boolean;
  readonly kind: 'string' | 'uint32' | 'int32' | 'bool' | 'message';
  /** Of the message that it holds; null for plain values. */
  readonly message: Shape | null;
}

/** One message of a table, ready to be read and written. */
export interface Shape {
  readonly byName: ReadonlyMap<string, Field>;
  /** Sparse, by number. */
  readonly byId: readonly (Field | undefined)[];
}

/** A message as a plain object; the names of its properties come from the table alone. */
export type Plain = Record<string, unknown>;

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;
const PLAIN_KINDS: ReadonlySet<string> = new Set(['string', 'uint32', 'int32', 'bool']);
/** Messages of the table nest 4 deep; it cannot recurse, so no bytes can make the reader do so. */
const MAX_VARINT = 10;

/** The shapes of a table by name. Throws for a type that is not in it; a message must stand after those that it holds. */
export function shapesOf(table: MessageTable): ReadonlyMap<string, Shape> {
  const shapes = new Map<string, Shape>();
  for (const [name, text] of Object.entries(table)) {
    const fields = text === '' ? [] : text.split(', ').map((part) => fieldOf(part, shapes));
    const byId: (Field | undefined)[] = [];
    for (const field of fields) byId[field.id] = field;
    shapes.set(name, { byId, byName: new Map(fields.map((field) => [field.name, field])) });
  }
  return shapes;
}

function fieldOf(part: string, shapes: ReadonlyMap<string, Shape>): Field {
  const [starred = '', name = '', id] = part.split(' ');
  const repeated = starred.startsWith('*');
  const type = repeated ? starred.slice(1) : starred;
  const message = shapes.get(type) ?? null;
  if (message === null && !PLAIN_KINDS.has(type)) throw new Error(`protobuf: no type ${type} before the field ${name}`);
  const kind = type === 'string' || type === 'uint32' || type === 'int32' || type === 'bool' ? type : 'message';
  return { name, id: Number(id), repeated, kind, message };
}

/** The bytes of a message. Properties that the table does not name are left out; undefined counts as absent. */
export function encode(shape: Shape, value: object): Buffer {
  const parts: Uint8Array[] = [];
  const given: ReadonlyMap<string, unknown> = new Map(Object.entries(value));
  for (const field of shape.byName.values()) {
    const held = given.get(field.name);
    if (held === undefined) continue;
    for (const one of field.repeated && Array.isArray(held) ? held : [held]) encodeField(field, one, parts);
  }
  return Buffer.concat(parts);
}

function encodeField(field: Field, value: unknown, parts: Uint8Array[]): void {
  if (field.kind === 'message' || field.kind === 'string') {
    const body = field.message === null ? Buffer.from(String(value)) : encode(field.message, Object(value));
    parts.push(varint(field.id * 8 + LENGTH), varint(body.length), body);
    return;
  }
  // A negative int32 is sign-extended to ten bytes; none of our numbers is negative, yet a wrong one must stay what it is.
  parts.push(varint(field.id * 8 + VARINT), varint(Number(value)));
}

function varint(value: number): Uint8Array {
  if (value >= 0 && value < 0x80) return Uint8Array.of(value);
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** What the bytes hold. Throws Error for bytes that are no such message. */
export function decode(shape: Shape, bytes: Buffer): Plain {
  const reader = new Reader(bytes);
  return reader.message(shape, bytes.length);
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  message({ byId }: Shape, end: number): Plain {
    const out: Plain = {};
    while (this.#at < end) {
      const tag = this.#varint(end);
      const type = tag & 7;
      const field = byId[tag >>> 3];
      if (field === undefined || (field.kind === 'string' || field.message !== null ? type !== LENGTH : type !== VARINT)) {
        this.#skip(type, end);
        continue;
      }
      const value = this.#value(field, end);
      if (!field.repeated) out[field.name] = value;
      else {
        const list = out[field.name];
        if (Array.isArray(list)) list.push(value);
        else out[field.name] = [value];
      }
    }
    return out;
  }

  #value(field: Field, end: number): unknown {
    if (field.message !== null) return this.message(field.message, this.#length(end));
    if (field.kind !== 'string') {
      const value = this.#varint(end);
      if (field.kind === 'bool') return value !== 0;
      return field.kind === 'int32' ? value | 0 : value;
    }
    const until = this.#length(end);
    const text = this.#bytes.toString('utf8', this.#at, until);
    this.#at = until;
    return text;
  }

  /** Where the part that begins here ends. */
  #length(end: number): number {
    const until = this.#varint(end) + this.#at;
    if (until > end) throw new Error('protobuf: a part is longer than its message');
    return until;
  }

  /** The low 32 bits. */
  #varint(end: number): number {
    const bytes = this.#bytes;
    let value = 0;
    for (let n = 0; n < MAX_VARINT; n++) {
      if (this.#at >= end) throw new Error('protobuf: the message is cut');
      const byte = bytes[this.#at++] ?? 0;
      if (n < 5) value |= (byte & 0x7f) << (7 * n);
      if (byte < 0x80) return value >>> 0;
    }
    throw new Error('protobuf: a number is too long');
  }

  #skip(type: number, end: number): void {
    if (type === VARINT) {
      this.#varint(end);
      return;
    }
    if (type === LENGTH) {
      this.#at = this.#length(end);
      return;
    }
    // Groups were never part of proto3.
    if (type !== FIXED64 && type !== FIXED32) throw new Error(`protobuf: a field of wire type ${type}`);
    this.#at += type === FIXED64 ? 8 : 4;
    if (this.#at > end) throw new Error('protobuf: the message is cut');
  }
}
