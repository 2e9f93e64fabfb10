// Owns the wire shapes of Consul that we read, and their decoders: unknown in, plain records out. Pure; hand-written, since lists are
// long and one bad record must cost itself only (R4). Called by truth.ts, lists and writers; must never throw for bad input.
import { isRecord } from '../../src/kernel/decode.ts';

export interface NativeCheck {
  readonly node: string;
  readonly checkId: string;
  readonly status: string;
  readonly notes: string;
  readonly output: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly modifyIndex: string;
}

export interface TaggedAddress {
  readonly address: string;
  readonly port: number;
}

export interface NativeLocality {
  readonly region: string;
  readonly zone: string;
}

/** A service of a node, from any of the calls that show one. */
export interface NativeService {
  readonly id: string;
  readonly name: string;
  readonly kind: string;
  readonly address: string;
  readonly port: number;
  readonly socketPath: string;
  readonly tags: readonly string[];
  readonly meta: ReadonlyMap<string, string>;
  readonly tagged: ReadonlyMap<string, TaggedAddress>;
  readonly weights: { readonly passing: number; readonly warning: number };
  readonly locality: NativeLocality | null;
  readonly peer: string;
  readonly modifyIndex: string;
}

/** One element of /health/service/:name. */
export interface NativeEntry {
  readonly node: string;
  readonly nodeAddress: string;
  readonly nodeTagged: ReadonlyMap<string, TaggedAddress>;
  readonly datacenter: string;
  readonly nodeLocality: NativeLocality | null;
  readonly service: NativeService;
  readonly checks: readonly NativeCheck[];
}

/** A record that is none; `id` as far as it could be read. */
export interface BadRecord {
  readonly id: string;
  readonly reason: string;
}

type Plain = Readonly<Record<string, unknown>>;

