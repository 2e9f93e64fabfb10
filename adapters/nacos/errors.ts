// Owns what a failed call means: gRPC status, Nacos' errorCode, HTTP status → SourceError with a sentence that says what to change.
// Called by everything in this folder that lets a failure out; must never put a token or a password into a message.
import { asSourceError, SourceError, type SourceErrorCause } from '../../src/model/snapshot.ts';
import type { Answer } from './native.ts';

/** gRPC status codes that we look at. */
export const DEADLINE_EXCEEDED = 4;
export const RESOURCE_EXHAUSTED = 8;
export const UNIMPLEMENTED = 12;

/** Nacos' own codes (section 4). */
export const STARTING = 300;
export const UNREGISTERED = 301;
export const NO_HANDLER = 302;
export const FUZZY_PATTERNS_FULL = 50_310;
export const FUZZY_NAMES_FULL = 50_311;

/** A gRPC call or stream that ended with a status other than OK, or an end without one. */
export class GrpcFailure extends Error {
  readonly code: number;
  readonly details: string;
  readonly endpoint: string;

  constructor(code: number, details: string, endpoint: string) {
    super(`nacos ${endpoint}: ${details} (gRPC status ${code})`);
    this.name = 'GrpcFailure';
    this.code = code;
    this.details = details;
    this.endpoint = endpoint;
  }
}

/** An answer of Nacos that says no. */
export class NacosRefusal extends SourceError {
  readonly errorCode: number;
  /** The server's text, cut, without control characters. */
  readonly text: string;

  constructor(errorCode: number, text: string, causeKind: SourceErrorCause, message: string, retryAfterMs?: number) {
    super(causeKind, message, retryAfterMs === undefined ? {} : { retryAfterMs });
    this.name = 'NacosRefusal';
    this.errorCode = errorCode;
    this.text = text;
  }
}

/** An HTTP answer with a status of failure, or a Result with a code of failure. */
export class HttpRefusal extends NacosRefusal {
  readonly status: number;

  constructor(status: number, code: number, text: string, causeKind: SourceErrorCause, message: string) {
    super(code, text, causeKind, message);
    this.name = 'HttpRefusal';
    this.status = status;
  }
}

type Hint = readonly [pattern: RegExp, cause: SourceErrorCause, hint: string];

const TLS_HINTS: readonly Hint[] = [
  [
    /certificate required|bad certificate|alert number (42|48|116)|handshake failure/i,
    'denied',
    'the server did not accept our certificate: check tls.cert and tls.key',
  ],
  [/altnames|ALTNAME/i, 'denied', 'the certificate of the server is for another name: set tls.serverName'],
  [
    /self[- ]signed|SELF_SIGNED|unable to (verify|get)|UNABLE_TO_|CERT_|certificate has expired/i,
    'denied',
    'the certificate of the server is not trusted: check tls.ca, and its dates',
  ],
  [
    /wrong.version.number|packet length too long|before secure TLS connection was established|WRONG_VERSION|HTTP_REQUEST|record layer failure/i,
    'malformed',
    'this port speaks plain text: write http:// in servers and remove tls',
  ],
];

const GRPC_HINTS: readonly Hint[] = [
  ...TLS_HINTS,
  [/Received message larger than max/, 'limit', 'an answer is over our limit of 10 MiB'],
  [
    /ECONNREFUSED/,
    'lost',
    'nothing listens on its gRPC port (HTTP port + 1000 unless grpcPort is set): check servers, grpcPort and that Nacos runs',
  ],
  [/ENOTFOUND|EAI_AGAIN|Name resolution failed/, 'lost', 'the host name does not resolve: check servers'],
  [/excess pings|ENHANCE_YOUR_CALM/i, 'lost', 'the server refused our keepalive pings'],
  [
    /Expected HTTP\/|Protocol error|Parse Error|Received HTTP status|Missing content-type/i,
    'malformed',
    'what answers there speaks no gRPC: check servers and grpcPort',
  ],
];

/** Any failure of a gRPC call as a SourceError; abort reasons are not for here. */
export function sourceError(thrown: unknown): SourceError {
  if (!(thrown instanceof GrpcFailure)) return asSourceError(thrown);
  for (const [pattern, cause, hint] of GRPC_HINTS) if (pattern.test(thrown.details)) return wrap(thrown, cause, hint);
  switch (thrown.code) {
    case 7:
    case 16:
      return wrap(thrown, 'denied', 'the server refused us: check auth');
    case UNIMPLEMENTED:
      return wrap(thrown, 'malformed', 'this server does not speak Nacos gRPC: check servers and grpcPort (9848 by default)');
    case DEADLINE_EXCEEDED:
      return wrap(thrown, 'lost', 'no answer in time');
    case RESOURCE_EXHAUSTED:
      return wrap(thrown, 'limit', 'the server refused the size or the number of our requests');
    default:
      return wrap(
        thrown,
        'lost',
        'the connection broke; if it always does and the port speaks TLS, write https:// and set tls.ca',
      );
  }
}

function wrap(failure: GrpcFailure, cause: SourceErrorCause, hint: string): SourceError {
  return new SourceError(cause, `nacos ${failure.endpoint}: ${hint} (${safeText(failure.details, 300)})`, { cause: failure });
}

/** A token that a new login would mend (section 3); a missing right is no such thing. */
export function isTokenFault(text: string): boolean {
  return /Code: 401|token (expired|invalid)|User not found|unknown user/i.test(text);
}

