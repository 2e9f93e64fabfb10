// Owns the keys of a source of kind consul and their defaults. Called by index.ts with what settings decoded.
import { Type } from 'typebox';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { canonicalHost, hostPort } from '../../src/kernel/address.ts';
import { decoder, faultText } from '../../src/kernel/decode.ts';
import { nameFault } from '../../src/model/service.ts';

const Text = Type.String({ minLength: 1, maxLength: 255 });

/** Blocking queries held per agent address, all of them together: 100 services and what they share, half of what one host may open. */
export const MAX_BLOCKING = 102;
/** The same where queries share connections (HTTP/2 over TLS); what bounds it then is the agent's memory. */
export const MAX_BLOCKING_H2 = 1_002;
/** Of those, the list of names and the firehose. */
export const SHARED_QUERIES = 2;

const PLAIN_WATCHES = MAX_BLOCKING - SHARED_QUERIES;
/** Services with a query of their own over HTTP/2, unless told otherwise. */
const DEFAULT_WATCHES_H2 = 500;

/** Keys that are this kind's own; see the README beside this file. */
export const ConfigSchema = Type.Object(
  {
    address: Type.Optional(Text),
    datacenter: Type.Optional(Text),
    namespace: Type.Optional(Text),
    partition: Type.Optional(Text),
    peer: Type.Optional(Text),
    /** Names of a peer: Consul lists none for it. */
    peerServices: Type.Optional(Type.Array(Text, { maxItems: 10_000 })),
    consistency: Type.Optional(Type.Union([Type.Literal('stale'), Type.Literal('default'), Type.Literal('consistent')])),
    mode: Type.Optional(Type.Union([Type.Literal('agent'), Type.Literal('catalog')])),
    owner: Type.Optional(Text),
    node: Type.Optional(Text),
    taggedAddress: Type.Optional(Text),
    tagFields: Type.Optional(Type.Boolean()),
    kinds: Type.Optional(Type.Array(Text, { maxItems: 16 })),
    showConsul: Type.Optional(Type.Boolean()),
    maxWatches: Type.Optional(Type.Integer({ minimum: 1, maximum: MAX_BLOCKING_H2 - SHARED_QUERIES })),
    kvPrefix: Type.Optional(Type.String({ maxLength: 255 })),
  },
  { additionalProperties: false },
);

const decodeConfig = decoder(ConfigSchema);

/** How reads ask the servers; see rule 12 of the protocol notes. */
export type Consistency = 'stale' | 'default' | 'consistent';

/** The configuration with every default filled in. */
export interface ConsulConfig {
  /** `http://host:port` or `https://host:port`. */
  readonly origin: string;
  readonly tls: boolean;
  readonly datacenter: string | null;
  /** Enterprise; null: not sent at all, since the community edition refuses even `default`. */
  readonly namespace: string | null;
  readonly partition: string | null;
  readonly peer: string | null;
  readonly peerServices: readonly string[];
  readonly consistency: Consistency;
  /** Where registrations of this host go. Copies always go to the catalog. */
  readonly mode: 'agent' | 'catalog';
  /** Names the synthetic node of our copies; null: by their migration. */
  readonly owner: string | null;
  /** Name of the agent's node, where the token may not read /agent/self. */
  readonly node: string | null;
  /** Key of TaggedAddresses that is used instead of the plain address. */
  readonly taggedAddress: string | null;
  readonly tagFields: boolean;
  /** Kinds of services besides the ordinary one. */
  readonly kinds: ReadonlySet<string>;
  readonly showConsul: boolean;
  readonly maxWatches: number;
  readonly kvPrefix: string;
  readonly normalWeight: number;
}

/** Defaults and checks that a schema cannot make; a sentence for people when something is wrong. */
export function resolveConfig(value: unknown, options: SourceOptions): ConsulConfig | string {
  const decoded = decodeConfig(value);
  if (!decoded.ok) return `configuration: ${decoded.faults.map(faultText).join('; ')}`;
  const config = decoded.value;
  const address = parseAddress(config.address ?? 'http://127.0.0.1:8500', options.tls !== null);
  if (typeof address === 'string') return address;
  if (options.auth.username !== undefined || options.auth.password !== undefined) {
    return 'auth: Consul knows no user and password; set auth.token to an ACL token (its SecretID)';
  }
  const namespace = config.namespace ?? null;
  if (namespace !== null && (nameFault(namespace) !== null || namespace.includes('/'))) {
    return 'namespace: expected a name without "/"';
  }
  if (namespace === '*') return 'namespace: one namespace per source; add a source for each';
  if (config.peer === undefined && config.peerServices !== undefined)
    return 'peerServices: has a meaning only together with peer';
  if (config.peer !== undefined && config.peerServices === undefined) {
    return 'peer: Consul lists no names of a peer; name its services in peerServices';
  }
  if (!address.tls && (config.maxWatches ?? 0) > PLAIN_WATCHES) {
    return `maxWatches: at most ${PLAIN_WATCHES} over plain HTTP, where each query holds a connection; use https for more`;
  }
  return {
    ...address,
    datacenter: config.datacenter ?? null,
    namespace,
    partition: config.partition ?? null,
    peer: config.peer ?? null,
    peerServices: config.peerServices ?? [],
    consistency: config.consistency ?? 'stale',
    mode: config.mode ?? 'agent',
    owner: config.owner ?? null,
    node: config.node ?? null,
    taggedAddress: config.taggedAddress ?? null,
    tagFields: config.tagFields ?? false,
    kinds: new Set(config.kinds ?? []),
    showConsul: config.showConsul ?? false,
    maxWatches: config.maxWatches ?? (address.tls ? DEFAULT_WATCHES_H2 : PLAIN_WATCHES),
    kvPrefix: config.kvPrefix ?? 'weir/',
    normalWeight: options.normalWeight ?? 1,
  };
}

/** `http://h:p`, `https://h:p` or `h:p` (TLS when `tls` is set); a text that says what is wrong otherwise. */
function parseAddress(text: string, tlsConfigured: boolean): { origin: string; tls: boolean } | string {
  const match = /^(?:(https?):\/\/)?(\[[0-9a-fA-F:.]+\]|[^:/[\]]+)(?::(\d{1,5}))?\/?$/.exec(text);
  const host = match?.[2] === undefined ? null : canonicalHost(match[2]);
  if (match === null || host === null) return `address ${text}: expected http://host:port, https://host:port or host:port`;
  if (match[1] === 'http' && tlsConfigured) {
    return `address ${text}: says plain text but tls is set: write https:// or remove tls`;
  }
  const tls = match[1] === 'https' || tlsConfigured;
  const port = Number(match[3] ?? (tls ? 8501 : 8500));
  if (port < 1 || port > 65_535) return `address ${text}: the port is not in 1..65535`;
  return { origin: `${tls ? 'https' : 'http'}://${hostPort(host, port)}`, tls };
}
