// Owns what this sidecar knows of one migration, and how people see it. Called by migrations.ts, which alone changes it.
import { Fleet } from './fleet.ts';
import type { GateWatch, SideShow } from './gate-watch.ts';
import type { MigrationDoc } from './migration.ts';
import type { MigrationCatalog } from './ports.ts';
import { Scope } from './scope.ts';
import type { VerifyResult } from './verify.ts';
import type { Worker, WorkerStatus } from './worker.ts';

/** A migration as people see it. Times wall ms. */
export interface MigrationStatus {
  readonly id: string;
  readonly from: string;
  readonly to: string;
  readonly doc: MigrationDoc | null;
  /** Why nothing can be done with it; null: it is sound. */
  readonly broken: string | null;
  /** What the writing side is at; null: it runs on another sidecar, or nothing is to be written. */
  readonly worker: WorkerStatus | null;
  /** Sidecars that have not applied the present step. */
  readonly behind: readonly string[];
  readonly sidecars: readonly string[];
  /** Live traffic by side, during shift and cutover. */
  readonly sides: SideShow | null;
  /** `this sidecar only`: the store is local. */
  readonly shared: boolean;
}

/** One sound migration. */
export interface Known {
  doc: MigrationDoc;
  revision: string;
  behind: readonly string[];
  sidecars: readonly string[];
  readonly fleet: Fleet;
  readonly scope: Scope;
  worker: Worker | null;
  gate: GateWatch | null;
  nextVerifyAt: number;
  verifying: Promise<VerifyResult> | null;
  lastVerify: VerifyResult | null;
  /** Phase and weight that were reported last. */
  reported: string;
  reportedAt: number;
}

/** A migration that was heard of just now. */
export function newKnown(doc: MigrationDoc, revision: string, catalog: MigrationCatalog): Known {
  return {
    doc,
    revision,
    behind: [],
    sidecars: [],
    fleet: new Fleet(),
    scope: new Scope(doc.spec, catalog),
    worker: null,
    gate: null,
    nextVerifyAt: 0,
    verifying: null,
    lastVerify: null,
    reported: '',
    reportedAt: Number.NEGATIVE_INFINITY,
  };
}

export function statusOf({ doc, worker, behind, sidecars, gate }: Known, shared: boolean): MigrationStatus {
  return {
    id: doc.spec.id,
    from: doc.spec.from,
    to: doc.spec.to,
    doc,
    broken: null,
    worker: worker?.status() ?? null,
    behind,
    sidecars,
    sides: gate?.show(doc.spec) ?? null,
    shared,
  };
}

/** One whose journal cannot be read. */
export function brokenStatus(
  id: string,
  between: { readonly from: string; readonly to: string },
  broken: string,
  shared: boolean,
): MigrationStatus {
  return { id, ...between, doc: null, broken, worker: null, behind: [], sidecars: [], sides: null, shared };
}
