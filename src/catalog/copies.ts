// Owns the markers by which a record is known as our copy (W4): their keys, their check, and what other weir-* keys become.
// Called by catalog at intake and by migrate when it writes; must never decide whether a copy stays (merge does, M7).
import { RESERVED_PREFIX } from '../model/metadata.ts';

/** Source id of the origin. */
export const ORIGIN_KEY = 'weir-origin';
/** Id of the migration that wrote the copy. */
export const MIGRATION_KEY = 'weir-migration';
/** Always `1`: a copy never begets a copy. */
export const HOPS_KEY = 'weir-hops';
/** Epoch of the owner that wrote it (migration.md rule 11); optional. */
export const EPOCH_KEY = 'weir-epoch';
/** Stands in the place of `weir-origin` once a finish kept the copy: an ordinary record from then on. */
export const KEPT_KEY = 'weir-kept';

const OUR_KEYS: ReadonlySet<string> = new Set([ORIGIN_KEY, MIGRATION_KEY, HOPS_KEY, EPOCH_KEY, KEPT_KEY]);

/** Records that other tools copied; they are not copied on. */
const FOREIGN_KEYS = ['__sync__', 'internal-eureka-replicate', 'sourceClusterId', 'internal-register-from', 'external-source'];

export interface CopyMarker {
  readonly origin: string;
  readonly migration: string;
  readonly epoch?: string;
}

/** Metadata entries that mark a copy. */
export function markersOf(marker: CopyMarker): [string, string][] {
  const entries: [string, string][] = [
    [ORIGIN_KEY, marker.origin],
    [MIGRATION_KEY, marker.migration],
    [HOPS_KEY, '1'],
  ];
  if (marker.epoch !== undefined) entries.push([EPOCH_KEY, marker.epoch]);
  return entries;
}

/** The valid marker of a copy, or null. A kept copy, a missing key or more than one hop is none. */
export function readMarker(metadata: ReadonlyMap<string, string>): CopyMarker | null {
  const origin = metadata.get(ORIGIN_KEY);
  if (origin === undefined || metadata.has(KEPT_KEY)) return null;
  const migration = metadata.get(MIGRATION_KEY);
  if (!isId(origin) || migration === undefined || !isId(migration) || metadata.get(HOPS_KEY) !== '1') return null;
  const epoch = metadata.get(EPOCH_KEY);
  return epoch === undefined ? { origin, migration } : { origin, migration, epoch };
}

/** True for a record that another sync tool wrote (rule 5 of migration.md). */
export function isForeignCopy(metadata: ReadonlyMap<string, string>): boolean {
  return FOREIGN_KEYS.some((key) => metadata.has(key));
}

/** M4: `weir-*` keys leave unless they make a valid marker (or mark a kept copy). Answers the same map when nothing leaves. */
export function withoutForgedMarkers(metadata: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  let ours = 0;
  for (const key of metadata.keys()) if (key.startsWith(RESERVED_PREFIX)) ours++;
  if (ours === 0) return metadata;
  const valid = readMarker(metadata) !== null || isKept(metadata);
  const clean = new Map<string, string>();
  for (const [key, value] of metadata) {
    if (!key.startsWith(RESERVED_PREFIX) || (valid && OUR_KEYS.has(key))) clean.set(key, value);
  }
  return clean.size === metadata.size ? metadata : clean;
}

function isKept(metadata: ReadonlyMap<string, string>): boolean {
  const kept = metadata.get(KEPT_KEY);
  return kept !== undefined && isId(kept) && !metadata.has(ORIGIN_KEY);
}

function isId(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/.test(text);
}
