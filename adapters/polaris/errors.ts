// Owns what a failure means: gRPC status, transport text and Polaris' own codes → SourceError with a sentence that says what to change.
// Called by everything in this folder that lets a failure out; must never put a token or metadata into a message.
import { asSourceError, SourceError, type SourceErrorCause } from '../../src/model/snapshot.ts';

/** gRPC status codes that we look at. */
export const DEADLINE_EXCEEDED = 4;
export const RESOURCE_EXHAUSTED = 8;
export const UNIMPLEMENTED = 12;
export const INTERNAL = 13;
export const UNAVAILABLE = 14;

/** Codes inside of answers (protocol notes, section 6). */
export const OK = 200_000;
export const NO_CHANGE = 200_001;
export const NO_NEED_UPDATE = 200_002;
export const BAD_REQUEST = 400_000;
export const INVALID_TYPE = 400_004;
export const HEARTBEAT_ON_DISABLED = 400_141;
export const EXISTED = 400_201;
export const NOT_FOUND = 400_202;
export const SAME_INSTANCE = 400_208;
const API_LIMIT = 403_003;
const INSTANCE_LIMIT = 429_001;
export const IP_LIMIT = 429_002;

const MISSING: ReadonlySet<number> = new Set([NOT_FOUND, 400_301, 400_303]);

/** The thing that a write names is not there. */
export function isMissing(code: number): boolean {
  return MISSING.has(code);
}

/** A call that ended with a gRPC status other than OK (or a stream that just ended). `details` is the server's or the transport's text. */
export class PolarisFailure extends Error {
  readonly status: number;
  readonly details: string;
  readonly server: string;

  constructor(status: number, details: string, server: string) {
    super(`polaris ${server}: ${details} (gRPC status ${status})`);
    this.name = 'PolarisFailure';
    this.status = status;
    this.details = details;
    this.server = server;
  }
}

type Hint = readonly [pattern: RegExp, cause: SourceErrorCause, hint: string];

const HINTS: readonly Hint[] = [
  [/[Rr]eceived message larger than max/, 'limit', 'an answer is over our limit of 50 MiB: the service has too many instances'],
  [
    /Bandwidth exhausted|too_many_pings|(GOAWAY with|closed with error) code (11\b|NGHTTP2_ENHANCE)/,
    'lost',
    'the server closed the connection to protect itself',
  ],
  [
    /certificate required|bad certificate|alert number (42|48|116)|handshake failure/,
    'denied',
    'the server did not accept our certificate: check tls.cert and tls.key',
  ],
  [/altnames|ERR_TLS_CERT_ALTNAME/i, 'denied', 'the certificate of the server is for another name: set tls.serverName'],
  [
    /self[- ]signed certificate|unable to (verify|get)|unable_to|CERT_|certificate has expired/i,
    'denied',
    'the certificate of the server is not trusted: check tls.ca, and its dates',
  ],
  [
    /wrong version number|packet length too long|before secure TLS connection was established/,
    'lost',
    'no TLS there: if this port speaks plain text (as Polaris does by default), remove tls',
  ],
  [/ECONNREFUSED/, 'lost', 'nothing listens there: check servers and that Polaris runs'],
  [/ENOTFOUND|EAI_AGAIN|Name resolution failed/, 'lost', 'the host name does not resolve: check servers'],
  [/EHOSTUNREACH|ENETUNREACH/, 'lost', 'there is no route to this address: check servers'],
];

/** A port that is not the one we want, as the transport shows it. */
const NOT_GRPC =
  /Protocol error|NGHTTP2|Received HTTP status code|invalid content-type|HTTP\/1\.|Expected HTTP|Parse Error|unexpected server preface/i;
const BROKE =
  /ECONNRESET|EPIPE|Failed to connect|socket hang up|closed before|session closed|connection closed before|connection was closed|RST_STREAM|GOAWAY/i;

