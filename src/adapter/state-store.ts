// Owns the port to a store shared by a fleet (etcd, later Consul): settings, migrations, locks. Types only.

export interface StateEntry {
  readonly key: string;
  readonly value: string;
  /** Opaque; changes with every write. */
  readonly revision: string;
}

/** A held lock: `lost` aborts when it may have been lost (0.8 × ttl without renewal, monotonic clock). */
export interface StateLock {
  readonly lost: AbortSignal;
  readonly fence: { readonly key: string; readonly createRevision: string; readonly leaseId: string };
  release(): Promise<void>;
}

export interface StateStore {
  get(key: string, signal: AbortSignal): Promise<StateEntry | null>;
  /** Writes when the key's revision is `expected` (null: when it does not exist); null when it is another by now. `value` null deletes. */
  cas(key: string, value: string | null, expected: string | null, signal: AbortSignal): Promise<StateEntry | null>;
  /** The whole set below the prefix, again after every change. Throws = lost. */
  watch(prefix: string, signal: AbortSignal): AsyncIterable<readonly StateEntry[]>;
  /** Waits until the lock is held. `ttl` ms. */
  lock(key: string, ttl: number, signal: AbortSignal): Promise<StateLock>;
}
