// Owns the comparison of the file's data with the schema: all faults at once, in words for people, with suggestions for typos.
// Called by load.ts after references were resolved; the compiled decoder has the last word on types (load.ts).
import type { TSchema } from 'typebox';
import { decoder, describe, isRecord } from '../kernel/decode.ts';
import { didYouMean, hideUserInfo, type Path, type PathFault } from './config-fault.ts';
import { keyword, type Marks, marksOf } from './marks.ts';
import { additionalOf, branchByKind, itemSchema, listBranch, objectBranch, propertiesOf } from './schema-walk.ts';
import { parseDuration, parseSize } from './units.ts';

const MAX_FAULTS = 100;

/** Every fault of `value`, at most 100; empty when it fits. */
export function check(schema: TSchema, value: unknown): readonly PathFault[] {
  const faults: PathFault[] = [];
  visit(schema, value, [], faults);
  return faults.slice(0, MAX_FAULTS);
}

function visit(schema: TSchema, value: unknown, path: Path, faults: PathFault[]): void {
  const marks = marksOf(schema);
  if (marks.unbuilt !== null) {
    if (value !== marks.allow) faults.push(unbuiltFault(path, marks.unbuilt, marks.allow, value));
    return;
  }
  if (keyword(schema, 'x-kinds') !== undefined) visitSource(schema, marks, value, path, faults);
  else if (Array.isArray(value) && listBranch(schema) !== null)
    visitArray(listBranch(schema) ?? schema, marks, value, path, faults);
  else if (isRecord(value) && objectBranch(schema, value) !== null)
    visitObject(objectBranch(schema, value) ?? schema, value, path, faults);
  else visitLeaf(schema, marks, value, path, faults);
}

function visitSource(schema: TSchema, marks: Marks, value: unknown, path: Path, faults: PathFault[]): void {
  const branch = branchByKind(schema, value);
  if (branch !== null) {
    visit(branch, value, path, faults);
    return;
  }
  if (!isRecord(value)) {
    faults.push({ path, expected: marks.expected ?? 'a source', got: describe(value) });
    return;
  }
  const known = keyword(schema, 'x-kinds');
  const words = Array.isArray(known) ? known.map(String) : [];
  const kind = value['kind'];
  const later = typeof kind === 'string' ? marks.unbuiltValues.get(kind) : undefined;
  if (later !== undefined) faults.push(unbuiltFault([...path, 'kind'], later, undefined, kind, words));
  else
    faults.push({
      path: kind === undefined ? path : [...path, 'kind'],
      expected: kind === undefined ? `a kind: one of ${words.join(', ')}` : `one of ${words.join(', ')}`,
      got: describe(kind),
      ...hint(kind, words),
    });
}

function visitArray(schema: TSchema, marks: Marks, value: readonly unknown[], path: Path, faults: PathFault[]): void {
  const items = itemSchema(schema);
  const before = faults.length;
  if (items !== null) for (const [i, item] of value.entries()) visit(items, item, [...path, i], faults);
  if (faults.length === before) visitLeaf(schema, marks, value, path, faults);
}

function visitObject(schema: TSchema, value: Readonly<Record<string, unknown>>, path: Path, faults: PathFault[]): void {
  const properties = propertiesOf(schema);
  const additional = additionalOf(schema);
  const before = faults.length;
  for (const [key, inner] of Object.entries(value)) {
    const named = properties.get(key);
    if (named !== undefined) visit(named, inner, [...path, key], faults);
    else if (additional !== null) visit(additional, inner, [...path, key], faults);
    else if (keyword(schema, 'additionalProperties') === false)
      faults.push(unknownKey(schema, [...path, key], key, properties.keys()));
  }
  const required = keyword(schema, 'required');
  for (const key of Array.isArray(required) ? required.map(String) : []) {
    if (value[key] !== undefined) continue;
    const about = properties.get(key);
    const expected = about === undefined ? null : marksOf(about).expected;
    faults.push({ path, expected: `the key ${key}${expected === null ? '' : ` (${expected})`}`, got: 'nothing' });
  }
  if (faults.length === before) visitLeaf(schema, marksOf(schema), value, path, faults);
}

function unknownKey(schema: TSchema, path: Path, key: string, known: Iterable<string>): PathFault {
  const only = keyword(schema, 'x-only');
  const words = [...known];
  const meant = didYouMean(key, words);
  const expected = typeof only === 'string' ? `no such key: ${only}` : 'no such key';
  return {
    path,
    onKey: true,
    expected,
    got: describe(key),
    hint: meant === null ? `known keys: ${words.join(', ')}` : `did you mean ${JSON.stringify(meant)}?`,
  };
}

function visitLeaf(schema: TSchema, marks: Marks, value: unknown, path: Path, faults: PathFault[]): void {
  const words = keyword(schema, 'enum');
  const enumeration = Array.isArray(words) ? words.map(String) : [];
  const later = typeof value === 'string' ? marks.unbuiltValues.get(value) : undefined;
  if (later !== undefined) {
    faults.push(unbuiltFault(path, later, undefined, value, enumeration));
    return;
  }
  const decoded = decoder(schema)(value);
  if (decoded.ok) {
    const number =
      marks.unit === null || (typeof value !== 'string' && typeof value !== 'number')
        ? null
        : marks.unit === 'duration'
          ? parseDuration(value)
          : parseSize(value);
    const outside = number !== null && !(marks.zero && number === 0) && (number < marks.min || number > marks.max);
    if (outside) faults.push({ path, expected: marks.expected ?? 'a value in its range', got: describe(value) });
    return;
  }
  const first = decoded.faults[0];
  const expected = marks.expected ?? first?.expected ?? 'something else';
  faults.push({
    path,
    // A list with a fault of its own: too short, too long, the same twice.
    expected: Array.isArray(value) && listBranch(schema) !== null && first !== undefined ? first.expected : expected,
    got: marks.secret ? 'something else (hidden)' : describe(marks.address ? hideUserInfo(value) : value),
    ...hint(value, enumeration),
  });
}

function hint(value: unknown, words: readonly string[]): { hint?: string } {
  const meant = typeof value === 'string' ? didYouMean(value, words) : null;
  return meant === null ? {} : { hint: `did you mean ${JSON.stringify(meant)}?` };
}

function unbuiltFault(path: Path, feature: string, allow: unknown, value: unknown, words: readonly string[] = []): PathFault {
  const instead =
    allow !== undefined
      ? JSON.stringify(allow)
      : words.length > 1
        ? `one of ${words.join(', ')}`
        : words.length === 1
          ? `${words[0]}`
          : 'nothing here';
  return { path, expected: instead, got: describe(value), hint: `${feature}: not built in this version` };
}
