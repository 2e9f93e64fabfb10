// Owns the services of one source: which keys belong to which service, and one mailbox per consumer.
// Called by adapter.ts; costs of a change are those of the services it touches.
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import type { ServiceList, Snapshot, SourceError, Unchanged } from '../../src/model/snapshot.ts';
import type { Hub, HubListener } from './hub.ts';
import { type KeyRecord, mergeKeys } from './mapping.ts';
import type { Change, Epochs } from './mirror.ts';

interface ServiceEntry {
  readonly key: ServiceKey;
  /** Keys of the store that belong to it. */
  readonly keys: Set<string>;
  /** Highest revision that touched it within `epoch`, deletes included. */
  revision: bigint;
  epoch: number;
}

export type WatchItem = Snapshot | Unchanged;

/** `unchanged` never replaces a snapshot that was not read yet. */
const newest = (waiting: WatchItem, incoming: WatchItem): WatchItem => (incoming.kind === 'unchanged' ? waiting : incoming);

export class ServiceFeed implements HubListener<KeyRecord> {
  readonly #epochs: Epochs;
  readonly #count: (what: string, by?: number) => void;
  readonly #services = new Map<ServiceId, ServiceEntry>();
  readonly #watchers = new Map<ServiceId, { readonly key: ServiceKey; readonly boxes: Set<Mailbox<WatchItem>> }>();
  readonly #lists = new Set<Mailbox<ServiceList>>();
  #hub: Hub<KeyRecord> | null = null;
  #leave: (() => void) | null = null;
  #ready = false;
  #dirty = new Set<ServiceId>();
  #namesChanged = false;

  constructor(epochs: Epochs, count: (what: string, by?: number) => void) {
    this.#epochs = epochs;
    this.#count = count;
  }

  /** The hub gets `apply` of this feed, so it is made after it. */
  attach(hub: Hub<KeyRecord>): void {
    this.#hub = hub;
  }

  /** Snapshots of one service until abort; throws SourceError on loss. */
  async *watch(key: ServiceKey, signal: AbortSignal): AsyncGenerator<WatchItem, void, void> {
    if (signal.aborted) return;
    const box = new Mailbox<WatchItem>(newest);
    const id = serviceId(key);
    const watchers = this.#watchers.get(id) ?? { key, boxes: new Set<Mailbox<WatchItem>>() };
    watchers.boxes.add(box);
    this.#watchers.set(id, watchers);
    if (this.#ready) box.put(this.snapshot(key));
    else this.#join();
    try {
      yield* box.read(signal);
    } finally {
      watchers.boxes.delete(box);
      if (watchers.boxes.size === 0 && this.#watchers.get(id) === watchers) this.#watchers.delete(id);
      this.#leaveIfIdle();
    }
  }

  /** The list of names until abort; throws SourceError on loss. */
  async *lists(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    if (signal.aborted) return;
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

  /** What the mirror says of a service now. */
  snapshot(key: ServiceKey): Snapshot {
    const entry = this.#services.get(serviceId(key));
    const mirror = this.#hub?.mirror;
    const epoch = this.#epochs.text;
    if (entry === undefined || entry.keys.size === 0) {
      return { kind: 'absent', epoch, sourceRevision: String((mirror?.next ?? 1n) - 1n) };
    }
    const records = [...entry.keys].flatMap((name) => {
      const held = mirror?.get(name);
      return held === undefined ? [] : [{ record: held.record, modRevision: held.modRevision }];
    });
    const { instances, rejected, duplicates } = mergeKeys(records);
    if (duplicates > 0) this.#count('instances.duplicate', duplicates);
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
      const old = before?.record.service ?? null;
      const now = after?.record.service ?? null;
      if (old !== null && (now === null || serviceId(old) !== serviceId(now))) this.#unlink(old, key, revision);
      if (now !== null) this.#link(now, key, revision);
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
    return { keys: [...this.#services.values()].map((entry) => entry.key), failed: [], complete: true };
  }

  #link(key: ServiceKey, name: string, revision: bigint): void {
    const id = serviceId(key);
    let entry = this.#services.get(id);
    if (entry === undefined) {
      entry = { key, keys: new Set(), revision, epoch: this.#epochs.number };
      this.#services.set(id, entry);
      this.#namesChanged = true;
    }
    entry.keys.add(name);
    this.#touch(id, entry, revision);
  }

  #unlink(key: ServiceKey, name: string, revision: bigint): void {
    const id = serviceId(key);
    const entry = this.#services.get(id);
    if (entry === undefined) return;
    entry.keys.delete(name);
    this.#touch(id, entry, revision);
    if (entry.keys.size > 0) return;
    this.#services.delete(id);
    this.#namesChanged = true;
  }
  #touch(id: ServiceId, entry: ServiceEntry, revision: bigint): void {
    if (entry.epoch !== this.#epochs.number || revision > entry.revision) entry.revision = revision;
    entry.epoch = this.#epochs.number;
    this.#dirty.add(id);
  }
}
