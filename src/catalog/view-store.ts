// Owns the entries of the catalog: one per service of ours, its view, its revision (M9), and who is told of changes (R5).
// Called by catalog and the desks; must never judge an answer or keep anything that a source said.
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { MergePolicy, ServicePolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { Events } from '../telemetry/events.ts';
import { ConflictBook } from './conflicts.ts';
import { Entry, type MergeContext, mergeInput } from './entry.ts';
import type { MergeOverlay } from './evidence.ts';
import { type Merged, merge } from './merge.ts';
import { NameIndex } from './name-index.ts';
import { Publisher } from './publisher.ts';
import { sameConflict, sameList } from './same.ts';
import { Slices } from './slices.ts';
import type { SourceRecord } from './sources.ts';
import type { View } from './view.ts';

export type ViewListener = (service: ServiceId, view: View | undefined) => void;

const EVENT_FIELDS = 20;

export interface ViewStoreDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: Events;
  readonly overlay: MergeOverlay;
  readonly startIndex: number;
  sourceOf(id: string): SourceRecord | undefined;
  /** Whether a source's word on the service is current changed. */
  stateChanged(service: ServiceId): void;
  /** Makes sure that what the entry's records know is in memory and judged by the rules in force; runs before a merge. */
  prepare(entry: Entry, configChanged: boolean): void;
}

/** A page of names. */
export interface NamePage {
  readonly names: readonly ServiceId[];
  /** Give it as `cursor` for the next page; null at the end. */
  readonly next: ServiceId | null;
}

export interface NameQuery {
  readonly prefix?: string;
  /** Part of the name. */
  readonly q?: string;
  /** Only services that this source has. */
  readonly source?: string;
  readonly limit: number;
  readonly cursor?: ServiceId | null;
}

export class ViewStore {
  readonly conflicts = new ConflictBook();
  readonly #deps: ViewStoreDeps;
  readonly #entries = new Map<ServiceId, Entry>();
  readonly #sortedNames = new NameIndex();
  readonly #publisher: Publisher<Entry>;
  readonly #slices: Slices<Entry>;
  readonly #listeners = new Set<ViewListener>();
  #policyOf: ((service: ServiceId) => ServicePolicy) | null = null;
  #generation = 0;
  #index: number;

  constructor(deps: ViewStoreDeps) {
    this.#deps = deps;
    this.#index = deps.startIndex;
    this.#publisher = new Publisher(deps.clock, (entry) => this.#publish(entry));
    this.#slices = new Slices(deps.clock, (entry) => this.#slice(entry));
  }

  get index(): number {
    return this.#index;
  }

  takeIndex(): number {
    return ++this.#index;
  }

  get size(): number {
    return this.#entries.size;
  }

  entries(): Iterable<Entry> {
    return this.#entries.values();
  }

  names(): Iterable<ServiceId> {
    return this.#entries.keys();
  }

  find(id: ServiceId): Entry | undefined {
    return this.#entries.get(id);
  }

