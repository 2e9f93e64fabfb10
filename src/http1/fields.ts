// Owns what is known about field names: their flags, the cache of interned names, and the tests of tokens and values.
// Called by every other file of http1 and by proxy's filters. Pure but for the bounded cache; it must never keep a value.
import { isIPv6 } from 'node:net';
import type { FieldName } from './exchange.ts';

/** Always removed before a message goes on (proxy-semantics §13). */
export const HOP_BY_HOP = 1;
/** `content-length`, `transfer-encoding`: never passed through, written anew. */
export const FRAMING = 2;
/** A `_` twin of a framing, hop-by-hop or identity field (`Content_Length`): dropped and counted. */
export const LOOK_ALIKE = 4;
/** A token of `Connection` that names this field is ignored. */
export const PROTECTED = 8;
export const HOST = 16;
export const CONNECTION = 32;
export const TE = 64;
export const EXPECT = 128;
export const UPGRADE = 256;
export const VIA = 512;
/** Any `x-weir-*` field. */
export const X_WEIR = 1024;
/** `x-forwarded-for`. */
export const XFF = 2048;
export const X_FORWARDED_PROTO = 4096;
export const X_FORWARDED_HOST = 8192;
/** `x-forwarded-client-cert`: identity, believed from trusted peers only. */
export const X_FORWARDED_CLIENT_CERT = 16_384;
export const FORWARDED = 32_768;
export const CONTENT_LENGTH = 65_536;
export const TRANSFER_ENCODING = 131_072;
/** `keep-alive`. */
export const KEEP_ALIVE = 262_144;
/** `x-request-id`. */
export const REQUEST_ID = 524_288;
export const IDEMPOTENCY_KEY = 1_048_576;
/** May go on as a trailer (proxy-semantics §13). */
export const TRAILER_ALLOWED = 2_097_152;
export const TRAILER = 4_194_304;
/** `retry-after`, `x-ratelimit-reset`. */
export const RETRY_HINT = 8_388_608;
export const AUTHORIZATION = 16_777_216;

const FLAGS: ReadonlyMap<string, number> = new Map([
  ['connection', HOP_BY_HOP | CONNECTION],
  ['keep-alive', HOP_BY_HOP | KEEP_ALIVE],
  ['proxy-connection', HOP_BY_HOP],
  ['te', HOP_BY_HOP | TE],
  ['trailer', HOP_BY_HOP | TRAILER],
  ['transfer-encoding', HOP_BY_HOP | FRAMING | PROTECTED | TRANSFER_ENCODING],
  ['upgrade', HOP_BY_HOP | UPGRADE],
  ['http2-settings', HOP_BY_HOP],
  ['proxy-authenticate', HOP_BY_HOP],
  ['proxy-authorization', HOP_BY_HOP],
  ['content-length', FRAMING | PROTECTED | CONTENT_LENGTH],
  ['host', HOST | PROTECTED],
  ['expect', EXPECT],
  ['via', VIA | PROTECTED],
  ['authorization', AUTHORIZATION | PROTECTED],
  ['cookie', PROTECTED],
  ['date', PROTECTED],
  ['forwarded', FORWARDED | PROTECTED],
  ['x-forwarded-for', XFF | PROTECTED],
  ['x-forwarded-proto', X_FORWARDED_PROTO | PROTECTED],
  ['x-forwarded-host', X_FORWARDED_HOST | PROTECTED],
  ['x-forwarded-client-cert', X_FORWARDED_CLIENT_CERT | PROTECTED],
  ['x-request-id', REQUEST_ID],
  ['idempotency-key', IDEMPOTENCY_KEY],
  ['grpc-status', TRAILER_ALLOWED],
  ['grpc-message', TRAILER_ALLOWED],
  ['grpc-status-details-bin', TRAILER_ALLOWED],
  ['server-timing', TRAILER_ALLOWED],
  ['content-digest', TRAILER_ALLOWED | PROTECTED],
  ['retry-after', RETRY_HINT],
  ['x-ratelimit-reset', RETRY_HINT],
]);

const PROTECTED_PREFIX = /^(?:content-|x-forwarded-|signature)/;
const IDENTITY =
  HOST | VIA | X_WEIR | XFF | X_FORWARDED_PROTO | X_FORWARDED_HOST | X_FORWARDED_CLIENT_CERT | FORWARDED | AUTHORIZATION;
const TWIN_OF = HOP_BY_HOP | FRAMING | EXPECT | IDENTITY;

/** The flags of a name in lower case. */
export function fieldFlags(lower: string): number {
  let flags = FLAGS.get(lower) ?? 0;
  if (PROTECTED_PREFIX.test(lower)) flags |= PROTECTED;
  if (lower.startsWith('x-weir-')) flags |= X_WEIR | PROTECTED;
  if (lower.includes('_')) {
    const dashed = lower.replaceAll('_', '-');
    if ((fieldFlags(dashed) & TWIN_OF) !== 0 || dashed.startsWith('x-forwarded-')) flags |= LOOK_ALIKE;
  }
  return flags;
}

class InternedName implements FieldName {
  readonly text: string;
  readonly lower: string;
  readonly flags: number;

  constructor(text: string) {
    this.text = text;
    this.lower = text.toLowerCase();
    this.flags = fieldFlags(this.lower);
  }
}

