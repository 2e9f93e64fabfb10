// Owns the `random` policy (proxy-semantics §10): weighted draws without memory. Built by cluster.
import type { Random } from '../kernel/random.ts';
import { AliasTable, evenPick } from './alias-table.ts';
import { type Candidate, equalWeights, type Picker, weightsOf } from './picker.ts';

/** Draws in proportion to weight. */
export class RandomPicker implements Picker {
  readonly #size: number;
  /** Null while the weights are equal: an even draw is cheaper. */
  readonly #table: AliasTable | null;

  constructor(candidates: readonly Candidate[]) {
    const weights = weightsOf(candidates);
    this.#size = candidates.length;
    this.#table = equalWeights(weights) ? null : new AliasTable(weights);
  }

  pick(random: Random): number {
    return this.#table === null ? evenPick(this.#size, random) : this.#table.pick(random);
  }
}
