// Owns the mapping between Polaris' words and our model, both ways (protocol notes, sections 12 and 13). Pure apart from its counters.
// Called by feed.ts, adapter.ts and writer.ts; must never throw for anything that a registry holds.
import { canonicalHost } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, type Locality, NORMAL_WEIGHT, nativeWeight, scaleWeight } from '../../src/model/instance.ts';
import { boundedMetadata } from '../../src/model/metadata.ts';
import { nameFault, type ServiceKey } from '../../src/model/service.ts';
import type { RejectedRecord, ServiceList } from '../../src/model/snapshot.ts';
import {
  CHECK_HEARTBEAT,
  type DiscoverResponse,
  type Entry,
  type NativeInstance,
  type NativeLocation,
  textOf,
} from './protocol.ts';

/** Namespace of Polaris' own services (polaris.checker, cl5.discover); shown only to who asks for it by name. */
export const SYSTEM_NAMESPACE = 'Polaris';
/** Keys that Polaris keeps for itself: read, never written (section 11). */
const INTERNAL_PREFIX = 'internal-';

export interface MappingOptions {
  readonly normalWeight: number;
  readonly dial: DialPolicy;
  readonly count: (what: string, by?: number) => void;
}

/** The instances of an answer, sorted by id (a server may shuffle them), and what was refused. */
export function instancesOf(
  answer: DiscoverResponse,
  options: MappingOptions,
): { instances: readonly Instance[]; rejected: readonly RejectedRecord[] } {
  const instances: Instance[] = [];
  const rejected: RejectedRecord[] = [];
  const seen = new Set<string>();
  for (const native of answer.instances ?? []) {
    const made = instanceOf(native, options);
    const refusal = typeof made === 'string' ? made : seen.has(made.id) ? 'the id stands twice in the list' : null;
    if (refusal === null && typeof made !== 'string') {
      seen.add(made.id);
      instances.push(made);
    } else {
      options.count('instances.rejected');
      rejected.push({ nativeId: safeText(textOf(native.id) ?? ''), reason: refusal ?? '' });
    }
  }
  return { instances: instances.sort((a, b) => (a.id < b.id ? -1 : 1)), rejected };
}

/** A native instance → ours, or the reason why not. */
export function instanceOf(native: NativeInstance, { dial, count, normalWeight }: MappingOptions): Instance | string {
  const id = textOf(native.id) ?? '';
  if (nameFault(id) !== null || id.includes('\ufffd')) return 'the id is empty, too long or no plain text';
  const host = canonicalHost(textOf(native.host) ?? '');
  if (host === null) return REFUSAL_TEXT.badHost;
  const port = native.port?.value ?? 0;
  const refusal = dial(host, port);
  if (refusal !== null) return REFUSAL_TEXT[refusal];
  const weight = native.weight === undefined ? NORMAL_WEIGHT : scaleWeight(native.weight.value ?? 0, normalWeight);
  if (weight === null) return 'the weight is no number';
  const bounded = boundedMetadata(ownMetadata(native));
  if (bounded.cut > 0) count('metadata.cut', bounded.cut);
  const protocol = plain(textOf(native.protocol));
  const version = plain(textOf(native.version));
  const locality = localityOf(native.location);
  return {
    id,
    host,
    port,
    transport: 'tcp',
    weight,
    health: native.healthy === undefined ? 'unknown' : native.healthy.value === true ? 'healthy' : 'unhealthy',
    isolated: native.isolate?.value ?? false,
    metadata: bounded.metadata,
    ...(protocol === '' ? {} : { protocol }),
    ...(version === '' ? {} : { version }),
    ...(locality === null ? {} : { locality }),
  };
}

/** The metadata as it was registered: an answer has five keys more, which the server makes from the fields (section 4). */
function* ownMetadata(native: NativeInstance): Generator<readonly [string, string]> {
  if (native.metadata === undefined) return;
  const added = addedKeys(native);
  for (const { key = '', value = '' } of native.metadata) if (added.get(key) !== value) yield [key, value];
}

/** What the server adds to the metadata of this instance. */
export function addedKeys(native: NativeInstance): ReadonlyMap<string, string> {
  const added = new Map<string, string>();
  const { location } = native;
  const version = textOf(native.version) ?? '';
  const protocol = textOf(native.protocol) ?? '';
  if (version !== '') added.set('version', version);
  if (protocol !== '') added.set('protocol', protocol);
  if (location !== undefined) {
    for (const part of ['region', 'zone', 'campus'] as const) added.set(part, textOf(location[part]) ?? '');
  }
  return added;
}

function localityOf(location: NativeLocation | undefined): Locality | null {
  const region = plain(textOf(location?.region));
  const zone = plain(textOf(location?.zone));
  const campus = plain(textOf(location?.campus));
  if (region === '' && zone === '' && campus === '') return null;
  return {
    ...(region === '' ? {} : { region }),
    ...(zone === '' ? {} : { zone }),
    ...(campus === '' ? {} : { campus }),
  };
}