/** Common names that have no flags; they are preloaded so that no flood of made-up names can push them out. */
const COMMON =
  'accept accept-charset accept-encoding accept-language accept-ranges access-control-allow-credentials ' +
  'access-control-allow-headers access-control-allow-methods access-control-allow-origin access-control-expose-headers ' +
  'access-control-max-age access-control-request-headers access-control-request-method age allow alt-svc b3 baggage ' +
  'cache-control content-disposition content-encoding content-language content-location content-range ' +
  'content-security-policy content-type dnt etag expires from grpc-accept-encoding grpc-encoding grpc-timeout if-match ' +
  'if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards origin pragma ' +
  'priority range referer referrer-policy sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode ' +
  'sec-fetch-site sec-fetch-user sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-protocol ' +
  'sec-websocket-version server set-cookie strict-transport-security traceparent tracestate ' +
  'upgrade-insecure-requests user-agent vary warning www-authenticate x-b3-sampled x-b3-spanid x-b3-traceid ' +
  'x-content-type-options x-correlation-id x-frame-options x-powered-by x-real-ip x-requested-with x-weir-attempt-count ' +
  'x-weir-attempts x-weir-error x-weir-panic x-weir-retry-final x-weir-service x-weir-upstream x-xss-protection';

const MAX_UNKNOWN = 1_024;
const MAX_CACHED_LENGTH = 64;
const known = new Map<string, FieldName>();
const unknown = new Map<string, FieldName>();

for (const lower of [...FLAGS.keys(), ...COMMON.split(' ')]) {
  const capitals = lower.replace(/(?:^|-)[a-z]/g, (match) => match.toUpperCase());
  for (const text of [lower, capitals]) known.set(text, new InternedName(text));
}
for (const text of ['TE', 'DNT', 'ETag', 'WWW-Authenticate', 'HTTP2-Settings']) known.set(text, new InternedName(text));

/**
 * The one object of a name. Names that are not preloaded are kept up to 1,024; then that part of the cache starts anew, so
 * names from outside cannot grow it. Two objects of one name may therefore exist: compare `lower` or `flags`, not identity.
 */
export function internName(text: string): FieldName {
  return known.get(text) ?? unknown.get(text) ?? remember(text);
}

function remember(text: string): FieldName {
  const name = new InternedName(text);
  if (text.length <= MAX_CACHED_LENGTH) {
    if (unknown.size >= MAX_UNKNOWN) unknown.clear();
    unknown.set(text, name);
  }
  return name;
}

/** How many names from outside are held now; never above 1,024. */
export function unknownNames(): number {
  return unknown.size;
}

/** Bits of `CHARS`: RFC 9110 tchar; octets allowed in a field value (HTAB, SP, VCHAR, obs-text); in a request target. */
export const TCHAR = 1;
export const VALUE_CHAR = 2;
export const TARGET_CHAR = 4;

/** What each of the 256 octets may be part of. */
export const CHARS: Uint8Array = charTable();

function charTable(): Uint8Array {
  const table = new Uint8Array(256);
  for (let code = 0; code < 256; code++) {
    let bits = 0;
    if (/[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(code))) bits |= TCHAR;
    if (code === 9 || (code >= 0x20 && code !== 0x7f)) bits |= VALUE_CHAR;
    if (code > 0x20 && code < 0x7f && code !== 0x23) bits |= TARGET_CHAR;
    table[code] = bits;
  }
  return table;
}

/** True for one or more tchar (RFC 9110 §5.6.2). */
export function isToken(text: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text);
}

/** True for text that may stand as a field value on the wire: latin1, no controls but HTAB, no white space at its ends. */
export function isFieldValue(text: string): boolean {
  return /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/.test(text);
}

const HOST_NAME = /^([A-Za-z0-9._~-]+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{1,5}))?$/;

/** Strict `host[:port]` of at most 255 bytes; a bracketed host must be an IPv6 literal. */
export function isHost(text: string): boolean {
  if (text.length > 255) return false;
  const match = HOST_NAME.exec(text);
  if (match === null) return false;
  const literal = match[2];
  if (literal !== undefined && !isIPv6(literal)) return false;
  const port = match[3];
  return port === undefined || Number(port) <= 65_535;
}

const NO_TOKENS: readonly string[] = [];
const CLOSE: readonly string[] = ['close'];
const KEEP: readonly string[] = ['keep-alive'];

/** The tokens of one `Connection` value in lower case, empty list members skipped; null when a member is no token. */
export function valueTokens(value: string): readonly string[] | null {
  if (value === 'keep-alive' || value === 'Keep-Alive') return KEEP;
  if (value === 'close' || value === 'Close') return CLOSE;
  const tokens: string[] = [];
  for (const part of value.split(',')) {
    const token = part.replace(/^[ \t]+|[ \t]+$/g, '');
    if (token === '') continue;
    if (!isToken(token)) return null;
    tokens.push(token.toLowerCase());
  }
  return tokens;
}

/** The tokens of all `Connection` fields of a head in lower case; null when one of them is malformed. */
export function connectionTokens(names: readonly FieldName[], values: readonly string[]): readonly string[] | null {
  let all = NO_TOKENS;
  for (let i = 0; i < names.length; i++) {
    if (((names[i]?.flags ?? 0) & CONNECTION) === 0) continue;
    const tokens = valueTokens(values[i] ?? '');
    if (tokens === null) return null;
    all = all.length === 0 ? tokens : [...all, ...tokens];
  }
  return all;
}

/** True for trailers that may go on to a client that asked for them. */
export function isTrailerAllowed(name: FieldName): boolean {
  return (name.flags & TRAILER_ALLOWED) !== 0;
}
