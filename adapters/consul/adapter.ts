// Owns one source of kind consul. Called by the supervisor, the keeper and app through the contract; wires watches, lists, writers
// and the state store. Must never talk to Consul itself.
import type { Capabilities } from '../../src/adapter/capabilities.ts';
import type {
  Adapter,
  AdapterDeps,
  Fence,
  NativeNamespaces,
  RenewResult,
  Write,
  WriteMode,
  WriteReceipt,
} from '../../src/adapter/contract.ts';
import type { StateStore } from '../../src/adapter/state-store.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { nameFault, type ServiceKey } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { AgentWriter } from './agent-writer.ts';
import { CatalogWriter, NODE_PREFIX } from './catalog-writer.ts';
import type { ConsulClient } from './client.ts';
import { type ConsulConfig, MAX_BLOCKING, MAX_BLOCKING_H2 } from './config.ts';
import { Firehose } from './firehose.ts';
import { Guard } from './guard.ts';
import { History } from './history.ts';
import type { Line } from './line.ts';
import { type NamesFeed, namesFeed, peerList } from './names.ts';
import { missingRights, type Right } from './rights.ts';
import { holdSlots } from './slots.ts';
import { ConsulStateStore } from './state-store.ts';
import { badName, Truth } from './truth.ts';
import { watchService } from './watch.ts';

const FIELDS = new Set(['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata'] as const);

/** Of {@link ConsulAdapter.mayWrite}: names that Consul cannot have. */
const MAX_FAULTS = 5;

export class ConsulAdapter implements Adapter {
  readonly kind = 'consul';
  readonly capabilities: Capabilities;
  readonly namespaces: NativeNamespaces;
  readonly #config: ConsulConfig;
  readonly #client: ConsulClient;
  readonly #line: Line;
  readonly #guard: Guard;
  readonly #truth: Truth;
  readonly #names: NamesFeed;
  readonly #firehose: Firehose;
  readonly #agent: AgentWriter;
  readonly #catalog: CatalogWriter;
  readonly #closing = new AbortController();
  readonly #leaveSlots: () => void;

