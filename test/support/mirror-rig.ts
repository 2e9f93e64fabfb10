// Two embedded registries, a catalog that shows what they hold, a store in memory, and mirrors on top: what the tests of src/migrate's
// write side share. Faults of a registry are switched by `Site`.
import { factory } from '../../adapters/memory/index.ts';
import { holdRegistry, type RegistryHold } from '../../adapters/memory/named.ts';
import type { Capabilities } from '../../src/adapter/capabilities.ts';
import type { Adapter, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { readMarker } from '../../src/catalog/copies.ts';
import type { SourceAccount } from '../../src/catalog/view.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { addressOf, Ledger } from '../../src/migrate/ledger.ts';
import type { LedgerPage, MigrationSpec } from '../../src/migrate/migration.ts';
import { Mirror } from '../../src/migrate/mirror.ts';
import type { MigrationCatalog, Ownership } from '../../src/migrate/ports.ts';
import { type Instance, NO_METADATA } from '../../src/model/instance.ts';
import { parseServiceId, type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, type Snapshot, SourceError } from '../../src/model/snapshot.ts';
import type { AuditLine } from '../../src/telemetry/audit.ts';
import { FakeClock } from './fake-clock.ts';

let rigs = 0;

/** What reached a registry, in order. */
export interface Call {
  readonly what: 'put' | 'remove' | 'read' | 'renew' | 'health';
  readonly ids: readonly string[];
  readonly how?: Partial<WriteMode>;
  readonly at: number;
}

/** One registry with its adapter, faults and the catalog's word on it. */
export class Site {
  readonly id: string;
  readonly hold: RegistryHold;
  readonly calls: Call[] = [];
  readonly adapter: Adapter;
  readonly accounts = new Map<ServiceId, SourceAccount>();
  /** False: the catalog hears nothing of it. */
  live = true;
  /** The catalog hears of a change this much later, of what stood right after the change, ms. */
  lag = 0;
  /** Addresses (`host:port/transport`) that the catalog holds though the registry dropped them. */
  readonly held = new Map<ServiceId, Instance[]>();
  /** Native records under keys of their own, beside ours of the same address (as Consul, etcd and Nacos have them). */
  readonly beside = new Map<ServiceId, Instance[]>();
  /** Thrown by every call before it has an effect; null: none. */
  down: SourceError | null = null;
  /** The put takes effect, its answer is lost. */
  loseAnswers = false;
  /** Puts are never answered, and have no effect. */
  hang = false;
  /** Puts that fail by themselves. */
  refuse: (write: Write) => SourceError | null = () => null;
  capabilities: Partial<Capabilities> = {};
  readonly #clock: FakeClock;

  constructor(id: string, clock: FakeClock, changed: (site: Site, service: ServiceId) => void) {
    this.id = id;
    this.#clock = clock;
    const registry = `${id}-${++rigs}`;
    this.hold = holdRegistry(registry, clock);
    const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
    const deps = { sourceId: id, clock, random: seededRandom(1), dial, log: silentLog, count: () => {} };
    const options = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
    this.adapter = this.#faulty(factory.create({ registry }, options, deps));
    this.hold.registry.subscribe({
      changed: ({ key }) => {
        const service = serviceId(key);
        const hear = (snapshot: Snapshot): void => {
          if (!this.live) return;
          this.refresh(service, snapshot);
          changed(this, service);
        };
        const snapshot = this.snapshot(service);
        if (this.lag === 0) hear(snapshot);
        else clock.setTimer(this.lag, () => hear(snapshot));
      },
      cut: () => {},
    });
  }

  /** The catalog hears the registry's word on a service. */
  refresh(service: ServiceId, snapshot = this.snapshot(service)): void {
    this.accounts.set(service, accountOf(this.id, service, snapshot, this.held.get(service) ?? [], this.#clock.now()));
  }

  /** All that the registry has. */
  snapshot(service: ServiceId): Snapshot {
    const snapshot = this.hold.registry.snapshot(keyOf(service));
    const beside = this.beside.get(service) ?? [];
    return snapshot.kind === 'present' ? { ...snapshot, instances: [...snapshot.instances, ...beside] } : snapshot;
  }

  account(service: ServiceId): SourceAccount | null {
    if (!this.accounts.has(service) && this.live) this.refresh(service);
    const account = this.accounts.get(service);
    return account === undefined ? null : { ...account, live: this.live };
  }

  /** What a provider or an operator does. */
  native(service: ServiceId, ...instances: readonly Instance[]): void {
    for (const one of instances) this.hold.registry.put(keyOf(service), one, null);
  }

  gone(service: ServiceId, ...ids: readonly string[]): void {
    for (const id of ids) this.hold.registry.remove(keyOf(service), id);
  }

  /** Records as they stand in the registry. */
  records(service: ServiceId): readonly Instance[] {
    const snapshot = this.hold.registry.snapshot(keyOf(service));
    return snapshot.kind === 'present' ? snapshot.instances : [];
  }

  copies(service: ServiceId): readonly Instance[] {
    return this.records(service).filter(({ metadata }) => readMarker(metadata) !== null);
  }

  ports(service: ServiceId): readonly number[] {
    return this.records(service)
      .map(({ port }) => port)
      .sort((a, b) => a - b);
  }

  count(what: Call['what']): number {
    return this.calls.filter((call) => call.what === what).length;
  }

  #note(what: Call['what'], ids: readonly string[], how?: Partial<WriteMode>): void {
    this.calls.push({ what, ids, at: this.#clock.now(), ...(how !== undefined && { how }) });
    if (this.down !== null) throw this.down;
  }

  #faulty(inner: Adapter): Adapter {
    const site = this;
    const ids = (receipts: readonly WriteReceipt[]): string[] => receipts.map(({ nativeId }) => nativeId);
    return {
      kind: inner.kind,
      get capabilities() {
        return { ...inner.capabilities, ...site.capabilities };
      },
      watch: (key, signal) => inner.watch(key, signal),
      async read(key) {
        site.#note('read', [serviceId(key)]);
        return site.snapshot(serviceId(key));
      },
      async put(writes, how, signal) {
        site.#note(
          'put',
          writes.map(({ instance }) => instance.id),
          how,
        );
        if (site.hang) return new Promise(() => {});
        const good = writes.filter((write) => site.refuse(write) === null);
        const answers = new Map((await inner.put?.(good, how, signal))?.map((answer, n) => [good[n], answer]));
        if (site.loseAnswers) throw new SourceError('lost', 'the answer was lost');
        return writes.map((write) => site.refuse(write) ?? answers.get(write) ?? asSourceError('no answer'));
      },
      async renew(receipts, signal) {
        site.#note('renew', ids(receipts));
        return (await inner.renew?.(receipts, signal)) ?? [];
      },
      async setHealth(receipt, health, signal) {
        site.#note('health', [receipt.nativeId]);
        await inner.setHealth?.(receipt, health, signal);
      },
      async remove(receipts, how, signal) {
        site.#note('remove', ids(receipts), how);
        return (await inner.remove?.(receipts, how, signal)) ?? [];
      },
      close: () => inner.close(),
    };
  }
}

/** A store that keeps pages as JSON would, and can fail. */
export class FakeStore {
  readonly saved = new Map<ServiceId, LedgerPage>();
  saves = 0;
  down: SourceError | null = null;

  async savePages(_id: string, pages: readonly LedgerPage[]): Promise<void> {
    await Promise.resolve();
    if (this.down !== null) throw this.down;
    this.saves++;
    for (const page of pages) {
      if (page.baseline === null && page.entries.length === 0) this.saved.delete(page.service);
      else this.saved.set(page.service, structuredClone(page));
    }
  }

  entries(): readonly LedgerPage['entries'][number][] {
    return [...this.saved.values()].flatMap(({ entries }) => entries);
  }
}

export interface RigOptions {
  readonly direction?: 'oneWay' | 'twoWay';
  readonly limits?: Partial<MigrationSpec['limits']>;
  readonly liveness?: MigrationSpec['liveness'];
  readonly metadata?: Partial<MigrationSpec['mapping']['metadata']>;
}

export class Rig {
  readonly clock = new FakeClock();
  readonly a: Site;
  readonly b: Site;
  readonly store = new FakeStore();
  readonly audit: AuditLine[] = [];
  readonly mirrors: Mirror[] = [];
  readonly used = new Set<ServiceId>();
  frozen = false;
  readonly #listeners = new Set<(service: ServiceId) => void>();
  readonly #options: RigOptions;

  constructor(options: RigOptions = {}) {
    this.#options = options;
    const changed = (_: Site, service: ServiceId): void => {
      for (const listener of this.#listeners) listener(service);
    };
    this.a = new Site('a', this.clock, changed);
    this.b = new Site('b', this.clock, changed);
  }

  spec(id: string, from = 'a', to = 'b'): MigrationSpec {
    const { direction = 'oneWay', limits, liveness = 'beat', metadata } = this.#options;
    return {
      id,
      from,
      to,
      services: ['default/*'],
      direction,
      liveness,
      sticky: null,
      mapping: { namespace: null, name: null, metadata: { rename: new Map(), drop: new Set(), set: new Map(), ...metadata } },
      gates: { soak: 600_000, maxErrorRate: null, maxP99Ratio: null, onBreach: 'stop' },
      limits: { callsPerSecond: 50, deletePercentPerMinute: 15, grace: 60_000, ...limits },
    };
  }

  /** A mirror on what `store` holds, as a new process would start it. */
  mirror(
    options: {
      id?: string;
      epoch?: number;
      from?: string;
      to?: string;
      store?: FakeStore;
      lost?: AbortSignal;
      fences?: Ownership['fences'];
      start?: boolean;
    } = {},
  ): Mirror {
    const {
      id = 'm1',
      epoch = 1,
      from,
      to,
      store = this.store,
      lost = new AbortController().signal,
      fences = new Map(),
      start = true,
    } = options;
    const ownership: Ownership = { lost, fences, release: async () => {} };
    const sites = new Map([this.a, this.b].map((site) => [site.id, site]));
    const catalog: MigrationCatalog = {
      account: (source, service) => sites.get(source)?.account(service) ?? null,
      servicesOf: (source) => sites.get(source)?.accounts.keys() ?? [],
      toNative: (_, service) => keyOf(service),
      toOurs: (_, native) => serviceId(native),
      use: (service) => void this.used.add(service),
      touch: () => {},
      subscribe: (listener) => {
        this.#listeners.add(listener);
        return () => void this.#listeners.delete(listener);
      },
    };
    const services = (): Set<ServiceId> => new Set([this.a, this.b].flatMap((site) => site.hold.registry.keys().map(serviceId)));
    const mirror = new Mirror(
      {
        clock: this.clock,
        random: seededRandom(7),
        log: silentLog,
        audit: (line) => void this.audit.push(line),
        metrics: { wrote: () => {} },
        catalog,
        sources: { ids: ['a', 'b'], adapter: (source) => sites.get(source)?.adapter ?? null },
        store,
      },
      {
        spec: this.spec(id, from, to),
        epoch,
        ledger: new Ledger(structuredClone(store.saved)),
        ownership,
        services,
        inScope: (service) => service.startsWith('default/'),
        mapKey: (_, service) => keyOf(service),
        baselined: () => false,
        frozen: () => this.frozen,
      },
    );
    this.mirrors.push(mirror);
    if (start) mirror.start();
    return mirror;
  }

  /** Both sides' catalog hears a source again, or no more. */
  setLive(site: Site, live: boolean): void {
    site.live = live;
    for (const key of site.hold.registry.keys()) {
      if (live) site.refresh(serviceId(key));
      for (const listener of this.#listeners) listener(serviceId(key));
    }
  }

  tell(service: ServiceId): void {
    for (const listener of this.#listeners) listener(service);
  }

  async close(): Promise<void> {
    for (const mirror of this.mirrors) await mirror.close();
    for (const site of [this.a, this.b]) {
      await site.adapter.close();
      site.hold.release();
    }
  }
}

export function keyOf(service: ServiceId): ServiceKey {
  const key = parseServiceId(service);
  if (key === null) throw new Error(`no service: ${service}`);
  return key;
}

/** A native record; its id is its address. */
export function instance(port: number, fields: Partial<Instance> = {}): Instance {
  return {
    id: `n-${port}`,
    host: '10.0.0.1',
    port,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: NO_METADATA,
    ...fields,
  };
}

/** What the catalog makes of an answer: one record per address, native before copy. */
export function accountOf(
  source: string,
  service: ServiceId,
  snapshot: Snapshot,
  held: readonly Instance[],
  goodAt: number,
): SourceAccount {
  const base = { source, key: keyOf(service), live: true, epoch: snapshot.epoch, goodAt };
  if (snapshot.kind === 'absent' && held.length === 0) return { ...base, presence: 'absent', instances: [] };
  const all = snapshot.kind === 'present' ? [...snapshot.instances] : [];
  all.sort((x, y) => Number(readMarker(x.metadata) !== null) - Number(readMarker(y.metadata) !== null));
  const seen = new Map(all.toReversed().map((one) => [addressOf(one), one]));
  return {
    ...base,
    presence: 'present',
    instances: [
      ...[...seen.values()].map((one) => ({ instance: one, held: false })),
      ...held.filter((one) => !seen.has(addressOf(one))).map((one) => ({ instance: one, held: true })),
    ],
  };
}