function own(record: Plain, key: string): unknown {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function text(record: Plain, key: string): string {
  const value = own(record, key);
  return typeof value === 'string' ? value : '';
}

/** Indexes are unsigned 64-bit: compared as text, they only ever mean "another one". */
function indexText(record: Plain, key: string): string {
  const value = own(record, key);
  return typeof value === 'number' || typeof value === 'string' ? String(value) : '0';
}

function textMap(value: unknown): Map<string, string> {
  const map = new Map<string, string>();
  if (isRecord(value)) for (const [key, one] of Object.entries(value)) if (typeof one === 'string') map.set(key, one);
  return map;
}

/** `Address/Port` or `address/port`; node addresses are plain text. */
function taggedMap(value: unknown): Map<string, TaggedAddress> {
  const map = new Map<string, TaggedAddress>();
  if (!isRecord(value)) return map;
  for (const [key, one] of Object.entries(value)) {
    if (typeof one === 'string') map.set(key, { address: one, port: 0 });
    if (!isRecord(one)) continue;
    const address = text(one, 'Address') || text(one, 'address');
    const port = own(one, 'Port') ?? own(one, 'port');
    if (address !== '') map.set(key, { address, port: typeof port === 'number' ? port : 0 });
  }
  return map;
}

function locality(value: unknown): NativeLocality | null {
  if (!isRecord(value)) return null;
  const found = { region: text(value, 'Region'), zone: text(value, 'Zone') };
  return found.region === '' && found.zone === '' ? null : found;
}

function weights(value: unknown): { passing: number; warning: number } {
  const one = (key: string): number => {
    const weight = isRecord(value) ? own(value, key) : undefined;
    return typeof weight === 'number' ? weight : 1;
  };
  return { passing: one('Passing'), warning: one('Warning') };
}

function elements(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** A service as /health/service, /catalog/node-services and /agent/services show it (`ID`, `Service`, …). */
export function decodeService(value: unknown): NativeService | BadRecord {
  if (!isRecord(value)) return { id: '', reason: 'the record has no Service' };
  const id = text(value, 'ID');
  const name = text(value, 'Service');
  if (id === '' || name === '') return { id, reason: 'Service.ID or Service.Service is missing or no text' };
  const port = own(value, 'Port') ?? 0;
  if (typeof port !== 'number') return { id, reason: 'Service.Port is no number' };
  return {
    id,
    name,
    kind: text(value, 'Kind'),
    address: text(value, 'Address'),
    port,
    socketPath: text(value, 'SocketPath'),
    tags: elements(own(value, 'Tags')).filter((tag) => typeof tag === 'string'),
    meta: textMap(own(value, 'Meta')),
    tagged: taggedMap(own(value, 'TaggedAddresses')),
    weights: weights(own(value, 'Weights')),
    locality: locality(own(value, 'Locality')),
    peer: text(value, 'PeerName'),
    modifyIndex: indexText(value, 'ModifyIndex'),
  };
}

/** Null for what is no check. */
export function decodeCheck(value: unknown): NativeCheck | null {
  if (!isRecord(value)) return null;
  return {
    node: text(value, 'Node'),
    checkId: text(value, 'CheckID'),
    status: text(value, 'Status'),
    notes: text(value, 'Notes'),
    output: text(value, 'Output').slice(0, 512),
    serviceId: text(value, 'ServiceID'),
    serviceName: text(value, 'ServiceName'),
    modifyIndex: indexText(value, 'ModifyIndex'),
  };
}

export function isBad(value: object): value is BadRecord {
  return 'reason' in value;
}

/** One element of /health/service/:name. */
export function decodeEntry(value: unknown): NativeEntry | BadRecord {
  if (!isRecord(value)) return { id: '', reason: 'the record is no object' };
  const node = own(value, 'Node');
  if (!isRecord(node) || text(node, 'Node') === '') return { id: '', reason: 'the record has no Node' };
  const name = text(node, 'Node');
  const service = decodeService(own(value, 'Service'));
  if (isBad(service)) return { id: `${name}/${service.id}`, reason: service.reason };
  const checks: NativeCheck[] = [];
  for (const one of elements(own(value, 'Checks'))) {
    const check = decodeCheck(one);
    // What is no check cannot vouch for anybody: it counts as one that failed.
    checks.push(check ?? { ...NO_CHECK, node: name });
  }
  return {
    node: name,
    nodeAddress: text(node, 'Address'),
    nodeTagged: taggedMap(own(node, 'TaggedAddresses')),
    datacenter: text(node, 'Datacenter'),
    nodeLocality: locality(own(node, 'Locality')),
    service,
    checks,
  };
}

const NO_CHECK: NativeCheck = {
  node: '',
  checkId: '',
  status: 'malformed',
  notes: '',
  output: '',
  serviceId: '',
  serviceName: '',
  modifyIndex: '0',
};

/** The names of /catalog/services; null when the body is no such thing. */
export function decodeNames(body: unknown): string[] | null {
  return isRecord(body) ? Object.keys(body) : null;
}

/** The services of /catalog/node-services/:node; an unknown node has none. Null when the body is no such thing. */
export function decodeNodeServices(
  body: unknown,
): { readonly known: boolean; readonly services: readonly NativeService[] } | null {
  if (!isRecord(body) || !Object.hasOwn(body, 'Services')) return null;
  const services: NativeService[] = [];
  for (const one of elements(own(body, 'Services'))) {
    const service = decodeService(one);
    if (!isBad(service)) services.push(service);
  }
  return { known: own(body, 'Node') !== null, services };
}

/** Node name and datacenter of /agent/self. */
export function decodeSelf(body: unknown): { readonly node: string; readonly datacenter: string } | null {
  const config = isRecord(body) ? own(body, 'Config') : undefined;
  if (!isRecord(config) || text(config, 'NodeName') === '') return null;
  return { node: text(config, 'NodeName'), datacenter: text(config, 'Datacenter') };
}

export interface NativeKey {
  readonly key: string;
  readonly value: string;
  readonly session: string;
  readonly modifyIndex: string;
}

/** The keys of /kv; null when the body is no such list. */
export function decodeKeys(body: unknown): NativeKey[] | null {
  if (!Array.isArray(body)) return null;
  return body.filter(isRecord).map((one) => ({
    key: text(one, 'Key'),
    value: Buffer.from(text(one, 'Value'), 'base64').toString('utf8'),
    session: text(one, 'Session'),
    modifyIndex: indexText(one, 'ModifyIndex'),
  }));
}

/** What a transaction that was rolled back complains of. */
export interface TxnError {
  readonly op: number;
  readonly what: string;
}

export interface TxnAnswer {
  readonly service: NativeService | null;
  readonly check: NativeCheck | null;
}

/** Services and checks that an applied transaction answers with their new indices; anything else is left out. */
export function decodeTxnResults(body: unknown): readonly TxnAnswer[] {
  const results = isRecord(body) ? own(body, 'Results') : null;
  return elements(results)
    .filter(isRecord)
    .flatMap((one): TxnAnswer[] => {
      const service = decodeService(own(one, 'Service'));
      const check = decodeCheck(own(one, 'Check'));
      if (!isBad(service) && service.modifyIndex !== '0') return [{ service, check: null }];
      return check !== null && check.modifyIndex !== '0' ? [{ service: null, check }] : [];
    });
}

export function decodeTxnErrors(body: unknown): readonly TxnError[] {
  const errors = isRecord(body) ? own(body, 'Errors') : null;
  return elements(errors)
    .filter(isRecord)
    .map((one) => {
      const op = own(one, 'OpIndex');
      return { op: typeof op === 'number' ? op : -1, what: text(one, 'What') };
    });
}
