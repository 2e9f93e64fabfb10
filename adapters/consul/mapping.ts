// Owns the mapping between Consul's words and our model, both ways: health of many checks, weights, addresses, metadata, ids. Pure.
// Called by truth.ts and the writers; must never throw for anything that a registry holds.
import { createHash } from 'node:crypto';
import { canonicalHost, splitHostPort } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import {
  type Instance,
  type Locality,
  MAX_WEIGHT,
  NORMAL_WEIGHT,
  type RegistryHealth,
  scaleWeight,
} from '../../src/model/instance.ts';
import { boundedMetadata, MAX_METADATA_VALUE_BYTES } from '../../src/model/metadata.ts';
import { compareText } from '../../src/model/service.ts';
import type { RejectedRecord } from '../../src/model/snapshot.ts';
import { safeText } from './errors.ts';
import { decodeEntry, isBad, type NativeCheck, type NativeEntry } from './native.ts';

export const TAGS_KEY = 'consul.tags';
export const DATACENTER_KEY = 'consul.dc';
export const PEER_KEY = 'consul.peer';
const SHOWN_ONLY = new Set([DATACENTER_KEY, PEER_KEY]);
/** Says that keys of Meta are escaped although the record is no copy. */
export const ESCAPED_KEY = 'weir-escaped';
/** Weight 0, which Consul cannot say: the record is in maintenance besides. */
export const WEIGHT_KEY = 'weir-weight';
/** Present in copies (W4); the marker itself belongs to the catalog. */
const ORIGIN_KEY = 'weir-origin';
const LIFTED = new Set(['version', 'protocol', 'region', 'zone', 'campus']);

/** Consul's limits of Meta. */
const MAX_META_PAIRS = 64;
const MAX_META_KEY = 128;
const MAX_META_VALUE = 512;
const MAX_ID = 512;

export const NODE_MAINTENANCE = '_node_maintenance';
export const SERVICE_MAINTENANCE = '_service_maintenance:';
/** Output of a copy's check while its origin is isolated. */
export const ISOLATED_OUTPUT = 'isolated';

export interface MappingOptions {
  readonly normalWeight: number;
  readonly taggedAddress: string | null;
  readonly tagFields: boolean;
  readonly kinds: ReadonlySet<string>;
  readonly dial: DialPolicy;
  readonly count: (what: string, by?: number) => void;
}

export interface MappedList {
  /** Sorted by id. */
  readonly instances: readonly Instance[];
  readonly rejected: readonly RejectedRecord[];
  /** Names of the nodes that the instances stand on. */
  readonly nodes: ReadonlySet<string>;
  /** Differs when anything of the list that we show differs. */
  readonly digest: string;
}

/** What the checks of an instance add up to. */
export interface Folded {
  readonly state: 'passing' | 'warning' | 'critical';
  readonly maintenance: boolean;
}

/** The worst check counts, node checks included; any text that is no status of Consul counts as critical; no checks: passing. */
export function foldChecks(checks: readonly NativeCheck[], serviceId: string): Folded {
  let state: Folded['state'] = 'passing';
  let maintenance = false;
  for (const { checkId, status, output } of checks) {
    if (status === 'passing') continue;
    const critical = status !== 'warning';
    if (critical && isMaintenance(checkId, serviceId, output)) maintenance = true;
    else if (critical) state = 'critical';
    else if (state === 'passing') state = 'warning';
  }
  return { state, maintenance };
}

function isMaintenance(checkId: string, serviceId: string, output: string): boolean {
  if (checkId === NODE_MAINTENANCE || checkId === SERVICE_MAINTENANCE + serviceId) return true;
  return checkId === copyCheckId(serviceId) && output.startsWith(ISOLATED_OUTPUT);
}

/** The one check of a copy in the catalog. */
export function copyCheckId(serviceId: string): string {
  return `weir:${serviceId}`;
}

