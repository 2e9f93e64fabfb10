// Owns what a failed call means: gRPC status and etcd's own text → SourceError with a sentence that says what to change.
// Called by everything in this folder that lets a failure out; must never put a key, a value or a secret into a message.
import { asSourceError, SourceError, type SourceErrorCause } from '../../src/model/snapshot.ts';

/** gRPC status codes that we look at. */
export const CANCELLED = 1;
export const INVALID_ARGUMENT = 3;
export const DEADLINE_EXCEEDED = 4;
export const NOT_FOUND = 5;
export const PERMISSION_DENIED = 7;
export const RESOURCE_EXHAUSTED = 8;
export const FAILED_PRECONDITION = 9;
export const OUT_OF_RANGE = 11;
export const UNIMPLEMENTED = 12;
export const UNAVAILABLE = 14;
export const UNAUTHENTICATED = 16;

/** A call that ended with a status other than OK. `details` is the server's or the transport's text. */
export class EtcdFailure extends Error {
  readonly code: number;
  readonly details: string;
  readonly endpoint: string;

  constructor(code: number, details: string, endpoint: string) {
    super(`etcd ${endpoint}: ${details} (gRPC status ${code})`);
    this.name = 'EtcdFailure';
    this.code = code;
    this.details = details;
    this.endpoint = endpoint;
  }
}

/** The call may have been carried out although it failed (protocol notes, section 2: a failed write is an unknown outcome). */
export function unknownOutcome(thrown: unknown): boolean {
  return thrown instanceof EtcdFailure && (connectionFault(thrown) || thrown.code === CANCELLED || thrown.code === 13);
}

/** The connection (not the request) is at fault: throw it away and take the next endpoint. */
export function connectionFault(thrown: unknown): boolean {
  if (!(thrown instanceof EtcdFailure)) return false;
  if (thrown.code === RESOURCE_EXHAUSTED) return thrown.details.includes('Bandwidth exhausted');
  return thrown.code === UNAVAILABLE || thrown.code === DEADLINE_EXCEEDED;
}

/** The history that was asked for is gone: list again. */
export function isCompacted(thrown: unknown): boolean {
  return thrown instanceof EtcdFailure && thrown.code === OUT_OF_RANGE && thrown.details.includes('compacted');
}

/** The lease of a put, txn or revoke is gone. */
export function isLeaseGone(thrown: unknown): boolean {
  return thrown instanceof EtcdFailure && thrown.code === NOT_FOUND;
}

/** A fresh token may help (expired, killed, auth switched on or off, auth store moved on). */
export function isTokenFault(thrown: unknown): boolean {
  if (!(thrown instanceof EtcdFailure)) return false;
  if (thrown.code === UNAUTHENTICATED) return true;
  return thrown.code === INVALID_ARGUMENT && /user name is empty|revision of auth store is old/.test(thrown.details);
}

/** The server has authentication switched off: go on without a token. */
export function isAuthOff(thrown: unknown): boolean {
  return thrown instanceof EtcdFailure && thrown.code === FAILED_PRECONDITION && thrown.details.includes('not enabled');
}

const HINTS: readonly (readonly [pattern: RegExp, cause: SourceErrorCause, hint: string])[] = [
  [/user name is empty/, 'denied', 'this etcd has authentication on: set auth.username and auth.password'],
  [
    /authentication failed, invalid user ID or password/,
    'denied',
    'user name or password is wrong: check auth.username, auth.password',
  ],
  [/invalid auth token|revision of auth store is old/, 'denied', 'the token is not accepted (expired or killed): check auth'],
  [/permission denied/, 'denied', 'the user may not read or write this prefix: grant its role the range, or change prefix'],
  [/database space exceeded/, 'refused', 'the database is over its quota: compact, defragment, then disarm the NOSPACE alarm'],
  [
    /request is too large|larger than max \(\d+ vs\. \d+\)/,
    'refused',
    'the request is over the limit of the server (1.5 MiB by default)',
  ],
  [/too many operations/, 'refused', 'more operations in one transaction than the server allows'],
  [/Received message larger than max/, 'limit', 'an answer is over our limit of 64 MiB: narrow prefix'],
  [/Bandwidth exhausted/, 'lost', 'the server refused our keepalive pings: its --grpc-keepalive-min-time is above 10 s'],
  [/no leader/, 'lost', 'the member has no leader: the cluster lost its quorum or is electing'],
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
    'no TLS there: if this port speaks plain text, write http:// and remove tls',
  ],
  [/ECONNREFUSED/, 'lost', 'nothing listens there: check endpoints and that etcd runs'],
  [/ENOTFOUND|EAI_AGAIN|Name resolution failed/, 'lost', 'the host name does not resolve: check endpoints'],
];

/** Any failure of a call as a SourceError. What is none of ours (abort reasons apart) counts as lost. */
export function sourceError(thrown: unknown): SourceError {
  if (!(thrown instanceof EtcdFailure)) return asSourceError(thrown);
  for (const [pattern, cause, hint] of HINTS) {
    if (pattern.test(thrown.details)) return wrap(thrown, cause, hint);
  }
  switch (thrown.code) {
    case PERMISSION_DENIED:
    case UNAUTHENTICATED:
      return wrap(thrown, 'denied', 'the server refused us: check auth and the rights of the user');
    case UNIMPLEMENTED:
      return wrap(
        thrown,
        'malformed',
        'this server does not speak etcd v3 gRPC: check that endpoints name the client port (2379)',
      );
    case DEADLINE_EXCEEDED:
      return wrap(thrown, 'lost', 'no answer in time');
    case UNAVAILABLE:
    case CANCELLED:
      return wrap(thrown, 'lost', plainToTls(thrown.details));
    case INVALID_ARGUMENT:
    case NOT_FOUND:
    case FAILED_PRECONDITION:
    case OUT_OF_RANGE:
      return wrap(thrown, 'refused', 'the server refused the request');
    default:
      return wrap(thrown, 'lost', 'the call failed');
  }
}

/** A TLS port just closes on plain text, so only the pattern of the failure tells. */
function plainToTls(details: string): string {
  return /ECONNRESET|Failed to connect|socket hang up|Protocol error|closed before|session closed/i.test(details)
    ? 'the connection broke; if it always does and the port speaks TLS, write https:// and set tls.ca'
    : 'the connection failed';
}

function wrap(failure: EtcdFailure, cause: SourceErrorCause, hint: string): SourceError {
  const details = failure.details.replace(/[\u0000-\u001f\u007f]/g, ' ').slice(0, 300);
  return new SourceError(cause, `etcd ${failure.endpoint}: ${hint} (${details})`, { cause: failure });
}
