// Owns what of a response goes on (proxy-semantics §12, §13): one accepted head in, the text of the forwarded fields out.
// Called by exchange.ts once per response that is passed on. Pure: it fills the plan it is given and keeps nothing.
import type { FieldName, ResponseHead, Trailers } from '../http1/exchange.ts';
import {
  CONNECTION,
  CONTENT_LENGTH,
  connectionTokens,
  FRAMING,
  HOP_BY_HOP,
  isTrailerAllowed,
  LOOK_ALIKE,
  PROTECTED,
  RETRY_HINT,
  VIA,
  X_WEIR,
} from '../http1/fields.ts';
import type { Clock } from '../kernel/clock.ts';
import { namedFields } from './request-filter.ts';

/** What came of filtering; one per exchange, filled anew for each response. */
export class ResponsePlan {
  /** Status line and forwarded fields with our Via; each line with its CRLF, no framing, no empty line. */
  head = '';
  /** Value of Content-Length, -1 without one; for replies without a body (HEAD, 304). */
  contentLength = -1;
  /** `_` twins that were dropped; for the counter. */
  twins = 0;
}

const SPECIAL = HOP_BY_HOP | FRAMING | LOOK_ALIKE | X_WEIR | VIA;

/** Filters one response into `plan`. `pseudonym` as in Via. False: its Connection field is malformed (a protocol failure). */
export function filterResponse(head: ResponseHead, pseudonym: string, plan: ResponsePlan): boolean {
  const { names, values } = head;
  plan.contentLength = -1;
  plan.twins = 0;
  let seen = 0;
  for (let i = 0; i < names.length; i++) seen |= names[i]?.flags ?? 0;
  let named: readonly string[] | null = null;
  if ((seen & CONNECTION) !== 0) {
    const tokens = connectionTokens(names, values);
    if (tokens === null) return false;
    named = namedFields(tokens);
  }
  let out = head.status === 200 && head.reason === 'OK' ? 'HTTP/1.1 200 OK\r\n' : `HTTP/1.1 ${head.status} ${head.reason}\r\n`;
  let via = '';
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const value = values[i];
    if (name === undefined || value === undefined) continue;
    const { flags } = name;
    if (named?.includes(name.lower) === true && (flags & PROTECTED) === 0) continue;
    if ((flags & SPECIAL) === 0) out += `${name.text}: ${value}\r\n`;
    else if ((flags & LOOK_ALIKE) !== 0) plan.twins++;
    else if ((flags & VIA) !== 0) via += `${value}, `;
    else if ((flags & CONTENT_LENGTH) !== 0) plan.contentLength = Number(value);
    // Of an upstream weir's fields only this goes on: it tells the cause and can only keep others from retrying (§5.7).
    else if (name.lower === 'x-weir-error') out += `${name.text}: ${value}\r\n`;
  }
  plan.head = `${out}via: ${via}1.1 ${pseudonym}\r\n`;
  return true;
}

/** The text of a 103 to pass on: whole, with its empty line. Null when its Connection field is malformed. */
export function filterInformational(head: ResponseHead, pseudonym: string, plan: ResponsePlan): string | null {
  return filterResponse(head, pseudonym, plan) ? `${plan.head}\r\n` : null;
}

/** What a failing response says about trying again (§5.4, §5.7). */
export interface RetryMarks {
  /** `x-weir-retry-final`, or `x-weir-error` on a 503: some weir has decided already. */
  readonly final: boolean;
  /** Retry-After in whole seconds, else X-RateLimit-Reset relative to the wall clock; ms, or -1 without either. */
  readonly waitMs: number;
}

const UNMARKED: RetryMarks = { final: false, waitMs: -1 };

/** Reads the marks; called for failing responses only. */
export function retryMarks(head: ResponseHead, clock: Pick<Clock, 'wallNow'>): RetryMarks {
  let final = false;
  let retryAfter = -1;
  let reset = -1;
  for (let i = 0; i < head.names.length; i++) {
    const name = head.names[i];
    const value = head.values[i] ?? '';
    if (name === undefined || (name.flags & (X_WEIR | RETRY_HINT)) === 0) continue;
    if (name.lower === 'x-weir-retry-final') final = true;
    // Of an upstream weir's fields only this goes on: it tells the cause and can only keep others from retrying (§5.7).
    else if (name.lower === 'x-weir-error') final ||= head.status === 503;
    else if (!/^\d{1,10}$/.test(value)) continue;
    else if (name.lower === 'retry-after') retryAfter = Number(value) * 1_000;
    else if (name.lower === 'x-ratelimit-reset') reset = Math.max(0, Number(value) * 1_000 - clock.wallNow());
  }
  if (!final && retryAfter < 0 && reset < 0) return UNMARKED;
  return { final, waitMs: retryAfter >= 0 ? retryAfter : reset };
}

/** The trailers that go on to a client that asked for them, or null when none are left. */
export function filterTrailers(trailers: Trailers | null, wanted: boolean): Trailers | null {
  if (trailers === null || !wanted) return null;
  const names: FieldName[] = [];
  const values: string[] = [];
  for (let i = 0; i < trailers.names.length; i++) {
    const name = trailers.names[i];
    if (name === undefined || !isTrailerAllowed(name)) continue;
    names.push(name);
    values.push(trailers.values[i] ?? '');
  }
  return names.length === 0 ? null : { names, values };
}
