// A registry as the histories need one: it knows who wrote each record (provider, sidecar, another tool) whatever the record itself says,
// keeps a log of every change, and behaves as one of several kinds do (dialects). Providers use it directly; weir through `adapter`.
// The checker reads `records` and `changes` and nothing else. Must never know what a migration is.
import type { Capabilities, InstanceField } from '../../src/adapter/capabilities.ts';
import type { Adapter, RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { type Random, seededRandom } from '../../src/kernel/random.ts';
import type { Instance, RegistryHealth } from '../../src/model/instance.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import type { PatientClock } from './patient-clock.ts';

const ALL: readonly InstanceField[] = ['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata'];

export interface Dialect {
  readonly name: string;
  /** place: one record an address, the last writer has it · twin: every writer has a key of its own. */
  readonly records: 'place' | 'twin';
  readonly keeps: readonly InstanceField[];
  readonly heartbeat: 'core' | 'none' | 'server';
  /** As Nacos: a record whose lease ends turns unhealthy and stays for a while, nothing is persistent, `connection` is a way to live. */
  readonly fades: boolean;
  readonly setsHealth: boolean;
  readonly tells: boolean;
  readonly tellsAbsent: boolean;
  /** 0: changes are pushed; else watches see them this late, ms. */
  readonly pollMs: number;
  readonly batch: number;
  readonly register: boolean;
  /** Says yes to the removal of a record that was written longer ago than this, and goes on showing it, ms; null: never. */
  readonly sticksAfter: number | null;
}

const dialect = (name: string, over: Partial<Dialect>): Dialect => ({
  name,
  records: 'twin',
  keeps: ALL,
  heartbeat: 'core',
  fades: false,
  setsHealth: true,
  tells: false,
  tellsAbsent: true,
  pollMs: 0,
  batch: 1,
  register: true,
  sticksAfter: null,
  ...over,
});

/** As the kinds behave: etcd (grpc, kratos, skydns), Consul, Polaris (on MySQL, on its file store), the embedded registry, Nacos
 *  with providers on connections of their own (crowd), L5. */
export const DIALECTS = {
  embedded: dialect('embedded', { records: 'place', tells: true, batch: 100 }),
  keys: dialect('keys', {
    keeps: ['weight', 'metadata', 'protocol', 'version'],
    setsHealth: false,
    tellsAbsent: false,
    batch: 20,
  }),
  weightless: dialect('weightless', { keeps: ['metadata'], setsHealth: false, tellsAbsent: false }),
  nodes: dialect('nodes', { heartbeat: 'none' }),
  central: dialect('central', { records: 'place', pollMs: 1_000 }),
  standalone: dialect('standalone', { records: 'place', pollMs: 1_000, sticksAfter: 5_000 }),
  crowd: dialect('crowd', {
    keeps: ['weight', 'health', 'protocol', 'version', 'locality', 'metadata'],
    heartbeat: 'server',
    fades: true,
    tellsAbsent: false,
  }),
  bare: dialect('bare', { records: 'place', keeps: ['weight'], setsHealth: false, tellsAbsent: false }),
  readOnly: dialect('readOnly', {
    records: 'place',
    keeps: ['weight', 'health'],
    heartbeat: 'none',
    pollMs: 2_000,
    register: false,
  }),
} as const;
/** A record that fades is gone so long after its lease ended, ms: a client that is silent for three minutes is dropped. */
const FADED_MS = 90_000;
/** Records of a connection that was lost are back so long after it can be had again, ms. */
const BACK_MS = 700;

export type DialectName = keyof typeof DIALECTS;

/** One record as it stands; `writer` is the registry's own knowledge. */
export interface PlainRecord {
  readonly key: string;
  readonly service: ServiceId;
  /** `host:port`. */
  readonly address: string;
  readonly writer: 'provider' | 'sidecar' | 'tool';
  readonly weight: number;
  readonly health: RegistryHealth;
  readonly isolated: boolean;
  readonly metadata: ReadonlyMap<string, string>;
  readonly lease: { readonly ttl: number; readonly token: string; readonly endsAt: number } | null;
  /** It is gone with this life's connection. */
  readonly connection?: Caller;
}

export interface Change {
  readonly at: number;
  readonly registry: string;
  readonly service: ServiceId;
  readonly address: string;
  readonly key: string;
  /** `provider`, `tool`, `expiry`, `loss`, or the name of the life that called. */
  readonly by: string;
  readonly before: PlainRecord | null;
  readonly after: PlainRecord | null;
}

/** One write call of a sidecar about one record that was carried out, with or without an effect. */
export interface Carried {
  readonly at: number;
  readonly registry: string;
  readonly service: ServiceId;
  readonly address: string;
  readonly by: string;
  readonly what: 'put' | 'health' | 'remove';
  /** The caller was told. */
  readonly told: boolean;
}

export type Fields = Partial<Pick<PlainRecord, 'weight' | 'health' | 'isolated' | 'metadata'>>;

/** One life of one sidecar, as the registry sees its connection. */
export interface Caller {
  readonly name: string;
  dead: boolean;
}

export class PlainRegistry {
  readonly id: string;
  readonly dialect: Dialect;
  readonly changes: Change[] = [];
  readonly carried: Carried[] = [];
  /** Calls fail and streams end. */
  down = false;
  /** Nothing is answered at all. */
  hung = false;
  /** Share of records whose write is refused as lost, by themselves. */
  failShare = 0;
  /** Writes are carried out, and the answers lost. */
  losesAnswers = false;
  /** The token may read and not write. */
  denied = false;
  readonly #clock: PatientClock;
  readonly #random: Random;
  readonly #records = new Map<string, PlainRecord>();
  readonly #services = new Set<ServiceId>();
  /** Last put of a sidecar by place. */
  readonly #writtenAt = new Map<string, number>();
  /** Who wrote a record last: only that life knows its fields by heart (fades). */
  readonly #putBy = new Map<string, Caller>();
  /** Records that come back with their connection. */
  readonly #away = new Map<string, PlainRecord>();
  readonly #listeners = new Set<{ caller: Caller; changed(service: ServiceId, removed: string | null): void; cut(): void }>();
  #epoch = 1;
  #revision = 0;
  #tokens = 0;

  constructor(id: string, dialect: Dialect, clock: PatientClock, seed: number) {
    this.id = id;
    this.dialect = dialect;
    this.#clock = clock;
    this.#random = seededRandom(seed);
  }

  // What providers, operators and disks do.

  records(service?: ServiceId): PlainRecord[] {
    this.#expire();
    return [...this.#records.values()].filter((one) => service === undefined || one.service === service);
  }

  /** A provider registers, or changes what it said. */
  provide(service: ServiceId, address: string, fields: Fields = {}, writer: 'provider' | 'tool' = 'provider'): void {
    this.#expire();
    const place = `${service} ${this.dialect.records === 'place' ? address : `${writer}-${address}`}`;
    const before = this.#records.get(place);
    const mine = before?.writer === writer ? before : undefined;
    const { weight = mine?.weight ?? 100, health = mine?.health ?? 'healthy', isolated = mine?.isolated ?? false } = fields;
    const metadata = fields.metadata ?? mine?.metadata ?? new Map();
    const record = {
      key: place.slice(service.length + 1),
      service,
      address,
      writer,
      weight,
      health,
      isolated,
      metadata,
      lease: null,
    };
    this.#set(place, this.#kept(record), writer);
  }

  /** True: there was one. */
  leave(service: ServiceId, address: string, writer: 'provider' | 'tool' = 'provider'): boolean {
    for (const [place, record] of this.#records) {
      if (record.service !== service || record.address !== address || record.writer !== writer) continue;
      this.#delete(place, writer, true);
      return true;
    }
    return false;
  }

  provides(service: ServiceId, address: string): PlainRecord | undefined {
    return this.records(service).find((one) => one.address === address && one.writer === 'provider');
  }

  /** All data is lost; revisions start anew. */
  wipe(): void {
    for (const [place, { connection }] of [...this.#records]) if (connection === undefined) this.#delete(place, 'loss', false);
    this.#services.clear();
    this.#epoch++;
    this.cut();
  }

  /** Part of the records is gone without a word. */
  lose(which: (record: PlainRecord) => boolean): void {
    for (const [place, record] of [...this.#records]) if (which(record)) this.#delete(place, 'loss', false);
  }

  cut(): void {
    for (const listener of [...this.#listeners]) listener.cut();
    for (const [place, record] of [...this.#records]) {
      if (record.connection === undefined) continue;
      this.#delete(place, 'connection', false);
      this.#away.set(place, record);
    }
    this.#returnLater();
  }

  /** The connection of this life is gone for good. */
  dropped(caller: Caller): void {
    for (const [place, { connection }] of [...this.#records]) if (connection === caller) this.#delete(place, 'connection', false);
  }

  #returnLater(): void {
    if (this.#away.size > 0) this.#clock.setTimer(BACK_MS, () => this.#return());
  }

  /** As the adapter does by itself: what it holds stands again on its new connection. */
  #return(): void {
    if (this.down || this.hung) return this.#returnLater();
    for (const [place, record] of this.#away)
      if (record.connection?.dead === false) this.#set(place, record, record.connection.name);
    this.#away.clear();
  }

  // What a sidecar sees.

  adapter(caller: Caller): Adapter {
    const { dialect } = this;
    const capabilities: Capabilities = {
      watch: dialect.pollMs === 0 ? 'push' : 'poll',
      list: true,
      register: dialect.register,
      heartbeat: dialect.heartbeat,
      writesPerCall: dialect.batch,
      setsByConnection: dialect.fades,
      reads: new Set(dialect.keeps),
      keeps: new Set(dialect.register ? dialect.keeps : []),
      tellsDeregistration: dialect.tells,
      tellsAbsent: dialect.tellsAbsent,
    };
    const reading = {
      kind: dialect.name,
      capabilities,
      services: (signal: AbortSignal) => this.#list(caller, signal),
      watch: (key: ServiceKey, signal: AbortSignal) => this.#watch(caller, key, signal),
      read: (key: ServiceKey, signal: AbortSignal) => this.#answer(caller, signal, () => this.#snapshot(serviceId(key))),
      close: () => Promise.resolve(),
    };
    if (!dialect.register) return reading;
    const writing: Adapter = {
      ...reading,
      put: (writes, how, signal) => this.#write(caller, signal, () => writes.map((write) => this.#put(caller, write, how))),
      remove: (receipts, _how, signal) =>
        this.#write(caller, signal, () => receipts.map((receipt) => this.#remove(caller, receipt))),
      ...(dialect.heartbeat !== 'none' && {
        renew: (receipts: readonly WriteReceipt[], signal: AbortSignal) =>
          this.#answer(caller, signal, () => receipts.map((receipt) => this.#renew(caller, receipt))),
      }),
      ...(dialect.setsHealth && {
        setHealth: (receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal) =>
          this.#write(caller, signal, () => [this.#setHealth(caller, receipt, health)]).then(([failed]) => {
            if (failed instanceof SourceError) throw failed;
          }),
      }),
    };
    return writing;
  }

  // --- calls ---

  async #answer<T>(caller: Caller, signal: AbortSignal, now: () => T): Promise<T> {
    await Promise.resolve();
    if (caller.dead || this.hung) return new Promise(() => {});
    signal.throwIfAborted();
    if (this.down) throw new SourceError('lost', `${this.id} is not there`);
    return now();
  }

  async #write<T>(caller: Caller, signal: AbortSignal, now: () => T): Promise<T> {
    const result = await this.#answer(caller, signal, () => {
      if (this.denied) throw new SourceError('denied', 'the token may not write');
      return now();
    });
    if (this.losesAnswers) throw new SourceError('lost', 'the connection broke before the answer came');
    // A process that is killed between the effect and the answer never hears of it.
    return caller.dead ? new Promise<T>(() => {}) : result;
  }

  #put(caller: Caller, { key, instance, previous }: Write, how: WriteMode): WriteReceipt | SourceError {
    this.#expire();
    if (this.#random() < this.failShare) return new SourceError('lost', 'this one failed');
    const service = serviceId(key);
    const address = `${instance.host}:${instance.port}`;
    const nativeId = this.dialect.records === 'place' ? address : instance.id;
    const place = `${service} ${nativeId}`;
    const before = this.#records.get(place);
    if (before !== undefined && before.writer !== 'sidecar') return new SourceError('refused', `${address} is another's`);
    const token = previous?.token ?? `t${++this.#tokens}`;
    if (this.dialect.fades && how.liveness === 'persistent')
      return new SourceError('refused', 'a service of ephemeral records takes no persistent one');
    const tied = how.liveness === 'connection' && this.dialect.fades;
    const beats = how.liveness !== 'persistent' && !tied && this.dialect.heartbeat !== 'none';
    const lease = beats ? { ttl: how.ttl, token, endsAt: this.#clock.now() + how.ttl } : null;
    const { weight, health, isolated, metadata } = instance;
    this.#writtenAt.set(place, this.#clock.now());
    this.#putBy.set(place, caller);
    this.#away.delete(place);
    const record = { key: nativeId, service, address, writer: 'sidecar' as const, weight, health, isolated, metadata, lease };
    this.#set(place, { ...this.#kept(record), ...(tied && { connection: caller }) }, caller.name);
    this.#carry(caller, service, address, 'put');
    return { service: key, nativeId, token };
  }

  #remove(caller: Caller, { service: key, nativeId }: WriteReceipt): true | SourceError {
    this.#expire();
    if (this.#random() < this.failShare) return new SourceError('lost', 'this one failed');
    const service = serviceId(key);
    const place = `${service} ${nativeId}`;
    this.#away.delete(place);
    const found = this.#records.get(place);
    if (found === undefined) return true;
    const { sticksAfter } = this.dialect;
    if (sticksAfter === null || this.#clock.now() - (this.#writtenAt.get(place) ?? 0) <= sticksAfter) {
      this.#delete(place, caller.name, true);
    }
    this.#carry(caller, service, found.address, 'remove');
    return true;
  }

  #setHealth(caller: Caller, { service: key, nativeId }: WriteReceipt, health: RegistryHealth): true | SourceError {
    this.#expire();
    const place = `${serviceId(key)} ${nativeId}`;
    const found = this.#records.get(place);
    if (this.dialect.fades && this.#putBy.get(place) !== caller) return new SourceError('lost', 'put it again');
    if (found === undefined || found.writer !== 'sidecar') return new SourceError('refused', `${nativeId} is not there`);
    this.#set(place, { ...found, health }, caller.name);
    this.#carry(caller, found.service, found.address, 'health');
    return true;
  }

  #renew(caller: Caller, { service: key, nativeId, token }: WriteReceipt): RenewResult {
    this.#expire();
    const place = `${serviceId(key)} ${nativeId}`;
    const found = this.#records.get(place);
    if (found?.lease === null) return { kind: 'renewed', leaseMs: Number.POSITIVE_INFINITY };
    if (found?.lease === undefined || found.lease.token !== token) return { kind: 'forgotten' };
    const renewed = { ...found, lease: { ...found.lease, endsAt: this.#clock.now() + found.lease.ttl } };
    // A beat of somebody who does not know that it is unhealthy makes it healthy.
    if (this.dialect.fades && this.#putBy.get(place) !== caller) this.#set(place, { ...renewed, health: 'healthy' }, caller.name);
    else this.#records.set(place, renewed);
    return { kind: 'renewed', leaseMs: found.lease.ttl };
  }

  // --- streams ---

  async *#list(caller: Caller, signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    const box = new Mailbox<ServiceList>();
    const now = (): ServiceList => ({ keys: [...this.#names()].map(keyOf), failed: [], complete: true });
    let before: string | null = null;
    const tell = (): void => {
      const text = [...this.#names()].join();
      if (text !== before) box.put(now());
      before = text;
    };
    yield* this.#stream(caller, box, tell, () => true, signal);
  }

  async *#watch(caller: Caller, key: ServiceKey, signal: AbortSignal): AsyncGenerator<Snapshot | Unchanged, void, void> {
    const service = serviceId(key);
    const slot = snapshotSlot();
    const removed: string[] = [];
    const tell = (): void => {
      const snapshot = this.#snapshot(service);
      const told =
        this.dialect.tells && snapshot.kind === 'present' ? { ...snapshot, deregistered: removed.splice(0) } : snapshot;
      slot.put(told);
    };
    const mine = (changed: ServiceId, id: string | null): boolean => {
      if (changed === service && id !== null) removed.push(id);
      return changed === service;
    };
    yield* this.#stream(caller, slot, tell, mine, signal);
  }

  async *#stream<T>(
    caller: Caller,
    box: Mailbox<T>,
    tell: () => void,
    mine: (service: ServiceId, removed: string | null) => boolean,
    signal: AbortSignal,
  ): AsyncGenerator<T, void, void> {
    await this.#answer(caller, signal, () => true);
    let waiting = false;
    const listener = {
      caller,
      changed: (service: ServiceId, removed: string | null): void => {
        if (!mine(service, removed) || waiting || caller.dead) return;
        if (this.dialect.pollMs === 0) return tell();
        waiting = true;
        this.#clock.setTimer(this.dialect.pollMs, () => {
          waiting = false;
          if (!caller.dead && !this.hung && this.#listeners.has(listener)) tell();
        });
      },
      cut: () => box.fail(new SourceError('lost', `cut off from ${this.id}`)),
    };
    this.#listeners.add(listener);
    tell();
    try {
      yield* box.read(signal);
    } finally {
      this.#listeners.delete(listener);
    }
  }

  // --- state ---

  #snapshot(service: ServiceId): Snapshot {
    this.#expire();
    const base = { epoch: String(this.#epoch), sourceRevision: String(this.#revision) };
    if (this.dialect.tellsAbsent && !this.#services.has(service)) return { ...base, kind: 'absent' };
    const instances = [...this.#records.values()].filter((one) => one.service === service).map(instanceOf);
    return { ...base, kind: 'present', instances, rejected: [] };
  }

  #names(): Set<ServiceId> {
    return new Set(this.dialect.tellsAbsent ? this.#services : [...this.#records.values()].map(({ service }) => service));
  }

  /** What the registry has no field for is lost. */
  #kept(record: PlainRecord): PlainRecord {
    const has = new Set(this.dialect.keeps);
    return {
      ...record,
      weight: has.has('weight') ? record.weight : 100,
      health: has.has('health') ? record.health : 'healthy',
      isolated: has.has('isolated') && record.isolated,
      metadata: has.has('metadata') ? new Map(record.metadata) : new Map(),
    };
  }

  #set(place: string, after: PlainRecord, by: string): void {
    const before = this.#records.get(place) ?? null;
    this.#records.set(place, after);
    this.#services.add(after.service);
    if (before !== null && contentOf(before) === contentOf(after) && before.writer === after.writer) return;
    this.#changed(after, by, before, after, null);
  }

  #delete(place: string, by: string, told: boolean): void {
    const before = this.#records.get(place);
    if (before === undefined) return;
    this.#records.delete(place);
    this.#changed(before, by, before, null, told ? before.key : null);
  }

  #changed(about: PlainRecord, by: string, before: PlainRecord | null, after: PlainRecord | null, removed: string | null): void {
    this.#revision++;
    const { service, address, key } = about;
    this.changes.push({ at: this.#clock.now(), registry: this.id, service, address, key, by, before, after });
    if (!this.down && !this.hung) for (const listener of [...this.#listeners]) listener.changed(service, removed);
  }

  #carry(caller: Caller, service: ServiceId, address: string, what: Carried['what']): void {
    this.carried.push({
      at: this.#clock.now(),
      registry: this.id,
      service,
      address,
      by: caller.name,
      what,
      told: !this.losesAnswers,
    });
  }

  #expire(): void {
    const now = this.#clock.now();
    for (const [place, record] of [...this.#records]) {
      const endsAt = record.lease?.endsAt ?? Number.POSITIVE_INFINITY;
      if (endsAt > now) continue;
      if (!this.dialect.fades || endsAt + FADED_MS <= now) this.#delete(place, 'expiry', false);
      else if (record.health !== 'unhealthy') this.#set(place, { ...record, health: 'unhealthy' }, 'expiry');
    }
  }
}

/** All that a record says, as text. */
export function contentOf({ service, address, weight, health, isolated, metadata }: PlainRecord): string {
  return JSON.stringify([service, address, weight, health, isolated, [...metadata].sort()]);
}

function keyOf(service: ServiceId): ServiceKey {
  const slash = service.indexOf('/');
  return { namespace: service.slice(0, slash), name: service.slice(slash + 1) };
}

function instanceOf({ key, address, weight, health, isolated, metadata }: PlainRecord): Instance {
  const colon = address.lastIndexOf(':');
  return {
    id: key,
    host: address.slice(0, colon),
    port: Number(address.slice(colon + 1)),
    transport: 'tcp',
    weight,
    health,
    isolated,
    metadata,
  };
}
