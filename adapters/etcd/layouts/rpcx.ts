// Layout `rpcx` (rpcxio/rpcx-etcd): <service>/<network@ip:port> → a query string. Read only.
import { addressOf, BAD_ADDRESS, type Layout, splitFirst, textOf } from './layout.ts';

/** Counted anew with every put of a publisher. */
const FLEETING = new Set(['calls', 'connections']);
const DATAGRAMS = new Set(['udp', 'quic', 'kcp']);

export const rpcxLayout: Layout = {
  name: 'rpcx',
  // The base path is the user's choice, with or without a slash before it.
  prefix: '',
  normalWeight: 1,
  leased: true,
  reads: ['weight', 'isolated', 'protocol', 'version', 'metadata', 'locality'],
  keeps: [],
  parse(key, value) {
    // A service has a marker key of its own name.
    const parts = splitFirst(key);
    if (parts === null) return { kind: 'skip' };
    const [name, id] = parts;
    const service = { name };
    const at = id.indexOf('@');
    const network = at <= 0 ? 'tcp' : id.slice(0, at).toLowerCase();
    if (network === 'unix' || network === 'memu') return { kind: 'skip', service };
    const address = addressOf(id.slice(at + 1));
    if (address === null) return { kind: 'bad', service, id, reason: `key: ${BAD_ADDRESS}` };
    const text = textOf(value);
    if (text === null) return { kind: 'bad', service, id, reason: 'the value is no text' };
    const fields = new Map<string, string>();
    for (const [field, one] of new URLSearchParams(text)) {
      const before = fields.get(field);
      fields.set(field, before === undefined ? one : `${before},${one}`);
    }
    const weight = fields.get('weight') ?? '';
    const isolated = fields.get('state') === 'inactive';
    const own = new Set([...FLEETING, 'weight', 'state']);
    const instance = {
      id,
      ...address,
      weight: /^-?\d{1,9}$/.test(weight) ? Number(weight) : 1,
      isolated,
      protocol: network,
      ...(DATAGRAMS.has(network) ? { transport: 'udp' as const } : {}),
      metadata: [...fields].filter(([field]) => !own.has(field)),
    };
    return { kind: 'instances', service, instances: [instance] };
  },
  servicePrefix: ({ name }) => `${name}/`,
};
