// In-memory stand-ins for the ports of the API (src/api/ports.ts); for tests of the API and of the command line.

import type {
  ApiPorts,
  CatalogReader,
  ChangeListener,
  ExplainPort,
  HoldsPort,
  Override,
  Published,
  RegistrationState,
  RegistrationsPort,
  SourceSummary,
} from '../../src/api/ports.ts';
import { type Api, createApi } from '../../src/api/server.ts';
import type { HoldState, ServiceSourceState, ViewInstance } from '../../src/catalog/view.ts';
import type { ClusterState } from '../../src/cluster/interest.ts';
import { WeirError } from '../../src/kernel/errors.ts';
import { silentLog } from '../../src/kernel/log.ts';
import type { Verdict } from '../../src/model/health-status.ts';
import { compareText, parseServiceId, type ServiceId, serviceId } from '../../src/model/service.ts';
import type { ApiSettings, RegistrationSettings } from '../../src/settings/settings.ts';
import { Audit, type AuditLine } from '../../src/telemetry/audit.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { FakeMigrations } from './fake-migrations.ts';

/** An instance of a view with everything filled in. */
export function viewInstance(host: string, port: number, more: Partial<ViewInstance> = {}): ViewInstance {
  return {
    network: '',
    transport: 'tcp',
    host,
    port,
    weight: 100,
    registryHealth: 'healthy',
    isolated: false,
    metadata: new Map(),
    held: false,
    suspect: false,
    provenance: [{ source: 'local', nativeId: `${host}:${port}`, weight: 100, health: 'healthy', isolated: false, held: false }],
    ...more,
  };
}

/** The state of a service in the source `local`. */
export function sourceState(more: Partial<ServiceSourceState> = {}): ServiceSourceState {
  return {
    source: 'local',
    state: 'live',
    presence: 'present',
    ageMs: 12.3,
    contactAgeMs: 1.2,
    sourceRevision: '7',
    epoch: 'e1',
    held: 0,
    instances: 1,
    rejected: 0,
    ...more,
  };
}

/** A catalog that holds what a test puts into it. Indexes rise by one per change. */
export class FakeCatalog implements CatalogReader {
  readonly services = new Map<ServiceId, Published>();
  readonly stateOf = new Map<ServiceId, readonly ServiceSourceState[]>();
  readonly used: ServiceId[] = [];
  reads = 0;
  onUse: (service: ServiceId) => void = () => {};
  waitingForFirst = false;
  readonly #listeners = new Set<ChangeListener>();
  #index = 1_000;

  put(
    service: ServiceId,
    instances: readonly ViewInstance[],
    verdicts: readonly Verdict[] = instances.map(() => 'healthy'),
  ): number {
    this.putLate(service, instances, verdicts)();
    return this.#index;
  }

