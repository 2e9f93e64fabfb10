// Owns the door through which everything from outside comes in: bytes → JSON → schema → typed value.
// Called by every layer that reads config, API bodies or registry payloads; must never throw for bad input.
import type { Static, TSchema } from 'typebox';
import { Check, Compile, Errors } from 'typebox/schema';

/** One fault in a value from outside. `path` is dotted (`sources[0].address`), empty for the value itself. */
export interface Fault {
  readonly path: string;
  readonly expected: string;
  readonly got: string;
}

export type Decoded<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly faults: readonly Fault[] };

/** A schema that is ready to decode. Made once at construction of the user, used many times. */
export type Decoder<T> = (value: unknown) => Decoded<T>;

const MAX_FAULTS = 100;

/** So many values are checked by walking the schema: compiling costs as much as many walks, and most schemas of a start are used once. */
const WALKS_BEFORE_COMPILING = 8;

/** True for a value of the schema; compiled once it is clear that many will come. */
function checker<S extends TSchema>(schema: S): (value: unknown) => value is Static<S> {
  let walks = 0;
  let compiled: { Check(value: unknown): value is Static<S> } | null = null;
  return (value): value is Static<S> => {
    if (compiled === null && walks++ < WALKS_BEFORE_COMPILING) return Check(schema, value);
    compiled ??= Compile(schema);
    return compiled.Check(value);
  };
}

/** Makes a decoder of a typebox schema. The decoder checks and never changes the value. */
export function decoder<S extends TSchema>(schema: S): Decoder<Static<S>> {
  const fits = checker(schema);
  return (value) => {
    if (fits(value)) return { ok: true, value };
    const faults: Fault[] = [];
    for (const error of Errors(schema, value)[1]) {
      // An additional property is reported twice (the property itself is the better place).
      if (error.keyword === 'additionalProperties' || faults.length >= MAX_FAULTS) continue;
      const expected = error.keyword === 'boolean' ? 'no such key' : error.message.replace(/^must (be |have |match )?/, '');
      faults.push({ path: dotted(error.instancePath), expected, got: describe(at(value, error.instancePath)) });
    }
    if (faults.length === 0) faults.push({ path: '', expected: 'a value of the schema', got: describe(value) });
    return { ok: false, faults };
  };
}

/** `path: expected … got …`, the form in which faults are printed everywhere. */
export function faultText(fault: Fault): string {
  return `${fault.path === '' ? '(value)' : fault.path}: expected ${fault.expected}, got ${fault.got}`;
}

/** Caps of {@link parseJson}; bytes are counted before parsing, depth while scanning. */
export interface JsonLimits {
  readonly maxBytes: number;
  readonly maxDepth?: number;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Bytes or text → JSON value. Refuses invalid UTF-8, more than `maxBytes`, nesting over 32 (or `maxDepth`); a BOM is accepted.
 * The value is plain data: read its keys into a Map or check it by a schema, never merge it into an object.
 */
export function parseJson(input: Uint8Array | string, limits: JsonLimits): Decoded<unknown> {
  const size = typeof input === 'string' ? input.length : input.byteLength;
  if (size > limits.maxBytes) return fault(`at most ${limits.maxBytes} bytes of JSON`, `${size} bytes`);
  let text: string;
  try {
    text = typeof input === 'string' ? input : utf8.decode(input);
  } catch {
    return fault('valid UTF-8', 'other bytes');
  }
  if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
  const maxDepth = limits.maxDepth ?? 32;
  if (deeperThan(text, maxDepth)) return fault(`nesting of at most ${maxDepth}`, 'deeper nesting');
  try {
    return { ok: true, value: JSON.parse(text) };
  } catch (thrown) {
    return fault('JSON', thrown instanceof Error ? thrown.message.slice(0, 120) : 'something else');
  }
}

/** True for a plain JSON object (not null, not an array). */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A short, safe description of a value for a fault: control characters escaped, at most about 60 characters. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' || value === null) {
    const text = JSON.stringify(value);
    return text.length > 60 ? `${text.slice(0, 57)}…` : text;
  }
  return typeof value;
}

function fault(expected: string, got: string): Decoded<never> {
  return { ok: false, faults: [{ path: '', expected, got }] };
}

/** Scans brackets outside of strings; JSON.parse would take a million levels, our own walks would not. */
function deeperThan(text: string, maxDepth: number): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === 0x5c) i++;
      else if (c === 0x22) inString = false;
    } else if (c === 0x22) inString = true;
    else if (c === 0x7b || c === 0x5b) {
      if (++depth > maxDepth) return true;
    } else if (c === 0x7d || c === 0x5d) depth--;
  }
  return false;
}

function segments(pointer: string): string[] {
  return pointer === ''
    ? []
    : pointer
        .slice(1)
        .split('/')
        .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function dotted(pointer: string): string {
  let path = '';
  for (const part of segments(pointer)) {
    if (/^\d+$/.test(part)) path += `[${part}]`;
    else if (/^[A-Za-z_][\w-]*$/.test(part)) path += path === '' ? part : `.${part}`;
    else path += `[${JSON.stringify(part)}]`;
  }
  return path;
}

function at(value: unknown, pointer: string): unknown {
  let current = value;
  for (const part of segments(pointer)) {
    if (Array.isArray(current)) current = current[Number(part)];
    else if (isRecord(current) && Object.hasOwn(current, part)) current = current[part];
    else return undefined;
  }
  return current;
}
