// Owns the data of the fake Nacos: services, publishers, beats, protection, overlay, and the snapshots that pushes and reads show.
// Called by fake.ts and fake-http.ts; must never do what the real server would contradict (protocol notes, sections 5, 12 and 14).
import type { Clock, Timer } from '../../src/kernel/clock.ts';

/** Changes are gathered for so long before they show, ms (seen: 504-598). */
export const MERGE_MS = 500;
const SWEEP_MS = 5_000;
const BEAT_MS = 5_000;

export interface FakeInstance {
  readonly ip: string;
  readonly port: number;
  readonly weight: number;
  readonly healthy: boolean;
  readonly enabled: boolean;
  readonly ephemeral: boolean;
  readonly clusterName: string;
  readonly metadata: Readonly<Record<string, unknown>>;
}

interface Beating {
  instance: FakeInstance;
  beatAt: number;
}

interface Service {
  readonly namespace: string;
  readonly group: string;
  readonly name: string;
  /** One entry per connection: a second one replaces the first. */
  readonly publishers: Map<string, readonly FakeInstance[]>;
  readonly beating: Map<string, Beating>;
  readonly persistent: Map<string, FakeInstance>;
  /** Stored metadata of the service: switches protection on. */
  protectThreshold: number | null;
  /** Edits by console, over what publishers say. */
  readonly overlay: Map<string, Partial<FakeInstance>>;
}

/** A list as subscribers see it. */
export interface FakeInfo {
  readonly hosts: readonly (FakeInstance & { readonly instanceId?: string; readonly serviceName: string })[];
  readonly lastRefTime: number;
  readonly reachProtectionThreshold: boolean;
}

/** Thrown for what the server refuses; `status` for HTTP. */
export class FakeRefusal extends Error {
  readonly code: number;
  readonly status: number;

  constructor(code: number, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

export class FakeStore {
  readonly #clock: Clock;
  readonly #onSnapshot: (id: string) => void;
  readonly #services = new Map<string, Service>();
  readonly #snapshots = new Map<string, FakeInfo>();
  readonly #merging = new Map<string, Timer>();
  #sweep: Timer | null = null;
  /** Told of every name whose first instance came or last one went. */
  onName: (id: string, change: 'ADD_SERVICE' | 'DELETE_SERVICE') => void = () => {};
  /** Added to lastRefTime: this member's clock. */
  skewMs = 0;
  /** 1.x: every service is protected, and the flag is not told. */
  oldProtection = false;

  constructor(clock: Clock, onSnapshot: (id: string) => void) {
    this.#clock = clock;
    this.#onSnapshot = onSnapshot;
  }

  /** The whole entry of one connection; `[]`: none left. */
  publish(id: string, connection: string, instances: readonly FakeInstance[]): void {
    for (const one of instances) checkInstance(one);
    const service = this.#existing(id);
    if (service !== null && service.persistent.size > 0) {
      throw new FakeRefusal(
        400,
        `errCode: 400, errMsg: Current service ${named(id)} is persistent service, can't register ephemeral instance. `,
      );
    }
    this.#change(id, ({ publishers }) => {
      if (instances.length === 0) publishers.delete(connection);
      else publishers.set(connection, instances);
    });
  }

  /** A connection is gone: all that it published goes at once. */
  release(connection: string): void {
    for (const [id, service] of this.#services) {
      if (service.publishers.has(connection)) this.#change(id, ({ publishers }) => publishers.delete(connection));
    }
  }

  /** Over HTTP: kept by beats. */
  register(id: string, instance: FakeInstance): void {
    checkInstance(instance);
    if (!instance.ephemeral) return this.persist(id, instance);
    this.#change(id, ({ beating }) => beating.set(keyOf(instance), { instance, beatAt: this.#clock.now() }));
    this.#sweepLater();
  }

  persist(id: string, instance: FakeInstance): void {
    checkInstance(instance);
    const service = this.#existing(id);
    if (service !== null && (service.publishers.size > 0 || service.beating.size > 0)) {
      throw new FakeRefusal(
        400,
        `errCode: 400, errMsg: Current service ${named(id)} is ephemeral service, can't register persistent instance. `,
      );
    }
    this.#change(id, ({ persistent }) => persistent.set(keyOf(instance), instance));
  }

