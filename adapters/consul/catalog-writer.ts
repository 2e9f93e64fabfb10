// Owns copies in the catalog (protocol notes, section 5; W9): records under a synthetic node of ours, one check each that we keep
// updating, in transactions that touch only what is as we read it. Called by adapter.ts for copies, and for registrations of this host
// where `mode: catalog`. Must never delete a node, nor write under a node that is not `weir-…`.
import { createHash } from 'node:crypto';
import type { Fence, RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { hostPort } from '../../src/kernel/address.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { serviceId } from '../../src/model/service.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { idOf, settleAll } from './agent-writer.ts';
import { segment } from './client.ts';
import { malformed } from './errors.ts';
import { type Line, scope } from './line.ts';
import { copyCheckId, ISOLATED_OUTPUT } from './mapping.ts';
import { decodeCheck, decodeNodeServices, type NativeCheck, type NativeService } from './native.ts';
import { nativeFields, statusOf } from './native-fields.ts';
import { isStaleIndex, MAX_BYTES, MAX_OPS, opFailure, type TxnOp, transact } from './txn.ts';

const NODE_PREFIX = 'weir-';
const ADDRESS = '127.0.0.1';

/** What stands under a node now. */
interface NodeState {
  readonly known: boolean;
  readonly services: ReadonlyMap<string, NativeService>;
  readonly checks: ReadonlyMap<string, NativeCheck>;
}

/** One thing to be done, with its place among the answers. */
interface Item {
  readonly at: number;
  readonly ops: readonly TxnOp[];
}

export class CatalogWriter {
  readonly #line: Line;

  constructor(line: Line) {
    this.#line = line;
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    const nodes = writes.map((write) => this.#nodeOf(write));
    const results: (WriteReceipt | SourceError | null)[] = writes.map(() => null);
    for (const node of new Set(nodes)) {
      const places = [...writes.keys()].filter((at) => nodes[at] === node);
      const failed = await this.#inBatches(node, places, how.fence, signal, (at, state) => {
        const write = writes[at];
        return write === undefined ? [] : this.#putOps(node, write, state);
      });
      for (const at of places) {
        const write = writes[at];
        if (write === undefined) continue;
        const nativeId = `${node}/${copyId(write)}`;
        results[at] = failed.get(at) ?? { service: write.key, nativeId, token: 'catalog' };
      }
    }
    return results.map((result) => result ?? new SourceError('lost', 'consul: the write was not made'));
  }

  /** Copies have no lease: what can be told is whether they are still there. */
  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    const states = new Map<string, Promise<NodeState>>();
    return settleAll(receipts, signal, async ({ nativeId }): Promise<RenewResult> => {
      const node = nodeIn(nativeId);
      const state = states.get(node) ?? this.#read(node, signal);
      states.set(node, state);
      const there = (await state).services.has(idOf(nativeId));
      return there ? { kind: 'renewed', leaseMs: Number.POSITIVE_INFINITY } : { kind: 'forgotten' };
    });
  }

  async setHealth({ nativeId }: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    const node = nodeIn(nativeId);
    const state = await this.#read(node, signal);
    const service = state.services.get(idOf(nativeId));
    if (service === undefined) throw new SourceError('refused', 'consul: this copy is not in the catalog any more');
    const check = state.checks.get(copyCheckId(service.id));
    // Isolated is an operator's word: a probe does not lift it.
    if (check?.output.startsWith(ISOLATED_OUTPUT) === true) return;
    const result = await transact(this.#line, [checkOp(node, service.id, service.name, statusOf(health), health, check)], signal);
    const [error] = result.kind === 'rolledBack' ? result.errors : [];
    if (error !== undefined) throw opFailure(error);
  }

  async remove(
    receipts: readonly WriteReceipt[],
    fence: Fence | undefined,
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    const results: (true | SourceError)[] = receipts.map(() => true);
    const nodes = receipts.map(({ nativeId }) => nodeIn(nativeId));
    for (const node of new Set(nodes)) {
      if (!node.startsWith(NODE_PREFIX)) throw new SourceError('refused', 'consul: this record is not below a node of ours');
      const places = [...receipts.keys()].filter((at) => nodes[at] === node);
      const failed = await this.#inBatches(node, places, fence, signal, (at, { services }) => {
        const service = services.get(idOf(receipts[at]?.nativeId ?? ''));
        if (service === undefined) return [];
        const named = { ID: service.id, Service: service.name, ModifyIndex: Number(service.modifyIndex) };
        return [{ Service: { Verb: 'delete-cas', Node: node, Service: { ...named, ...this.#enterprise() } } }];
      });
      for (const [at, error] of failed) results[at] = error;
    }
    return results;
  }

  /**
   * Reads the node, makes the operations of every place, writes them in batches. What was changed by somebody else in between is read
   * and tried once more. Answers the failures by place.
   */
  async #inBatches(
    node: string,
    places: readonly number[],
    fence: Fence | undefined,
    signal: AbortSignal,
    make: (at: number, state: NodeState) => readonly TxnOp[],
  ): Promise<ReadonlyMap<number, SourceError>> {
    const failed = new Map<number, SourceError>();
    let todo = places;
    for (let round = 0; round < 2 && todo.length > 0; round++) {
      const stale: number[] = [];
      let state: NodeState;
      try {
        state = await this.#read(node, signal);
      } catch (thrown) {
        signal.throwIfAborted();
        for (const at of todo) failed.set(at, asSourceError(thrown));
        break;
      }
      const items = todo.map((at) => ({ at, ops: make(at, state) })).filter(({ ops }) => ops.length > 0);
      for (const batch of batches(items)) {
        for (const [at, error] of await this.#write(batch, fence, signal)) {
          failed.set(at, error);
          if (error.causeKind === 'lost' && error.message.includes('changed by somebody')) stale.push(at);
        }
      }
      for (const at of stale) if (round === 0) failed.delete(at);
      todo = stale;
    }
    return failed;
  }

  /** One batch; a refused operation is taken out and the rest is tried again. */
  async #write(batch: readonly Item[], fence: Fence | undefined, signal: AbortSignal): Promise<ReadonlyMap<number, SourceError>> {
    const failed = new Map<number, SourceError>();
    let rest = batch;
    while (rest.length > 0) {
      const ops: TxnOp[] = fence === undefined ? [] : [fenceOp(fence)];
      const owner: number[] = fence === undefined ? [] : [-1];
      for (const { at, ops: own } of rest) {
        ops.push(...own);
        owner.push(...own.map(() => at));
      }
      try {
        const result = await transact(this.#line, ops, signal);
        if (result.kind === 'applied') return failed;
        const guilty = new Set<number>();
        for (const error of result.errors) {
          const at = owner[error.op] ?? -1;
          if (at === -1) throw opFailure(error);
          guilty.add(at);
          if (isStaleIndex(error)) this.#line.count('write.stale');
          failed.set(
            at,
            isStaleIndex(error) ? new SourceError('lost', 'consul: the record was changed by somebody else') : opFailure(error),
          );
        }
        if (guilty.size === 0) throw new SourceError('refused', 'consul: the transaction was rolled back without a reason');
        rest = rest.filter(({ at }) => !guilty.has(at));
      } catch (thrown) {
        signal.throwIfAborted();
        for (const { at } of rest) failed.set(at, asSourceError(thrown));
        return failed;
      }
    }
    return failed;
  }

  #putOps(node: string, write: Write, state: NodeState): readonly TxnOp[] {
    const { config, count } = this.#line;
    const { instance, key } = write;
    const fields = nativeFields(instance, config.normalWeight, count);
    const id = copyId(write);
    const before = state.services.get(id);
    const service = {
      ID: id,
      Service: key.name,
      Tags: fields.tags,
      Address: fields.address,
      Port: fields.port,
      Meta: fields.meta,
      Weights: fields.weights,
      ModifyIndex: Number(before?.modifyIndex ?? 0),
      ...this.#enterprise(),
    };
    const status = fields.silent ? 'critical' : statusOf(instance.health);
    const said = fields.silent ? ISOLATED_OUTPUT : instance.health;
    const ops: TxnOp[] = [
      { Service: { Verb: 'cas', Node: node, Service: service } },
      checkOp(node, id, key.name, status, said, state.checks.get(copyCheckId(id))),
    ];
    // The node is written once: an edit of it would move the index of every service on it and wake all who watch them.
    if (state.known) return ops;
    const meta = { 'external-source': 'weir', 'weir-owner': node.slice(NODE_PREFIX.length) };
    return [{ Node: { Verb: 'set', Node: { Node: node, Address: ADDRESS, Meta: meta } } }, ...ops];
  }

  #enterprise(): Readonly<Record<string, string>> {
    const { namespace, partition } = this.#line.config;
    return { ...(namespace === null ? {} : { Namespace: namespace }), ...(partition === null ? {} : { Partition: partition }) };
  }

  /** One node per owner: the configured one, else the migration. */
  #nodeOf({ instance }: Write): string {
    const owner = this.#line.config.owner ?? instance.metadata.get('weir-migration') ?? 'fleet';
    const label = owner
      .toLowerCase()
      .replace(/[^a-z0-9-]+/g, '-')
      .replace(/^-+|-+$/g, '');
    // Labels that were made equal, or shorter, are told apart by a digest.
    const exact = label === owner && label.length <= 54;
    const suffix = exact ? '' : `-${createHash('sha256').update(owner).digest('hex').slice(0, 8)}`;
    return `${NODE_PREFIX}${label.slice(0, 48)}${suffix}`;
  }

  async #read(node: string, signal: AbortSignal): Promise<NodeState> {
    const { client } = this.#line;
    const how = { ...scope(this.#line), consistent: '' };
    const path = `/v1/catalog/node-services/${segment(node)}`;
    const [services, checks] = await Promise.all([
      client.get(path, how, signal, 'control'),
      client.get(`/v1/health/node/${segment(node)}`, how, signal, 'control'),
    ]);
    const found = decodeNodeServices(services.body);
    if (found === null || !Array.isArray(checks.body)) throw malformed(client.origin, path, 'no list of services');
    if (services.headers.filtered || checks.headers.filtered) {
      throw new SourceError(
        'denied',
        `consul ${client.origin}: the list of our node is filtered by ACLs: give the token node:read and service:read`,
      );
    }
    const byId = new Map<string, NativeCheck>();
    for (const value of checks.body) {
      const check = decodeCheck(value);
      if (check !== null) byId.set(check.checkId, check);
    }
    return { known: found.known, services: new Map(found.services.map((one) => [one.id, one])), checks: byId };
  }
}

/** `<origin source>-<digest of host:port and service>`: the same record every time it is written. */
export function copyId({ key, instance }: Pick<Write, 'key' | 'instance'>): string {
  const origin = (instance.metadata.get('weir-origin') ?? instance.metadata.get('weir-kept') ?? 'own')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .slice(0, 40);
  const about = `${hostPort(instance.host, instance.port)}/${serviceId(key)}`;
  return `${origin}-${createHash('sha256').update(about).digest('hex').slice(0, 16)}`;
}

function checkOp(
  node: string,
  id: string,
  serviceName: string,
  status: string,
  output: string,
  before: NativeCheck | undefined,
): TxnOp {
  const check = { Node: node, CheckID: copyCheckId(id), Name: 'weir', Status: status, Output: output, ServiceID: id };
  return { Check: { Verb: 'cas', Check: { ...check, ServiceName: serviceName, ModifyIndex: Number(before?.modifyIndex ?? 0) } } };
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