/** A list of /health/service → instances. Null when the body is no list. `name`: entries of other names (case aside) are not its. */
export function mapList(body: unknown, name: string, options: MappingOptions): MappedList | null {
  if (!Array.isArray(body)) return null;
  const byId = new Map<string, Instance>();
  const rejected: RejectedRecord[] = [];
  const nodes = new Set<string>();
  const reject = (nativeId: string, reason: string): void => {
    options.count('instances.rejected');
    rejected.push({ nativeId: safeText(nativeId, 200), reason: safeText(reason, 200) });
  };
  for (const value of body) {
    const entry = decodeEntry(value);
    if (isBad(entry)) {
      reject(entry.id, entry.reason);
      continue;
    }
    if (entry.service.name !== name) continue;
    nodes.add(entry.node);
    if (entry.service.kind !== '' && !options.kinds.has(entry.service.kind)) {
      options.count('kind.skipped');
      continue;
    }
    for (const made of instancesOf(entry, options)) {
      if ('reason' in made) reject(made.id, made.reason);
      else {
        if (byId.has(made.id)) options.count('instances.duplicate');
        byId.set(made.id, made);
      }
    }
  }
  const instances = [...byId.values()].sort((a, b) => compareText(a.id, b.id));
  return { instances, rejected, nodes, digest: digestOf(instances, rejected) };
}

/** The digest of what is shown; never of the bytes, which an agent may print prettily or in another order. */
export function digestOf(instances: readonly Instance[], rejected: readonly RejectedRecord[]): string {
  const hash = createHash('sha1');
  for (const { metadata, ...fields } of instances) hash.update(JSON.stringify([fields, [...metadata]]));
  hash.update(JSON.stringify(rejected));
  return hash.digest('base64');
}

type Place = { readonly host: string; readonly port: number; readonly scheme: string | null };

function instancesOf(entry: NativeEntry, options: MappingOptions): (Instance | { id: string; reason: string })[] {
  const id = `${entry.node}/${entry.service.id}`;
  if (id.length > MAX_ID || safeText(id, MAX_ID) !== id) return [{ id, reason: 'the id is too long or holds control characters' }];
  if (entry.service.socketPath !== '') return [{ id, reason: 'it listens on a unix socket (SocketPath)' }];
  return placesOf(entry, options).map((place) => instanceAt(entry, place, id, options));
}

