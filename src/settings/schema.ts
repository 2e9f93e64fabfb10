// Owns the one schema of weir.yaml, from which faults, defaults and conf/schema.json are made. Kinds of sources are injected.
// Called by load.ts and by the command that writes conf/schema.json; must never read anything.
import { type Static, type TObject, type TSchema, Type } from 'typebox';
import type { AdapterFactory } from '../adapter/contract.ts';
import { isRecord } from '../kernel/decode.ts';
import { duration, flag, oneOf, secret, text, unbuilt, whole } from './marks.ts';
import { commonShared, connection, ownProperties, sharedSchema } from './schema-connection.ts';
import { healthCheckSchema, serviceSchema } from './schema-services.ts';

const STRICT = { additionalProperties: false } as const;
const FILLED = { ...STRICT, 'x-fill': true } as const;
const DAY = 86_400_000;

/** Default addresses of the API and of the proxy. */
export const DEFAULT_API_LISTEN = '127.0.0.1:7900';
export const DEFAULT_PROXY_LISTEN = '127.0.0.1:7980';
export const DEFAULT_LAST_GOOD_MAX_AGE = DAY;
export const DEFAULT_REGISTRATION_TTL = 15_000;

const id = (description: string) =>
  text(description, '1..64 characters of A-Z a-z 0-9 . _ -', { pattern: '^[A-Za-z0-9._-]{1,64}$' });

const listen = (description: string, fallback?: string) =>
  text(description, 'an IP address and port such as 127.0.0.1:7900, or unix:/path', {
    'x-address': true,
    ...(fallback === undefined ? {} : { default: fallback }),
  });

const names = (description: string, expected: string) =>
  Type.Array(text(description, expected), { maxItems: 10_000, description });

/** The keys that every source takes. */
const commonSource = {
  id: id('Name of the connection, as the API shows it.'),
  kind: text('Kind of registry.', 'a kind of source'),
  ...connection,
  as: Type.Optional(
    Type.Object(
      { namespace: text('A namespace of ours.', 'a namespace without a slash', { pattern: '^[^/]+$', maxLength: 255 }) },
      { ...STRICT, description: 'The namespace that our names of this source’s services get.' },
    ),
  ),
  register: Type.Optional(flag('Takes our registrations.', false)),
  allowLoopback: Type.Optional(flag('Loopback addresses of instances are used; default true for file and memory only.')),
  allowNames: Type.Optional(flag('Host names are allowed as addresses of instances; default true for file only.')),
  allow: Type.Optional(
    Type.Object(
      {
        cidrs: Type.Optional(names('CIDR blocks that instances must be in.', 'a CIDR block such as 10.0.0.0/8')),
        ports: Type.Optional(
          Type.Array(whole('A port.', 1, 65_535), { maxItems: 10_000, description: 'Ports that instances must have.' }),
        ),
      },
      { ...STRICT, description: 'Narrows which reported addresses may be connected to.' },
    ),
  ),
  network: Type.Optional(
    Type.String({
      maxLength: 64,
      pattern: '^[A-Za-z0-9._-]*$',
      'x-expected': 'at most 64 characters of A-Z a-z 0-9 . _ -',
      default: '',
      description: 'Label; equal addresses in different networks are different instances.',
    }),
  ),
  select: Type.Optional(
    Type.Unsafe<'all' | 'onDemand' | readonly string[]>({
      anyOf: [
        { enum: ['all', 'onDemand'] },
        { type: 'array', items: { type: 'string', minLength: 1, maxLength: 512 }, minItems: 1, maxItems: 10_000 },
      ],
      'x-expected': 'all, onDemand or a list of patterns',
      default: 'all',
      description: 'Which of its services are watched; patterns are over namespace/name in the source’s own words.',
    }),
  ),
  normalWeight: Type.Optional(
    Type.Number({
      exclusiveMinimum: 0,
      maximum: 1_000_000,
      'x-expected': 'a number above 0',
      description: 'The weight that a normal instance has in this registry; ours is 100.',
    }),
  ),
  expireAfter: Type.Optional(
    duration('A stale list stops counting after this; without it never.', { min: 1_000, max: 365 * DAY }),
  ),
};

/** Keys of a source entry that are not its kind's own. */
export const COMMON_SOURCE_KEYS: ReadonlySet<string> = new Set(Object.keys(commonSource));

