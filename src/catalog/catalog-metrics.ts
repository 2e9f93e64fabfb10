// Owns the gauges of the catalog: read when somebody scrapes, so that no change pays for them. Called by catalog alone.
import type { Clock } from '../kernel/clock.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { SourceRecord } from './sources.ts';
import type { SourceState } from './view.ts';

const STATES: readonly SourceState[] = ['connecting', 'live', 'stale', 'failed'];

export interface CatalogFigures {
  readonly clock: Clock;
  sources(): Iterable<SourceRecord>;
  totals(): { readonly services: number; readonly conflicts: number; readonly index: number };
}

/** Registers the collection. */
export function catalogMetrics(metrics: Metrics, figures: CatalogFigures): void {
  metrics.onCollect(() => {
    const { services, conflicts, index } = figures.totals();
    const now = figures.clock.now();
    let instances = 0;
    let held = 0;
    for (const source of figures.sources()) {
      const { id } = source.config;
      instances += source.guard.known;
      held += source.guard.heldInstances;
      for (const state of STATES) metrics.gauge('weir_source_state', id, state).set(state === source.state ? 1 : 0);
      if (source.contactAt !== null) metrics.gauge('weir_source_age_ms', id).set(Math.round(now - source.contactAt));
    }
    metrics.gauge('weir_catalog_services').set(services);
    metrics.gauge('weir_catalog_instances').set(instances);
    metrics.gauge('weir_catalog_held_instances').set(held);
    metrics.gauge('weir_catalog_conflicts').set(conflicts);
    metrics.gauge('weir_catalog_revision').set(index);
  });
}

/** Removes the series of a source that left the config. */
export function removeSourceMetrics(metrics: Metrics, id: string): void {
  for (const state of STATES) metrics.remove('weir_source_state', id, state);
  metrics.remove('weir_source_age_ms', id);
}