  deregister(id: string, identity: Pick<FakeInstance, 'ip' | 'port' | 'clusterName'>): void {
    if (this.#existing(id) === null) return;
    this.#change(id, ({ beating, persistent }) => {
      beating.delete(keyOf(identity));
      persistent.delete(keyOf(identity));
    });
  }

  /** False: no such instance. A beat makes it healthy. */
  beat(id: string, identity: Pick<FakeInstance, 'ip' | 'port' | 'clusterName'>): boolean {
    const beating = this.#existing(id)?.beating.get(keyOf(identity));
    if (beating === undefined) return false;
    beating.beatAt = this.#clock.now();
    if (!beating.instance.healthy) this.#change(id, () => (beating.instance = { ...beating.instance, healthy: true }));
    return true;
  }

  /** How often the server asks this instance to beat, ms: by its metadata, else as every other. */
  beatInterval(id: string, identity: Pick<FakeInstance, 'ip' | 'port' | 'clusterName'>): number {
    const beating = this.#existing(id)?.beating.get(keyOf(identity));
    return beating === undefined ? BEAT_MS : timeout(beating.instance, 'preserved.heart.beat.interval', BEAT_MS);
  }

  /** Console edits. */
  edit(id: string, key: string, fields: Partial<FakeInstance>): void {
    this.#change(id, ({ overlay }) => overlay.set(key, fields));
  }

  protect(id: string, threshold: number): void {
    this.#change(id, (service) => {
      service.protectThreshold = threshold;
    });
  }

  /** The service stays known, without instances. */
  touch(id: string): void {
    this.#change(id, () => {});
  }

  /** Names of a namespace as `group@@name`, known empty ones too. */
  names(namespace: string): readonly string[] {
    return [...this.#services.values()].flatMap((service) =>
      service.namespace === namespace ? [`${service.group}@@${service.name}`] : [],
    );
  }

  /** Names that have instances. */
  populated(namespace: string): readonly string[] {
    return [...this.#services].flatMap(([id, service]) =>
      service.namespace === namespace && all(service).length > 0 ? [id] : [],
    );
  }

  knows(id: string): boolean {
    return this.#services.has(id);
  }

  /** From the snapshot that pushes are made of: older than the data by up to 500 ms. */
  info(id: string): FakeInfo {
    const known = this.#snapshots.get(id);
    if (known !== undefined) return known;
    const fresh = this.#make(id);
    if (this.#services.has(id)) this.#snapshots.set(id, fresh);
    return fresh;
  }

  /** What admin reads show: the truth, disabled ones included; null for an unknown service. */
  everyHost(id: string): readonly FakeInstance[] | null {
    const service = this.#existing(id);
    return service === null ? null : all(service).map((one) => overlaid(service, one));
  }

  /** Everything is lost, as after a restart without persistent services. */
  wipe(): void {
    for (const timer of this.#merging.values()) timer.cancel();
    this.#merging.clear();
    this.#services.clear();
    this.#snapshots.clear();
  }

  stopTimers(): void {
    for (const timer of this.#merging.values()) timer.cancel();
    this.#merging.clear();
    this.#sweep?.cancel();
    this.#sweep = null;
  }

  #existing(id: string): Service | null {
    return this.#services.get(id) ?? null;
  }

  #change(id: string, change: (service: Service) => void): void {
    let service = this.#services.get(id);
    const before = service === undefined ? 0 : all(service).length;
    // The first read before the change keeps showing what was.
    if (!this.#snapshots.has(id)) this.#snapshots.set(id, this.#make(id));
    if (service === undefined) {
      const [namespace = '', group = '', name = ''] = splitId(id);
      service = {
        namespace,
        group,
        name,
        publishers: new Map(),
        beating: new Map(),
        persistent: new Map(),
        protectThreshold: null,
        overlay: new Map(),
      };
      this.#services.set(id, service);
      this.#snapshots.delete(id);
    }
    change(service);
    const after = all(service).length;
    if (before === 0 && after > 0) this.onName(id, 'ADD_SERVICE');
    if (before > 0 && after === 0) this.onName(id, 'DELETE_SERVICE');
    if (this.#merging.has(id)) return;
    this.#merging.set(
      id,
      this.#clock.setTimer(MERGE_MS, () => {
        this.#merging.delete(id);
        this.#snapshots.set(id, this.#make(id));
        this.#onSnapshot(id);
      }),
    );
  }

  #make(id: string): FakeInfo {
    const service = this.#existing(id);
    const shown =
      service === null
        ? []
        : all(service)
            .map((one) => overlaid(service, one))
            .filter(({ enabled }) => enabled);
    const healthy = shown.filter((one) => one.healthy).length;
    const threshold = this.oldProtection ? 0 : (service?.protectThreshold ?? null);
    const reached = threshold !== null && shown.length > 0 && healthy / shown.length <= threshold;
    const hosts = distinct(shown).map((one) => ({
      ...(service?.beating.has(keyOf(one)) ? {} : { instanceId: `${one.ip}#${one.port}#${one.clusterName}#${named(id)}` }),
      ...one,
      healthy: reached || one.healthy,
      serviceName: named(id),
      metadata: Object.fromEntries(
        Object.entries(one.metadata).flatMap(([key, value]) => (value === null ? [] : [[key, String(value)]])),
      ),
    }));
    return {
      hosts,
      lastRefTime: Math.floor(this.#clock.wallNow()) + this.skewMs,
      reachProtectionThreshold: reached && !this.oldProtection,
    };
  }

  /** Every 5 s: unhealthy after the beat timeout, gone after the delete timeout. */
  #sweepLater(): void {
    this.#sweep ??= this.#clock.setTimer(SWEEP_MS, () => {
      this.#sweep = null;
      const now = this.#clock.now();
      let left = false;
      for (const [id, service] of this.#services) {
        for (const [key, beating] of service.beating) {
          const silent = now - beating.beatAt;
          if (silent >= timeout(beating.instance, 'preserved.ip.delete.timeout', 30_000))
            this.#change(id, () => service.beating.delete(key));
          else {
            left = true;
            const late = silent >= timeout(beating.instance, 'preserved.heart.beat.timeout', 15_000);
            if (late && beating.instance.healthy)
              this.#change(id, () => (beating.instance = { ...beating.instance, healthy: false }));
          }
        }
      }
      if (left) this.#sweepLater();
    });
  }
}

