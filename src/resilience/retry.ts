// Owns the decision whether an attempt may be repeated (proxy-semantics §5.1-5.3). Pure; proxy asks it, then the budget, then the time.
import type { RetryCondition, RetryPolicy } from '../model/policy.ts';

/**
 * How an attempt ended, by retry class:
 * - connect: refused, timed out, TLS failed, or closed before a byte was handed to the kernel (unsent);
 * - refusedStream: the upstream said that it did not begin (unsent; HTTP/2);
 * - reset: closed or malformed before a byte of the response (no-response);
 * - perTryTimeout: no response head within the per-try timeout (no-response);
 * - status: a whole response head came;
 * - final: own overflow, route timeout, client gone, cut after the response head. Never repeated.
 */
export type AttemptEnd = 'connect' | 'refusedStream' | 'reset' | 'perTryTimeout' | 'status' | 'final';

/** What is known of the request at the moment of the decision. One object per request, changed in place. */
export interface RetryFacts {
  readonly method: string;
  readonly hasBody: boolean;
  /** The request carries Idempotency-Key. */
  readonly hasIdempotencyKey: boolean;
  /** Every body byte received so far is still kept (64 KiB), or there is none. */
  readonly bodyReplayable: boolean;
  /** A byte of a response went downstream. */
  readonly responseStarted: boolean;
  /** Retries that were started before. */
  readonly retries: number;
  /** An overload action is active. */
  readonly overloaded: boolean;
  /** The response is marked final: `x-weir-retry-final: 1`, or `x-weir-error` on a 503. */
  readonly markedFinal: boolean;
}

/** `retry`, or the first rule in the order of §5.3 that forbids it. */
export type RetryAnswer =
  | 'retry'
  | 'responseStarted'
  | 'neverRetried'
  | 'notIdempotent'
  | 'bodyNotKept'
  | 'notListed'
  | 'attemptsUsedUp'
  | 'overloaded'
  | 'markedFinal';

/** Decides by §5.3, up to the budget and the time left, which the caller asks after a `retry`. `status` matters for `status` only. */
export function decideRetry(policy: RetryPolicy, facts: RetryFacts, end: AttemptEnd, status: number): RetryAnswer {
  if (facts.responseStarted) return 'responseStarted';
  if (end === 'final') return 'neverRetried';
  if (!isUnsent(end)) {
    if (!mayRepeat(policy, facts)) return 'notIdempotent';
    if (!facts.bodyReplayable) return 'bodyNotKept';
  }
  if (!isListed(policy, end, status)) return 'notListed';
  if (facts.retries >= policy.attempts) return 'attemptsUsedUp';
  if (facts.overloaded) return 'overloaded';
  return facts.markedFinal ? 'markedFinal' : 'retry';
}

/** No byte of the request reached the upstream: any method may be repeated, any body is still whole. */
export function isUnsent(end: AttemptEnd): boolean {
  return end === 'connect' || end === 'refusedStream';
}

/** RFC 9110 §9.2.2 without TRACE, which is never passed on. Takes a half-open probe's slot, may be repeated. */
export function isIdempotent(method: string): boolean {
  switch (method) {
    case 'GET':
    case 'HEAD':
    case 'OPTIONS':
    case 'PUT':
    case 'DELETE':
      return true;
    default:
      return false;
  }
}

/** §5.2: whether a request that may have reached an upstream may be sent again. */
export function mayRepeat(policy: RetryPolicy, facts: Pick<RetryFacts, 'method' | 'hasBody' | 'hasIdempotencyKey'>): boolean {
  const { method } = facts;
  // A body gives these methods a meaning that no specification defines, so the method promises nothing any more.
  if (facts.hasBody && (method === 'GET' || method === 'HEAD' || method === 'DELETE')) return false;
  return isIdempotent(method) || policy.nonIdempotent || (policy.idempotencyKey && facts.hasIdempotencyKey);
}

function isListed(policy: RetryPolicy, end: AttemptEnd, status: number): boolean {
  for (const condition of policy.on) if (matches(condition, policy, end, status)) return true;
  return false;
}

function matches(condition: RetryCondition, policy: RetryPolicy, end: AttemptEnd, status: number): boolean {
  const answered = end === 'status';
  switch (condition) {
    case 'connectFailure':
      return end === 'connect';
    case 'refusedStream':
      return end === 'refusedStream';
    case 'reset':
      return !answered && end !== 'refusedStream';
    case 'gatewayError':
      return answered ? status >= 502 && status <= 504 : end === 'perTryTimeout';
    case '5xx':
      return !answered || (status >= 500 && status <= 599);
    case 'retriable4xx':
      return answered && status === 409;
    case 'retriableStatusCodes':
      return answered && policy.statusCodes.includes(status);
  }
}
