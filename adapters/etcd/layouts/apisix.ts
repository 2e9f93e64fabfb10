// Layouts `apisix` (apache/apisix) and `apisix-seed` (api7/apisix-seed): one key per upstream, which holds all its nodes.
// Upstreams only; those inside routes and services are not read.
import { canonicalHost, hostPort } from '../../../src/kernel/address.ts';
import { isRecord } from '../../../src/kernel/decode.ts';
import {
  addressOf,
  addressText,
  BAD_ADDRESS,
  type Edit,
  type Edited,
  entriesOf,
  jsonObject,
  type Layout,
  type NativeInstance,
  type NativeReject,
  stringOf,
  textOf,
} from './layout.ts';

type Json = Readonly<Record<string, unknown>>;

const SCHEME_PORTS: ReadonlyMap<string, number> = new Map([
  ['http', 80],
  ['https', 443],
  ['grpc', 80],
  ['grpcs', 443],
]);
/** Older versions leave this text behind under the directory itself. */
const DIRECTORY = 'init_dir';

function row(name: string, fill: (json: Json) => Iterable<readonly [string, unknown]>): Omit<Layout, 'edit'> {
  return {
    name,
    prefix: '/apisix/upstreams/',
    normalWeight: 1,
    weightStep: 1,
    leased: false,
    reads: ['weight', 'protocol', 'metadata', 'version', 'locality'],
    // A node has metadata of its own, but who else reads them is unknown: nothing but the weight is written.
    keeps: ['weight'],
    parse(key, value) {
      if (key === '' || key.includes('/') || textOf(value) === DIRECTORY) return { kind: 'skip' };
      const json = jsonObject(value);
      if (typeof json === 'string') return { kind: 'bad', service: { name: key }, id: key, reason: json };
      const service = { name: nameOf(json, key) };
      // The nodes come from another registry, at run time.
      if (stringOf(json['service_name']) !== undefined) return { kind: 'skip', service };
      const nodes = nodesOf(json);
      if (nodes === null) return { kind: 'bad', service, id: key, reason: 'nodes: expected an object or a list' };
      const instances: NativeInstance[] = [];
      const rejected: NativeReject[] = [];
      const protocol = stringOf(json['scheme']);
      for (const { id, address, weight, fields } of nodes) {
        if (address === null) rejected.push({ id, reason: `nodes: ${BAD_ADDRESS}` });
        else if (typeof weight !== 'number') rejected.push({ id, reason: 'nodes: the weight is no number' });
        else {
          instances.push({
            id: addressText(address),
            ...address,
            weight,
            ...(protocol === undefined ? {} : { protocol }),
            ...(protocol === 'udp' ? { transport: 'udp' } : {}),
            metadata: [...fill(json), ...fields],
          });
        }
      }
      return { kind: 'instances', service, instances, rejected };
    },
    // The name stands in the value.
    servicePrefix: () => null,
  };
}

export const apisixLayout: Layout = { ...row('apisix', () => []), edit: { idOf: addressText, apply } };

/** Upstreams that apisix-seed fills: it alone writes their nodes. */
export const apisixSeedLayout: Layout = row('apisix-seed', (json) => [
  ['service_name', json['_service_name']],
  ['discovery_type', json['_discovery_type']],
]);

function nameOf(json: Json, key: string): string {
  const { id } = json;
  return stringOf(json['name']) ?? stringOf(id) ?? (typeof id === 'number' ? String(id) : key);
}

interface Node {
  readonly id: string;
  readonly address: { host: string; port: number } | null;
  readonly weight: unknown;
  readonly fields: Iterable<readonly [string, unknown]>;
}

/** Both forms of `nodes` as one; null when they are neither. */
function nodesOf(json: Json): readonly Node[] | null {
  const { nodes } = json;
  const port = defaultPort(json);
  if (Array.isArray(nodes)) return nodes.map((node, n) => listed(node, n, port));
  if (!isRecord(nodes)) return null;
  return Object.entries(nodes).map(([id, weight]) => ({ id, address: keyAddress(id, port), weight, fields: [] }));
}

