// Owns the two ports by which higher layers take part in the catalog's decisions. Types only.
import type { MergePolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';

/** What active checks know of an address; implemented by health, asked by the shrink guard. When an answer changes, health calls `catalog.touch(service)`. */
export interface ProbeEvidence {
  /** Checks that failed in a row up to now, of the kind that counts for the service; 0 when the last one passed or none ran. */
  failuresInARow(service: ServiceId, network: string, host: string, port: number): number;
}

/** What a migration says of a service's merge; implemented by migrate, null without a migration. */
export interface MergeOverlay {
  overlayOf(service: ServiceId): {
    readonly merge: MergePolicy;
    readonly migration: string;
    /** Holds of the service are never confirmed by time while it migrates. */
    readonly holdsByTime: boolean;
    /** A source whose word alone does not isolate an instance that another source has natively (migration.md rule 13). */
    readonly isolationIgnores?: string;
    /** Weighted merges: lower-case header whose value decides the side of a request. */
    readonly sticky?: string;
  } | null;
  /**
   * The origin's source id when the write ledger says that this record of this source is a copy of ours (W4), else null. By the record's
   * own id as well: a provider may register beside its copy.
   */
  copyOrigin(service: ServiceId, source: string, host: string, port: number, nativeId: string): string | null;
}

/** Without migrations. */
export const NO_OVERLAY: MergeOverlay = { overlayOf: () => null, copyOrigin: () => null };

/** Before health runs, and in tests. */
export const NO_EVIDENCE: ProbeEvidence = { failuresInARow: () => 0 };
