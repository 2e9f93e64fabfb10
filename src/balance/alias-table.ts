// Owns drawing an index in proportion to weights in O(1): Vose's alias method. Used by the pickers and for the shares of groups.
// Must never answer an index of weight 0: such indexes are not in the table at all.
import { type Random, randomBelow } from '../kernel/random.ts';

/**
 * Draws indexes in proportion to their weights. Built in O(n); exact for whole weights (amounts stay below 65,535 · n, far under
 * 2^53), to rounding for fractions. Negative and NaN weights count as 0.
 */
export class AliasTable {
  /** Indexes of weight above 0. */
  readonly #indexes: Uint32Array;
  /** Whether a column is its own index because no weight is 0. */
  readonly #dense: boolean;
  /** Probability of the column's own index; the alias takes the rest. */
  readonly #own: Float64Array;
  readonly #alias: Uint32Array;

  constructor(weights: readonly number[]) {
    this.#indexes = Uint32Array.from(positiveIndexes(weights));
    const n = this.#indexes.length;
    this.#dense = n === weights.length;
    this.#own = new Float64Array(n).fill(1);
    this.#alias = Uint32Array.from(this.#indexes);
    const total = this.#indexes.reduce((sum, index) => sum + (weights[index] ?? 0), 0);
    // A column holds `total`; an index of weight w brings w·n, so the columns are filled exactly.
    this.#fill(
      Array.from(this.#indexes, (index) => (weights[index] ?? 0) * n),
      total,
    );
  }

  /** How many indexes can be drawn. */
  get size(): number {
    return this.#indexes.length;
  }

  /** An index drawn by weight; -1 when no weight is above 0. One random number. */
  pick(random: Random): number {
    const n = this.#indexes.length;
    if (n === 0) return -1;
    const x = random() * n;
    const column = Math.floor(x);
    if (x - column >= (this.#own[column] ?? 1)) return this.#alias[column] ?? -1;
    return this.#dense ? column : (this.#indexes[column] ?? -1);
  }

  #fill(amounts: number[], total: number): void {
    const small: number[] = [];
    const large: number[] = [];
    for (let i = 0; i < amounts.length; i++) ((amounts[i] ?? 0) < total ? small : large).push(i);
    for (let less = small.pop(); less !== undefined; less = small.pop()) {
      const more = large.pop();
      // Only rounding of fractional weights ends here; the column then keeps its own index.
      if (more === undefined) return;
      this.#own[less] = (amounts[less] ?? 0) / total;
      this.#alias[less] = this.#indexes[more] ?? 0;
      const rest = (amounts[more] ?? 0) - (total - (amounts[less] ?? 0));
      amounts[more] = rest;
      (rest < total ? small : large).push(more);
    }
  }
}

/** An even draw over the indexes of `n` candidates; -1 for none. */
export function evenPick(n: number, random: Random): number {
  return n === 0 ? -1 : randomBelow(random, n);
}

function positiveIndexes(weights: readonly number[]): number[] {
  const indexes: number[] = [];
  for (let i = 0; i < weights.length; i++) if ((weights[i] ?? 0) > 0) indexes.push(i);
  return indexes;
}
