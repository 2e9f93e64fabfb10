// Owns what each source said last: its own state, and per service the state machine of R1 with ages. Called by catalog alone;
// time is an argument. Must never merge, publish or set a timer.
import type { InstanceField } from '../adapter/capabilities.ts';
import type { NativeNamespaces } from '../adapter/contract.ts';
import type { DialPolicy } from '../kernel/dial.ts';
import type { Instance } from '../model/instance.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { SourceErrorCause } from '../model/snapshot.ts';
import type { MergeSource } from './merge-input.ts';
import { type HoldKind, ServiceGuard, SourceGuard } from './shrink-guard.ts';
import type { ServiceSourceState, SourceState } from './view.ts';

/** What the catalog needs to know of a configured source. */
export interface CatalogSource {
  readonly id: string;
  readonly kind: string;
  /** M1 label. */
  readonly network: string;
  /** `as: {namespace}`; null keeps the native one. */
  readonly asNamespace: string | null;
  /** The native namespaces of its names, as its adapter says; absent: `default`, and any other as well. */
  readonly namespaces?: NativeNamespaces;
  readonly dial: DialPolicy;
  /** Fields that the adapter declares it reads. */
  readonly reads: ReadonlySet<InstanceField>;
  /** The adapter lists names: its first answer is its first list. */
  readonly lists: boolean;
  readonly tellsDeregistration: boolean;
  /** ms after which a stale word stops counting; null: never. */
  readonly expireAfter: number | null;
}

/**
 * R1 per (source, service). `restored`: from disk, not heard of since the start. `unwatched`: nobody uses the service, its on-demand
 * watch has ended; the last word stays for the next first use.
 */
export type Phase =
  | { readonly kind: 'neverSeen' }
  | { readonly kind: 'restored' }
  | { readonly kind: 'unwatched' }
  | { readonly kind: 'live' }
  | { readonly kind: 'lost'; readonly cause: SourceErrorCause; readonly message: string }
  | { readonly kind: 'expired' };

const RESTORED = { cause: 'restored', message: 'from the last-good file; not heard from since the start' };
const NEVER_SEEN: Phase = { kind: 'neverSeen' };
/** Shared: a record is live most of its time, and is heard from every few seconds. */
const LIVE: Phase = { kind: 'live' };

/** What a record of the last-good file turns into when somebody needs it. */
export interface StoredWord {
  readonly present: readonly Instance[];
  readonly held: readonly { readonly instance: Instance; readonly kind: HoldKind }[];
}

/** Refused records of a source, the newest 100. */
export interface RejectedEntry {
  readonly source: string;
  readonly service: ServiceId;
  readonly nativeId: string;
  readonly reason: string;
  /** Wall ms. */
  readonly at: number;
}

const MAX_REJECTED = 100;

/** One configured source and what it said. */
export class SourceRecord {
  config: CatalogSource;
  /** Place in the config. */
  order: number;
  readonly guard = new SourceGuard();
  /** By native key text; the catalog keys its own entries by our names. */
  readonly services = new Map<string, ServiceRecord>();
  /** Loss of the source as a whole (its list); null while none stands. */
  lost: { readonly cause: SourceErrorCause; readonly message: string; readonly seq: number } | null = null;
  /** Records whose own word is live. */
  liveRecords = 0;
  expiredRecords = 0;
  /** The newest loss of one of its services, until one of them is heard from. */
  lastLoss: { readonly cause: SourceErrorCause; readonly message: string } | null = null;
  heard = false;
  listed = false;
  goodAt: number | null = null;
  contactAt: number | null = null;
  epoch = '';
  rejected = 0;
  readonly recentRejected: RejectedEntry[] = [];
  /** The state that was announced last. */
  announced: SourceState = 'connecting';

  constructor(config: CatalogSource, order: number) {
    this.config = config;
    this.order = order;
  }

  reject(entry: RejectedEntry): void {
    this.recentRejected.push(entry);
    if (this.recentRejected.length > MAX_REJECTED) this.recentRejected.splice(0, this.recentRejected.length - MAX_REJECTED);
  }

  /** A complete list told the names of all its services. */
  get namesAll(): boolean {
    return this.config.lists && this.listed;
  }

  /** First answer: its list where it lists names, any answer elsewhere. */
  get answered(): boolean {
    return this.config.lists ? this.listed : this.heard;
  }

  /** The loss that shows: of the source, or else of a service while no service is live. */
  get loss(): { readonly cause: SourceErrorCause; readonly message: string } | null {
    return this.lost ?? (this.liveRecords === 0 ? this.lastLoss : null);
  }

  get state(): SourceState {
    const { loss } = this;
    const refused = loss !== null && loss.cause !== 'lost';
    if (this.expiredRecords > 0 && this.expiredRecords === this.services.size && loss !== null) return 'failed';
    if (this.heard) return loss === null ? 'live' : 'stale';
    if (this.guard.known > 0) return 'stale';
    return refused ? 'failed' : 'connecting';
  }
}

/** Key of a native name in Maps of one source. */
export function nativeText(key: ServiceKey): string {
  return `${key.namespace}\u0000${key.name}`;
}

