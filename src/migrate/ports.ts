// Owns what migrations need of the parts around them, as narrow interfaces. Types only; app.ts binds them.
import type { Adapter, Fence } from '../adapter/contract.ts';
import type { SourceAccount } from '../catalog/view.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { LedgerPage, MigrationDoc, SidecarReport } from './migration.ts';
import type { OverlayEntry } from './overlay.ts';

/** The catalog, as migrations see it. */
export interface MigrationCatalog {
  /** Null: the source has no word on the service (a complete list without the name is `absent`, live). */
  account(source: string, service: ServiceId): SourceAccount | null;
  /** Services that the source knows, in code-unit order. */
  servicesOf(source: string): Iterable<ServiceId>;
  /** Native name by the configured names; null: it has none there (W8). */
  toNative(source: string, service: ServiceId): ServiceKey | null;
  /** Our name of a native one; null: it has no place in the catalog. */
  toOurs(source: string, native: ServiceKey): ServiceId | null;
  /** Watches the service on demand where it is not watched. */
  use(service: ServiceId): void;
  /** The overlay of the service changed: merge it again. */
  touch(service: ServiceId): void;
  /** Told when what sources say of a service changed. */
  subscribe(listener: (service: ServiceId) => void): () => void;
}

export interface MigrationSources {
  /** Null: not configured. */
  adapter(source: string): Adapter | null;
  readonly ids: readonly string[];
  /** How a source is that is not live, with the cause, in words ("failed: refused: …"); null: live. Absent: never known. */
  trouble?(source: string): string | null;
}

/** Our own probe of one address: null when it answers, else why not. */
export type ProbeAddress = (service: ServiceId, host: string, port: number, signal: AbortSignal) => Promise<string | null>;

/** Where this sidecar keeps what it applied last, so that a lost store changes nothing. */
export interface OverlayMemory {
  load(): Promise<readonly OverlayEntry[]>;
  save(entries: readonly OverlayEntry[]): Promise<void>;
}

/** One migration as the store has it. `broken`: the journal cannot be read; nothing may be written for it. */
export type StoredDoc =
  | { readonly kind: 'doc'; readonly doc: MigrationDoc; readonly revision: string; readonly reports: readonly SidecarReport[] }
  | { readonly kind: 'broken'; readonly id: string; readonly reason: string };

/** The right to write for one migration. Local: for as long as the process lives. */
export interface Ownership {
  /** Aborts when the right may have been lost. */
  readonly lost: AbortSignal;
  /** By target: proof for targets that can refuse (rule 11). */
  readonly fences: ReadonlyMap<string, Fence>;
  release(): Promise<void>;
}

/** Where migrations live. Every write is durable when it resolves. */
export interface MigrationStore {
  /** True: a fleet sees the same. */
  readonly shared: boolean;
  /** All documents, again after every change. Throws = lost; returns only on abort. */
  watch(signal: AbortSignal): AsyncIterable<readonly StoredDoc[]>;
  /** Writes when the stored revision is `expected` (null: when there is none). Answers the new revision; null: another one stands there. */
  putDoc(doc: MigrationDoc, expected: string | null, signal: AbortSignal): Promise<string | null>;
  /** Drops an ended migration with its ledger and reports. */
  dropDoc(id: string, expected: string, signal: AbortSignal): Promise<boolean>;
  /** The whole ledger. Throws WeirError MIGRATION_JOURNAL for one that is cut short or of another version. */
  ledger(id: string, signal: AbortSignal): Promise<ReadonlyMap<ServiceId, LedgerPage>>;
  /** Replaces pages. Throws SourceError `fenced` when another owner wrote one of them. A page without baseline and entries is deleted. */
  savePages(id: string, pages: readonly LedgerPage[], signal: AbortSignal): Promise<void>;
  report(id: string, report: SidecarReport, signal: AbortSignal): Promise<void>;
  /** Waits until this sidecar may write for the migration; `targets`: sources written to. Lock TTL 6 s. */
  own(id: string, targets: readonly string[], signal: AbortSignal): Promise<Ownership>;
  close(): Promise<void>;
}

/** What the data plane counted of requests that were drawn over one side's records since it started; grows only. */
export interface SideTraffic {
  readonly requests: number;
  /** Attempts that failed: no answer, reset, or a status of 500 and above. */
  readonly failed: number;
  /** Answers by latency: bucket n counts those of at most `LATENCY_BOUNDS[n]` ms that no smaller one takes; the last takes the rest. */
  readonly latency: ArrayLike<number>;
}

/** Sums by source (the group of a weighted merge) over the services that `inScope` accepts; only services with traffic cost anything. */
export type ReadSides = (inScope: (service: ServiceId) => boolean) => ReadonlyMap<string, SideTraffic>;

/** What every part of the engine gets. */
export interface EngineDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly audit: (line: AuditLine) => void;
  readonly catalog: MigrationCatalog;
  readonly sources: MigrationSources;
  readonly store: MigrationStore;
  /** This sidecar's name in the fleet. */
  readonly sidecar: string;
}
