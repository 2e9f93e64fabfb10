// Owns the mapping between a layout's words and our model, both ways: addresses, weights, metadata, identity. Pure.
// Called by feed.ts and writer.ts; must never throw for anything that a registry holds.
import { canonicalHost } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, type Locality, NORMAL_WEIGHT, nativeWeight, scaleWeight } from '../../src/model/instance.ts';
import { sharedInterner } from '../../src/model/intern.ts';
import { boundedMetadata, sameMetadata } from '../../src/model/metadata.ts';
import { nameFault, type ServiceKey, serviceId } from '../../src/model/service.ts';
import type { RejectedRecord } from '../../src/model/snapshot.ts';
import type { Edit, Layout, NativeInstance, NativeService, Parsed } from './layouts/layout.ts';
import type { KeyValue } from './protocol.ts';

/** Shows the lease of a record; never written. */
export const LEASE_KEY = 'etcd.lease';

/** Below the prefix: locks of migrations, which are no service in any layout. */
const OWN_KEYS = '.weir/';

/** What one key contributes to a service; `service` null: nothing that could be listed. */
export interface KeyRecord {
  readonly service: ServiceKey | null;
  readonly instances: readonly Instance[];
  readonly rejected: readonly RejectedRecord[];
  /** Services that the key counts for beside its own; only in layouts with `combine`. */
  readonly also?: readonly ServiceKey[];
  readonly tag?: string;
}

export interface MappingOptions {
  readonly layout: Layout;
  readonly prefix: string;
  readonly namespace: string;
  readonly normalWeight: number;
  readonly dial: DialPolicy;
  readonly count: (what: string, by?: number) => void;
}

const NONE_REJECTED: readonly RejectedRecord[] = [];
const NOTHING: KeyRecord = { service: null, instances: [], rejected: NONE_REJECTED };

/**
 * One key of the store → its record. `last`: the record it had (kept for a value that became undecodable, rule 12); it is returned
 * itself when nothing that we show has changed, so that a key that is only put again can be told.
 */
export function recordOf(key: string, kv: KeyValue, last: KeyRecord | null, options: MappingOptions): KeyRecord {
  const made = newRecord(key, kv, last, options);
  return last !== null && sameRecord(last, made) ? last : made;
}

function newRecord(key: string, kv: KeyValue, last: KeyRecord | null, options: MappingOptions): KeyRecord {
  const parsed = parse(key, kv, options);
  const native = parsed.service;
  const service = native === undefined ? null : serviceKeyOf(native, options.namespace);
  if (service === null) {
    if (parsed.kind !== 'skip') options.count('keys.bad');
    return NOTHING;
  }
  const also = alsoOf(parsed, options.namespace);
  if (parsed.kind === 'skip') return { service, instances: [], rejected: NONE_REJECTED, ...also };
  if (parsed.kind === 'bad') {
    options.count('keys.bad');
    return {
      // The name may stand in the value: what cannot be read any more stays where it was.
      ...(last === null || last.service === null ? { service, instances: [], ...also } : last),
      rejected: [{ nativeId: safeText(parsed.id), reason: safeText(parsed.reason) }],
    };
  }
  const mapped: Instance[] = [];
  const rejected: RejectedRecord[] = [];
  const reject = (id: string, reason: string): void => {
    options.count('instances.rejected');
    rejected.push({ nativeId: safeText(id), reason: safeText(reason) });
  };
  for (const one of parsed.instances) {
    const made = instanceOf(one, kv, options);
    // A large store repeats the same few labels; what is shared here, the catalog takes as it is.
    if (typeof made !== 'string') mapped.push(sharedInterner.instance(made, made.metadata));
    else reject(one.id, made);
  }
  for (const { id, reason } of parsed.rejected ?? []) reject(id, reason);
  // A copy holds what it needs; an array that was pushed to has room for 17, which is 120 bytes for each key of the store.
  const instances = mapped.slice();
  const refused = rejected.length === 0 ? NONE_REJECTED : rejected;
  // A literal where it is possible: there is one for each key, and an object put together by spreads costs three times the memory.
  if (parsed.also === undefined && parsed.tag === undefined) return { service, instances, rejected: refused };
  return { service, instances, rejected: refused, ...also, ...(parsed.tag === undefined ? {} : { tag: parsed.tag }) };
}

