// Owns an embedded registry: services, records, leases, revisions. Shared by its clients (adapter.ts) and filled natively by demo
// and tests. Must never keep a service that nobody has used for long, and sets one timer, whatever it holds.
import { randomUUID } from 'node:crypto';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { Instance, NativeId } from '../../src/model/instance.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { type Snapshot, SourceError } from '../../src/model/snapshot.ts';

/** A service without instances is known for this long, then forgotten: names from outside must not pile up. */
export const EMPTY_SERVICE_MS = 300_000;
/** A sweep visits every record: at most one in this time, ms. A lease may end that much late. */
const SWEEP_MS = 50;
export const MAX_SERVICES = 10_000;
export const MAX_INSTANCES = 200_000;

/** Who wrote a record: nobody's (native) records belong to no client and have no lease. */
export interface Ownership {
  /** Proof of ownership; goes into the receipt. */
  readonly token: string;
  /** ms without renewal; null: for ever. */
  readonly ttl: number | null;
}

/** By what a writer may take the place of a record: its own token, or the migration whose copy it writes. */
export interface Proof {
  readonly token: string;
  readonly migration?: string;
}

interface Entry {
  readonly instance: Instance;
  readonly owner: Ownership | null;
  endsAt: number;
}

interface Service {
  readonly key: ServiceKey;
  readonly records: Map<NativeId, Entry>;
  revision: number;
  emptySince: number;
}

/** What happened to a service: told to every subscriber after the change, synchronously. */
export interface Change {
  readonly key: ServiceKey;
  /** Ids removed on purpose by this change (expiry is none). */
  readonly deregistered: readonly NativeId[];
  /** The set of names is another one now. */
  readonly names: boolean;
}

/** One client's ear. */
export interface Listener {
  changed(change: Change): void;
  /** The connection to the registry was cut. */
  cut(): void;
}

