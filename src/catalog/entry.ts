// Owns the catalog's own record of one service of ours: its words by source, its view, and what a merge of it needs.
// Called by catalog; must never publish or judge.

import type { MergePolicy, ServicePolicy } from '../model/policy.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import { readMarker } from './copies.ts';
import type { MergeOverlay } from './evidence.ts';
import { compareAddress } from './identity.ts';
import type { MergeEntry, MergeInput, MergeSource } from './merge-input.ts';
import type { Publishable } from './publisher.ts';
import type { ServiceRecord, SourceRecord } from './sources.ts';
import type { View } from './view.ts';

/** One service of ours. */
export class Entry implements Publishable {
  readonly id: ServiceId;
  readonly key: ServiceKey;
  /** In the order of the sources. */
  records: readonly ServiceRecord[] = [];
  view: View | undefined = undefined;
  /** What subscribers were told last. */
  published: View | undefined = undefined;
  /** The view does not show what the records say. */
  dirty = true;
  /** Revision of a view that comes from disk and is not built yet; null otherwise. */
  restoredRevision: number | null = null;
  policy: ServicePolicy;
  /** Generation of the config under which `policy` was asked. */
  policyGeneration: number;
  /** Event service_merged was told. */
  merged = false;
  publishedAt = Number.NEGATIVE_INFINITY;
  dueStep = 0;

  constructor(id: ServiceId, policy: ServicePolicy, generation: number) {
    this.id = id;
    const slash = id.indexOf('/');
    this.key = { namespace: id.slice(0, slash), name: id.slice(slash + 1) };
    this.policy = policy;
    this.policyGeneration = generation;
  }

  add(record: ServiceRecord): void {
    this.records = this.records.length === 0 ? [record] : [...this.records, record];
    this.sort();
  }

  remove(record: ServiceRecord): void {
    this.records = this.records.filter((one) => one !== record);
  }

  /** After the order of the sources changed. */
  sort(): void {
    if (this.records.length > 1) this.records = [...this.records].sort((a, b) => a.source.order - b.source.order);
  }
}

/** What the merge of an entry reads beyond its records. */
export interface MergeContext {
  readonly overlay: MergeOverlay;
  readonly sourceOf: (id: string) => SourceRecord | undefined;
  readonly now: number;
}

/** The merge policy in force and whose word it is. */
export function policyInForce(entry: Entry, overlay: MergeOverlay): { policy: MergePolicy; migration: string | null } {
  const over = overlay.overlayOf(entry.id);
  return over === null ? { policy: entry.policy.merge, migration: null } : { policy: over.merge, migration: over.migration };
}

/** Everything that decides the entry's view, as plain data. */
export function mergeInput(entry: Entry, context: MergeContext): MergeInput {
  const over = context.overlay.overlayOf(entry.id);
  const sources = entry.records.map((record) => mergeSource(record, context));
  return {
    sources: [...sources, ...silentOrigins(sources, context)].sort((a, b) => orderOf(a, context) - orderOf(b, context)),
    policy: over?.merge ?? entry.policy.merge,
    // While a migration runs its holds are never confirmed by time; only its end narrows the members (migration.md).
    migrating: over !== null && !over.holdsByTime,
    isolationIgnores: over?.isolationIgnores ?? null,
    ...(over?.sticky === undefined ? {} : { sticky: over.sticky }),
  };
}

function orderOf(source: MergeSource, context: MergeContext): number {
  return context.sourceOf(source.id)?.order ?? Number.MAX_SAFE_INTEGER;
}

/**
 * Origins of copies that are configured here and hold no word on the service: where their complete list does not name it, the
 * origin is gone (M7).
 */
function silentOrigins(sources: readonly MergeSource[], context: MergeContext): MergeSource[] {
  const missing = new Map<string, MergeSource>();
  for (const { entries } of sources) {
    for (const { copyOf } of entries) {
      if (copyOf === null || missing.has(copyOf) || sources.some((source) => source.id === copyOf)) continue;
      const origin = context.sourceOf(copyOf);
      if (origin === undefined) continue;
      const { network, reads } = origin.config;
      const presence = origin.namesAll ? 'absent' : 'neverSeen';
      missing.set(copyOf, { id: copyOf, network, reads, live: false, presence, entries: [], duplicates: [] });
    }
  }
  return [...missing.values()];
}

function mergeSource(record: ServiceRecord, { overlay, now }: MergeContext): MergeSource {
  const { id, network, reads } = record.source.config;
  const guard = record.guardAt(now);
  const toEntry = (instance: MergeEntry['instance'], held: boolean, suspect: boolean): MergeEntry => ({
    instance,
    held,
    suspect: suspect || record.suspect,
    copyOf: readMarker(instance.metadata)?.origin ?? overlay.copyOrigin(record.id, id, instance.host, instance.port, instance.id),
  });
  const entries = guard.present.map((instance) => toEntry(instance, false, false));
  if (guard.kept.length > 0) {
    for (const { instance, hold } of guard.kept) entries.push(toEntry(instance, hold !== null, true));
    entries.sort((a, b) => compareAddress(a.instance, b.instance));
  }
  const { live, duplicates } = record;
  // A watch that only failed so far says nothing; the source's complete list does.
  const unnamed = record.presence === 'neverSeen' && !record.listed && record.source.namesAll;
  return { id, network, reads, live, presence: unnamed ? 'absent' : record.presence, entries, duplicates };
}