/** Any failure of a call as a SourceError. What is none of ours (abort reasons apart) counts as lost. */
export function sourceError(thrown: unknown): SourceError {
  if (!(thrown instanceof PolarisFailure)) return asSourceError(thrown);
  for (const [pattern, cause, hint] of HINTS) if (pattern.test(thrown.details)) return wrap(thrown, cause, hint);
  if (thrown.status === UNIMPLEMENTED) {
    return wrap(
      thrown,
      'malformed',
      'this is a gRPC server, but no Polaris: check that servers name its service-grpc port (8091)',
    );
  }
  if (NOT_GRPC.test(thrown.details)) {
    return wrap(
      thrown,
      'lost',
      'no gRPC there: check that servers name the service-grpc port (8091; write http://host:8090 for the HTTP port), and set tls if the port speaks TLS',
    );
  }
  if (thrown.status === UNAVAILABLE && BROKE.test(thrown.details)) {
    return wrap(
      thrown,
      'lost',
      'the connection broke; if it always does, the port is not the service-grpc port (8091) or speaks TLS: then set tls',
    );
  }
  if (thrown.status === DEADLINE_EXCEEDED) {
    return wrap(thrown, 'lost', 'no answer in time: the server hangs, or the port is not the service-grpc port (8091)');
  }
  return wrap(thrown, 'lost', 'the call failed');
}

function wrap(failure: PolarisFailure, cause: SourceErrorCause, hint: string): SourceError {
  return new SourceError(cause, `polaris ${failure.server}: ${hint} (${shown(failure.details)})`, { cause: failure });
}

/** What is wrong in words, by code; the server's own `info` is localised and only shown. */
const CODES: ReadonlyMap<number, readonly [cause: SourceErrorCause, hint: string]> = new Map([
  [INVALID_TYPE, ['refused', 'this server does not serve that kind of answer']],
  [400_110, ['refused', 'Polaris takes no namespace of this name (at most 64 of A-Z a-z 0-9 - . / : _)']],
  [400_120, ['refused', 'Polaris takes no service of this name (at most 128 of A-Z a-z 0-9 - . / : _)']],
  [400_131, ['refused', 'Polaris does not take this host']],
  [400_132, ['refused', 'Polaris does not take this port']],
  [400_140, ['refused', 'health checks are switched off on this server (healthcheck.open): beats are not counted']],
  [400_150, ['refused', 'Polaris does not take this metadata']],
  [400_401, ['denied', 'the client API of this port is switched off: see apiservers[].api.client of the server']],
  [401_000, ['denied', 'the server wants a token: set auth.token']],
  [
    401_001,
    ['denied', 'the token is missing, wrong, or may not do this: set auth.token to one of a user or group with rights here'],
  ],
  [401_002, ['denied', 'the server wants a token: set auth.token']],
  [401_003, ['denied', 'the token is disabled: enable it in the console, or set another auth.token']],
  [401_004, ['denied', 'the token was replaced by a newer one: set auth.token anew']],
  [403_001, ['denied', 'the user of this token may not do this: grant the rights in the console']],
  [403_002, ['denied', 'the user of this token may not do this: grant the rights in the console']],
]);

const THROTTLED: ReadonlySet<number> = new Set([API_LIMIT, INSTANCE_LIMIT, IP_LIMIT]);
const THROTTLE_WAIT_MS = 5_000;

/** An answer whose code is no success. `what` says what was asked, without secrets. */
export function codeError(code: number, info: string, server: string, what: string): SourceError {
  const says = `(${code} ${shown(info)})`;
  if (THROTTLED.has(code)) {
    const message = `polaris ${server}: ${what}: the server limits our rate ${says}`;
    return new SourceError('lost', message, { retryAfterMs: THROTTLE_WAIT_MS });
  }
  const known = CODES.get(code);
  if (known !== undefined) return new SourceError(known[0], `polaris ${server}: ${what}: ${known[1]} ${says}`);
  const family = Math.floor(code / 1_000);
  if (family === 401 || family === 403)
    return new SourceError('denied', `polaris ${server}: ${what}: not allowed: check auth.token ${says}`);
  if (family >= 400 && family < 500) return new SourceError('refused', `polaris ${server}: ${what}: refused ${says}`);
  if (family >= 500 && family < 600) return new SourceError('lost', `polaris ${server}: ${what}: the server has a fault ${says}`);
  return new SourceError('malformed', `polaris ${server}: ${what}: an answer with a code that means nothing to us ${says}`);
}

/** Text from outside, fit for a message. */
export function shown(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, ' ').slice(0, 200);
}
