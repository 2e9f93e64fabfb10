// Owns the records of all sources: which sources are configured, which of our services each native name is, and their ends.
// Called by catalog (configuration) and the source desk (answers); must never judge an answer.

import type { Interner } from '../model/intern.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { removeSourceMetrics } from './catalog-metrics.ts';
import type { Entry } from './entry.ts';
import type { HoldDesk } from './hold-desk.ts';
import { type NameRules, Names } from './names.ts';
import { type CatalogSource, nativeText, ServiceRecord, SourceRecord } from './sources.ts';
import type { ViewStore } from './view-store.ts';

/** catalog-rules §6. */
export const MAX_SERVICES_OF_SOURCE = 10_000;

export interface RecordStoreDeps {
  readonly metrics: Metrics;
  readonly interner: Interner;
  readonly views: ViewStore;
  readonly holds: HoldDesk;
  now(): number;
  /** What sources say of a service changed (for the last-good file). */
  wordsChanged(service: ServiceId): void;
}

export class RecordStore {
  readonly #deps: RecordStoreDeps;
  readonly #sources = new Map<string, SourceRecord>();
  #names = new Names({ sources: new Map(), rules: [] });
  #namesText = '';

  constructor(deps: RecordStoreDeps) {
    this.#deps = deps;
  }

  get names(): Names {
    return this.#names;
  }

  source(id: string): SourceRecord | undefined {
    return this.#sources.get(id);
  }

  sources(): Iterable<SourceRecord> {
    return this.#sources.values();
  }

