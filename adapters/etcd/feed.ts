// Owns the services of one source: which keys belong to which service, and one mailbox per consumer.
// Called by adapter.ts; costs of a change are those of the services it touches.
import { opened } from '../../src/adapter/opened.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import type { ServiceList, Snapshot, SourceError, Unchanged } from '../../src/model/snapshot.ts';
import type { Hub, HubListener } from './hub.ts';
import { homesOf, type KeyRecord, type MappingOptions } from './mapping.ts';
import { combined, mergeKeys } from './merge.ts';
import type { Change, Epochs } from './mirror.ts';

interface ServiceEntry {
  readonly key: ServiceKey;
  /** Keys of the store that count for it; true: the key lists it, false: it only counts. */
  readonly keys: Map<string, boolean>;
  /** How many of them list it. */
  listed: number;
  /** Two keys of it show one address, so that a mere put again may change which of them is shown. */
  contested: boolean;
  /** Highest revision that touched it within `epoch`, deletes included. */
  revision: bigint;
  epoch: number;
}

export type WatchItem = Snapshot | Unchanged;

/** `unchanged` never replaces a snapshot that was not read yet. */
const newest = (waiting: WatchItem, incoming: WatchItem): WatchItem => (incoming.kind === 'unchanged' ? waiting : incoming);

export class ServiceFeed implements HubListener<KeyRecord> {
  readonly #epochs: Epochs;
  readonly #mapping: MappingOptions;
  readonly #services = new Map<ServiceId, ServiceEntry>();
  readonly #watchers = new Map<ServiceId, { readonly key: ServiceKey; readonly boxes: Set<Mailbox<WatchItem>> }>();
  readonly #lists = new Set<Mailbox<ServiceList>>();
  #hub: Hub<KeyRecord> | null = null;
  #leave: (() => void) | null = null;
  #ready = false;
  #dirty = new Set<ServiceId>();
  #namesChanged = false;
  #ended = false;

  constructor(epochs: Epochs, mapping: MappingOptions) {
    this.#epochs = epochs;
    this.#mapping = mapping;
  }

  /** The hub gets `apply` of this feed, so it is made after it. */
  attach(hub: Hub<KeyRecord>): void {
    this.#hub = hub;
  }

