// Owns the mapping between Nacos' words and our model, both ways: names, addresses, weights, health, metadata. Pure.
// Called by feed.ts, poller.ts, reader.ts and the writers; must never throw for anything that a registry holds.
import { createHash } from 'node:crypto';
import { canonicalHost } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, type Locality, nativeWeight, type RegistryHealth, scaleWeight } from '../../src/model/instance.ts';
import { boundedMetadata } from '../../src/model/metadata.ts';
import { compareText, nameFault, type ServiceKey } from '../../src/model/service.ts';
import { type RejectedRecord, SourceError } from '../../src/model/snapshot.ts';
import type { NacosConfig } from './config.ts';
import { safeText } from './errors.ts';
import { decodeHost, type NativeHost } from './native.ts';

export const CLUSTER_KEY = 'nacos.cluster';
export const EPHEMERAL_KEY = 'nacos.ephemeral';
const SHOWN_ONLY = new Set([CLUSTER_KEY, EPHEMERAL_KEY]);
const LIFTED = new Set(['version', 'protocol', 'region', 'zone', 'campus']);
const MARKERS = 'weir-';
const COPY_KEYS = [`${MARKERS}origin`, `${MARKERS}kept`] as const;
/** Ends the id of a copy. */
const COPY = '#copy';
/** Steers the server (beat and delete timeouts): never copied from an instance (section 5, rule 14). */
const PRESERVED = 'preserved.';
/** Bookkeeping of Polaris' face, of which one part changes with each connection. */
const FACE_ONLY = 'internal-nacos-';
const MAX_WEIGHT = 10_000;
/** Section 2: sum of the lengths of keys and values. */
export const MAX_METADATA_CHARS = 1_024;

/** A service as Nacos names it. */
export interface NativeName {
  readonly group: string;
  readonly name: string;
}

export interface MappingOptions
  extends Pick<NacosConfig, 'clusters' | 'clusterAsZone' | 'normalWeight' | 'writeCluster' | 'isolate'> {
  readonly dial: DialPolicy;
  readonly count: (what: string, by?: number) => void;
}

/** What of the server's word on health is to be believed (section 5, rule 4). */
export type HealthWord = 'believed' | 'protected';

export interface MappedList {
  /** Sorted by id. */
  readonly instances: readonly Instance[];
  readonly rejected: readonly RejectedRecord[];
  /** Differs when anything of the list that we show differs. */
  readonly digest: string;
}

/** Our name of a service. */
export function keyOf(config: Pick<NacosConfig, 'namespace' | 'group'>, { group, name }: NativeName): ServiceKey {
  return { namespace: ourNamespace(config.namespace), name: group === config.group ? name : `${group}@@${name}` };
}

/** `public` is `default` with us. */
export function ourNamespace(namespace: string): string {
  return namespace === 'public' ? 'default' : namespace;
}

/** Nacos' name of a key. Throws SourceError `refused` for what this source cannot have. */
export function nativeName(
  config: Pick<NacosConfig, 'namespace' | 'group' | 'groups'>,
  { namespace, name }: ServiceKey,
): NativeName {
  const ours = ourNamespace(config.namespace);
  if (namespace !== ours) {
    throw new SourceError('refused', `nacos: this source holds the namespace ${ours} only; add a source for another one`);
  }
  const at = name.indexOf('@@');
  const native = at < 0 ? { group: config.group, name } : { group: name.slice(0, at), name: name.slice(at + 2) };
  const fault = badName(native);
  if (fault !== null) throw new SourceError('refused', `nacos: no service can have this name: ${fault}`);
  if (config.groups !== null && !config.groups.has(native.group)) {
    throw new SourceError('refused', `nacos: the group of this service is not among groups of this source`);
  }
  return native;
}

/** What the server would refuse (section 2), or null. */
export function badName({ group, name }: NativeName): string | null {
  const fault = nameFault(name);
  if (fault !== null) return `it ${fault}`;
  if (!/^[a-zA-Z0-9_:.-]{1,128}$/.test(group))
    return 'the group is empty, too long or holds other characters than a-z A-Z 0-9 - _ : .';
  if (name.length > 512) return 'it is longer than 512 characters';
  if (name.startsWith('@') || name.includes('@@')) return 'it begins with "@" or holds "@@"';
  if (/\s/.test(name)) return 'it holds white space';
  return /[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]/.test(name) ? 'it holds CJK characters' : null;
}

