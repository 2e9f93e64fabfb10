// Owns what makes two records one instance (M1) and the order of instances in every list of the catalog.
// Called by guard, merge, catalog and API; must never look at anything that is a field and not identity.
import { hash } from 'node:crypto';
import type { ServiceId } from '../model/service.ts';

/** The part of an identity that lies within one service of one network. */
export interface Address {
  readonly host: string;
  readonly port: number;
  readonly transport: 'tcp' | 'udp';
}

/** Order by host (code units), port, transport: the same on every machine. */
export function compareAddress(a: Address, b: Address): number {
  if (a.host !== b.host) return a.host < b.host ? -1 : 1;
  if (a.port !== b.port) return a.port - b.port;
  if (a.transport === b.transport) return 0;
  return a.transport === 'tcp' ? -1 : 1;
}

/** Index of the address in a list sorted by {@link compareAddress}, or -1. */
export function indexOfAddress(sorted: readonly Address[], wanted: Address): number {
  let low = 0;
  let high = sorted.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const found = sorted[middle];
    if (found === undefined) return -1;
    const order = compareAddress(found, wanted);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

/** Key of an address in Maps that span services: network, host, port, transport. */
export function addressKey(network: string, address: Address): string {
  return `${network}\u0000${address.host}\u0000${address.port}\u0000${address.transport}`;
}

/** M1: our id of an instance, the first 16 hex digits of sha256 over the identity joined by NUL. Computed when an API asks. */
export function instanceId(service: ServiceId, instance: Address & { readonly network: string }): string {
  const { network, transport, host, port } = instance;
  return hash('sha256', [service, network, transport, host, String(port)].join('\u0000'), 'hex').slice(0, 16);
}
