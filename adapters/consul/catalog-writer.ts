// Owns copies in the catalog (protocol notes, section 5; W9): records under a synthetic node of ours, one check each that we keep
// updating, in transactions that touch only what is as we read it. Called by adapter.ts for copies, and for registrations of this host
// where `mode: catalog`. Must never delete a node, nor write under a node that is not `weir-…`.
import { createHash } from 'node:crypto';
import type { Fence, RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { hostPort } from '../../src/kernel/address.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { idOf, settleAll } from './agent-writer.ts';
import { segment } from './client.ts';
import { malformed } from './errors.ts';
import { type Line, scope } from './line.ts';
import { copyCheckId, ISOLATED_OUTPUT } from './mapping.ts';
import { decodeCheck, decodeNodeServices, decodeTxnResults, type NativeService } from './native.ts';
import { nativeFields, statusOf } from './native-fields.ts';
import { type Copy, NodeMemory, type NodeState } from './node-memory.ts';
import { isStaleIndex, MAX_BYTES, MAX_OPS, opFailure, type TxnOp, transact } from './txn.ts';

export const NODE_PREFIX = 'weir-';
const ADDRESS = '127.0.0.1';
/** Nodes of one owner. */
const SHARDS = 16;
/** No service is called that: nothing of the list is sent, and its index is that of the catalog. */
const NO_SERVICE = 'ID == "weir-none"';

/** One record that is to be written or removed: its place among the answers, its node, its id there. */
interface Place {
  readonly at: number;
  readonly node: string;
  readonly id: string;
}

interface Item extends Place {
  readonly ops: readonly TxnOp[];
}

/** Null: the copy must be there and is not ({@link GONE}). */
type Make = (place: Place, state: NodeState) => readonly TxnOp[] | null;

export class CatalogWriter {
  readonly #line: Line;
  readonly #memory = new NodeMemory();
  /** Ids below each node, all at one index of the catalog. */
  #standing: { readonly index: bigint; readonly breaks: number; readonly ids: ReadonlyMap<string, ReadonlySet<string>> } | null =
    null;

  constructor(line: Line) {
    this.#line = line;
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    const places = writes.map((write, at) => ({ at, node: this.#nodeOf(write), id: copyId(write) }));
    const failed = await this.#inBatches(places, how.fence, true, signal, ({ at, node }, state) => {
      const write = writes[at];
      return write === undefined ? [] : this.#putOps(node, write, state);
    });
    return writes.map((write, at) => {
      const { node, id } = places[at] ?? NOWHERE;
      return failed.get(at) ?? { service: write.key, nativeId: `${node}/${id}`, token: 'catalog' };
    });
  }

  /**
   * Copies have no lease: what can be told is whether they are still there. Their nodes are read again only when the catalog has
   * changed since: its index comes with one small read.
   */
  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    const nodes = [...new Set(receipts.map(({ nativeId }) => nodeIn(nativeId)))];
    const standing = (await this.#stillStanding(nodes, signal)) ? this.#standing : null;
    const ids = new Map<string, Promise<ReadonlySet<string>>>();
    const indexes = new Set<bigint | null>();
    const { breaks } = this.#line.client;
    const read = async (node: string): Promise<ReadonlySet<string>> => {
      const { services, index } = await this.#services(node, signal);
      indexes.add(index);
      return new Set(services.map(({ id }) => id));
    };
    const results = await settleAll(receipts, signal, async ({ nativeId }): Promise<RenewResult> => {
      const node = nodeIn(nativeId);
      const found = ids.get(node) ?? Promise.resolve(standing?.ids.get(node) ?? read(node));
      ids.set(node, found);
      const there = (await found).has(idOf(nativeId));
      return there ? { kind: 'renewed', leaseMs: Number.POSITIVE_INFINITY } : { kind: 'forgotten' };
    });
    if (standing !== null) return results;
    const [index] = indexes;
    // Of one moment only when all say the same.
    const whole =
      indexes.size === 1 && index !== undefined && index !== null && !results.some((one) => one instanceof SourceError);
    this.#standing = null;
    if (!whole) return results;
    const known = new Map<string, ReadonlySet<string>>();
    for (const [node, found] of ids) known.set(node, await found);
    this.#standing = { index, breaks, ids: known };
    return results;
  }

  async #stillStanding(nodes: readonly string[], signal: AbortSignal): Promise<boolean> {
    const { client } = this.#line;
    const standing = this.#standing;
    const [first] = nodes;
    if (standing === null || first === undefined || standing.breaks !== client.breaks) return false;
    if (nodes.some((node) => !standing.ids.has(node))) return false;
    const query = { ...scope(this.#line), consistent: '', filter: NO_SERVICE };
    const { headers } = await client.get(nodePath(first), query, signal, 'control');
    // The answer may have come over a new connection, from other data.
    return standing.breaks === client.breaks && headers.index === standing.index && !headers.filtered;
  }

  /** Nodes on which copies of these services would stand, as far as that is known before they are made; else what their names begin with. */
  nodesOf(keys: readonly ServiceKey[]): readonly string[] {
    const { owner } = this.#line.config;
    return owner === null ? [NODE_PREFIX] : [...new Set(keys.map((key) => nodeName(owner, key)))];
  }

  async setHealth({ nativeId }: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    const place = { at: 0, node: nodeIn(nativeId), id: idOf(nativeId) };
    const failed = await this.#inBatches([place], undefined, true, signal, ({ node, id }, { copies }) => {
      const copy = copies.get(id);
      if (copy === undefined) return null;
      // Isolated is an operator's word: a probe does not lift it.
      if (copy.said.startsWith(ISOLATED_OUTPUT)) return [];
      return [checkOp(node, id, copy.name, statusOf(health), health, copy.checkIndex)];
    });
    const [failure] = failed.values();
    if (failure !== undefined) throw failure;
  }

  async remove(
    receipts: readonly WriteReceipt[],
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    const places = receipts.map(({ nativeId }, at) => ({ at, node: nodeIn(nativeId), id: idOf(nativeId) }));
    if (places.some(({ node }) => !node.startsWith(NODE_PREFIX)))
      throw new SourceError('refused', 'consul: this record is not below a node of ours');
    const failed = await this.#inBatches(places, fence, false, signal, ({ node, id }, { copies }) => {
      const copy = copies.get(id);
      if (copy === undefined) return null;
      const named = { ID: id, Service: copy.name, ModifyIndex: copy.index };
      return [{ Service: { Verb: 'delete-cas', Node: node, Service: { ...named, ...this.#enterprise() } } }];
    });
    return places.map(({ at, node, id }) => {
      const error = failed.get(at);
      // What is not there is removed.
      if (error !== undefined && error !== GONE) return error;
      this.#memory.removed(node, id);
      return true;
    });
  }

  /**
   * Makes the operations of every place by what is remembered of its node, else by a read, and writes them in batches. What was refused
   * because it stands otherwise is read and tried once more. `learns`: the answers tell new indices. Answers the failures by place.
   */
  async #inBatches(
    places: readonly Place[],
    fence: Fence | undefined,
    learns: boolean,
    signal: AbortSignal,
    make: Make,
  ): Promise<ReadonlyMap<number, SourceError>> {
    const failed = new Map<number, SourceError>();
    const recalled = new Set<string>();
    let todo = places;
    for (let pass = 0; todo.length > 0; pass++) {
      const states = await this.#states(todo, pass === 0, failed, signal);
      const again: Place[] = [];
      const items: Item[] = [];
      for (const place of todo) {
        const found = states.get(place.node);
        if (found === undefined) continue;
        failed.delete(place.at);
        const ops = make(place, found.state);
        if (ops !== null && ops.length > 0) items.push({ ...place, ops });
        if (ops !== null) continue;
        failed.set(place.at, GONE);
        if (found.fromMemory) again.push(place);
      }
      if (pass === 0) for (const [node, { fromMemory }] of states) if (fromMemory) recalled.add(node);
      const remembered = (node: string): boolean => pass === 0 && recalled.has(node);
      for (const batch of batches(items)) again.push(...(await this.#write(batch, fence, learns, remembered, failed, signal)));
      // By memory, by a read, and once more where somebody else wrote between the read and the write.
      todo = pass === 0 ? again : pass === 1 ? again.filter(({ node }) => recalled.has(node)) : [];
    }
    return failed;
  }

  /** What is known of the nodes; a node that cannot be read has none, and its places have failed. */
  async #states(
    places: readonly Place[],
    mayRemember: boolean,
    failed: Map<number, SourceError>,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, { readonly state: NodeState; readonly fromMemory: boolean }>> {
    const states = new Map<string, { readonly state: NodeState; readonly fromMemory: boolean }>();
    await Promise.all(
      [...new Set(places.map(({ node }) => node))].map(async (node) => {
        const remembered = mayRemember ? this.#memory.of(node) : null;
        try {
          states.set(node, { state: remembered ?? (await this.#read(node, signal)), fromMemory: remembered !== null });
        } catch (thrown) {
          signal.throwIfAborted();
          const error = asSourceError(thrown);
          for (const place of places) if (place.node === node) failed.set(place.at, error);
        }
      }),
    );
    return states;
  }

  /** One batch; a refused operation is taken out and the rest is tried again. Answers what a fresh read may mend. */
  async #write(
    batch: readonly Item[],
    fence: Fence | undefined,
    learns: boolean,
    remembered: (node: string) => boolean,
    failed: Map<number, SourceError>,
    signal: AbortSignal,
  ): Promise<readonly Place[]> {
    const again = new Set<Place>();
    let rest = batch;
    while (rest.length > 0) {
      const ops: TxnOp[] = fence === undefined ? [] : [fenceOp(fence)];
      const owner: (Item | null)[] = fence === undefined ? [] : [null];
      for (const item of rest) {
        ops.push(...item.ops);
        owner.push(...item.ops.map(() => item));
      }
      try {
        const result = await transact(this.#line, ops, signal);
        if (result.kind === 'applied') {
          if (learns) this.#learn(rest, result.body);
          break;
        }
        const guilty = new Set<Item>();
        for (const error of result.errors) {
          const item = owner[error.op] ?? null;
          if (item === null) throw opFailure(error);
          guilty.add(item);
          const isStale = isStaleIndex(error);
          if (isStale) this.#line.count('write.stale');
          const lost = new SourceError('lost', 'consul: the record was changed by somebody else');
          failed.set(item.at, isStale ? lost : opFailure(error));
          // By memory: also a node that somebody removed; only a read tells.
          if (isStale || remembered(item.node)) again.add(item);
        }
        if (guilty.size === 0) throw new SourceError('refused', 'consul: the transaction was rolled back without a reason');
        rest = rest.filter((item) => !guilty.has(item));
      } catch (thrown) {
        signal.throwIfAborted();
        for (const { at, node } of rest) {
          // It may have been carried out.
          this.#memory.forget(node);
          failed.set(at, asSourceError(thrown));
        }
        break;
      }
    }
    return [...again];
  }

  /** Takes the new indices of what was written; an answer without them costs a read next time. */
  #learn(items: readonly Item[], body: unknown): void {
    const nodes = new Map(items.map(({ id, node }) => [id, node]));
    const learned = new Set<string>();
    for (const { service, check } of decodeTxnResults(body)) {
      const id = service?.id ?? check?.serviceId ?? '';
      const node = nodes.get(id);
      if (node === undefined) continue;
      const before = this.#memory.of(node)?.copies.get(id) ?? NO_COPY;
      if (service !== null) this.#memory.wrote(node, id, { ...before, name: service.name, index: Number(service.modifyIndex) });
      if (check !== null) this.#memory.wrote(node, id, { ...before, checkIndex: Number(check.modifyIndex), said: check.output });
      learned.add(id);
    }
    for (const { id, node } of items) if (!learned.has(id)) this.#memory.forget(node);
  }

  #putOps(node: string, write: Write, state: NodeState): readonly TxnOp[] {
    const { config, count } = this.#line;
    const { instance, key } = write;
    const fields = nativeFields(instance, config.normalWeight, count);
    const id = copyId(write);
    const before = state.copies.get(id);
    const service = {
      ID: id,
      Service: key.name,
      Tags: fields.tags,
      Address: fields.address,
      Port: fields.port,
      Meta: fields.meta,
      Weights: fields.weights,
      ModifyIndex: before?.index ?? 0,
      ...this.#enterprise(),
    };
    const status = fields.silent ? 'critical' : statusOf(instance.health);
    const said = fields.silent ? ISOLATED_OUTPUT : instance.health;
    const ops: TxnOp[] = [
      { Service: { Verb: 'cas', Node: node, Service: service } },
      checkOp(node, id, key.name, status, said, before?.checkIndex ?? 0),
    ];
    // The node is written once: an edit of it would move the index of every service on it and wake all who watch them.
    if (state.known) return ops;
    const meta = { 'external-source': 'weir', 'weir-owner': node.slice(NODE_PREFIX.length, node.lastIndexOf('-')) };
    return [{ Node: { Verb: 'set', Node: { Node: node, Address: ADDRESS, Meta: meta } } }, ...ops];
  }

  #enterprise(): Readonly<Record<string, string>> {
    const { namespace, partition } = this.#line.config;
    return { ...(namespace === null ? {} : { Namespace: namespace }), ...(partition === null ? {} : { Partition: partition }) };
  }

  #nodeOf({ key, instance }: Write): string {
    return nodeName(this.#line.config.owner ?? instance.metadata.get('weir-migration') ?? 'fleet', key);
  }

  /** The node as it is, kept in memory. */
  async #read(node: string, signal: AbortSignal): Promise<NodeState> {
    const { client } = this.#line;
    const path = `/v1/health/node/${segment(node)}`;
    const [found, checks] = await Promise.all([
      this.#services(node, signal),
      client.get(path, { ...scope(this.#line), consistent: '' }, signal, 'control'),
    ]);
    if (!Array.isArray(checks.body)) throw malformed(client.origin, path, 'no list of checks');
    if (checks.headers.filtered) throw filtered(client.origin);
    const copies = new Map<string, Copy>();
    for (const { id, name, modifyIndex } of found.services) copies.set(id, { ...NO_COPY, name, index: Number(modifyIndex) });
    for (const value of checks.body) {
      const check = decodeCheck(value);
      const copy = copies.get(check?.serviceId ?? '');
      if (check === null || copy === undefined || check.checkId !== copyCheckId(check.serviceId)) continue;
      copies.set(check.serviceId, { ...copy, checkIndex: Number(check.modifyIndex), said: check.output });
    }
    const state = { known: found.known, copies };
    this.#memory.replace(node, state);
    return state;
  }

  async #services(
    node: string,
    signal: AbortSignal,
  ): Promise<{ known: boolean; services: readonly NativeService[]; index: bigint | null }> {
    const { client } = this.#line;
    const path = nodePath(node);
    const answer = await client.get(path, { ...scope(this.#line), consistent: '' }, signal, 'control');
    const found = decodeNodeServices(answer.body);
    if (found === null) throw malformed(client.origin, path, 'no list of services');
    if (answer.headers.filtered) throw filtered(client.origin);
    return { ...found, index: answer.headers.index };
  }
}

function nodePath(node: string): string {
  return `/v1/catalog/node-services/${segment(node)}`;
}

/**
 * Nodes of an owner (the configured one, else the migration): {@link SHARDS} of them, by the service. For every record that changes
 * Consul looks at every check of its node, so that one node for all would cost it by the square of the copies.
 */
function nodeName(owner: string, key: ServiceKey): string {
  const label = owner
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, '-')
    .replace(/^-+|-+$/g, '');
  // Labels that were made equal, or shorter, are told apart by a digest.
  const exact = label === owner && label.length <= 54;
  const suffix = exact ? '' : `-${createHash('sha256').update(owner).digest('hex').slice(0, 8)}`;
  const shard = (createHash('sha256').update(serviceId(key)).digest()[0] ?? 0) % SHARDS;
  return `${NODE_PREFIX}${label.slice(0, 48)}${suffix}-${shard}`;
}

const NOWHERE = { node: '', id: '' };
const NO_COPY: Copy = { name: '', index: 0, checkIndex: 0, said: '' };
/** Not an error for a removal. */
const GONE = new SourceError('refused', 'consul: this copy is not in the catalog any more');

function filtered(origin: string): SourceError {
  const hint = 'give the token node:read and service:read';
  return new SourceError('denied', `consul ${origin}: the list of our node is filtered by ACLs: ${hint}`);
}

/** `<origin source>-<digest of host:port and service>`: the same record every time it is written. */
export function copyId({ key, instance }: Pick<Write, 'key' | 'instance'>): string {
  const origin = (instance.metadata.get('weir-origin') ?? instance.metadata.get('weir-kept') ?? 'own')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .slice(0, 40);
  const about = `${hostPort(instance.host, instance.port)}/${serviceId(key)}`;
  return `${origin}-${createHash('sha256').update(about).digest('hex').slice(0, 16)}`;
}

function checkOp(node: string, id: string, serviceName: string, status: string, output: string, index: number): TxnOp {
  const check = { Node: node, CheckID: copyCheckId(id), Name: 'weir', Status: status, Output: output, ServiceID: id };
  return { Check: { Verb: 'cas', Check: { ...check, ServiceName: serviceName, ModifyIndex: index } } };
}

function fenceOp({ key, leaseId }: Fence): TxnOp {
  return { KV: { Verb: 'check-session', Key: key, Session: leaseId } };
}

function nodeIn(nativeId: string): string {
  return nativeId.slice(0, Math.max(0, nativeId.indexOf('/')));
}

/** Batches that stay below both limits, each item whole. */
export function batches(items: readonly Item[]): readonly (readonly Item[])[] {
  const all: Item[][] = [];
  let ops = Number.POSITIVE_INFINITY;
  let bytes = 0;
  for (const item of items) {
    const size = JSON.stringify(item.ops).length * 2;
    // One place stays for the fence.
    if (ops + item.ops.length > MAX_OPS - 1 || bytes + size > MAX_BYTES) {
      all.push([]);
      ops = 0;
      bytes = 0;
    }
    all.at(-1)?.push(item);
    ops += item.ops.length;
    bytes += size;
  }
  return all;
}
