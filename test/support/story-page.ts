// Reads the stories of docs/migration.md: blocks of commands with what one sees, so that the page itself is what tests run.
import { readFileSync } from 'node:fs';

/** A block of commands and the lines that must appear in its output, in order; none: nothing is promised. */
export interface Block {
  readonly commands: readonly string[];
  readonly shows: readonly string[];
}

const PAGE = new URL('../../docs/migration.md', import.meta.url);

/** Blocks of the story, without those that start a stage or registries. */
export function storyBlocks(story: string): readonly Block[] {
  const page = readFileSync(PAGE, 'utf8');
  const from = page.indexOf(`<!-- story:${story}`);
  if (from < 0) throw new Error(`the page has no story ${story}`);
  const to = page.indexOf('<!-- story:', from + 1);
  const found: { commands: string[]; shows: string[] }[] = [];
  for (const [, kind, text = ''] of page.slice(from, to < 0 ? undefined : to).matchAll(/^```(sh|text)\n(.*?)^```$/gms)) {
    const lines = text.split('\n').filter((line) => line !== '');
    if (kind === 'sh') found.push({ commands: lines, shows: [] });
    else found.at(-1)?.shows.push(...lines);
  }
  return found
    .filter(({ commands }) => !commands.some((line) => /demo --story|registries -- up/.test(line)))
    .map(({ commands, shows }) => ({ commands: commands.filter((line) => !/^(sleep|\.) /.test(line)), shows }))
    .filter(({ commands }) => commands.length > 0);
}

/** What differs from run to run is made equal: addresses, durations, counts of requests, spaces. */
export function plain(line: string): string {
  return line
    .replace(/\b127\.0\.0\.1:\d+/g, 'ADDRESS')
    .replace(/\b\d+(\.\d+)? ?(ms|s|m|h)\b/g, 'TIME')
    .replace(/\b\d+ requests\b/g, 'N requests')
    .replace(/\s+/g, ' ')
    .trim();
}

/** The first promised line that the output lacks, each taking a line of its own; null: it has all of them. Longer ones may be a part of a line. */
export function lacking(output: string, shows: readonly string[]): string | null {
  const left = output.split('\n').map(plain);
  for (const shown of shows) {
    const wanted = plain(shown);
    // Instances stand in the order of their ports, so the order of lines is no promise.
    const at = left.findIndex((line) => line === wanted || (wanted.length > 5 && line.includes(wanted)));
    if (at < 0) return shown;
    left.splice(at, 1);
  }
  return null;
}
