// Owns the grammar of heads: latin1 text in, a head or a refusal out. Called by downstream, upstream and chunked (trailers).
// Pure. It reports the first fault in byte order, so that the same bytes are refused alike however they were split.
import type { FieldName, Refusal, RequestHead, ResponseHead, Trailers } from './exchange.ts';
import {
  CHARS,
  CONTENT_LENGTH,
  FRAMING,
  HOST,
  internName,
  isHost,
  TARGET_CHAR,
  TCHAR,
  TRANSFER_ENCODING,
  VALUE_CHAR,
} from './fields.ts';

/** Caps of one head. `bytes` counts from the first byte of the start line to the last of the empty line. */
export interface HeadLimits {
  readonly bytes: number;
  readonly fields: number;
  readonly target: number;
}

/** 16 KiB, 100 fields, 8 KiB target (proxy-semantics §3). */
export const HEAD_LIMITS: HeadLimits = { bytes: 16_384, fields: 100, target: 8_192 };
/** 4 KiB and 16 fields (http1.md rule 1). */
export const TRAILER_LIMITS: HeadLimits = { bytes: 4_096, fields: 16, target: 0 };

/** Makes a refusal. */
export function refuse(status: number, reason: string): Refusal {
  return { refused: true, status, reason };
}

/** A request head with the union of its fields' flags, so that framing need not look at plain requests. */
export class ParsedRequest implements RequestHead {
  readonly refused = false as const;
  readonly method: string;
  readonly target: string;
  readonly minor: 0 | 1;
  readonly names: readonly FieldName[];
  readonly values: readonly string[];
  readonly seen: number;

  constructor(method: string, target: string, minor: 0 | 1, fields: FieldList) {
    this.method = method;
    this.target = target;
    this.minor = minor;
    this.names = fields.names;
    this.values = fields.values;
    this.seen = fields.seen;
  }
}

/** A response head with the union of its fields' flags. */
export class ParsedResponse implements ResponseHead {
  readonly refused = false as const;
  readonly status: number;
  readonly reason: string;
  readonly minor: 0 | 1;
  readonly names: readonly FieldName[];
  readonly values: readonly string[];
  readonly seen: number;

  constructor(status: number, reason: string, minor: 0 | 1, fields: FieldList) {
    this.status = status;
    this.reason = reason;
    this.minor = minor;
    this.names = fields.names;
    this.values = fields.values;
    this.seen = fields.seen;
  }
}

class FieldList {
  readonly names: FieldName[] = [];
  readonly values: string[] = [];
  seen = 0;
  hosts = 0;
  host = '';
  /** The first fault, null while all is well. */
  fault: Refusal | null = null;
}

/** Fields that say where a message ends. */
const LENGTH_FIELDS = CONTENT_LENGTH | TRANSFER_ENCODING;

const CR = 13;
const LF = 10;
const SP = 32;
const HTAB = 9;
const COLON = 58;

/** Reads field lines in text[from, end), each ended by CRLF; the last one's CRLF stands at `end`. */
function parseFields(text: string, from: number, end: number, maxFields: number): FieldList {
  const list = new FieldList();
  let i = from;
  while (i < end) {
    const nameStart = i;
    while (((CHARS[text.charCodeAt(i)] ?? 0) & TCHAR) !== 0) i++;
    if (i === nameStart || text.charCodeAt(i) !== COLON) {
      list.fault = refuse(400, nameFault(text.charCodeAt(i), i === nameStart));
      return list;
    }
    if (list.names.length === maxFields) {
      list.fault = refuse(431, `more than ${maxFields} fields`);
      return list;
    }
    const name = internName(text.slice(nameStart, i));
    i++;
    while (text.charCodeAt(i) === SP || text.charCodeAt(i) === HTAB) i++;
    const valueStart = i;
    while (((CHARS[text.charCodeAt(i)] ?? 0) & VALUE_CHAR) !== 0) i++;
    if (text.charCodeAt(i) !== CR || text.charCodeAt(i + 1) !== LF) {
      list.fault = refuse(400, 'control character in a field value');
      return list;
    }
    let valueEnd = i;
    while (valueEnd > valueStart && (text.charCodeAt(valueEnd - 1) === SP || text.charCodeAt(valueEnd - 1) === HTAB)) valueEnd--;
    const value = text.slice(valueStart, valueEnd);
    // RFC 9112 allows a tab there; llhttp (Node, undici) then reads another length or no chunks at all: one meaning, or none.
    if (valueEnd < i && (name.flags & LENGTH_FIELDS) !== 0 && text.slice(valueEnd, i).includes('\t')) {
      list.fault = refuse(400, 'tab behind the value of a framing field');
      return list;
    }
    list.names.push(name);
    list.values.push(value);
    list.seen |= name.flags;
    if ((name.flags & HOST) !== 0) {
      list.hosts++;
      list.host = value;
    }
    i += 2;
  }
  return list;
}

