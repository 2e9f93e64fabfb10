// Owns the catalog: what every source says of every service, merged into views with a process-wide index (M9). Called by the
// supervisors (SourceSink), by health/publish, the API and app; must never do I/O, and never scan all services for one change.
import type { SourceSink } from '../adapter/source-sink.ts';
import { hostPort } from '../kernel/address.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Instance } from '../model/instance.ts';
import type { MergePolicy, ServicePolicy } from '../model/policy.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import type { ServiceList, Snapshot, SourceError, SourceErrorCause } from '../model/snapshot.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { catalogMetrics, removeSourceMetrics } from './catalog-metrics.ts';
import { ConflictBook } from './conflicts.ts';
import { readMarker } from './copies.ts';
import { Entry, mergeInput, policyInForce } from './entry.ts';
import type { MergeOverlay, ProbeEvidence } from './evidence.ts';
import { HoldBook, type HoldRules } from './hold-book.ts';
import { admit } from './intake.ts';
import { Interner } from './intern.ts';
import { merge } from './merge.ts';
import { NameIndex } from './name-index.ts';
import { type NameRules, Names } from './names.ts';
import { Publisher } from './publisher.ts';
import { sameConflict, sameList } from './same.ts';
import type { Confirmation, Kept, Outcome } from './shrink-guard.ts';
import { Slices } from './slices.ts';
import { type CatalogSource, nativeText, type RejectedEntry, ServiceRecord, SourceRecord } from './sources.ts';
import type { HoldState, ServiceSourceState, SourceState, View } from './view.ts';
import type { RestoredWord, SourceWords, Words } from './words.ts';

/** catalog-rules §6. */
export const MAX_INSTANCES = 200_000;
export const MAX_SERVICES_OF_SOURCE = 10_000;

/** Holds and expiry are looked at this often while there is any. */
const TICK_MS = 1_000;
const EVENT_ADDRESSES = 20;

export interface CatalogDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly evidence: ProbeEvidence;
  readonly overlay: MergeOverlay;
  /** Index found in the last-good file; 0 without one. */
  readonly lastIndex: number;
}

/** What settings say of the catalog; `sources` in the order of the config. */
export interface CatalogConfig {
  readonly sources: readonly CatalogSource[];
  readonly names: readonly NameRules[];
  policyOf(service: ServiceId): ServicePolicy;
}

/** One source, as `/v1/sources` shows it. */
export interface CatalogSourceSummary {
  readonly id: string;
  readonly kind: string;
  readonly state: SourceState;
  readonly ageMs: number | null;
  readonly contactAgeMs: number | null;
  readonly cause?: string;
  readonly message?: string;
  readonly services: number;
  readonly instances: number;
  readonly held: number;
  /** Refused records since the start. */
  readonly rejected: number;
}

/** A page of names. */
export interface NamePage {
  readonly names: readonly ServiceId[];
  /** Give it as `cursor` for the next page; null at the end. */
  readonly next: ServiceId | null;
}

export type ViewListener = (service: ServiceId, view: View | undefined) => void;

const NONE_REJECTED: ReadonlySet<string> = new Set();

export class Catalog implements SourceSink {
  readonly #deps: CatalogDeps;
  readonly #sources = new Map<string, SourceRecord>();
  readonly #entries = new Map<ServiceId, Entry>();
  readonly #sortedNames = new NameIndex();
  readonly #conflicts = new ConflictBook();
  readonly #interner = new Interner();
  readonly #holds: HoldBook;
  readonly #publisher: Publisher<Entry>;
  readonly #slices: Slices<Entry>;
  readonly #listeners = new Set<ViewListener>();
  readonly #sourceListeners = new Set<(sourceId: string) => void>();
  readonly #wordListeners = new Set<(service: ServiceId) => void>();
  readonly #readListeners = new Set<(sourceId: string, native: ServiceKey) => void>();
  readonly #heldListeners = new Set<(sourceId: string, native: ServiceKey, held: boolean) => void>();
  readonly #startIndex: number;
  #config: CatalogConfig | null = null;
  #names = new Names({ sources: new Map(), rules: [] });
  #namesText = '';
  #generation = 0;
  #index: number;
  #seq = 0;
  #tick: Timer | null = null;
  #closed = false;

  constructor(deps: CatalogDeps) {
    this.#deps = deps;
    this.#holds = new HoldBook(deps.evidence);
    this.#publisher = new Publisher(deps.clock, (entry) => this.#publish(entry));
    this.#slices = new Slices(deps.clock, (entry) => this.#slice(entry));
    // M9: 2^20 views a second never catch up with the clock, so an index never repeats even when the file is lost.
    this.#startIndex = Math.max(Math.floor(deps.clock.wallNow() / 1_000) * 2 ** 20, deps.lastIndex + 1);
    this.#index = this.#startIndex;
    catalogMetrics(deps.metrics, {
      clock: deps.clock,
      sources: () => this.#sources.values(),
      totals: () => ({
        services: this.#entries.size,
        conflicts: this.#conflicts.listed,
        index: this.#index,
      }),
    });
  }

  // --- configuration -------------------------------------------------------------------------------------------------------

