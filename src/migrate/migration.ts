// Owns what a migration is: the order that a person gave, where it stands, its ledger. Plain readonly data; every module of this folder
// reads it. Must never hold behaviour. Sources: migration.md (the object, its phases), catalog-rules §4 (W3, W4).
import type { WriteReceipt } from '../adapter/contract.ts';
import type { RegistryHealth } from '../model/instance.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';

export type Phase = 'plan' | 'mirror' | 'shift' | 'cutover' | 'finished' | 'aborting' | 'aborted';

/** Phases in which copies are made and kept. */
export const MIRRORING: ReadonlySet<Phase> = new Set<Phase>(['mirror', 'shift', 'cutover']);
/** Phases after which other migrations may take the services. */
export const ENDED: ReadonlySet<Phase> = new Set<Phase>(['finished', 'aborted']);

/** What a person orders; decoded by spec.ts, every default filled in. Durations ms. */
export interface MigrationSpec {
  /** 1..64 characters of A-Z a-z 0-9 . _ - */
  readonly id: string;
  /** Ids of sources. */
  readonly from: string;
  readonly to: string;
  /** Patterns over our `namespace/name`. */
  readonly services: readonly string[];
  readonly direction: 'oneWay' | 'twoWay';
  readonly liveness: 'beat' | 'persistent' | 'connection';
  /** Shift: requests with an equal value of this header stay on one side. */
  readonly sticky: { readonly header: string } | null;
  readonly mapping: SpecMapping;
  readonly gates: SpecGates;
  readonly limits: SpecLimits;
}

/** How names and metadata change on the way from `from` to `to`. `null`: the names of `names:` and the default names. */
export interface SpecMapping {
  /** Templates of the target's own words; `{namespace}` and `{name}` stand for the parts of our name. */
  readonly namespace: string | null;
  readonly name: string | null;
  readonly metadata: {
    readonly rename: ReadonlyMap<string, string>;
    readonly drop: ReadonlySet<string>;
    readonly set: ReadonlyMap<string, string>;
  };
}

export interface SpecGates {
  /** `verify` must have been ok for this long before `shift`. */
  readonly soak: number;
  /** Share of failed requests (0..1) of the shifted side above which the shift stops; null: no limit. */
  readonly maxErrorRate: number | null;
  /** p99 latency of `to` over that of `from` above which the shift stops; null: no limit. */
  readonly maxP99Ratio: number | null;
  /** What a broken limit does: no further shift, or back to `mirror`. */
  readonly onBreach: 'stop' | 'rollback';
}

export interface SpecLimits {
  /** Calls a second to one target; a batch is one. */
  readonly callsPerSecond: number;
  /** Share of a service's copies that may be removed in a minute; at least one always may. */
  readonly deletePercentPerMinute: number;
  /** No removal before this long after the first complete read of both sides, ms. */
  readonly grace: number;
}

/** Where a migration stands; durable (W10). Times wall ms. */
export interface MigrationDoc {
  readonly version: 1;
  readonly spec: MigrationSpec;
  readonly phase: Phase;
  /** Per cent read from `to` in phase shift; kept across a rollback from cutover. */
  readonly weight: number;
  readonly createdAt: number;
  readonly startedAt: number | null;
  /** Since when this phase and weight stand. */
  readonly since: number;
  /** Counts owners: a later owner writes a greater one into its markers (rule 11). */
  readonly epoch: number;
  /** The newest verify; `okSince`: since when every verify has been ok. */
  readonly lastVerify: VerifySummary | null;
  readonly okSince: number | null;
  /** Why the shift was stopped by a gate; null: it was not. */
  readonly stopped: { readonly at: number; readonly reason: string } | null;
  /** Finish left the copies as ordinary records. */
  readonly keptCopies: boolean;
  /** Both sides were read whole once: what is native in `to` from now on appeared after the start. */
  readonly baselined: boolean;
  /** Services whose id in `from` we made a second name of theirs in `to` (L5 → Polaris: the SID). */
  readonly aliases: readonly ServiceId[];
  /** Stop switch (rule 9): no writes but the beats of what is there. */
  readonly frozen: boolean;
  /** Sidecars that an operator declared gone. */
  readonly forgotten: readonly string[];
}

/** ok: nothing to do · drift: something differs · unsafe: a cutover now would lose capacity. */
export type VerifyOutcome = 'ok' | 'drift' | 'unsafe';

export interface VerifySummary {
  readonly outcome: VerifyOutcome;
  /** Wall ms. */
  readonly at: number;
  readonly services: number;
  readonly missing: number;
  readonly extra: number;
  readonly differing: number;
  readonly unreachable: number;
}

/**
 * intent: the call may have been made, its answer is not known · written: the registry took it · withheld: the target has no word for
 * "isolated", so the record is away while it is · removing: to be taken away · kept: an ordinary record since a finish that kept it,
 * known only so that `collect` can take it away.
 */
export type CopyState = 'intent' | 'written' | 'withheld' | 'removing' | 'kept';

/** One copy of ours (W3): written as an intent before the call, with the receipt after it. */
export interface LedgerEntry {
  /** Source that the copy stands in, and the one whose record it copies. */
  readonly target: string;
  readonly origin: string;
  readonly service: ServiceId;
  /** The service in the target's own words. */
  readonly key: ServiceKey;
  readonly host: string;
  readonly port: number;
  readonly transport: 'tcp' | 'udp';
  readonly state: CopyState;
  readonly receipt: WriteReceipt | null;
  /** Digest of everything but health as it was written last; empty before the first write. */
  readonly applied: string;
  /**
   * Short digest of what the target showed after that, where it is not what we wrote (a weight rounded, say): a restart does not write it
   * again for that. Absent: as written, or not seen yet.
   */
  readonly shown?: string;
  readonly health: RegistryHealth;
  /** Wall ms of the last write. */
  readonly at: number;
  readonly epoch: number;
}

/** All copies of one service, in both directions. */
export interface LedgerPage {
  readonly service: ServiceId;
  /** `host:port/transport` of what was native in `to` when the migration started: those get no return copies. Null: not known yet. */
  readonly baseline: readonly string[] | null;
  readonly entries: readonly LedgerEntry[];
}

/** What one sidecar has applied. */
export interface SidecarReport {
  readonly sidecar: string;
  readonly phase: Phase;
  readonly weight: number;
  /** Wall ms; a report older than 30 s is silence. */
  readonly at: number;
}
