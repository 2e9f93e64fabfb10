// Owns the leases that we granted: one per TTL for all instances of this source, and the keys that we put under each.
// Called by writer.ts and state-store.ts; timing belongs to the callers (keeper, lock), this file has no timer.
import { SourceError } from '../../src/model/snapshot.ts';
import type { EtcdClient } from './client.ts';

/** The shortest TTL that we ask for, seconds: the server's own floor is its election timeout (about 2 s). */
export const MIN_LEASE_SECONDS = 5;

/** A lease as the server granted it; ids are decimal text. */
export interface Granted {
  readonly id: string;
  readonly ttlMs: number;
}

export class Leases {
  readonly #client: EtcdClient;
  /** By TTL in seconds. A promise, so that writes of one batch share one grant. */
  readonly #shared = new Map<number, Promise<Granted>>();
  readonly #keys = new Map<string, Set<string>>();

  constructor(client: EtcdClient) {
    this.#client = client;
  }

  /** The shared lease of a TTL (ms), granted when there is none. Rejects like `EtcdClient.call`. */
  shared(ttlMs: number, signal: AbortSignal): Promise<Granted> {
    const seconds = Math.max(MIN_LEASE_SECONDS, Math.ceil(ttlMs / 1_000));
    const known = this.#shared.get(seconds);
    if (known !== undefined) return known;
    const granting = this.grant(seconds, signal);
    this.#shared.set(seconds, granting);
    granting.catch(() => {
      if (this.#shared.get(seconds) === granting) this.#shared.delete(seconds);
    });
    return granting;
  }

  /** A lease of its own. */
  async grant(seconds: number, signal: AbortSignal): Promise<Granted> {
    const { id, ttl, error } = await this.#client.call('LeaseGrant', { ttl: String(seconds), id: '0' }, signal);
    if (error !== '') throw new SourceError('refused', `etcd: no lease: ${error}`);
    this.#keys.set(id, new Set());
    return { id, ttlMs: Number(ttl) * 1_000 };
  }

  /** True for a lease that this process was granted and has not lost. */
  isOurs(id: string): boolean {
    return this.#keys.has(id);
  }

  attach(id: string, key: string): void {
    this.#keys.get(id)?.add(key);
  }

  /** The lease is gone: the next `shared` grants another. */
  async forget(id: string): Promise<void> {
    this.#keys.delete(id);
    for (const [seconds, granting] of [...this.#shared]) {
      const lease = await granting.catch(() => null);
      if (lease?.id === id && this.#shared.get(seconds) === granting) this.#shared.delete(seconds);
    }
  }

  /** A key was removed; the lease goes with its last key, but only if all its keys are known (we granted it). */
  async detach(id: string, key: string, signal: AbortSignal): Promise<void> {
    const keys = this.#keys.get(id);
    if (keys === undefined) return;
    keys.delete(key);
    if (keys.size > 0) return;
    await this.forget(id);
    await this.revoke(id, signal);
  }

  /** Best effort: a lease that cannot be revoked ends by its TTL. */
  async revoke(id: string, signal: AbortSignal): Promise<void> {
    this.#keys.delete(id);
    try {
      await this.#client.call('LeaseRevoke', { id }, signal);
    } catch {
      // It is gone already, or will be after its TTL.
    }
  }

  /** Renews in one burst. The answer's TTL in ms per lease; 0 = the lease is gone (never an error). */
  async keepAlive(ids: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    const answers = await this.#client.burst(
      'LeaseKeepAlive',
      ids.map((id) => ({ id })),
      signal,
    );
    return new Map(answers.map(({ id, ttl }) => [id, Math.max(0, Number(ttl)) * 1_000]));
  }

  /** Keys that hang on a lease, as the server sees it; null when the lease is gone. */
  async keysOf(id: string, signal: AbortSignal): Promise<ReadonlySet<string> | null> {
    const { ttl, keys } = await this.#client.call('LeaseTimeToLive', { id, keys: true }, signal);
    return Number(ttl) < 0 ? null : new Set(keys.map((key) => key.toString('utf8')));
  }
}