  /** Takes the config, at start and on every reload. Only what it changes is merged again; removed sources leave with all they said. */
  configure(config: CatalogConfig): void {
    this.#config = config;
    this.#generation++;
    const wanted = new Map(config.sources.map((source) => [source.id, source]));
    for (const [id, source] of this.#sources) if (!wanted.has(id)) this.#removeSource(source);
    for (const [order, source] of config.sources.entries()) this.#configureSource(source, order);
    this.#configureNames(config);
    for (const entry of this.#entries.values()) this.#slices.add(entry);
    this.#armTick();
  }

  #configureSource(config: CatalogSource, order: number): void {
    const source = this.#sources.get(config.id);
    if (source === undefined) {
      this.#sources.set(config.id, new SourceRecord(config, order));
      return;
    }
    const before = source.config;
    const moved = source.order !== order;
    const remerge =
      moved || before.network !== config.network || before.lists !== config.lists || !sameSet(before.reads, config.reads);
    source.config = config;
    source.order = order;
    if (!remerge) return;
    for (const record of source.services.values()) {
      const entry = this.#entries.get(record.id);
      if (moved) entry?.sort();
      if (entry !== undefined) entry.dirty = true;
    }
  }

  #removeSource(source: SourceRecord): void {
    const now = this.#deps.clock.now();
    for (const record of [...source.services.values()]) this.#forgetRecord(record, now);
    this.#sources.delete(source.config.id);
    removeSourceMetrics(this.#deps.metrics, source.config.id);
    // Copies whose origin this was are ordinary records from now on.
    for (const entry of this.#entries.values()) if (hasCopyOf(entry, source.config.id)) this.#changed(entry, false);
  }

  #configureNames(config: CatalogConfig): void {
    const about = config.sources.map(({ id, asNamespace, nativeNamespace }) => [id, asNamespace, nativeNamespace ?? 'default']);
    const text = JSON.stringify([about, config.names.map((rule) => [rule.match, [...rule.names]])]);
    if (text === this.#namesText) return;
    this.#namesText = text;
    const sources = config.sources.map(
      ({ id, asNamespace: as, nativeNamespace = 'default' }) => [id, { as, namespace: nativeNamespace }] as const,
    );
    this.#names = new Names({ sources: new Map(sources), rules: config.names });
    const now = this.#deps.clock.now();
    for (const source of this.#sources.values()) {
      for (const record of [...source.services.values()]) {
        const id = this.#names.toOurs(source.config.id, record.key);
        if (id === record.id) continue;
        if (id === null || this.#taken(source, id)) this.#forgetRecord(record, now);
        else this.#move(record, id);
      }
    }
  }

  /** Another native name of the source has our name. */
  #taken(source: SourceRecord, id: ServiceId): boolean {
    return this.#entries.get(id)?.records.some((one) => one.source === source) === true;
  }

  #move(record: ServiceRecord, id: ServiceId): void {
    const from = this.#entries.get(record.id);
    from?.remove(record);
    record.id = id;
    this.#entryFor(id).add(record);
    if (from !== undefined) this.#settleEntry(from);
    this.#changed(this.#entryFor(id), false);
    this.#wordsChanged(id);
  }

  // --- what sources say ----------------------------------------------------------------------------------------------------

  list(sourceId: string, list: ServiceList): void {
    const source = this.#sources.get(sourceId);
    if (source === undefined || this.#closed) return;
    const now = this.#deps.clock.now();
    this.#heard(source, now);
    if (list.complete) {
      source.listed = true;
      source.goodAt = now;
    }
    const wasLost = source.lost !== null;
    source.lost = null;
    const named = new Set<string>();
    for (const key of list.keys) {
      named.add(nativeText(key));
      const record = this.#recordFor(source, key);
      if (record === null) continue;
      record.listed = true;
      if (record.listAbsent) this.#listedAgain(record, now);
    }
    if (list.complete) this.#unlisted(source, named, list.failed, now);
    if (wasLost) this.#followSource(source, now);
    this.#announce(source);
  }

  snapshot(sourceId: string, key: ServiceKey, snapshot: Snapshot): void {
    const source = this.#sources.get(sourceId);
    if (source === undefined || this.#closed) return;
    const now = this.#deps.clock.now();
    this.#heard(source, now);
    source.goodAt = now;
    const record = this.#recordFor(source, key);
    if (record !== null) this.#answer(record, snapshot, now);
    this.#announce(source);
  }

  unchanged(sourceId: string, key: ServiceKey): void {
    const source = this.#sources.get(sourceId);
    const record = source?.services.get(nativeText(key));
    if (source === undefined || this.#closed) return;
    const now = this.#deps.clock.now();
    this.#heard(source, now);
    source.goodAt = now;
    if (record !== undefined && record.presence !== 'neverSeen') {
      const becameLive = record.hear(++this.#seq, now);
      record.goodAt = now;
      if (becameLive) this.#stateChanged(record);
    }
    this.#announce(source);
  }

  lost(sourceId: string, key: ServiceKey | null, error: SourceError): void {
    const source = this.#sources.get(sourceId);
    if (source === undefined || this.#closed) return;
    const now = this.#deps.clock.now();
    const { causeKind: cause } = error;
    const message = error.message.slice(0, 300);
    this.#deps.metrics.counter('weir_source_errors_total', sourceId, cause).inc();
    if (key === null) {
      source.lost = { cause, message, seq: ++this.#seq };
      this.#followSource(source, now);
    } else {
      const record = this.#recordFor(source, key);
      if (record !== null) this.#loseRecord(record, cause, message, now);
    }
    this.#announce(source);
    this.#armTick();
  }

  #loseRecord(record: ServiceRecord, cause: SourceErrorCause, message: string, now: number): void {
    const wasLive = record.lose(cause, message, now);
    if (!wasLive) return;
    this.#stateChanged(record);
    // A refusal of one service is an alert of its own; a lost registry is told once, by its source.
    if (cause !== 'lost') this.#deps.events.emit('source_stale', { ...about(record), cause, message });
  }

  #answer(record: ServiceRecord, snapshot: Snapshot, now: number): void {
    const { source } = record;
    const guard = this.#load(record, now);
    const becameLive = record.hear(++this.#seq, now);
    this.#epoch(record, snapshot.epoch);
    record.sourceRevision = this.#interner.text(snapshot.sourceRevision);
    const given = snapshot.kind === 'present' ? snapshot.instances : [];
    const admitted = admit(given, guard.present, source.config.dial, this.#interner);
    if (this.#overLimit(guard.known, admitted.instances.length)) {
      this.#loseRecord(record, 'limit', `more than ${MAX_INSTANCES} instances in the catalog`, now);
      return;
    }
    record.goodAt = now;
    const reported = snapshot.kind === 'present' ? snapshot.rejected : [];
    this.#reject(record, reported, admitted.refused);
    const deregistered =
      snapshot.kind === 'present' && source.config.tellsDeregistration && snapshot.deregistered !== undefined
        ? new Set(snapshot.deregistered)
        : NONE_REJECTED;
    const rejected = new Set([...reported, ...admitted.refused].map((one) => one.nativeId));
    const outcome = guard.answer({ instances: admitted.instances, rejected, deregistered }, this.#rules(record).policy, now);
    const shows =
      outcome.changed ||
      record.presence !== snapshot.kind ||
      record.suspect ||
      !sameList(record.duplicates, admitted.duplicates, (a, b) => a.address === b.address && sameList(a.ids, b.ids, Object.is));
    record.presence = snapshot.kind;
    record.suspect = false;
    record.listAbsent = false;
    record.judgedBy = source.config.dial;
    record.duplicates = admitted.duplicates;
    this.#concluded(record, outcome, shows, becameLive, now);
  }

  /** After an answer: holds, reused addresses, publication. */
  #concluded(record: ServiceRecord, outcome: Outcome, shows: boolean, becameLive: boolean, now: number): void {
    const entry = this.#entryFor(record.id);
    this.#noteHolds(record, outcome);
    const confirmed = this.#reconsider(record, now);
    for (const instance of outcome.added) this.#dropReused(record, instance, now);
    const removes = outcome.removed.length + outcome.confirmed.length > 0 || confirmed;
    if (shows || removes) {
      this.#wordsChanged(record.id);
      this.#changed(entry, removes);
    } else if (becameLive) this.#stateChanged(record);
    this.#settleRecord(record, now);
    this.#tellMerged(entry);
    this.#armTick();
  }

  #noteHolds(record: ServiceRecord, outcome: Outcome): void {
    if (outcome.held.length > 0) {
      const wasHeld = this.#holds.has(record);
      this.#holds.started(record, outcome.held);
      this.#deps.metrics.counter('weir_holds_total', 'started').inc(outcome.held.length);
      const kind = outcome.sourceWide ? 'sourceWide' : 'service';
      this.#deps.events.emit('hold_started', { ...about(record), kind, ...addressesOf(outcome.held) });
      if (!wasHeld) this.#tellHeld(record, true);
    }
    this.#released(
      record,
      outcome.returned.filter((one) => one.hold !== null),
    );
    this.#confirmed(record, outcome.confirmed, 'deregistered');
  }

  #released(record: ServiceRecord, kept: readonly Kept[]): void {
    if (kept.length === 0) return;
    this.#endHolds(record, kept);
    this.#deps.metrics.counter('weir_holds_total', 'released').inc(kept.length);
    this.#deps.events.emit('hold_released', { ...about(record), ...addressesOf(kept) });
  }

  #confirmed(record: ServiceRecord, kept: readonly Kept[], by: Confirmation): void {
    if (kept.length === 0) return;
    this.#endHolds(record, kept);
    this.#deps.metrics.counter('weir_holds_total', 'confirmed').inc(kept.length);
    this.#deps.events.emit('hold_confirmed', { ...about(record), by, ...addressesOf(kept) });
  }

  #endHolds(record: ServiceRecord, kept: readonly Kept[]): void {
    const wasHeld = this.#holds.has(record);
    this.#holds.ended(record, kept);
    if (wasHeld && !this.#holds.has(record)) this.#tellHeld(record, false);
  }

  /** Confirms what evidence or time confirms. Answers whether anything went. */
  #reconsider(record: ServiceRecord, now: number): boolean {
    if (!this.#holds.has(record)) return false;
    const { policy, byTime } = this.#rules(record);
    const failures = (instance: Instance): number => this.#holds.failures(record, instance);
    const confirmed = record.guardAt(now).reconsider(policy, byTime, failures, now);
    for (const by of new Set(confirmed.map((one) => one.by))) {
      this.#confirmed(
        record,
        confirmed.filter((one) => one.by === by).map((one) => one.kept),
        by,
      );
    }
    return confirmed.length > 0;
  }

  /** R2: a held address that newly appears natively under another service was reused. */
  #dropReused(record: ServiceRecord, instance: Instance, now: number): void {
    if (readMarker(instance.metadata) !== null) return;
    for (const other of this.#holds.othersWith(record, instance)) {
      const kept = other.guardAt(now).dropAddress(instance);
      if (kept === null) continue;
      this.#confirmed(other, [kept], 'addressReused');
      this.#wordsChanged(other.id);
      this.#changed(this.#entryFor(other.id), true);
      this.#settleRecord(other, now);
    }
  }

  /** A complete list does not name services that it named or that were known: to the source they are absent (R4). */
  #unlisted(source: SourceRecord, named: ReadonlySet<string>, failed: readonly ServiceKey[], now: number): void {
    const unsure = new Set(failed.map(nativeText));
    for (const [text, record] of [...source.services]) {
      if (named.has(text) || unsure.has(text)) continue;
      const wasListed = record.listed;
      record.listed = false;
      if (record.presence === 'present') {
        this.#answer(record, { kind: 'absent', epoch: record.epoch, sourceRevision: record.sourceRevision }, now);
        record.listAbsent = true;
      } else if (wasListed) this.#settleRecord(record, now);
    }
  }

