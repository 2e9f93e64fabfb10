// Owns what the API needs of the layers below it, as narrow interfaces. Types only; app.ts binds them to the real objects.
// Every call but those that return a promise is synchronous, cheap and never throws.
import type { Capabilities } from '../adapter/capabilities.ts';
import type { CatalogSourceSummary } from '../catalog/catalog.ts';
import type { HoldState, ServiceSourceState, View } from '../catalog/view.ts';
import type { ClusterState } from '../cluster/interest.ts';
import type { MigrationStatus } from '../migrate/known.ts';
import type { MigrationSpec } from '../migrate/migration.ts';
import type { Step } from '../migrate/phases.ts';
import type { Plan } from '../migrate/plan.ts';
import type { VerifyResult } from '../migrate/verify.ts';
import type { Verdict } from '../model/health-status.ts';
import type { MergePolicy } from '../model/policy.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { RegistrationSettings } from '../settings/settings.ts';
import type { LastReload } from '../settings/store.ts';

/** What is published of one service; a new object after every change of view or verdict, the same one otherwise. */
export interface Published {
  readonly view: View;
  /** One per instance, in the order of `view.instances`. */
  readonly verdicts: readonly Verdict[];
  /** Why, in words (`HTTP check failed 3 times in a row: status 503`); null: nothing beyond the registries' word. */
  readonly reasons: readonly (string | null)[];
  /** Index of the newest change of view or verdict (M9). */
  readonly index: number;
}

/** A record that a source sent and that was refused. */
export interface RejectedEntry {
  readonly source: string;
  readonly service: ServiceId;
  readonly nativeId: string;
  readonly reason: string;
  /** Wall ms. */
  readonly at: number;
}

/** Told of every change: the service and the index of the change. A removed service reads as null by then. */
export type ChangeListener = (service: ServiceId, index: number) => void;

/** Services, as published by health over the catalog. */
export interface CatalogReader {
  /** The newest index that was given out. */
  index(): number;
  /** Null: no source knows the service. */
  read(service: ServiceId): Published | null;
  /** Per source that has, or is asked for, the service. */
  states(service: ServiceId): readonly ServiceSourceState[];
  /** True while some source has no first answer yet (10 s after start at most). */
  notReady(): boolean;
  /** Somebody asked for the service: starts an on-demand watch of it, or keeps a running one. */
  use(service: ServiceId): void;
  /** At most `limit` ids in the order of their printed form that come after `after` (null: from the start). */
  names(after: ServiceId | null, limit: number): readonly ServiceId[];
  subscribe(listener: ChangeListener): () => void;
}

/** R2's holds, and what else the catalog can tell an operator. */
export interface HoldsPort {
  /** All holds, or those of one service. */
  holds(service: ServiceId | null): readonly HoldState[];
  /** Confirms what is held (null: any); returns how many held instances went. */
  release(which: { readonly service: ServiceId | null; readonly source: string | null }): number;
  /** The newest refused records of a service, newest last; bounded. */
  rejected(service: ServiceId): readonly RejectedEntry[];
}

/** What `explain` says beyond the view. */
export interface ExplainPort {
  /** The merge policy in force, and whose word it is. */
  merge(service: ServiceId): {
    readonly policy: MergePolicy;
    readonly from: 'settings' | 'migration';
    readonly migration?: string;
  };
}

/** One configured source, as `/v1/sources` shows it. */
export interface SourceSummary extends CatalogSourceSummary {
  /** The newest refused records and names of the source, oldest first, at most 20. */
  readonly recentRejected?: readonly RejectedEntry[];
  /** Null until the adapter is loaded. */
  readonly capabilities: Capabilities | null;
  /** ms from a change in the registry to our view, where it is known. */
  readonly lagMs: number | null;
  /** Oddities that the adapter counted. */
  readonly counts: ReadonlyMap<string, number>;
}

export interface SourcesPort {
  list(): readonly SourceSummary[];
  /** Told the id of every source whose state changed. */
  subscribe(listener: (sourceId: string) => void): () => void;
}

/** What the data plane knows of a cluster; null: no request has used the service. */
export interface DataPlanePort {
  state(service: ServiceId): Promise<ClusterState | null>;
}

/** Who may be told to send traffic here. */
export interface ReadinessPort {
  /** Empty: ready. Otherwise what is waited for, in words. */
  waiting(): readonly string[];
}

export type RegistrationTargetState = 'pending' | 'live' | 'lost' | 'refused';

export interface RegistrationTarget {
  readonly state: RegistrationTargetState;
  readonly nativeId?: string;
  /** ms until the registry stops using it without renewal. */
  readonly leaseMs?: number;
  readonly error?: string;
}

export interface RegistrationState {
  readonly id: string;
  readonly service: ServiceKey;
  readonly host: string;
  readonly port: number;
  readonly targets: ReadonlyMap<string, RegistrationTarget>;
}

export interface RegistrationsPort {
  list(): readonly RegistrationState[];
  /** Resolves once every target is accepted for keeping. Throws WeirError REGISTRATION_TARGET, REGISTRATION_CONFLICT, SOURCE_NOT_FOUND. */
  upsert(registration: RegistrationSettings): Promise<RegistrationState>;
  /** Resolves once the removal is accepted for keeping; null: there was none. */
  remove(service: ServiceKey, id: string): Promise<RegistrationState | null>;
}

/** An operator's hand on one address, local to this sidecar, with an end. */
export interface Override {
  readonly service: ServiceId;
  readonly host: string;
  readonly port: number;
  readonly isolated: true;
  /** Wall ms. */
  readonly until: number;
}

export interface OverridesPort {
  list(): readonly Override[];
  /** Takes the address out of picking for `ms`; replaces an earlier override. Throws WeirError when it cannot be kept. */
  isolate(service: ServiceId, host: string, port: number, ms: number): Promise<Override>;
  /** False: there was none. */
  clear(service: ServiceId, host: string, port: number): Promise<boolean>;
}

/** The running settings; settings' store is one. */
export interface SettingsPort {
  /** The effective configuration as plain JSON, defaults filled in, every secret hidden (picked by schema). */
  readonly effective: unknown;
  /** The newest load or reload. */
  readonly lastReload: LastReload;
}

/** Moving services between registries; what each call throws is said in migrate/migrations.ts, which is one. */
export interface MigrationsPort {
  list(): readonly MigrationStatus[];
  status(id: string): MigrationStatus;
  plan(id: string): Promise<Plan>;
  create(spec: MigrationSpec): Promise<MigrationStatus>;
  step(id: string, step: Step): Promise<MigrationStatus>;
  verify(id: string): Promise<VerifyResult>;
  lastVerify(id: string): VerifyResult | null;
  forget(id: string, sidecar: string): Promise<MigrationStatus>;
  freeze(frozen: boolean): Promise<readonly MigrationStatus[]>;
  collect(id: string): Promise<MigrationStatus>;
}

/** Everything that app binds. */
export interface ApiPorts {
  readonly catalog: CatalogReader;
  readonly holds: HoldsPort;
  readonly explain: ExplainPort;
  readonly sources: SourcesPort;
  readonly dataPlane: DataPlanePort;
  readonly readiness: ReadinessPort;
  readonly registrations: RegistrationsPort;
  readonly migrations: MigrationsPort;
  readonly overrides: OverridesPort;
  readonly settings: SettingsPort;
}
