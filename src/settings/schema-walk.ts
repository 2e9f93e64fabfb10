// Owns walking a schema beside a value: which sub-schema a key, an item or a branch of a union has. Pure.
// Called by check, references and print, so that all three agree on the place of a mark.
import type { TSchema } from 'typebox';
import { isRecord } from '../kernel/decode.ts';
import { keyword, marksOf } from './marks.ts';

/** The branch of a union of sources that the value's `kind` chooses; null when there is none. */
export function branchByKind(schema: TSchema, value: unknown): TSchema | null {
  const kinds = keyword(schema, 'x-kinds');
  if (!Array.isArray(kinds) || !isRecord(value)) return null;
  return branches(schema)[kinds.indexOf(value['kind'])] ?? null;
}

/** The object branch of a union such as "false or {…}", or of the schema itself. */
export function objectBranch(schema: TSchema, value: unknown): TSchema | null {
  if (propertiesOf(schema).size > 0 || additionalOf(schema) !== null) return schema;
  const objects = branches(schema).filter((branch) => keyword(branch, 'type') === 'object');
  if (objects.length <= 1) return objects[0] ?? null;
  const keys = isRecord(value) ? Object.keys(value) : [];
  return objects.find((branch) => keys.some((key) => propertiesOf(branch).has(key))) ?? null;
}

function branches(schema: TSchema): readonly TSchema[] {
  const any = keyword(schema, 'anyOf');
  return Array.isArray(any) ? any.filter(isRecord) : [];
}

/** Named properties of an object schema. */
export function propertiesOf(schema: TSchema): ReadonlyMap<string, TSchema> {
  const properties = keyword(schema, 'properties');
  if (!isRecord(properties)) return new Map();
  return new Map(Object.entries(properties).flatMap(([key, inner]) => (isRecord(inner) ? [[key, inner] as const] : [])));
}

/** Schema of keys that have no name of their own (`{source: share}`), or null. */
export function additionalOf(schema: TSchema): TSchema | null {
  const additional = keyword(schema, 'additionalProperties');
  if (isRecord(additional)) return additional;
  const patterns = keyword(schema, 'patternProperties');
  const first = isRecord(patterns) ? Object.values(patterns)[0] : undefined;
  return isRecord(first) ? first : null;
}

function itemsOf(schema: TSchema): TSchema | null {
  const items = keyword(schema, 'items');
  return isRecord(items) ? items : null;
}

/** The schema of a key's value; null where the schema does not know the key. */
export function childSchema(node: TSchema, value: unknown, key: string): TSchema | null {
  const branch = branchByKind(node, value) ?? objectBranch(node, value);
  return branch === null ? null : (propertiesOf(branch).get(key) ?? additionalOf(branch));
}

/** The schema of a list's items. A marked list of text passes its mark on. */
export function itemSchema(node: TSchema): TSchema | null {
  const list = listBranch(node);
  const items = list === null ? null : itemsOf(list);
  if (items === null) return null;
  const { secret, address } = marksOf(node);
  return secret || address
    ? { ...items, 'x-secret': secret || marksOf(items).secret, 'x-address': address || marksOf(items).address }
    : items;
}

/** The list branch of a union such as "all or [patterns]", or the schema itself where it is a list; null where there is none. */
export function listBranch(schema: TSchema): TSchema | null {
  if (itemsOf(schema) !== null) return schema;
  return branches(schema).find((branch) => itemsOf(branch) !== null) ?? null;
}