/** `namespace@@group@@name` → its parts. */
export function splitId(id: string): readonly string[] {
  const [namespace = '', group = '', ...rest] = id.split('@@');
  return [namespace, group, rest.join('@@')];
}

function named(id: string): string {
  return splitId(id).slice(1).join('@@');
}

function keyOf({ ip, port, clusterName }: Pick<FakeInstance, 'ip' | 'port' | 'clusterName'>): string {
  return `${ip}#${port}#${clusterName}`;
}

function all({ publishers, beating, persistent }: Service): FakeInstance[] {
  return [...[...publishers.values()].flat(), ...[...beating.values()].map(({ instance }) => instance), ...persistent.values()];
}

function overlaid({ overlay }: Service, one: FakeInstance): FakeInstance {
  return { ...one, ...overlay.get(keyOf(one)) };
}

/** Equal instances of several publishers appear once; unequal ones are two hosts with one address. */
function distinct(instances: readonly FakeInstance[]): FakeInstance[] {
  return [...new Map(instances.map((one) => [JSON.stringify(one), one])).values()];
}

function timeout({ metadata }: FakeInstance, key: string, otherwise: number): number {
  const given = Number(metadata[key]);
  return Number.isFinite(given) && given > 0 ? given : otherwise;
}

function checkInstance({ port, clusterName, metadata }: FakeInstance): void {
  if (!(port >= 0 && port <= 65_535)) {
    throw new FakeRefusal(400, "Param check invalid:Param 'port' is illegal, the value should be between 0 and 65535.");
  }
  if (!/^[0-9a-zA-Z-]{1,64}$/.test(clusterName)) {
    throw new FakeRefusal(400, `Instance 'clusterName' should be characters with only 0-9a-zA-Z-. (current: ${clusterName})`);
  }
  const size = Object.entries(metadata).reduce((sum, [key, value]) => sum + key.length + String(value).length, 0);
  if (size > 1_024)
    throw new FakeRefusal(400, "Param check invalid:Param 'Metadata' is illegal, the param length should not exceed 1024.");
}

/** What the server's parameter check says of a group and a name, or null. */
export function nameFault(group: string, name: string): string | null {
  if (group === '') return "Param 'groupName' is illegal, groupName is blank";
  if (name === '' || name.length > 512 || name.startsWith('@') || name.includes('@@') || /\s/.test(name)) {
    return "Param check invalid:Param 'serviceName' is illegal, illegal characters should not appear in the param.";
  }
  return null;
}