  /** New policies: every entry is looked at again, in slices. */
  configure(policyOf: (service: ServiceId) => ServicePolicy): void {
    this.#policyOf = policyOf;
    this.#generation++;
    for (const entry of this.#entries.values()) this.#slices.add(entry);
  }

  /** The entry of a service, made when it is new. */
  entryFor(id: ServiceId): Entry {
    const found = this.#entries.get(id);
    if (found !== undefined) return found;
    if (this.#policyOf === null) throw new RangeError('catalog: not configured');
    const entry = new Entry(id, this.#policyOf(id), this.#generation);
    this.#entries.set(id, entry);
    this.#sortedNames.add(id);
    return entry;
  }

  /** The policy in force for an entry. */
  policy(entry: Entry): ServicePolicy {
    if (entry.policyGeneration !== this.#generation && this.#policyOf !== null) {
      entry.policyGeneration = this.#generation;
      const policy = this.#policyOf(entry.id);
      if (!sameMerge(policy.merge, entry.policy.merge)) entry.dirty = true;
      entry.policy = policy;
    }
    return entry.policy;
  }

  /** Policy of a service that the catalog may not know. */
  policyOf(id: ServiceId): MergePolicy {
    return this.#policyOf?.(id).merge ?? { kind: 'union' };
  }

  /** What sources say of the entry changed. `atOnce`: something left the view (R5). */
  changed(entry: Entry, atOnce: boolean): void {
    entry.dirty = true;
    // What the disk said is history: this takes an index of its own and is told.
    entry.restoredRevision = null;
    this.#publisher.changed(entry, atOnce);
  }

  /** Only the state of a source changed: the view may show other words of health, no hurry. */
  stateChanged(entry: Entry): void {
    entry.dirty = true;
    this.#slices.add(entry);
    this.#deps.stateChanged(entry.id);
  }

  /** Publishes an entry that lost a record; without records it leaves the catalog. */
  settle(entry: Entry): void {
    this.changed(entry, true);
    if (entry.records.length > 0) return;
    this.#publisher.forget(entry);
    this.#slices.delete(entry);
    this.#entries.delete(entry.id);
    this.#sortedNames.remove(entry.id);
  }

  get(service: ServiceId): View | undefined {
    const entry = this.#entries.get(service);
    if (entry === undefined) return undefined;
    this.#refresh(entry);
    if (entry.view !== entry.published && entry.dueStep === 0) this.#publisher.changed(entry, false);
    return entry.view;
  }

  /** See Catalog.names. */
  page(query: NameQuery): NamePage {
    const { prefix = '', q, source, limit, cursor } = query;
    const names: ServiceId[] = [];
    const most = Math.max(limit * 4, 1_000);
    let seen = 0;
    let last: ServiceId | null = null;
    for (const name of this.#sortedNames.from(cursor != null && cursor > prefix ? cursor : prefix)) {
      if (name === cursor) continue;
      if (!name.startsWith(prefix)) return { names, next: null };
      if (names.length >= limit || seen >= most) return { names, next: last };
      seen++;
      last = name;
      if (q !== undefined && !name.includes(q)) continue;
      if (source !== undefined && !this.#hasSource(name, source)) continue;
      names.push(name);
    }
    return { names, next: null };
  }

  subscribe(listener: ViewListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#publisher.close();
    this.#slices.close();
  }

  #hasSource(name: ServiceId, source: string): boolean {
    const records = this.#entries.get(name)?.records ?? [];
    return records.some((one) => one.source.config.id === source && one.presence === 'present');
  }

  #slice(entry: Entry): void {
    this.#bringUp(entry);
    // Nobody has seen it yet: it is built when somebody asks.
    if (entry.restoredRevision !== null) return;
    if (entry.dirty) this.#publisher.changed(entry, false);
  }

  /** Policy and addresses by the config in force. */
  #bringUp(entry: Entry): void {
    const configChanged = entry.policyGeneration !== this.#generation;
    this.policy(entry);
    if (configChanged) this.#deps.prepare(entry, true);
  }

  #publish(entry: Entry): void {
    this.#refresh(entry);
    const { view } = entry;
    if (view === entry.published) return;
    entry.published = view;
    for (const listener of this.#listeners) {
      try {
        listener(entry.id, view);
      } catch (thrown) {
        this.#deps.log.error({ service: entry.id, error: messageOf(thrown) }, 'a listener of the catalog failed');
      }
    }
  }

  /** Brings the view up to what the records say. */
  #refresh(entry: Entry): void {
    this.#bringUp(entry);
    if (!entry.dirty) return;
    this.#deps.prepare(entry, false);
    entry.dirty = false;
    const context: MergeContext = { overlay: this.#deps.overlay, sourceOf: this.#deps.sourceOf, now: this.#deps.clock.now() };
    const merged = merge(mergeInput(entry, context), entry.view);
    if (merged === null) this.#vanished(entry);
    else if (!isSame(entry.view, merged)) this.#replace(entry, merged);
    entry.restoredRevision = null;
  }

  #vanished(entry: Entry): void {
    if (entry.view === undefined) return;
    this.conflicts.replace(entry.view.conflicts, [], 0);
    entry.view = undefined;
    this.#index++;
  }

  #replace(entry: Entry, merged: Merged): void {
    const before = entry.view?.conflicts ?? [];
    const conflicts = this.conflicts.replace(before, merged.conflicts, this.#deps.clock.wallNow());
    if (conflicts.length > 0 && before.length === 0) {
      const fields = [...new Set(conflicts.map((one) => one.field))].slice(0, EVENT_FIELDS);
      this.#deps.events.emit('conflict', { service: entry.id, fields, count: conflicts.length });
    }
    entry.view = {
      service: entry.id,
      key: entry.key,
      revision: entry.restoredRevision ?? ++this.#index,
      instances: merged.instances,
      conflicts,
      ...(merged.shares === undefined ? {} : { shares: merged.shares }),
      ...(merged.sticky === undefined ? {} : { sticky: merged.sticky }),
    };
    // What the disk said was there from the start: no change to tell.
    if (entry.restoredRevision !== null) entry.published = entry.view;
  }
}

/** M8: equal content keeps the object and its revision. */
function isSame(view: View | undefined, merged: Merged): boolean {
  return (
    view !== undefined &&
    view.shares === merged.shares &&
    view.sticky === merged.sticky &&
    sameList(view.instances, merged.instances, Object.is) &&
    sameList(view.conflicts, merged.conflicts, sameConflict)
  );
}

function sameMerge(a: MergePolicy, b: MergePolicy): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
