// Owns the intake of what sources say: lists, snapshots, losses (R1, R4), and their states as told to others. Called by supervisors
// through catalog; must never let anything but a complete answer remove an instance.
import type { SourceSink } from '../adapter/source-sink.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import type { RejectedRecord, ServiceList, Snapshot, SourceError, SourceErrorCause } from '../model/snapshot.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Entry } from './entry.ts';
import type { HoldRules } from './hold-book.ts';
import type { HoldDesk } from './hold-desk.ts';
import { type Admitted, admit } from './intake.ts';
import type { Interner } from './intern.ts';
import type { RecordStore } from './record-store.ts';
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
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly interner: Interner;
  readonly views: ViewStore;
  readonly holds: HoldDesk;
  readonly records: RecordStore;
  readonly maxInstances: number;
  rulesOf(record: ServiceRecord): HoldRules;
  wordsChanged(service: ServiceId): void;
}

export class SourceDesk implements SourceSink {
  readonly #deps: SourceDeskDeps;
  readonly #listeners = new Set<(sourceId: string) => void>();
  /** Orders losses of a source against answers of its services. */
  #seq = 0;

  /** Records that a list left out, when they are many. */
  readonly #slices: Slices<ServiceRecord>;

  constructor(deps: SourceDeskDeps) {
    this.#deps = deps;
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
    this.announce(source);
  }

  snapshot(sourceId: string, key: ServiceKey, snapshot: Snapshot): void {
    const source = this.#deps.records.source(sourceId);
    if (source === undefined) return;
    const now = this.#hear(source);
    source.goodAt = now;
    const record = this.#recordFor(source, key);
    if (record !== null) this.#answer(record, snapshot, now);
    this.announce(source);
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
    this.announce(source);
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
    this.announce(source);
  }

  /** Tells a change of the source's state, once. */
  announce(source: SourceRecord): void {
    const { state, loss } = source;
    if (state === source.announced) return;
    const before = source.announced;
    source.announced = state;
    const { id } = source.config;
    if (state === 'live') this.#deps.events.emit('source_live', { source: id, before });
    else if (state !== 'connecting') {
      const why = loss === null ? { cause: 'restored' } : { cause: loss.cause, message: loss.message };
      this.#deps.events.emit('source_stale', { source: id, state, ...why });
    }
    for (const listener of this.#listeners) {
      try {
        listener(id);
      } catch (thrown) {
        this.#deps.log.error({ error: messageOf(thrown) }, 'a listener of the sources failed');
      }
    }
  }

  /** Told the id of every source whose state changed. */
  subscribe(listener: (sourceId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
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
    this.announce(source);
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
    const { id } = source.config;
    source.rejected++;
    this.#deps.metrics.counter('weir_source_rejected_records_total', id).inc();
    const service = serviceId(key).slice(0, MESSAGE_LENGTH);
    source.reject({ source: id, service, nativeId: '', reason: found, at: this.#deps.clock.wallNow() });
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
    this.#noteEpoch(record, snapshot);
    const given = snapshot.kind === 'present' ? snapshot.instances : [];
    const admitted = admit(given, guard.present, source.config.dial, this.#deps.interner);
    if (this.#isOverLimit(admitted.instances.length - guard.known)) {
      this.#lose(record, 'limit', `more than ${this.#deps.maxInstances} instances in the catalog`, now);
      return;
    }
    record.goodAt = now;
    const reported = snapshot.kind === 'present' ? snapshot.rejected : [];
    this.#noteRejected(record, reported, admitted.refused);
    const proof = source.config.tellsDeregistration && snapshot.kind === 'present' ? snapshot.deregistered : undefined;
    const outcome = guard.answer(
      {
        instances: admitted.instances,
        rejected: idsOf(reported, admitted.refused),
        deregistered: proof === undefined ? NONE : new Set(proof),
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

  #noteEpoch(record: ServiceRecord, { epoch, sourceRevision }: Snapshot): void {
    const { source } = record;
    if (source.epoch !== epoch && record.epoch !== epoch && record.epoch !== '') {
      this.#deps.events.emit('epoch_changed', { source: source.config.id, from: record.epoch, to: epoch });
    }
    source.epoch = epoch;
    record.epoch = this.#deps.interner.text(epoch);
    record.sourceRevision = this.#deps.interner.text(sourceRevision);
  }

  #isOverLimit(more: number): boolean {
    if (more <= 0) return false;
    let total = more;
    for (const source of this.#deps.records.sources()) total += source.guard.known;
    return total > this.#deps.maxInstances;
  }

  #noteRejected(record: ServiceRecord, reported: readonly RejectedRecord[], refused: Admitted['refused']): void {
    const { source, id: service } = record;
    const { id } = source.config;
    const count = reported.length + refused.length;
    record.rejected = count;
    if (count === 0) return;
    source.rejected += count;
    this.#deps.metrics.counter('weir_source_rejected_records_total', id).inc(count);
    const at = this.#deps.clock.wallNow();
    for (const { nativeId, reason } of [...reported, ...refused]) {
      const bounded = { nativeId: nativeId.slice(0, MESSAGE_LENGTH), reason: reason.slice(0, MESSAGE_LENGTH) };
      source.reject({ source: id, service, ...bounded, at });
    }
    for (const { rule, nativeId, reason } of refused) {
      if (rule === 'badRecord') continue;
      this.#deps.metrics.counter('weir_addresses_refused_total', id, rule).inc();
      if (rule === 'ownListener') this.#deps.events.emit('own_listener_dropped', { source: id, service, nativeId, reason });
    }
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

function idsOf(reported: readonly RejectedRecord[], refused: readonly RejectedRecord[]): ReadonlySet<string> {
  if (reported.length + refused.length === 0) return NONE;
  return new Set([...reported, ...refused].map((one) => one.nativeId));
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