const registration = Type.Object(
  {
    service: text('The service that is offered.', 'namespace/name'),
    id: id('Id of the registration, unique in its service.'),
    host: text('Address of this host as others reach it.', 'an IP address or host name', { 'x-address': true }),
    port: whole('Port.', 1, 65_535),
    weight: Type.Optional(whole('100 is normal.', 0, 65_535, 100)),
    metadata: Type.Optional(
      Type.Unsafe<Readonly<Record<string, string>>>({
        type: 'object',
        additionalProperties: { type: 'string', maxLength: 1_024, 'x-expected': 'text of at most 1024 characters' },
        maxProperties: 64,
        description: 'Labels; at most 64.',
      }),
    ),
    protocol: Type.Optional(text('http, grpc, …', 'the name of a protocol')),
    version: Type.Optional(text('Version of the application.', 'text')),
    sources: Type.Optional(names('Sources to register in; default: those marked register.', 'the id of a source')),
    ttl: Type.Optional(
      duration('The registry drops it after this long without renewal.', { min: 5_000, max: 60_000 }, DEFAULT_REGISTRATION_TTL),
    ),
    healthCheck: Type.Optional(healthCheckSchema),
    onUnhealthy: Type.Optional(oneOf('What a failing check does.', ['unhealthy', 'remove'], 'unhealthy')),
  },
  { ...STRICT, description: 'An instance of this host.' },
);

const listener = Type.Object(
  {
    listen: listen('Local address of the listener.'),
    service: text('The one service behind it.', 'namespace/name'),
    direction: Type.Optional(
      oneOf('outbound: for local applications; inbound: for others.', ['outbound', 'inbound'], 'outbound'),
    ),
    trustedCidrs: Type.Optional(names('Peers whose X-Forwarded-For is kept (inbound).', 'a CIDR block such as 10.0.0.0/8')),
    protocol: Type.Optional(oneOf('Protocol.', ['http'], 'http', { tcp: 'TCP listeners', h2: 'HTTP/2 listeners' })),
    tls: Type.Optional(unbuilt('TLS towards clients.', 'TLS on listeners')),
  },
  { ...STRICT, description: 'An extra local port of one service.' },
);

/** `state` with the given schema of `state.shared`. */
function stateSchema<S extends TSchema>(shared: S) {
  return Type.Object(
    {
      dir: Type.Optional(text('Directory of last-good file and journals.', 'a directory name', { 'x-address': true })),
      lastGoodMaxAge: Type.Optional(
        duration(
          'Older instances of the last-good file are probed before their first use.',
          { min: 1_000, max: 365 * DAY },
          DEFAULT_LAST_GOOD_MAX_AGE,
        ),
      ),
      shared: Type.Optional(shared),
    },
    { ...FILLED, description: 'What survives a restart. Needs a restart.' },
  );
}

const fixedKeys = {
  api: Type.Optional(
    Type.Object(
      {
        listen: Type.Optional(listen('Address of the HTTP API.', DEFAULT_API_LISTEN)),
        tokens: Type.Optional(
          Type.Object(
            {
              read: Type.Optional(secret('Bearer token for reads.')),
              write: Type.Optional(secret('Bearer token for everything.')),
            },
            { ...STRICT, description: 'Needed when the listener is neither loopback nor a unix socket.' },
          ),
        ),
        allowedHosts: Type.Optional(
          Type.Array(text('A host name.', 'a host name or host:port', { pattern: '^[A-Za-z0-9._:\\[\\]-]{1,255}$' }), {
            maxItems: 1_000,
            default: [],
            description: 'Host fields accepted beside localhost, 127.0.0.1 and [::1].',
          }),
        ),
      },
      { ...FILLED, description: 'The HTTP API. Needs a restart.' },
    ),
  ),
  proxy: Type.Optional(
    Type.Object(
      {
        listen: Type.Optional(listen('Address of the main proxy port.', DEFAULT_PROXY_LISTEN)),
        workers: Type.Optional(
          unbuilt('Data-plane processes; 0: in this process.', 'proxy.workers above 0 (data-plane processes)', 0),
        ),
      },
      { ...FILLED, description: 'The data plane. Needs a restart.' },
    ),
  ),
  id: Type.Optional(id('This sidecar’s name in a fleet; default: the host name. Needs a restart.')),
};

