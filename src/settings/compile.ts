// Owns turning an accepted file into Settings: the place where every default of the file is applied.
// Called by load.ts; must find no fault of its own, those were found before (check.ts, semantic.ts).
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import type { Select } from '../adapter/select.ts';
import { canonicalHost } from '../kernel/address.ts';
import { isRecord } from '../kernel/decode.ts';
import { parseServiceId, type ServiceKey } from '../model/service.ts';
import type { AccessLogUpdate, ListenAddress } from '../proxy/proxy-update.ts';
import { parseListen } from './listen-address.ts';
import {
  COMMON_SOURCE_KEYS,
  type ConfigFile,
  DEFAULT_API_LISTEN,
  DEFAULT_LAST_GOOD_MAX_AGE,
  DEFAULT_PROXY_LISTEN,
  DEFAULT_REGISTRATION_TTL,
  type SharedEntry,
  type SourceEntry,
} from './schema.ts';
import { COMMON_SHARED_KEYS, DEFAULT_SHARED_PREFIX, DEFAULT_SOURCE_TIMEOUT } from './schema-connection.ts';
import { healthCheckPolicy, ms, type PolicyPool, servicePolicies } from './services.ts';
import type { NameRules, RegistrationSettings, Settings, SharedStateSettings, SourceSettings } from './settings.ts';

/** What compile needs beside the file. */
export interface CompileContext {
  /** Directory of the config file, for relative names. */
  readonly baseDir: string;
  readonly hostName: string;
  readonly stateDir: string;
  readonly pool: PolicyPool;
}

/** Ids in Via and in a fleet are tokens; host names may hold more. */
function tokenOf(text: string): string {
  return text.replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 64) || 'weir';
}

/** Builds the settings. `file` was accepted by the schema and by semanticFindings. Throws RangeError only for a bug of ours. */
export function compileSettings(file: ConfigFile, context: CompileContext): Settings {
  const sources =
    file.sources === undefined || file.sources.length === 0 ? [{ id: 'local', kind: 'memory', register: true }] : file.sources;
  return {
    id: file.id ?? tokenOf(context.hostName),
    api: {
      listen: listenOf(file.api?.listen ?? DEFAULT_API_LISTEN),
      tokens: { read: file.api?.tokens?.read ?? null, write: file.api?.tokens?.write ?? null },
      allowedHosts: (file.api?.allowedHosts ?? []).map((host) => host.toLowerCase()),
    },
    proxy: { listen: listenOf(file.proxy?.listen ?? DEFAULT_PROXY_LISTEN), workers: 0 },
    state: {
      dir: file.state?.dir === undefined ? context.stateDir : resolve(context.baseDir, file.state.dir),
      lastGoodMaxAge: ms(file.state?.lastGoodMaxAge, DEFAULT_LAST_GOOD_MAX_AGE),
      shared: file.state?.shared === undefined ? null : sharedState(file.state.shared, context.baseDir),
    },
    sources: sources.map((source) => sourceSettings(source, context)),
    accessLog: accessLog(file.accessLog?.to, context.baseDir),
    services: servicePolicies(file.services ?? [], context.pool),
    names: nameRules(file),
    listeners: (file.listeners ?? []).map((entry) => ({
      id: `${entry.listen} ${entry.service}`,
      listen: listenOf(entry.listen),
      service: entry.service,
      direction: entry.direction ?? 'outbound',
      trustedCidrs: entry.trustedCidrs ?? [],
    })),
    registrations: (file.registrations ?? []).map(registrationSettings),
    shutdown: { registrations: file.shutdown?.registrations ?? 'deregister' },
    migrations: { frozen: file.migrations?.frozen ?? false },
  };
}

/** The file with the defaults that a schema cannot know; for the effective configuration. */
export function withOwnDefaults(file: ConfigFile, settings: Settings): ConfigFile {
  return { ...file, id: settings.id, state: { ...file.state, dir: settings.state.dir }, sources: [...sourceEntries(file)] };
}

/** Without sources: one embedded registry, filled through the API. */
function sourceEntries(file: ConfigFile): readonly SourceEntry[] {
  return file.sources === undefined || file.sources.length === 0
    ? [{ id: 'local', kind: 'memory', register: true }]
    : file.sources;
}

function listenOf(text: string): ListenAddress {
  const address = parseListen(text);
  if (address === null) throw new RangeError(`not a listen address: ${text}`);
  return address;
}

function serviceOf(text: string): ServiceKey {
  const key = parseServiceId(text);
  if (key === null) throw new RangeError(`not a service: ${text}`);
  return key;
}

