// Owns what of a request goes on (proxy-semantics §12, §13): one accepted head in, a refusal or the text of the forwarded fields
// out. Called by exchange.ts once per request, never per attempt. Pure: it fills the plan it is given and keeps nothing.
import type { BodyKind, FieldName, RequestHead } from '../http1/exchange.ts';
import {
  CONNECTION,
  connectionTokens,
  EXPECT,
  FORWARDED,
  FRAMING,
  HOP_BY_HOP,
  HOST,
  IDEMPOTENCY_KEY,
  isHost,
  isToken,
  LOOK_ALIKE,
  PROTECTED,
  REQUEST_ID,
  TE,
  UPGRADE,
  VIA,
  X_FORWARDED_CLIENT_CERT,
  X_FORWARDED_HOST,
  X_FORWARDED_PROTO,
  X_WEIR,
  XFF,
} from '../http1/fields.ts';
import { type LocalReply, localReply } from './local-reply.ts';
import type { RouteInput } from './route.ts';

/** What the filter must know of the process and the listener. */
export interface FilterContext {
  /** `weir-<instance id>`, as it stands in Via. */
  readonly pseudonym: string;
  readonly methods: ReadonlySet<string>;
  readonly direction: 'outbound' | 'inbound';
  /** The main port: absolute-form chooses the service. */
  readonly main: boolean;
}

/** What it must know of the client; made once per connection. */
export interface Peer {
  /** Address as X-Forwarded-For shows it. */
  readonly address: string;
  /** In the listener's trustedCidrs. */
  readonly trusted: boolean;
}

