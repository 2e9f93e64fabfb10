// Owns the memory of names that are no service (proxy-semantics §18): what the control plane last said of each, bounded in time and number.
// Called by cluster-set.ts. The names come from clients, so their number must never be theirs to choose.
import type { ClusterAbsent } from './cluster-update.ts';

/** How long an answer counts before it is asked again; `notReady` ends within seconds of a start. */
const VALID_MS = { unknown: 30_000, notReady: 1_000 } as const;

/** The oldest answer goes when there are more. */
export const MAX_ABSENT_NAMES = 10_000;

export class AbsentNames {
  readonly #answers = new Map<string, { readonly why: ClusterAbsent['why']; readonly until: number }>();

  get size(): number {
    return this.#answers.size;
  }

  /** What was said of the name and still counts at `now` (monotonic ms). */
  get(name: string, now: number): ClusterAbsent['why'] | undefined {
    const answer = this.#answers.get(name);
    if (answer === undefined) return undefined;
    if (now < answer.until) return answer.why;
    this.#answers.delete(name);
    return undefined;
  }

  set(name: string, why: ClusterAbsent['why'], now: number): void {
    this.#answers.delete(name);
    this.#answers.set(name, { why, until: now + VALID_MS[why] });
    if (this.#answers.size <= MAX_ABSENT_NAMES) return;
    for (const oldest of this.#answers.keys()) {
      this.#answers.delete(oldest);
      break;
    }
  }

  delete(name: string): void {
    this.#answers.delete(name);
  }
}
