// Owns the sharing of equal values among instances: a large catalog repeats the same versions, zones and metadata.
// Called at intake only; must never grow without bound.
import { type Instance, type Locality, NO_METADATA } from '../model/instance.ts';
import { compareText } from '../model/service.ts';

const CAPACITY = 20_000;

/** One value per content; forgets everything when it is full, which costs memory only. */
class Pool<T> {
  readonly #values = new Map<string, T>();

  share(key: string, make: () => T): T {
    const found = this.#values.get(key);
    if (found !== undefined) return found;
    if (this.#values.size >= CAPACITY) this.#values.clear();
    const value = make();
    this.#values.set(key, value);
    return value;
  }
}

/** Shares strings, localities and metadata maps of instances. One per catalog. */
export class Interner {
  readonly #texts = new Pool<string>();
  readonly #localities = new Pool<Locality>();
  readonly #metadata = new Pool<ReadonlyMap<string, string>>();

  text(value: string): string {
    return this.#texts.share(value, () => value);
  }

  /** The same instance with shared parts. `metadata` replaces its own (forged markers taken out). */
  instance(given: Instance, metadata: ReadonlyMap<string, string>): Instance {
    return {
      id: given.id,
      host: given.host,
      port: given.port,
      transport: given.transport,
      weight: given.weight,
      health: given.health,
      isolated: given.isolated,
      metadata: this.metadata(metadata),
      ...(given.protocol === undefined ? {} : { protocol: this.text(given.protocol) }),
      ...(given.version === undefined ? {} : { version: this.text(given.version) }),
      ...(given.locality === undefined ? {} : { locality: this.#locality(given.locality) }),
    };
  }

  metadata(given: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
    if (given.size === 0) return NO_METADATA;
    const entries = [...given].sort(([a], [b]) => compareText(a, b));
    // Sorted keys: the order in which a registry happened to send them must not show in a view (M8).
    return this.#metadata.share(JSON.stringify(entries), () => new Map(entries));
  }

  #locality(given: Locality): Locality {
    return this.#localities.share(JSON.stringify([given.region, given.zone, given.campus]), () => given);
  }
}
