// Owns one source of kind etcd: binds client, mirror, feed and writer to the adapter contract.
// Called by the core; must never retry (the supervisor does) or renew by itself (the keeper does).
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
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import type { ServiceList, Snapshot, SourceError, Unchanged } from '../../src/model/snapshot.ts';
import type { EtcdClient } from './client.ts';
import type { EtcdConfig } from './config.ts';
import { sourceError } from './errors.ts';
import { ServiceFeed } from './feed.ts';
import { Hub } from './hub.ts';
import { Leases } from './leases.ts';
import { listPrefix } from './lister.ts';
import { homesOf, type MappingOptions, nativeServiceOf, recordOf } from './mapping.ts';
import { combined, mergeKeys } from './merge.ts';
import { Epochs, keyText } from './mirror.ts';
import { rightsFaults } from './rights.ts';
import type { SessionDeps } from './round.ts';
import { SharedWriter } from './shared-writer.ts';
import { EtcdStateStore } from './state-store.ts';
import { BATCH, Writer } from './writer.ts';

export class EtcdAdapter implements Adapter {
  readonly kind = 'etcd';
  readonly capabilities: Capabilities;
  readonly namespaces: NativeNamespaces;
  readonly #config: EtcdConfig;
  readonly #client: EtcdClient;
  readonly #deps: AdapterDeps;
  readonly #mapping: MappingOptions;
  readonly #epochs = new Epochs();
  readonly #feed: ServiceFeed;
  readonly #hub: Hub<ReturnType<typeof recordOf>>;
  readonly #writer: Writer | SharedWriter;
  readonly #closed = new AbortController();
  readonly #warned = new Set<string>();

  constructor(config: EtcdConfig, client: EtcdClient, deps: AdapterDeps) {
    const { layout, prefix, namespace, normalWeight } = config;
    this.#config = config;
    this.namespaces = { home: namespace, others: layout.namespaced === true ? 'any' : 'none' };
    this.#client = client;
    this.#deps = deps;
    const writable = layout.write !== undefined || layout.edit !== undefined;
    this.capabilities = {
      watch: 'push',
      list: true,
      register: writable,
      heartbeat: layout.write === undefined || layout.leased === false ? 'none' : 'core',
      // One transaction; layouts of one key for many change it once per record.
      writesPerCall: layout.write === undefined ? 1 : BATCH,
      reads: new Set(layout.reads),
      keeps: new Set(writable ? layout.keeps : []),
      tellsDeregistration: false,
      tellsAbsent: false,
    };
    this.#mapping = { layout, prefix, namespace, normalWeight, dial: deps.dial, count: deps.count };
    this.#feed = new ServiceFeed(this.#epochs, this.#mapping);
    this.#hub = new Hub(prefix, (key, kv, last) => recordOf(key, kv, last, this.#mapping), this.#sessionDeps(), this.#feed.apply);
    this.#feed.attach(this.#hub);
    this.#writer =
      layout.edit === undefined
        ? new Writer(client, new Leases(client), this.#mapping)
        : new SharedWriter(client, layout.edit, this.#mapping, deps.clock);
  }

  services(signal: AbortSignal): AsyncIterable<ServiceList> {
    return this.#feed.lists(signal);
  }

  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<Snapshot | Unchanged> {
    return this.#feed.watch(key, signal);
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    const { layout, namespace, prefix } = this.#config;
    const native = nativeServiceOf(key, layout, namespace);
    const within = typeof native === 'string' ? null : layout.servicePrefix(native);
    const until = this.#untilClosed(signal);
    try {
      const mark = this.#epochs.mark();
      const { header, kvs } = await listPrefix(
        (request) => this.#client.call('Range', request, until, true),
        prefix + (within ?? ''),
      );
      if (this.#epochs.judge(mark, header)) this.#hub.suspect();
      const wanted = serviceId(key);
      const found = kvs.flatMap((kv) => {
        const name = keyText(kv.key);
        const record = name === null ? null : recordOf(name, kv, null, this.#mapping);
        if (name === null || record === null || !homesOf(record).some((home) => serviceId(home) === wanted)) return [];
        return [{ key: name, record, modRevision: BigInt(kv.modRevision) }];
      });
      const epoch = this.#epochs.text;
      if (found.length === 0) return { kind: 'absent', epoch, sourceRevision: header.revision };
      // The same revision as the watch gives, which also counts deletes that this list cannot show.
      let revision = this.#feed.revisionOf(key);
      for (const { modRevision } of found) if (modRevision > revision) revision = modRevision;
      const { instances, rejected } = mergeKeys(combined(key, found, this.#mapping));
      return { kind: 'present', epoch, sourceRevision: String(revision), instances, rejected };
    } catch (thrown) {
      throw this.#failure(thrown, signal);
    }
  }

  put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    return this.#writer.put(writes, how, this.#untilClosed(signal));
  }

  renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    return this.#writer.renew(receipts, this.#untilClosed(signal));
  }

  async mayWrite(keys: readonly ServiceKey[], signal: AbortSignal): Promise<readonly SourceError[]> {
    return rightsFaults(this.#client, this.#mapping, keys, this.#untilClosed(signal));
  }

  remove(
    receipts: readonly WriteReceipt[],
    how: { readonly fence?: Fence },
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    return this.#writer.remove(receipts, how.fence, this.#untilClosed(signal));
  }

  /** Keys are below `prefix` of this source. */
  stateStore(): StateStore {
    return new EtcdStateStore(this.#config.prefix, this.#sessionDeps(), this.#closed.signal);
  }

  async close(): Promise<void> {
    this.#closed.abort(new Error('the source is closed'));
    this.#feed.end();
    this.#client.close();
  }

  #sessionDeps(): SessionDeps {
    const { clock, random, log, count } = this.#deps;
    return { client: this.#client, epochs: this.#epochs, clock, random, log, count, warned: this.#warned };
  }

  #untilClosed(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closed.signal]);
  }

  #failure(thrown: unknown, signal: AbortSignal): unknown {
    return signal.aborted ? signal.reason : sourceError(thrown);
  }
}
