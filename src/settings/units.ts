// Owns the spelling of durations and sizes in the config file, both ways. Pure.
// Called by schema (patterns), check (ranges), compile and print; must never accept a number without a unit, 0 aside.

/** `250ms`, `5s`, `10m`, `24h`; 0 needs no unit. */
export const DURATION_PATTERN = '^\\d{1,9}(\\.\\d{1,3})?(ms|s|m|h)$';
/** `512B`, `64KiB`, `10MiB`, `1GiB`. */
export const SIZE_PATTERN = '^\\d{1,9}(B|KiB|MiB|GiB)$';

const DURATION_UNITS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

const SIZE_UNITS: ReadonlyMap<string, number> = new Map([
  ['B', 1],
  ['KiB', 1_024],
  ['MiB', 1_048_576],
  ['GiB', 1_073_741_824],
]);

/** Milliseconds of a duration's text (or the number 0), null when it is none. */
export function parseDuration(text: string | number): number | null {
  return parseWith(text, DURATION_UNITS, /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)$/);
}

/** Bytes of a size's text (or the number 0), null when it is none. */
export function parseSize(text: string | number): number | null {
  return parseWith(text, SIZE_UNITS, /^(\d{1,9})(B|KiB|MiB|GiB)$/);
}

/** The shortest exact text of a duration in ms: 90000 → `90s`, 60000 → `1m`. */
export function durationText(ms: number): string {
  return textWith(ms, DURATION_UNITS);
}

/** The shortest exact text of a size in bytes: 65536 → `64KiB`. */
export function sizeText(bytes: number): string {
  return textWith(bytes, SIZE_UNITS);
}

function parseWith(text: string | number, units: ReadonlyMap<string, number>, pattern: RegExp): number | null {
  if (typeof text === 'number') return text === 0 ? 0 : null;
  const match = pattern.exec(text);
  const unit = units.get(match?.[2] ?? '');
  return match === null || unit === undefined ? null : Math.round(Number(match[1]) * unit);
}

function textWith(value: number, units: ReadonlyMap<string, number>): string {
  if (value === 0) return '0';
  let best = '';
  for (const [unit, factor] of units) if (value % factor === 0) best = `${value / factor}${unit}`;
  return best;
}
