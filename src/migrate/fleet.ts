// Owns who of a fleet has applied the present step (migration.md "Fleet"). Called by migrations.ts with every word of the store.
// Must never compare the clocks of two hosts: a report is a beat, and what counts is when we saw the last new one.
import type { MigrationDoc, SidecarReport } from './migration.ts';

/** A sidecar reports at least this often, ms. */
export const REPORT_MS = 10_000;
/** No new report for this long is silence, ms on our own monotonic clock. */
export const SILENT_MS = 30_000;

/** What the sidecars of one migration report, as this one has seen it. */
export class Fleet {
  /** By sidecar: the report that was new last, and when it came, monotonic ms. */
  #heard = new Map<string, { readonly beat: string; readonly at: number }>();

  /**
   * Names of sidecars that are behind the document or silent, and not declared gone; sorted. `reports`: all of them, as they stand now.
   * A first report counts as new: whoever is long gone is silent 30 s later, and before that has at least applied what it says.
   */
  behind(doc: MigrationDoc, reports: readonly SidecarReport[], now: number): readonly string[] {
    const before = this.#heard;
    this.#heard = new Map(
      reports.map((report) => {
        const beat = `${report.phase} ${report.weight} ${report.at}`;
        const last = before.get(report.sidecar);
        return [report.sidecar, last?.beat === beat ? last : { beat, at: now }];
      }),
    );
    const forgotten = new Set(doc.forgotten);
    return reports
      .filter(({ sidecar, phase, weight }) => {
        if (forgotten.has(sidecar)) return false;
        const heardAt = this.#heard.get(sidecar)?.at ?? now;
        return phase !== doc.phase || weight !== doc.weight || now - heardAt > SILENT_MS;
      })
      .map(({ sidecar }) => sidecar)
      .sort();
  }
}
