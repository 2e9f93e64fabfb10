// Owns what we know of one prefix: key → decoded record, the revision to go on from, the epoch. Pure: no I/O, no time.
// Called by session.ts; must never show a state that the store did not have (one swap per list, one step per response).
import type { KeyValue, ResponseHeader } from './protocol.ts';

/** One key as we hold it. */
export interface Entry<T> {
  readonly modRevision: bigint;
  readonly createRevision: bigint;
  readonly lease: string;
  /** 53 bits of the value: tells apart two histories that gave one key the same revisions. */
  readonly print: number;
  readonly record: T;
}

/** What changed in one step; keys whose record changed, appeared or vanished. */
export interface Change<T> {
  readonly key: string;
  readonly before: Entry<T> | null;
  readonly after: Entry<T> | null;
  /** Revision of the change (of the list for what only a list showed). */
  readonly revision: bigint;
}

/** A complete list at one revision. */
export interface Listing {
  readonly header: ResponseHeader;
  readonly kvs: readonly KeyValue[];
}

/** A put or a delete of a watch response. */
export interface KeyEvent {
  readonly kind: 'put' | 'delete';
  readonly kv: KeyValue;
}

/**
 * Bytes of a value → record. `last` is the record that the key had; null: this key is no key for us (skipped, counted by the caller).
 * Must not throw.
 */
export type DecodeKey<T> = (key: string, kv: KeyValue, last: T | null) => T | null;

/** Place in a cluster's history: what a later linearizable answer may not fall behind. */
export interface Mark {
  readonly clusterId: string;
  readonly revision: bigint;
  readonly raftTerm: bigint;
  readonly epoch: number;
}

/** The epochs of a source (rule 4, R6): counts up when a cluster's revisions started anew. Shared by mirrors and single reads. */
export class Epochs {
  #seen: Mark | null = null;
  #epoch = 0;

  /** Opaque text for a snapshot. */
  get text(): string {
    return `${this.#seen?.clusterId ?? '0'}.${this.#epoch}`;
  }

  get number(): number {
    return this.#epoch;
  }

  /** Take before a linearizable read is sent: its answer cannot be older than what was seen by then. */
  mark(): Mark | null {
    return this.#seen;
  }

  /** Something other than a header proved that the history is another. `header`: of the list that did. */
  startAnew(header: ResponseHeader): void {
    this.#epoch++;
    this.#seen = null;
    this.note(header.clusterId, BigInt(header.revision), BigInt(header.raftTerm));
  }

  /** Judges the header of a linearizable read. True: it opened a new epoch. */
  judge(mark: Mark | null, header: ResponseHeader): boolean {
    const revision = BigInt(header.revision);
    const raftTerm = BigInt(header.raftTerm);
    const anew =
      mark !== null &&
      mark.epoch === this.#epoch &&
      (mark.clusterId !== header.clusterId || revision < mark.revision || raftTerm < mark.raftTerm);
    if (anew) this.startAnew(header);
    else this.note(header.clusterId, revision, raftTerm);
    return anew;
  }

  /** Notes what a trusted answer showed; never goes back within an epoch. */
  note(clusterId: string, revision: bigint, raftTerm: bigint): void {
    const seen = this.#seen;
    if (seen !== null && seen.clusterId !== clusterId) return;
    this.#seen = {
      clusterId,
      revision: seen !== null && seen.revision > revision ? seen.revision : revision,
      raftTerm: seen !== null && seen.raftTerm > raftTerm ? seen.raftTerm : raftTerm,
      epoch: this.#epoch,
    };
  }
}

/** See the head of the file. */
export class Mirror<T> {
  readonly #entries = new Map<string, Entry<T>>();
  readonly #decode: DecodeKey<T>;
  /** Deletes since a list was begun: a list older than the delete must not bring the key back. Null: no list under way. */
  #deleted: Map<string, bigint> | null = null;
  #next = 0n;
  #epoch = -1;

  constructor(decode: DecodeKey<T>) {
    this.#decode = decode;
  }

  /** The first revision that was not applied yet; 0 before the first list. */
  get next(): bigint {
    return this.#next;
  }

  /** Number of the epoch that the entries belong to; −1 before the first list. */
  get epoch(): number {
    return this.#epoch;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): Entry<T> | undefined {
    return this.#entries.get(key);
  }

  entries(): IterableIterator<[string, Entry<T>]> {
    return this.#entries.entries();
  }

  /** From here on deletes are remembered until `applyList` or `abandonList`. */
  beginList(): void {
    this.#deleted = new Map();
  }

  abandonList(): void {
    this.#deleted = null;
  }

