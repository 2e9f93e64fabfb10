// Owns the life of holds over all sources: their start, their proofs and their ends, with events and counts (R2). Called by the
// source desk after each answer, by catalog for touch, release and time; must never merge or publish.
import { hostPort } from '../kernel/address.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Instance } from '../model/instance.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { readMarker } from './copies.ts';
import type { ProbeEvidence } from './evidence.ts';
import { HoldBook, type HoldRules } from './hold-book.ts';
import type { Confirmation, Kept, Outcome, ServiceGuard } from './shrink-guard.ts';
import type { ServiceRecord } from './sources.ts';
import type { HoldState } from './view.ts';

export type ReadListener = (sourceId: string, native: ServiceKey) => void;
export type HeldListener = (sourceId: string, native: ServiceKey, held: boolean) => void;

const EVENT_ADDRESSES = 20;

export interface HoldDeskDeps {
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly evidence: ProbeEvidence;
  rulesOf(record: ServiceRecord): HoldRules;
  /** A hold began: somebody must look at time. */
  started(): void;
}

export class HoldDesk {
  readonly #deps: HoldDeskDeps;
  readonly #book: HoldBook;
  readonly #readListeners = new Set<ReadListener>();
  readonly #heldListeners = new Set<HeldListener>();
  /** Records that are about to be judged and may be held then: their watches must not end in between. */
  readonly #expected = new Set<ServiceRecord>();
  /** Records of which the listeners were told that they are held. */
  readonly #told = new Set<ServiceRecord>();

  constructor(deps: HoldDeskDeps) {
    this.#deps = deps;
    this.#book = new HoldBook(deps.evidence);
  }

  /** Records with holds, as they are now. */
  get records(): readonly ServiceRecord[] {
    return [...this.#book.records];
  }

  get any(): boolean {
    return this.#book.records.size > 0;
  }

  /** True while holds keep the record, or may soon. */
  isHeld(record: ServiceRecord): boolean {
    return this.#book.has(record) || this.#expected.has(record);
  }

  /** A judgement is coming that may hold the record (true), or it is over. */
  expect(record: ServiceRecord, coming: boolean): void {
    if (coming) this.#expected.add(record);
    else this.#expected.delete(record);
    this.#tell(record);
  }

  /** What the record knows, from disk if need be; holds from disk are entered into the book. */
  load(record: ServiceRecord, now: number): ServiceGuard {
    if (!record.isStored) return record.guardAt(now);
    const guard = record.guardAt(now);
    this.#start(
      record,
      guard.kept.filter((one) => one.hold !== null),
    );
    return guard;
  }

  /** Takes what an answer did to the holds of a record. */
  note(record: ServiceRecord, outcome: Outcome): void {
    if (outcome.held.length > 0) {
      this.#start(record, outcome.held);
      this.#deps.metrics.counter('weir_holds_total', 'started').inc(outcome.held.length);
      const kind = outcome.sourceWide ? 'sourceWide' : 'service';
      this.#deps.events.emit('hold_started', { ...about(record), kind, ...addressesOf(outcome.held) });
    }
    this.released(record, outcome.returned);
    this.#confirmed(record, outcome.confirmed, 'deregistered');
  }

  /** The instances are back. */
  released(record: ServiceRecord, returned: readonly Kept[]): void {
    const kept = returned.filter((one) => one.hold !== null);
    if (kept.length === 0) return;
    this.end(record, kept);
    this.#deps.metrics.counter('weir_holds_total', 'released').inc(kept.length);
    this.#deps.events.emit('hold_released', { ...about(record), ...addressesOf(kept) });
  }

  /** Holds end without a word: the source left, or its word expired. */
  end(record: ServiceRecord, kept: readonly Kept[]): void {
    this.#book.ended(record, kept);
    this.#tell(record);
  }

  /** Confirms what evidence or time confirms. Answers whether anything went. */
  reconsider(record: ServiceRecord, now: number): boolean {
    if (!this.#book.has(record)) return false;
    const { policy, byTime } = this.#deps.rulesOf(record);
    const failures = (instance: Instance): number => this.#book.failures(record, instance);
    const confirmed = record.guardAt(now).reconsider(policy, byTime, failures, now);
    for (const by of new Set(confirmed.map((one) => one.by))) {
      const kept = confirmed.filter((one) => one.by === by).map((one) => one.kept);
      this.#confirmed(record, kept, by);
    }
    return confirmed.length > 0;
  }

  /**
   * R2: a held address that newly appears natively under another service was reused. Answers the records that lost it.
   */
  dropReused(record: ServiceRecord, added: readonly Instance[], now: number): readonly ServiceRecord[] {
    const touched = new Set<ServiceRecord>();
    for (const instance of added) {
      const others = this.#book.othersWith(record, instance);
      if (others.length === 0 || readMarker(instance.metadata) !== null) continue;
      for (const other of others) {
        const kept = other.guardAt(now).dropAddress(instance);
        if (kept === null) continue;
        this.#confirmed(other, [kept], 'addressReused');
        touched.add(other);
      }
    }
    return [...touched];
  }

  /** The operator believes the registry. Answers how many instances that lets go. */
  release(record: ServiceRecord, now: number): number {
    const released = record.guardAt(now).release();
    this.#confirmed(record, released, 'operator');
    return released.length;
  }

  /** Asks for the confirming reads that are due. */
  askReads(now: number): void {
    for (const record of this.#book.dueReads(this.#deps.rulesOf, now)) {
      for (const listener of this.#readListeners) this.#guarded(() => listener(record.source.config.id, record.key));
    }
  }

  states(service: ServiceId | null, now: number): readonly HoldState[] {
    return this.#book.states(service, this.#deps.rulesOf, now);
  }

  onRead(listener: ReadListener): () => void {
    this.#readListeners.add(listener);
    return () => this.#readListeners.delete(listener);
  }

  onHeld(listener: HeldListener): () => void {
    this.#heldListeners.add(listener);
    return () => this.#heldListeners.delete(listener);
  }

  #start(record: ServiceRecord, kept: readonly Kept[]): void {
    if (kept.length === 0) return;
    this.#book.started(record, kept);
    this.#tell(record);
    this.#deps.started();
  }

  #confirmed(record: ServiceRecord, kept: readonly Kept[], by: Confirmation): void {
    if (kept.length === 0) return;
    this.end(record, kept);
    this.#deps.metrics.counter('weir_holds_total', 'confirmed').inc(kept.length);
    this.#deps.events.emit('hold_confirmed', { ...about(record), by, ...addressesOf(kept) });
  }

  /** Tells the listeners when what they were told is not so any more. */
  #tell(record: ServiceRecord): void {
    const held = this.isHeld(record);
    if (held === this.#told.has(record)) return;
    if (held) this.#told.add(record);
    else this.#told.delete(record);
    for (const listener of this.#heldListeners) this.#guarded(() => listener(record.source.config.id, record.key, held));
  }

  #guarded(call: () => void): void {
    try {
      call();
    } catch (thrown) {
      this.#deps.log.error({ error: messageOf(thrown) }, 'a listener of the holds failed');
    }
  }
}

function about(record: ServiceRecord): { service: ServiceId; source: string } {
  return { service: record.id, source: record.source.config.id };
}

function addressesOf(kept: readonly Kept[]): { count: number; addresses: string[] } {
  const addresses = kept.slice(0, EVENT_ADDRESSES).map(({ instance }) => hostPort(instance.host, instance.port));
  return { count: kept.length, addresses };
}
