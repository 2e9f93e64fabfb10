// Owns the intake of what sources say: lists, snapshots, losses (R1, R4), and their states as told to others. Called by supervisors
// through catalog; must never let anything but a complete answer remove an instance.
import type { SourceSink } from '../adapter/source-sink.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Interner } from '../model/intern.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { ServiceList, Snapshot, SourceError, SourceErrorCause } from '../model/snapshot.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Announcer } from './announcer.ts';
import type { Entry } from './entry.ts';
import type { HoldRules } from './hold-book.ts';
import type { HoldDesk } from './hold-desk.ts';
import { type Admitted, admit } from './intake.ts';
import type { RecordStore } from './record-store.ts';
import { Refusals } from './refusals.ts';
import { sameList } from './same.ts';
import type { Outcome } from './shrink-guard.ts';
import { Slices } from './slices.ts';
import { nativeText, type ServiceRecord, type SourceRecord } from './sources.ts';
import type { ViewStore } from './view-store.ts';

/** catalog-rules §6. */
export const MAX_INSTANCES = 200_000;

/** So many names that a list left out are judged at once; more wait for slices. */
const AT_ONCE = 100;
const MESSAGE_LENGTH = 300;
const NONE: ReadonlySet<string> = new Set();

export interface SourceDeskDeps {
  readonly clock: Clock;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly interner: Interner;
  readonly views: ViewStore;
  readonly holds: HoldDesk;
  readonly records: RecordStore;
  readonly announcer: Announcer;
  readonly maxInstances: number;
  rulesOf(record: ServiceRecord): HoldRules;
  wordsChanged(service: ServiceId): void;
}

export class SourceDesk implements SourceSink {
  readonly #deps: SourceDeskDeps;
  readonly #refusals: Refusals;
  /** Orders losses of a source against answers of its services. */
  #seq = 0;

  /** Records that a list left out, when they are many. */
  readonly #slices: Slices<ServiceRecord>;

  constructor(deps: SourceDeskDeps) {
    this.#deps = deps;
    this.#refusals = new Refusals(deps.clock, deps.events, deps.metrics);
    this.#slices = new Slices(deps.clock, (record) => this.#slice(record));
  }

  list(sourceId: string, list: ServiceList): void {
    const source = this.#deps.records.source(sourceId);
    if (source === undefined) return;
    const now = this.#hear(source);
    const wasLost = source.lost !== null;
    source.lost = null;
    const seq = ++this.#seq;
    for (const key of list.keys) {
      const record = this.#recordFor(source, key);
      if (record === null) continue;
      record.listedSeq = seq;
      if (!record.listed) {
        record.listed = true;
        // Copies elsewhere may have an origin again (M7).
        const entry = this.#deps.views.entryFor(record.id);
        if (entry.records.length > 1) this.#deps.views.stateChanged(entry);
      }
      if (record.listAbsent) this.#listedAgain(record, now);
    }
    if (list.complete) {
      const isFirst = !source.listed;
      source.listed = true;
      source.goodAt = now;
      if (isFirst) this.#deps.records.originChanged(sourceId);
      this.#unlisted(source, seq, list.failed, now);
    }
    if (wasLost) this.#followSource(source, now);
    this.#deps.announcer.announce(source);
  }

  snapshot(sourceId: string, key: ServiceKey, snapshot: Snapshot): void {
    const source = this.#deps.records.source(sourceId);
    if (source === undefined) return;
    const now = this.#hear(source);
    source.goodAt = now;
    const record = this.#recordFor(source, key);
    if (record !== null) this.#answer(record, snapshot, now);
    this.#deps.announcer.announce(source);
  }