function accessLog(to: string | undefined, baseDir: string): AccessLogUpdate | null {
  if (to === undefined) return null;
  if (to === 'stdout') return { to: { kind: 'stdout' } };
  return { to: { kind: 'file', path: resolve(baseDir, to.slice('file:'.length)) } };
}

function nameRules(file: ConfigFile): readonly NameRules[] {
  return (file.services ?? []).flatMap(({ match, names }, entry) =>
    names === undefined ? [] : [{ entry, match, names: new Map(Object.entries(names)) }],
  );
}

function sourceSettings(entry: SourceEntry, context: CompileContext): SourceSettings {
  const config = Object.fromEntries(Object.entries(entry).filter(([key]) => !COMMON_SOURCE_KEYS.has(key)));
  const local = entry.kind === 'file' || entry.kind === 'memory';
  const options = {
    auth: { ...entry.auth },
    tls: tlsOf(entry, context.baseDir),
    timeout: ms(entry.timeout, DEFAULT_SOURCE_TIMEOUT),
    normalWeight: entry.normalWeight ?? null,
  };
  const built: Omit<SourceSettings, 'fingerprint'> = {
    id: entry.id,
    kind: entry.kind,
    config: entry.kind === 'file' ? resolvePath(config, context.baseDir) : config,
    options,
    asNamespace: entry.as?.namespace ?? null,
    register: entry.register ?? false,
    dial: {
      allowLoopback: entry.allowLoopback ?? local,
      allowNames: entry.allowNames ?? entry.kind === 'file',
      cidrs: entry.allow?.cidrs ?? [],
      ports: entry.allow?.ports ?? [],
    },
    network: entry.network ?? '',
    select: selectOf(entry.select),
    expireAfter: entry.expireAfter === undefined ? null : ms(entry.expireAfter, 0),
  };
  return { ...built, fingerprint: fingerprint(built) };
}

function selectOf(select: SourceEntry['select']): Select {
  if (select === undefined || select === 'all') return { kind: 'all' };
  return select === 'onDemand' ? { kind: 'onDemand' } : { kind: 'patterns', patterns: select };
}

/** Names of files in the config are relative to it. */
function resolvePath(config: Record<string, unknown>, baseDir: string): Record<string, unknown> {
  return typeof config['path'] === 'string' ? { ...config, path: resolve(baseDir, config['path']) } : config;
}

function sharedState(entry: SharedEntry, baseDir: string): SharedStateSettings {
  const own = Object.fromEntries(Object.entries(entry).filter(([key]) => !COMMON_SHARED_KEYS.has(key)));
  return {
    kind: entry.kind,
    config: entry.kind === 'etcd' ? { prefix: DEFAULT_SHARED_PREFIX, ...own } : own,
    options: {
      auth: { ...entry.auth },
      tls: tlsOf(entry, baseDir),
      timeout: ms(entry.timeout, DEFAULT_SOURCE_TIMEOUT),
      normalWeight: null,
    },
  };
}

function tlsOf(entry: Pick<SourceEntry, 'tls'>, baseDir: string): SourceSettings['options']['tls'] {
  if (entry.tls === undefined) return null;
  const { ca, cert, key, serverName } = entry.tls;
  return {
    ...(ca === undefined ? {} : { ca: resolve(baseDir, ca) }),
    ...(cert === undefined ? {} : { cert: resolve(baseDir, cert) }),
    ...(key === undefined ? {} : { key: resolve(baseDir, key) }),
    ...(serverName === undefined ? {} : { serverName }),
  };
}

function registrationSettings(entry: NonNullable<ConfigFile['registrations']>[number]): RegistrationSettings {
  return {
    service: serviceOf(entry.service),
    id: entry.id,
    host: canonicalHost(entry.host) ?? entry.host,
    port: entry.port,
    weight: entry.weight ?? 100,
    metadata: new Map(Object.entries(entry.metadata ?? {})),
    ...(entry.protocol === undefined ? {} : { protocol: entry.protocol }),
    ...(entry.version === undefined ? {} : { version: entry.version }),
    sources: entry.sources ?? null,
    ttl: ms(entry.ttl, DEFAULT_REGISTRATION_TTL),
    healthCheck: entry.healthCheck === undefined ? null : healthCheckPolicy(entry.healthCheck),
    onUnhealthy: entry.onUnhealthy ?? 'unhealthy',
  };
}

/** One-way text of any plain data, order of keys aside; changes when the data does. */
export function fingerprint(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value, sortedKeys)).digest('hex').slice(0, 16);
}

function sortedKeys(_key: string, value: unknown): unknown {
  if (value instanceof Map) return [...value];
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