/** The methods of proxy-semantics §12. */
export const DEFAULT_METHODS: readonly string[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

/** What came of filtering; one per exchange, filled anew for each request. */
export class RequestPlan implements RouteInput {
  method = '';
  host = '';
  path = '';
  absolute = false;
  serviceHeader: string | null = null;
  /** Forwarded fields without Host, framing and weir's own count; each line with its CRLF. */
  fields = '';
  /** The client's own X-Forwarded-Host line, for the case that the route rewrites Host and may not overrule it. */
  forwardedHost = false;
  requestId = '';
  /** The client sent `TE: trailers`. */
  trailers = false;
  expectContinue = false;
  idempotencyKey = false;
  /** A whole WebSocket handshake. */
  upgrade = false;
  /** Fields dropped, by reason, for the counters: `_` twins, identity of an untrusted peer, named in Connection. */
  twins = 0;
  identity = 0;
  named = 0;

  reset(): void {
    this.host = '';
    this.serviceHeader = null;
    this.fields = '';
    this.forwardedHost = false;
    this.requestId = '';
    this.trailers = false;
    this.expectContinue = false;
    this.idempotencyKey = false;
    this.upgrade = false;
    this.absolute = false;
    this.twins = 0;
    this.identity = 0;
    this.named = 0;
  }
}

const BAD_CONNECTION = localReply('BAD_REQUEST', 'Connection names a field that a message cannot do without, or is malformed');
const BAD_EXPECT = localReply('BAD_REQUEST', 'the only expectation that is met is 100-continue', 417);
const BAD_TARGET = localReply('BAD_REQUEST', 'the request target has a form that is not served here');
const BAD_METHOD = localReply('BAD_REQUEST', 'the method is not allowed', 405);
const NO_CONNECT = localReply('BAD_REQUEST', 'CONNECT is not allowed', 403);
const BAD_HOST = localReply('BAD_REQUEST', 'there must be exactly one Host field, a strict host[:port]');
const TWO_SERVICES = localReply('BAD_REQUEST', 'x-weir-service appears twice');
const LOOP = localReply('LOOP_DETECTED', 'the request has passed this weir before');

/** Every flag that makes a field more than text to pass on; a field without them takes the short way. */
const SPECIAL =
  HOP_BY_HOP |
  FRAMING |
  LOOK_ALIKE |
  HOST |
  EXPECT |
  VIA |
  X_WEIR |
  XFF |
  X_FORWARDED_PROTO |
  X_FORWARDED_HOST |
  X_FORWARDED_CLIENT_CERT |
  FORWARDED |
  REQUEST_ID |
  IDEMPOTENCY_KEY;

const MAX_REQUEST_ID = 64;

/** Filters one request into `plan`; `newId` makes an x-request-id. Returns what is answered instead, or null. */
export function filterRequest(
  head: RequestHead,
  body: BodyKind,
  context: FilterContext,
  peer: Peer,
  newId: () => string,
  plan: RequestPlan,
): LocalReply | null {
  plan.reset();
  plan.method = head.method;
  plan.path = head.target;
  if (!context.methods.has(head.method)) return head.method === 'CONNECT' ? NO_CONNECT : BAD_METHOD;
  const { names, values } = head;
  let seen = 0;
  for (let i = 0; i < names.length; i++) seen |= names[i]?.flags ?? 0;
  let named: readonly string[] | null = null;
  let wantsUpgrade = false;
  if ((seen & CONNECTION) !== 0) {
    const tokens = connectionTokens(names, values);
    if (tokens === null || tokens.some(isVital)) return BAD_CONNECTION;
    wantsUpgrade = tokens.includes('upgrade');
    named = namedFields(tokens);
  }
  const fault = readFields(names, values, context, peer, named, plan) ?? readTarget(head.target, context, plan);
  if (fault !== null) return fault;
  if (plan.requestId === '') {
    plan.requestId = newId();
    plan.fields += `x-request-id: ${plan.requestId}\r\n`;
  }
  plan.upgrade = wantsUpgrade && (seen & UPGRADE) !== 0 && body === 'none' && isWebSocket(head);
  if (head.minor === 0) plan.expectContinue = false;
  return null;
}

/** The whole head of one attempt. `rewrite`: Host of the route, or null; `framing`: the field that frames the body, with its CRLF. */
export function upstreamHead(plan: RequestPlan, path: string, rewrite: string | null, attempt: number, framing: string): string {
  const original = rewrite === null || plan.forwardedHost ? '' : `x-forwarded-host: ${plan.host}\r\n`;
  const upgrade = plan.upgrade ? 'connection: upgrade\r\nupgrade: websocket\r\n' : '';
  return (
    `${plan.method} ${path} HTTP/1.1\r\nhost: ${rewrite ?? plan.host}\r\n${plan.fields}${original}` +
    `x-weir-attempt-count: ${attempt}\r\n${framing}${upgrade}\r\n`
  );
}

/** One walk over the fields: appends to `plan.fields` and notes what weir itself needs. */
function readFields(
  names: readonly FieldName[],
  values: readonly string[],
  context: FilterContext,
  peer: Peer,
  named: readonly string[] | null,
  plan: RequestPlan,
): LocalReply | null {
  const keepForwarded = context.direction === 'outbound' || peer.trusted;
  let out = '';
  let hosts = 0;
  let via = '';
  let xff = '';
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const value = values[i];
    if (name === undefined || value === undefined) continue;
    const { flags } = name;
    if (named?.includes(name.lower) === true && (flags & PROTECTED) === 0) {
      if ((flags & HOP_BY_HOP) === 0) plan.named++;
      if ((flags & TE) !== 0) plan.trailers ||= asksForTrailers(value);
      continue;
    }
    if ((flags & SPECIAL) === 0) {
      out += `${name.text}: ${value}\r\n`;
    } else if ((flags & LOOK_ALIKE) !== 0) {
      plan.twins++;
    } else if ((flags & HOST) !== 0) {
      plan.host = value;
      hosts++;
    } else if ((flags & VIA) !== 0) {
      if (hasPassed(value, context.pseudonym)) return LOOP;
      via += `${value}, `;
    } else if ((flags & XFF) !== 0) {
      if (keepForwarded && value !== '') xff += `${value}, `;
      else plan.identity++;
    } else if ((flags & X_WEIR) !== 0) {
      if (name.lower === 'x-weir-service') {
        if (plan.serviceHeader !== null) return TWO_SERVICES;
        plan.serviceHeader = value;
      } else if (peer.trusted && name.lower !== 'x-weir-attempt-count') out += `${name.text}: ${value}\r\n`;
      else plan.identity++;
    } else if ((flags & EXPECT) !== 0) {
      if (value.toLowerCase() !== '100-continue') return BAD_EXPECT;
      plan.expectContinue = true;
    } else if ((flags & REQUEST_ID) !== 0) {
      if (plan.requestId === '' && value.length <= MAX_REQUEST_ID && isToken(value)) {
        plan.requestId = value;
        out += `${name.text}: ${value}\r\n`;
      }
    } else if ((flags & TE) !== 0) {
      plan.trailers ||= asksForTrailers(value);
    } else if ((flags & (HOP_BY_HOP | FRAMING)) === 0) {
      if (isForwarded(flags, keepForwarded, peer.trusted, context)) {
        if ((flags & IDEMPOTENCY_KEY) !== 0) plan.idempotencyKey = true;
        if ((flags & X_FORWARDED_HOST) !== 0) plan.forwardedHost = true;
        out += `${name.text}: ${value}\r\n`;
      } else plan.identity++;
    }
  }
  if (hosts !== 1 || !isHost(plan.host)) return BAD_HOST;
  if (context.direction === 'inbound') out += 'x-forwarded-proto: http\r\n';
  plan.fields = `${out}via: ${via}1.1 ${context.pseudonym}\r\nx-forwarded-for: ${xff}${peer.address}\r\n`;
  return null;
}