export class MemoryRegistry {
  readonly #clock: Clock;
  readonly #services = new Map<ServiceId, Service>();
  readonly #subscribers = new Set<Listener>();
  #epoch: string = randomUUID();
  #revision = 0;
  #instances = 0;
  #timer: Timer | null = null;
  /** No lease and no empty service ends before this: a lower bound, made exact by each sweep. */
  #dueAt = Number.POSITIVE_INFINITY;
  #sweptAt = Number.NEGATIVE_INFINITY;
  #timerAt = Number.POSITIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  subscribe(listener: Listener): () => void {
    this.#subscribers.add(listener);
    this.#rearm();
    return () => {
      this.#subscribers.delete(listener);
      this.#rearm();
    };
  }

  keys(): ServiceKey[] {
    this.#expire();
    return [...this.#services.values()].map(({ key }) => key);
  }

  snapshot(key: ServiceKey): Snapshot {
    this.#expire();
    const service = this.#services.get(serviceId(key));
    const base = { epoch: this.#epoch, sourceRevision: String(service?.revision ?? this.#revision) };
    if (service === undefined) return { ...base, kind: 'absent' };
    return { ...base, kind: 'present', instances: [...service.records.values()].map(({ instance }) => instance), rejected: [] };
  }

  /**
   * Upserts one record by its id, and takes the place of a record of the same address and owner. Throws SourceError `refused` when
   * id or address belong to another owner, `limit` when the registry is full.
   */
  put(key: ServiceKey, instance: Instance, owner: Ownership | null, proof?: Proof): void {
    this.#expire();
    const service = this.#services.get(serviceId(key));
    const taken = this.#inItsPlace(service, instance);
    for (const record of taken) {
      if (owner === null || owns(record, instance.id, owner.token, proof)) continue;
      throw new SourceError('refused', `${instance.host}:${instance.port} is registered by another owner`);
    }
    if (taken.length === 0 && this.#instances >= MAX_INSTANCES)
      throw new SourceError('limit', `holds ${MAX_INSTANCES} instances`);
    const home = service ?? this.#addService(key);
    for (const record of taken) if (home.records.delete(record.instance.id)) this.#instances--;
    const endsAt = this.#endOf(owner);
    home.records.set(instance.id, { instance, owner, endsAt });
    this.#instances++;
    this.#dueAt = Math.min(this.#dueAt, endsAt);
    this.#changed(home, [], service === undefined);
  }

  /** Restarts the lease: its length in ms (Infinity: it has no end); null when the record is gone or is another owner's by now. */
  renew(key: ServiceKey, id: NativeId, token: string): number | null {
    this.#expire();
    const record = this.#services.get(serviceId(key))?.records.get(id);
    if (record === undefined || record.owner?.token !== token) return null;
    record.endsAt = this.#endOf(record.owner);
    return record.owner.ttl ?? Number.POSITIVE_INFINITY;
  }

  /** Changes a record in place without touching its lease; false when it is gone or another owner's. */
  update(key: ServiceKey, id: NativeId, token: string, change: (instance: Instance) => Instance): boolean {
    this.#expire();
    const service = this.#services.get(serviceId(key));
    const record = service?.records.get(id);
    if (service === undefined || record === undefined || record.owner?.token !== token) return false;
    service.records.set(id, { ...record, instance: change(record.instance) });
    this.#changed(service, [], false);
    return true;
  }

  /** Removes on purpose. With a token only that owner's record; without one (native control) any. */
  remove(key: ServiceKey, id: NativeId, token?: string): void {
    this.#expire();
    const service = this.#services.get(serviceId(key));
    const record = service?.records.get(id);
    if (service === undefined || record === undefined || (token !== undefined && record.owner?.token !== token)) return;
    service.records.delete(id);
    this.#instances--;
    this.#changed(service, [id], false);
  }

  /** Native control: removes every instance, the service stays known. */
  clear(key: ServiceKey): void {
    const service = this.#services.get(serviceId(key)) ?? this.#addService(key);
    const ids = [...service.records.keys()];
    this.#instances -= ids.length;
    service.records.clear();
    this.#changed(service, ids, true);
  }

  /** Native control: all data is lost, as when a server's disk was; revisions start anew in another epoch. */
  wipe(): void {
    const before = [...this.#services.values()];
    this.#services.clear();
    this.#instances = 0;
    this.#revision = 0;
    this.#epoch = randomUUID();
    for (const { key } of before) this.#tell({ key, deregistered: [], names: true });
  }

  /** Native control: cuts every stream of every client once, as a network does. */
  cut(): void {
    for (const listener of [...this.#subscribers]) listener.cut();
  }

  /** Stops the registry's timer; records that have leases end at the next use. */
  close(): void {
    this.#subscribers.clear();
    this.#rearm();
  }

  #endOf(owner: Ownership | null): number {
    return owner === null || owner.ttl === null ? Number.POSITIVE_INFINITY : this.#clock.now() + owner.ttl;
  }

  #inItsPlace(service: Service | undefined, instance: Instance): Entry[] {
    const found: Entry[] = [];
    for (const record of service?.records.values() ?? []) {
      const { id, host, port, transport } = record.instance;
      const sameAddress = host === instance.host && port === instance.port && transport === instance.transport;
      if (id === instance.id || sameAddress) found.push(record);
    }
    return found;
  }

  #addService(key: ServiceKey): Service {
    if (this.#services.size >= MAX_SERVICES) throw new SourceError('limit', `holds ${MAX_SERVICES} services`);
    const service: Service = { key, records: new Map(), revision: 0, emptySince: this.#clock.now() };
    this.#services.set(serviceId(key), service);
    return service;
  }

  #changed(service: Service, deregistered: readonly NativeId[], names: boolean): void {
    service.revision = ++this.#revision;
    if (service.records.size === 0) {
      service.emptySince = this.#clock.now();
      this.#dueAt = Math.min(this.#dueAt, service.emptySince + EMPTY_SERVICE_MS);
    }
    this.#tell({ key: service.key, deregistered, names });
    this.#rearm();
  }

  #tell(change: Change): void {
    for (const listener of this.#subscribers) listener.changed(change);
  }

  /** Ends what is due: leases of records, then services that were empty for long. */
  #expire(): void {
    const now = this.#clock.now();
    if (now < this.#sweepAt()) return;
    this.#sweptAt = now;
    this.#dueAt = Number.POSITIVE_INFINITY;
    for (const service of [...this.#services.values()]) {
      const ended = [...service.records.values()].filter(({ endsAt }) => endsAt <= now);
      for (const { instance } of ended) service.records.delete(instance.id);
      this.#instances -= ended.length;
      if (ended.length > 0) this.#changed(service, [], false);
      else if (service.records.size === 0 && now - service.emptySince >= EMPTY_SERVICE_MS) {
        this.#services.delete(serviceId(service.key));
        this.#tell({ key: service.key, deregistered: [], names: true });
      }
    }
    for (const service of this.#services.values()) this.#noteEnds(service);
  }

  #noteEnds(service: Service): void {
    if (service.records.size === 0) this.#dueAt = Math.min(this.#dueAt, service.emptySince + EMPTY_SERVICE_MS);
    for (const { endsAt } of service.records.values()) this.#dueAt = Math.min(this.#dueAt, endsAt);
  }

  #sweepAt(): number {
    return Math.max(this.#dueAt, this.#sweptAt + SWEEP_MS);
  }

  /** One timer for the earliest end, and only while somebody listens. */
  #rearm(): void {
    const at = this.#subscribers.size === 0 ? Number.POSITIVE_INFINITY : this.#sweepAt();
    if (at === this.#timerAt) return;
    this.#timer?.cancel();
    this.#timerAt = at;
    this.#timer = Number.isFinite(at) ? this.#clock.setTimer(at - this.#clock.now(), () => this.#onTimer()) : null;
  }

  #onTimer(): void {
    this.#timerAt = Number.POSITIVE_INFINITY;
    this.#timer = null;
    this.#expire();
    this.#rearm();
  }
}

function owns({ instance, owner }: Entry, id: NativeId, token: string, proof: Proof | undefined): boolean {
  if (owner !== null && (owner.token === token || owner.token === proof?.token)) return true;
  const { migration } = proof ?? {};
  return migration !== undefined && instance.id === id && instance.metadata.get('weir-migration') === migration;
}
