// Owns the shape of what the whole process is configured by: plain data, every default applied, durations in ms, sizes in bytes.
// Made by compile.ts, read by everyone above and by app; never changed after it was made.
import type { SourceOptions } from '../adapter/contract.ts';
import type { Select } from '../adapter/select.ts';
import type { DialRules } from '../kernel/dial.ts';
import type { HealthCheckPolicy, ServicePolicy } from '../model/policy.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { AccessLogUpdate, ListenAddress, ListenerUpdate } from '../proxy/proxy-update.ts';

export interface ApiSettings {
  readonly listen: ListenAddress;
  /** Null: that token does not exist. A listener that is not loopback or a unix socket has one at least. */
  readonly tokens: { readonly read: string | null; readonly write: string | null };
  /** Host names allowed beside localhost, 127.0.0.1 and [::1]. */
  readonly allowedHosts: readonly string[];
}

export interface ProxySettings {
  readonly listen: ListenAddress;
  /** 0: the data plane runs in this process. Other numbers are refused until they are built. */
  readonly workers: number;
}

export interface StateSettings {
  readonly dir: string;
  /** Instances of the last-good file that are older are suspect, ms. */
  readonly lastGoodMaxAge: number;
  /** The store that a fleet shares; null: migrations are this sidecar's own. */
  readonly shared: SharedStateSettings | null;
}

/** A connection that is opened for its state store alone, never as a source. */
export interface SharedStateSettings {
  readonly kind: string;
  /** For `AdapterFactory.create`: the kind's own keys, references resolved. */
  readonly config: unknown;
  readonly options: SourceOptions;
}

/** One configured connection to a registry. */
export interface SourceSettings {
  readonly id: string;
  readonly kind: string;
  /** The kind's own keys, as `AdapterFactory.config` accepted them; references resolved. Goes to `AdapterFactory.create`. */
  readonly config: unknown;
  /** What every adapter gets; `tls.ca`, `cert` and `key` are absolute names of files that could be read as PEM when the settings were loaded. */
  readonly options: SourceOptions;
  /** The namespace that our names of this source's services get; null: the adapter's own (default names). */
  readonly asNamespace: string | null;
  /** Takes our registrations. */
  readonly register: boolean;
  /** What may be connected to of the addresses it reports; see kernel/dial.ts. */
  readonly dial: DialRules;
  /** M1 label; equal addresses in differently labelled networks are different instances. */
  readonly network: string;
  /** Which of its services are watched. */
  readonly select: Select;
  /** ms after which a stale list stops counting; null: never. */
  readonly expireAfter: number | null;
  /** Changes when the source must be built anew: equal text means equal behaviour (references included). Holds no secret. */
  readonly fingerprint: string;
}

/**
 * The `names:` of one `services:` entry: our services that match are called so in these sources. `{name}` and `{namespace}` stand for the
 * parts of our name. A template with a slash says `namespace/name` in the source's own words, one without the name alone. Entries are asked in
 * order; the first that has the source and matches decides.
 */
export interface NameRules {
  /** Place among the `services:` entries; for faults. */
  readonly entry?: number;
  readonly match: string;
  /** Template by source. */
  readonly names: ReadonlyMap<string, string>;
}

/** The policies of all services. */
export interface ServicePolicies {
  /** The first matching entry's policy; the same object for all services of an entry, and across reloads that do not change it. */
  policyOf(service: ServiceId): ServicePolicy;
  /** The printed `match` of the entry that decides, or null where the defaults apply; for explain. */
  entryOf(service: ServiceId): string | null;
}

/** One instance that this host offers. Durations ms. */
export interface RegistrationSettings {
  readonly service: ServiceKey;
  /** Unique within its service on this host; the registry's native id where the registry lets us choose. */
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly weight: number;
  readonly metadata: ReadonlyMap<string, string>;
  readonly protocol?: string;
  readonly version?: string;
  /** Ids of sources; null: those marked `register: true`, or the only one that can register. */
  readonly sources: readonly string[] | null;
  /** Time without renewal until a registry stops using the record. */
  readonly ttl: number;
  readonly healthCheck: HealthCheckPolicy | null;
  /** What a failing check does to the record: it is marked, or taken out until the check passes again. */
  readonly onUnhealthy: 'unhealthy' | 'remove';
}

/** The whole configuration. `api`, `proxy`, `state` and `id` need a restart, everything else is hot. */
export interface Settings {
  /** This sidecar's name in a fleet; token characters. */
  readonly id: string;
  readonly api: ApiSettings;
  readonly proxy: ProxySettings;
  readonly state: StateSettings;
  /** In the order of the file: the default authority order (M4). */
  readonly sources: readonly SourceSettings[];
  readonly accessLog: AccessLogUpdate | null;
  readonly services: ServicePolicies;
  readonly names: readonly NameRules[];
  /** Dedicated listeners; the main proxy port is `proxy.listen`. */
  readonly listeners: readonly (ListenerUpdate & { readonly service: ServiceId })[];
  readonly registrations: readonly RegistrationSettings[];
  readonly shutdown: { readonly registrations: 'deregister' | 'keep' };
  readonly migrations: { readonly frozen: boolean };
}
