// Owns the keys of a source of kind polaris and their defaults. Called by index.ts with what settings decoded.
import { Type } from 'typebox';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { canonicalHost, hostPort } from '../../src/kernel/address.ts';
import { decoder, faultText } from '../../src/kernel/decode.ts';
import { NORMAL_WEIGHT } from '../../src/model/instance.ts';

const Text = Type.String({ minLength: 1, maxLength: 255 });

/** A duration as the settings spell it (`1s`, `500ms`), between 200 ms and a minute. */
const Interval = Type.Unsafe<string>({
  type: 'string',
  pattern: '^\\d{1,9}(\\.\\d{1,3})?(ms|s|m|h)$',
  'x-unit': 'duration',
  'x-min': 200,
  'x-max': 60_000,
  'x-expected': 'a duration of 200ms..1m such as 500ms, 1s',
  description: 'Time between two reads of one service.',
  default: '1s',
});

/** Keys that are this kind's own; see the README beside this file. */
export const ConfigSchema = Type.Object(
  {
    servers: Type.Array(Text, { minItems: 1, maxItems: 32 }),
    namespace: Type.Optional(Text),
    pollInterval: Type.Optional(Interval),
  },
  { additionalProperties: false },
);

const decodeConfig = decoder(ConfigSchema);

export interface PolarisServerAddress {
  readonly kind: 'grpc' | 'http';
  /** `host:port`. */
  readonly address: string;
  readonly tls: boolean;
}

/** The configuration with every default filled in. */
export interface PolarisConfig {
  /** gRPC servers first: HTTP is the fallback. */
  readonly servers: readonly PolarisServerAddress[];
  /** '' for all of them. */
  readonly namespace: string;
  readonly pollMs: number;
  readonly normalWeight: number;
}

const DEFAULT_POLL_MS = 1_000;
const UNITS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

/** Defaults and checks that a schema cannot make; a sentence for people when something is wrong. */
export function resolveConfig(value: unknown, options: SourceOptions): PolarisConfig | string {
  const decoded = decodeConfig(value);
  if (!decoded.ok) return `configuration: ${decoded.faults.map(faultText).join('; ')}`;
  const config = decoded.value;
  if (options.auth.username !== undefined || options.auth.password !== undefined) {
    return 'auth: Polaris takes no user and password from clients: set auth.token to the token of the user (console, "view token")';
  }
  const servers: PolarisServerAddress[] = [];
  for (const text of config.servers) {
    const server = parseServer(text, options.tls !== null);
    if (typeof server === 'string') return server;
    servers.push(server);
  }
  const pollMs = config.pollInterval === undefined ? DEFAULT_POLL_MS : durationMs(config.pollInterval);
  if (!(pollMs >= 200 && pollMs <= 60_000)) return 'pollInterval: expected a duration of 200ms..1m';
  const namespace = config.namespace ?? 'default';
  if (namespace !== '*' && (!/^[0-9A-Za-z\-.:_]+$/.test(namespace) || namespace.length > 64)) {
    return 'namespace: expected at most 64 of A-Z a-z 0-9 - . : _, or "*" for all';
  }
  return {
    servers: [...servers.filter(({ kind }) => kind === 'grpc'), ...servers.filter(({ kind }) => kind === 'http')],
    namespace: namespace === '*' ? '' : namespace,
    pollMs,
    normalWeight: options.normalWeight ?? NORMAL_WEIGHT,
  };
}

/** `host:port`, `grpc://…`, `grpcs://…` (gRPC); `http://…`, `https://…` (the HTTP API). Ports: 8091, 8090. */
export function parseServer(text: string, tlsConfigured: boolean): PolarisServerAddress | string {
  const match = /^(?:(grpcs?|https?):\/\/)?(\[[0-9a-fA-F:.]+\]|[^:/[\]]+)(?::(\d{1,5}))?\/?$/.exec(text);
  const host = match?.[2] === undefined ? null : canonicalHost(match[2]);
  if (match === null || host === null) {
    return `servers: ${text}: expected host:port (gRPC), or http://host:port (the HTTP API as a fallback)`;
  }
  const scheme = match[1] ?? (tlsConfigured ? 'grpcs' : 'grpc');
  const kind = scheme.startsWith('http') ? 'http' : 'grpc';
  const tls = scheme === 'grpcs' || scheme === 'https';
  if (scheme === 'grpc' && match[1] !== undefined && tlsConfigured) {
    return `servers: ${text}: says plain text but tls is set: write grpcs:// or remove tls`;
  }
  const port = Number(match[3] ?? (kind === 'http' ? 8090 : 8091));
  if (port < 1 || port > 65_535) return `servers: ${text}: the port is not in 1..65535`;
  return { kind, address: hostPort(host, port), tls };
}

function durationMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  return match === null ? Number.NaN : Number(match[1]) * (UNITS.get(match[2] ?? '') ?? Number.NaN);
}