function alsoOf({ also }: Parsed, namespace: string): { also?: readonly ServiceKey[] } {
  if (also === undefined) return {};
  return { also: also.map((native) => serviceKeyOf(native, namespace)).filter((key) => key !== null) };
}

/** All services that a record counts for, the one that lists it first. */
export function homesOf(record: KeyRecord): readonly ServiceKey[] {
  const { service, also = [] } = record;
  return service === null ? also : [service, ...also];
}

function sameRecord(a: KeyRecord, b: KeyRecord): boolean {
  const homesOfB = homesOf(b).map(serviceId);
  const homes = homesOf(a);
  return (
    a.tag === b.tag &&
    homes.length === homesOfB.length &&
    homes.every((home, n) => serviceId(home) === homesOfB[n]) &&
    a.instances.length === b.instances.length &&
    a.rejected.length === b.rejected.length &&
    a.instances.every((one, n) => sameInstance(one, b.instances[n])) &&
    a.rejected.every(({ nativeId, reason }, n) => nativeId === b.rejected[n]?.nativeId && reason === b.rejected[n]?.reason)
  );
}

const COMPARED = ['id', 'host', 'port', 'transport', 'weight', 'health', 'isolated', 'protocol', 'version'] as const;

function sameInstance(a: Instance, b: Instance | undefined): boolean {
  return (
    b !== undefined &&
    COMPARED.every((field) => a[field] === b[field]) &&
    sameMetadata(a.metadata, b.metadata) &&
    (['region', 'zone', 'campus'] as const).every((part) => a.locality?.[part] === b.locality?.[part])
  );
}

function parse(key: string, kv: KeyValue, { layout, prefix, count }: MappingOptions): Parsed {
  if (!key.startsWith(prefix) || key.startsWith(OWN_KEYS, prefix.length)) return { kind: 'skip' };
  try {
    return layout.parse(key.slice(prefix.length), kv.value);
  } catch {
    // A row that throws is our bug; it must cost this key only (rule 12).
    count('keys.parserFault');
    return { kind: 'skip' };
  }
}

/** Null for a name that breaks the limits of the model. */
export function serviceKeyOf(native: NativeService, namespace: string): ServiceKey | null {
  const key = { namespace: native.namespace ?? namespace, name: native.name };
  if (nameFault(key.name) !== null || nameFault(key.namespace) !== null || key.namespace.includes('/')) return null;
  return sharedInterner.service(key);
}

const LIFTED = new Set(['version', 'protocol', 'region', 'zone', 'campus']);

/** A native instance → ours, or the reason why not. */
function instanceOf(native: NativeInstance, kv: KeyValue, options: MappingOptions): Instance | string {
  const { layout, count, dial } = options;
  const host = canonicalHost(native.host);
  if (host === null) return 'the host is neither a canonical IP literal nor a host name';
  const refusal = dial(host, native.port);
  if (refusal !== null) return REFUSAL_TEXT[refusal];
  const weight = native.weight === undefined ? NORMAL_WEIGHT : scaleWeight(native.weight, options.normalWeight);
  if (weight === null) return 'the weight is negative or no number';
  const id = safeText(native.id);
  if (id === '' || nameFault(id) !== null) return 'the id is empty or too long';
  const bounded = boundedMetadata(native.metadata ?? []);
  if (bounded.cut > 0) count('metadata.cut', bounded.cut);
  const leased = kv.lease !== '0';
  const metadata = new Map([...bounded.metadata].filter(([name]) => !LIFTED.has(name) && name !== LEASE_KEY));
  if (leased) metadata.set(LEASE_KEY, leaseHex(kv.lease));
  const version = native.version ?? bounded.metadata.get('version');
  const protocol = native.protocol ?? bounded.metadata.get('protocol');
  const locality = localityOf(bounded.metadata);
  return {
    id,
    host,
    port: native.port,
    transport: native.transport ?? 'tcp',
    weight,
    health: leased || layout.leased === true ? 'healthy' : 'unknown',
    isolated: native.isolated ?? false,
    metadata,
    ...(version === undefined ? {} : { version }),
    ...(protocol === undefined ? {} : { protocol }),
    ...(locality === null ? {} : { locality }),
  };
}