  unchanged(sourceId: string, key: ServiceKey): void {
    const source = this.#deps.records.source(sourceId);
    if (source === undefined) return;
    const now = this.#hear(source);
    source.goodAt = now;
    const record = source.services.get(nativeText(key));
    if (record !== undefined && record.presence !== 'neverSeen') {
      const becameLive = record.hear(++this.#seq, now);
      record.goodAt = now;
      if (becameLive) this.#stateChanged(record);
    }
    this.#deps.announcer.announce(source);
  }

  lost(sourceId: string, key: ServiceKey | null, error: SourceError): void {
    const source = this.#deps.records.source(sourceId);
    if (source === undefined) return;
    const now = this.#deps.clock.now();
    const { causeKind: cause } = error;
    const message = error.message.slice(0, MESSAGE_LENGTH);
    this.#deps.metrics.counter('weir_source_errors_total', sourceId, cause).inc();
    if (key === null) {
      source.lost = { cause, message, seq: ++this.#seq };
      this.#followSource(source, now);
    } else {
      const record = this.#recordFor(source, key);
      if (record !== null) this.#lose(record, cause, message, now);
    }
    this.#deps.announcer.announce(source);
  }

  /** R1: words that are stale for longer than `expireAfter` stop counting. */
  expire(source: SourceRecord, now: number): void {
    const { expireAfter } = source.config;
    if (expireAfter === null || source.loss === null) return;
    for (const record of source.services.values()) {
      if (record.live || record.presence === 'neverSeen' || record.goodAt === null || now - record.goodAt < expireAfter) continue;
      const { kept } = this.#deps.holds.load(record, now);
      record.expire(now);
      this.#deps.holds.end(record, kept);
      this.removed(record);
    }
    this.#deps.announcer.announce(source);
  }

  /** Its watch ended on purpose. */
  unwatched(record: ServiceRecord): void {
    record.rest(this.#deps.clock.now());
    this.#stateChanged(record);
    this.#deps.records.settle(record);
  }

  /** Something of the record left the view. */
  removed(record: ServiceRecord): void {
    this.#deps.wordsChanged(record.id);
    this.#deps.views.changed(this.#deps.views.entryFor(record.id), true);
    this.#deps.records.settle(record);
  }

  #hear(source: SourceRecord): number {
    const now = this.#deps.clock.now();
    source.heard = true;
    source.contactAt = now;
    return now;
  }

  #recordFor(source: SourceRecord, key: ServiceKey): ServiceRecord | null {
    const found = this.#deps.records.recordFor(source, key);
    if (typeof found !== 'string') return found;
    this.#refusals.name(source, key, found);
    return null;
  }

  #lose(record: ServiceRecord, cause: SourceErrorCause, message: string, now: number): void {
    if (!record.lose(cause, message, now)) return;
    this.#stateChanged(record);
    // A refusal of one service is an alert of its own; a lost registry is told once, by its source.
    if (cause === 'lost') return;
    this.#deps.events.emit('source_stale', { source: record.source.config.id, service: record.id, cause, message });
  }

  /** A complete answer on one service. */
  #answer(record: ServiceRecord, snapshot: Snapshot, now: number): void {
    const { source } = record;
    const guard = this.#deps.holds.load(record, now);
    const becameLive = record.hear(++this.#seq, now);
    const newEpoch = this.#noteEpoch(record, snapshot);
    const given = snapshot.kind === 'present' ? snapshot.instances : [];
    const admitted = admit(given, guard.present, source.config.dial, this.#deps.interner);
    if (this.#isOverLimit(admitted.instances.length - guard.known)) {
      this.#lose(record, 'limit', `more than ${this.#deps.maxInstances} instances in the catalog`, now);
      return;
    }
    record.goodAt = now;
    const reported = snapshot.kind === 'present' ? snapshot.rejected : [];
    const proof = source.config.tellsDeregistration && snapshot.kind === 'present' ? snapshot.deregistered : undefined;
    const outcome = guard.answer(
      {
        instances: admitted.instances,
        rejected: this.#refusals.records(record, reported, admitted.refused),
        deregistered: proof === undefined ? NONE : new Set(proof),
        newEpoch,
      },
      this.#deps.rulesOf(record).policy,
      now,
    );
    const shows = takeAnswer(record, snapshot, admitted) || outcome.changed;
    this.#conclude(record, outcome, shows, becameLive, now);
  }

  /** After an answer: holds, reused addresses, publication. */
  #conclude(record: ServiceRecord, outcome: Outcome, shows: boolean, becameLive: boolean, now: number): void {
    const { holds, views, records } = this.#deps;
    const entry = views.entryFor(record.id);
    holds.note(record, outcome);
    const confirmed = holds.reconsider(record, now);
    for (const other of holds.dropReused(record, outcome.added, now)) this.removed(other);
    const removes = confirmed || outcome.removed.length + outcome.confirmed.length > 0;
    if (shows || removes) {
      this.#deps.wordsChanged(record.id);
      views.changed(entry, removes);
    } else if (becameLive) views.stateChanged(entry);
    records.settle(record);
    this.#tellMerged(entry);
  }