/** The failure in an answer that is not ok. */
export function refusalOf(endpoint: string, type: string, answer: Answer): NacosRefusal {
  const { errorCode, message } = answer;
  const text = safeText(message, 300);
  const say = (cause: SourceErrorCause, hint: string, retryAfterMs?: number): NacosRefusal =>
    new NacosRefusal(
      errorCode,
      text,
      cause,
      `nacos ${endpoint}: ${type}: ${hint} (${errorCode}${text === '' ? '' : ` ${text}`})`,
      retryAfterMs,
    );
  if (errorCode === 403 || /authorization failed|Code: 40[13]/.test(message)) {
    return isTokenFault(message)
      ? say('denied', 'it wants a valid login: check auth.username, auth.password or auth.token')
      : say('denied', 'the user has no right here: grant its role the right on the namespace, or check namespace');
  }
  switch (errorCode) {
    case STARTING:
      return say('lost', 'the server is starting', 1_000);
    case UNREGISTERED:
    case -401:
      return say('lost', 'the server has dropped our connection');
    case NO_HANDLER:
      return say('refused', 'this server is too old for this call');
    case 22_001:
      return say('refused', 'the namespace does not exist there: namespace wants the id of a namespace, not its name');
    case 503:
      return say('lost', 'the server is over its limit', 1_000);
    case 400:
      return say('refused', 'the server refused the request');
    case FUZZY_PATTERNS_FULL:
    case FUZZY_NAMES_FULL:
      return say('limit', 'the server watches as many names as it will');
    default:
      if (/Param check invalid/.test(message)) return say('refused', 'the server refused the request');
      return say('lost', 'the call failed');
  }
}

/** The failure of an HTTP answer with a status of failure, or of a Result with a code other than 0. */
export function httpRefusal(address: string, path: string, status: number, code: number, body: string): HttpRefusal {
  const text = safeText(body, 300);
  const say = (cause: SourceErrorCause, hint: string): HttpRefusal =>
    new HttpRefusal(
      status,
      code,
      text,
      cause,
      `nacos ${address}: ${path}: ${hint} (${status}${code === 0 ? '' : ` ${code}`} ${text})`,
    );
  if (status >= 300 && status < 400) return say('malformed', 'it redirects, which is not followed: set servers to Nacos itself');
  if (/HTTP request to an HTTPS server|requires TLS/i.test(body))
    return say('malformed', 'this port speaks TLS: write https:// in servers and set tls.ca');
  if (status === 401 || status === 403 || code === 10_001) {
    return isTokenFault(body)
      ? say('denied', 'it wants a valid login: check auth.username, auth.password or auth.token')
      : say('denied', 'the user has no right here: grant its role the right on the namespace');
  }
  if (status === 410 || code === 40_000) return say('refused', 'this server has switched this API off');
  if (code === 22_001)
    return say('refused', 'the namespace does not exist there: namespace wants the id of a namespace, not its name');
  if (status === 404)
    return say('refused', 'it does not know this path: check servers (the HTTP port, 8848 by default) and contextPath');
  if (status === 429) return say('lost', 'it asks for fewer requests');
  if (status >= 500) return say('lost', 'the call failed');
  return say('refused', 'it refused the request');
}

const TRANSPORT: readonly Hint[] = [
  ...TLS_HINTS,
  [/ECONNREFUSED/, 'lost', 'nothing listens there: check servers and that Nacos runs'],
  [/ENOTFOUND|EAI_AGAIN/, 'lost', 'the host name does not resolve: check servers'],
  [/EHOSTUNREACH|ENETUNREACH/, 'lost', 'there is no route to it: check servers'],
  [
    /HPE_|HTTPParserError|Parse Error|UND_ERR_INVALID/,
    'malformed',
    'what answers there speaks no HTTP (TLS? then write https://): check servers',
  ],
  [/HEADERS_OVERFLOW|MAX_RESPONSE_SIZE|RES_EXCEEDED/, 'limit', 'an answer is over our limit of 10 MiB'],
  [/CONNECT_TIMEOUT/, 'lost', 'no connection in time'],
];

/** The failure of an HTTP call that got no whole answer. */
export function transportFailure(address: string, thrown: unknown): SourceError {
  if (thrown instanceof SourceError) return thrown;
  const about = aboutThrown(thrown);
  for (const [pattern, cause, hint] of TRANSPORT) {
    if (pattern.test(about))
      return new SourceError(cause, `nacos ${address}: ${hint} (${safeText(about, 200)})`, { cause: thrown });
  }
  return new SourceError(
    'lost',
    `nacos ${address}: the connection failed; if the port speaks TLS, write https:// (${safeText(about, 200)})`,
    { cause: thrown },
  );
}

function aboutThrown(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const code = 'code' in thrown && typeof thrown.code === 'string' ? `${thrown.code} ` : '';
  const inner = thrown instanceof AggregateError ? thrown.errors.map(aboutThrown).join(', ') : '';
  const cause = thrown.cause === undefined ? '' : ` / ${aboutThrown(thrown.cause)}`;
  return `${code}${thrown.name}: ${thrown.message}${inner}${cause}`;
}

/** Control characters out, so that texts of others can be shown. */
export function safeText(text: string, max: number): string {
  return text
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
    .trim()
    .slice(0, max);
}
