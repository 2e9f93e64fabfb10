// Owns the marks that config schemas carry beside JSON Schema's own words, and the small schemas that are used over and over.
// Adapters put `x-secret` and `x-address` on keys of their own config; they need no import for that.
import { type TSchema, type TUnsafe, Type } from 'typebox';
import { DURATION_PATTERN, durationText, SIZE_PATTERN, sizeText } from './units.ts';

/**
 * Marks on a schema:
 * - `x-secret`: `${ENV}` and `${file:path}` are resolved, the value is never shown;
 * - `x-address`: the same references are resolved, the value is shown without user info;
 * - `x-expected`: the words after "expected" when the value does not fit;
 * - `x-unbuilt`: the key belongs to the contract but is not built yet: any value but `x-allow` is refused with these words;
 * - `x-unbuilt-values`: words of an enumeration that are not built yet;
 * - `x-min`, `x-max`: bounds of a duration (ms) or a size (bytes); 0 is always allowed where `x-zero`;
 * - `x-fill`: an absent object is shown with its defaults by `--print`;
 * - `x-kinds`: a union whose branch is chosen by the value's `kind`.
 */
export interface Marks {
  readonly secret: boolean;
  readonly address: boolean;
  readonly expected: string | null;
  readonly unbuilt: string | null;
  readonly allow: unknown;
  readonly unbuiltValues: ReadonlyMap<string, string>;
  readonly unit: 'duration' | 'size' | null;
  readonly min: number;
  readonly max: number;
  readonly zero: boolean;
  readonly fill: boolean;
}

/** Reads one mark; undefined when the schema has none. */
export function keyword(schema: TSchema, name: string): unknown {
  return Object.hasOwn(schema, name) ? Object.entries(schema).find(([key]) => key === name)?.[1] : undefined;
}

/** All marks of a schema. */
export function marksOf(schema: TSchema): Marks {
  const text = (name: string): string | null => {
    const value = keyword(schema, name);
    return typeof value === 'string' ? value : null;
  };
  const number = (name: string, otherwise: number): number => {
    const value = keyword(schema, name);
    return typeof value === 'number' ? value : otherwise;
  };
  const unit = text('x-unit');
  const values = keyword(schema, 'x-unbuilt-values');
  return {
    secret: keyword(schema, 'x-secret') === true,
    address: keyword(schema, 'x-address') === true,
    expected: text('x-expected'),
    unbuilt: text('x-unbuilt'),
    allow: keyword(schema, 'x-allow'),
    unbuiltValues: new Map(
      typeof values === 'object' && values !== null ? Object.entries(values).map(([k, v]) => [k, String(v)]) : [],
    ),
    unit: unit === 'duration' || unit === 'size' ? unit : null,
    min: number('x-min', 0),
    max: number('x-max', Number.POSITIVE_INFINITY),
    zero: keyword(schema, 'x-zero') === true,
    fill: keyword(schema, 'x-fill') === true,
  };
}

interface Bounds {
  readonly min: number;
  readonly max: number;
  /** 0 means "off" and is allowed besides. */
  readonly zero?: boolean;
}

/** A duration with bounds in ms; `fallback` is the default in ms. */
export function duration(description: string, bounds: Bounds, fallback?: number): TUnsafe<string | number> {
  const range = `${durationText(bounds.min)}..${durationText(bounds.max)}`;
  return Type.Unsafe<string | number>({
    anyOf: [{ type: 'string', pattern: DURATION_PATTERN }, { const: 0 }],
    'x-unit': 'duration',
    'x-min': bounds.min,
    'x-max': bounds.max,
    'x-zero': bounds.zero === true,
    'x-expected': `a duration of ${range} such as 250ms, 5s, 10m, 24h${bounds.zero === true ? ', or 0 for none' : ''}`,
    description,
    ...(fallback === undefined ? {} : { default: fallback === 0 ? 0 : durationText(fallback) }),
  });
}

/** A size with bounds in bytes. */
export function size(description: string, bounds: Bounds, fallback: number): TUnsafe<string | number> {
  return Type.Unsafe<string | number>({
    type: 'string',
    pattern: SIZE_PATTERN,
    'x-unit': 'size',
    'x-min': bounds.min,
    'x-max': bounds.max,
    'x-expected': `a size of ${sizeText(bounds.min)}..${sizeText(bounds.max)} such as 64KiB, 10MiB`,
    description,
    default: sizeText(fallback),
  });
}

/** A whole number in bounds. */
export function whole(description: string, minimum: number, maximum: number, fallback?: number): TUnsafe<number> {
  return Type.Unsafe<number>({
    type: 'integer',
    minimum,
    maximum,
    'x-expected': `a whole number of ${minimum}..${maximum}`,
    description,
    ...(fallback === undefined ? {} : { default: fallback }),
  });
}

export function flag(description: string, fallback?: boolean): TUnsafe<boolean> {
  return Type.Unsafe<boolean>({
    type: 'boolean',
    'x-expected': 'true or false',
    description,
    ...(fallback === undefined ? {} : { default: fallback }),
  });
}

/** One of some words. `unbuilt` maps words of the contract that are not built yet to what is said of them. */
export function oneOf<const W extends string>(
  description: string,
  words: readonly W[],
  fallback?: W,
  unbuilt: Readonly<Record<string, string>> = {},
): TUnsafe<W> {
  return Type.Unsafe<W>({
    type: 'string',
    enum: [...words],
    'x-expected': words.length === 1 ? `${words[0]}` : `one of ${words.join(', ')}`,
    'x-unbuilt-values': unbuilt,
    description,
    ...(fallback === undefined ? {} : { default: fallback }),
  });
}

/** Text of a pattern; `expected` are the words for people. */
export function text(description: string, expected: string, options: Record<string, unknown> = {}): TUnsafe<string> {
  return Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 1_024, 'x-expected': expected, description, ...options });
}

/** A secret: a reference or (less well) the text itself. */
export function secret(description: string): TUnsafe<string> {
  return text(description, `text, best as \${ENV} or \${file:path}`, { 'x-secret': true, maxLength: 65_536 });
}

/** A key of the contract whose feature is not built yet. `allow` is the one value that asks for nothing. */
export function unbuilt(description: string, feature: string, allow?: unknown): TUnsafe<unknown> {
  return Type.Unsafe<unknown>({
    description,
    'x-unbuilt': feature,
    ...(allow === undefined ? {} : { 'x-allow': allow, default: allow }),
  });
}