/** A short field: what holds control characters or is too long counts as not given. */
function plain(text: string | undefined): string {
  return text === undefined || text === '' || nameFault(text) !== null ? '' : text;
}

/** The names of a SERVICES answer. Names that break our limits are counted, not shown. */
export function listOf(answer: DiscoverResponse, namespace: string, count: (what: string, by?: number) => void): ServiceList {
  const keys: ServiceKey[] = [];
  for (const service of answer.services ?? []) {
    const key = { namespace: textOf(service.namespace) ?? namespace, name: textOf(service.name) ?? '' };
    const bad = nameFault(key.name) !== null || nameFault(key.namespace) !== null || key.namespace.includes('/');
    if (bad) count('services.badName');
    else if (namespace !== '' || key.namespace !== SYSTEM_NAMESPACE) keys.push(key);
  }
  return { keys, failed: [], complete: true };
}

/** How an instance is registered. */
export interface RegisterForm {
  /** Sent to the server, s; null: no health check. */
  readonly ttl: number | null;
  /** False is sent only to undo what we set: without the flag the server keeps an operator's isolation. */
  readonly sendIsolate: boolean;
}

/** Longest texts that Polaris takes (section 13), characters. */
const LIMITS = { host: 128, protocol: 32, version: 32, key: 128, value: 4_096, entries: 64 } as const;
const NAME = /^[0-9A-Za-z\-./:_]+$/;

/** Our instance as Polaris wants it, or the reason why it does not fit. */
export function nativeOf(
  key: ServiceKey,
  instance: Instance,
  form: RegisterForm,
  options: MappingOptions,
): NativeInstance | string {
  const fault = writeFault(key, instance);
  if (fault !== null) return fault;
  const { region, zone, campus } = instance.locality ?? {};
  const metadata: Entry[] = [];
  for (const [name, value] of instance.metadata) {
    if (name.startsWith(INTERNAL_PREFIX)) options.count('metadata.reserved');
    else metadata.push({ key: name, value });
  }
  if (metadata.length > LIMITS.entries) return `Polaris keeps at most ${LIMITS.entries} keys of metadata, not ${metadata.length}`;
  return {
    service: { value: key.name },
    namespace: { value: key.namespace },
    host: { value: instance.host },
    port: { value: instance.port },
    weight: { value: nativeWeight(instance.weight, options.normalWeight, 1) },
    healthy: { value: instance.health !== 'unhealthy' },
    metadata,
    ...(instance.protocol === undefined ? {} : { protocol: { value: instance.protocol } }),
    ...(instance.version === undefined ? {} : { version: { value: instance.version } }),
    ...(instance.locality === undefined
      ? {}
      : { location: { region: { value: region ?? '' }, zone: { value: zone ?? '' }, campus: { value: campus ?? '' } } }),
    ...(form.sendIsolate ? { isolate: { value: instance.isolated } } : {}),
    ...healthCheck(form.ttl),
  };
}

/** The health-check fields of a register: `heartbeat` present switches it on, `enableHealthCheck` false off (section 5). */
export function healthCheck(ttl: number | null): Pick<NativeInstance, 'healthCheck' | 'enableHealthCheck'> {
  if (ttl === null) return { enableHealthCheck: { value: false } };
  return { enableHealthCheck: { value: true }, healthCheck: { type: CHECK_HEARTBEAT, heartbeat: { ttl: { value: ttl } } } };
}

function writeFault(key: ServiceKey, instance: Instance): string | null {
  if (!NAME.test(key.namespace) || key.namespace.length > 64) {
    return `the namespace ${safeText(key.namespace)} does not fit: Polaris takes at most 64 of A-Z a-z 0-9 - . / : _`;
  }
  if (!NAME.test(key.name) || key.name.length > 128) {
    return `the service name ${safeText(key.name)} does not fit: Polaris takes at most 128 of A-Z a-z 0-9 - . / : _`;
  }
  if (instance.transport !== 'tcp') return 'Polaris knows no transport but TCP';
  if (instance.host.length > LIMITS.host) return `the host is longer than ${LIMITS.host} characters`;
  if ((instance.protocol ?? '').length > LIMITS.protocol) return `the protocol is longer than ${LIMITS.protocol} characters`;
  if ((instance.version ?? '').length > LIMITS.version) return `the version is longer than ${LIMITS.version} characters`;
  for (const [name, value] of instance.metadata) {
    if (name.length > LIMITS.key || value.length > LIMITS.value)
      return `the metadata key ${safeText(name)} or its value is too long`;
  }
  return null;
}

/** An instance as it was read, to be written again under its id (the keys that the server adds are left out). */
export function rewritable(native: NativeInstance): NativeInstance {
  const { revision: _, ...fields } = native;
  const added = addedKeys(native);
  const metadata = (native.metadata ?? []).filter(
    ({ key = '', value = '' }) => added.get(key) !== value && !key.startsWith(INTERNAL_PREFIX),
  );
  return { ...fields, metadata };
}

/** Text from outside without control characters, so that it can be shown. */
export function safeText(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, '?').slice(0, 200);
}