  /** Snapshots of one service until abort; throws SourceError on loss. */
  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<WatchItem> {
    return opened(() => this.#watch(key, signal));
  }

  #watch(key: ServiceKey, signal: AbortSignal): AsyncIterator<WatchItem, void, void> | null {
    if (signal.aborted || this.#ended) return null;
    const box = new Mailbox<WatchItem>(newest);
    const id = serviceId(key);
    const watchers = this.#watchers.get(id) ?? { key, boxes: new Set<Mailbox<WatchItem>>() };
    watchers.boxes.add(box);
    this.#watchers.set(id, watchers);
    if (this.#ready) box.put(this.snapshot(key));
    else this.#join();
    return box.read(signal, () => {
      watchers.boxes.delete(box);
      if (watchers.boxes.size === 0 && this.#watchers.get(id) === watchers) this.#watchers.delete(id);
      this.#leaveIfIdle();
    });
  }

  /** The list of names until abort; throws SourceError on loss. */
  async *lists(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    if (signal.aborted || this.#ended) return;
    const box = new Mailbox<ServiceList>();
    this.#lists.add(box);
    if (this.#ready) box.put(this.#list());
    else this.#join();
    try {
      yield* box.read(signal);
    } finally {
      this.#lists.delete(box);
      this.#leaveIfIdle();
    }
  }

  /** The source is closed: every reader ends quietly. (A signal of their own for this would be 1 KiB for each of 10,000 watches.) */
  end(): void {
    this.#ended = true;
    for (const { boxes } of this.#watchers.values()) for (const box of boxes) box.end();
    for (const box of this.#lists) box.end();
  }

  /** What the mirror says of a service now. */
  snapshot(key: ServiceKey): Snapshot {
    const entry = this.#services.get(serviceId(key));
    const mirror = this.#hub?.mirror;
    const epoch = this.#epochs.text;
    if (entry === undefined || entry.keys.size === 0) {
      return { kind: 'absent', epoch, sourceRevision: String((mirror?.next ?? 1n) - 1n) };
    }
    const found = [...entry.keys.keys()].flatMap((name) => {
      const held = mirror?.get(name);
      return held === undefined ? [] : [{ key: name, record: held.record, modRevision: held.modRevision }];
    });
    const { instances, rejected, duplicates } = mergeKeys(combined(key, found, this.#mapping));
    entry.contested = duplicates > 0;
    if (duplicates > 0) this.#mapping.count('instances.duplicate', duplicates);
    return { kind: 'present', epoch, sourceRevision: String(entry.revision), instances, rejected };
  }

  /** Highest revision of this epoch that touched a service, as far as the mirror knows; 0 when it does not. */
  revisionOf(key: ServiceKey): bigint {
    const entry = this.#services.get(serviceId(key));
    return entry === undefined || entry.epoch !== this.#epochs.number ? 0n : entry.revision;
  }

  /** Keeps the index in step with the mirror; given to the hub as its `apply`. */
  readonly apply = (changes: readonly Change<KeyRecord>[]): void => {
    for (const { key, before, after, revision } of changes) {
      const old = before === null ? [] : homesOf(before.record);
      const now = after === null ? [] : homesOf(after.record);
      // The same record again (a publisher that puts its key every few seconds) moves the revision and shows nothing new.
      const same = before !== null && before.record === after?.record;
      const kept = new Set(now.map(serviceId));
      for (const home of old) if (!kept.has(serviceId(home))) this.#unlink(home, key, revision);
      for (const home of now) this.#link(home, key, home === after?.record.service, revision, same);
    }
  };

  onReady(): void {
    this.#ready = true;
    this.#dirty.clear();
    this.#namesChanged = false;
    for (const { key, boxes } of this.#watchers.values()) this.#putAll(boxes, key);
    const list = this.#list();
    for (const box of this.#lists) box.put(list);
  }

  onChanges(): void {
    for (const id of this.#dirty) {
      const watchers = this.#watchers.get(id);
      if (watchers !== undefined) this.#putAll(watchers.boxes, watchers.key);
    }
    this.#dirty.clear();
    if (!this.#namesChanged) return;
    this.#namesChanged = false;
    if (this.#lists.size === 0) return;
    const list = this.#list();
    for (const box of this.#lists) box.put(list);
  }

  onContact(): void {
    for (const { boxes } of this.#watchers.values()) for (const box of boxes) box.put({ kind: 'unchanged' });
  }

  onLost(error: SourceError): void {
    this.#leave = null;
    this.#ready = false;
    const boxes = [...this.#watchers.values()].flatMap((watchers) => [...watchers.boxes]);
    const lists = [...this.#lists];
    this.#watchers.clear();
    this.#lists.clear();
    for (const box of boxes) box.fail(error);
    for (const box of lists) box.fail(error);
  }

  #join(): void {
    if (this.#leave !== null || this.#hub === null) return;
    // Set before joining: a hub that is ready calls back at once.
    this.#leave = () => {};
    this.#leave = this.#hub.join(this);
  }

  #leaveIfIdle(): void {
    if (this.#watchers.size > 0 || this.#lists.size > 0) return;
    this.#leave?.();
    this.#leave = null;
    this.#ready = false;
  }

  #putAll(boxes: ReadonlySet<Mailbox<WatchItem>>, key: ServiceKey): void {
    const snapshot = this.snapshot(key);
    for (const box of boxes) box.put(snapshot);
  }

  #list(): ServiceList {
    const keys = [...this.#services.values()].flatMap(({ key, listed }) => (listed > 0 ? [key] : []));
    return { keys, failed: [], complete: true };
  }

  #link(key: ServiceKey, name: string, lists: boolean, revision: bigint, same: boolean): void {
    const id = serviceId(key);
    let entry = this.#services.get(id);
    if (entry === undefined) {
      entry = { key, keys: new Map(), listed: 0, contested: false, revision, epoch: this.#epochs.number };
      this.#services.set(id, entry);
    }
    const listed = entry.listed + (lists ? 1 : 0) - (entry.keys.get(name) === true ? 1 : 0);
    entry.keys.set(name, lists);
    this.#setListed(entry, listed);
    this.#touch(id, entry, revision, same);
  }

  #unlink(key: ServiceKey, name: string, revision: bigint): void {
    const id = serviceId(key);
    const entry = this.#services.get(id);
    if (entry === undefined) return;
    this.#setListed(entry, entry.listed - (entry.keys.get(name) === true ? 1 : 0));
    entry.keys.delete(name);
    this.#touch(id, entry, revision, false);
    if (entry.keys.size === 0) this.#services.delete(id);
  }

  #setListed(entry: ServiceEntry, listed: number): void {
    if (entry.listed > 0 !== listed > 0) this.#namesChanged = true;
    entry.listed = listed;
  }

  #touch(id: ServiceId, entry: ServiceEntry, revision: bigint, same: boolean): void {
    const anew = entry.epoch !== this.#epochs.number;
    if (anew || revision > entry.revision) entry.revision = revision;
    entry.epoch = this.#epochs.number;
    if (!same || anew || entry.contested) this.#dirty.add(id);
  }
}
