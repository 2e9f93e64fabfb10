// Owns the JSON of Polaris' HTTP client API ↔ the messages of protocol.ts (protocol notes, section 7). Pure.
// Called by http.ts and the fake; must never throw for what a server sends.
import { isRecord } from '../../src/kernel/decode.ts';
import type {
  BoolValue,
  DiscoverRequest,
  DiscoverResponse,
  Entry,
  NativeInstance,
  NativeResponse,
  NativeService,
  StringValue,
  UintValue,
} from './protocol.ts';
import { textOf } from './protocol.ts';

type Json = Readonly<Record<string, unknown>>;

const TYPES: ReadonlyMap<string, number> = new Map([
  ['UNKNOWN', 0],
  ['INSTANCE', 1],
  ['CLUSTER', 2],
  ['ROUTING', 3],
  ['RATE_LIMIT', 4],
  ['CIRCUIT_BREAKER', 5],
  ['SERVICES', 6],
]);

/** Null when the value has no code: it is no answer of Polaris. */
export function discoverOf(value: unknown): DiscoverResponse | null {
  if (!isRecord(value) || typeof value['code'] !== 'number') return null;
  const type = value['type'];
  return {
    code: { value: value['code'] },
    ...defined('info', text(value['info'])),
    type: typeof type === 'string' ? (TYPES.get(type) ?? -1) : typeof type === 'number' ? type : 0,
    ...defined('service', serviceOf(value['service'])),
    ...defined('aliasFor', serviceOf(value['aliasFor'])),
    instances: list(value['instances']).map(instanceOfJson),
    services: list(value['services']).map((one) => serviceOf(one) ?? {}),
  };
}

/** Null when the value has no code. */
export function responseOf(value: unknown): NativeResponse | null {
  if (!isRecord(value) || typeof value['code'] !== 'number') return null;
  const instance = isRecord(value['instance']) ? instanceOfJson(value['instance']) : undefined;
  return { code: { value: value['code'] }, ...defined('info', text(value['info'])), ...defined('instance', instance) };
}

/** What is no object becomes an instance without fields, which the mapping refuses. */
export function instanceOfJson(value: unknown): NativeInstance {
  if (!isRecord(value)) return {};
  const location = value['location'];
  const health = value['healthCheck'];
  const heartbeat = isRecord(health) && isRecord(health['heartbeat']) ? health['heartbeat'] : null;
  return {
    ...defined('id', text(value['id'])),
    ...defined('service', text(value['service'])),
    ...defined('namespace', text(value['namespace'])),
    ...defined('host', text(value['host'])),
    ...defined('port', uint(value['port'])),
    ...defined('protocol', text(value['protocol'])),
    ...defined('version', text(value['version'])),
    ...defined('weight', uint(value['weight'])),
    ...defined('healthy', bool(value['healthy'])),
    ...defined('isolate', bool(value['isolate'])),
    ...defined('revision', text(value['revision'])),
    ...defined('vpcId', text(value['vpc_id'])),
    ...defined('enableHealthCheck', bool(value['enableHealthCheck'])),
    ...(heartbeat === null ? {} : { healthCheck: { type: 1, heartbeat: { ...defined('ttl', uint(heartbeat['ttl'])) } } }),
    ...(isRecord(location)
      ? {
          location: {
            ...defined('region', text(location['region'])),
            ...defined('zone', text(location['zone'])),
            ...defined('campus', text(location['campus'])),
          },
        }
      : {}),
    metadata: entries(value['metadata']),
  };
}

function serviceOf(value: unknown): NativeService | undefined {
  if (!isRecord(value)) return undefined;
  return {
    ...defined('name', text(value['name'])),
    ...defined('namespace', text(value['namespace'])),
    ...defined('revision', text(value['revision'])),
    ...defined('id', text(value['id'])),
  };
}

function entries(value: unknown): Entry[] {
  if (!isRecord(value)) return [];
  return Object.entries(value).flatMap(([key, one]) => (typeof one === 'string' ? [{ key, value: one }] : []));
}

/** The request of an INSTANCE or SERVICES read. Unknown fields would be refused (400001). */
export function discoverJson(request: DiscoverRequest): Json {
  const { name, namespace, revision } = request.service ?? {};
  return {
    type: request.type === 6 ? 'SERVICES' : 'INSTANCE',
    service: {
      ...defined('name', textOf(name)),
      ...defined('namespace', textOf(namespace)),
      ...defined('revision', textOf(revision)),
    },
  };
}

/** The fields that a register, deregister or beat needs. */
export function instanceJson(instance: NativeInstance): Json {
  const { location, healthCheck } = instance;
  return {
    ...defined('id', textOf(instance.id)),
    ...defined('service', textOf(instance.service)),
    ...defined('namespace', textOf(instance.namespace)),
    ...defined('host', textOf(instance.host)),
    ...(instance.port === undefined ? {} : { port: instance.port.value ?? 0 }),
    ...defined('protocol', textOf(instance.protocol)),
    ...defined('version', textOf(instance.version)),
    ...(instance.weight === undefined ? {} : { weight: instance.weight.value ?? 0 }),
    ...(instance.healthy === undefined ? {} : { healthy: instance.healthy.value ?? false }),
    ...(instance.isolate === undefined ? {} : { isolate: instance.isolate.value ?? false }),
    ...(instance.enableHealthCheck === undefined ? {} : { enableHealthCheck: instance.enableHealthCheck.value ?? false }),
    ...(healthCheck === undefined
      ? {}
      : { healthCheck: { type: 'HEARTBEAT', heartbeat: { ttl: healthCheck.heartbeat?.ttl?.value ?? 0 } } }),
    ...(location === undefined
      ? {}
      : {
          location: {
            ...defined('region', textOf(location.region)),
            ...defined('zone', textOf(location.zone)),
            ...defined('campus', textOf(location.campus)),
          },
        }),
    ...(instance.metadata === undefined || instance.metadata.length === 0 ? {} : { metadata: metadataJson(instance.metadata) }),
  };
}

/** From entries, so that a key such as `__proto__` is an own key. */
function metadataJson(metadata: readonly Entry[]): Json {
  return Object.fromEntries(metadata.map(({ key = '', value = '' }) => [key, value]));
}

function text(value: unknown): StringValue | undefined {
  return typeof value === 'string' ? { value } : undefined;
}

function uint(value: unknown): UintValue | undefined {
  return typeof value === 'number' ? { value } : undefined;
}

function bool(value: unknown): BoolValue | undefined {
  return typeof value === 'boolean' ? { value } : undefined;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** `{[name]: value}`, or nothing for undefined: an absent wrapper is no empty one. */
function defined<K extends string, V>(name: K, value: V | undefined): { readonly [P in K]?: V } {
  const made: { [P in K]?: V } = {};
  if (value !== undefined) made[name] = value;
  return made;
}
