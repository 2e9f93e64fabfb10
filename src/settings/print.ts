// Owns the effective configuration as text: what the file says, the defaults where it says nothing, secrets hidden by the schema.
// Called by `weir check --print` and the API's config dump, through load.ts; must never print a value that the schema does not know.
import type { TSchema } from 'typebox';
import { stringify } from 'yaml';
import { isRecord } from '../kernel/decode.ts';
import { hideUserInfo } from './config-fault.ts';
import { keyword, marksOf } from './marks.ts';
import { additionalOf, branchByKind, itemSchema, objectBranch, propertiesOf } from './schema-walk.ts';

/** What stands in place of a secret. */
export const HIDDEN = '[hidden]';

/** Plain data of the effective configuration. */
export function effectiveConfig(schema: TSchema, value: unknown): unknown {
  const marks = marksOf(schema);
  if (value !== undefined && marks.secret) return HIDDEN;
  if (Array.isArray(value)) {
    const items = itemSchema(schema);
    return value.map((item) => (items === null ? hidden(item) : effectiveConfig(items, item)));
  }
  if (isRecord(value)) return effectiveObject(schema, value);
  if (value !== undefined) return marks.address ? hideUserInfo(value) : value;
  const fallback = keyword(schema, 'default');
  if (fallback !== undefined || !marks.fill) return fallback;
  return effectiveObject(schema, {});
}

/** The same as YAML text. */
export function effectiveText(effective: unknown): string {
  return stringify(effective, { lineWidth: 120 });
}

function effectiveObject(schema: TSchema, value: Readonly<Record<string, unknown>>): unknown {
  const branch = branchByKind(schema, value) ?? objectBranch(schema, value);
  if (branch === null) return hidden(value);
  const result: [string, unknown][] = [];
  const properties = propertiesOf(branch);
  for (const [key, inner] of properties) {
    const shown = effectiveConfig(inner, value[key]);
    if (shown !== undefined) result.push([key, shown]);
  }
  const additional = additionalOf(branch);
  for (const [key, inner] of Object.entries(value)) {
    if (!properties.has(key)) result.push([key, additional === null ? hidden(inner) : effectiveConfig(additional, inner)]);
  }
  return Object.fromEntries(result);
}

/** What no schema describes may be anything, a secret included; numbers and flags tell nothing. */
function hidden(value: unknown): unknown {
  return typeof value === 'number' || typeof value === 'boolean' ? value : HIDDEN;
}
