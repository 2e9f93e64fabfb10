// Owns what record a copy should be: from one instance of the origin to the instance that the target is to hold, with markers, mapped
// metadata, and isolation said in the target's own words (migration.md rules 3 to 5). Pure. Called by decide.ts and ending.ts.
import { createHash } from 'node:crypto';
import type { InstanceField } from '../adapter/capabilities.ts';
import { EPOCH_KEY, KEPT_KEY, MIGRATION_KEY, markersOf } from '../catalog/copies.ts';
import { hostPort } from '../kernel/address.ts';
import type { Instance, RegistryHealth } from '../model/instance.ts';
import { MAX_METADATA_KEYS, RESERVED_PREFIX } from '../model/metadata.ts';
import { compareText } from '../model/service.ts';
import type { SpecMapping } from './migration.ts';

/** Entries of metadata that an adapter only shows; a registry has no such word, and they change by themselves. */
const SHOWN_ONLY: ReadonlySet<string> = new Set(['etcd.lease']);

/** How copies of one direction are made. */
export interface CopyRules {
  /** Source id of the origin. */
  readonly origin: string;
  readonly migration: string;
  /** Of the present owner (rule 11). */
  readonly epoch: number;
  /** From `from` to `to`; copies the other way undo the renames. */
  readonly metadata: SpecMapping['metadata'];
  readonly backwards: boolean;
  /** What the target keeps of a record. */
  readonly keeps: ReadonlySet<InstanceField>;
}

/** The record that should stand in the target. `digest`: everything but health, as far as the target keeps it. */
export interface Desired {
  readonly kind: 'record';
  readonly instance: Instance;
  readonly digest: string;
}

/** The target has no word for what the origin says: no record is better than a wrong one. */
export interface Withheld {
  readonly kind: 'withheld';
  readonly reason: string;
}

/** What should stand in the target for this instance of the origin. */
export function desiredCopy(from: Instance, rules: CopyRules): Desired | Withheld {
  const said = inWordsOf(rules.keeps, from);
  if (said === null) {
    const what = from.isolated ? 'isolated' : 'unhealthy';
    return { kind: 'withheld', reason: `the target can say neither ${what}, weight 0 nor failing health` };
  }
  const instance: Instance = {
    id: copyId(rules.origin, from),
    host: from.host,
    port: from.port,
    transport: from.transport,
    ...said,
    ...(from.protocol !== undefined && { protocol: from.protocol }),
    ...(from.version !== undefined && { version: from.version }),
    ...(from.locality !== undefined && { locality: from.locality }),
    metadata: copyMetadata(from.metadata, rules),
  };
  return { kind: 'record', instance, digest: digestOf(instance, rules.keeps) };
}

/** The id that we ask for; registries that make their own ignore it. The same for every owner and every life of ours. */
export function copyId(origin: string, { host, port, transport }: Pick<Instance, 'host' | 'port' | 'transport'>): string {
  return `${origin}-${hostPort(host, port)}${transport === 'udp' ? '-udp' : ''}`;
}

/** Everything but health as text, restricted to what the target keeps; the owner's epoch is no part of it. */
export function digestOf(instance: Instance, keeps: ReadonlySet<InstanceField>): string {
  const kept = <T>(field: InstanceField, value: T): T | null => (keeps.has(field) ? value : null);
  const { region, zone, campus } = instance.locality ?? {};
  return JSON.stringify([
    instance.host,
    instance.port,
    instance.transport,
    kept('weight', instance.weight),
    kept('isolated', instance.isolated),
    kept('protocol', instance.protocol ?? null),
    kept('version', instance.version ?? null),
    kept('locality', [region ?? null, zone ?? null, campus ?? null]),
    kept('metadata', ownEntries(instance.metadata)),
  ]);
}

/** A digest in few characters, for the ledger. */
export function shortDigest(digest: string): string {
  return createHash('sha256').update(digest).digest('base64url').slice(0, 16);
}

/** True when the record shows all that we wrote; entries that the registry added of its own are no difference. */
export function showsAll(shown: Instance, wanted: Instance, keeps: ReadonlySet<InstanceField>): boolean {
  const metadata = new Map([...wanted.metadata.keys()].map((key) => [key, shown.metadata.get(key) ?? '']));
  return digestOf({ ...shown, metadata }, keeps) === digestOf(wanted, keeps);
}

/** The record with its markers turned to those of a kept copy: an ordinary record from then on, that `collect` still finds. */
export function keptCopy(copy: Instance, origin: string, migration: string): Instance {
  const markers: [string, string][] = [
    [KEPT_KEY, origin],
    [MIGRATION_KEY, migration],
  ];
  const rest = [...copy.metadata].filter(([key]) => !key.startsWith(RESERVED_PREFIX) && !SHOWN_ONLY.has(key));
  return { ...copy, id: copyId(origin, copy), metadata: new Map([...markers, ...rest]) };
}

/** A record of ours as it is shown, to be put once more unchanged: so a registry gives out the receipt that we lack. */
export function sameAgain(copy: Instance, origin: string): Instance {
  const metadata = new Map([...copy.metadata].filter(([key]) => !SHOWN_ONLY.has(key)));
  return { ...copy, id: copyId(origin, copy), metadata };
}

/** Weight, health and isolation in words that the target has; null: it has none for this. */
function inWordsOf(
  keeps: ReadonlySet<InstanceField>,
  { weight, health, isolated }: Instance,
): { readonly weight: number; readonly health: RegistryHealth; readonly isolated: boolean } | null {
  const speaksHealth = keeps.has('health');
  const quiet = isolated && !keeps.has('isolated');
  const sick = health === 'unhealthy' && !speaksHealth;
  const said = { weight, health: speaksHealth ? health : ('healthy' as const), isolated: isolated && !quiet };
  if (!quiet && !sick) return said;
  if (keeps.has('weight')) return { ...said, weight: 0 };
  return speaksHealth ? { ...said, health: 'unhealthy' } : null;
}

function copyMetadata(from: ReadonlyMap<string, string>, rules: CopyRules): ReadonlyMap<string, string> {
  const { origin, migration, epoch, backwards } = rules;
  const { rename, drop, set } = rules.metadata;
  const names = backwards ? new Map([...rename].map(([old, name]) => [name, old])) : rename;
  // Markers come first: whatever cuts a long list, it does not cut them.
  const metadata = new Map<string, string>(markersOf({ origin, migration, epoch: String(epoch) }));
  const add = (key: string, value: string): void => {
    if (metadata.has(key) || metadata.size < MAX_METADATA_KEYS) metadata.set(key, value);
  };
  if (!backwards) for (const [key, value] of set) add(key, value);
  for (const [key, value] of from) {
    if (key.startsWith(RESERVED_PREFIX) || SHOWN_ONLY.has(key)) continue;
    if (!backwards && (drop.has(key) || set.has(names.get(key) ?? key))) continue;
    add(names.get(key) ?? key, value);
  }
  return metadata;
}

function ownEntries(metadata: ReadonlyMap<string, string>): [string, string][] {
  return [...metadata].filter(([key]) => key !== EPOCH_KEY && !SHOWN_ONLY.has(key)).sort(([a], [b]) => compareText(a, b));
}