const laterKeys = {
  accessLog: Type.Optional(
    Type.Object(
      { to: text('stdout, or file: and a path.', 'stdout or file:/path', { pattern: '^(stdout|file:.+)$' }) },
      { ...STRICT, description: 'One JSON line a request; default: off.' },
    ),
  ),
  services: Type.Optional(
    Type.Array(serviceSchema, { maxItems: 10_000, description: 'Policies by service; the first match wins.' }),
  ),
  listeners: Type.Optional(Type.Array(listener, { maxItems: 1_000, description: 'Extra local ports.' })),
  registrations: Type.Optional(Type.Array(registration, { maxItems: 1_000, description: 'What this host offers.' })),
  shutdown: Type.Optional(
    Type.Object(
      {
        registrations: Type.Optional(
          oneOf('keep: leases stay and are taken up again from the journal.', ['deregister', 'keep'], 'deregister'),
        ),
      },
      { ...FILLED, description: 'What happens to our registrations at the end.' },
    ),
  ),
  migrations: Type.Optional(
    Type.Object(
      { frozen: Type.Optional(flag('Stops every write of migrations.', false)) },
      {
        ...FILLED,
        'x-only': 'migrations are made through the API or `weir migrate`, not in the file',
        description: 'Migrations.',
      },
    ),
  ),
  dns: Type.Optional(unbuilt('DNS front.', 'the DNS server')),
  tracing: Type.Optional(unbuilt('Tracing.', 'tracing')),
  rateLimits: Type.Optional(unbuilt('Rate limits.', 'rate limits')),
};

/** The static side of the file: what compile.ts reads once the whole schema has accepted it. Sources keep their kinds' own keys. */
export const fileSchema = Type.Object({
  ...fixedKeys,
  state: Type.Optional(stateSchema(Type.Object(commonShared))),
  sources: Type.Optional(Type.Array(Type.Object(commonSource))),
  ...laterKeys,
});

export type ConfigFile = Static<typeof fileSchema>;
export type SourceEntry = Static<typeof sourceEntrySchema>;
export type SharedEntry = NonNullable<NonNullable<ConfigFile['state']>['shared']>;
export type ServiceEntry = Static<typeof serviceSchema>;
export type HealthCheckEntry = Static<typeof healthCheckSchema>;
const sourceEntrySchema = Type.Object(commonSource);

/** Kinds of the contract that may be unknown to the loader. */
const CONTRACT_KINDS = ['memory', 'file', 'etcd', 'consul', 'nacos', 'polaris', 'l5'] as const;

/** The schema of a source of one kind: common keys and its own. Throws RangeError when the factory's schema is no object or reuses a common key. */
export function sourceSchema(factory: AdapterFactory): TObject {
  const own = ownProperties(factory);
  const taken = Object.keys(own).find((key) => COMMON_SOURCE_KEYS.has(key));
  if (taken !== undefined) throw new RangeError(`config of kind ${factory.kind}: key ${taken} belongs to every source`);
  const properties = { ...commonSource, kind: oneOf('Kind of registry.', [factory.kind]), ...own };
  return Type.Object(properties, { ...STRICT, description: `A source of kind ${factory.kind}.` });
}

/** The schema of the whole file for the given kinds. Throws like {@link sourceSchema}. */
export function configSchema(factories: readonly AdapterFactory[]): TObject {
  const known = factories.map(({ kind }) => kind);
  const later = CONTRACT_KINDS.filter((kind) => !known.includes(kind)).map((kind) => [kind, `the adapter for ${kind}`]);
  const item = Type.Unsafe<unknown>({
    anyOf: factories.map((factory) => sourceSchema(factory)),
    'x-kinds': known,
    'x-unbuilt-values': Object.fromEntries(later),
    'x-expected': 'a source: {id, kind, …}',
  });
  const sources = Type.Optional(
    Type.Array(item, { maxItems: 256, description: 'Connections to registries; default: one embedded registry named local.' }),
  );
  return Type.Object(
    { ...fixedKeys, state: Type.Optional(stateSchema(sharedSchema(factories))), sources, ...laterKeys },
    { ...STRICT, 'x-expected': 'a mapping of keys to values', description: 'Configuration of weir.' },
  );
}

/** JSON Schema (2020-12) of the file, for editors: conf/schema.json. Our own marks are left out. */
export function jsonSchema(factories: readonly AdapterFactory[]): Record<string, unknown> {
  const head = { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'weir.yaml' };
  const body = withoutMarks(configSchema(factories));
  return { ...head, ...(isRecord(body) ? body : {}) };
}

function withoutMarks(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMarks);
  if (!isRecord(value)) return value;
  const unbuiltKey = value['x-unbuilt'];
  const entries = Object.entries(value)
    .filter(([key]) => !key.startsWith('x-'))
    .map(([key, inner]) => [key, withoutMarks(inner)]);
  const plain: Record<string, unknown> = Object.fromEntries(entries);
  if (typeof unbuiltKey === 'string') {
    plain['description'] = `${String(value['description'])} Not built yet: refused.`;
    if (value['x-allow'] !== undefined) plain['const'] = value['x-allow'];
    else plain['not'] = {};
  }
  return plain;
}
