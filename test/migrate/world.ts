// Two registries and sidecars around them in one process, on a fake clock: what app.ts composes, without sockets and processes.
// A sidecar can be killed (its timers stop, its calls are never answered, nothing of it is closed) and started again on what it left on
// the store. Everything that the checker wants is recorded here. Called by the tests of this folder.
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { Catalog } from '../../src/catalog/catalog.ts';
import type { MergeOverlay } from '../../src/catalog/evidence.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { openFileStore } from '../../src/migrate/file-store.ts';
import type { MigrationSpec } from '../../src/migrate/migration.ts';
import { Migrations } from '../../src/migrate/migrations.ts';
import type { OverlayEntry } from '../../src/migrate/overlay.ts';
import type { MigrationStore, OverlayMemory, SideTraffic } from '../../src/migrate/ports.ts';
import { decodeSpec } from '../../src/migrate/spec.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import type { ServiceId } from '../../src/model/service.ts';
import type { AuditLine } from '../../src/telemetry/audit.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { source } from '../support/catalog-fixture.ts';
import type { AuditSeen, Life, ViewRead } from './checker.ts';
import { StoreMemory } from './memory-store.ts';
import { LifeClock, PatientClock } from './patient-clock.ts';
import { type Caller, DIALECTS, type DialectName, PlainRegistry } from './plain-registry.ts';

/** Probes of an address say so this long after its provider died, ms. */
const PROBES_FAIL_MS = 6_000;

export interface WorldOptions {
  readonly seed?: number;
  readonly from?: DialectName;
  readonly to?: DialectName;
  readonly shared?: boolean;
  /** The store of files in this directory, in the place of the one in memory. */
  readonly directory?: string;
}

export class World {
  readonly clock = new PatientClock();
  readonly from: PlainRegistry;
  readonly to: PlainRegistry;
  readonly store: StoreMemory;
  readonly sidecars: Sidecar[] = [];
  readonly audit: AuditSeen[] = [];
  readonly views: ViewRead[] = [];
  readonly lives: Life[] = [];
  /** What each sidecar keeps on its own disk. */
  readonly disks = new Map<string, readonly OverlayEntry[]>();
  /** By source, as the data plane would count them. */
  readonly traffic = new Map<string, SideTraffic>();
  readonly options: WorldOptions;
  readonly #alive = new Map<string, number | null>();

  constructor(options: WorldOptions = {}) {
    const { seed = 1, from = 'embedded', to = 'embedded', shared = false } = options;
    this.options = options;
    this.from = new PlainRegistry('old', DIALECTS[from], this.clock, seed * 2 + 1);
    this.to = new PlainRegistry('new', DIALECTS[to], this.clock, seed * 2 + 2);
    this.store = new StoreMemory(shared);
  }

  get registries(): readonly PlainRegistry[] {
    return [this.from, this.to];
  }

  /** An order for `default/*` with limits that a test can wait for. */
  spec(changes: Record<string, unknown> = {}): MigrationSpec {
    const { gates = {}, limits = {}, ...rest } = changes;
    const decoded = decodeSpec({
      ...{ id: 'm1', from: 'old', to: 'new', services: ['default/*'] },
      gates: { soak: '0s', ...(isObject(gates) ? gates : {}) },
      limits: { grace: '5s', deletePercentPerMinute: 100, ...(isObject(limits) ? limits : {}) },
      ...rest,
    });
    if (!decoded.ok) throw new Error(JSON.stringify(decoded.faults));
    return decoded.spec;
  }

  // Providers: what is alive, whatever registries say.

  live(service: ServiceId, address: string): void {
    const at = this.clock.now();
    this.#alive.set(address, null);
    if (!this.lives.some((one) => one.service === service && one.address === address && one.until === null))
      this.lives.push({ service, address, since: at, until: null });
  }

  die(service: ServiceId, address: string): void {
    const at = this.clock.now();
    for (const life of this.lives)
      if (life.service === service && life.address === address && life.until === null) life.until = at;
    this.#alive.set(address, at);
    this.clock.setTimer(PROBES_FAIL_MS, () => {
      for (const { catalog } of this.sidecars) catalog.touch(service);
    });
  }

