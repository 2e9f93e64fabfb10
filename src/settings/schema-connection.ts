// Owns the schema of a connection: the keys that every connection takes, a kind's own keys, and `state.shared`, a connection that is a
// store. Called by schema.ts; must never read anything.
import { type TSchema, Type } from 'typebox';
import type { AdapterFactory } from '../adapter/contract.ts';
import { isRecord } from '../kernel/decode.ts';
import { duration, oneOf, secret, text, unbuilt } from './marks.ts';

const STRICT = { additionalProperties: false } as const;

export const DEFAULT_SOURCE_TIMEOUT = 10_000;

/** How any connection to a registry is made. */
export const connection = {
  auth: Type.Optional(
    Type.Object(
      {
        username: Type.Optional(secret('User name.')),
        password: Type.Optional(secret('Password.')),
        token: Type.Optional(secret('Token.')),
      },
      { ...STRICT, description: 'Credentials; the kind says which it takes.' },
    ),
  ),
  tls: Type.Optional(
    Type.Object(
      {
        ca: Type.Optional(text('File of the CA certificates (PEM), relative to this file.', 'a file name')),
        cert: Type.Optional(text('File of our certificate (PEM).', 'a file name')),
        key: Type.Optional(text('File of our private key (PEM).', 'a file name')),
        serverName: Type.Optional(text('Name that the server’s certificate must carry.', 'a host name')),
      },
      { ...STRICT, description: 'TLS to the registry; the files are read again for each connection.' },
    ),
  ),
  timeout: Type.Optional(duration('Deadline of one call to the registry.', { min: 10, max: 300_000 }, DEFAULT_SOURCE_TIMEOUT)),
};

/** Keys that hold addresses in every kind's own config, marked or not. */
const ADDRESS_KEYS: ReadonlySet<string> = new Set(['address', 'addresses', 'servers', 'endpoints']);

/** The keys that every shared store takes. */
export const commonShared = { kind: text('Kind of store.', 'a kind of store'), ...connection };

/** Keys of a shared store that are not its kind's own. */
export const COMMON_SHARED_KEYS: ReadonlySet<string> = new Set(Object.keys(commonShared));

/** Kinds that can be the fleet's store, and which of their own keys that needs: the others are about services. */
const SHARED_KINDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['etcd', ['endpoints', 'prefix']],
  ['consul', ['address', 'datacenter', 'namespace', 'partition', 'kvPrefix']],
]);

/** Where the keys of a fleet stand when the file does not say: beside services, never among them. */
export const DEFAULT_SHARED_PREFIX = '/weir/';

/** The schema of `state.shared`: a branch for each kind that can be the store and is known. Throws RangeError like {@link ownProperties}. */
export function sharedSchema(factories: readonly AdapterFactory[]): TSchema {
  const branches = factories.flatMap((factory) => {
    const keys = SHARED_KINDS.get(factory.kind);
    if (keys === undefined) return [];
    const own = Object.entries(ownProperties(factory)).filter(([key]) => keys.includes(key));
    const properties = { ...commonShared, kind: oneOf('Kind of store.', [factory.kind]), ...Object.fromEntries(own) };
    if (factory.kind === 'etcd') {
      const prefix = text('Every key of the fleet stands below it.', 'the beginning of a key', {
        default: DEFAULT_SHARED_PREFIX,
      });
      Object.assign(properties, { prefix: Type.Optional(prefix) });
    }
    return [
      { kind: factory.kind, schema: Type.Object(properties, { ...STRICT, description: `A store of kind ${factory.kind}.` }) },
    ];
  });
  const description = 'Store that a fleet shares: every sidecar sees the same migrations, exactly one mirrors. Default: none.';
  if (branches.length === 0) return unbuilt(description, 'state.shared without a kind that can be a store');
  return Type.Unsafe<unknown>({
    anyOf: branches.map(({ schema }) => schema),
    'x-kinds': branches.map(({ kind }) => kind),
    'x-expected': 'a store: {kind, …}',
    description,
  });
}

/** A kind's own keys, addresses marked. Throws RangeError when the factory's schema is no object. */
export function ownProperties(factory: AdapterFactory): Record<string, TSchema> {
  const properties = Object.hasOwn(factory.config, 'properties') ? Object.entries(factory.config) : [];
  const found = properties.find(([key]) => key === 'properties')?.[1];
  if (!isRecord(found)) throw new RangeError(`config of kind ${factory.kind}: not an object schema`);
  const own: Record<string, TSchema> = {};
  const required = requiredOf(factory.config);
  for (const [key, value] of Object.entries(found)) {
    if (!isRecord(value)) continue;
    const marked: TSchema = ADDRESS_KEYS.has(key) ? { ...value, 'x-address': true } : { ...value };
    own[key] = required.has(key) ? marked : Type.Optional(marked);
  }
  return own;
}

function requiredOf(schema: TSchema): ReadonlySet<unknown> {
  const found = Object.entries(schema).find(([key]) => key === 'required')?.[1];
  return new Set(Array.isArray(found) ? found : []);
}
