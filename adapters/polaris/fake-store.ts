// Owns what a fake Polaris knows: services, instances, aliases, beats, and a cache that shows changes a second late, as the real server's.
// Called by fake.ts; must never do what the real 1.18.1 would contradict (protocol notes, sections 4, 5, 16, 18).
import { createHash } from 'node:crypto';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { BAD_REQUEST, EXISTED, NO_CHANGE, NOT_FOUND, OK } from './errors.ts';
import { addedKeys } from './mapping.ts';
import {
  type DiscoverResponse,
  type Entry,
  type NativeInstance,
  type NativeResponse,
  type NativeService,
  TYPE_INSTANCE,
  TYPE_SERVICES,
  textOf,
} from './protocol.ts';

/** Changes become visible at the server's cache tick. */
export const CACHE_TICK_MS = 1_000;
/** Beats of an unknown instance that are answered with success. */
const UNKNOWN_BEATS = 4;

interface Record_ {
  readonly native: NativeInstance;
  readonly registeredAt: number;
  beatAt: number;
}

interface Service {
  readonly namespace: string;
  readonly name: string;
  readonly id: string;
  readonly records: Map<string, Record_>;
}

/** A picture of the whole store, for restoring older data. */
export type StoreImage = ReadonlyMap<string, { readonly service: Service; readonly records: ReadonlyMap<string, Record_> }>;

/** What reads see. */
interface Shown {
  readonly service: Service;
  readonly instances: readonly NativeInstance[];
  readonly revision: string;
}

