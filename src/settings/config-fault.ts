// Owns what a fault of the config file is and how it is printed. Pure.
// Made by every step of load.ts; shown by `weir check`, by the API after a failed reload, and at start.
import type { Fault } from '../kernel/decode.ts';

/** Keys and indexes from the top of the file. */
export type Path = readonly (string | number)[];

/** A fault with its place. `got` never holds a secret. */
export interface ConfigFault extends Fault {
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  readonly col: number;
  /** What to do about it, where we can tell. */
  readonly hint?: string;
}

/** A fault whose place is still a path. `onKey`: the key itself is wrong, not its value. */
export interface PathFault {
  readonly path: Path;
  readonly expected: string;
  readonly got: string;
  readonly onKey?: boolean;
  readonly hint?: string;
}

/** `file:line:col path: expected … got …`. */
export function configFaultText(fault: ConfigFault): string {
  const hint = fault.hint === undefined ? '' : ` (${fault.hint})`;
  return `${fault.file}:${fault.line}:${fault.col} ${fault.path === '' ? '(file)' : fault.path}: expected ${fault.expected}, got ${fault.got}${hint}`;
}

/** `sources[0].address`; keys that are no plain words stand in brackets. */
export function pathText(path: Path): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else if (/^[A-Za-z_][\w-]*$/.test(part)) text += text === '' ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}

/** The word of `words` that `typo` probably meant: edit distance at most a third of its length (2 at least for words of 4 and more), or null. */
export function didYouMean(typo: string, words: Iterable<string>): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(typo.length >= 4 ? 2 : 1, Math.floor(typo.length / 3)) + 1;
  for (const word of words) {
    if (Math.abs(word.length - typo.length) >= bestDistance) continue;
    const distance = editDistance(typo.toLowerCase(), word.toLowerCase());
    if (distance < bestDistance) {
      best = word;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein with swaps of neighbours (optimal string alignment); inputs are short keys. */
function editDistance(a: string, b: string): number {
  const from = a.slice(0, 64);
  const to = b.slice(0, 64);
  let before: number[] = [];
  let previous = Array.from({ length: to.length + 1 }, (_, j) => j);
  for (let i = 1; i <= from.length; i++) {
    const row = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1] === to[j - 1] ? 0 : 1;
      let best = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      row.push(best);
    }
    before = previous;
    previous = row;
  }
  return previous[to.length] ?? 0;
}

/** An address without the user name and password that a URL may carry. Other values pass. */
export function hideUserInfo(value: unknown): unknown {
  return typeof value === 'string' ? value.replace(/\/\/[^/@\s]*@/g, '//[hidden]@') : value;
}