  /** A complete list does not name services that it named or that are known: to the source they are absent (R4). */
  #unlisted(source: SourceRecord, seq: number, failed: readonly ServiceKey[], now: number): void {
    const unsure = new Set(failed.map(nativeText));
    const gone: ServiceRecord[] = [];
    for (const [text, record] of source.services) {
      if (record.listedSeq === seq || unsure.has(text)) continue;
      record.listed = false;
      record.unlistedSeq = seq;
      gone.push(record);
    }
    if (gone.length <= AT_ONCE) {
      for (const record of gone) this.#gone(record, now);
      return;
    }
    // A wiped registry: judged in slices. Its watches must not end before that.
    for (const record of gone) {
      if (record.presence === 'present' && record.instanceCount > 0) this.#deps.holds.expect(record, true);
      this.#slices.add(record);
    }
  }

  #slice(record: ServiceRecord): void {
    const isOurs = record.source.services.get(nativeText(record.key)) === record;
    if (isOurs && !record.listed && !record.heardSince(record.unlistedSeq)) this.#gone(record, this.#deps.clock.now());
    this.#deps.holds.expect(record, false);
  }

  /** A record that the list left out. */
  #gone(record: ServiceRecord, now: number): void {
    if (record.presence === 'present') {
      const { epoch, sourceRevision } = record;
      this.#answer(record, { kind: 'absent', epoch, sourceRevision }, now);
      record.listAbsent = true;
    } else if (record.presence === 'neverSeen' && record.instanceCount === 0) this.#deps.records.forget(record);
    else this.#deps.records.settle(record);
  }

  /** Drops work that waits. */
  close(): void {
    this.#slices.close();
  }

  /** The list has a service again that an earlier one missed; its watch never said that it was gone. */
  #listedAgain(record: ServiceRecord, now: number): void {
    record.listAbsent = false;
    record.presence = 'present';
    this.#deps.holds.released(record, record.guardAt(now).unhold(now));
    this.#deps.wordsChanged(record.id);
    this.#deps.views.changed(this.#deps.views.entryFor(record.id), false);
  }

  /** True when the source's history began anew since the record's last answer. */
  #noteEpoch(record: ServiceRecord, { epoch, sourceRevision }: Snapshot): boolean {
    const { source } = record;
    const isNew = record.epoch !== epoch && record.epoch !== '';
    if (isNew && source.epoch !== epoch) {
      this.#deps.events.emit('epoch_changed', { source: source.config.id, from: record.epoch, to: epoch });
    }
    source.epoch = epoch;
    record.epoch = this.#deps.interner.text(epoch);
    record.sourceRevision = this.#deps.interner.text(sourceRevision);
    return isNew;
  }

  #isOverLimit(more: number): boolean {
    if (more <= 0) return false;
    let total = more;
    for (const source of this.#deps.records.sources()) total += source.guard.known;
    return total > this.#deps.maxInstances;
  }

  /** The source as a whole was lost or is back: all its services are merged again, in slices. */
  #followSource(source: SourceRecord, now: number): void {
    for (const record of source.services.values()) {
      if (record.heldCount > 0) record.followSource(now);
      this.#stateChanged(record);
    }
  }

  #stateChanged(record: ServiceRecord): void {
    const entry = this.#deps.views.find(record.id);
    if (entry !== undefined) this.#deps.views.stateChanged(entry);
  }

  #tellMerged(entry: Entry): void {
    if (entry.merged || entry.records.length < 2) return;
    const present = entry.records.filter((record) => record.presence === 'present');
    if (present.length < 2) return;
    entry.merged = true;
    const sources = present.map((record) => record.source.config.id);
    this.#deps.events.emit('service_merged', { service: entry.id, sources });
  }
}

/** Writes what the answer says beside its instances into the record; true when a view may show it. */
function takeAnswer(record: ServiceRecord, snapshot: Snapshot, admitted: Admitted): boolean {
  const sameDuplicates = sameList(
    record.duplicates,
    admitted.duplicates,
    (a, b) => a.address === b.address && sameList(a.ids, b.ids, Object.is),
  );
  const shows = record.presence !== snapshot.kind || record.suspect || !sameDuplicates;
  record.presence = snapshot.kind;
  record.suspect = false;
  record.listAbsent = false;
  record.duplicates = admitted.duplicates;
  return shows;
}
