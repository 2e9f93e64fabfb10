// Owns the one table that says how long a message is and whether its connection lives on (RFC 9112 §6.3, proxy-semantics
// §12). Called by downstream and upstream. Pure: it writes only into the Framing it is given, so a message allocates nothing.
import type { BodyKind, FieldName, Refusal } from './exchange.ts';
import { CONNECTION, CONTENT_LENGTH, connectionTokens, EXPECT, KEEP_ALIVE, TRANSFER_ENCODING, valueTokens } from './fields.ts';
import { type ParsedRequest, type ParsedResponse, refuse } from './head.ts';

/** How one message is delimited; made once per connection and filled anew for each message. */
export class Framing {
  kind: BodyKind = 'none';
  /** Bytes of the body when kind is length, else -1. */
  length = -1;
  /** Both sides want the connection to live on. */
  keepAlive = false;
  /** The client waits for 100 before it sends the body. */
  expectContinue = false;
}

const DECIDES_REQUEST = CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING | EXPECT;
const DECIDES_RESPONSE = CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING;

/** Fills `into` from a request; returns the refusal (400, 417, 501) or null. */
export function frameRequest(head: ParsedRequest, into: Framing): Refusal | null {
  into.kind = 'none';
  into.length = -1;
  into.keepAlive = head.minor === 1;
  into.expectContinue = false;
  if ((head.seen & DECIDES_REQUEST) === 0) return null;
  return frameBody(head, into) ?? frameConnection(head, into) ?? frameExpect(head, into);
}

/**
 * Fills `into` from a final response to `method`; returns the refusal (status 502) or null. HEAD, 204 and 304 have no body
 * whatever the fields say; a response that says nothing of its length ends with the connection.
 */
export function frameResponse(head: ParsedResponse, method: string, into: Framing): Refusal | null {
  into.kind = 'close';
  into.length = -1;
  into.keepAlive = head.minor === 1;
  if ((head.seen & DECIDES_RESPONSE) !== 0) {
    const refusal = frameBody(head, into) ?? frameConnection(head, into);
    if (refusal !== null) return refuse(502, `reply: ${refusal.reason}`);
  }
  // A 204 must announce no body (RFC 9110 §8.6): whoever does may well send one, so this socket is not used again.
  if (head.status === 204 && (into.length > 0 || (head.seen & TRANSFER_ENCODING) !== 0)) into.keepAlive = false;
  if (method === 'HEAD' || head.status === 204 || head.status === 304) {
    into.kind = 'none';
    into.length = -1;
  }
  if (into.kind === 'close') into.keepAlive = false;
  return null;
}

/** The refusal of an informational response that can mean two things: HTTP/1.0 has none, it has no body, and it ends nothing. */
export function interimFault(head: ParsedResponse): Refusal | null {
  if (head.minor === 0) return refuse(502, 'reply: an informational response of HTTP/1.0');
  if ((head.seen & DECIDES_RESPONSE) === 0) return null;
  if ((head.seen & (CONTENT_LENGTH | TRANSFER_ENCODING)) !== 0)
    return refuse(502, 'reply: an informational response with a body');
  const tokens = connectionTokens(head.names, head.values);
  return tokens === null || tokens.includes('close')
    ? refuse(502, 'reply: an informational response with a bad Connection')
    : null;
}

interface Fields {
  readonly minor: 0 | 1;
  readonly names: readonly FieldName[];
  readonly values: readonly string[];
  readonly seen: number;
}

function frameBody(head: Fields, into: Framing): Refusal | null {
  const seen = head.seen & (CONTENT_LENGTH | TRANSFER_ENCODING);
  if (seen === 0) return null;
  if (seen === (CONTENT_LENGTH | TRANSFER_ENCODING)) return refuse(400, 'Content-Length beside Transfer-Encoding');
  const at = onlyIndex(head, seen);
  if (at === -1) return refuse(400, seen === CONTENT_LENGTH ? 'two Content-Length fields' : 'two Transfer-Encoding fields');
  const value = head.values[at] ?? '';
  if (seen === CONTENT_LENGTH) {
    if (!/^[0-9]{1,15}$/.test(value)) return refuse(400, 'Content-Length is not 1 to 15 digits');
    into.kind = 'length';
    into.length = Number(value);
    return null;
  }
  if (head.minor === 0) return refuse(400, 'Transfer-Encoding in HTTP/1.0');
  if (value !== 'chunked' && value.toLowerCase() !== 'chunked') return codingFault(value);
  into.kind = 'chunked';
  return null;
}

/** A coding that we do not know before a final chunked is 501; a body that nothing delimits is 400 (RFC 9112 §6.1, §6.3). */
function codingFault(value: string): Refusal {
  const codings = valueTokens(value);
  if (codings !== null && codings.length > 1 && codings.indexOf('chunked') === codings.length - 1) {
    return refuse(501, 'a transfer coding other than chunked');
  }
  return refuse(400, 'Transfer-Encoding is not chunked');
}

/** Index of the one field with this flag; -1 when there are more. */
function onlyIndex(head: Fields, flag: number): number {
  let found = -1;
  for (let i = 0; i < head.names.length; i++) {
    if (((head.names[i]?.flags ?? 0) & flag) === 0) continue;
    if (found !== -1) return -1;
    found = i;
  }
  return found;
}

const MUST_NOT_NAME = new Set(['content-length', 'transfer-encoding', 'host']);

function frameConnection(head: Fields, into: Framing): Refusal | null {
  if ((head.seen & CONNECTION) === 0) return null;
  const tokens = connectionTokens(head.names, head.values);
  if (tokens === null) return refuse(400, 'Connection is no list of tokens');
  let close = false;
  let keep = false;
  for (const token of tokens) {
    if (token === 'close') close = true;
    else if (token === 'keep-alive') keep = true;
    else if (MUST_NOT_NAME.has(token)) return refuse(400, `Connection names ${token}`);
  }
  into.keepAlive = !close && (head.minor === 1 || keep);
  return null;
}

function frameExpect(head: Fields, into: Framing): Refusal | null {
  if ((head.seen & EXPECT) === 0) return null;
  for (let i = 0; i < head.names.length; i++) {
    if (((head.names[i]?.flags ?? 0) & EXPECT) === 0) continue;
    if ((head.values[i] ?? '').toLowerCase() !== '100-continue') return refuse(417, 'an expectation other than 100-continue');
  }
  into.expectContinue = head.minor === 1 && into.kind !== 'none' && into.length !== 0;
  return null;
}

/** Whole seconds of a `Keep-Alive: timeout=N` field of a response; -1 when it says none. */
export function keepAliveHint(names: readonly FieldName[], values: readonly string[]): number {
  for (let i = 0; i < names.length; i++) {
    if (((names[i]?.flags ?? 0) & KEEP_ALIVE) === 0) continue;
    const match = /(?:^|[ \t,;])timeout[ \t]*=[ \t]*"?([0-9]{1,9})/i.exec(values[i] ?? '');
    if (match !== null) return Number(match[1]);
  }
  return -1;
}
