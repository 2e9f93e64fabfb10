// Owns the sharing of equal values among instances: a large catalog repeats the same versions, zones and metadata.
// Called by adapters that keep what they read, and by catalog at intake; must never grow without bound.
import { type Instance, type Locality, NO_METADATA, sameLocality } from './instance.ts';
import { sameMetadata } from './metadata.ts';
import { compareText, type ServiceKey, serviceId } from './service.ts';

const CAPACITY = 20_000;
const RECENT = 4;

/** One value per content; forgets everything when it is full, which costs memory only. */
class Pool<T> {
  readonly #values = new Map<string, T>();

  find(key: string): T | undefined {
    return this.#values.get(key);
  }

  add(key: string, value: T): T {
    if (this.#values.size >= CAPACITY) this.#values.clear();
    this.#values.set(key, value);
    return value;
  }
}

/** The values used last; most instances of a service repeat a handful. Looking here costs no memory. */
class Recent<T> {
  readonly #values: T[] = [];
  readonly #same: (a: T, b: T) => boolean;
  #next = 0;

  constructor(same: (a: T, b: T) => boolean) {
    this.#same = same;
  }

  find(wanted: T): T | undefined {
    for (const value of this.#values) if (this.#same(value, wanted)) return value;
    return undefined;
  }

  add(value: T): T {
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % RECENT;
    return value;
  }
}

/** Shares strings, localities and metadata maps of instances. */
export class Interner {
  readonly #texts = new Pool<string>();
  readonly #services = new Pool<ServiceKey>();
  readonly #localities = new Pool<Locality>();
  readonly #recentLocalities = new Recent<Locality>(sameLocality);
  readonly #metadata = new Pool<ReadonlyMap<string, string>>();
  readonly #recentMetadata = new Recent<ReadonlyMap<string, string>>(sameMetadata);

  text(value: string): string {
    return this.#texts.find(value) ?? this.#texts.add(value, value);
  }

  /** One key object per service, however many records name it. */
  service(key: ServiceKey): ServiceKey {
    const id = serviceId(key);
    return this.#services.find(id) ?? this.#services.add(id, key);
  }

  /** The same instance with shared parts. `metadata` replaces its own (forged markers taken out). */
  instance(given: Instance, metadata: ReadonlyMap<string, string>): Instance {
    const { id, host, port, transport, weight, health, isolated, protocol, version, locality } = given;
    const shared = this.metadata(metadata);
    const place = locality === undefined ? undefined : this.#locality(locality);
    // Made by the adapter through this interner: there is nothing left to share.
    if (shared === given.metadata && place === locality) return given;
    // A literal for each combination: objects put together by spreads cost three times the memory, and there is one per instance.
    const must = { id, host, port, transport, weight, health, isolated, metadata: shared };
    if (protocol === undefined && version === undefined && place === undefined) return must;
    return this.#withLabels(must, protocol, version, place);
  }

  #withLabels(must: Instance, protocol?: string, version?: string, locality?: Locality): Instance {
    const { id, host, port, transport, weight, health, isolated, metadata } = must;
    const p = protocol === undefined ? null : this.text(protocol);
    const v = version === undefined ? null : this.text(version);
    if (p === null && v === null) {
      return locality === undefined ? must : { id, host, port, transport, weight, health, isolated, metadata, locality };
    }
    if (locality === undefined) {
      if (p === null) return { id, host, port, transport, weight, health, isolated, metadata, version: v ?? '' };
      if (v === null) return { id, host, port, transport, weight, health, isolated, metadata, protocol: p };
      return { id, host, port, transport, weight, health, isolated, metadata, protocol: p, version: v };
    }
    if (p === null) return { id, host, port, transport, weight, health, isolated, metadata, version: v ?? '', locality };
    if (v === null) return { id, host, port, transport, weight, health, isolated, metadata, protocol: p, locality };
    return { id, host, port, transport, weight, health, isolated, metadata, protocol: p, version: v, locality };
  }

  metadata(given: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
    if (given.size === 0) return NO_METADATA;
    const recent = this.#recentMetadata.find(given);
    if (recent !== undefined) return recent;
    const entries = [...given].sort(([a], [b]) => compareText(a, b));
    // Sorted keys: the order in which a registry happened to send them must not show in a view (M8).
    const key = JSON.stringify(entries);
    return this.#recentMetadata.add(this.#metadata.find(key) ?? this.#metadata.add(key, new Map(entries)));
  }

  #locality(given: Locality): Locality {
    const recent = this.#recentLocalities.find(given);
    if (recent !== undefined) return recent;
    const key = JSON.stringify([given.region, given.zone, given.campus]);
    return this.#recentLocalities.add(this.#localities.find(key) ?? this.#localities.add(key, given));
  }
}

/** The interner of the process: what an adapter shares by it, the catalog takes as it is. A cache of values, nothing depends on it. */
export const sharedInterner = new Interner();
