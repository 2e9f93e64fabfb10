// Owns which services of a source are watched, as far as configuration says (`select:`). Pure; called by the supervisor.
// Must never use a regular expression made from outside text.
import { type ServiceKey, serviceId } from '../model/service.ts';

/** `patterns` are over `namespace/name` in the source's own words (`*`: any run of characters); `onDemand`: at first use. */
export type Select =
  | { readonly kind: 'all' }
  | { readonly kind: 'patterns'; readonly patterns: readonly string[] }
  | { readonly kind: 'onDemand' };

/** True for names that are watched without being asked for. */
export function selects(select: Select, key: ServiceKey): boolean {
  if (select.kind !== 'patterns') return select.kind === 'all';
  const id = serviceId(key);
  return select.patterns.some((pattern) => matchesGlob(pattern, id));
}

/** Whole-text match; `*` stands for any run of characters, slashes included. Time is at most pattern × text. */
export function matchesGlob(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let resume = 0;
  while (t < text.length) {
    if (p < pattern.length && pattern[p] === '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.length && pattern[p] === text[t]) {
      p++;
      t++;
    } else if (star >= 0) {
      // Give the last star one character more and try again from there.
      p = star + 1;
      t = ++resume;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}