export class FakeStore {
  readonly #clock: Clock;
  readonly #services = new Map<string, Service>();
  /** Alias → real service. */
  readonly #aliases = new Map<string, string>();
  readonly #unknownBeats = new Map<string, number>();
  #shown = new Map<string, Shown>();
  #aliasesShown = new Map<string, string>();
  #tick: Timer | null = null;
  #counter = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#arm();
  }

  stop(): void {
    this.#tick?.cancel();
  }

  /** Loses everything; at once, as after a restart. */
  wipe(): void {
    this.#services.clear();
    this.#aliases.clear();
    this.#unknownBeats.clear();
    this.refresh();
  }

  image(): StoreImage {
    return new Map([...this.#services].map(([id, service]) => [id, { service, records: new Map(service.records) }]));
  }

  restore(image: StoreImage): void {
    this.#services.clear();
    for (const [id, { service, records }] of image) this.#services.set(id, { ...service, records: new Map(records) });
    this.refresh();
  }

  /** Makes every change visible now. */
  refresh(): void {
    this.#expire();
    this.#shown = new Map([...this.#services].map(([id, service]) => [id, shownOf(service)]));
    this.#aliasesShown = new Map(this.#aliases);
  }

  register(native: NativeInstance): NativeResponse {
    const namespace = textOf(native.namespace) ?? '';
    const name = textOf(native.service) ?? '';
    const host = textOf(native.host) ?? '';
    const port = native.port?.value ?? 0;
    const fault = registerFault(native);
    if (fault !== null) return refusal(fault);
    const place = placeOf(namespace, name);
    if (this.#aliases.has(place)) return refusal(BAD_REQUEST);
    const id = textOf(native.id) || idOfAddress(native);
    const service = this.#service(namespace, name);
    const before = service.records.get(id)?.native;
    const heartbeat = native.healthCheck?.heartbeat;
    const checked =
      heartbeat !== undefined && native.enableHealthCheck?.value !== false && native.enableHealthCheck !== undefined;
    const ttl = heartbeat?.ttl?.value ?? 0;
    service.records.set(id, {
      native: {
        ...native,
        id: { value: id },
        weight: native.weight ?? { value: 100 },
        healthy: { value: native.healthy === undefined ? true : (native.healthy.value ?? false) },
        isolate: native.isolate === undefined ? (before?.isolate ?? { value: false }) : { value: native.isolate.value ?? false },
        healthCheck: checked ? { type: 1, heartbeat: { ttl: { value: ttl > 0 && ttl <= 60 ? ttl : 5 } } } : {},
        revision: { value: this.#unique() },
      },
      registeredAt: this.#clock.now(),
      beatAt: this.#clock.now(),
    });
    const echo = {
      id: { value: id },
      service: { value: name },
      namespace: { value: namespace },
      host: { value: host },
      port: { value: port },
    };
    return { code: { value: OK }, info: { value: 'execute success' }, instance: echo };
  }

  deregister(native: NativeInstance): NativeResponse {
    const named = textOf(native.host) !== undefined && textOf(native.service) !== undefined;
    const id = textOf(native.id) ?? (named ? idOfAddress(native) : undefined);
    if (id === undefined) return refusal(400_120);
    if (id === '') return refusal(400_130);
    for (const service of this.#services.values()) service.records.delete(id);
    return { code: { value: OK }, info: { value: 'execute success' } };
  }

  heartbeat(native: NativeInstance): NativeResponse {
    const id = textOf(native.id);
    if (id === undefined) return refusal(400_120);
    if (id === '') return refusal(400_130);
    // An instance that the cache does not show yet counts as unknown, too.
    if (this.#beat(id)) return { code: { value: OK } };
    const beats = (this.#unknownBeats.get(id) ?? 0) + 1;
    this.#unknownBeats.set(id, beats);
    return beats > UNKNOWN_BEATS ? { ...refusal(NOT_FOUND), instance: native } : { code: { value: OK } };
  }

  /** Beats of a batch have no answer of their own. */
  batch(ids: readonly string[]): void {
    for (const id of ids) this.#beat(id);
  }

  /** Changes fields of an instance on the console's path. */
  change(namespace: string, name: string, id: string, fields: Partial<NativeInstance>): void {
    const service = this.#services.get(placeOf(namespace, name));
    const record = service?.records.get(id);
    if (service === undefined || record === undefined) return;
    service.records.set(id, { ...record, native: { ...record.native, ...fields, revision: { value: this.#unique() } } });
  }

  /** Puts any record, also one that a register would refuse. */
  force(namespace: string, name: string, native: NativeInstance): void {
    const id = textOf(native.id) ?? '';
    const now = this.#clock.now();
    const record = { native: { ...native, revision: { value: this.#unique() } }, registeredAt: now, beatAt: now };
    this.#service(namespace, name).records.set(id, record);
  }

  createService(namespace: string, name: string): void {
    this.#service(namespace, name);
  }

  removeAll(namespace: string, name: string): void {
    this.#services.get(placeOf(namespace, name))?.records.clear();
  }

  deleteService(namespace: string, name: string): void {
    this.#services.delete(placeOf(namespace, name));
  }

  alias(namespace: string, alias: string, target: { namespace: string; name: string }): number {
    const place = placeOf(namespace, alias);
    if (this.#aliases.has(place) || this.#services.has(place)) return EXISTED;
    if (!this.#services.has(placeOf(target.namespace, target.name))) return 400_301;
    this.#aliases.set(place, placeOf(target.namespace, target.name));
    return OK;
  }

  removeAlias(namespace: string, alias: string): void {
    this.#aliases.delete(placeOf(namespace, alias));
  }

  /** The real service of an alias, as the console knows it: at once. */
  aliasTarget(namespace: string, alias: string): { readonly namespace: string; readonly name: string } | null {
    const [ns, name] = this.#aliases.get(placeOf(namespace, alias))?.split('\n') ?? [];
    return ns === undefined || name === undefined ? null : { namespace: ns, name };
  }

  /** The answer of an INSTANCE or SERVICES read. */
  discover(type: number, asked: NativeService, onlyHealthy = false): DiscoverResponse {
    return type === TYPE_SERVICES ? this.#list(asked) : this.#instances(asked, onlyHealthy);
  }

  #instances(asked: NativeService, onlyHealthy: boolean): DiscoverResponse {
    const name = textOf(asked.name) ?? '';
    const namespace = textOf(asked.namespace) ?? 'default';
    if (name === '') return { ...refusal(400_120), type: TYPE_INSTANCE };
    const echo = { name: { value: name }, namespace: { value: namespace } };
    const place = placeOf(namespace, name);
    const shown = this.#shown.get(this.#aliasesShown.get(place) ?? place);
    const revision = textOf(asked.revision);
    if (shown === undefined) return { ...refusal(NOT_FOUND), type: TYPE_INSTANCE, service: { ...echo, ...asked, ...echo } };
    if (revision === shown.revision) {
      const service = { ...echo, revision: { value: revision } };
      return { code: { value: NO_CHANGE }, info: { value: 'discover data is no change' }, type: TYPE_INSTANCE, service };
    }
    const { service } = shown;
    const instances = onlyHealthy ? shown.instances.filter(({ healthy }) => healthy?.value === true) : shown.instances;
    return {
      code: { value: OK },
      info: { value: 'execute success' },
      type: TYPE_INSTANCE,
      service: { ...echo, id: { value: service.id }, revision: { value: shown.revision } },
      // 1.18.1 rewrites the service of the instances to the asked name.
      instances: instances.map((one) => ({ ...one, service: { value: name }, namespace: { value: namespace } })),
      aliasFor: { name: { value: service.name }, namespace: { value: service.namespace }, id: { value: service.id } },
    };
  }

  #list(asked: NativeService): DiscoverResponse {
    const namespace = textOf(asked.namespace) ?? '';
    const places = [...this.#shown.values()].map(({ service }) => ({ namespace: service.namespace, name: service.name }));
    for (const place of this.#aliasesShown.keys()) {
      const [ns = '', name = ''] = place.split('\n');
      places.push({ namespace: ns, name });
    }
    const found = places.filter((one) => namespace === '' || one.namespace === namespace);
    const service: NativeService = { name: {}, namespace: { value: namespace } };
    if (found.length === 0) return { code: { value: OK }, type: TYPE_SERVICES, service };
    const revision = sha1(found.map((one) => placeOf(one.namespace, one.name)));
    if (revision === textOf(asked.revision)) {
      return { code: { value: NO_CHANGE }, type: TYPE_SERVICES, service: { ...service, revision: { value: revision } } };
    }
    return {
      code: { value: OK },
      type: TYPE_SERVICES,
      service: { ...service, revision: { value: revision } },
      services: found.map((one) => ({ name: { value: one.name }, namespace: { value: one.namespace } })),
    };
  }

  #beat(id: string): boolean {
    for (const { service, instances } of this.#shown.values()) {
      if (!instances.some((one) => textOf(one.id) === id)) continue;
      const record = service.records.get(id);
      if (record === undefined) return true;
      record.beatAt = this.#clock.now();
      return true;
    }
    return false;
  }

  /** Unhealthy after three times the ttl without a beat, healthy again with one; never removed. */
  #expire(): void {
    for (const { records } of this.#services.values()) {
      for (const [id, record] of records) {
        const ttl = record.native.healthCheck?.heartbeat?.ttl?.value;
        if (ttl === undefined) continue;
        const alive = this.#clock.now() - record.beatAt <= 3_000 * ttl;
        const beaten = record.beatAt > record.registeredAt;
        if (alive === (record.native.healthy?.value ?? false) || (alive && !beaten)) continue;
        records.set(id, {
          ...record,
          native: { ...record.native, healthy: { value: alive }, revision: { value: this.#unique() } },
        });
      }
    }
  }

  #service(namespace: string, name: string): Service {
    const place = placeOf(namespace, name);
    let service = this.#services.get(place);
    if (service === undefined) {
      service = { namespace, name, id: this.#unique(), records: new Map() };
      this.#services.set(place, service);
    }
    return service;
  }

  #unique(): string {
    return sha1([`unique ${++this.#counter}`, String(this.#clock.now())]);
  }

  #arm(): void {
    this.#tick = this.#clock.setTimer(CACHE_TICK_MS, () => {
      this.refresh();
      this.#arm();
    });
  }
}

function shownOf(service: Service): Shown {
  const natives = [...service.records.values()].map(({ native }) => native);
  const instances = natives.map((native) => {
    const added = [...addedKeys(native)].map(([key, value]): Entry => ({ key, value }));
    const own = (native.metadata ?? []).filter(({ key }) => !added.some((one) => one.key === key));
    return { ...native, metadata: [...own, ...added] };
  });
  const revisions = natives.map(({ revision }) => textOf(revision) ?? '').sort();
  return { service, instances, revision: sha1([service.id, ...revisions]) };
}

/** The id that the server makes of an address when the writer gives none. */
function idOfAddress({ namespace, service, host, port }: NativeInstance): string {
  const text = `${textOf(namespace) ?? ''}##${textOf(service) ?? ''}##${textOf(host) ?? ''}##${port?.value ?? 0}`;
  return createHash('sha1').update(text).digest('hex');
}

function registerFault(native: NativeInstance): number | null {
  const name = textOf(native.service) ?? '';
  const namespace = textOf(native.namespace) ?? '';
  if (!/^[0-9A-Za-z\-./:_]{1,64}$/.test(namespace)) return 400_110;
  if (!/^[0-9A-Za-z\-./:_]{1,128}$/.test(name)) return 400_120;
  const host = textOf(native.host) ?? '';
  if (host.length === 0 || host.length > 128) return 400_131;
  if (native.port === undefined || (native.port.value ?? 0) > 65_535) return 400_132;
  if ((native.weight?.value ?? 0) > 65_535) return 400_103;
  if ((textOf(native.protocol) ?? '').length > 32) return 400_136;
  if ((textOf(native.version) ?? '').length > 32) return 400_137;
  const metadata = native.metadata ?? [];
  const long = metadata.some(({ key = '', value = '' }) => key.length > 128 || value.length > 4_096);
  return metadata.length > 64 || long ? 400_150 : null;
}

/** An answer with a code and its text. */
export function refusal(code: number): { readonly code: { readonly value: number }; readonly info: { readonly value: string } } {
  const texts: ReadonlyMap<number, string> = new Map([
    [NOT_FOUND, 'not found resource'],
    [401_001, 'invalid token'],
    [400_004, 'invalid discover resource'],
  ]);
  return { code: { value: code }, info: { value: texts.get(code) ?? 'refused' } };
}

function placeOf(namespace: string, name: string): string {
  return `${namespace}\n${name}`;
}

function sha1(parts: readonly string[]): string {
  const hash = createHash('sha1');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}