  /** The list has a service again that an earlier one missed; its watch never said that it was gone. */
  #listedAgain(record: ServiceRecord, now: number): void {
    record.listAbsent = false;
    record.presence = 'present';
    this.#released(record, record.guardAt(now).unhold(now));
    this.#wordsChanged(record.id);
    this.#changed(this.#entryFor(record.id), false);
  }

  #epoch(record: ServiceRecord, epoch: string): void {
    const { source } = record;
    if (source.epoch !== epoch && record.epoch !== epoch && record.epoch !== '') {
      this.#deps.events.emit('epoch_changed', { source: source.config.id, from: record.epoch, to: epoch });
    }
    source.epoch = epoch;
    record.epoch = this.#interner.text(epoch);
  }

  #overLimit(known: number, wanted: number): boolean {
    if (wanted <= known) return false;
    let total = wanted - known;
    for (const source of this.#sources.values()) total += source.guard.known;
    return total > MAX_INSTANCES;
  }

  #reject(
    record: ServiceRecord,
    reported: readonly { readonly nativeId: string; readonly reason: string }[],
    refused: readonly { readonly nativeId: string; readonly reason: string; readonly rule: string }[],
  ): void {
    const { source, id: service } = record;
    const { id } = source.config;
    const count = reported.length + refused.length;
    record.rejected = count;
    if (count === 0) return;
    source.rejected += count;
    this.#deps.metrics.counter('weir_source_rejected_records_total', id).inc(count);
    const at = this.#deps.clock.wallNow();
    for (const { nativeId, reason } of [...reported, ...refused]) {
      source.reject({ source: id, service, nativeId: nativeId.slice(0, 256), reason: reason.slice(0, 300), at });
    }
    for (const { rule, nativeId, reason } of refused) {
      if (rule === 'badRecord') continue;
      this.#deps.metrics.counter('weir_addresses_refused_total', id, rule).inc();
      if (rule === 'ownListener') this.#deps.events.emit('own_listener_dropped', { source: id, service, nativeId, reason });
    }
  }

  // --- records, entries, state ---------------------------------------------------------------------------------------------

  /** The record of a native name, made when it is new; null when the name has no place in the catalog. */
  #recordFor(source: SourceRecord, key: ServiceKey): ServiceRecord | null {
    const text = nativeText(key);
    const found = source.services.get(text);
    if (found !== undefined) return found;
    const id = this.#names.toOurs(source.config.id, key);
    const fault =
      id === null
        ? 'the name breaks the rules for names, or belongs to another service by names:'
        : this.#taken(source, id)
          ? 'another service of this source has this name already'
          : source.services.size >= MAX_SERVICES_OF_SOURCE
            ? `more than ${MAX_SERVICES_OF_SOURCE} services`
            : null;
    if (id === null || fault !== null) {
      source.rejected++;
      source.reject({
        source: source.config.id,
        service: serviceId(key).slice(0, 600),
        nativeId: '',
        reason: fault ?? '',
        at: this.#deps.clock.wallNow(),
      });
      return null;
    }
    const record = new ServiceRecord(source, { namespace: this.#interner.text(key.namespace), name: key.name }, id);
    source.services.set(text, record);
    this.#entryFor(id).add(record);
    return record;
  }

  #entryFor(id: ServiceId): Entry {
    const found = this.#entries.get(id);
    if (found !== undefined) return found;
    if (this.#config === null) throw new RangeError('catalog: not configured');
    const entry = new Entry(id, this.#config.policyOf(id), this.#generation);
    this.#entries.set(id, entry);
    this.#sortedNames.add(id);
    return entry;
  }

  /** What the record knows, from disk if need be; holds from disk are entered into the book. */
  #load(record: ServiceRecord, now: number) {
    if (!record.isStored) return record.guardAt(now);
    const guard = record.guardAt(now);
    const held = guard.kept.filter((one) => one.hold !== null);
    if (held.length > 0) {
      this.#holds.started(record, held);
      this.#tellHeld(record, true);
      this.#armTick();
    }
    return guard;
  }

  /** Forgets a record that says nothing any more. */
  #settleRecord(record: ServiceRecord, now: number): void {
    if (record.listed || record.presence === 'present' || record.instanceCount > 0) return;
    // An absent record tells a copy in another source that its origin is gone (M7).
    const entry = this.#entries.get(record.id);
    if (entry?.records.some((one) => one !== record && one.presence !== 'absent') === true) return;
    for (const one of entry?.records ?? [record]) if (!one.listed && one.instanceCount === 0) this.#forgetRecord(one, now);
  }

  #forgetRecord(record: ServiceRecord, now: number): void {
    this.#endHolds(record, this.#load(record, now).kept);
    record.leave(now);
    if (this.#holds.has(record)) this.#endHolds(record, []);
    record.source.services.delete(nativeText(record.key));
    const entry = this.#entries.get(record.id);
    entry?.remove(record);
    this.#wordsChanged(record.id);
    if (entry !== undefined) this.#settleEntry(entry);
  }

  /** Publishes an entry that lost a record; without records it leaves the catalog. */
  #settleEntry(entry: Entry): void {
    this.#changed(entry, true);
    if (entry.records.length > 0) return;
    this.#publisher.forget(entry);
    this.#slices.delete(entry);
    this.#entries.delete(entry.id);
    this.#sortedNames.remove(entry.id);
  }

  #heard(source: SourceRecord, now: number): void {
    source.heard = true;
    source.contactAt = now;
  }

  /** The source as a whole was lost or is back: all its services are merged again, in slices. */
  #followSource(source: SourceRecord, now: number): void {
    for (const record of source.services.values()) {
      if (record.heldCount > 0) record.followSource(now);
      this.#stateChanged(record);
    }
  }

  /** A state alone changed: the view may show other words of health, no hurry. */
  #stateChanged(record: ServiceRecord): void {
    const entry = this.#entries.get(record.id);
    if (entry === undefined) return;
    entry.dirty = true;
    this.#slices.add(entry);
  }

  /** Tells a change of the source's state once. */
  #announce(source: SourceRecord): void {
    const { state } = source;
    if (state === source.announced) return;
    const before = source.announced;
    source.announced = state;
    const { id } = source.config;
    if (state === 'live') this.#deps.events.emit('source_live', { source: id, before });
    else if (state === 'stale' || state === 'failed') {
      this.#deps.events.emit('source_stale', { source: id, state, ...source.loss, seq: undefined });
    }
    for (const listener of this.#sourceListeners) this.#guarded(() => listener(id));
  }

  #tellMerged(entry: Entry): void {
    if (entry.merged || entry.records.length < 2) return;
    const present = entry.records.filter((record) => record.presence === 'present');
    if (present.length < 2) return;
    entry.merged = true;
    const sources = present.map((record) => record.source.config.id);
    this.#deps.events.emit('service_merged', { service: entry.id, sources });
  }

  #tellHeld(record: ServiceRecord, held: boolean): void {
    for (const listener of this.#heldListeners) this.#guarded(() => listener(record.source.config.id, record.key, held));
  }

  #wordsChanged(id: ServiceId): void {
    for (const listener of this.#wordListeners) listener(id);
  }

  #rules(record: ServiceRecord): HoldRules {
    const entry = this.#entryFor(record.id);
    this.#refreshPolicy(entry);
    return { policy: entry.policy.hold, byTime: this.#deps.overlay.overlayOf(record.id)?.holdsByTime ?? true };
  }

  // --- merge and publication -----------------------------------------------------------------------------------------------

  #changed(entry: Entry, atOnce: boolean): void {
    entry.dirty = true;
    this.#publisher.changed(entry, atOnce);
  }

  #slice(entry: Entry): void {
    if (this.#entries.get(entry.id) !== entry) return;
    this.#refreshPolicy(entry);
    this.#rejudge(entry);
    // Nobody has seen it yet: it is built when somebody asks.
    if (entry.restoredRevision !== null && entry.view === undefined) return;
    if (entry.dirty) this.#publisher.changed(entry, false);
  }

  #refreshPolicy(entry: Entry): void {
    if (entry.policyGeneration === this.#generation || this.#config === null) return;
    entry.policyGeneration = this.#generation;
    const policy = this.#config.policyOf(entry.id);
    if (policy === entry.policy) return;
    if (!sameMerge(policy.merge, entry.policy.merge)) entry.dirty = true;
    entry.policy = policy;
  }

  /** Addresses that a new outbound policy refuses leave. */
  #rejudge(entry: Entry): void {
    const now = this.#deps.clock.now();
    for (const record of entry.records) {
      const { dial, id } = record.source.config;
      if (record.isStored || record.judgedBy === dial || record.judgedBy === null) continue;
      record.judgedBy = dial;
      const left = record.guardAt(now).retain(({ host, port }) => {
        const refusal = dial(host, port);
        if (refusal !== null) this.#deps.metrics.counter('weir_addresses_refused_total', id, refusal).inc();
        return refusal === null;
      });
      if (left.length === 0) continue;
      this.#endHolds(
        record,
        left.map((instance) => ({ instance, hold: null })),
      );
      this.#wordsChanged(record.id);
      this.#changed(entry, true);
    }
  }

  #publish(entry: Entry): void {
    this.#refresh(entry);
    if (entry.view === entry.published) return;
    entry.published = entry.view;
    for (const listener of this.#listeners) this.#guarded(() => listener(entry.id, entry.view));
  }

  /** Brings the view up to what the records say; equal content keeps the object and its revision (M8). */
  #refresh(entry: Entry): void {
    if (entry.policyGeneration !== this.#generation) {
      this.#refreshPolicy(entry);
      this.#rejudge(entry);
    }
    if (!entry.dirty) return;
    entry.dirty = false;
    const { clock, overlay } = this.#deps;
    const now = clock.now();
    for (const record of entry.records) this.#load(record, now);
    const input = mergeInput(entry, { overlay, sourceOf: (id) => this.#sources.get(id), now });
    const before = entry.view;
    const merged = merge(input, before);
    const fromDisk = entry.restoredRevision;
    entry.restoredRevision = null;
    if (merged === null) {
      this.#conflicts.replace(before?.conflicts ?? [], [], 0);
      entry.view = undefined;
      if (before !== undefined) this.#index++;
      return;
    }
    const same =
      before !== undefined &&
      before.shares === merged.shares &&
      sameList(before.instances, merged.instances, Object.is) &&
      sameList(before.conflicts, merged.conflicts, sameConflict);
    if (same) return;
    const conflicts = this.#conflicts.replace(before?.conflicts ?? [], merged.conflicts, clock.wallNow());
    if (conflicts.length > 0 && (before?.conflicts.length ?? 0) === 0) {
      const fields = [...new Set(conflicts.map((one) => one.field))].slice(0, EVENT_ADDRESSES);
      this.#deps.events.emit('conflict', { service: entry.id, fields, count: conflicts.length });
    }
    entry.view = {
      service: entry.id,
      key: entry.key,
      revision: fromDisk ?? ++this.#index,
      instances: merged.instances,
      conflicts,
      ...(merged.shares === undefined ? {} : { shares: merged.shares }),
    };
    // What the disk said was there from the start: no change to tell.
    if (fromDisk !== null) entry.published = entry.view;
  }

  #guarded(call: () => void): void {
    try {
      call();
    } catch (thrown) {
      this.#deps.log.error({ error: messageOf(thrown) }, 'a listener of the catalog failed');
    }
  }

  // --- time ----------------------------------------------------------------------------------------------------------------

  #armTick(): void {
    if (this.#tick !== null || this.#closed || !this.#needsTick()) return;
    this.#tick = this.#deps.clock.setTimer(TICK_MS, this.#onTick);
  }

  #needsTick(): boolean {
    if (this.#holds.records.size > 0) return true;
    for (const source of this.#sources.values()) if (source.config.expireAfter !== null && source.loss !== null) return true;
    return false;
  }

  readonly #onTick = (): void => {
    this.#tick = null;
    const now = this.#deps.clock.now();
    for (const record of [...this.#holds.records]) {
      if (!this.#reconsider(record, now)) continue;
      this.#wordsChanged(record.id);
      this.#changed(this.#entryFor(record.id), true);
      this.#settleRecord(record, now);
    }
    for (const record of this.#holds.dueReads((one) => this.#rules(one), now)) {
      for (const listener of this.#readListeners) this.#guarded(() => listener(record.source.config.id, record.key));
    }
    for (const source of this.#sources.values()) this.#expire(source, now);
    this.#armTick();
  };

  /** R1: a word that is stale for longer than `expireAfter` stops counting. */
  #expire(source: SourceRecord, now: number): void {
    const { expireAfter } = source.config;
    if (expireAfter === null || source.loss === null) return;
    for (const record of source.services.values()) {
      if (record.live || record.presence === 'neverSeen' || record.goodAt === null || now - record.goodAt < expireAfter) continue;
      const { kept } = this.#load(record, now);
      record.expire(now);
      record.presence = 'neverSeen';
      this.#endHolds(record, kept);
      this.#wordsChanged(record.id);
      this.#changed(this.#entryFor(record.id), true);
    }
    this.#announce(source);
  }

  // --- reading -------------------------------------------------------------------------------------------------------------

  /** The view of a service; undefined when no source has said anything of it, or all say that they do not know it. */
  get(service: ServiceId): View | undefined {
    const entry = this.#entries.get(service);
    if (entry === undefined) return undefined;
    this.#refresh(entry);
    if (entry.view !== entry.published && entry.dueStep === 0) this.#publisher.changed(entry, false);
    return entry.view;
  }

  /** State per source that has to do with the service, in the order of the config. */
  serviceStates(service: ServiceId): readonly ServiceSourceState[] {
    const now = this.#deps.clock.now();
    return (this.#entries.get(service)?.records ?? []).map((record) => record.state(now));
  }

  sourceSummary(sourceId: string): CatalogSourceSummary | undefined {
    const source = this.#sources.get(sourceId);
    if (source === undefined) return undefined;
    const now = this.#deps.clock.now();
    const { loss } = source;
    return {
      id: sourceId,
      kind: source.config.kind,
      state: source.state,
      ageMs: source.goodAt === null ? null : Math.max(0, now - source.goodAt),
      contactAgeMs: source.contactAt === null ? null : Math.max(0, now - source.contactAt),
      ...(loss === null ? {} : { cause: loss.cause, message: loss.message }),
      services: source.services.size,
      instances: source.guard.known,
      held: source.guard.heldInstances,
      rejected: source.rejected,
    };
  }

  /** Configured sources, in their order. */
  get sourceIds(): readonly string[] {
    return [...this.#sources.values()].sort((a, b) => a.order - b.order).map((source) => source.config.id);
  }

  /**
   * Names in code-unit order from `cursor` (exclusive) on. `q`: part of the name; `source`: only services that it has. A page may
   * be short while `next` is not null: filters look at a bounded number of names per page.
   */
  names(query: { prefix?: string; q?: string; source?: string; limit: number; cursor?: ServiceId | null }): NamePage {
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

  #hasSource(name: ServiceId, source: string): boolean {
    return this.#entries.get(name)?.records.some((one) => one.source.config.id === source && one.presence === 'present') === true;
  }

  /** Number of names known. */
  get size(): number {
    return this.#entries.size;
  }

  /** The newest index that was given out (M9). */
  get index(): number {
    return this.#index;
  }

  /** Takes the next index: for a changed verdict (M9). */
  takeIndex(): number {
    return ++this.#index;
  }

  /** The merge policy in force and whose word it is. */
  mergeOf(service: ServiceId): { policy: MergePolicy; from: 'settings' | 'migration'; migration?: string } {
    const entry = this.#entries.get(service);
    if (entry === undefined) return { policy: this.#config?.policyOf(service).merge ?? { kind: 'union' }, from: 'settings' };
    this.#refreshPolicy(entry);
    const { policy, migration } = policyInForce(entry, this.#deps.overlay);
    return migration === null ? { policy, from: 'settings' } : { policy, from: 'migration', migration };
  }

  /** Holds of a service, or all. */
  holds(service: ServiceId | null = null): readonly HoldState[] {
    const now = this.#deps.clock.now();
    if (service !== null) for (const record of this.#entries.get(service)?.records ?? []) this.#load(record, now);
    return this.#holds.states(service, (record) => this.#rules(record), now);
  }

  /** The newest refused records of a source, oldest first, at most 100. */
  recentRejected(sourceId: string): readonly RejectedEntry[] {
    return this.#sources.get(sourceId)?.recentRejected ?? [];
  }

  /** True while the catalog holds instances of the native service: its watch must go on. */
  isHeld(sourceId: string, native: ServiceKey): boolean {
    const record = this.#sources.get(sourceId)?.services.get(nativeText(native));
    return record !== undefined && this.#holds.has(record);
  }

  /** Our name of a native one; null when it has no place in the catalog. */
  toOurs(sourceId: string, native: ServiceKey): ServiceId | null {
    return this.#names.toOurs(sourceId, native);
  }

  /** The native name in a source; null when the source cannot have the service. The name it has there now comes first. */
  toNative(sourceId: string, service: ServiceId): ServiceKey | null {
    const record = this.#entries.get(service)?.records.find((one) => one.source.config.id === sourceId);
    return record?.key ?? this.#names.toNative(sourceId, service);
  }

  /** True once the source gave its first list (its first answer of any kind where it cannot list). */
  hasFirstAnswer(sourceId: string): boolean {
    return this.#sources.get(sourceId)?.answered === true;
  }

  everySourceAnswered(): boolean {
    for (const source of this.#sources.values()) if (!source.answered) return false;
    return true;
  }

  // --- hands and listeners -------------------------------------------------------------------------------------------------

  /** Evidence, verdict or overlay of the service changed: its holds are looked at again and it is merged again. */
  touch(service: ServiceId): void {
    const entry = this.#entries.get(service);
    if (entry === undefined || this.#closed) return;
    const now = this.#deps.clock.now();
    let removed = false;
    for (const record of [...entry.records]) {
      if (!this.#reconsider(record, now)) continue;
      removed = true;
      this.#wordsChanged(service);
      this.#settleRecord(record, now);
    }
    if (this.#entries.get(service) === entry) this.#changed(entry, removed);
  }

  /** The operator believes the registry: what is held goes. Answers how many held instances that were. */
  releaseHolds(which: { service?: ServiceId | null; source?: string | null } = {}): number {
    const now = this.#deps.clock.now();
    if (which.service != null) this.holds(which.service);
    let count = 0;
    for (const record of [...this.#holds.records]) {
      if (which.service != null && record.id !== which.service) continue;
      if (which.source != null && record.source.config.id !== which.source) continue;
      const released = record.guardAt(now).release();
      count += released.length;
      this.#confirmed(record, released, 'operator');
      this.#wordsChanged(record.id);
      this.#changed(this.#entryFor(record.id), true);
      this.#settleRecord(record, now);
    }
    return count;
  }

  /** Told every view that changed, undefined when the service is gone. Calls are synchronous. Returns the end of it. */
  subscribe(listener: ViewListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Told the id of every source whose state changed. */
  subscribeSources(listener: (sourceId: string) => void): () => void {
    this.#sourceListeners.add(listener);
    return () => this.#sourceListeners.delete(listener);
  }

  /** Told when what sources say of a service changed (for the last-good file), views aside. */
  subscribeWords(listener: (service: ServiceId) => void): () => void {
    this.#wordListeners.add(listener);
    return () => this.#wordListeners.delete(listener);
  }

  /** Asked for a fresh full read that may confirm a hold; its answer comes back through `snapshot`. */
  onConfirmRead(listener: (sourceId: string, native: ServiceKey) => void): () => void {
    this.#readListeners.add(listener);
    return () => this.#readListeners.delete(listener);
  }

  /** Told when the catalog starts or ends to hold instances of a native service. */
  onHeld(listener: (sourceId: string, native: ServiceKey, held: boolean) => void): () => void {
    this.#heldListeners.add(listener);
    return () => this.#heldListeners.delete(listener);
  }

  // --- last-good file ------------------------------------------------------------------------------------------------------

  /** What sources say of a service, as the last-good file keeps it; null when none says anything. */
  words(service: ServiceId): Words | null {
    const { clock } = this.#deps;
    const now = clock.now();
    const toWall = clock.wallNow() - now;
    const sources: SourceWords[] = [];
    for (const record of this.#entries.get(service)?.records ?? []) {
      if (record.presence === 'neverSeen') continue;
      const guard = this.#load(record, now);
      sources.push({
        source: record.source.config.id,
        key: record.key,
        presence: record.presence,
        epoch: record.epoch,
        sourceRevision: record.sourceRevision,
        goodAt: Math.round((record.goodAt ?? now) + toWall),
        present: [...guard.present, ...guard.kept.filter((one) => one.hold === null).map((one) => one.instance)],
        held: guard.kept.flatMap(({ instance, hold }) => (hold === null ? [] : [{ instance, kind: hold.kind }])),
      });
    }
    return sources.length === 0 ? null : { service, sources };
  }

  /** Names of all services, unsorted. */
  *allNames(): Generator<ServiceId, void, void> {
    for (const id of this.#entries.keys()) yield id;
  }

  /**
   * Per source: wall ms of the last contact, and the native names whose word is not current (null: too many to list).
   * The last-good file keeps it so that ages are true after a restart without rewriting every record.
   */
  contacts(limit: number): { source: string; contactAt: number; except: readonly ServiceId[] | null }[] {
    const { clock } = this.#deps;
    const toWall = clock.wallNow() - clock.now();
    return [...this.#sources.values()].flatMap((source) => {
      if (source.contactAt === null || source.loss !== null) return [];
      const except: ServiceId[] = [];
      for (const record of source.services.values()) {
        if (!record.live && except.length <= limit) except.push(record.id);
      }
      const contactAt = Math.round(source.contactAt + toWall);
      return [{ source: source.config.id, contactAt, except: except.length > limit ? null : except }];
    });
  }

  /** Puts in what the last-good file knows, before any source is heard: stale, with its true age. Sources not configured are skipped. */
  restore(words: Iterable<RestoredWord>): number {
    const { clock } = this.#deps;
    const toMonotonic = clock.now() - clock.wallNow();
    let count = 0;
    for (const word of words) {
      const source = this.#sources.get(word.source);
      if (source === undefined) continue;
      const record = this.#recordFor(source, word.key);
      if (record === null || record.presence !== 'neverSeen') continue;
      record.presence = word.presence;
      record.epoch = this.#interner.text(word.epoch);
      record.sourceRevision = word.sourceRevision;
      record.goodAt = Math.min(word.goodAt + toMonotonic, clock.now());
      record.contactAt = record.goodAt;
      record.suspect = word.suspect;
      record.judgedBy = source.config.dial;
      source.goodAt = Math.max(source.goodAt ?? Number.NEGATIVE_INFINITY, record.goodAt);
      record.restore(word.count, () => this.#admitStored(source, word));
      this.#entryFor(record.id).restoredRevision = this.#startIndex;
      count++;
    }
    for (const source of this.#sources.values()) this.#announce(source);
    return count;
  }

  /** Addresses from disk are judged like those of an answer. */
  #admitStored(source: SourceRecord, word: RestoredWord) {
    const { present, held } = word.decode();
    const { dial } = source.config;
    const heldKind = new Map(
      held.map(({ instance, kind }) => [hostPort(instance.host, instance.port) + instance.transport, kind]),
    );
    const { instances } = admit([...present, ...held.map((one) => one.instance)], [], dial, this.#interner);
    const kindOf = (one: Instance) => heldKind.get(hostPort(one.host, one.port) + one.transport);
    return {
      present: instances.filter((one) => kindOf(one) === undefined),
      held: instances.flatMap((instance) => {
        const kind = kindOf(instance);
        return kind === undefined ? [] : [{ instance, kind }];
      }),
    };
  }

  /** Ends timers and stops listening to sources. Views stay readable. */
  close(): void {
    this.#closed = true;
    this.#tick?.cancel();
    this.#publisher.close();
    this.#slices.close();
  }
}

function about(record: ServiceRecord): { service: ServiceId; source: string } {
  return { service: record.id, source: record.source.config.id };
}

function addressesOf(kept: readonly Kept[]): { count: number; addresses: string[] } {
  const addresses = kept.slice(0, EVENT_ADDRESSES).map(({ instance }) => hostPort(instance.host, instance.port));
  return { count: kept.length, addresses };
}

function hasCopyOf(entry: Entry, source: string): boolean {
  return entry.view?.instances.some((one) => one.provenance.some(({ copyOf }) => copyOf === source)) === true;
}

function sameMerge(a: MergePolicy, b: MergePolicy): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

function sameSet<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean {
  return a.size === b.size && [...a].every((one) => b.has(one));
}
