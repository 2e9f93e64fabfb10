// Owns the binding of migrations to the parts around them: catalog, sources, the store (local or shared), probes, the data plane's counts.
// Called by app.ts once; holds no state of its own.
import { join } from 'node:path';
import type { AdapterLoader } from '../adapter/contract.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { MergeOverlay } from '../catalog/evidence.ts';
import { type Probe, targetOf } from '../health/probe.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { openFileStore } from '../migrate/file-store.ts';
import { Migrations } from '../migrate/migrations.ts';
import { Orphans } from '../migrate/orphans.ts';
import { OverlayFile } from '../migrate/overlay-file.ts';
import type { MigrationCatalog, MigrationSources, ProbeAddress } from '../migrate/ports.ts';
import { openSharedStore } from '../migrate/shared-store.ts';
import { DEFAULT_HEALTH_CHECK, type HealthCheckKind } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { DataPlane } from '../proxy/data-plane.ts';
import type { Settings } from '../settings/settings.ts';
import type { PreparedChange, SettingsUser } from '../settings/store.ts';
import type { Audit } from '../telemetry/audit.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { openSharedState } from './shared-state.ts';
import type { RunningSources } from './sources.ts';

export interface MigrationParts {
  readonly settings: Settings;
  /** The settings in force, for probes. */
  readonly current: () => Settings;
  readonly loader: AdapterLoader;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly audit: Audit;
  readonly uid: number | null;
  readonly catalog: Catalog;
  readonly sources: RunningSources;
  readonly dataPlane: DataPlane;
  readonly probes: Readonly<Record<HealthCheckKind, Probe>>;
}

export interface OpenMigrations {
  readonly migrations: Migrations;
  close(): Promise<void>;
}

/** What the catalog asks before migrations are open, and then the migrations. */
export class LateOverlay implements MergeOverlay {
  #migrations: Migrations | null = null;

  set(migrations: Migrations): void {
    this.#migrations = migrations;
  }

  overlayOf(service: ServiceId): ReturnType<MergeOverlay['overlayOf']> {
    return this.#migrations?.overlayOf(service) ?? null;
  }

  copyOrigin(service: ServiceId, source: string, host: string, port: number, nativeId: string): string | null {
    return this.#migrations?.copyOrigin(service, source, host, port, nativeId) ?? null;
  }
}

/** Opens the store and puts the last overlay in force. Throws the system's error where the state directory cannot be used. */
export async function openMigrations(parts: MigrationParts): Promise<OpenMigrations> {
  const { settings, clock, random, log, events, metrics, audit, uid, loader } = parts;
  const { dir, shared } = settings.state;
  const state = shared === null ? null : await openSharedState(shared, { loader, clock, random, log });
  const store =
    state === null
      ? await openFileStore({ directory: join(dir, 'migrations'), uid, log, clock })
      : openSharedStore({
          state: state.store,
          stateOf: (source) => parts.sources.about(source)?.adapter.stateStore?.() ?? null,
          sidecar: settings.id,
          log,
          clock,
        });
  const migrations = new Migrations(
    {
      clock,
      random,
      log,
      events,
      metrics,
      audit: (line) => audit.write(line),
      catalog: catalogPort(parts),
      sources: sourcesPort(parts),
      store,
      memory: new OverlayFile({ path: join(dir, 'migration-overlay.json'), uid, log }),
      probe: probePort(parts),
      sides: (inScope) => parts.dataPlane.sides(inScope),
      sidecar: settings.id,
    },
    settings.migrations.frozen,
  );
  await migrations.open();
  const orphans = new Orphans({
    clock,
    log,
    events,
    audit: (line) => audit.write(line),
    catalog: catalogPort(parts),
    sources: sourcesPort(parts),
    known: () => new Set(migrations.list().map(({ id }) => id)),
    frozen: () => migrations.frozenHere,
  });
  orphans.start();
  return {
    migrations,
    async close() {
      await orphans.close();
      await migrations.close();
      await state?.close();
    },
  };
}

/** `migrations.frozen` of weir.yaml. */
export class MigrationUser implements SettingsUser {
  readonly name = 'migrations';
  readonly #migrations: Migrations;

  constructor(migrations: Migrations) {
    this.#migrations = migrations;
  }

  prepare(next: Settings, current: Settings): PreparedChange | null {
    if (next.migrations.frozen === current.migrations.frozen) return null;
    return { commit: () => this.#migrations.freezeHere(next.migrations.frozen) };
  }
}

function catalogPort({ catalog, sources }: MigrationParts): MigrationCatalog {
  return {
    account: (source, service) => catalog.account(source, service),
    servicesOf: (source) => catalog.servicesOf(source),
    toNative: (source, service) => catalog.toWrite(source, service),
    toOurs: (source, native) => catalog.toOurs(source, native),
    use: (service) => void sources.use(service),
    touch: (service) => catalog.touch(service),
    subscribe: (listener) => {
      const ends = [
        catalog.subscribeAccounts(listener),
        // A source that is back says by its list alone which services it does not have.
        catalog.subscribeSources(() => {
          for (const service of catalog.allNames()) listener(service);
        }),
      ];
      return () => {
        for (const end of ends) end();
      };
    },
  };
}

function sourcesPort({ sources, catalog }: MigrationParts): MigrationSources {
  return {
    adapter: (source) => sources.about(source)?.adapter ?? null,
    get ids() {
      return catalog.sourceIds;
    },
    trouble: (source) => {
      const summary = catalog.sourceSummary(source);
      if (summary === undefined || summary.state === 'live') return null;
      const { state, cause, message } = summary;
      return [state, cause, message].filter((part) => part !== undefined).join(': ');
    },
  };
}

/** One probe of the kind that is configured for the service (a TCP connect without one), under the outbound policy of any source that has it. */
function probePort({ sources, catalog, probes, current }: MigrationParts): ProbeAddress {
  return async (service, host, port, signal) => {
    const dials = catalog.sourceIds.flatMap((id) => sources.dialOf(id) ?? []);
    const policy = current().services.policyOf(service).healthCheck ?? DEFAULT_HEALTH_CHECK;
    const dial = dials.find((judge) => judge(host, port) === null);
    if (dial === undefined) return 'no source of ours may connect to this address';
    const result = await probes[policy.kind].run(targetOf(policy, '', host, port), { signal, dial, keep: false });
    return result.ok ? null : result.reason;
  };
}
