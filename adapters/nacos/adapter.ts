// Owns one source of kind nacos: binds line, feed, names, reader and writers to the adapter contract.
// Called by the core; must never retry (the supervisor does) but for what the protocol demands: registrations return after a loss.
import type { Capabilities, InstanceField } from '../../src/adapter/capabilities.ts';
import type {
  Adapter,
  AdapterDeps,
  NativeNamespaces,
  RenewResult,
  SourceOptions,
  Write,
  WriteMode,
  WriteReceipt,
} from '../../src/adapter/contract.ts';
import { opened } from '../../src/adapter/opened.ts';
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import type { NacosConfig } from './config.ts';
import { Feed } from './feed.ts';
import { HttpWriter } from './http-writer.ts';
import { Line } from './line.ts';
import { type MappingOptions, type NativeName, nativeName, ourNamespace } from './mapping.ts';
import { Names } from './names.ts';
import { Pace, pollService } from './poller.ts';
import { Publisher } from './publisher.ts';
import { type ReaderDeps, readService } from './reader.ts';
import { Writer } from './writer.ts';

const READS = new Set<InstanceField>(['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata']);
const KEEPS = new Set<InstanceField>(['weight', 'health', 'protocol', 'version', 'locality', 'metadata']);
/** 1.x reports everybody healthy when too few are, and does not say so; its beats make everything healthy. */
const HTTP_FIELDS = new Set<InstanceField>(['weight', 'isolated', 'protocol', 'version', 'locality', 'metadata']);
const HTTP_KEEPS = new Set<InstanceField>(['weight', 'protocol', 'version', 'locality', 'metadata']);

export class NacosAdapter implements Adapter {
  readonly kind = 'nacos';
  readonly capabilities: Capabilities;
  readonly namespaces: NativeNamespaces;
  readonly #config: NacosConfig;
  readonly #line: Line;
  readonly #others: Line | null;
  readonly #feed: Feed;
  readonly #names = new Names();
  readonly #publisher: Publisher;
  readonly #writer: Writer;
  readonly #reader: ReaderDeps;
  readonly #pace: Pace;
  readonly #mapping: MappingOptions;
  readonly #closed = new AbortController();
  /** Of open watches: ended at the close. */
  readonly #boxes = new Set<{ end(): void }>();

  constructor(config: NacosConfig, options: SourceOptions, deps: AdapterDeps) {
    const { clock, random, dial, count } = deps;
    this.#config = config;
    this.namespaces = { home: ourNamespace(config.namespace), others: 'none' };
    const { clusters, clusterAsZone, normalWeight, writeCluster, isolate } = config;
    this.#mapping = { clusters, clusterAsZone, normalWeight, writeCluster, isolate, dial, count };
    const lacks = (key: ServiceKey): boolean => this.#names.lacks(key);
    this.#feed = new Feed({ clock, random, count, mapping: this.#mapping, lacks });
    this.#publisher = new Publisher(deps);
    this.#line = new Line(config, options, deps, [this.#feed, this.#publisher, this.#names]);
    this.#others = config.servers.length > 1 ? new Line(config, options, deps, []) : null;
    this.#names.bind(this.#line);
    this.#publisher.bind(this.#line);
    const http = new HttpWriter(this.#line);
    this.#writer = new Writer({ line: this.#line, config, mapping: this.#mapping, publisher: this.#publisher, http });
    this.#reader = { line: this.#line, others: this.#others, config, mapping: this.#mapping, lacks };
    this.#pace = new Pace(clock);
    this.capabilities = capabilitiesOf(this.#line);
  }

  async *services(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    if (signal.aborted) return;
    this.#check();
    yield* this.#names.lists(this.#line, this.#untilClosed(signal));
  }

  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<Snapshot | Unchanged> {
    return opened(() => this.#watch(key, signal));
  }

  async #watch(key: ServiceKey, signal: AbortSignal): Promise<AsyncIterator<Snapshot | Unchanged, void, void> | null> {
    const over = (): boolean => signal.aborted || this.#closed.signal.aborted;
    if (signal.aborted) return null;
    this.#check();
    const native = nativeName(this.#config, key);
    try {
      const session = await this.#line.enter(this.#untilClosed(signal));
      if (over()) return null;
      return session === null ? this.#polled(key, native, signal) : this.#pushed(key, native, signal);
    } catch (thrown) {
      if (over()) return null;
      throw thrown;
    }
  }

  #pushed(key: ServiceKey, native: NativeName, signal: AbortSignal): AsyncIterator<Snapshot | Unchanged, void, void> {
    const box = snapshotSlot();
    const leave = this.#feed.join(key, native, box);
    // Not the joined signal: 10,000 of them would cost more than the watches.
    this.#boxes.add(box);
    return box.read(signal, () => {
      this.#boxes.delete(box);
      leave();
    });
  }

  async *#polled(key: ServiceKey, native: NativeName, signal: AbortSignal): AsyncGenerator<Snapshot | Unchanged, void, void> {
    const deps = { line: this.#line, pace: this.#pace, mapping: this.#mapping, lacks: this.#reader.lacks };
    try {
      yield* pollService(deps, key, native, this.#untilClosed(signal));
    } catch (thrown) {
      if (!signal.aborted && !this.#closed.signal.aborted) throw thrown;
    }
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    signal.throwIfAborted();
    this.#check();
    return readService(this.#reader, key, this.#untilClosed(signal));
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    signal.throwIfAborted();
    this.#check();
    return this.#writer.put(writes, how, this.#untilClosed(signal));
  }

  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    this.#check();
    return this.#writer.renew(receipts, this.#untilClosed(signal));
  }

  async setHealth(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    this.#check();
    return this.#writer.setHealth(receipt, health, this.#untilClosed(signal));
  }

  async remove(receipts: readonly WriteReceipt[], _how: object, signal: AbortSignal): Promise<readonly (true | SourceError)[]> {
    this.#check();
    return this.#writer.remove(receipts, this.#untilClosed(signal));
  }

  /** What lives by our connection ends with it. */
  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new SourceError('lost', 'nacos: the source is closed'));
    for (const box of this.#boxes) box.end();
    this.#publisher.close();
    await Promise.all([this.#line.close(), this.#others?.close()]);
  }

  #check(): void {
    if (this.#closed.signal.aborted) throw new SourceError('lost', 'nacos: the source is closed');
  }

  #untilClosed(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closed.signal]);
  }
}

/** What a source can do is known when the server is: what differs for 1.x is asked of the line each time. */
function capabilitiesOf(line: Line): Capabilities {
  return {
    // A poll of 1.x paces itself.
    watch: line.config.api === 'http' ? 'poll' : 'push',
    list: true,
    register: true,
    get heartbeat() {
      return line.httpOnly ? ('core' as const) : ('server' as const);
    },
    get reads() {
      return line.httpOnly ? HTTP_FIELDS : READS;
    },
    get keeps() {
      return line.httpOnly ? HTTP_KEEPS : KEEPS;
    },
    get setsByConnection() {
      return !line.httpOnly;
    },
    tellsDeregistration: false,
    tellsAbsent: false,
  };
}