function nameFault(code: number, empty: boolean): string {
  if (empty && (code === SP || code === HTAB)) return 'folded field line';
  if (code === SP || code === HTAB) return 'white space before the colon of a field';
  if (empty && code === COLON) return 'empty field name';
  return code === CR || code === LF ? 'field line without a colon' : 'bad character in a field name';
}

/**
 * Parses text[0, end): a request line and field lines; CRLF CRLF must follow at `end`. Statuses: 400 grammar and Host,
 * 403 CONNECT, 414 target too long, 431 too many fields, 505 version.
 */
export function parseRequestHead(text: string, end = text.length, limits: HeadLimits = HEAD_LIMITS): ParsedRequest | Refusal {
  return readRequest(text, end, limits, true);
}

function readRequest(text: string, end: number, limits: HeadLimits, whole: boolean): ParsedRequest | Refusal {
  const methodEnd = tokenEnd(text);
  if (methodEnd === 0 || text.charCodeAt(methodEnd) !== SP) return refuse(400, 'bad method in the request line');
  const targetStart = methodEnd + 1;
  let i = targetStart;
  while (((CHARS[text.charCodeAt(i)] ?? 0) & TARGET_CHAR) !== 0) i++;
  if (i - targetStart > limits.target) return refuse(414, `request target above ${limits.target} bytes`);
  if (i === targetStart || text.charCodeAt(i) !== SP) return refuse(400, 'bad character in the request target, or no version');
  const minor = versionAt(text, i + 1);
  if (minor === -1 || text.charCodeAt(i + 9) !== CR || text.charCodeAt(i + 10) !== LF) return versionFault(text, i + 1);
  const method = methodEnd === 3 && text.startsWith('GET') ? 'GET' : text.slice(0, methodEnd);
  const target = text.slice(targetStart, i);
  if (method === 'CONNECT') return refuse(403, 'CONNECT is not allowed');
  if (text.charCodeAt(targetStart) !== 47 && !isOtherTarget(method, target))
    return refuse(400, 'request target of an unknown form');
  const fields = parseFields(text, i + 11, end, limits.fields);
  return fields.fault ?? (whole ? hostFault(fields) : null) ?? new ParsedRequest(method, target, minor, fields);
}

function tokenEnd(text: string): number {
  let i = 0;
  while (((CHARS[text.charCodeAt(i)] ?? 0) & TCHAR) !== 0) i++;
  return i;
}

/** The minor version where text holds `HTTP/1.0` or `HTTP/1.1` at `at`, else -1. */
function versionAt(text: string, at: number): 0 | 1 | -1 {
  if (!text.startsWith('HTTP/1.', at)) return -1;
  const digit = text.charCodeAt(at + 7) - 48;
  return digit === 1 ? 1 : digit === 0 ? 0 : -1;
}

function versionFault(text: string, at: number): Refusal {
  const lineEnd = text.indexOf('\r\n', at);
  const version = text.slice(at, lineEnd === -1 ? at + 32 : Math.min(lineEnd, at + 32));
  if (lineEnd !== -1 && /^[A-Za-z]+\/[0-9]+(?:\.[0-9]+)?$/.test(version))
    return refuse(505, 'the version is neither HTTP/1.0 nor HTTP/1.1');
  return refuse(400, 'bad version in the request line');
}

