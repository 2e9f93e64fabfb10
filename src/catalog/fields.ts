// Owns the choice of every field of a merged instance (M4, M5 as far as registries go) and the list of what they differ on (M6).
// Called by merge alone; pure.
import type { InstanceField } from '../adapter/capabilities.ts';
import { hostPort } from '../kernel/address.ts';
import { type Instance, type Locality, NORMAL_WEIGHT, type RegistryHealth } from '../model/instance.ts';
import { MAX_METADATA_KEYS } from '../model/metadata.ts';
import type { FoundConflict } from './conflicts.ts';
import type { MergeEntry, MergeSource } from './merge-input.ts';
import type { Provenance, ViewInstance } from './view.ts';

/** One source's word on one address. */
export interface Voice {
  readonly source: MergeSource;
  readonly entry: MergeEntry;
  /** A copy whose origin is known: it does not vote (M7). */
  silent: boolean;
  /** A copy whose origin is gone: it does not even keep the address. */
  orphan: boolean;
}

/** `voices` in the order of the config, `authority` the same in the order of M4. */
export function mergeFields(
  voices: readonly Voice[],
  authority: readonly Voice[],
  groups: readonly string[] | undefined,
  isolationIgnores: string | null,
): ViewInstance {
  const voters = votersOf(authority);
  const { host, port, transport } = (authority[0] ?? unreachable()).entry.instance;
  const isolated = isIsolated(voters, isolationIgnores);
  const protocol = firstText(voters, 'protocol');
  const version = firstText(voters, 'version');
  const locality = firstLocality(voters);
  const { network } = (authority[0] ?? unreachable()).source;
  const weight = isolated ? 0 : weightOf(voters);
  const registryHealth = healthOf(voters);
  const metadata = metadataOf(voters);
  const held = voters.every((one) => one.entry.held);
  const suspect = voters.every((one) => one.entry.held || one.entry.suspect);
  const provenance = voices.map(provenanceOf);
  const own = { network, transport, host, port, weight, registryHealth, isolated, metadata, held, suspect, provenance };
  if (protocol === undefined && version === undefined && locality === undefined && groups === undefined) return own;
  // A whole literal where all is there: an object put together by spreads costs three times the memory.
  if (protocol !== undefined && version !== undefined && locality !== undefined && groups === undefined) {
    return {
      network,
      transport,
      host,
      port,
      weight,
      registryHealth,
      isolated,
      metadata,
      held,
      suspect,
      provenance,
      protocol,
      version,
      locality,
    };
  }
  return {
    ...own,
    ...(protocol === undefined ? NOTHING : { protocol }),
    ...(version === undefined ? NOTHING : { version }),
    ...(locality === undefined ? NOTHING : { locality }),
    ...(groups === undefined ? NOTHING : { groups }),
  };
}

const NOTHING = {};

function unreachable(): never {
  throw new RangeError('merge: an instance without a voice');
}

function provenanceOf({ source, entry }: Voice): Provenance {
  const { id, weight, health, isolated } = entry.instance;
  const { copyOf, held } = entry;
  if (copyOf === null) return { source: source.id, nativeId: id, weight, health, isolated, held };
  return { source: source.id, nativeId: id, weight, health, isolated, copyOf, held };
}

/** Who votes: not the copies of a known origin, unless there is nobody else (its origin is in another network). */
function votersOf(voices: readonly Voice[]): readonly Voice[] {
  if (voices.length === 1 || !voices.some((one) => one.silent)) return voices;
  const voters = voices.filter((one) => !one.silent);
  return voters.length > 0 ? voters : voices;
}

function reads(voice: Voice, field: InstanceField): boolean {
  return voice.source.reads.has(field);
}

function weightOf(voters: readonly Voice[]): number {
  for (const voice of voters) if (reads(voice, 'weight')) return voice.entry.instance.weight;
  return NORMAL_WEIGHT;
}

/** Live words on records that the source still lists; failing these, live words on held ones. */
function current(voters: readonly Voice[], field: InstanceField): readonly Voice[] {
  const [only] = voters;
  if (only !== undefined && voters.length === 1) return only.source.live && reads(only, field) ? voters : NOBODY;
  const live = voters.filter((one) => one.source.live && reads(one, field));
  const listed = live.filter((one) => !one.entry.held);
  return listed.length > 0 ? listed : live;
}

const NOBODY: readonly Voice[] = [];

/** M5: live sources agree, or unknown. `unknown` of a source that reads health is a word of distrust. */
function healthOf(voters: readonly Voice[]): RegistryHealth {
  const [first, ...others] = current(voters, 'health');
  if (first === undefined) return 'unknown';
  const { health } = first.entry.instance;
  return others.every((one) => one.entry.instance.health === health) ? health : 'unknown';
}

/**
 * A live source says so. Where no live one speaks, the last word of a stale one stands: an operator's isolation must not
 * end because the registry went away.
 */