  /** Takes sources and names of a config. Removed sources leave with all they said; what stays and is read alike is not merged again. */
  configure(sources: readonly CatalogSource[], names: readonly NameRules[]): void {
    const wanted = new Set(sources.map((source) => source.id));
    for (const [id, source] of this.#sources) if (!wanted.has(id)) this.#removeSource(source);
    for (const [order, source] of sources.entries()) this.#configureSource(source, order);
    this.#configureNames(sources, names);
  }

  /** The record of a native name, made when it is new; a sentence when the name has no place in the catalog. */
  recordFor(source: SourceRecord, key: ServiceKey): ServiceRecord | string {
    const text = nativeText(key);
    const found = source.services.get(text);
    if (found !== undefined) return found;
    const id = this.#names.toOurs(source.config.id, key);
    if (id === null) return 'the name breaks the rules for names, or names: gives it to another service';
    if (this.#isTaken(source, id)) return 'another service of this source has this name already';
    if (source.services.size >= MAX_SERVICES_OF_SOURCE) return `more than ${MAX_SERVICES_OF_SOURCE} services`;
    const native = { namespace: this.#deps.interner.text(key.namespace), name: key.name };
    const record = new ServiceRecord(source, native, id);
    source.services.set(text, record);
    this.#deps.views.entryFor(id).add(record);
    return record;
  }

  /** Forgets a record that says nothing any more. */
  settle(record: ServiceRecord): void {
    if (record.listed || record.presence === 'present' || record.instanceCount > 0) return;
    const entry = this.#deps.views.find(record.id);
    const records = entry?.records ?? [record];
    // An absent record tells a copy in another source that its origin is gone (M7).
    if (records.some((one) => one !== record && one.presence !== 'absent')) return;
    for (const one of records) if (!one.listed && one.instanceCount === 0) this.forget(one);
  }

  /** Takes a record out of the catalog with all that it said. */
  forget(record: ServiceRecord): void {
    const { holds, views } = this.#deps;
    const now = this.#deps.now();
    const { kept } = holds.load(record, now);
    record.leave(now);
    holds.end(record, kept);
    holds.expect(record, false);
    record.source.services.delete(nativeText(record.key));
    const entry = views.find(record.id);
    entry?.remove(record);
    this.#deps.wordsChanged(record.id);
    if (entry !== undefined) views.settle(entry);
  }

  /** What may be concluded from the silence of this source about copies of its instances changed (M7): rare, so all views are looked at. */
  originChanged(sourceId: string): void {
    for (const entry of this.#deps.views.entries()) if (hasCopyOf(entry, sourceId)) this.#deps.views.stateChanged(entry);
  }

  /** Addresses that the outbound policy refuses since the last config (own listeners move, too: M10) leave. */
  rejudge(entry: Entry): void {
    const now = this.#deps.now();
    for (const record of entry.records) {
      const { dial, id } = record.source.config;
      // What lies undecoded is judged when it is read.
      if (record.isStored) continue;
      const left = record.guardAt(now).retain(({ host, port }) => {
        const refusal = dial(host, port);
        if (refusal !== null) this.#deps.metrics.counter('weir_addresses_refused_total', id, refusal).inc();
        return refusal === null;
      });
      if (left.length === 0) continue;
      const kept = left.map((instance) => ({ instance, hold: null }));
      this.#deps.holds.end(record, kept);
      this.#deps.wordsChanged(record.id);
      this.#deps.views.changed(entry, true);
    }
  }

  #configureSource(config: CatalogSource, order: number): void {
    const source = this.#sources.get(config.id);
    if (source === undefined) {
      this.#sources.set(config.id, new SourceRecord(config, order));
      return;
    }
    const before = source.config;
    const moved = source.order !== order;
    const readsAlike = before.network === config.network && before.lists === config.lists && sameSet(before.reads, config.reads);
    source.config = config;
    source.order = order;
    if (readsAlike && !moved) return;
    for (const record of source.services.values()) {
      const entry = this.#deps.views.find(record.id);
      if (entry === undefined) continue;
      entry.sort();
      entry.dirty = true;
    }
  }

  #removeSource(source: SourceRecord): void {
    const { id } = source.config;
    for (const record of [...source.services.values()]) this.forget(record);
    this.#sources.delete(id);
    removeSourceMetrics(this.#deps.metrics, id);
    // Copies whose origin this was are ordinary records from now on.
    this.originChanged(id);
  }

  #configureNames(sources: readonly CatalogSource[], rules: readonly NameRules[]): void {
    const about = sources.map(
      ({ id, asNamespace: as, namespaces }) => [id, { as, ...(namespaces === undefined ? {} : { namespaces }) }] as const,
    );
    const text = JSON.stringify([about, rules.map((rule) => [rule.match, [...rule.names]])]);
    if (text === this.#namesText) return;
    this.#namesText = text;
    this.#names = new Names({ sources: new Map(about), rules });
    for (const source of this.#sources.values()) {
      const moved = [...source.services.values()].filter(
        (record) => this.#names.toOurs(source.config.id, record.key) !== record.id,
      );
      // First all leave their names, then all take the new ones: names may change places.
      for (const record of moved) this.#leaveName(record);
      for (const record of moved) this.#takeName(record);
    }
  }

  #leaveName(record: ServiceRecord): void {
    const entry = this.#deps.views.find(record.id);
    entry?.remove(record);
    this.#deps.wordsChanged(record.id);
    if (entry !== undefined) this.#deps.views.settle(entry);
  }

  #takeName(record: ServiceRecord): void {
    const { source } = record;
    const id = this.#names.toOurs(source.config.id, record.key);
    if (id === null || this.#isTaken(source, id)) {
      this.forget(record);
      return;
    }
    record.id = id;
    const entry = this.#deps.views.entryFor(id);
    entry.add(record);
    this.#deps.views.changed(entry, false);
    this.#deps.wordsChanged(id);
  }

  /** Another native name of the source has our name. */
  #isTaken(source: SourceRecord, id: ServiceId): boolean {
    return this.#deps.views.find(id)?.records.some((one) => one.source === source) === true;
  }
}

function hasCopyOf(entry: Entry, source: string): boolean {
  return entry.view?.instances.some((one) => one.provenance.some(({ copyOf }) => copyOf === source)) === true;
}

function sameSet<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean {
  return a.size === b.size && [...a].every((one) => b.has(one));
}
