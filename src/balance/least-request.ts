// Owns the `leastRequest` policy (proxy-semantics §10): the power of two choices by requests in flight. Built by cluster.
// Must never look at more than two candidates: the cost of a pick does not depend on the size.
import { type Random, randomBelow } from '../kernel/random.ts';
import { AliasTable } from './alias-table.ts';
import { type Candidate, equalWeights, type Picker, weightsOf } from './picker.ts';

/**
 * Equal weights: two distinct candidates, fewer in flight wins. Unequal: two draws by weight, the lower active / weight wins.
 * On a tie the first draw wins, which is a random one of the two: an idle cluster is shared by weight. (Comparing (active + 1) / weight
 * would count the weight twice there: 300 and 100 would share 94 to 6, and a canary's small weight would nearly vanish.)
 */
export class LeastRequestPicker implements Picker {
  readonly #candidates: readonly Candidate[];
  /** Null while the weights are equal. */
  readonly #table: AliasTable | null;
  /** A copy beside each other: in a large cluster a pick costs what it misses in the cache. */
  readonly #weights: Float64Array | null;

  constructor(candidates: readonly Candidate[]) {
    const weights = weightsOf(candidates);
    this.#candidates = candidates;
    const equal = equalWeights(weights);
    this.#table = equal ? null : new AliasTable(weights);
    this.#weights = equal ? null : Float64Array.from(weights);
  }

  pick(random: Random): number {
    return this.#table === null ? this.#pickEven(random) : this.#pickWeighted(this.#table, random);
  }

  #pickEven(random: Random): number {
    const n = this.#candidates.length;
    if (n < 2) return n - 1;
    const first = randomBelow(random, n);
    // The second is drawn over the other n − 1 and shifted past the first: every ordered pair has the same chance.
    let second = randomBelow(random, n - 1);
    if (second >= first) second++;
    return (this.#candidates[second]?.active ?? 0) < (this.#candidates[first]?.active ?? 0) ? second : first;
  }

  #pickWeighted(table: AliasTable, random: Random): number {
    const first = table.pick(random);
    if (first < 0) return -1;
    const second = table.pick(random);
    return this.#load(second) < this.#load(first) ? second : first;
  }

  #load(index: number): number {
    const candidate = this.#candidates[index];
    return candidate === undefined ? Number.POSITIVE_INFINITY : candidate.active / (this.#weights?.[index] ?? 0);
  }
}
