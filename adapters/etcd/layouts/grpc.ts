// Layout `grpc`: the endpoints of etcd's own client (etcd-io/etcd client/v3/naming/endpoints): <target>/<anything> → {Op, Addr, Metadata}.
import {
  addressOf,
  addressText,
  BAD_ADDRESS,
  entriesOf,
  jsonObject,
  type Layout,
  refuseSlash,
  safePart,
  splitFirst,
} from './layout.ts';

export const grpcLayout: Layout = {
  name: 'grpc',
  prefix: '/services/',
  normalWeight: 100,
  leased: true,
  reads: ['weight', 'metadata', 'version', 'protocol', 'locality'],
  keeps: ['weight', 'metadata', 'version', 'protocol', 'locality'],
  parse(key, value) {
    const parts = splitFirst(key);
    if (parts === null) return { kind: 'skip' };
    const [name, id] = parts;
    const service = { name };
    const json = jsonObject(value);
    if (typeof json === 'string') return { kind: 'bad', service, id, reason: json };
    const address = addressOf(json['Addr']);
    if (address === null) return { kind: 'bad', service, id, reason: `Addr: ${BAD_ADDRESS}` };
    // Op is ignored, as the reference readers do. etcd's own resolver drops Metadata; only we read a weight from it.
    const metadata = entriesOf(json['Metadata']);
    const weight = metadata.find(([name, value]) => isWeight(name) && typeof value === 'number')?.[1];
    return {
      kind: 'instances',
      service,
      instances: [
        {
          id,
          ...address,
          ...(typeof weight === 'number' ? { weight } : {}),
          metadata: metadata.filter(([name, value]) => !isWeight(name) || typeof value !== 'number'),
        },
      ],
    };
  },
  servicePrefix: ({ name }) => `${name}/`,
  write: {
    idOf: (instance) => safePart(instance.id),
    keyOf: ({ name }, id) => `${name}/${id}`,
    valueOf: ({ instance, weight, folded }) =>
      JSON.stringify({ Op: 0, Addr: addressText(instance), Metadata: { ...Object.fromEntries(folded), weight } }),
    refuse: refuseSlash,
  },
};

function isWeight(name: string): boolean {
  return name === 'weight' || name === 'Weight';
}
