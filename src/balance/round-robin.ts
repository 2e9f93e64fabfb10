// Owns the `roundRobin` policy (proxy-semantics §10): the earliest-deadline-first order laid out once as a sequence. Built by cluster.
// Must never lay out before the first pick: most pickers of a large catalog are replaced before anyone asks them.
import { type Random, randomBelow } from '../kernel/random.ts';
import { type Candidate, equalWeights, type Picker, weightsOf } from './picker.ts';

/** Slots of a sequence are at most this many plus one per candidate. */
export const MAX_SEQUENCE_SLOTS = 4_096;

/** Walks the sequence from a random start; each candidate comes as often as its weight says, spread evenly. */
export class RoundRobinPicker implements Picker {
  readonly #candidates: readonly Candidate[];
  #sequence: Uint32Array | null = null;
  #cursor = -1;

  constructor(candidates: readonly Candidate[]) {
    this.#candidates = candidates;
  }

  pick(random: Random): number {
    this.#sequence ??= edfSequence(weightsOf(this.#candidates));
    const slots = this.#sequence.length;
    if (slots === 0) return -1;
    if (this.#cursor < 0) this.#cursor = randomBelow(random, slots);
    const index = this.#sequence[this.#cursor] ?? -1;
    this.#cursor = this.#cursor + 1 === slots ? 0 : this.#cursor + 1;
    return index;
  }
}

/**
 * One period of earliest deadline first (a pick moves its deadline by 1 / weight, first in first out on ties) as indexes.
 * Over one period candidate i has its deadlines at k / wᵢ for k = 1..wᵢ, so the order is a sort by deadline. On a tie the entry that
 * waits longer goes first, that is the one with the earlier previous deadline (k − 1) / wᵢ: the smaller weight, then the lower index.
 */
export function edfSequence(weights: readonly number[]): Uint32Array {
  const turns = turnsOf(weights);
  const slots = total(turns);
  const owner = new Uint32Array(slots);
  const deadline = new Float64Array(slots);
  let slot = 0;
  for (let i = 0; i < turns.length; i++) {
    const n = turns[i] ?? 0;
    for (let k = 1; k <= n; k++) {
      owner[slot] = i;
      // Equal fractions give equal doubles, and unequal ones of turns below 2^16 differ by more than a double's rounding.
      deadline[slot++] = k / n;
    }
  }
  if (equalWeights(turns)) return owner;
  const at = (s: number): number => deadline[s] ?? 0;
  const own = (s: number): number => owner[s] ?? 0;
  const weight = (s: number): number => turns[own(s)] ?? 0;
  const order = Uint32Array.from({ length: slots }, (_, s) => s);
  order.sort((a, b) => at(a) - at(b) || weight(a) - weight(b) || own(a) - own(b));
  return order.map(own);
}

/**
 * Turns per period: the weights over their common divisor where these fit into 4,096 + n, else scaled to fit; 0 stays 0, others >= 1.
 * Scaled turns are rounded, so among several thousand candidates weights are kept coarsely only.
 */
function turnsOf(weights: readonly number[]): number[] {
  const divisor = weights.reduce(gcd, 0);
  if (divisor === 0) return [];
  const cap = MAX_SEQUENCE_SLOTS + weights.length;
  let turns = weights.map((weight) => weight / divisor);
  const sum = total(turns);
  // Lifting small ones to one turn can overshoot; each step takes a twentieth off, down to one turn for everyone at worst.
  for (let scale = cap / (sum * divisor); total(turns) > cap; scale *= 0.95) {
    turns = weights.map((weight) => (weight === 0 ? 0 : Math.max(1, Math.round(weight * scale))));
  }
  return turns;
}

function total(turns: readonly number[]): number {
  return turns.reduce((sum, n) => sum + n, 0);
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
