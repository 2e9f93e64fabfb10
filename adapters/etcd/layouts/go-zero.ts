// Layout `go-zero` (zeromicro/go-zero core/discov): <service>/<lease id decimal or chosen id> → plain ip:port.
import { createHash } from 'node:crypto';
import { addressOf, addressText, BAD_ADDRESS, type Layout, splitLast, textOf } from './layout.ts';

export const goZeroLayout: Layout = {
  name: 'go-zero',
  prefix: '',
  normalWeight: null,
  leased: true,
  reads: [],
  keeps: [],
  parse(key, value) {
    const parts = splitLast(key);
    if (parts === null) return { kind: 'skip' };
    const [name, id] = parts;
    if (!/^-?\d{1,20}$/.test(id)) return { kind: 'skip' };
    const address = addressOf(textOf(value)?.trim());
    if (address === null) return { kind: 'bad', service: { name }, id, reason: `value: ${BAD_ADDRESS}` };
    return { kind: 'instances', service: { name }, instances: [{ id, ...address }] };
  },
  servicePrefix: ({ name }) => `${name}/`,
  write: {
    // The id must be a number; a hash of ours keeps the key the same when the lease changes.
    idOf: ({ id }) => (/^[1-9]\d{0,17}$/.test(id) ? id : numberOf(id)),
    keyOf: ({ name }, id) => `${name}/${id}`,
    valueOf: ({ instance }) => addressText(instance),
  },
};

function numberOf(text: string): string {
  const hash = createHash('sha256').update(text).digest();
  return String((hash.readBigUInt64BE(0) >> 2n) + 1n);
}
