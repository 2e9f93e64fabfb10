// Owns the merge of what several sources say into the instances of one view (M1, M3, M7, M8): who is a member, in which order.
// A pure function of provenances, policy and holds; fields.ts decides the fields. Called by catalog; must never keep state.
import type { MergePolicy } from '../model/policy.ts';
import { compareText } from '../model/service.ts';
import type { FoundConflict } from './conflicts.ts';
import { conflictsOf, mergeFields, type Voice } from './fields.ts';
import { compareAddress, indexOfAddress } from './identity.ts';
import type { MergeInput, MergeSource } from './merge-input.ts';
import { sameInstance, sameShares } from './same.ts';
import type { View, ViewInstance } from './view.ts';

/** Content of a view; the catalog adds revision and the age of conflicts. */
export interface Merged {
  readonly instances: readonly ViewInstance[];
  readonly conflicts: readonly FoundConflict[];
  readonly shares: View['shares'];
  readonly sticky: string | undefined;
}

/**
 * Merges by M1-M8. Instances of `previous` that are equal are used again, so that an unchanged view keeps its objects.
 * Answers null when no source knows the service.
 */
export function merge(input: MergeInput, previous: View | undefined): Merged | null {
  const known = input.sources.filter((source) => source.presence !== 'neverSeen');
  if (!known.some((source) => source.presence === 'present' || source.entries.length > 0)) return null;
  const ranks = authorityRanks(input);
  const rules = membership(input, known);
  const instances: ViewInstance[] = [];
  const conflicts: FoundConflict[] = duplicates(known);
  const earlier = previous?.instances ?? [];
  let at = 0;
  for (const voices of groupByIdentity(known)) {
    settleCopies(voices, input);
    if (!rules.isMember(voices)) continue;
    const groups = rules.groupsOf(voices);
    const authority = voices.length === 1 ? voices : byAuthority(voices, ranks);
    const made = mergeFields(voices, authority, groups, input.isolationIgnores);
    // Both lists are sorted by identity: one walk finds the earlier object.
    let same = earlier[at];
    while (same !== undefined && compareIdentity(same, made) < 0) same = earlier[++at];
    instances.push(same !== undefined && sameInstance(same, made) ? same : made);
    if (voices.length > 1) conflicts.push(...conflictsOf(voices, authority, made));
  }
  if (known.length > 1) conflicts.push(...disjoint(known, instances));
  const shares = sameShares(previous?.shares, rules.shares) ? previous?.shares : rules.shares;
  return { instances, conflicts, shares, sticky: shares === undefined ? undefined : input.sticky };
}

/** Order of a view: network, host, port, transport. */
export function compareIdentity(a: ViewInstance, b: ViewInstance): number {
  return a.network === b.network ? compareAddress(a, b) : compareText(a.network, b.network);
}

interface Membership {
  isMember(voices: readonly Voice[]): boolean;
  groupsOf(voices: readonly Voice[]): readonly string[] | undefined;
  readonly shares: View['shares'];
}

/** M3, or the union of a running migration. */
function membership(input: MergeInput, known: readonly MergeSource[]): Membership {
  const { policy, migrating } = input;
  const union: Membership = { isMember: remains, groupsOf: () => undefined, shares: undefined };
  if (policy.kind === 'weighted') return weighted(policy, known, migrating) ?? union;
  if (policy.kind === 'union' || migrating) return union;
  const ranks = authorityRanks(input);
  const filled = known.filter((source) => source.entries.length > 0);
  const first = filled.reduce<MergeSource | null>(
    (best, source) => (best === null || rankOf(ranks, source.id) < rankOf(ranks, best.id) ? source : best),
    null,
  );
  return first === null ? union : { ...union, isMember: (voices) => voices.some((one) => one.source === first && !one.orphan) };
}

/** Null when no listed source has an instance: then any source fills in. */
function weighted(
  policy: Extract<MergePolicy, { kind: 'weighted' }>,
  known: readonly MergeSource[],
  migrating: boolean,
): Membership | null {
  const filled = new Set(known.filter((source) => source.entries.length > 0).map((source) => source.id));
  const listed = policy.shares.filter((one) => filled.has(one.source));
  if (listed.length === 0) return null;
  const total = listed.reduce((sum, one) => sum + one.share, 0);
  const ids = listed.map((one) => one.source);
  const all = policy.shares.map((one) => one.source);
  const mine = (voices: readonly Voice[]) => ids.filter((id) => voices.some((one) => one.source.id === id && !one.orphan));
  return {
    isMember: (voices) => remains(voices) && (migrating || mine(voices).length > 0),
    // A draw must find the instance on either side: what one side lacks belongs to both (migration.md).
    groupsOf: (voices) => {
      const groups = mine(voices);
      return migrating && groups.length < all.length ? ids : groups;
    },
    // Shares that are all zero could never be drawn.
    shares: total > 0 ? listed.map(({ source, share }) => ({ source, share })) : undefined,
  };
}