  /** As the real catalog does: readers see the change now, listeners are told when the answer is called. */
  putLate(
    service: ServiceId,
    instances: readonly ViewInstance[],
    verdicts: readonly Verdict[] = instances.map(() => 'healthy'),
  ): () => void {
    const key = parseServiceId(service);
    if (key === null) throw new Error(`not a service: ${service}`);
    const index = ++this.#index;
    const view = { service, key, revision: index, instances, conflicts: [] };
    const reasons = instances.map(({ host }) => (host === '10.0.0.9' ? 'HTTP check failed 3 times: status 503' : null));
    this.services.set(service, { view, verdicts, reasons, index });
    if (!this.stateOf.has(service)) this.stateOf.set(service, [sourceState()]);
    return () => {
      for (const listener of this.#listeners) listener(service, index);
    };
  }

  remove(service: ServiceId): number {
    this.services.delete(service);
    this.stateOf.delete(service);
    const index = ++this.#index;
    for (const listener of this.#listeners) listener(service, index);
    return index;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  index(): number {
    return this.#index;
  }

  read(service: ServiceId): Published | null {
    this.reads++;
    return this.services.get(service) ?? null;
  }

  states(service: ServiceId): readonly ServiceSourceState[] {
    return this.stateOf.get(service) ?? [];
  }

  notReady(): boolean {
    return this.waitingForFirst;
  }

  use(service: ServiceId): void {
    this.used.push(service);
    this.onUse(service);
  }

  names(after: ServiceId | null, limit: number): readonly ServiceId[] {
    return [...this.services.keys()]
      .sort(compareText)
      .filter((name) => after === null || name > after)
      .slice(0, limit);
  }

  subscribe(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export class FakeHolds implements HoldsPort {
  all: HoldState[] = [];
  readonly released: { readonly service: ServiceId | null; readonly source: string | null }[] = [];

  holds(service: ServiceId | null): readonly HoldState[] {
    return this.all.filter((hold) => service === null || hold.service === service);
  }

  release(which: { readonly service: ServiceId | null; readonly source: string | null }): number {
    this.released.push(which);
    const before = this.all.length;
    this.all = this.all.filter(
      (hold) =>
        (which.service !== null && hold.service !== which.service) || (which.source !== null && hold.source !== which.source),
    );
    return before - this.all.length;
  }

  rejected(): readonly never[] {
    return [];
  }
}

export class FakeRegistrations implements RegistrationsPort {
  readonly upserts: RegistrationSettings[] = [];
  readonly kept = new Map<string, RegistrationState>();
  refuse: WeirError | null = null;

  list(): readonly RegistrationState[] {
    return [...this.kept.values()];
  }

  async upsert(registration: RegistrationSettings): Promise<RegistrationState> {
    if (this.refuse !== null) throw this.refuse;
    this.upserts.push(registration);
    const { id, service, host, port } = registration;
    const targets = new Map((registration.sources ?? ['local']).map((source) => [source, { state: 'pending' as const }]));
    const state: RegistrationState = { id, service, host, port, targets };
    this.kept.set(`${serviceId(service)} ${id}`, state);
    return state;
  }

  async remove(service: { namespace: string; name: string }, id: string): Promise<RegistrationState | null> {
    const key = `${serviceId(service)} ${id}`;
    const state = this.kept.get(key) ?? null;
    this.kept.delete(key);
    return state;
  }
}

/** Everything that a test of the API may look at or change. */
export interface FakeApi {
  readonly api: Api;
  readonly clock: FakeClock;
  readonly catalog: FakeCatalog;
  readonly holds: FakeHolds;
  readonly migrations: FakeMigrations;
  readonly registrations: FakeRegistrations;
  readonly overrides: Map<string, Override>;
  readonly clusters: Map<ServiceId, ClusterState>;
  readonly sources: SourceSummary[];
  readonly waiting: string[];
  readonly audit: AuditLine[];
  readonly errors: string[];
  readonly events: Events;
  readonly metrics: Metrics;
  changeSource(id: string): void;
}

const LOOPBACK: ApiSettings = {
  listen: { host: '127.0.0.1', port: 0 },
  tokens: { read: null, write: null },
  allowedHosts: [],
};

/** One live embedded source. */
export function liveSource(more: Partial<SourceSummary> = {}): SourceSummary {
  return {
    id: 'local',
    kind: 'memory',
    state: 'live',
    ageMs: 10.7,
    contactAgeMs: 0.4,
    services: 1,
    instances: 2,
    held: 0,
    rejected: 0,
    capabilities: {
      watch: 'push',
      list: true,
      register: true,
      heartbeat: 'none',
      reads: new Set(['weight', 'health']),
      keeps: new Set(['weight']),
      tellsDeregistration: true,
      tellsAbsent: true,
    },
    lagMs: null,
    counts: new Map(),
    ...more,
  };
}

/** An API over fakes; nothing listens until `api.listen()`. */
export async function fakeApi(settings: Partial<ApiSettings> = {}, clock = new FakeClock()): Promise<FakeApi> {
  const catalog = new FakeCatalog();
  const holds = new FakeHolds();
  const registrations = new FakeRegistrations();
  const overrides = new Map<string, Override>();
  const clusters = new Map<ServiceId, ClusterState>();
  const sources: SourceSummary[] = [liveSource()];
  const sourceListeners = new Set<(id: string) => void>();
  const waiting: string[] = [];
  const audit: AuditLine[] = [];
  const errors: string[] = [];
  const metrics = new Metrics();
  const events = new Events(clock, silentLog, metrics);
  const migrations = new FakeMigrations();
  const explain: ExplainPort = {
    merge: () => ({ policy: { kind: 'union' }, from: 'settings' }),
  };
  const ports: ApiPorts = {
    catalog,
    holds,
    explain,
    registrations,
    migrations,
    sources: {
      list: () => sources,
      subscribe: (listener) => {
        sourceListeners.add(listener);
        return () => sourceListeners.delete(listener);
      },
    },
    dataPlane: { state: async (service) => clusters.get(service) ?? null },
    readiness: { waiting: () => waiting },
    overrides: {
      list: () => [...overrides.values()],
      isolate: async (service, host, port, ms) => {
        const override: Override = { service, host, port, isolated: true, until: clock.wallNow() + ms };
        overrides.set(`${service} ${host} ${port}`, override);
        return override;
      },
      clear: async (service, host, port) => overrides.delete(`${service} ${host} ${port}`),
    },
    settings: {
      effective: { api: { listen: '127.0.0.1:7900', tokens: { write: '[hidden]' } } },
      lastReload: {
        at: clock.wallNow(),
        ok: false,
        file: 'weir.yaml',
        faults: [{ path: 'sources[0].kind', expected: 'one of memory', got: '"x"', file: 'weir.yaml', line: 3, col: 5 }],
        warnings: [],
        needRestart: ['api'],
      },
    },
  };
  const log = {
    ...silentLog,
    error: (fields: object, message: string) => void errors.push(`${message} ${JSON.stringify(fields)}`),
  };
  const auditLog = { ...silentLog, info: (fields: object) => void audit.push(fields as AuditLine & object) };
  const deps = { clock, log, metrics, events, audit: new Audit(auditLog) };
  const api = await createApi({ ...LOOPBACK, ...settings }, deps, ports);
  const changeSource = (id: string): void => {
    for (const listener of sourceListeners) listener(id);
  };
  return {
    api,
    clock,
    catalog,
    holds,
    migrations,
    registrations,
    overrides,
    clusters,
    sources,
    waiting,
    audit,
    errors,
    events,
    metrics,
    changeSource,
  };
}

/** A refusal of a registration by another owner. */
export function conflict(): WeirError {
  return new WeirError('REGISTRATION_CONFLICT', 'the address belongs to another owner', { details: { owner: 'someone' } });
}
