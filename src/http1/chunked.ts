// Owns the chunked coding: an incremental decoder with caps, and the encoder. Called by downstream, upstream and proxy (for
// request bodies that go on). A pure state machine over bytes; it moves payload only inside the buffer it was given.
import type { FieldName, Refusal, Trailers } from './exchange.ts';
import { CHARS, TCHAR, VALUE_CHAR } from './fields.ts';
import { parseTrailers, refuse, TRAILER_LIMITS } from './head.ts';
import { HeadReader } from './head-reader.ts';

/** Longest chunk extension, and the total rule: framing above 64 KiB and above 8 times the body (proxy-semantics §12). */
const MAX_EXTENSION = 256;
const MAX_SIZE_DIGITS = 13;
const OVERHEAD_FREE = 65_536;
const OVERHEAD_RATIO = 8;

const SIZE_FIRST = 0;
const SIZE = 1;
const EXT_NAME_FIRST = 2;
const EXT_NAME = 3;
const EXT_VALUE_FIRST = 4;
const EXT_VALUE = 5;
const EXT_QUOTED = 6;
const EXT_ESCAPED = 7;
const EXT_AFTER_QUOTED = 8;
const SIZE_LF = 9;
const DATA = 10;
const DATA_CR = 11;
const DATA_LF = 12;
const TRAILER_FIRST = 13;
const TRAILER_LF = 14;
const TRAILER_FIELDS = 15;
const DONE = 16;
const REFUSED = 17;

const CR = 13;
const LF = 10;
const SEMICOLON = 59;
const EQUALS = 61;
const QUOTE = 34;
const BACKSLASH = 92;

