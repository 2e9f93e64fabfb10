// Owns who a record of the target belongs to (migration.md rule 5): ours, native, or another's copy. Pure. Called by decide.ts, by
// ending.ts and before each removal. The ledger alone decides only where the target loses metadata.
import { isForeignCopy, KEPT_KEY, MIGRATION_KEY, readMarker } from '../catalog/copies.ts';
import type { SourceAccount } from '../catalog/view.ts';
import type { Instance } from '../model/instance.ts';
import type { CopyRules } from './desired.ts';
import { type Address, addressOf, mayBe } from './ledger.ts';
import type { LedgerEntry } from './migration.ts';

/** What stands at one address of the target, by its own last word: what only the catalog holds is not there. */
export interface Standing {
  /** Our copy. */
  readonly ours: Instance | null;
  readonly natives: readonly Instance[];
  /** Another migration or tool has a copy there: neither ours nor a reason to end ours. */
  readonly others: boolean;
}

export type Belongs = 'ours' | 'native' | 'others';

/** Whose record this is. `entry`: what the ledger has at its address. */
export function belongs(
  record: Instance,
  entry: LedgerEntry | undefined,
  rules: Pick<CopyRules, 'migration' | 'keeps'>,
): Belongs {
  // Without markers a record at our address is ours by its id, else a provider's beside ours.
  if (!rules.keeps.has('metadata'))
    return entry === undefined || entry.state === 'withheld' || !mayBe(entry, record.id) ? 'native' : 'ours';
  const marker = readMarker(record.metadata);
  if (marker?.migration === rules.migration) return 'ours';
  if (entry?.state === 'kept' && record.metadata.has(KEPT_KEY) && record.metadata.get(MIGRATION_KEY) === rules.migration)
    return 'ours';
  return marker !== null || isForeignCopy(record.metadata) ? 'others' : 'native';
}

/** All that stands in the target, by address. */
export function standings(
  target: SourceAccount | null,
  entries: readonly LedgerEntry[],
  rules: Pick<CopyRules, 'migration' | 'keeps'>,
): ReadonlyMap<Address, Standing> {
  const known = new Map(entries.map((entry) => [addressOf(entry), entry]));
  const found = new Map<Address, { ours: Instance | null; natives: Instance[]; others: boolean }>();
  for (const { instance, held } of target?.instances ?? []) {
    // What only the catalog holds does not stand there: a native that the target lost must not keep its copy away.
    if (held) continue;
    const address = addressOf(instance);
    const at = found.get(address) ?? { ours: null, natives: [], others: false };
    found.set(address, at);
    const whose = belongs(instance, known.get(address), rules);
    if (whose === 'native') at.natives.push(instance);
    else if (whose === 'others') at.others = true;
    else at.ours = nearer(at.ours, instance, known.get(address));
  }
  return found;
}

function nearer(one: Instance | null, other: Instance, entry: LedgerEntry | undefined): Instance {
  if (one === null) return other;
  return other.id === entry?.receipt?.nativeId ? other : one;
}