/** Hosts of one service → instances. `word` says whether the server's health is to be believed. */
export function mapHosts(hosts: readonly unknown[], word: HealthWord, options: MappingOptions): MappedList {
  const byAddress = new Map<string, Instance>();
  const rejected: RejectedRecord[] = [];
  for (const value of hosts) {
    const host = decodeHost(value);
    if (!('reason' in host) && options.clusters !== null && !options.clusters.has(host.cluster)) continue;
    const made = 'reason' in host ? host : instanceOf(host, word, options);
    if ('reason' in made) {
      options.count('instances.rejected');
      rejected.push({ nativeId: safeText(made.id, 200), reason: safeText(made.reason, 200) });
      continue;
    }
    // A copy of ours stands beside the provider's own record: if it hid that, nobody would see that the provider has moved.
    const address = `${made.host} ${made.port} ${isCopy(made.metadata)}`;
    const twin = byAddress.get(address);
    if (twin !== undefined) options.count('instances.duplicate');
    if (twin === undefined || preferred(made, twin)) byAddress.set(address, made);
  }
  const instances = [...byAddress.values()].sort((a, b) => compareText(a.id, b.id));
  return { instances, rejected, digest: digestOf(instances, rejected) };
}

/** Section 9: of several publishers of one address the healthy one, then the one of more weight; then the smaller id. */
function preferred(made: Instance, twin: Instance): boolean {
  const healthy = Number(made.health === 'healthy') - Number(twin.health === 'healthy');
  if (healthy !== 0) return healthy > 0;
  return made.weight === twin.weight ? compareText(made.id, twin.id) < 0 : made.weight > twin.weight;
}

function digestOf(instances: readonly Instance[], rejected: readonly RejectedRecord[]): string {
  const hash = createHash('sha1');
  for (const { metadata, ...fields } of instances) {
    // The order of keys is nobody's word.
    const entries = metadata.size < 2 ? [...metadata] : [...metadata].sort(([a], [b]) => compareText(a, b));
    hash.update(JSON.stringify([fields, entries]));
  }
  hash.update(JSON.stringify(rejected));
  return hash.digest('base64');
}

function instanceOf(native: NativeHost, word: HealthWord, options: MappingOptions): Instance | { id: string; reason: string } {
  const id = idOf(native.ip, native.port, native.cluster, isCopy(new Map(native.metadata)));
  if (id.length > 512 || safeText(id, 512) !== id) return { id, reason: 'the id is too long or holds control characters' };
  const host = canonicalHost(native.ip);
  if (host === null) return { id, reason: 'the host is neither a canonical IP literal nor a host name' };
  const refusal = options.dial(host, native.port);
  if (refusal !== null) return { id, reason: REFUSAL_TEXT[refusal] };
  if (native.weight > MAX_WEIGHT) options.count('weight.clamped');
  const weight = scaleWeight(Math.min(native.weight, MAX_WEIGHT), options.normalWeight);
  if (weight === null) return { id, reason: 'the weight is negative or no number' };
  const { metadata, cut } = boundedMetadata(shownMetadata(native));
  if (cut > 0) options.count('metadata.cut', cut);
  const raw = new Map(native.metadata);
  const protocol = textOf(raw.get('protocol'));
  const version = textOf(raw.get('version'));
  const locality = localityOf(raw, options.clusterAsZone ? native.cluster : null);
  return {
    id,
    host,
    port: native.port,
    transport: 'tcp',
    weight,
    health: word === 'protected' ? 'unknown' : native.healthy ? 'healthy' : 'unhealthy',
    isolated: !native.enabled,
    metadata,
    ...(protocol === undefined ? {} : { protocol }),
    ...(version === undefined ? {} : { version }),
    ...(locality === null ? {} : { locality }),
  };
}

function* shownMetadata(native: NativeHost): Generator<readonly [string, unknown]> {
  // First, so that the limit of keys never cuts them.
  yield [CLUSTER_KEY, native.cluster];
  yield [EPHEMERAL_KEY, String(native.ephemeral)];
  for (const entry of native.metadata) {
    const [key, value] = entry;
    // null entries vanish in Nacos, too.
    if (!LIFTED.has(key) && !SHOWN_ONLY.has(key) && !key.startsWith(FACE_ONLY) && value !== null) yield entry;
  }
}

/** Text of a lifted field; what is no short plain text is left out. */
function textOf(value: unknown): string | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  const text = String(value);
  return text !== '' && text.length <= 255 && safeText(text, 255) === text ? text : undefined;
}

