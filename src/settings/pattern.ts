// Owns patterns over `namespace/name`: literal text and `*` for any run of characters. Linear in the text, never a regular expression.
// Called by settings, and by whoever selects services.

/** A compiled pattern. */
export type Pattern = (text: string) => boolean;

/** What is wrong with a pattern, or null. Characters that mean something in other glob languages are refused, not taken literally. */
export function patternFault(pattern: string): string | null {
  if (pattern.length === 0 || pattern.length > 512) return 'a pattern of 1..512 characters';
  if (/[?[\]{}!]/.test(pattern) || pattern.includes('**')) return 'literal text and single *, no other wildcard';
  return null;
}

/** True when the pattern can match more than one text. */
export function isGlob(pattern: string): boolean {
  return pattern.includes('*');
}

/** Compiles a pattern: the pieces between the stars must appear in order, the first at the start, the last at the end. */
export function compilePattern(pattern: string): Pattern {
  const pieces = pattern.split('*');
  const first = pieces[0] ?? '';
  if (pieces.length === 1) return (text) => text === first;
  const last = pieces[pieces.length - 1] ?? '';
  const middle = pieces.slice(1, -1);
  return (text) => {
    if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false;
    let from = first.length;
    const end = text.length - last.length;
    for (const piece of middle) {
      const found = text.indexOf(piece, from);
      if (found < 0 || found + piece.length > end) return false;
      from = found + piece.length;
    }
    return true;
  };
}

/** True when everything that `narrow` matches is matched by `wide` too (sound, not complete: may miss some). */
export function covers(wide: string, narrow: string): boolean {
  if (wide === narrow || wide === '*') return true;
  // Matching the narrow pattern's own text, with each star standing for itself, proves coverage when the wide one has stars there.
  return isGlob(wide) && compilePattern(wide)(narrow);
}
