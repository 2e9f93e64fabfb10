// Owns what goes into a merge: the words of each source on one service, with holds and states. Types only.
import type { InstanceField } from '../adapter/capabilities.ts';
import type { Instance } from '../model/instance.ts';
import type { MergePolicy } from '../model/policy.ts';

/** One record of one source. */
export interface MergeEntry {
  readonly instance: Instance;
  /** R2 keeps it. */
  readonly held: boolean;
  readonly suspect: boolean;
  /** Source id of the origin, where this is a copy (W4). */
  readonly copyOf: string | null;
}

/** What one source says of the service. */
export interface MergeSource {
  readonly id: string;
  readonly network: string;
  /** Fields that its adapter reads. */
  readonly reads: ReadonlySet<InstanceField>;
  /** R1: its last word on this service is current. */
  readonly live: boolean;
  /** neverSeen: no answer yet, or expired. */
  readonly presence: 'present' | 'absent' | 'neverSeen';
  /** Sorted by address, no address twice. */
  readonly entries: readonly MergeEntry[];
  /** Addresses that came twice, with the native ids, the chosen one first. */
  readonly duplicates: readonly { readonly address: string; readonly ids: readonly string[] }[];
  /** Filled when a copy's origin is looked up. */
  addresses?: readonly Instance[];
}

export interface MergeInput {
  /** Configured sources that have to do with the service, in the order of the config. */
  readonly sources: readonly MergeSource[];
  readonly policy: MergePolicy;
  /** A migration runs: members are the union whatever the policy prefers (migration.md). */
  readonly migrating: boolean;
  readonly isolationIgnores: string | null;
  /** Weighted merges of a migration: header whose value decides the side. */
  readonly sticky?: string;
}
