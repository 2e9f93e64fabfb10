// Owns the bounded book of conflicts (M6): since when each stands, and how many there are over all services.
// Called by catalog after each merge; a conflict is data, it must never block or fail anything.
import type { Conflict } from './view.ts';

/** More than this many are counted, not listed. */
export const MAX_CONFLICTS = 10_000;

/** A conflict as merge finds it. */
export type FoundConflict = Omit<Conflict, 'since'>;

const NONE: readonly Conflict[] = [];

/** Gives conflicts their age and keeps the total below the bound. */
export class ConflictBook {
  #listed = 0;
  #unlisted = 0;
  readonly #limit: number;

  constructor(limit = MAX_CONFLICTS) {
    this.#limit = limit;
  }

  /** Conflicts that stand in views now. */
  get listed(): number {
    return this.#listed;
  }

  /** How many were found but not listed, over the life of the process. */
  get unlisted(): number {
    return this.#unlisted;
  }

  /** Replaces a service's `earlier` conflicts by `found`; one that stood before keeps its time. */
  replace(earlier: readonly Conflict[], found: readonly FoundConflict[], wallNow: number): readonly Conflict[] {
    this.#listed -= earlier.length;
    if (found.length === 0) return NONE;
    const room = Math.max(0, this.#limit - this.#listed);
    this.#unlisted += Math.max(0, found.length - room);
    const since = new Map(earlier.map((one) => [keyOf(one), one.since]));
    const listed = found.slice(0, room).map((one) => ({ ...one, since: since.get(keyOf(one)) ?? wallNow }));
    this.#listed += listed.length;
    return listed;
  }
}

function keyOf(conflict: FoundConflict): string {
  return `${conflict.instance}\u0000${conflict.field}`;
}
