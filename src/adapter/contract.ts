// Owns the port between weir and a kind of registry. An adapter is mapping and calls: it owns no retries, caches, merging and no
// timers but those that its protocol demands (on the injected clock). The supervisor retries, the keeper renews, the catalog remembers.
import type { TSchema } from 'typebox';
import type { Clock } from '../kernel/clock.ts';
import type { DialPolicy } from '../kernel/dial.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { Instance, RegistryHealth } from '../model/instance.ts';
import type { ServiceKey } from '../model/service.ts';
import type { ServiceList, Snapshot, SourceError, Unchanged } from '../model/snapshot.ts';
import type { Capabilities } from './capabilities.ts';
import type { StateStore } from './state-store.ts';

/** Plain JSON that finds our registration again; goes to journal or ledger. */
export interface WriteReceipt {
  readonly service: ServiceKey;
  readonly nativeId: string;
  readonly leaseId?: string;
  readonly token?: string;
}

/** Proof that we are the one who may write (migration.md rule 11); opaque to the core. */
export interface Fence {
  readonly key: string;
  readonly createRevision: string;
  readonly leaseId: string;
}

export interface Write {
  readonly key: ServiceKey;
  readonly instance: Instance;
  readonly previous?: WriteReceipt;
}

export interface WriteMode {
  /** own: an instance of this host · copy: made by a mirror, carries markers. */
  readonly as: 'own' | 'copy';
  /** Time without renewal until the registry stops using the record, ms. */
  readonly ttl: number;
  readonly liveness: 'beat' | 'persistent' | 'connection';
  readonly fence?: Fence;
}

/** What became of a lease. `forgotten`: the registry knows it no more, register again. `leaseMs`: time until it ends without renewal. */
export type RenewResult = { readonly kind: 'renewed'; readonly leaseMs: number } | { readonly kind: 'forgotten' } | SourceError;

export interface Subscriber {
  readonly address: string;
  readonly agent?: string;
}

/** Which native namespaces the names of one source can have; decides what has a native name there at all (M2). */
export interface NativeNamespaces {
  /** Where a name stands that says no namespace; null: each must say it. */
  readonly home: string | null;
  /** Names of other namespaces: cannot be said, are only written where a template under `names:` spells the namespace, or are as good. */
  readonly others: 'none' | 'stated' | 'any';
}

/**
 * One connection to one registry. Keys are the source's own words (namespace and name before `names:` mapping).
 * Every call rejects with SourceError, or with the signal's reason after an abort.
 */
export interface Adapter {
  readonly kind: string;
  readonly capabilities: Capabilities;
  /** Absent: home is `default`, any other is as good. */
  readonly namespaces?: NativeNamespaces;
  /** Level-triggered: each item is the whole list of names in scope. Throws = lost; returns only on abort. */
  services?(signal: AbortSignal): AsyncIterable<ServiceList>;
  /** Each snapshot is the whole truth of one service. First item at once. Throws = lost; returns only on abort. */
  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<Snapshot | Unchanged>;
  /** One fresh full read, from another server if there is one: confirms holds, serves verify and resync. */
  read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot>;
  /** Upserts in the registry's batches; the answers stand in the order of the writes. */
  put?(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]>;
  /** Called by the keeper at ttl/3 when heartbeat is `core`. */
  renew?(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]>;
  /**
   * What speaks against writing instances of these services: one `denied` (a right is missing) or `refused` each, at most a few. Empty:
   * nothing is known against it. Cheap, and reads only: nothing in the registry changes by it. A missing right is an answer, never
   * thrown; what throws is that the question could not be asked. Absent: this kind cannot be asked without writing.
   */
  mayWrite?(keys: readonly ServiceKey[], signal: AbortSignal): Promise<readonly SourceError[]>;
  setHealth?(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void>;
  /** Idempotent: what is gone already counts as removed. */
  remove?(
    receipts: readonly WriteReceipt[],
    how: { readonly fence?: Fence },
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]>;
  /** A second name for a service (Polaris: the SID, in the namespace that its layout says). False: it stood already. */
  alias?(key: ServiceKey, name: string, signal: AbortSignal): Promise<boolean>;
  /** Takes a second name away; one that is gone, or leads elsewhere, counts as taken away and stays as it is. */
  unalias?(key: ServiceKey, name: string, signal: AbortSignal): Promise<void>;
  subscribers?(key: ServiceKey, signal: AbortSignal): Promise<readonly Subscriber[]>;
  stateStore?(): StateStore;
  /** Ends every watch, leaves leases as they are, closes sockets; the process can exit afterwards. */
  close(): Promise<void>;
}

/** What every adapter gets from outside. */
export interface AdapterDeps {
  /** Id of the source; for logs. */
  readonly sourceId: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Judges every address that the registry reports, before it goes into a snapshot; see kernel/dial.ts. */
  readonly dial: DialPolicy;
  readonly log: Log;
  /** Counts by kind of oddity (cut metadata, undecodable keys, missed events); shown in /v1/sources. */
  readonly count: (what: string, by?: number) => void;
  /**
   * Told of every write that nobody asked for at that moment (registrations sent again on a new connection): for the audit log.
   * `service` in the registry's own words, `result`: ok, or the words of the failure.
   */
  readonly wrote?: (write: {
    readonly what: string;
    readonly service: string;
    readonly instance: string;
    readonly result: string;
  }) => void;
}

/** The options that every source takes, decoded by settings; durations ms. */
export interface SourceOptions {
  readonly auth: { readonly username?: string; readonly password?: string; readonly token?: string };
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly serverName?: string } | null;
  /** Deadline of one call. */
  readonly timeout: number;
  /** The registry's native normal weight, where the user has set one. */
  readonly normalWeight: number | null;
}

/**
 * One kind of registry. `config` is the schema of the keys that are this kind's own (beside those every source takes);
 * `create` gets the value that this schema accepted. It must not connect: the first call does.
 */
export interface AdapterFactory {
  readonly kind: string;
  readonly config: TSchema;
  create(config: unknown, options: SourceOptions, deps: AdapterDeps): Adapter;
}

/** Finds the factory of a kind; implemented by app over adapters/index.ts. Null for an unknown kind. */
export interface AdapterLoader {
  readonly kinds: readonly string[];
  load(kind: string): Promise<AdapterFactory | null>;
}
