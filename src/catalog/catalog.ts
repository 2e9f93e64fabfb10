// Owns the catalog as others see it: what sources say goes in, merged views with a process-wide index (M9) come out. Wires the parts:
// source-desk (intake) → hold-desk (R2) → view-store (merge, publication). Called by supervisors, health/publish, API, migrate and
// app; must never do I/O, and never scan all services for one change. Its size is the width of that surface, not of its work.
import type { SourceSink } from '../adapter/source-sink.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import { sharedInterner } from '../model/intern.ts';
import type { MergePolicy, ServicePolicy } from '../model/policy.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { ServiceList, Snapshot, SourceError } from '../model/snapshot.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Announcer } from './announcer.ts';
import { catalogMetrics } from './catalog-metrics.ts';
import { policyInForce } from './entry.ts';
import type { MergeOverlay, ProbeEvidence } from './evidence.ts';
import type { HoldRules } from './hold-book.ts';
import { type HeldListener, HoldDesk, type ReadListener } from './hold-desk.ts';
import { LastWords } from './last-words.ts';
import type { NameRules } from './names.ts';
import { RecordStore } from './record-store.ts';
import { MAX_INSTANCES, SourceDesk } from './source-desk.ts';
import { type CatalogSource, nativeText, type RejectedEntry, type ServiceRecord } from './sources.ts';
import type { HoldState, ServiceSourceState, SourceAccount, SourceState, View } from './view.ts';
import { type NamePage, type NameQuery, type ViewListener, ViewStore } from './view-store.ts';
import type { Contact, RestoredWord, Words } from './words.ts';

/** Holds and expiry are looked at this often while there is any. */
const TICK_MS = 1_000;

export interface CatalogDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly evidence: ProbeEvidence;
  readonly overlay: MergeOverlay;
  /** Index found in the last-good file; 0 without one. */
  readonly lastIndex: number;
  /** Default 200,000 (catalog-rules §6). */
  readonly maxInstances?: number;
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
  /** ms since the last good answer; null before the first. */
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

export class Catalog implements SourceSink {
  readonly #deps: CatalogDeps;
  readonly #views: ViewStore;
  readonly #holds: HoldDesk;
  readonly #records: RecordStore;
  readonly #desk: SourceDesk;
  readonly #lastWords: LastWords;
  readonly #announcer: Announcer;
  readonly #wordListeners = new Set<(service: ServiceId) => void>();
  readonly #accountListeners = new Set<(service: ServiceId) => void>();
  #tick: Timer | null = null;
  #closed = false;