function localityOf(metadata: ReadonlyMap<string, unknown>, cluster: string | null): Locality | null {
  const region = textOf(metadata.get('region'));
  const zone = textOf(metadata.get('zone')) ?? cluster ?? undefined;
  const campus = textOf(metadata.get('campus'));
  if (region === undefined && zone === undefined && campus === undefined) return null;
  return {
    ...(region === undefined ? {} : { region }),
    ...(zone === undefined ? {} : { zone }),
    ...(campus === undefined ? {} : { campus }),
  };
}

// From us to Nacos.

/** An instance as Nacos takes it, over gRPC as it is, over HTTP field by field. */
export interface NativeInstance {
  readonly ip: string;
  readonly port: number;
  readonly weight: number;
  readonly healthy: boolean;
  readonly enabled: boolean;
  readonly ephemeral: boolean;
  readonly clusterName: string;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface WriteShape {
  readonly ephemeral: boolean;
  /** Added by us to steer the server; takes its part of the budget first. */
  readonly preserved: Readonly<Record<string, string>>;
  /** How `unknown` is said: a copy must stay routable, one of our own is not proved yet. */
  readonly unknownIs: boolean;
  /** Polaris' face cuts the fraction of a weight off. */
  readonly wholeWeights: boolean;
}

/** Our instance in Nacos' words. What has no place there is counted as `write.lost`. */
export function nativeInstance(instance: Instance, shape: WriteShape, options: MappingOptions): NativeInstance {
  const given = instance.metadata.get(CLUSTER_KEY);
  const clusterName = given !== undefined && /^[0-9a-zA-Z-]{1,64}$/.test(given) ? given : options.writeCluster;
  const step = shape.wholeWeights ? 1 : options.normalWeight / 100;
  const silent = instance.isolated && options.isolate === 'weight';
  const weight = silent ? 0 : Math.min(MAX_WEIGHT, nativeWeight(instance.weight, options.normalWeight, step));
  const { metadata, lost } = budgeted(instance, shape.preserved);
  if (lost > 0) options.count('write.lost', lost);
  return {
    ip: instance.host,
    port: instance.port,
    weight,
    healthy: healthyOf(instance.health, shape.unknownIs),
    enabled: !(instance.isolated && options.isolate === 'disable'),
    ephemeral: shape.ephemeral,
    clusterName,
    metadata,
  };
}

/** Nacos knows no `unknown`. */
export function healthyOf(health: RegistryHealth, unknownIs: boolean): boolean {
  return health === 'unknown' ? unknownIs : health === 'healthy';
}

/** The id that the instance has in snapshots. */
export function nativeId({ ip, port, clusterName, metadata }: NativeInstance): string {
  return idOf(ip, port, clusterName, isCopy(new Map(Object.entries(metadata))));
}

function idOf(ip: string, port: number, cluster: string, copy: boolean): string {
  return `${ip}#${port}#${cluster}${copy ? COPY : ''}`;
}

/** What a mirror wrote, also once a finish has kept it. */
export function isCopy(metadata: ReadonlyMap<string, unknown>): boolean {
  return COPY_KEYS.some((key) => metadata.has(key));
}

/** Markers of copies and lifted fields first, then the rest while the budget lasts. */
function budgeted(
  instance: Instance,
  preserved: Readonly<Record<string, string>>,
): { metadata: Record<string, string>; lost: number } {
  const { region, zone, campus } = instance.locality ?? {};
  const lifted = Object.entries({ version: instance.version, protocol: instance.protocol, region, zone, campus });
  const rest = [...instance.metadata].filter(([key]) => !LIFTED.has(key) && !SHOWN_ONLY.has(key));
  const order = [
    ...Object.entries(preserved),
    ...rest.filter(([key]) => key.startsWith(MARKERS)),
    ...lifted.flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const])),
    ...rest.filter(([key]) => !key.startsWith(MARKERS) && !key.startsWith(PRESERVED)),
  ];
  const kept = new Map<string, string>();
  let left = MAX_METADATA_CHARS;
  let lost = rest.filter(([key]) => key.startsWith(PRESERVED)).length;
  for (const [key, value] of order) {
    const size = key.length + value.length;
    if (size > left) lost++;
    else {
      kept.set(key, value);
      left -= size;
    }
  }
  return { metadata: Object.fromEntries(kept), lost };
}