/** Value of a hex digit, or -1. */
function hexValue(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  const lower = code | 0x20;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/**
 * Decodes one chunked body after another. The payload of one `decode` call is moved together, so that it is one range:
 * buffer[bodyStart, bodyEnd). The buffer's bytes before the returned position are then no longer what arrived.
 */
export class ChunkedDecoder {
  bodyStart = 0;
  bodyEnd = 0;
  refusal: Refusal | null = null;
  /** Null when there were none. */
  trailers: Trailers | null = null;
  #state = SIZE_FIRST;
  #size = 0;
  #digits = 0;
  #extension = 0;
  #overhead = 0;
  #payload = 0;
  readonly #trailerReader = new HeadReader(TRAILER_LIMITS, false);

  /** True once the last chunk and the trailers have been read. */
  get done(): boolean {
    return this.#state === DONE;
  }

  /** Makes it ready for another body. */
  reset(): void {
    this.refusal = null;
    this.trailers = null;
    this.#state = SIZE_FIRST;
    this.#size = 0;
    this.#digits = 0;
    this.#extension = 0;
    this.#overhead = 0;
    this.#payload = 0;
    this.#trailerReader.reset();
  }

  /** Takes buffer[from, to) up to the end of the body; returns the position after what it took. Stops at a refusal. */
  decode(buffer: Buffer, from: number, to: number): number {
    this.bodyStart = from;
    this.bodyEnd = from;
    let i = from;
    while (i < to && this.#state < DONE) {
      if (this.#state === DATA) i = this.#data(buffer, i, to);
      else if (this.#state === TRAILER_FIELDS) i = this.#fields(buffer, i, to);
      else i = this.#framing(buffer, i, to);
    }
    return i;
  }

  #data(buffer: Buffer, i: number, to: number): number {
    const take = Math.min(this.#size, to - i);
    if (this.bodyStart === this.bodyEnd) {
      this.bodyStart = i;
      this.bodyEnd = i + take;
    } else {
      buffer.copyWithin(this.bodyEnd, i, i + take);
      this.bodyEnd += take;
    }
    this.#payload += take;
    this.#size -= take;
    if (this.#size === 0) this.#state = DATA_CR;
    return i + take;
  }

  /** The bytes between payloads, one by one. */
  #framing(buffer: Buffer, from: number, to: number): number {
    let i = from;
    while (i < to && this.#state < DONE && this.#state !== DATA && this.#state !== TRAILER_FIELDS) {
      // The first byte of a trailer line belongs to the trailer reader.
      if (this.#state === TRAILER_FIRST && buffer[i] !== CR) {
        this.#state = TRAILER_FIELDS;
        break;
      }
      this.#byte(buffer[i] ?? 0);
      i++;
    }
    this.#overhead += i - from;
    if (this.#overhead > OVERHEAD_FREE && this.#overhead > OVERHEAD_RATIO * this.#payload)
      this.#refuse(413, 'chunk framing far above the body');
    return i;
  }

  #byte(code: number): void {
    switch (this.#state) {
      case SIZE_FIRST:
      case SIZE:
        this.#sizeByte(code);
        break;
      case SIZE_LF:
        if (code !== LF) this.#refuse(400, 'CR without LF after a chunk size');
        else this.#sizeEnd();
        break;
      case DATA_CR:
        if (code === CR) this.#state = DATA_LF;
        else this.#refuse(400, 'a chunk is longer than its size');
        break;
      case DATA_LF:
        if (code === LF) this.#state = SIZE_FIRST;
        else this.#refuse(400, 'CR without LF after a chunk');
        break;
      case TRAILER_FIRST:
        this.#state = TRAILER_LF;
        break;
      case TRAILER_LF:
        if (code === LF) this.#state = DONE;
        else this.#refuse(400, 'CR without LF after the last chunk');
        break;
      default:
        this.#extensionByte(code);
    }
  }

  #sizeByte(code: number): void {
    const value = hexValue(code);
    if (value >= 0) {
      this.#digits = this.#state === SIZE_FIRST ? 1 : this.#digits + 1;
      this.#size = this.#state === SIZE_FIRST ? value : this.#size * 16 + value;
      this.#state = SIZE;
      if (this.#digits > MAX_SIZE_DIGITS) this.#refuse(400, 'more than 13 digits in a chunk size');
    } else if (this.#state === SIZE && code === CR) this.#state = SIZE_LF;
    else if (this.#state === SIZE && code === SEMICOLON) this.#startExtension();
    else this.#refuse(400, 'bad character in a chunk size');
  }

  #startExtension(): void {
    this.#extension = 1;
    this.#state = EXT_NAME_FIRST;
  }

  #sizeEnd(): void {
    this.#extension = 0;
    if (this.#size === 0) this.#state = TRAILER_FIRST;
    else this.#state = DATA;
  }

  #extensionByte(code: number): void {
    this.#extension++;
    const mayEnd = this.#state === EXT_NAME || this.#state === EXT_VALUE || this.#state === EXT_AFTER_QUOTED;
    if (code === CR && mayEnd) this.#state = SIZE_LF;
    else if (this.#extension > MAX_EXTENSION) this.#refuse(413, `chunk extensions above ${MAX_EXTENSION} bytes`);
    else {
      const next = nextExtensionState(this.#state, code);
      if (next === REFUSED) this.#refuse(400, 'bad character in a chunk extension');
      else this.#state = next;
    }
  }

  #fields(buffer: Buffer, i: number, to: number): number {
    const next = this.#trailerReader.read(buffer, i, to);
    if (next === -1) return to;
    const { text, end, fault } = this.#trailerReader;
    const parsed = parseTrailers(text, end);
    if ('refused' in parsed) this.#refuse(parsed.status, parsed.reason);
    else if (fault !== 'none') this.#refuse(431, `trailers above ${TRAILER_LIMITS.bytes} bytes`);
    else {
      this.trailers = parsed;
      this.#state = DONE;
    }
    this.#trailerReader.reset();
    return next;
  }

  #refuse(status: number, reason: string): void {
    this.#state = REFUSED;
    this.refusal = refuse(status, reason);
  }
}

/** One step of `*( ";" token [ "=" ( token / quoted-string ) ] )` without white space; CR is the caller's. */
function nextExtensionState(state: number, code: number): number {
  const bits = CHARS[code] ?? 0;
  switch (state) {
    case EXT_NAME_FIRST:
      return (bits & TCHAR) !== 0 ? EXT_NAME : REFUSED;
    case EXT_NAME:
      if ((bits & TCHAR) !== 0) return EXT_NAME;
      if (code === EQUALS) return EXT_VALUE_FIRST;
      return code === SEMICOLON ? EXT_NAME_FIRST : REFUSED;
    case EXT_VALUE_FIRST:
      if (code === QUOTE) return EXT_QUOTED;
      return (bits & TCHAR) !== 0 ? EXT_VALUE : REFUSED;
    case EXT_VALUE:
      if ((bits & TCHAR) !== 0) return EXT_VALUE;
      return code === SEMICOLON ? EXT_NAME_FIRST : REFUSED;
    case EXT_QUOTED:
      if (code === QUOTE) return EXT_AFTER_QUOTED;
      if (code === BACKSLASH) return EXT_ESCAPED;
      return (bits & VALUE_CHAR) !== 0 ? EXT_QUOTED : REFUSED;
    case EXT_ESCAPED:
      return (bits & VALUE_CHAR) !== 0 ? EXT_QUOTED : REFUSED;
    default:
      return code === SEMICOLON ? EXT_NAME_FIRST : REFUSED;
  }
}

/** The line before a chunk of `length` bytes (which must be above 0). */
export function chunkStart(length: number): string {
  return `${length.toString(16)}\r\n`;
}

/** What follows each chunk's bytes. */
export const CHUNK_END = '\r\n';
/** The last chunk with an empty trailer section. */
export const LAST_CHUNK = '0\r\n\r\n';

/** The last chunk, with trailers where there are some. */
export function lastChunk(
  trailers: { readonly names: readonly FieldName[]; readonly values: readonly string[] } | null | undefined,
): string {
  if (trailers === null || trailers === undefined || trailers.names.length === 0) return LAST_CHUNK;
  let text = '0\r\n';
  for (let i = 0; i < trailers.names.length; i++) text += `${trailers.names[i]?.text ?? ''}: ${trailers.values[i] ?? ''}\r\n`;
  return `${text}\r\n`;
}