  constructor(deps: CatalogDeps) {
    const { clock, log, events, metrics, evidence, overlay } = deps;
    this.#deps = deps;
    this.#announcer = new Announcer(events, log);
    const interner = sharedInterner;
    // M9: 2^20 views a second never catch up with the clock, so an index never repeats even when the file is lost.
    const startIndex = Math.max(Math.floor(clock.wallNow() / 1_000) * 2 ** 20, deps.lastIndex + 1);
    const rulesOf = (record: ServiceRecord): HoldRules => this.#rulesOf(record);
    const wordsChanged = (service: ServiceId): void => {
      for (const listener of this.#wordListeners) listener(service);
      accountChanged(service);
    };
    const accountChanged = (service: ServiceId): void => {
      for (const listener of this.#accountListeners) listener(service);
    };
    this.#views = new ViewStore({
      clock,
      log,
      events,
      overlay,
      startIndex,
      stateChanged: accountChanged,
      sourceOf: (id) => this.#records.source(id),
      prepare: (entry, configChanged) => {
        if (configChanged) this.#records.rejudge(entry);
        else for (const record of entry.records) this.#holds.load(record, clock.now());
      },
    });
    this.#holds = new HoldDesk({ log, events, metrics, evidence, rulesOf, started: () => this.#armTick() });
    const [views, holds] = [this.#views, this.#holds];
    this.#records = new RecordStore({ metrics, interner, views, holds, now: () => clock.now(), wordsChanged });
    const records = this.#records;
    const maxInstances = deps.maxInstances ?? MAX_INSTANCES;
    const shared = { clock, events, metrics, interner, views, holds, records, announcer: this.#announcer };
    this.#desk = new SourceDesk({ ...shared, maxInstances, rulesOf, wordsChanged });
    this.#lastWords = new LastWords({ clock, interner, views, holds, records, startIndex });
    catalogMetrics(metrics, {
      clock,
      sources: () => records.sources(),
      totals: () => ({ services: views.size, conflicts: views.conflicts.listed, index: views.index }),
    });
  }

  /** Takes the config, at start and on every reload. Only what it changes is merged again; removed sources leave with all they said. */
  configure(config: CatalogConfig): void {
    this.#views.configure(config.policyOf);
    this.#records.configure(config.sources, config.names);
    this.#armTick();
  }

  // What sources say.

  list(sourceId: string, list: ServiceList): void {
    if (!this.#closed) this.#desk.list(sourceId, list);
  }

  snapshot(sourceId: string, key: ServiceKey, snapshot: Snapshot): void {
    if (!this.#closed) this.#desk.snapshot(sourceId, key, snapshot);
  }

  unchanged(sourceId: string, key: ServiceKey): void {
    if (!this.#closed) this.#desk.unchanged(sourceId, key);
  }

  lost(sourceId: string, key: ServiceKey | null, error: SourceError): void {
    if (!this.#closed) this.#desk.lost(sourceId, key, error);
    this.#armTick();
  }

  /**
   * Nobody watches the native service any more (an idle on-demand watch was dropped). What the source said last stays for the next
   * first use, shown as stale: the registry may be gone by then.
   */
  unwatched(sourceId: string, native: ServiceKey): void {
    const record = this.#recordOf(sourceId, native);
    if (record !== undefined && !this.#closed) this.#desk.unwatched(record);
  }

  // Reading.

  /** The view of a service; undefined when no source has said anything of it, or all say that they do not know it. */
  get(service: ServiceId): View | undefined {
    return this.#views.get(service);
  }

  /** State per source that has to do with the service, in the order of the config. */
  serviceStates(service: ServiceId): readonly ServiceSourceState[] {
    const now = this.#deps.clock.now();
    return (this.#views.find(service)?.records ?? []).map((record) => record.state(now));
  }

  /**
   * What one source says of one service, holds included; null while it says nothing. A complete, current list without the name is a word
   * too: `absent`.
   */
  account(sourceId: string, service: ServiceId): SourceAccount | null {
    const source = this.#records.source(sourceId);
    if (source === undefined) return null;
    const record = this.#views.find(service)?.records.find((one) => one.source === source);
    const unnamed = record === undefined || (record.presence === 'neverSeen' && !record.listed);
    if (unnamed) {
      if (!source.namesAll) return null;
      const key = record?.key ?? this.#records.names.toNative(sourceId, service);
      if (key === null) return null;
      const { epoch, goodAt } = source;
      return { source: sourceId, key, live: source.lost === null, presence: 'absent', epoch, goodAt: goodAt ?? 0, instances: [] };
    }
    if (record.presence === 'neverSeen') return null;
    const guard = this.#holds.load(record, this.#deps.clock.now());
    return {
      source: sourceId,
      key: record.key,
      live: record.live,
      presence: record.presence,
      epoch: record.epoch,
      goodAt: record.goodAt ?? 0,
      instances: [
        ...guard.present.map((instance) => ({ instance, held: false })),
        ...guard.kept.map(({ instance }) => ({ instance, held: true })),
      ],
    };
  }

  /** Services that a source has a word on, unsorted. */
  *servicesOf(sourceId: string): Generator<ServiceId, void, void> {
    for (const record of this.#records.source(sourceId)?.services.values() ?? []) {
      if (record.presence !== 'neverSeen' || record.listed) yield record.id;
    }
  }

  sourceSummary(sourceId: string): CatalogSourceSummary | undefined {
    const source = this.#records.source(sourceId);
    if (source === undefined) return undefined;
    const now = this.#deps.clock.now();
    const { loss, guard, goodAt, contactAt } = source;
    return {
      id: sourceId,
      kind: source.config.kind,
      state: source.state,
      ageMs: goodAt === null ? null : Math.max(0, now - goodAt),
      contactAgeMs: contactAt === null ? null : Math.max(0, now - contactAt),
      ...(loss === null ? {} : { cause: loss.cause, message: loss.message }),
      services: source.services.size,
      instances: guard.known,
      held: guard.heldInstances,
      rejected: source.rejected,
    };
  }

  /** Configured sources, in their order. */
  get sourceIds(): readonly string[] {
    return [...this.#records.sources()].sort((a, b) => a.order - b.order).map((source) => source.config.id);
  }

  /**
   * Names in code-unit order from `cursor` (exclusive) on. A page may be short while `next` is not null: filters look at a bounded
   * number of names per page.
   */
  names(query: NameQuery): NamePage {
    return this.#views.page(query);
  }

  /** Number of names known. */
  get size(): number {
    return this.#views.size;
  }

  /** The newest index that was given out (M9). */
  get index(): number {
    return this.#views.index;
  }

  /** Takes the next index: for a changed verdict (M9). */
  takeIndex(): number {
    return this.#views.takeIndex();
  }

  /** The merge policy in force and whose word it is. */
  mergeOf(service: ServiceId): { policy: MergePolicy; from: 'settings' | 'migration'; migration?: string } {
    const entry = this.#views.find(service);
    if (entry === undefined) return { policy: this.#views.policyOf(service), from: 'settings' };
    this.#views.policy(entry);
    const { policy, migration } = policyInForce(entry, this.#deps.overlay);
    return migration === null ? { policy, from: 'settings' } : { policy, from: 'migration', migration };
  }

  /** Holds of a service, or all. */
  holds(service: ServiceId | null = null): readonly HoldState[] {
    const now = this.#deps.clock.now();
    if (service !== null) for (const record of this.#views.find(service)?.records ?? []) this.#holds.load(record, now);
    return this.#holds.states(service, now);
  }

  /** The newest refused records of a source, oldest first, at most 100. */
  recentRejected(sourceId: string): readonly RejectedEntry[] {
    return this.#records.source(sourceId)?.recentRejected ?? [];
  }

  /** True while the catalog holds instances of the native service: its watch must go on. */
  isHeld(sourceId: string, native: ServiceKey): boolean {
    const record = this.#recordOf(sourceId, native);
    return record !== undefined && this.#holds.isHeld(record);
  }

  /** Our name of a native one; null when it has no place in the catalog. */
  toOurs(sourceId: string, native: ServiceKey): ServiceId | null {
    return this.#records.names.toOurs(sourceId, native);
  }

  /** The native name in a source (the one it has there now, if any); null when the source cannot have the service. */
  toNative(sourceId: string, service: ServiceId): ServiceKey | null {
    const record = this.#views.find(service)?.records.find((one) => one.source.config.id === sourceId);
    return record?.key ?? this.#records.names.toNative(sourceId, service);
  }

  /** The native name under which the service is written into a source; null: nobody said one, and for writes there is no default. */
  toWrite(sourceId: string, service: ServiceId): ServiceKey | null {
    return this.#records.names.toWrite(sourceId, service);
  }

  /** True once the source gave its first list (its first answer of any kind where it cannot list). */
  hasFirstAnswer(sourceId: string): boolean {
    return this.#records.source(sourceId)?.answered === true;
  }

  everySourceAnswered(): boolean {
    for (const source of this.#records.sources()) if (!source.answered) return false;
    return true;
  }

  // Hands.

  /** Evidence, verdict or overlay of the service changed: its holds are looked at again and it is merged again. */
  touch(service: ServiceId): void {
    const entry = this.#views.find(service);
    if (entry === undefined || this.#closed) return;
    const now = this.#deps.clock.now();
    for (const record of entry.records) if (this.#holds.reconsider(record, now)) this.#desk.removed(record);
    if (this.#views.find(service) === entry) this.#views.changed(entry, false);
  }

  /** The operator believes the registry: what is held goes. Answers how many held instances that were. */
  releaseHolds(which: { readonly service?: ServiceId | null; readonly source?: string | null } = {}): number {
    const { service = null, source = null } = which;
    const now = this.#deps.clock.now();
    if (service !== null) this.holds(service);
    let count = 0;
    for (const record of this.#holds.records) {
      if (service !== null && record.id !== service) continue;
      if (source !== null && record.source.config.id !== source) continue;
      count += this.#holds.release(record, now);
      this.#desk.removed(record);
    }
    return count;
  }

  // Listeners. Calls are synchronous; each returns the function that ends it.

  /** Told every view that changed, undefined when the service is gone (R5: coalesced). */
  subscribe(listener: ViewListener): () => void {
    return this.#views.subscribe(listener);
  }

  /** Told the id of every source whose state changed. */
  subscribeSources(listener: (sourceId: string) => void): () => void {
    return this.#announcer.subscribe(listener);
  }

  /** Told when what sources say of a service changed, views aside: for the last-good file. */
  subscribeWords(listener: (service: ServiceId) => void): () => void {
    this.#wordListeners.add(listener);
    return () => this.#wordListeners.delete(listener);
  }

  /** Told when an `account` of a service may read otherwise: other words, or words that are current now, or no longer. */
  subscribeAccounts(listener: (service: ServiceId) => void): () => void {
    this.#accountListeners.add(listener);
    return () => this.#accountListeners.delete(listener);
  }

  /** Asked for a fresh full read that may confirm a hold; its answer comes back through `snapshot`. */
  onConfirmRead(listener: ReadListener): () => void {
    return this.#holds.onRead(listener);
  }

  /** Told when the catalog starts or ends to hold instances of a native service. */
  onHeld(listener: HeldListener): () => void {
    return this.#holds.onHeld(listener);
  }

  // The last-good file.

  /** What sources say of a service; null when none says anything. */
  words(service: ServiceId): Words | null {
    return this.#lastWords.words(service);
  }

  /** Names of all services, unsorted. */
  allNames(): Iterable<ServiceId> {
    return this.#views.names();
  }

  /** When each live source was last heard from. */
  contacts(): readonly Contact[] {
    return this.#lastWords.contacts();
  }

  /** Puts in what the last-good file knows, after `configure` and before any source is heard. Answers how many words had a place. */
  restore(words: Iterable<RestoredWord>): number {
    const count = this.#lastWords.restore(words);
    for (const source of this.#records.sources()) this.#announcer.announce(source);
    this.#armTick();
    return count;
  }

  /** Ends timers and stops listening to sources. Views stay readable. */
  close(): void {
    this.#closed = true;
    this.#tick?.cancel();
    this.#views.close();
    this.#desk.close();
  }

  #recordOf(sourceId: string, native: ServiceKey): ServiceRecord | undefined {
    return this.#records.source(sourceId)?.services.get(nativeText(native));
  }

  #rulesOf(record: ServiceRecord): HoldRules {
    const policy = this.#views.policy(this.#views.entryFor(record.id)).hold;
    return { policy, byTime: this.#deps.overlay.overlayOf(record.id)?.holdsByTime ?? true };
  }

  #armTick(): void {
    if (this.#tick !== null || this.#closed || !this.#needsTick()) return;
    this.#tick = this.#deps.clock.setTimer(TICK_MS, this.#onTick);
  }

  #needsTick(): boolean {
    if (this.#holds.any) return true;
    for (const source of this.#records.sources()) if (source.config.expireAfter !== null && source.loss !== null) return true;
    return false;
  }

  readonly #onTick = (): void => {
    this.#tick = null;
    const now = this.#deps.clock.now();
    for (const record of this.#holds.records) if (this.#holds.reconsider(record, now)) this.#desk.removed(record);
    this.#holds.askReads(now);
    for (const source of this.#records.sources()) this.#desk.expire(source, now);
    this.#armTick();
  };
}
