// Layout `trpc` (trpc-ecosystem/go-naming-etcd): <service>/<id>, "/" as "-" → {name, id, address, metadata, weight}.
import { addressOf, BAD_ADDRESS, entriesOf, jsonObject, type Layout, safePart, splitFirst, stringOf } from './layout.ts';

export const trpcLayout: Layout = {
  name: 'trpc',
  // The leading space is real.
  prefix: ' trpc/registry/services/',
  normalWeight: 1,
  weightStep: 1,
  leased: true,
  reads: ['weight', 'metadata', 'version', 'protocol', 'locality'],
  keeps: ['weight', 'metadata', 'version', 'protocol', 'locality'],
  parse(key, value) {
    const parts = splitFirst(key);
    if (parts === null) return { kind: 'skip' };
    const [keyName, id] = parts;
    const json = jsonObject(value);
    if (typeof json === 'string') return { kind: 'bad', service: { name: keyName }, id, reason: json };
    // The key has lost the difference between "/" and "-": the name comes from the value, and must be that of the key.
    const name = stringOf(json['name']);
    if (name === undefined || safePart(name) !== keyName) {
      return { kind: 'bad', service: { name: keyName }, id, reason: 'the name in the value is not that of the key' };
    }
    const address = addressOf(json['address'], true);
    if (address === null) return { kind: 'bad', service: { name }, id, reason: `address: ${BAD_ADDRESS}` };
    const { weight } = json;
    return {
      kind: 'instances',
      service: { name },
      instances: [{ id, ...address, weight: typeof weight === 'number' ? weight : 1, metadata: entriesOf(json['metadata']) }],
    };
  },
  servicePrefix: ({ name }) => `${safePart(name)}/`,
  write: {
    idOf: (instance) => safePart(instance.id),
    keyOf: ({ name }, id) => `${safePart(name)}/${id}`,
    valueOf: ({ service, id, instance, weight, folded }) =>
      JSON.stringify({
        name: service.name,
        id,
        address: `${instance.host}:${instance.port}`,
        metadata: Object.fromEntries(folded),
        weight,
      }),
  },
};
