// Owns the keys of a source of kind nacos and their defaults. Called by index.ts with what settings decoded.
import { Type } from 'typebox';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { canonicalHost, hostPort } from '../../src/kernel/address.ts';
import { decoder } from '../../src/kernel/decode.ts';

const Group = Type.String({ minLength: 1, maxLength: 128, pattern: '^[a-zA-Z0-9_:.-]+$' });
const Cluster = Type.String({ minLength: 1, maxLength: 64, pattern: '^[0-9a-zA-Z-]+$' });
const Port = Type.Integer({ minimum: 1, maximum: 65_535 });

/** Keys that are this kind's own; see the README beside this file. */
export const ConfigSchema = Type.Object(
  {
    servers: Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { minItems: 1, maxItems: 32 }),
    namespace: Type.Optional(Type.String({ maxLength: 64, pattern: '^[\\w-]*$' })),
    group: Type.Optional(Group),
    groups: Type.Optional(Type.Array(Group, { minItems: 1, maxItems: 64 })),
    clusters: Type.Optional(Type.Array(Cluster, { minItems: 1, maxItems: 64 })),
    clusterAsZone: Type.Optional(Type.Boolean()),
    isolate: Type.Optional(Type.Union([Type.Literal('weight'), Type.Literal('disable')])),
    api: Type.Optional(Type.Union([Type.Literal('auto'), Type.Literal('grpc'), Type.Literal('http')])),
    list: Type.Optional(Type.Union(['auto', 'admin', 'fuzzy', 'catalog', 'groups'].map((name) => Type.Literal(name)))),
    listInterval: Type.Optional(Type.Integer({ minimum: 1_000, maximum: 600_000 })),
    grpcPort: Type.Optional(Port),
    contextPath: Type.Optional(Type.String({ maxLength: 128, pattern: '^(/[\\w.-]+)*$' })),
    headers: Type.Optional(Type.Record(Type.String({ pattern: '^[A-Za-z0-9-]{1,64}$' }), Type.String({ maxLength: 4_096 }))),
  },
  { additionalProperties: false },
);

const decodeConfig = decoder(ConfigSchema);

/** One member: where its two APIs are. */
export interface NacosServer {
  readonly host: string;
  /** `host:port` of HTTP, for people. */
  readonly address: string;
  /** `http://host:port`. */
  readonly origin: string;
  /** `host:port` of gRPC. */
  readonly grpc: string;
  readonly tls: boolean;
}

/** How the names of services are found (protocol notes, section 7). */
export type ListWay = 'admin' | 'fuzzy' | 'catalog' | 'groups';

/** The configuration with every default filled in. */
export interface NacosConfig {
  readonly servers: readonly NacosServer[];
  /** As Nacos calls it: `public` for the default one. */
  readonly namespace: string;
  /** Services of this group have plain names; those of another one are `group@@name`. */
  readonly group: string;
  /** Null: every group that the list shows. */
  readonly groups: ReadonlySet<string> | null;
  /** Null: every cluster. */
  readonly clusters: ReadonlySet<string> | null;
  /** The cluster of what we write. */
  readonly writeCluster: string;
  readonly clusterAsZone: boolean;
  readonly isolate: 'weight' | 'disable';
  readonly api: 'auto' | 'grpc' | 'http';
  readonly list: 'auto' | ListWay;
  /** Between two polls of the names, ms. */
  readonly listInterval: number;
  readonly contextPath: string;
  /** Sent with every call (identity key, gateways). */
  readonly headers: Readonly<Record<string, string>>;
  readonly normalWeight: number;
}

/** Defaults and checks that a schema cannot make; a sentence for people when something is wrong. */
export function resolveConfig(value: unknown, options: SourceOptions): NacosConfig | string {
  const decoded = decodeConfig(value);
  if (!decoded.ok)
    return `configuration: ${decoded.faults[0]?.path ?? ''} expected ${decoded.faults[0]?.expected ?? 'another value'}`;
  const config = decoded.value;
  const servers: NacosServer[] = [];
  for (const text of config.servers) {
    const server = parseServer(text, config.grpcPort ?? null, options.tls !== null);
    if (typeof server === 'string') return server;
    if (!servers.some(({ address }) => address === server.address)) servers.push(server);
  }
  const { list } = config;
  const { username, password } = options.auth;
  if (username !== undefined && password === undefined) return 'auth.username is set and auth.password is not: set both';
  return {
    servers,
    // Over gRPC an empty text is a namespace of its own that nobody else reads (section 2).
    namespace: config.namespace === undefined || config.namespace === '' ? 'public' : config.namespace,
    group: config.group ?? 'DEFAULT_GROUP',
    groups: config.groups === undefined ? null : new Set(config.groups),
    clusters: config.clusters === undefined ? null : new Set(config.clusters),
    writeCluster: config.clusters?.[0] ?? 'DEFAULT',
    clusterAsZone: config.clusterAsZone ?? false,
    isolate: config.isolate ?? 'weight',
    api: config.api ?? 'auto',
    list: list === 'admin' || list === 'fuzzy' || list === 'catalog' || list === 'groups' ? list : 'auto',
    listInterval: config.listInterval ?? 5_000,
    contextPath: config.contextPath ?? '/nacos',
    headers: config.headers ?? {},
    normalWeight: options.normalWeight ?? 1,
  };
}

/** `h`, `h:p`, `http://h:p`, `https://h:p` → the addresses of both APIs; a text that says what is wrong otherwise. */
export function parseServer(text: string, grpcPort: number | null, tlsConfigured: boolean): NacosServer | string {
  const match = /^(?:(https?):\/\/)?(\[[0-9a-fA-F:.]+\]|[^:/[\]]+)(?::(\d{1,5}))?\/?$/.exec(text);
  const host = match?.[2] === undefined ? null : canonicalHost(match[2]);
  if (match === null || host === null) return `server ${text}: expected host:port, http://host:port or https://host:port`;
  const port = Number(match[3] ?? 8848);
  if (port < 1 || port > 65_535) return `server ${text}: the port is not in 1..65535`;
  if (match[1] === 'http' && tlsConfigured) return `server ${text}: says plain text but tls is set: write https:// or remove tls`;
  const tls = match[1] === 'https' || tlsConfigured;
  const second = grpcPort ?? port + 1_000;
  if (second > 65_535) return `server ${text}: its gRPC port would be ${second}: set grpcPort`;
  const address = hostPort(host, port);
  return { host, address, origin: `${tls ? 'https' : 'http'}://${address}`, grpc: hostPort(host, second), tls };
}