/** What one source said of one service. */
export class ServiceRecord {
  readonly source: SourceRecord;
  /** Native. */
  readonly key: ServiceKey;
  /** Ours. */
  id: ServiceId;
  presence: 'present' | 'absent' | 'neverSeen' = 'neverSeen';
  /** The last list has it. */
  listed = false;
  /** Number of the last list that named it, and of the last complete one that did not. */
  listedSeq = 0;
  unlistedSeq = 0;
  /** Absent because a list said so, while its watch last said otherwise. */
  listAbsent = false;
  epoch = '';
  sourceRevision = '';
  /** Monotonic ms; null before. May lie before the start of the process (from disk). */
  goodAt: number | null = null;
  contactAt: number | null = null;
  rejected = 0;
  duplicates: MergeSource['duplicates'] = [];
  /** From disk and older than lastGoodMaxAge: probed before first use. */
  suspect = false;
  #phase: Phase = NEVER_SEEN;
  #heardSeq = 0;
  readonly #guard: ServiceGuard;
  #stored: (() => StoredWord) | null = null;
  #storedCount = 0;

  constructor(source: SourceRecord, key: ServiceKey, id: ServiceId) {
    this.source = source;
    this.key = key;
    this.id = id;
    this.#guard = new ServiceGuard(source.guard);
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** What is known; decoded from disk on first need. `now` is irrelevant to what was not held. */
  guardAt(now: number): ServiceGuard {
    const stored = this.#stored;
    if (stored !== null) {
      this.#stored = null;
      this.#discount();
      const { present, held } = stored();
      this.#guard.restore(present, held, now);
    }
    return this.#guard;
  }

  get instanceCount(): number {
    return this.#stored === null ? this.#guard.known : this.#storedCount;
  }

  get heldCount(): number {
    return this.#stored === null ? this.#guard.held : 0;
  }

  /** True while what is known lies undecoded. */
  get isStored(): boolean {
    return this.#stored !== null;
  }

  /** Puts in what the disk knew. */
  restore(count: number, decode: () => StoredWord): void {
    this.#phase = { kind: 'restored' };
    this.#stored = decode;
    this.#storedCount = count;
    this.source.guard.known += count;
    if (count > 0) this.source.guard.populated += 1;
  }

  /** Drops everything known. */
  clear(now: number): void {
    if (this.#stored !== null) {
      this.#stored = null;
      this.#discount();
    }
    this.guardAt(now).clear();
  }

  /** R1: its last word is current, by its own watch and by the source as a whole. */
  get live(): boolean {
    if (this.#phase.kind !== 'live') return false;
    const { lost } = this.source;
    return lost === null || this.#heardSeq > lost.seq;
  }

  /** An answer came after the event of that number. */
  heardSince(seq: number): boolean {
    return this.#heardSeq > seq;
  }

  /** Heard from. Answers whether it became live by that. */
  hear(seq: number, now: number): boolean {
    const before = this.live;
    this.#heardSeq = seq;
    this.contactAt = now;
    this.#enter(LIVE);
    this.#guard.setLive(true, now);
    return !before;
  }

  /** Its own watch was lost. Answers whether it was live before. */
  lose(cause: SourceErrorCause, message: string, now: number): boolean {
    const before = this.live;
    if (this.#phase.kind !== 'expired') this.#enter({ kind: 'lost', cause, message });
    this.#guard.setLive(false, now);
    return before;
  }

  /** Its watch has ended because nobody uses the service: the word stays, not current any more. */
  rest(now: number): void {
    if (this.#phase.kind === 'live') this.#enter({ kind: 'unwatched' });
    this.#guard.setLive(false, now);
  }

  expire(now: number): void {
    this.clear(now);
    this.presence = 'neverSeen';
    this.#enter({ kind: 'expired' });
  }

  /** The hold clock follows the state of the source as a whole. */
  followSource(now: number): void {
    this.#guard.setLive(this.live, now);
  }

  /** Leaves the counts of the source. */
  leave(now: number): void {
    this.clear(now);
    this.#enter(NEVER_SEEN);
  }

  /** R1 in the API's words. */
  state(now: number): ServiceSourceState {
    const { source } = this;
    const loss = this.#loss();
    return {
      source: source.config.id,
      state: this.#stateWord(loss),
      presence: this.presence,
      ...(loss === null ? {} : { cause: loss.cause, message: loss.message }),
      ageMs: this.goodAt === null ? null : Math.max(0, now - this.goodAt),
      contactAgeMs: this.contactAt === null ? null : Math.max(0, now - this.contactAt),
      sourceRevision: this.sourceRevision,
      epoch: this.epoch,
      held: this.heldCount,
      instances: this.instanceCount,
      rejected: this.rejected,
    };
  }

  #loss(): { readonly cause: string; readonly message: string } | null {
    if (this.#phase.kind === 'lost') return this.#phase;
    if (this.live) return null;
    if (this.source.lost !== null) return this.source.lost;
    if (this.#phase.kind === 'unwatched') return { cause: 'unwatched', message: 'not watched: nobody has used it for a while' };
    return this.#phase.kind === 'restored' ? RESTORED : null;
  }

  #stateWord(loss: { readonly cause: string } | null): SourceState {
    if (this.#phase.kind === 'expired') return 'failed';
    if (this.presence === 'neverSeen') return loss !== null && loss.cause !== 'lost' ? 'failed' : 'connecting';
    return this.live ? 'live' : 'stale';
  }

  #enter(phase: Phase): void {
    const { source } = this;
    if (this.#phase.kind === 'live') source.liveRecords--;
    if (phase.kind === 'live') source.liveRecords++;
    if (this.#phase.kind === 'expired') source.expiredRecords--;
    if (phase.kind === 'expired') source.expiredRecords++;
    if (phase.kind === 'lost') source.lastLoss = phase;
    else if (phase.kind === 'live') source.lastLoss = null;
    this.#phase = phase;
  }

  #discount(): void {
    this.source.guard.known -= this.#storedCount;
    if (this.#storedCount > 0) this.source.guard.populated -= 1;
    this.#storedCount = 0;
  }
}
