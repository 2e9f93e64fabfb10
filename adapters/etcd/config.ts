// Owns the keys of a source of kind etcd and their defaults. Called by index.ts with what settings decoded.
import { Type } from 'typebox';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { decoder } from '../../src/kernel/decode.ts';
import { nameFault } from '../../src/model/service.ts';
import { type Endpoint, parseEndpoint } from './client.ts';
import { customLayout } from './layouts/custom.ts';
import type { Layout } from './layouts/layout.ts';
import { LAYOUTS, REFUSED_LAYOUTS } from './layouts/table.ts';

const Text = Type.String({ minLength: 1, maxLength: 255 });
const Pointer = Type.Optional(Type.String({ minLength: 2, maxLength: 255 }));

/** Keys that are this kind's own; see the README beside this file. */
export const ConfigSchema = Type.Object(
  {
    endpoints: Type.Array(Text, { minItems: 1, maxItems: 32 }),
    layout: Type.Optional(Text),
    prefix: Type.Optional(Type.String({ maxLength: 512 })),
    namespace: Type.Optional(Text),
    custom: Type.Optional(
      Type.Object(
        {
          key: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
          value: Type.Optional(Type.Union([Type.Literal('plain'), Type.Literal('json')])),
          lease: Type.Optional(Type.Boolean()),
          normalWeight: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
          pointers: Type.Optional(
            Type.Object(
              {
                address: Pointer,
                host: Pointer,
                port: Pointer,
                weight: Pointer,
                version: Pointer,
                protocol: Pointer,
                metadata: Pointer,
              },
              { additionalProperties: false },
            ),
          ),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
);

const decodeConfig = decoder(ConfigSchema);

/** The configuration with every default filled in. */
export interface EtcdConfig {
  readonly endpoints: readonly Endpoint[];
  readonly layout: Layout;
  /** Ends with the layout's separator, or is empty. */
  readonly prefix: string;
  readonly namespace: string;
  readonly normalWeight: number;
}

/** Defaults and checks that a schema cannot make; a sentence for people when something is wrong. */
export function resolveConfig(value: unknown, options: SourceOptions): EtcdConfig | string {
  const decoded = decodeConfig(value);
  if (!decoded.ok)
    return `configuration: ${decoded.faults[0]?.path ?? ''} expected ${decoded.faults[0]?.expected ?? 'another value'}`;
  const config = decoded.value;
  const layout = layoutOf(config.layout ?? 'grpc', config.custom ?? {});
  if (typeof layout === 'string') return layout;
  const endpoints: Endpoint[] = [];
  for (const text of config.endpoints) {
    const endpoint = parseEndpoint(text, options.tls !== null);
    if (typeof endpoint === 'string') return endpoint;
    endpoints.push(endpoint);
  }
  const prefix = config.prefix === undefined ? layout.prefix : withSeparator(config.prefix);
  if (prefix === '')
    return `the layout ${layout.name} has no prefix of its own: set prefix, else every key of the store would be watched`;
  const namespace = config.namespace ?? 'default';
  if (nameFault(namespace) !== null || namespace.includes('/')) return 'namespace: expected a name without "/"';
  return { endpoints, layout, prefix, namespace, normalWeight: options.normalWeight ?? layout.normalWeight ?? 100 };
}

/** A watched prefix always ends with the separator, so that `/a` does not match `/ab`. */
function withSeparator(prefix: string): string {
  return prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`;
}

interface CustomConfig {
  readonly key?: string | undefined;
  readonly value?: 'plain' | 'json' | undefined;
  readonly lease?: boolean | undefined;
  readonly normalWeight?: number | undefined;
  readonly pointers?: Readonly<Record<string, string | undefined>> | undefined;
}

function layoutOf(name: string, custom: CustomConfig): Layout | string {
  const refused = REFUSED_LAYOUTS.get(name);
  if (refused !== undefined) return refused;
  if (name !== 'custom') {
    const known = [...LAYOUTS.keys(), 'custom'].join(', ');
    return LAYOUTS.get(name) ?? `layout ${name.slice(0, 60)} is not known: expected one of ${known}`;
  }
  const given = custom.pointers ?? { host: '/host', port: '/port', weight: '/weight', metadata: '/metadata' };
  const pointers = Object.fromEntries(
    Object.entries(given).flatMap(([name, text]) => (text === undefined ? [] : [[name, text]])),
  );
  return customLayout({
    key: custom.key ?? '{service}/{id}',
    value: custom.value ?? 'json',
    lease: custom.lease ?? true,
    normalWeight: custom.normalWeight ?? 100,
    pointers,
  });
}