function localityOf(metadata: ReadonlyMap<string, string>): Locality | null {
  const region = metadata.get('region');
  const zone = metadata.get('zone');
  const campus = metadata.get('campus');
  if (region === undefined && zone === undefined && campus === undefined) return null;
  return {
    ...(region === undefined ? {} : { region }),
    ...(zone === undefined ? {} : { zone }),
    ...(campus === undefined ? {} : { campus }),
  };
}

/** Control characters out, so that ids and reasons can be shown. */
function safeText(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, '?').slice(0, 200);
}

/** Lease id (decimal i64) as etcdctl prints it. */
export function leaseHex(lease: string): string {
  return BigInt.asUintN(64, BigInt(lease)).toString(16);
}

/** What a write puts where: key below nothing (prefix included), value, and the id that reads will show. */
export interface WriteForm {
  readonly key: string;
  readonly id: string;
  readonly value: string;
}

/** Our instance in the layout's form, or the reason why it cannot be written. */
export function writeForm(service: ServiceKey, instance: Instance, options: MappingOptions): WriteForm | string {
  const { layout, prefix, namespace, normalWeight } = options;
  const { write } = layout;
  if (write === undefined) return `the layout ${layout.name} is read only`;
  const native = nativeServiceOf(service, layout, namespace);
  if (typeof native === 'string') return native;
  const refused = write.refuse?.(native, instance) ?? null;
  if (refused !== null) return refused;
  const silent = instance.isolated || instance.health === 'unhealthy' || instance.weight === 0;
  if (silent && (layout.normalWeight === null || layout.noZeroWeight === true)) {
    return `the layout ${layout.name} can say neither unhealthy nor weight 0: remove the instance instead`;
  }
  const id = write.idOf(instance);
  const weight = nativeWeight(silent ? 0 : instance.weight, normalWeight, layout.weightStep ?? 1);
  const value = write.valueOf({ service: native, id, instance, weight, folded: folded(instance) });
  return { key: prefix + write.keyOf(native, id), id, value };
}

/** Our instance as an entry of a key that holds many; `ours` is for the caller to say. */
export function editForm(instance: Instance, { layout, normalWeight }: MappingOptions): Omit<Edit, 'ours'> {
  const { host, port } = instance;
  const silent = instance.isolated || instance.health === 'unhealthy';
  const weight = nativeWeight(silent ? 0 : instance.weight, normalWeight, layout.weightStep ?? 1);
  return { id: layout.edit?.idOf(instance) ?? instance.id, host, port, weight };
}

/** The key that carries an id of {@link writeForm}. */
export function keyOfId(service: ServiceKey, id: string, { layout, prefix, namespace }: MappingOptions): string | null {
  const native = nativeServiceOf(service, layout, namespace);
  return layout.write === undefined || typeof native === 'string' ? null : prefix + layout.write.keyOf(native, id);
}

/** Layouts that name no namespace hold one only: the source's. */
export function nativeServiceOf(service: ServiceKey, layout: Layout, namespace: string): NativeService | string {
  if (layout.namespaced === true) return service;
  if (service.namespace === namespace) return { name: service.name };
  return `this source holds the namespace ${namespace} only, not ${service.namespace}`;
}

function folded(instance: Instance): ReadonlyMap<string, string> {
  const metadata = new Map(instance.metadata);
  metadata.delete(LEASE_KEY);
  if (instance.version !== undefined) metadata.set('version', instance.version);
  if (instance.protocol !== undefined) metadata.set('protocol', instance.protocol);
  const { region, zone, campus } = instance.locality ?? {};
  if (region !== undefined) metadata.set('region', region);
  if (zone !== undefined) metadata.set('zone', zone);
  if (campus !== undefined) metadata.set('campus', campus);
  return metadata;
}
