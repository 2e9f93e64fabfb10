// Owns the bookkeeping of what was refused: records, addresses and names, counted, kept for /v1/sources, told where it matters.
// Called by the source desk; must never decide what is refused (intake, dial and names do).
import type { Clock } from '../kernel/clock.ts';
import { refusalRule } from '../kernel/dial.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import type { RejectedRecord } from '../model/snapshot.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Admitted } from './intake.ts';
import type { ServiceRecord, SourceRecord } from './sources.ts';

const TEXT_LENGTH = 300;
const NONE: ReadonlySet<string> = new Set();

export class Refusals {
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #metrics: Metrics;

  constructor(clock: Clock, events: Events, metrics: Metrics) {
    this.#clock = clock;
    this.#events = events;
    this.#metrics = metrics;
  }

  /** A native name that has no place in the catalog. */
  name(source: SourceRecord, key: ServiceKey, reason: string): void {
    this.#note(source, serviceId(key).slice(0, TEXT_LENGTH), [{ nativeId: '', reason }]);
  }

  /** Refused records of one answer, by its adapter and by us. Answers their native ids. */
  records(record: ServiceRecord, reported: readonly RejectedRecord[], refused: Admitted['refused']): ReadonlySet<string> {
    record.rejected = reported.length + refused.length;
    if (record.rejected === 0) return NONE;
    const all = [...reported, ...refused];
    this.#note(record.source, record.id, all);
    const source = record.source.config.id;
    // Most adapters judge addresses themselves, and say why in the words of the rule.
    const judged = reported.map(({ nativeId, reason }) => ({ rule: refusalRule(reason) ?? 'badRecord', nativeId, reason }));
    for (const { rule, nativeId, reason } of [...judged, ...refused]) {
      if (rule === 'badRecord') continue;
      this.#metrics.counter('weir_addresses_refused_total', source, rule).inc();
      if (rule === 'ownListener') this.#events.emit('own_listener_dropped', { source, service: record.id, nativeId, reason });
    }
    return new Set(all.map((one) => one.nativeId));
  }

  #note(source: SourceRecord, service: ServiceId, refused: readonly RejectedRecord[]): void {
    const { id } = source.config;
    source.rejected += refused.length;
    this.#metrics.counter('weir_source_rejected_records_total', id).inc(refused.length);
    const at = this.#clock.wallNow();
    for (const { nativeId, reason } of refused) {
      source.reject({ source: id, service, nativeId: nativeId.slice(0, TEXT_LENGTH), reason: reason.slice(0, TEXT_LENGTH), at });
    }
  }
}
