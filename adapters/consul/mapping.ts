// Owns the way from Consul's words to our model: health of many checks, weights, addresses, metadata, ids. Pure; the way back is
// native-fields.ts. Called by truth.ts; must never throw for anything that a registry holds.
import { createHash } from 'node:crypto';
import { canonicalHost, splitHostPort } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, type Locality, scaleWeight } from '../../src/model/instance.ts';
import { boundedMetadata, MAX_METADATA_VALUE_BYTES } from '../../src/model/metadata.ts';
import { compareText } from '../../src/model/service.ts';
import type { RejectedRecord } from '../../src/model/snapshot.ts';
import { safeText } from './errors.ts';
import { decodeEntry, isBad, type NativeCheck, type NativeEntry } from './native.ts';
import { DATACENTER_KEY, ESCAPED_KEY, LIFTED, ORIGIN_KEY, PEER_KEY, TAGS_KEY, unescapeKey, WEIGHT_KEY } from './native-fields.ts';

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
  return { instances, rejected, digest: digestOf(instances, rejected) };
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
  if (id.length > MAX_ID || safeText(id, MAX_ID) !== id)
    return [{ id, reason: 'the id is too long or holds control characters' }];
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
      if (cut > 0 && !meta.has(tag.slice(0, cut)) && !LIFTED.has(tag.slice(0, cut)))
        all.set(tag.slice(0, cut), tag.slice(cut + 1));
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

/** Meta as it was meant: keys are unescaped only where weir wrote them. */
function metaOf(meta: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  if (!meta.has(ORIGIN_KEY) && !meta.has(ESCAPED_KEY)) return meta;
  return new Map([...meta].map(([key, value]) => [unescapeKey(key), value]));
}
