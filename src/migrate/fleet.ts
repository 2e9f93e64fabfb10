// Owns who of a fleet has applied the present step (migration.md "Fleet"). Pure. Called by migrations.ts.
import type { MigrationDoc, SidecarReport } from './migration.ts';

/** A sidecar reports at least this often, ms. */
export const REPORT_MS = 10_000;
/** A report older than this is silence, ms. */
export const SILENT_MS = 30_000;

/** Names of sidecars that are behind the document or silent, and not declared gone; sorted. */
export function behindOf(doc: MigrationDoc, reports: readonly SidecarReport[], now: number): readonly string[] {
  const forgotten = new Set(doc.forgotten);
  return reports
    .filter(({ sidecar, phase, weight, at }) => {
      if (forgotten.has(sidecar)) return false;
      return phase !== doc.phase || weight !== doc.weight || now - at > SILENT_MS;
    })
    .map(({ sidecar }) => sidecar)
    .sort();
}
