// Owns the keys of a source of kind l5 and their defaults. Called by index.ts with what settings decoded.
import { Type } from 'typebox';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { canonicalHost, hostPort } from '../../src/kernel/address.ts';
import { decoder, faultText } from '../../src/kernel/decode.ts';
import { NORMAL_WEIGHT } from '../../src/model/instance.ts';
import { nameFault } from '../../src/model/service.ts';
import { compareSids, ipNumber, parseSid, type Sid, type SidText, sidText } from './sid.ts';

const SidSchema = Type.String({ pattern: '^\\d{1,10}:\\d{1,10}$', 'x-expected': 'a SID such as 192002625:487373' });
const Name = Type.String({ minLength: 1, maxLength: 255 });

/** Changes show after 0.2-2 s on the server itself: polling faster than 1 s brings nothing. */
const Interval = Type.Unsafe<string>({
  type: 'string',
  pattern: '^\\d{1,9}(\\.\\d{1,3})?(ms|s|m|h)$',
  'x-unit': 'duration',
  'x-min': 200,
  'x-max': 60_000,
  'x-expected': 'a duration of 200ms..1m such as 500ms, 1s',
  description: 'Time between two reads of all that is watched.',
  default: '1s',
});

/** A request of 1,000 SIDs takes the server 4-5 ms and an answer of 30 kB for each instance of every SID. */
const DEFAULT_BATCH = 1_000;
/** 500,000 instances fit. Beyond 32 MiB a TLS alert could be taken for a head. */
const DEFAULT_MAX_ANSWER = 16 * 1024 * 1024;
const MAX_MAX_ANSWER = 32 * 1024 * 1024;
const DEFAULT_POLL_MS = 1_000;
const DEFAULT_PORT = 7_779;

/** Keys that are this kind's own; see the README beside this file. */
export const ConfigSchema = Type.Object(
  {
    servers: Type.Array(Name, { minItems: 1, maxItems: 32 }),
    sids: Type.Optional(Type.Array(SidSchema, { maxItems: 10_000 })),
    names: Type.Optional(Type.Array(Name, { maxItems: 1_000 })),
    aliases: Type.Optional(Type.Boolean()),
    namespace: Type.Optional(Name),
    agentIp: Type.Optional(Type.String({ minLength: 7, maxLength: 15 })),
    pollInterval: Type.Optional(Interval),
    batch: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    maxAnswer: Type.Optional(Type.Integer({ minimum: 65_536, maximum: MAX_MAX_ANSWER })),
    protocols: Type.Optional(
      Type.Record(Type.String({ pattern: '^\\d{1,10}:\\d{1,10}$' }), Type.String({ minLength: 1, maxLength: 64 })),
    ),
  },
  { additionalProperties: false },
);

const decodeConfig = decoder(ConfigSchema);

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  /** `host:port`, for people and as a key. */
  readonly text: string;
}

/** The configuration with every default filled in. */
export interface L5Config {
  readonly servers: readonly ServerAddress[];
  /** Without duplicates, in order. */
  readonly sids: readonly Sid[];
  readonly names: readonly string[];
  /** Learnt names are listed as services of their own besides `modid:cmdid`. */
  readonly aliases: boolean;
  readonly namespace: string;
  /** Int32 of the wire; null: the local address of the connection. */
  readonly agentIp: number | null;
  readonly pollMs: number;
  /** SIDs in one request. */
  readonly batch: number;
  /** Largest answer taken, bytes. */
  readonly maxAnswer: number;
  readonly protocols: ReadonlyMap<SidText, string>;
  readonly normalWeight: number;
}

/** Defaults and checks that a schema cannot make; a sentence for people when something is wrong. */
export function resolveConfig(value: unknown, options: SourceOptions): L5Config | string {
  const decoded = decodeConfig(value);
  if (!decoded.ok) return `configuration: ${decoded.faults.map(faultText).join('; ')}`;
  const config = decoded.value;
  if (options.tls !== null)
    return 'tls: the L5 protocol has no TLS: remove tls, and protect the way to the server by the network';
  if (Object.values(options.auth).some((secret) => secret !== undefined)) {
    return 'auth: the L5 protocol has no credentials: remove auth';
  }
  const servers = each('servers', config.servers, parseServer);
  const sids = each('sids', config.sids ?? [], parseSid);
  if (typeof servers === 'string') return `${servers}: expected host:port`;
  if (typeof sids === 'string') return `${sids}: expected modid:cmdid, each 0..4294967295 without leading zeros`;
  const protocols = each('protocols', Object.keys(config.protocols ?? {}), parseSid);
  if (typeof protocols === 'string') return `${protocols}: expected modid:cmdid as the key`;
  const names = config.names ?? [];
  for (const name of names) {
    if (parseSid(name) !== null) return `names: ${name} is a SID: write it under sids`;
    const fault = nameFault(name);
    if (fault !== null) return `names: a name ${fault}`;
  }
  const namespace = config.namespace ?? 'default';
  if (nameFault(namespace) !== null || namespace.includes('/')) return 'namespace: expected a name without "/"';
  const agentIp = config.agentIp === undefined ? null : ipNumber(config.agentIp);
  if (config.agentIp !== undefined && (agentIp === null || agentIp === 0))
    return 'agentIp: expected the IPv4 address of this host';
  const pollMs = config.pollInterval === undefined ? DEFAULT_POLL_MS : durationMs(config.pollInterval);
  if (!(pollMs >= 200 && pollMs <= 60_000)) return 'pollInterval: expected a duration of 200ms..1m';
  return {
    servers: distinct(servers, ({ text }) => text),
    sids: distinct(sids, sidText).toSorted(compareSids),
    names: [...new Set(names)],
    aliases: config.aliases ?? false,
    namespace,
    agentIp,
    pollMs,
    batch: config.batch ?? DEFAULT_BATCH,
    maxAnswer: config.maxAnswer ?? DEFAULT_MAX_ANSWER,
    protocols: new Map(Object.entries(config.protocols ?? {})),
    normalWeight: options.normalWeight ?? NORMAL_WEIGHT,
  };
}

/** `host:port`; without a port 7779. Null when it is none. */
export function parseServer(text: string): ServerAddress | null {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:/[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] === undefined ? null : canonicalHost(match[1]);
  const port = Number(match?.[2] ?? DEFAULT_PORT);
  return host === null || port < 1 || port > 65_535 ? null : serverAddress(host, port);
}

export function serverAddress(host: string, port: number): ServerAddress {
  return { host, port, text: hostPort(host, port) };
}

/** All parsed, or the key and the first text that is none. */
function each<T>(key: string, texts: readonly string[], parse: (text: string) => T | null): T[] | string {
  const values: T[] = [];
  for (const text of texts) {
    const value = parse(text);
    if (value === null) return `${key}: ${text}`;
    values.push(value);
  }
  return values;
}

function distinct<T>(values: readonly T[], key: (value: T) => string): T[] {
  return [...new Map(values.map((value) => [key(value), value])).values()];
}

const UNITS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

function durationMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  return match === null ? Number.NaN : Number(match[1]) * (UNITS.get(match[2] ?? '') ?? Number.NaN);
}