function listed(node: unknown, n: number, defaultPort: number | undefined): Node {
  if (!isRecord(node)) return { id: `nodes[${n}]`, address: null, weight: null, fields: [] };
  const { host, priority } = node;
  const port = node['port'] ?? defaultPort;
  const name = typeof host === 'string' ? canonicalHost(host) : null;
  const valid = typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535;
  const metadata = entriesOf(node['metadata']);
  return {
    id: `nodes[${n}]`,
    address: name !== null && valid ? { host: name, port } : null,
    weight: node['weight'],
    fields: typeof priority === 'number' && priority !== 0 ? [['priority', priority], ...metadata] : metadata,
  };
}

function defaultPort(json: Json): number | undefined {
  return SCHEME_PORTS.get(stringOf(json['scheme']) ?? 'http');
}

/** A missing port is that of the scheme; bare IPv6 is ambiguous and none. */
function keyAddress(text: string, defaultPort: number | undefined): { host: string; port: number } | null {
  const bare = text.startsWith('[') ? text.endsWith(']') : !text.includes(':');
  return addressOf(bare ? `${text}:${defaultPort ?? ''}` : text);
}

/** Read-modify-write of `nodes`; its schema refuses unknown members, so that nothing of ours may stand beside them. */
function apply(value: Uint8Array, edits: readonly Edit[], nowSeconds: number): Edited | string {
  const json = jsonObject(value);
  if (typeof json === 'string') return json;
  if (stringOf(json['service_name']) !== undefined) return 'the upstream takes its nodes from another registry (service_name)';
  if (stringOf(json['_service_name']) !== undefined) return 'apisix-seed writes the nodes of this upstream (_service_name)';
  const held = nodesOf(json);
  if (held === null) return 'nodes: expected an object or a list';
  const plan = planOf(edits, held);
  const { nodes } = json;
  const changed = Array.isArray(nodes) ? editedList(nodes, held, plan) : editedMap(held, plan);
  const nothing = plan.changes.size === 0 && plan.added.length === 0;
  return { value: nothing ? null : JSON.stringify({ ...json, nodes: changed, update_time: nowSeconds }), foreign: plan.foreign };
}

interface Plan {
  /** New weight by address of nodes that are there; null: out. */
  readonly changes: ReadonlyMap<string, number | null>;
  readonly added: readonly Edit[];
  readonly foreign: ReadonlySet<string>;
}

function planOf(edits: readonly Edit[], held: readonly Node[]): Plan {
  const weights = new Map(held.flatMap(({ address, weight }) => (address === null ? [] : [[addressText(address), weight]])));
  const changes = new Map<string, number | null>();
  const added: Edit[] = [];
  const foreign = new Set<string>();
  const wanted = new Map<string, Edit>();
  for (const edit of edits) {
    const address = hostPort(edit.host, edit.port);
    const other = wanted.get(address);
    // One instance leaves an address and another takes it: it stays, and is ours.
    const kept = other !== undefined && edit.weight === null ? other : edit;
    wanted.set(address, { ...kept, ours: edit.ours || other?.ours === true });
  }
  for (const [address, edit] of wanted) {
    const there = weights.has(address);
    if (!there && edit.weight !== null) added.push(edit);
    if (!there || weights.get(address) === edit.weight) continue;
    if (edit.ours) changes.set(address, edit.weight);
    else foreign.add(edit.id);
  }
  return { changes, added, foreign };
}

function editedList(nodes: readonly unknown[], held: readonly Node[], { changes, added }: Plan): readonly unknown[] {
  const kept = nodes.flatMap((node, n) => {
    const address = held[n]?.address ?? null;
    const weight = address === null ? undefined : changes.get(addressText(address));
    if (weight === undefined || !isRecord(node)) return [node];
    return weight === null ? [] : [{ ...node, weight }];
  });
  // The proxy wants IPv6 in brackets here, too.
  return [...kept, ...added.map(({ host, port, weight }) => ({ host: host.includes(':') ? `[${host}]` : host, port, weight }))];
}

function editedMap(held: readonly Node[], { changes, added }: Plan): object {
  const kept = held.flatMap(({ id, address, weight }) => {
    const other = address === null ? undefined : changes.get(addressText(address));
    return other === null ? [] : [[id, other ?? weight] as const];
  });
  return Object.fromEntries([...kept, ...added.map(({ host, port, weight }) => [hostPort(host, port), weight] as const)]);
}
