// Owns when this process says that it is ready (contract.md): listeners open, and every source has its first list, or a last-good file
// was loaded, or 10 s are over. Pure.

export interface ReadinessFacts {
  /** The proxy's listeners are open and no drain has begun. */
  readonly listening: boolean;
  /** Ids of sources without a first answer. */
  readonly unanswered: readonly string[];
  /** Services came from the last-good file. */
  readonly restored: boolean;
  readonly timeUp: boolean;
}

/** What is waited for, in words; empty: ready. */
export function readinessWaits({ listening, unanswered, restored, timeUp }: ReadinessFacts): readonly string[] {
  if (!listening) return ['weir is stopping, or its listeners are not open'];
  if (restored || timeUp) return [];
  return unanswered.map((id) => `first answer of source ${id}`);
}