function isIsolated(voters: readonly Voice[], ignores: string | null): boolean {
  const live = current(voters, 'isolated');
  const voices = live.length > 0 ? live : voters.filter((one) => reads(one, 'isolated'));
  const isolating = voices.filter((one) => one.entry.instance.isolated);
  if (ignores === null || isolating.length === 0) return isolating.length > 0;
  const nativeElsewhere = voters.some((one) => one.source.id !== ignores && one.entry.copyOf === null);
  return isolating.some((one) => one.source.id !== ignores || !nativeElsewhere);
}

function firstText(voters: readonly Voice[], field: 'protocol' | 'version'): string | undefined {
  for (const voice of voters) {
    const text = voice.entry.instance[field];
    if (reads(voice, field) && text !== undefined && text !== '') return text;
  }
  return undefined;
}

function hasLocality(locality: Locality | undefined): locality is Locality {
  return Boolean(locality?.region || locality?.zone || locality?.campus);
}

function firstLocality(voters: readonly Voice[]): Locality | undefined {
  for (const voice of voters) {
    const { locality } = voice.entry.instance;
    if (reads(voice, 'locality') && hasLocality(locality)) return locality;
  }
  return undefined;
}

/** Per key, first in authority order. One speaker's map is used as it is. */
function metadataOf(voters: readonly Voice[]): ReadonlyMap<string, string> {
  let merged: ReadonlyMap<string, string> | null = null;
  let own: Map<string, string> | null = null;
  for (const voice of voters) {
    if (!reads(voice, 'metadata')) continue;
    const { metadata } = voice.entry.instance;
    if (merged === null || merged.size === 0) {
      merged = metadata;
      continue;
    }
    for (const [key, value] of metadata) {
      if (merged.has(key)) continue;
      own ??= new Map(merged);
      if (own.size < MAX_METADATA_KEYS) own.set(key, value);
      merged = own;
    }
  }
  return merged ?? EMPTY;
}

const EMPTY: ReadonlyMap<string, string> = new Map();

const FIELDS: readonly { readonly field: InstanceField; readonly rule: string; text(instance: Instance): string }[] = [
  { field: 'weight', rule: 'M4 authority', text: (one) => String(one.weight) },
  { field: 'health', rule: 'M5', text: (one) => one.health },
  { field: 'isolated', rule: 'M4 any live source', text: (one) => String(one.isolated) },
  { field: 'protocol', rule: 'M4 authority', text: (one) => one.protocol ?? '' },
  { field: 'version', rule: 'M4 authority', text: (one) => one.version ?? '' },
  { field: 'locality', rule: 'M4 authority', text: (one) => localityText(one.locality) },
];

/** M6: fields on which live sources that list the record differ. Silence (empty) is no difference. */
export function conflictsOf(voices: readonly Voice[], authority: readonly Voice[], made: ViewInstance): FoundConflict[] {
  const speakers = authority.filter((one) => one.source.live && !one.silent && !one.orphan && !one.entry.held);
  if (speakers.length < 2) return [];
  const instance = hostPort(made.host, made.port);
  const found: FoundConflict[] = [];
  for (const { field, rule, text } of FIELDS) {
    const values = valuesOf(speakers, voices, field, text);
    if (differ(values)) found.push({ instance, field, values, chosen: chosenOf(field, made), rule });
  }
  const keys = new Set<string>();
  for (const one of speakers) if (reads(one, 'metadata')) for (const key of one.entry.instance.metadata.keys()) keys.add(key);
  for (const key of [...keys].sort()) {
    const values = valuesOf(speakers, voices, 'metadata', (one) => one.metadata.get(key) ?? '');
    const chosen = made.metadata.get(key) ?? '';
    if (differ(values)) found.push({ instance, field: `metadata.${key}`, values, chosen, rule: 'M4 authority' });
  }
  return found;
}

function valuesOf(
  speakers: readonly Voice[],
  order: readonly Voice[],
  field: InstanceField,
  text: (instance: Instance) => string,
): { source: string; value: string }[] {
  const speaking = new Set(speakers);
  return order
    .filter((one) => speaking.has(one) && reads(one, field))
    .map((one) => ({ source: one.source.id, value: text(one.entry.instance) }))
    .filter(({ value }) => value !== '');
}

function differ(values: readonly { readonly value: string }[]): boolean {
  return values.some(({ value }) => value !== values[0]?.value);
}

function chosenOf(field: InstanceField, made: ViewInstance): string {
  switch (field) {
    case 'weight':
      return String(made.weight);
    case 'health':
      return made.registryHealth;
    case 'isolated':
      return String(made.isolated);
    case 'protocol':
      return made.protocol ?? '';
    case 'version':
      return made.version ?? '';
    case 'locality':
      return localityText(made.locality);
    case 'metadata':
      return '';
  }
}

function localityText(locality: Locality | undefined): string {
  return hasLocality(locality) ? [locality.region ?? '', locality.zone ?? '', locality.campus ?? ''].join('/') : '';
}