  constructor(config: ConsulConfig, client: ConsulClient, deps: AdapterDeps) {
    const { clock, random, dial, count } = deps;
    this.#config = config;
    this.namespaces = { home: config.namespace ?? 'default', others: 'none' };
    this.#client = client;
    const { slots, leave } = holdSlots(config.origin);
    this.#leaveSlots = leave;
    client.onProtocol((h2) => slots.resize(h2 ? MAX_BLOCKING_H2 : MAX_BLOCKING));
    this.#line = { client, config, clock, random, slots, count, quirks: { headerless: 0 } };
    const history = new History(this.#line);
    this.#guard = new Guard(this.#line, history);
    const { normalWeight, taggedAddress, tagFields, kinds } = config;
    this.#truth = new Truth(this.#line, history, { normalWeight, taggedAddress, tagFields, kinds, dial, count });
    this.#names = namesFeed(this.#line, this.#guard, history, () => this.#firehose.pulseMs);
    this.#firehose = new Firehose(this.#line, this.#truth, this.#names);
    this.#agent = new AgentWriter(this.#line);
    this.#catalog = new CatalogWriter(this.#line);
    this.capabilities = {
      watch: 'longPoll',
      list: true,
      // Services of a peer belong to the other side.
      register: config.peer === null,
      heartbeat: config.mode === 'agent' ? 'core' : 'none',
      // They are in the catalog, which knows no TTL.
      copiesStand: true,
      // Copies go in transactions of 64 operations: two a record, and one place for the fence.
      writesPerCall: 31,
      reads: FIELDS,
      keeps: FIELDS,
      tellsDeregistration: false,
      tellsAbsent: true,
    };
  }

  async *services(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    if (signal.aborted) return;
    const until = AbortSignal.any([signal, this.#closing.signal]);
    const box = new Mailbox<ServiceList>();
    let leave = (): void => {};
    if (this.#config.peer !== null) box.put(peerList(this.#line));
    else {
      leave = this.#names.join({
        item: ({ list }) => box.put(list),
        fail: (error) => box.fail(error),
      });
    }
    try {
      let before: ServiceList | null = null;
      for await (const list of box.read(until)) {
        if (before !== null && sameList(before, list)) continue;
        before = list;
        yield list;
      }
    } finally {
      leave();
    }
    if (!signal.aborted) this.#check();
  }

  async *watch(key: ServiceKey, signal: AbortSignal): AsyncGenerator<Snapshot | Unchanged, void, void> {
    if (signal.aborted) return;
    const name = this.#nameOf(key);
    const deps = { line: this.#line, guard: this.#guard, truth: this.#truth, firehose: this.#firehose };
    yield* watchService(deps, name, signal);
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    signal.throwIfAborted();
    const name = this.#nameOf(key);
    return (await this.#truth.read(name, this.#truth.memory(name), true, signal)).snapshot;
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    signal.throwIfAborted();
    this.#check();
    const faults = writes.map(({ key }) => this.#faultOf(key));
    const good = writes.filter((_, at) => faults[at] === null);
    const toAgent = how.as === 'own' && this.#config.mode === 'agent';
    const results = good.length === 0 ? [] : await (toAgent ? this.#agent : this.#catalog).put(good, how, signal);
    let next = 0;
    return faults.map((fault) => fault ?? results[next++] ?? new SourceError('lost', 'consul: the write was not made'));
  }

  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    this.#check();
    return this.#split(
      receipts,
      (mine) => this.#agent.renew(mine, signal),
      (mine) => this.#catalog.renew(mine, signal),
    );
  }

  async mayWrite(keys: readonly ServiceKey[], signal: AbortSignal): Promise<readonly SourceError[]> {
    signal.throwIfAborted();
    this.#check();
    const faults = keys.flatMap((key) => this.#faultOf(key) ?? []).slice(0, MAX_FAULTS);
    if (faults.length > 0) return faults;
    const services = [...new Set(keys.map(({ name }) => name))].map((segment): Right => ({ resource: 'service', segment }));
    const nodes = this.#catalog.nodesOf(keys).map((segment): Right => ({ resource: 'node', segment }));
    return missingRights(this.#line, [...nodes, ...services], signal);
  }

  async setHealth(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    this.#check();
    await (isCatalog(receipt) ? this.#catalog : this.#agent).setHealth(receipt, health, signal);
  }

  async remove(
    receipts: readonly WriteReceipt[],
    how: { readonly fence?: Fence },
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    this.#check();
    return this.#split(
      receipts,
      (mine) => this.#agent.remove(mine, signal),
      (mine) => this.#catalog.remove(mine, how.fence, signal),
    );
  }

  stateStore(): StateStore {
    return new ConsulStateStore(this.#line, this.#closing.signal);
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    const closed = new SourceError('lost', 'consul: the source is closed');
    this.#closing.abort(closed);
    this.#guard.close(closed);
    this.#leaveSlots();
    await this.#client.close();
  }

  #check(): void {
    if (this.#closing.signal.aborted) throw new SourceError('lost', 'consul: the source is closed');
  }

  /** The name in Consul. Throws SourceError for what this source cannot have. */
  #nameOf(key: ServiceKey): string {
    this.#check();
    const fault = this.#faultOf(key);
    if (fault !== null) throw fault;
    return key.name;
  }

  #faultOf({ namespace, name }: ServiceKey): SourceError | null {
    const ours = this.#config.namespace ?? 'default';
    if (namespace !== ours) {
      return new SourceError('refused', `consul: this source holds the namespace ${ours} only; add a source for another one`);
    }
    const fault = nameFault(name) ?? badName(name);
    return fault === null ? null : new SourceError('refused', `consul: no service can have this name: ${fault}`);
  }

  /** Each receipt goes to the writer that made it; the answers stand in the order of the receipts. */
  async #split<T>(
    receipts: readonly WriteReceipt[],
    toAgent: (mine: readonly WriteReceipt[]) => Promise<readonly T[]>,
    toCatalog: (mine: readonly WriteReceipt[]) => Promise<readonly T[]>,
  ): Promise<readonly T[]> {
    const copies = receipts.filter(isCatalog);
    const own = receipts.filter((receipt) => !isCatalog(receipt));
    const answers = new Map<WriteReceipt, T>();
    for (const [mine, call] of [[own, toAgent] as const, [copies, toCatalog] as const]) {
      if (mine.length === 0) continue;
      const results = await call(mine);
      for (const [at, receipt] of mine.entries()) {
        const result = results[at];
        if (result !== undefined) answers.set(receipt, result);
      }
    }
    return receipts.flatMap((receipt) => {
      const answer = answers.get(receipt);
      return answer === undefined ? [] : [answer];
    });
  }
}

/** By its token; a receipt made from what a read shows has none, and the node tells. */
function isCatalog({ nativeId, token }: WriteReceipt): boolean {
  return token === undefined ? nativeId.startsWith(NODE_PREFIX) : token === 'catalog';
}

function sameList(a: ServiceList, b: ServiceList): boolean {
  if (a.complete !== b.complete || a.keys.length !== b.keys.length) return false;
  return a.keys.every(({ name }, at) => name === b.keys[at]?.name);
}