  isAlive(address: string): boolean {
    return this.#alive.get(address) === null;
  }

  failing(address: string): boolean {
    const died = this.#alive.get(address);
    return died !== undefined && died !== null && this.clock.now() - died >= PROBES_FAIL_MS;
  }

  async sidecar(name = 'weir-1'): Promise<Sidecar> {
    const sidecar = new Sidecar(this, name);
    this.sidecars.push(sidecar);
    await sidecar.open();
    return sidecar;
  }

  /** Every view of every living sidecar, as its proxy would have it now. */
  look(): void {
    for (const registry of this.registries) registry.records();
    const services = new Set(this.lives.map(({ service }) => service));
    for (const sidecar of this.sidecars)
      for (const service of services) if (!sidecar.caller.dead) this.views.push(sidecar.view(service));
  }

  /** Moves on, looking every `every` ms. */
  async run(ms: number, every = Math.max(250, Math.min(5_000, ms / 4))): Promise<void> {
    for (let left = ms; left > 0; left -= every) {
      await this.clock.advance(Math.min(left, every));
      this.look();
    }
  }

  /** Until it holds; false after `within` ms. */
  async until(what: () => boolean, within = 120_000): Promise<boolean> {
    for (let waited = 0; waited <= within; waited += 500) {
      if (what()) return true;
      await this.run(500, 500);
    }
    return what();
  }

  async close(): Promise<void> {
    for (const sidecar of this.sidecars) sidecar.kill();
    await this.clock.settle();
  }
}

/** One life of one sidecar. */
export class Sidecar {
  readonly name: string;
  readonly caller: Caller;
  readonly clock: LifeClock;
  readonly catalog: Catalog;
  readonly events: Events;
  /** Set by `open`. */
  migrations!: Migrations;
  readonly startedAt: number;
  readonly #world: World;
  readonly #supervisors: Supervisor[] = [];

  constructor(world: World, name: string) {
    this.#world = world;
    this.name = name;
    this.startedAt = world.clock.now();
    this.caller = { name: `${name}#${world.sidecars.length}`, dead: false };
    this.clock = new LifeClock(world.clock);
    const metrics = new Metrics();
    this.events = new Events(this.clock, silentLog, metrics);
    const overlay: MergeOverlay = {
      overlayOf: (service) => this.migrations?.overlayOf(service) ?? null,
      copyOrigin: (...at) => this.migrations?.copyOrigin(...at) ?? null,
    };
    this.catalog = new Catalog({
      clock: this.clock,
      log: silentLog,
      events: this.events,
      metrics,
      evidence: { failuresInARow: (_service, _network, host, port) => (world.failing(`${host}:${port}`) ? 3 : 0) },
      overlay,
      lastIndex: 0,
    });
  }