const ABSOLUTE = /^http:\/\/([^/?]*)(?:[/?]|$)/i;

/** Asterisk-form for OPTIONS, absolute-form with a strict authority and without user information. */
function isOtherTarget(method: string, target: string): boolean {
  if (target === '*') return method === 'OPTIONS';
  const authority = ABSOLUTE.exec(target)?.[1];
  return authority !== undefined && isHost(authority);
}

let lastHost = '';

/** One Host field that is a strict host[:port], on 1.0 too (proxy-semantics §12). */
function hostFault(fields: FieldList): Refusal | null {
  if (fields.hosts === 1) {
    if (fields.host === lastHost && lastHost !== '') return null;
    if (!isHost(fields.host)) return refuse(400, 'the Host field is no host[:port]');
    lastHost = fields.host;
    return null;
  }
  return refuse(400, fields.hosts === 0 ? 'no Host field' : 'two Host fields');
}

/** The refusal of a head that did not end within its cap; `end` is the last CRLF in what came. The first fault wins over 431. */
export function refuseLongRequest(text: string, end: number, limits: HeadLimits = HEAD_LIMITS): Refusal {
  const parsed = end === 0 ? readRequest(text, text.length, limits, false) : readRequest(text, end, limits, false);
  return parsed.refused ? parsed : refuse(431, `request head above ${limits.bytes} bytes`);
}

/** Parses text[0, end): a status line and field lines; CRLF CRLF must follow at `end`. Any refusal has status 502. */
export function parseResponseHead(text: string, end = text.length, limits: HeadLimits = HEAD_LIMITS): ParsedResponse | Refusal {
  const minor = versionAt(text, 0);
  if (minor === -1 || text.charCodeAt(8) !== SP) return refuse(502, 'the reply does not start with HTTP/1.0 or HTTP/1.1');
  const status = digit(text, 9) * 100 + digit(text, 10) * 10 + digit(text, 11);
  if (Number.isNaN(status) || status < 100 || status > 599) return refuse(502, 'the status of the reply is not in 100..599');
  let i = 12;
  // The space before an empty reason is often left out; nothing else can be meant.
  if (text.charCodeAt(i) === SP) i++;
  else if (text.charCodeAt(i) !== CR) return refuse(502, 'bad status line in the reply');
  const reasonStart = i;
  while (((CHARS[text.charCodeAt(i)] ?? 0) & VALUE_CHAR) !== 0) i++;
  if (text.charCodeAt(i) !== CR || text.charCodeAt(i + 1) !== LF)
    return refuse(502, 'control character in the status line of the reply');
  const reason = text.startsWith('OK', reasonStart) && i - reasonStart === 2 ? 'OK' : text.slice(reasonStart, i);
  const fields = parseFields(text, i + 2, end, limits.fields);
  if (fields.fault !== null) return refuse(502, `reply: ${fields.fault.reason}`);
  return new ParsedResponse(status, reason, minor, fields);
}

function digit(text: string, at: number): number {
  const value = text.charCodeAt(at) - 48;
  return value >= 0 && value <= 9 ? value : Number.NaN;
}

/** Parses a trailer section; text[0, end) holds the lines, CRLF CRLF follows. A framing field among them is refused. */
export function parseTrailers(text: string, end = text.length, limits: HeadLimits = TRAILER_LIMITS): Trailers | Refusal {
  const fields = parseFields(text, 0, end, limits.fields);
  if (fields.fault !== null) return refuse(fields.fault.status, `trailers: ${fields.fault.reason}`);
  if ((fields.seen & FRAMING) !== 0) return refuse(400, 'a framing field among the trailers');
  return { names: fields.names, values: fields.values };
}

/** Where the first LF stands that no CR precedes, at or after `from`; -1 when there is none. */
export function bareLineFeed(text: string, from: number): number {
  for (let at = text.indexOf('\n', from); at !== -1; at = text.indexOf('\n', at + 1)) {
    if (at === 0 || text.charCodeAt(at - 1) !== CR) return at;
  }
  return -1;
}
