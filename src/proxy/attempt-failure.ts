// Owns what a failed attempt means (the table of proxy-semantics §2): to outlier detection and breaker, to the retry decision,
// and to the client. Called by attempt.ts. Pure.
import {
  type AttemptOutcome,
  OUTCOME_CONNECT_FAILURE,
  OUTCOME_IGNORED,
  OUTCOME_LOCAL_FAILURE,
} from '../cluster/pick-interface.ts';
import type { UpstreamFailure } from '../http1/exchange.ts';
import type { AttemptEnd } from '../resilience/retry.ts';
import type { LocalCode } from './local-reply.ts';
import { type FailureCause, failureCause } from './service-slot.ts';

/** What a failed attempt means to the exchange. */
export interface AttemptFailure {
  readonly end: AttemptEnd;
  readonly code: LocalCode;
  /** Null: not the upstream's fault, not counted. */
  readonly cause: FailureCause | null;
  /** Words for the log; may hold an address, goes into no reply. */
  readonly message: string;
}

/** What outlier detection and breaker learn of a failure. */
export function outcomeOf(failure: UpstreamFailure): AttemptOutcome {
  if (failure.cause === 'overflow' || failure.cause === 'cancelled') return OUTCOME_IGNORED;
  return failure.cause === 'connect' ? OUTCOME_CONNECT_FAILURE : OUTCOME_LOCAL_FAILURE;
}

/** Retry class and local code. `replayable`: an unsent request whose body is gone can no more be sent than one that was. */
export function meaningOf(failure: UpstreamFailure, replayable: boolean): AttemptFailure {
  const cause = failureCause(failure.cause);
  const { message } = failure;
  if (failure.cause === 'overflow') return { end: 'final', code: 'UPSTREAM_OVERFLOW', cause, message };
  const unsent = failure.class === 'unsent' && replayable;
  if (failure.cause === 'connect') return { end: unsent ? 'connect' : 'reset', code: 'UPSTREAM_CONNECT_FAILED', cause, message };
  if (failure.cause === 'protocol') return { end: 'reset', code: 'UPSTREAM_PROTOCOL', cause, message };
  // A response that broke off inside its head is neither "no response byte" nor malformed: never repeated.
  const end = unsent ? 'connect' : failure.class === 'started' ? 'final' : 'reset';
  return { end, code: 'UPSTREAM_RESET', cause, message };
}