/** Whether an identity field other than X-Forwarded-For goes on (§13): by kind of listener and trust in the peer. */
function isForwarded(flags: number, keepForwarded: boolean, trusted: boolean, context: FilterContext): boolean {
  if ((flags & X_FORWARDED_CLIENT_CERT) !== 0) return trusted;
  if ((flags & X_FORWARDED_PROTO) !== 0) return context.direction === 'outbound';
  if ((flags & (X_FORWARDED_HOST | FORWARDED)) !== 0) return keepForwarded;
  return true;
}

const ABSOLUTE = /^http:\/\/([^/?]*)(.*)$/i;

/** Origin-form, absolute-form or `*`; anything else is refused. The codec checked the characters. */
function readTarget(target: string, context: FilterContext, plan: RequestPlan): LocalReply | null {
  if (target.charCodeAt(0) === 47) {
    plan.path = target;
    return target.includes('#') ? BAD_TARGET : null;
  }
  if (target === '*') {
    plan.path = target;
    return plan.method === 'OPTIONS' ? null : BAD_TARGET;
  }
  const match = ABSOLUTE.exec(target);
  const authority = match?.[1] ?? '';
  const rest = match?.[2] ?? '';
  if (!isHost(authority) || rest.includes('#')) return BAD_TARGET;
  if (!context.main && authority.toLowerCase() !== plan.host.toLowerCase()) return BAD_TARGET;
  plan.absolute = context.main;
  plan.host = authority;
  plan.path = rest.startsWith('/') ? rest : `/${rest}`;
  return null;
}

const VITAL: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding', 'host']);

function isVital(token: string): boolean {
  return VITAL.has(token);
}

/** The fields that `Connection` names, or null when there are none besides its own words. Protected ones are skipped by flag. */
export function namedFields(tokens: readonly string[]): readonly string[] | null {
  if (tokens.length === 1 && (tokens[0] === 'keep-alive' || tokens[0] === 'close')) return null;
  return tokens;
}

/** True when a Via value holds our own pseudonym as the received-by of one of its members. */
export function hasPassed(via: string, pseudonym: string): boolean {
  const lower = pseudonym.toLowerCase();
  if (!via.toLowerCase().includes(lower)) return false;
  return via.split(',').some(
    (member) =>
      member
        .trim()
        .split(/[ \t]+/)[1]
        ?.toLowerCase() === lower,
  );
}

function asksForTrailers(te: string): boolean {
  return te.split(',').some((part) => part.trim().toLowerCase() === 'trailers');
}

/** RFC 6455 §4.1: GET on 1.1, `Upgrade: websocket` alone, version 13, one key of 16 bytes. */
function isWebSocket(head: RequestHead): boolean {
  if (head.method !== 'GET' || head.minor === 0) return false;
  const upgrade = only(head, 'upgrade');
  const key = only(head, 'sec-websocket-key') ?? '';
  return (
    upgrade?.toLowerCase() === 'websocket' && only(head, 'sec-websocket-version') === '13' && /^[A-Za-z0-9+/]{22}==$/.test(key)
  );
}

/** The value of a field that appears exactly once, else null. */
function only(head: RequestHead, lower: string): string | null {
  let value: string | null = null;
  for (let i = 0; i < head.names.length; i++) {
    if (head.names[i]?.lower !== lower) continue;
    if (value !== null) return null;
    value = head.values[i] ?? null;
  }
  return value;
}
