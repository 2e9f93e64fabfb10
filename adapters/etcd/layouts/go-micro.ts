// Layout `go-micro` (micro/go-micro registry/etcd): <service>/<node id>, "/" as "-" → {name, version, metadata, endpoints, nodes}.
import { isRecord } from '../../../src/kernel/decode.ts';
import {
  addressOf,
  addressText,
  BAD_ADDRESS,
  entriesOf,
  jsonObject,
  type Layout,
  type NativeInstance,
  safePart,
  splitFirst,
  stringOf,
} from './layout.ts';

export const goMicroLayout: Layout = {
  name: 'go-micro',
  prefix: '/micro/registry/',
  normalWeight: null,
  leased: true,
  reads: ['metadata', 'version', 'protocol', 'locality'],
  keeps: ['metadata', 'version', 'protocol', 'locality'],
  parse(key, value) {
    const parts = splitFirst(key);
    if (parts === null) return { kind: 'skip' };
    const [keyName, id] = parts;
    const json = jsonObject(value);
    if (typeof json === 'string') return { kind: 'bad', service: { name: keyName }, id, reason: json };
    const name = stringOf(json['name']);
    if (name === undefined || safePart(name) !== keyName) {
      return { kind: 'bad', service: { name: keyName }, id, reason: 'the name in the value is not that of the key' };
    }
    const version = stringOf(json['version']);
    const instances: NativeInstance[] = [];
    for (const node of Array.isArray(json['nodes']) ? json['nodes'] : []) {
      const address = isRecord(node) ? addressOf(node['address']) : null;
      if (!isRecord(node) || address === null) return { kind: 'bad', service: { name }, id, reason: `nodes: ${BAD_ADDRESS}` };
      // Metadata of the node override those of the service.
      const metadata = new Map([...entriesOf(json['metadata']), ...entriesOf(node['metadata'])]);
      instances.push({ id: stringOf(node['id']) ?? id, ...address, ...(version === undefined ? {} : { version }), metadata });
    }
    return { kind: 'instances', service: { name }, instances };
  },
  servicePrefix: ({ name }) => `${safePart(name)}/`,
  write: {
    idOf: (instance) => safePart(instance.id),
    keyOf: ({ name }, id) => `${safePart(name)}/${safePart(id)}`,
    valueOf({ service, id, instance, folded }) {
      const metadata = new Map(folded);
      metadata.delete('version');
      return JSON.stringify({
        name: service.name,
        version: instance.version ?? '',
        metadata: null,
        endpoints: [],
        nodes: [{ id, address: addressText(instance), metadata: Object.fromEntries(metadata) }],
      });
    },
  },
};
