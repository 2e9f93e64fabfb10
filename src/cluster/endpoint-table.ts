// Owns the endpoints of one cluster by address: diff of a push, removal, and the ten minutes in which a removed one is remembered.
// Called by cluster.ts. Must never pick or judge: it answers what joined, left and changed.
import { hostPort } from '../kernel/address.ts';
import type { EndpointUpdate } from './cluster-update.ts';
import { Endpoint, type PoolMaker } from './endpoint.ts';

/** R3, §6: a removed endpoint's outlier and breaker state is kept that long, so that a flap does not reset it. */
export const REMEMBER_MS = 600_000;

export interface Diff {
  /** Whether membership, weight, verdict or groups differ: the picker is out of date. */
  readonly changed: boolean;
  /** New objects, and remembered ones that came back. */
  readonly joined: readonly Endpoint[];
  readonly left: readonly Endpoint[];
  /** Endpoints whose active check passed again since the last push. */
  readonly recovered: readonly Endpoint[];
}

export class EndpointTable {
  readonly #maker: PoolMaker;
  readonly #current = new Map<string, Endpoint>();
  /** Removed ones that remember failures or still have attempts in flight, the longest gone first. */
  readonly #gone = new Map<string, Endpoint>();
  #generation = 0;

  constructor(maker: PoolMaker) {
    this.#maker = maker;
  }

  get size(): number {
    return this.#current.size;
  }

  get goneSize(): number {
    return this.#gone.size;
  }

  values(): MapIterator<Endpoint> {
    return this.#current.values();
  }

  gone(): MapIterator<Endpoint> {
    return this.#gone.values();
  }

  /** Takes over a whole list. The same address twice: the later entry counts. `now` monotonic ms. */
  apply(updates: readonly EndpointUpdate[], now: number): Diff {
    this.#generation++;
    const joined: Endpoint[] = [];
    const recovered: Endpoint[] = [];
    let changed = false;
    for (const update of updates) {
      const address = hostPort(update.host, update.port);
      const endpoint = this.#current.get(address);
      if (endpoint === undefined) {
        joined.push(this.#join(address, update, recovered));
        continue;
      }
      changed = samePicks(endpoint.update, update) ? changed : true;
      this.#renew(endpoint, update, recovered);
    }
    const left = this.#dropOld(now);
    return { changed: changed || joined.length > 0 || left.length > 0, joined, left, recovered };
  }

  /** Forgets what has been gone for ten minutes; answers what it forgot. */
  forgetOld(now: number): readonly Endpoint[] {
    const forgotten: Endpoint[] = [];
    for (const endpoint of this.#gone.values()) {
      // Re-inserted on every removal, so the order is that of removal.
      if (now - endpoint.removedAt < REMEMBER_MS) break;
      this.#gone.delete(endpoint.address);
      forgotten.push(endpoint);
    }
    return forgotten;
  }

  /** Monotonic ms at which the next one is to be forgotten; null when none is remembered. */
  nextForget(): number | null {
    for (const endpoint of this.#gone.values()) return endpoint.removedAt + REMEMBER_MS;
    return null;
  }

  /** A removed endpoint without attempts that remembers nothing needs no place; true when it gave it up. */
  forgetIfEmpty(endpoint: Endpoint): boolean {
    if (endpoint.active > 0 || endpoint.remembers || this.#gone.get(endpoint.address) !== endpoint) return false;
    return this.#gone.delete(endpoint.address);
  }

  #join(address: string, update: EndpointUpdate, recovered: Endpoint[]): Endpoint {
    const known = this.#gone.get(address);
    const endpoint = known ?? new Endpoint(address, update, this.#maker);
    this.#gone.delete(address);
    endpoint.removed = false;
    if (known !== undefined) this.#renew(known, update, recovered);
    endpoint.generation = this.#generation;
    this.#current.set(address, endpoint);
    return endpoint;
  }

  #renew(endpoint: Endpoint, update: EndpointUpdate, recovered: Endpoint[]): void {
    const before = endpoint.update.recoveredAt;
    endpoint.update = update;
    endpoint.generation = this.#generation;
    if (update.recoveredAt !== undefined && update.recoveredAt !== before) recovered.push(endpoint);
  }

  #dropOld(now: number): Endpoint[] {
    const left: Endpoint[] = [];
    for (const endpoint of this.#current.values()) {
      if (endpoint.generation === this.#generation) continue;
      this.#current.delete(endpoint.address);
      endpoint.removed = true;
      endpoint.removedAt = now;
      this.#gone.set(endpoint.address, endpoint);
      left.push(endpoint);
    }
    return left;
  }
}

function samePicks(a: EndpointUpdate, b: EndpointUpdate): boolean {
  return a.weight === b.weight && a.verdict === b.verdict && sameGroups(a.groups ?? [], b.groups ?? []);
}

function sameGroups(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((group, i) => group === b[i]);
}