/** Where an instance listens: one place, or one for each URL among its tagged addresses (Kratos). */
function placesOf({ service, nodeAddress, nodeTagged }: NativeEntry, { taggedAddress }: MappingOptions): Place[] {
  const urls: Place[] = [];
  for (const { address } of service.tagged.values()) {
    const match = /^([a-z][a-z0-9+.-]{0,15}):\/\/([^/?#@]+)/.exec(address);
    const place = match?.[2] === undefined ? null : splitHostPort(match[2]);
    if (match?.[1] !== undefined && place !== null) urls.push({ ...place, scheme: match[1] });
  }
  if (urls.length > 0) return urls;
  const host = service.address === '' ? nodeAddress : service.address;
  const plain = { host, port: service.port, scheme: null };
  if (taggedAddress === null) return [plain];
  const tagged = service.tagged.get(taggedAddress) ?? nodeTagged.get(taggedAddress);
  if (tagged === undefined) return [plain];
  return [{ host: tagged.address, port: tagged.port === 0 ? service.port : tagged.port, scheme: null }];
}

function instanceAt(
  entry: NativeEntry,
  place: Place,
  plainId: string,
  options: MappingOptions,
): Instance | { id: string; reason: string } {
  const { service } = entry;
  const id = place.scheme === null ? plainId : `${plainId}#${place.scheme}`;
  const host = canonicalHost(place.host);
  if (host === null) return { id, reason: 'the host is neither a canonical IP literal nor a host name' };
  const refusal = options.dial(host, place.port);
  if (refusal !== null) return { id, reason: REFUSAL_TEXT[refusal] };
  const { state, maintenance } = foldChecks(entry.checks, service.id);
  const weightless = service.meta.get(WEIGHT_KEY) === '0';
  const native = state === 'warning' ? service.weights.warning : service.weights.passing;
  const weight = weightless ? 0 : scaleWeight(native, options.normalWeight);
  if (weight === null) return { id, reason: 'the weight is negative or no number' };
  const meta = metaOf(service.meta);
  const protocol = meta.get('protocol') ?? place.scheme ?? undefined;
  const version = meta.get('version') ?? tagValue(service.tags, 'version');
  const locality = localityOf(entry, meta);
  // A node that is in maintenance is so for everybody; that of a service may be our way to say weight 0.
  const nodeDown = entry.checks.some(({ checkId, status }) => checkId === NODE_MAINTENANCE && status === 'critical');
  return {
    id,
    host,
    port: place.port,
    transport: 'tcp',
    weight,
    health: state === 'critical' ? 'unhealthy' : 'healthy',
    isolated: maintenance && (!weightless || nodeDown),
    metadata: metadataOf(entry, meta, options),
    ...(protocol === undefined ? {} : { protocol }),
    ...(version === undefined ? {} : { version }),
    ...(locality === null ? {} : { locality }),
  };
}

function tagValue(tags: readonly string[], key: string): string | undefined {
  const found = tags.find((tag) => tag.startsWith(`${key}=`))?.slice(key.length + 1);
  return found === '' ? undefined : found;
}

function localityOf(entry: NativeEntry, meta: ReadonlyMap<string, string>): Locality | null {
  const native = entry.service.locality ?? entry.nodeLocality;
  const region = (native?.region || undefined) ?? meta.get('region');
  const zone = (native?.zone || undefined) ?? meta.get('zone');
  const campus = meta.get('campus');
  if (region === undefined && zone === undefined && campus === undefined) return null;
  return {
    ...(region === undefined ? {} : { region }),
    ...(zone === undefined ? {} : { zone }),
    ...(campus === undefined ? {} : { campus }),
  };
}

function metadataOf(
  entry: NativeEntry,
  meta: ReadonlyMap<string, string>,
  { tagFields, count }: MappingOptions,
): ReadonlyMap<string, string> {
  const all = new Map<string, string>();
  for (const [key, value] of meta) if (!LIFTED.has(key) && key !== ESCAPED_KEY && key !== WEIGHT_KEY) all.set(key, value);
  if (tagFields) {
    for (const tag of entry.service.tags) {
      const cut = tag.indexOf('=');
      if (cut > 0 && !meta.has(tag.slice(0, cut)) && !LIFTED.has(tag.slice(0, cut))) all.set(tag.slice(0, cut), tag.slice(cut + 1));
    }
  }
  const tags = joinTags(entry.service.tags, count);
  if (tags !== '') all.set(TAGS_KEY, tags);
  if (entry.datacenter !== '') all.set(DATACENTER_KEY, entry.datacenter);
  if (entry.service.peer !== '') all.set(PEER_KEY, entry.service.peer);
  const { metadata, cut } = boundedMetadata(all);
  if (cut > 0) count('metadata.cut', cut);
  return metadata;
}

/** As many whole tags as a value of metadata holds. */
function joinTags(tags: readonly string[], count: MappingOptions['count']): string {
  let joined = '';
  for (const tag of tags.slice(0, 64)) {
    const next = joined === '' ? tag : `${joined},${tag}`;
    if (Buffer.byteLength(next) > MAX_METADATA_VALUE_BYTES) {
      count('tags.cut');
      break;
    }
    joined = next;
  }
  return joined;
}

// From us to Consul.

/** The fields of a record that both ways of registering share. */
export interface NativeFields {
  readonly address: string;
  readonly port: number;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
  readonly weights: { readonly Passing: number; readonly Warning: number };
  /** Must take no traffic: isolated, or a weight of 0. */
  readonly silent: boolean;
}

/** Our instance in Consul's words. What has no place there is counted by `count` as `write.lost`. */
export function nativeFields(instance: Instance, normalWeight: number, count: MappingOptions['count']): NativeFields {
  const passing = Math.min(MAX_WEIGHT, Math.max(1, Math.round((instance.weight * normalWeight) / NORMAL_WEIGHT)));
  const { meta, lost } = metaFor(instance);
  if (lost > 0) count('write.lost', lost);
  const tags = instance.metadata.get(TAGS_KEY);
  return {
    address: instance.host,
    port: instance.port,
    tags: tags === undefined || tags === '' ? [] : tags.split(','),
    meta,
    // Both, always: a lone Passing makes Warning 0.
    weights: { Passing: passing, Warning: passing },
    silent: instance.isolated || instance.weight === 0,
  };
}

function metaFor(instance: Instance): { meta: Record<string, string>; lost: number } {
  const wanted = new Map<string, string>();
  const { region, zone, campus } = instance.locality ?? {};
  const lifted = { version: instance.version, protocol: instance.protocol, region, zone, campus };
  for (const [key, value] of Object.entries(lifted)) if (value !== undefined) wanted.set(key, value);
  for (const [key, value] of instance.metadata) {
    if (key !== TAGS_KEY && !SHOWN_ONLY.has(key) && !LIFTED.has(key)) wanted.set(key, value);
  }
  const pairs = new Map<string, string>();
  if (instance.weight === 0) pairs.set(WEIGHT_KEY, '0');
  if (!wanted.has(ORIGIN_KEY) && [...wanted.keys()].some((key) => escapeKey(key) !== key)) pairs.set(ESCAPED_KEY, '1');
  let lost = 0;
  for (const [key, value] of wanted) {
    const escaped = escapeKey(key);
    const fits = pairs.size < MAX_META_PAIRS && escaped.length <= MAX_META_KEY && Buffer.byteLength(value) <= MAX_META_VALUE;
    if (fits) pairs.set(escaped, value);
    else lost++;
  }
  return { meta: Object.fromEntries(pairs), lost };
}

/** Bytes that a key of Meta may not hold are written `_xHH_`; so are what looks like that already and the reserved prefix. */
export function escapeKey(key: string): string {
  // A NUL cannot stand in a key of ours: it keeps the place of an underscore that would begin a look-alike.
  const guarded = key.replace(/_(?=x[0-9a-f]{2}_)/g, '\u0000');
  let escaped = '';
  for (const byte of Buffer.from(guarded)) {
    const char = String.fromCharCode(byte);
    escaped += byte === 0 ? hex(0x5f) : /[a-zA-Z0-9_-]/.test(char) ? char : hex(byte);
  }
  return escaped.startsWith('consul-') ? `${hex(0x63)}${escaped.slice(1)}` : escaped;
}

function hex(byte: number): string {
  return `_x${byte.toString(16).padStart(2, '0')}_`;
}

/** The inverse of {@link escapeKey}; a sequence that is no UTF-8 stays as it is. */
export function unescapeKey(key: string): string {
  const bytes: number[] = [];
  for (let at = 0; at < key.length; ) {
    const match = /^_x([0-9a-f]{2})_/.exec(key.slice(at, at + 5));
    if (match?.[1] !== undefined) {
      bytes.push(Number.parseInt(match[1], 16));
      at += 5;
    } else bytes.push(...Buffer.from(key[at++] ?? ''));
  }
  const text = Buffer.from(bytes).toString('utf8');
  return text.includes('\ufffd') ? key : text;
}

/** Meta as it was meant: keys are unescaped only where weir wrote them. */
function metaOf(meta: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  if (!meta.has(ORIGIN_KEY) && !meta.has(ESCAPED_KEY)) return meta;
  return new Map([...meta].map(([key, value]) => [unescapeKey(key), value]));
}

/** The status of Consul that says our health. `unknown` is not yet proved: it is kept from those who ask for `passing` only. */
export function statusOf(health: RegistryHealth): 'passing' | 'warning' | 'critical' {
  return health === 'healthy' ? 'passing' : health === 'unhealthy' ? 'critical' : 'warning';
}
