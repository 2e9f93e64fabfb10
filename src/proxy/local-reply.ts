// Owns the replies of weir's own making: which x-weir-error code goes with which status, and the text of their head and body.
// Called by exchange.ts and the drain; must never put a byte from outside into a reply.

/** Codes of `x-weir-error` (contract.md, proxy-semantics §18). */
export type LocalCode =
  | 'BAD_REQUEST'
  | 'ROUTE_NOT_FOUND'
  | 'UPSTREAM_CONNECT_FAILED'
  | 'UPSTREAM_RESET'
  | 'UPSTREAM_PROTOCOL'
  | 'UPSTREAM_TIMEOUT'
  | 'LOOP_DETECTED'
  | 'NO_HEALTHY_UPSTREAM'
  | 'UPSTREAM_OVERFLOW'
  | 'BREAKER_OPEN'
  | 'OVERLOADED'
  | 'DRAINING'
  | 'CATALOG_NOT_READY';

interface CodeAbout {
  readonly status: number;
  /** Seconds of Retry-After, where load or time is the cause; 0: none. */
  readonly retryAfter: number;
}

/** Status of each code; BAD_REQUEST is the family of 400 405 408 413 414 417 431 501 505 and CONNECT's 403. */
export const LOCAL_CODES: Readonly<Record<LocalCode, CodeAbout>> = {
  BAD_REQUEST: { status: 400, retryAfter: 0 },
  ROUTE_NOT_FOUND: { status: 404, retryAfter: 0 },
  UPSTREAM_CONNECT_FAILED: { status: 502, retryAfter: 0 },
  UPSTREAM_RESET: { status: 502, retryAfter: 0 },
  UPSTREAM_PROTOCOL: { status: 502, retryAfter: 0 },
  UPSTREAM_TIMEOUT: { status: 504, retryAfter: 0 },
  LOOP_DETECTED: { status: 508, retryAfter: 0 },
  NO_HEALTHY_UPSTREAM: { status: 503, retryAfter: 0 },
  UPSTREAM_OVERFLOW: { status: 503, retryAfter: 1 },
  BREAKER_OPEN: { status: 503, retryAfter: 1 },
  OVERLOADED: { status: 503, retryAfter: 1 },
  DRAINING: { status: 503, retryAfter: 1 },
  CATALOG_NOT_READY: { status: 503, retryAfter: 1 },
};

const REASONS: ReadonlyMap<number, string> = new Map([
  [400, 'Bad Request'],
  [403, 'Forbidden'],
  [404, 'Not Found'],
  [405, 'Method Not Allowed'],
  [408, 'Request Timeout'],
  [413, 'Content Too Large'],
  [414, 'URI Too Long'],
  [417, 'Expectation Failed'],
  [431, 'Request Header Fields Too Large'],
  [501, 'Not Implemented'],
  [502, 'Bad Gateway'],
  [503, 'Service Unavailable'],
  [504, 'Gateway Timeout'],
  [505, 'HTTP Version Not Supported'],
  [508, 'Loop Detected'],
]);

/** Reason phrase of a status that weir itself sends; empty for others. */
export function reasonOf(status: number): string {
  return REASONS.get(status) ?? '';
}

/** Why a request is answered by weir itself. `message` is for people: our own words only. */
export interface LocalReply {
  readonly code: LocalCode;
  /** Overrides the code's status within the BAD_REQUEST family. */
  readonly status: number;
  readonly message: string;
}

/** A local reply with the status of its code, or another one of the BAD_REQUEST family. */
export function localReply(code: LocalCode, message: string, status = LOCAL_CODES[code].status): LocalReply {
  return { code, status, message };
}

/** What the head says besides the code; `extra` is whole lines, each with its CRLF. */
export function localReplyHead(reply: LocalReply, extra: string): string {
  const { retryAfter } = LOCAL_CODES[reply.code];
  const wait = retryAfter > 0 ? `retry-after: ${retryAfter}\r\n` : '';
  return (
    `HTTP/1.1 ${reply.status} ${reasonOf(reply.status)}\r\n` +
    `content-type: application/json\r\nx-weir-error: ${reply.code}\r\n${wait}${extra}`
  );
}

/** The body: the error shape of weir's API. */
export function localReplyBody(reply: LocalReply): string {
  return `${JSON.stringify({ error: { code: reply.code, message: reply.message } })}\n`;
}

/** The replies that need no more words than their code gives. */
export const REPLIES = {
  unknownService: localReply('ROUTE_NOT_FOUND', 'no source knows this service'),
  notReady: localReply('CATALOG_NOT_READY', 'not every source has answered yet'),
  overloaded: localReply('OVERLOADED', 'this weir has no room for another request'),
  overflow: localReply('UPSTREAM_OVERFLOW', 'limits.maxRequests of the service is reached'),
  draining: localReply('DRAINING', 'this weir is going away'),
  tooLarge: localReply('BAD_REQUEST', 'the request body is above maxRequestBody', 413),
} as const;

const FAILURES: ReadonlyMap<LocalCode, LocalReply> = new Map(
  (
    [
      ['UPSTREAM_CONNECT_FAILED', 'no connection to the upstream'],
      ['UPSTREAM_RESET', 'the upstream closed the connection without a response'],
      ['UPSTREAM_PROTOCOL', 'the response of the upstream breaks HTTP/1.1'],
      ['UPSTREAM_TIMEOUT', 'the upstream did not respond in time'],
      ['UPSTREAM_OVERFLOW', 'too many requests wait for a connection to the upstream'],
      ['NO_HEALTHY_UPSTREAM', 'the service has no instance that may be used'],
      ['BREAKER_OPEN', 'the breakers of all instances of the service are open'],
    ] as const
  ).map(([code, message]) => [code, localReply(code, message)]),
);

/** The reply for what became of an attempt. */
export function failureReply(code: LocalCode): LocalReply {
  return FAILURES.get(code) ?? localReply(code, 'the request failed');
}
