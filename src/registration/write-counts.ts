// Owns the metric of writes to registries: one series per source, kind of write and result, removed with its source. Called by
// registrations.ts. Must never take a label from a registry's words.
import type { Metrics } from '../telemetry/metrics.ts';

const NAME = 'weir_registry_writes_total';

export class WriteCounts {
  readonly #metrics: Metrics;
  /** By source: what and result of its series. */
  readonly #series = new Map<string, Map<string, readonly [what: string, result: string]>>();

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  /** `result`: ok, or the cause of the failure. */
  count(sourceId: string, what: string, result: string): void {
    const mine = this.#series.get(sourceId) ?? new Map<string, readonly [string, string]>();
    mine.set(`${what} ${result}`, [what, result]);
    this.#series.set(sourceId, mine);
    this.#metrics.counter(NAME, sourceId, what, result).inc();
  }

  /** Removes the series of all other sources. */
  keepOnly(sourceIds: ReadonlySet<string>): void {
    for (const [sourceId, mine] of this.#series) {
      if (sourceIds.has(sourceId)) continue;
      for (const [what, result] of mine.values()) this.#metrics.remove(NAME, sourceId, what, result);
      this.#series.delete(sourceId);
    }
  }
}
