// Owns the types by which proxy/ talks to a cluster. Types and constants only; cluster.ts and endpoint.ts implement them.
import type { Pool } from '../http1/pool.ts';
import type { ClusterPolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import { CONNECT_FAILURE, IGNORED, LOCAL_FAILURE, TIMEOUT } from '../resilience/outcome.ts';

/**
 * What became of an attempt (proxy-semantics §2 table), as a number so that telling it allocates nothing:
 * a status 200..599 once a whole response head came, or one of the constants below. Feeds outlier detection and breaker.
 */
export type AttemptOutcome = number;
/** Client went away, own overflow, a timer of ours that was late: nobody learns from it. */
export const OUTCOME_IGNORED = IGNORED;
/** Reset or EOF before or after the head; malformed response: 500, local origin. */
export const OUTCOME_LOCAL_FAILURE = LOCAL_FAILURE;
/** Per-try or route timeout: 504, local origin. */
export const OUTCOME_TIMEOUT = TIMEOUT;
/** Connect refused, timed out, TLS failed: 503, local origin. Differs from a local failure for the gateway counter only. */
export const OUTCOME_CONNECT_FAILURE = CONNECT_FAILURE;

/** One `host:port` of a cluster; the object survives pushes, so the request path may hold it across an attempt. */
export interface PickedEndpoint {
  readonly host: string;
  readonly port: number;
  /** `host:port` text, ready for x-weir-upstream. */
  readonly address: string;
  readonly pool: Pool;
}

/** Why a pick gave nothing. */
export type NoPick = 'NO_HEALTHY_UPSTREAM' | 'BREAKER_OPEN';

/** The runtime group of one service, as the request path sees it. Every method is O(1) and allocates nothing. */
export interface PickCluster {
  readonly service: ServiceId;
  readonly policy: ClusterPolicy;
  /** True when the last pick ignored health (x-weir-panic). */
  readonly panic: boolean;
  /** Why the last pick that returned null did. */
  readonly noPick: NoPick;
  /** Lower-case header whose place (sides.ts) goes into `pick`; null: none. */
  readonly stickyHeader: string | null;
  /** The group that the last pick was drawn over, for `countSide`; -1: none, as after a retry or without shares. */
  readonly drawnSide: number;
  /** Counts a request in against limits.maxRequests; false: overflow (503, invisible to outlier and breaker). */
  startRequest(): boolean;
  endRequest(): void;
  /** First attempt counted for the retry budget. */
  countFirstAttempt(): void;
  /**
   * Takes one retry from the budget; false: used up. A retry counts from the moment it enters back-off. `free`: counted for people, but
   * always granted and not taken from the budget (the keep-alive race); its end is not told.
   */
  tryRetry(free?: boolean): boolean;
  /** Ends a retry that `tryRetry` granted: its attempt ended, or it was given up in back-off. Only a budget without a window (interval 0) needs it. */
  endRetry(): void;
  /**
   * Chooses an endpoint and counts the attempt in (in flight, half-open slot). `tried`: endpoints of earlier attempts, avoided by
   * up to 5 re-picks and then by looking at neighbours; used again only when all candidates were tried. `idempotent` false: takes a half-open probe's slot only without another candidate.
   * `place` in [0, 1): decides the group instead of chance, see `stickyHeader`.
   */
  pick(tried: readonly PickedEndpoint[] | null, idempotent: boolean, place?: number): PickedEndpoint | null;
  /** Counts the outcome of an attempt for the group that it was drawn over (`drawnSide`); `ms`: how long it took. */
  countSide(side: number, outcome: AttemptOutcome, ms: number): void;
  /** Ends the attempt that `pick` counted in; exactly once per pick. */
  end(endpoint: PickedEndpoint, outcome: AttemptOutcome): void;
}