function remains(voices: readonly Voice[]): boolean {
  return voices.some((one) => !one.orphan);
}

/** M7: a copy whose origin answers without it goes; while the origin has it, the copy does not vote. */
function settleCopies(voices: readonly Voice[], input: MergeInput): void {
  for (const voice of voices) {
    const { copyOf } = voice.entry;
    if (copyOf === null || copyOf === voice.source.id) continue;
    const origin = input.sources.find((source) => source.id === copyOf);
    if (origin === undefined || origin.presence === 'neverSeen') continue;
    voice.silent = true;
    voice.orphan = indexOfAddress(addressesOf(origin), voice.entry.instance) < 0;
  }
}

function addressesOf(source: MergeSource) {
  source.addresses ??= source.entries.map((entry) => entry.instance);
  return source.addresses;
}

/** Voices of equal identity, in identity order; within a group in the order of the sources in the config. */
function groupByIdentity(sources: readonly MergeSource[]): readonly Voice[][] {
  const voices: Voice[] = [];
  for (const source of sources) {
    for (const entry of source.entries) voices.push({ source, entry, silent: false, orphan: false });
  }
  if (sources.length > 1) voices.sort(compareVoices);
  const groups: Voice[][] = [];
  let group: Voice[] | null = null;
  for (const voice of voices) {
    const head: Voice | undefined = group?.[0];
    if (group !== null && head !== undefined && sameIdentity(head, voice)) group.push(voice);
    else {
      group = [voice];
      groups.push(group);
    }
  }
  return groups;
}

/** Stable sort: equal identities stay in the order of the sources. */
function compareVoices(a: Voice, b: Voice): number {
  if (a.source.network !== b.source.network) return compareText(a.source.network, b.source.network);
  return compareAddress(a.entry.instance, b.entry.instance);
}

function sameIdentity(a: Voice, b: Voice): boolean {
  return a.source.network === b.source.network && compareAddress(a.entry.instance, b.entry.instance) === 0;
}

/** M4: the `prefer` order first, then the order of the config. */
function authorityRanks(input: MergeInput): ReadonlyMap<string, number> {
  const order = authorityOrder(input);
  const ranks = new Map<string, number>();
  for (const id of [...order, ...input.sources.map((source) => source.id)]) if (!ranks.has(id)) ranks.set(id, ranks.size);
  return ranks;
}

/** While a migration shifts, the fields are those of the side that most requests are drawn over. */
function authorityOrder({ policy, migrating }: MergeInput): readonly string[] {
  if (policy.kind === 'prefer') return policy.order;
  if (policy.kind !== 'weighted' || !migrating) return [];
  return [...policy.shares].sort((a, b) => b.share - a.share).map(({ source }) => source);
}

function rankOf(ranks: ReadonlyMap<string, number>, id: string): number {
  return ranks.get(id) ?? Number.POSITIVE_INFINITY;
}

function byAuthority(voices: readonly Voice[], ranks: ReadonlyMap<string, number>): readonly Voice[] {
  return [...voices].sort((a, b) => rankOf(ranks, a.source.id) - rankOf(ranks, b.source.id));
}

/** M1: the same address twice in one snapshot. */
function duplicates(sources: readonly MergeSource[]): FoundConflict[] {
  return sources.flatMap((source) =>
    source.duplicates.map(({ address, ids }) => ({
      instance: address,
      field: 'duplicate',
      values: ids.map((value) => ({ source: source.id, value })),
      chosen: ids[0] ?? '',
      rule: 'M1',
    })),
  );
}

/** M2: two unrelated services with one name share no address. */
function disjoint(sources: readonly MergeSource[], instances: readonly ViewInstance[]): FoundConflict[] {
  const speaking = sources.filter((source) => source.live && source.entries.some((entry) => !entry.held));
  if (speaking.length < 2 || instances.some((instance) => instance.provenance.length > 1)) return [];
  return [
    {
      instance: '',
      field: 'disjoint',
      values: speaking.map((source) => ({ source: source.id, value: `${source.entries.length} instances` })),
      chosen: 'all',
      rule: 'M2',
    },
  ];
}
