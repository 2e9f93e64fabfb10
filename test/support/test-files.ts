// Finds test files: `*.test.ts` need nothing from outside, `*.live.test.ts` need real servers, `*.full.test.ts` are the long rows.
import { glob } from 'node:fs/promises';

const ROOTS = ['src', 'adapters', 'test'];

/** Files of one tier, sorted; `only` keeps those whose path contains one of the words. */
export async function testFiles(tier: 'plain' | 'live' | 'full', only: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const root of ROOTS) for await (const path of glob(`${root}/**/*.test.ts`)) found.push(path);
  return found
    .filter((path) => tierOf(path) === tier)
    .filter((path) => only.length === 0 || only.some((word) => path.includes(word)))
    .sort();
}

function tierOf(path: string): 'plain' | 'live' | 'full' {
  if (path.endsWith('.live.test.ts')) return 'live';
  return path.endsWith('.full.test.ts') ? 'full' : 'plain';
}
