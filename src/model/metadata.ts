// Owns the limits of metadata (catalog-rules M4, §6): untrusted keys and values → a bounded Map of strings.
import { NO_METADATA } from './instance.ts';

export const MAX_METADATA_KEYS = 64;
export const MAX_METADATA_KEY_BYTES = 128;
export const MAX_METADATA_VALUE_BYTES = 1_024;

/** Keys that only weir writes; see `markers` in catalog (W4). */
export const RESERVED_PREFIX = 'weir-';

const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/**
 * Takes entries in their order until the limits are reached. Values that are not strings become text (numbers, booleans) or JSON.
 * What breaks a limit or holds control characters is left out and counted in `cut`.
 */
export function boundedMetadata(entries: Iterable<readonly [string, unknown]>): {
  metadata: ReadonlyMap<string, string>;
  cut: number;
} {
  const metadata = new Map<string, string>();
  let cut = 0;
  for (const [key, raw] of entries) {
    const value = metadataText(raw);
    const fits =
      value !== null &&
      metadata.size < MAX_METADATA_KEYS &&
      key.length > 0 &&
      Buffer.byteLength(key) <= MAX_METADATA_KEY_BYTES &&
      Buffer.byteLength(value) <= MAX_METADATA_VALUE_BYTES &&
      !CONTROL.test(key) &&
      !CONTROL.test(value);
    if (fits) metadata.set(key, value);
    else cut++;
  }
  return { metadata: metadata.size === 0 ? NO_METADATA : metadata, cut };
}

/** Text of a metadata value, or null for what has none (null, undefined, functions). */
export function metadataText(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (value === null || value === undefined) return null;
  return JSON.stringify(value) ?? null;
}

/** Equal keys and values, order aside. */
export function sameMetadata(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  if (a === b) return true;
  if (a.size !== b.size) return false;
  for (const [key, value] of a) if (b.get(key) !== value) return false;
  return true;
}
