// Owns the table of proxy-semantics §2: what an attempt's outcome means to outlier detection and to the breaker. Pure.
// The numbers themselves are part of the request path's interface: cluster/pick-interface.ts repeats them by name.

/**
 * Status 200..599 once a whole response head came, or one of the constants below.
 */
export type Outcome = number;
/** Nobody learns from it. */
export const IGNORED = 0;
/** Reset or EOF before or after the head, malformed response: seen as 500, local origin. */
export const LOCAL_FAILURE = -1;
/** Per-try or route timeout: seen as 504, local origin. */
export const TIMEOUT = -2;
/** Connect refused, timed out, TLS failed: seen as 503, local origin. */
export const CONNECT_FAILURE = -3;

/** Made by this process, not told by the upstream. */
export function isLocalOrigin(outcome: Outcome): boolean {
  return outcome < 0;
}

/** The status that outlier detection sees while local and external errors are not split. */
export function outlierStatus(outcome: Outcome): number {
  if (outcome === LOCAL_FAILURE) return 500;
  if (outcome === TIMEOUT) return 504;
  return outcome === CONNECT_FAILURE ? 503 : outcome;
}

/** 502, 503, 504: the upstream's own gateway words, and what local failures to reach it look like. */
export function isGatewayFailure(status: number): boolean {
  return status >= 502 && status <= 504;
}

/** Whether an ordinary attempt counts against the breaker: local failures, 502, 503, 504; not 500, not 429. */
export function isBreakerFailure(outcome: Outcome): boolean {
  return outcome < 0 || isGatewayFailure(outcome);
}

/** Whether a half-open probe failed: as above, and 429 (gRPC 8 maps to it). */
export function isProbeFailure(outcome: Outcome): boolean {
  return isBreakerFailure(outcome) || outcome === 429;
}
