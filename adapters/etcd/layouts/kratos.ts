// Layout `kratos` (go-kratos/kratos contrib/registry/etcd): <name>/<id> → {id, name, version, metadata, endpoints}, one instance per endpoint.
import {
  addressOf,
  addressText,
  BAD_ADDRESS,
  entriesOf,
  jsonObject,
  type Layout,
  type NativeInstance,
  refuseSlash,
  safePart,
  splitFirst,
  stringOf,
} from './layout.ts';

export const kratosLayout: Layout = {
  name: 'kratos',
  prefix: '/microservices/',
  normalWeight: null,
  leased: true,
  reads: ['metadata', 'version', 'protocol', 'locality'],
  keeps: ['metadata', 'version', 'protocol', 'locality'],
  parse(key, value) {
    const parts = splitFirst(key);
    if (parts === null) return { kind: 'skip' };
    const [name, id] = parts;
    const service = { name };
    const json = jsonObject(value);
    if (typeof json === 'string') return { kind: 'bad', service, id, reason: json };
    // The reference clients read a prefix without its slash and compare the name; so do we.
    if (json['name'] !== name) return { kind: 'bad', service, id, reason: 'the name in the value is not that of the key' };
    const endpoints = Array.isArray(json['endpoints']) ? json['endpoints'] : [];
    const version = stringOf(json['version']);
    const instances: NativeInstance[] = [];
    for (const endpoint of endpoints) {
      const parsed = endpointOf(endpoint);
      if (parsed === null) return { kind: 'bad', service, id, reason: `endpoints: ${BAD_ADDRESS}` };
      const metadata = entriesOf(json['metadata']);
      instances.push({
        id: `${id}#${parsed.scheme}`,
        host: parsed.host,
        port: parsed.port,
        protocol: parsed.scheme,
        ...(version === undefined ? {} : { version }),
        metadata: parsed.secure ? [...metadata, ['tls', 'true'] as const] : metadata,
      });
    }
    return { kind: 'instances', service, instances };
  },
  servicePrefix: ({ name }) => `${name}/`,
  write: {
    idOf: (instance) => `${safePart(instance.id).replace(/#[a-z0-9+.-]*$/i, '')}#${schemeOf(instance.protocol)}`,
    keyOf: ({ name }, id) => `${name}/${id.replace(/#[^#]*$/, '')}`,
    valueOf({ service, id, instance, folded }) {
      const metadata = new Map(folded);
      const secure = metadata.get('tls') === 'true';
      for (const own of ['version', 'protocol', 'tls']) metadata.delete(own);
      const scheme = schemeOf(instance.protocol);
      return JSON.stringify({
        id: id.replace(/#[^#]*$/, ''),
        name: service.name,
        version: instance.version ?? '',
        metadata: Object.fromEntries(metadata),
        endpoints: [`${scheme}://${addressText(instance)}?isSecure=${secure}`],
      });
    },
    refuse: refuseSlash,
  },
};

function schemeOf(protocol: string | undefined): string {
  return protocol !== undefined && /^[a-z][a-z0-9+.-]*$/i.test(protocol) ? protocol : 'grpc';
}

function endpointOf(endpoint: unknown): { scheme: string; host: string; port: number; secure: boolean } | null {
  if (typeof endpoint !== 'string') return null;
  const match = /^([a-z][a-z0-9+.-]{0,31}):\/\/([^/?#]+)\/?(?:\?([^#]*))?$/i.exec(endpoint);
  const address = addressOf(match?.[2]);
  if (match?.[1] === undefined || address === null) return null;
  return { scheme: match[1].toLowerCase(), ...address, secure: /(?:^|&)isSecure=true(?:&|$)/i.test(match[3] ?? '') };
}
