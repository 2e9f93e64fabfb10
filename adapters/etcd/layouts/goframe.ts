// Layout `goframe` (gogf/gf net/gsvc, contrib/registry/etcd): <namespace>/<name>/<version>/<host:port,host:port> → JSON metadata. Read only.
// Head and deployment are the prefix.
import {
  addressOf,
  addressText,
  BAD_ADDRESS,
  entriesOf,
  jsonObject,
  type Layout,
  type NativeInstance,
  type NativeReject,
} from './layout.ts';

export const goframeLayout: Layout = {
  name: 'goframe',
  prefix: '/service/default/',
  normalWeight: 1,
  leased: true,
  namespaced: true,
  reads: ['weight', 'protocol', 'version', 'metadata', 'locality'],
  keeps: [],
  parse(key, value) {
    // At least these parts; what follows has no meaning.
    const [namespace = '', name = '', version = '', endpoints = ''] = key.split('/');
    if (namespace === '' || name === '' || version === '' || endpoints === '') return { kind: 'skip' };
    const service = { namespace, name };
    const json = value.length === 0 ? {} : jsonObject(value);
    if (typeof json === 'string') return { kind: 'bad', service, id: endpoints, reason: json };
    const weight = weightOf(json['weight']);
    const metadata = entriesOf(json).filter(([field]) => field !== 'weight' || weight === null);
    const instances: NativeInstance[] = [];
    const rejected: NativeReject[] = [];
    for (const endpoint of endpoints.split(',')) {
      const address = addressOf(endpoint.trim());
      if (address === null) rejected.push({ id: endpoint, reason: `endpoints: ${BAD_ADDRESS}` });
      else instances.push({ id: addressText(address), ...address, ...(weight === null ? {} : { weight }), version, metadata });
    }
    return { kind: 'instances', service, instances, rejected };
  },
  servicePrefix: ({ namespace, name }) => (namespace === undefined ? null : `${namespace}/${name}/`),
};

function weightOf(value: unknown): number | null {
  if (typeof value === 'number') return value;
  return typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : null;
}