  /**
   * True when a linearizable list cannot belong to the history that we hold although its header looks well: an older, or another,
   * version of a key than we had by its revision. So a wiped or restored store shows that has passed our revision meanwhile (rule 5).
   */
  contradicts(listing: Listing): boolean {
    const revision = BigInt(listing.header.revision);
    return listing.kvs.some((kv) => {
      const key = keyText(kv.key);
      const held = key === null ? undefined : this.#entries.get(key);
      if (held === undefined || held.modRevision > revision) return false;
      const modRevision = BigInt(kv.modRevision);
      return modRevision < held.modRevision || (modRevision === held.modRevision && !sameVersion(held, kv));
    });
  }

  /**
   * Rule 7: the difference to a complete list, as one swap. In a new epoch the list replaces everything; within one, what a
   * watch has shown since the list's revision stands. `epoch` is the epoch that the list belongs to.
   */
  applyList(listing: Listing, epoch: number): readonly Change<T>[] {
    const revision = BigInt(listing.header.revision);
    const anew = epoch !== this.#epoch;
    const deleted = anew ? null : this.#deleted;
    this.#deleted = null;
    this.#epoch = epoch;
    if (anew) this.#next = 0n;
    const changes: Change<T>[] = [];
    const listed = new Set<string>();
    for (const kv of listing.kvs) {
      const key = keyText(kv.key);
      if (key === null) continue;
      listed.add(key);
      const modRevision = BigInt(kv.modRevision);
      const deletedAt = deleted?.get(key);
      if (deletedAt !== undefined && deletedAt > revision) continue;
      const before = this.#entries.get(key) ?? null;
      if (!anew && before !== null && before.modRevision >= modRevision) continue;
      // A restored store may hold another value under the same revision: in a new epoch nothing is taken as known.
      this.#set(key, kv, modRevision, before, changes);
    }
    for (const [key, before] of this.#entries) {
      if (listed.has(key) || (!anew && before.modRevision > revision)) continue;
      this.#entries.delete(key);
      changes.push({ key, before, after: null, revision });
    }
    if (revision + 1n > this.#next) this.#next = revision + 1n;
    return changes;
  }

  /** The events of one complete response, in order. Events below `next` were applied already and are dropped. */
  applyEvents(events: readonly KeyEvent[]): readonly Change<T>[] {
    const changes: Change<T>[] = [];
    let last = this.#next - 1n;
    for (const { kind, kv } of events) {
      const modRevision = BigInt(kv.modRevision);
      if (modRevision < this.#next) continue;
      if (modRevision > last) last = modRevision;
      const key = keyText(kv.key);
      if (key === null) continue;
      const before = this.#entries.get(key) ?? null;
      if (before !== null && before.modRevision >= modRevision) continue;
      if (kind === 'put') this.#set(key, kv, modRevision, before, changes);
      else {
        this.#deleted?.set(key, modRevision);
        if (before === null) continue;
        this.#entries.delete(key);
        changes.push({ key, before, after: null, revision: modRevision });
      }
    }
    this.#next = last + 1n;
    return changes;
  }

  /** Rule 1b: an answer without events that the server gave after everything up to `revision`. */
  advance(revision: bigint): void {
    if (revision + 1n > this.#next) this.#next = revision + 1n;
  }

  #set(key: string, kv: KeyValue, modRevision: bigint, before: Entry<T> | null, changes: Change<T>[]): void {
    const record = this.#decode(key, kv, before?.record ?? null);
    if (record === null) {
      if (before !== null) {
        this.#entries.delete(key);
        changes.push({ key, before, after: null, revision: modRevision });
      }
      return;
    }
    const after = {
      modRevision,
      createRevision: BigInt(kv.createRevision),
      lease: kv.lease,
      print: fingerprint(kv.value),
      record,
    };
    this.#entries.set(key, after);
    changes.push({ key, before, after, revision: modRevision });
  }
}

function sameVersion<T>(held: Entry<T>, kv: KeyValue): boolean {
  return held.createRevision === BigInt(kv.createRevision) && held.lease === kv.lease && held.print === fingerprint(kv.value);
}

/** cyrb53 (public domain) over bytes: not for secrets, only to see that two values differ. */
function fingerprint(bytes: Uint8Array): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (const byte of bytes) {
    a = Math.imul(a ^ byte, 2_654_435_761);
    b = Math.imul(b ^ byte, 1_597_334_677);
  }
  a = Math.imul(a ^ (a >>> 16), 2_246_822_507) ^ Math.imul(b ^ (b >>> 13), 3_266_489_909);
  b = Math.imul(b ^ (b >>> 16), 2_246_822_507) ^ Math.imul(a ^ (a >>> 13), 3_266_489_909);
  return 4_294_967_296 * (2_097_151 & b) + (a >>> 0);
}

const MAX_KEY_BYTES = 1_024;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Text of a key, or null when it is longer than 1 KiB or no UTF-8 (section 10). */
export function keyText(key: Uint8Array): string | null {
  if (key.length === 0 || key.length > MAX_KEY_BYTES) return null;
  try {
    return utf8.decode(key);
  } catch {
    return null;
  }
}
