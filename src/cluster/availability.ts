// Owns who may be picked (proxy-semantics §9): endpoints of a cluster → the candidates of its next picker, panic included. Pure.
// Called by pick-set.ts. Must never read a clock: what time changes (ejection, breaker) is already in the endpoint.
import { inPanic } from '../balance/panic.ts';
import { routable } from '../model/health-status.ts';
import type { Endpoint } from './endpoint.ts';

/** The groups of a weighted merge whose share is above 0, or null when the cluster has none. */
export type Shares = ReadonlyMap<string, number> | null;

export interface Availability {
  readonly panic: boolean;
  /** May be picked by anyone. */
  readonly candidates: readonly Endpoint[];
  /** With a free half-open slot: one request each. Taken from the end, where those stand that have waited longest. */
  readonly slots: readonly Endpoint[];
  /** True when at least one endpoint is out for its breaker alone. */
  readonly breakerBlocks: boolean;
}

/** May take traffic at all, healthy or not: not isolated, weight above 0, not removed, in a group with a share. */
export function isEligible(endpoint: Endpoint, shares: Shares): boolean {
  const { weight, verdict } = endpoint.update;
  return weight > 0 && verdict !== 'isolated' && !endpoint.removed && (shares === null || hasShare(endpoint, shares));
}

/** Eligible, and neither its health nor its ejection speaks against it; the breaker is asked elsewhere. */
export function isWell(endpoint: Endpoint, shares: Shares): boolean {
  return isEligible(endpoint, shares) && routable(endpoint.update.verdict) && !endpoint.ejected;
}

/**
 * Sorts endpoints into candidates and free half-open slots. Panic is computed over the eligible ones: an operator who isolates hosts or
 * takes their weight does not thereby call for the unhealthy rest. Panic ignores verdict and ejection, never a breaker; but an open
 * breaker then offers its one slot early, so that breakers are not the outage themselves.
 */
export function availability(endpoints: Iterable<Endpoint>, shares: Shares, panicThreshold: number): Availability {
  const eligible: Endpoint[] = [];
  const well: Endpoint[] = [];
  let available = 0;
  for (const endpoint of endpoints) {
    if (!isEligible(endpoint, shares)) continue;
    eligible.push(endpoint);
    if (!isWell(endpoint, shares)) continue;
    well.push(endpoint);
    if (endpoint.breaker?.sleeping !== true) available++;
  }
  const panic = inPanic(available, eligible.length, panicThreshold);
  return byBreaker(panic ? eligible : well, panic);
}

function byBreaker(set: readonly Endpoint[], panic: boolean): Availability {
  const candidates: Endpoint[] = [];
  const slots: Endpoint[] = [];
  for (const endpoint of set) {
    if (endpoint.breakerClosed) candidates.push(endpoint);
    else if (endpoint.breaker?.slotFree === true || (panic && endpoint.earlySlotFree)) slots.push(endpoint);
  }
  // In turn: else, with little traffic and no retries, the same dead endpoint would be asked each second and the living one never.
  if (panic) slots.sort((a, b) => earlySince(b) - earlySince(a));
  return { panic, candidates, slots, breakerBlocks: candidates.length < set.length };
}

function earlySince(endpoint: Endpoint): number {
  return endpoint.breaker?.earlySince ?? 0;
}

function hasShare(endpoint: Endpoint, shares: ReadonlyMap<string, number>): boolean {
  return endpoint.update.groups?.some((group) => shares.has(group)) ?? false;
}