  async open(): Promise<void> {
    const world = this.#world;
    const { catalog, clock } = this;
    const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
    const adapters = new Map(world.registries.map((registry) => [registry.id, registry.adapter(this.caller)]));
    catalog.configure({
      sources: world.registries.map(({ id, dialect }) =>
        source(id, { kind: dialect.name, reads: new Set(dialect.keeps), lists: true, tellsDeregistration: dialect.tells, dial }),
      ),
      names: [],
      policyOf: () => DEFAULT_SERVICE_POLICY,
    });
    for (const [sourceId, adapter] of adapters) {
      const random = seededRandom(world.options.seed ?? 1);
      const select = { kind: 'all' } as const;
      const supervisor = new Supervisor({
        sourceId,
        adapter,
        select,
        sink: catalog,
        clock,
        random,
        log: silentLog,
        timeout: 5_000,
      });
      this.#supervisors.push(supervisor);
    }
    const supervisorOf = (id: string): Supervisor | undefined =>
      this.#supervisors[world.registries.findIndex((one) => one.id === id)];
    catalog.onHeld((id, native, held) => (held ? supervisorOf(id)?.keep(native) : supervisorOf(id)?.release(native)));
    catalog.onConfirmRead(
      (id, native) =>
        void supervisorOf(id)
          ?.readNow(native)
          .catch(() => undefined),
    );
    const { directory } = world.options;
    const store =
      directory === undefined
        ? world.store.handle(this.caller, clock)
        : await world.clock.pending(fileStore(directory, this.caller, clock, world.clock));
    this.migrations = new Migrations(
      {
        clock,
        random: seededRandom((world.options.seed ?? 1) + 99),
        log: silentLog,
        events: this.events,
        metrics: new Metrics(),
        audit: (line) => this.#audited(line),
        catalog: {
          account: (id, service) => catalog.account(id, service),
          servicesOf: (id) => catalog.servicesOf(id),
          toNative: (id, service) => catalog.toWrite(id, service),
          toOurs: (id, native) => catalog.toOurs(id, native),
          use: () => {},
          touch: (service) => catalog.touch(service),
          subscribe: (listener) => {
            const ends = [
              catalog.subscribeAccounts(listener),
              catalog.subscribeSources(() => {
                for (const service of catalog.allNames()) listener(service);
              }),
            ];
            return () => {
              for (const end of ends) end();
            };
          },
        },
        sources: {
          adapter: (id) => adapters.get(id) ?? null,
          ids: catalog.sourceIds,
          trouble: (id) => {
            const { state = 'gone' } = catalog.sourceSummary(id) ?? {};
            return state === 'live' ? null : state;
          },
        },
        store,
        memory: this.#disk(),
        probe: async (_service, host, port) => (world.isAlive(`${host}:${port}`) ? null : 'connection refused'),
        sides: () => new Map(world.traffic),
        sidecar: this.name,
      },
      false,
    );
    await this.migrations.open();
    for (const supervisor of this.#supervisors) supervisor.start();
    this.migrations.start();
    await world.clock.settle();
  }

  view(service: ServiceId): ViewRead {
    const view = this.catalog.get(service);
    const doc = this.migrations.list().find(({ doc }) => doc !== null)?.doc ?? null;
    const merge = this.catalog.mergeOf(service);
    return {
      at: this.#world.clock.now(),
      sidecar: this.caller.name,
      service,
      startedAt: this.startedAt,
      phase: doc?.phase ?? null,
      weight: doc?.weight ?? 0,
      merge: JSON.stringify(merge.policy),
      instances: (view?.instances ?? []).map(({ host, port, weight, registryHealth, isolated, held, groups }) => ({
        address: `${host}:${port}`,
        ...{ weight, isolated, held, groups: groups ?? null, health: registryHealth },
      })),
      shares: view?.shares ?? null,
      sticky: view?.sticky ?? null,
    };
  }

  /** SIGKILL. */
  kill(): void {
    this.caller.dead = true;
    this.clock.stop();
    for (const registry of this.#world.registries) registry.dropped(this.caller);
  }

  #audited(line: AuditLine): void {
    if (!this.caller.dead) this.#world.audit.push({ at: this.#world.clock.now(), by: this.caller.name, ...line });
  }

  #disk(): OverlayMemory {
    const { disks } = this.#world;
    return {
      load: async () => disks.get(this.name) ?? [],
      save: async (entries) => {
        if (!this.caller.dead) disks.set(this.name, structuredClone(entries));
      },
    };
  }
}

/** The store of files as one life has it: time waits for the disk, and nothing is answered after the death. */
async function fileStore(directory: string, caller: Caller, clock: LifeClock, patient: PatientClock): Promise<MigrationStore> {
  const store = await openFileStore({ directory, uid: null, log: silentLog, clock });
  const call = async <T>(work: () => Promise<T>): Promise<T> => {
    if (caller.dead) return new Promise<T>(() => {});
    const result = await patient.pending(work());
    return caller.dead ? new Promise<T>(() => {}) : result;
  };
  return {
    shared: store.shared,
    watch: (signal) => store.watch(signal),
    putDoc: (...input) => call(() => store.putDoc(...input)),
    dropDoc: (...input) => call(() => store.dropDoc(...input)),
    ledger: (...input) => call(() => store.ledger(...input)),
    savePages: (...input) => call(() => store.savePages(...input)),
    report: (...input) => call(() => store.report(...input)),
    own: (...input) => store.own(...input),
    close: () => call(() => store.close()),
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
