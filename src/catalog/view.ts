// Owns the merged result for one service, as everyone above the catalog reads it. Plain readonly data; made by merge.ts.
import type { Instance, Locality, NativeId, RegistryHealth } from '../model/instance.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';

/** What one source says of one instance, after name mapping. */
export interface Provenance {
  readonly source: string;
  readonly nativeId: NativeId;
  readonly weight: number;
  readonly health: RegistryHealth;
  readonly isolated: boolean;
  /** The origin, where this record is a copy that a mirror wrote (W4 markers or ledger). */
  readonly copyOf?: string;
  /** The source dropped it and R2 keeps it. */
  readonly held: boolean;
}

/** One instance of a view: identity (service, network, transport, host, port), M1. */
export interface ViewInstance {
  readonly network: string;
  readonly transport: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
  /** M4, 0..65535. */
  readonly weight: number;
  /** What the registries say together (M5): they agree, or `unknown`. */
  readonly registryHealth: RegistryHealth;
  /** A live source's operator says so. */
  readonly isolated: boolean;
  readonly protocol?: string;
  readonly version?: string;
  readonly locality?: Locality;
  readonly metadata: ReadonlyMap<string, string>;
  /** Every source that has it has dropped it; kept and probed until confirmed (R2). */
  readonly held: boolean;
  /** To be probed before or while it is used: held, bad record kept, or older than lastGoodMaxAge. */
  readonly suspect: boolean;
  /** Weighted merges only: whose shares reach it. While a migration runs, an instance that one side lacks is in both. */
  readonly groups?: readonly string[];
  /** In the order of the sources in the config. */
  readonly provenance: readonly Provenance[];
}

/** M6: live sources differ on a field. */
export interface Conflict {
  /** `host:port`, or empty for the service as a whole. */
  readonly instance: string;
  readonly field: string;
  readonly values: readonly { readonly source: string; readonly value: string }[];
  readonly chosen: string;
  readonly rule: string;
  /** Wall ms since when it stands. */
  readonly since: number;
}

/** Merged result; equal content keeps the object and its revision (M8, M9). Sorted by identity. */
export interface View {
  readonly service: ServiceId;
  readonly key: ServiceKey;
  readonly revision: number;
  readonly instances: readonly ViewInstance[];
  readonly conflicts: readonly Conflict[];
  /** For `weighted` merges: shares by source. An instance belongs to the groups of its provenances. */
  readonly shares?: readonly { readonly source: string; readonly share: number }[];
  /** For `weighted` merges of a migration: lower-case header whose value decides the side of a request. */
  readonly sticky?: string;
}

/** R1, in the API's words. */
export type SourceState = 'connecting' | 'live' | 'stale' | 'failed';

/** State of one service in one source, as every read shows it. */
export interface ServiceSourceState {
  readonly source: string;
  readonly state: SourceState;
  /** absent: the source answers that it does not know the service. */
  readonly presence: 'present' | 'absent' | 'neverSeen';
  readonly cause?: string;
  readonly message?: string;
  /** ms since the last good answer; null before the first. From disk: the true age. */
  readonly ageMs: number | null;
  /** ms since the source was last heard from at all. */
  readonly contactAgeMs: number | null;
  readonly sourceRevision: string;
  readonly epoch: string;
  readonly held: number;
  readonly instances: number;
  readonly rejected: number;
}

/** What one source says of one service now, as the catalog accepted it: for the write side of migrations. */
export interface SourceAccount {
  readonly source: string;
  /** Native. */
  readonly key: ServiceKey;
  /** Its last word is current; everything else proves nothing. */
  readonly live: boolean;
  readonly presence: 'present' | 'absent';
  readonly epoch: string;
  /** Monotonic ms of the last good answer. */
  readonly goodAt: number;
  /** Held: the source dropped it and R2 keeps it; counts as there. */
  readonly instances: readonly { readonly instance: Instance; readonly held: boolean }[];
}

/** A hold as operators see it (explain, /v1/services). */
export interface HoldState {
  readonly service: ServiceId;
  readonly source: string;
  readonly kind: 'service' | 'sourceWide';
  readonly addresses: readonly string[];
  readonly sinceMs: number;
  /** ms until time alone confirms it; null: never by time. */
  readonly confirmsInMs: number | null;
  /** What is still missing for confirmation, in words. */
  readonly missing: string;
}
