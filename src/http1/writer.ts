// Owns how our own heads look on the wire, as latin1 text. Called by downstream (refusals, framing) and proxy (everything
// else). Values of parsed heads are written as they are; values made by us go through `safeField`, which refuses a break-out.
import { STATUS_CODES } from '../kernel/node-http.ts';
import type { FieldName } from './exchange.ts';
import { isFieldValue, isToken } from './fields.ts';

/** The empty line. */
export const END_OF_HEAD = '\r\n';

const statusLines = new Map<number, string>();

/** `HTTP/1.1 200 OK` with its CRLF. Without `reason` the registered one is used. */
export function statusLine(status: number, reason?: string): string {
  const usual = usualStatusLine(status);
  if (reason === undefined || (usual.length === reason.length + 15 && usual.startsWith(reason, 13))) return usual;
  return `HTTP/1.1 ${status} ${reason}\r\n`;
}

function usualStatusLine(status: number): string {
  const cached = statusLines.get(status);
  if (cached !== undefined) return cached;
  const line = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`;
  statusLines.set(status, line);
  return line;
}

/** `GET /path HTTP/1.1` with its CRLF. */
export function requestLine(method: string, target: string): string {
  return `${method} ${target} HTTP/1.1\r\n`;
}

/** One field line of a name and value that came out of a parsed head or are constants. */
export function fieldLine(name: FieldName, value: string): string {
  return `${name.text}: ${value}\r\n`;
}

/** One field line of a name and value of any origin; throws RangeError where they could not stand on the wire. */
export function safeField(name: string, value: string): string {
  if (!isToken(name) || !isFieldValue(value)) throw new RangeError(`not a field: ${JSON.stringify(name)}`);
  return `${name}: ${value}\r\n`;
}

/** `content-length: n` with its CRLF. */
export function contentLength(length: number): string {
  return `content-length: ${length}\r\n`;
}

export const CHUNKED_FIELD = 'transfer-encoding: chunked\r\n';
export const CLOSE_FIELD = 'connection: close\r\n';
export const KEEP_ALIVE_FIELD = 'connection: keep-alive\r\n';
export const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n';

/** Status of a head made by `statusLine`. */
export function statusOf(head: string): number {
  return (head.charCodeAt(9) - 48) * 100 + (head.charCodeAt(10) - 48) * 10 + (head.charCodeAt(11) - 48);
}
