// Owns the binding of the API's ports to the real objects. Called by app.ts once; holds no state.
import type { ApiPorts, CatalogReader, HoldsPort, SourceSummary, SourcesPort } from '../api/ports.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Overrides } from '../health/overrides.ts';
import type { Publish } from '../health/publish.ts';
import type { Migrations } from '../migrate/migrations.ts';
import type { DataPlane } from '../proxy/data-plane.ts';
import type { Registrations } from '../registration/registrations.ts';
import type { SettingsStore } from '../settings/store.ts';
import type { RunningSources } from './sources.ts';

export interface PortParts {
  readonly catalog: Catalog;
  readonly publish: Publish;
  readonly overrides: Overrides;
  readonly sources: RunningSources;
  readonly registrations: Registrations;
  readonly migrations: Migrations;
  readonly dataPlane: DataPlane;
  readonly store: SettingsStore;
  /** Some source has no first answer yet (10 s after start at most). */
  readonly notReady: () => boolean;
  /** What readiness waits for, in words; empty: ready. */
  readonly waiting: () => readonly string[];
}

/** Refused records of a source that `/v1/sources` shows. */
const RECENT_REJECTED = 20;

/** Everything the API needs of the layers below it. */
export function apiPorts(parts: PortParts): ApiPorts {
  const { catalog, overrides, registrations, migrations, dataPlane, store } = parts;
  return {
    catalog: catalogReader(parts),
    holds: holdsPort(catalog),
    explain: {
      merge: (service) => catalog.mergeOf(service),
    },
    sources: sourcesPort(parts),
    dataPlane: { state: async (service) => dataPlane.state(service) },
    readiness: { waiting: parts.waiting },
    registrations: {
      list: () => registrations.list(),
      upsert: ({ sources, healthCheck, ...rest }) => registrations.upsertComplete({ ...rest, sources, healthCheck }),
      remove: (service, id) => registrations.remove(service, id),
    },
    migrations,
    overrides: {
      list: () => overrides.list(),
      isolate: (service, host, port, ms) => overrides.isolate(service, host, port, ms),
      clear: (service, host, port) => overrides.clear(service, host, port),
    },
    settings: store,
  };
}

function catalogReader({ catalog, publish, sources, notReady }: PortParts): CatalogReader {
  return {
    index: () => catalog.index,
    read: (service) => publish.read(service),
    states: (service) => catalog.serviceStates(service),
    notReady,
    use: (service) => void sources.use(service),
    names: (after, limit) => catalog.names({ limit, cursor: after }).names,
    subscribe: (listener) => publish.subscribe(listener),
  };
}

function holdsPort(catalog: Catalog): HoldsPort {
  return {
    holds: (service) => catalog.holds(service),
    release: (which) => catalog.releaseHolds(which),
    rejected: (service) => {
      const ids = catalog.serviceStates(service).map(({ source }) => source);
      return ids.flatMap((id) => catalog.recentRejected(id).filter((entry) => entry.service === service));
    },
  };
}

function sourcesPort({ catalog, sources }: PortParts): SourcesPort {
  return {
    list: () =>
      catalog.sourceIds.flatMap((id): SourceSummary[] => {
        const said = catalog.sourceSummary(id);
        const running = sources.about(id);
        if (said === undefined) return [];
        const recentRejected = catalog.recentRejected(id).slice(-RECENT_REJECTED);
        return [
          {
            ...said,
            recentRejected,
            capabilities: running?.adapter.capabilities ?? null,
            lagMs: null,
            counts: running?.counts ?? new Map(),
          },
        ];
      }),
    subscribe: (listener) => catalog.subscribeSources(listener),
  };
}
