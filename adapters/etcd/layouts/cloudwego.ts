// Layouts `kitex` and `hertz` (kitex-contrib/registry-etcd, hertz-contrib/registry): <service>/<ip:port> → {network, address, weight, tags}.
import { addressOf, addressText, BAD_ADDRESS, entriesOf, jsonObject, type Layout, refuseSlash, splitFirst } from './layout.ts';

/** kitex writes IPv6 without brackets, hertz with; both are read from either. */
function cloudwegoLayout(name: string, prefix: string, textOf: (address: { host: string; port: number }) => string): Layout {
  return {
    name,
    prefix,
    normalWeight: 10,
    weightStep: 1,
    // A weight of 0 or less means 10 to its readers.
    noZeroWeight: true,
    leased: true,
    reads: ['weight', 'metadata', 'version', 'protocol', 'locality'],
    keeps: ['weight', 'metadata', 'version', 'protocol', 'locality'],
    parse(key, value) {
      const parts = splitFirst(key);
      if (parts === null) return { kind: 'skip' };
      const [service, id] = parts;
      const json = jsonObject(value);
      if (typeof json === 'string') return { kind: 'bad', service: { name: service }, id, reason: json };
      if (json['network'] === 'unix') return { kind: 'skip', service: { name: service } };
      const address = addressOf(json['address'], true);
      if (address === null) return { kind: 'bad', service: { name: service }, id, reason: `address: ${BAD_ADDRESS}` };
      const { weight } = json;
      return {
        kind: 'instances',
        service: { name: service },
        instances: [
          { id, ...address, weight: typeof weight === 'number' && weight > 0 ? weight : 10, metadata: entriesOf(json['tags']) },
        ],
      };
    },
    servicePrefix: ({ name: service }) => `${service}/`,
    write: {
      idOf: (instance) => textOf(instance),
      keyOf: ({ name: service }, id) => `${service}/${id}`,
      valueOf: ({ instance, weight, folded }) =>
        JSON.stringify({ network: 'tcp', address: textOf(instance), weight, tags: Object.fromEntries(folded) }),
      refuse: refuseSlash,
    },
  };
}

export const kitexLayout = cloudwegoLayout('kitex', 'kitex/registry-etcd/', ({ host, port }) => `${host}:${port}`);
export const hertzLayout = cloudwegoLayout('hertz', 'hertz/registry-etcd/', addressText);
