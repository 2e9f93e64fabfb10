// Owns the port between a cluster and its load balancers: what a picker reads of a candidate and what it answers. Types only, apart from
// the two helpers that every picker shares. A picker is built from candidates that are all pickable; it never asks about health.
import type { Random } from '../kernel/random.ts';

/** What a picker reads of a candidate. `weight` must not change while a picker lives (a change builds a new one); `active` does. */
export interface Candidate {
  /** Whole number, 0 is never picked. */
  readonly weight: number;
  /** Attempts in flight. */
  readonly active: number;
}

/** An immutable chooser over an array of candidates (a private cursor aside). Each pick is O(1) and allocates nothing. */
export interface Picker {
  /** Index into the array it was built from, or -1 when no candidate has a weight above 0. */
  pick(random: Random): number;
}

/** True when every weight is the same and above 0, so that drawing by weight is drawing evenly. */
export function equalWeights(weights: readonly number[]): boolean {
  const first = weights[0] ?? 0;
  return first > 0 && weights.every((weight) => weight === first);
}

/** The weights of candidates, in their order. */
export function weightsOf(candidates: readonly Candidate[]): number[] {
  return candidates.map((candidate) => candidate.weight);
}
