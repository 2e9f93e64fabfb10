// Owns printing for people: aligned columns, ages, and text from outside made harmless for a terminal. Pure.

const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Control and direction characters as `\u{…}`: a name from a registry must not move the cursor or hide what it says. */
export function printable(text: string): string {
  return text.replace(UNSAFE, (char) => `\\u{${char.charCodeAt(0).toString(16)}}`);
}

/** One printable line. */
export function line(text: string): string {
  return `${printable(text)}\n`;
}

/** Columns that a terminal gives the text: wide East Asian characters and emoji take two, combining marks none. */
export function textWidth(text: string): number {
  let width = 0;
  for (const char of text) width += charWidth(char.codePointAt(0) ?? 0, char);
  return width;
}

function charWidth(code: number, char: string): number {
  if (code >= 0x300 && /\p{M}/u.test(char)) return 0;
  const wide =
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) ||
    (code >= 0x1f300 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd);
  return wide ? 2 : 1;
}

/** A column: its head, and whether numbers stand to the right. */
export interface Column {
  readonly head: string;
  readonly right?: boolean;
}

/** Rows under heads, two spaces between columns, no trailing space. Cells are made printable. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const safe = rows.map((row) => columns.map((_, i) => printable(row[i] ?? '')));
  const widths = columns.map(({ head }, i) => Math.max(textWidth(head), ...safe.map((row) => textWidth(row[i] ?? ''))));
  const aligned = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => pad(cell, widths[i] ?? 0, columns[i]?.right === true))
      .join('  ')
      .trimEnd();
  return `${[aligned(columns.map(({ head }) => head)), ...safe.map(aligned)].join('\n')}\n`;
}

function pad(cell: string, width: number, right: boolean): string {
  const fill = ' '.repeat(Math.max(0, width - textWidth(cell)));
  return right ? fill + cell : cell + fill;
}

/** `-`, `850ms`, `12s`, `5m`, `3h`, `2d`. */
export function ageText(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '-';
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  if (ms < 120_000) return `${Math.round(ms / 1_000)}s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)}m`;
  return ms < 172_800_000 ? `${Math.round(ms / 3_600_000)}h` : `${Math.round(ms / 86_400_000)}d`;
}
