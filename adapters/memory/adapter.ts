// Owns one client of an embedded registry. Called by the supervisor and the keeper through the contract; must never reach into
// another client's records.
import { randomUUID } from 'node:crypto';
import type { Capabilities } from '../../src/adapter/capabilities.ts';
import type { Adapter, AdapterDeps, RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { Judge } from './mapping.ts';
import type { RegistryHold } from './named.ts';
import type { Change, MemoryRegistry } from './registry.ts';

const ALL_FIELDS = new Set(['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata'] as const);

export const memoryCapabilities: Capabilities = {
  watch: 'push',
  list: true,
  register: true,
  heartbeat: 'core',
  writesPerCall: 100,
  reads: ALL_FIELDS,
  keeps: ALL_FIELDS,
  tellsDeregistration: true,
  tellsAbsent: true,
};

/** A stream's own slot, as far as `close` needs it. */
interface Endable {
  end(): void;
}

export class MemoryAdapter implements Adapter {
  readonly kind = 'memory';
  readonly capabilities = memoryCapabilities;
  readonly #hold: RegistryHold;
  readonly #registry: MemoryRegistry;
  readonly #judge: Judge;
  /** Owner of what this client registers; goes into receipts, so that a later life of this host can prove that it is ours. */
  readonly #token: string = randomUUID();
  readonly #streams = new Set<Endable>();
  #closed = false;

  constructor(hold: RegistryHold, deps: AdapterDeps) {
    this.#hold = hold;
    this.#registry = hold.registry;
    this.#judge = new Judge(deps.dial, deps.count);
  }

  services(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    const list = (): ServiceList => ({ keys: this.#registry.keys(), failed: [], complete: true });
    return this.#stream(new Mailbox<ServiceList>(), list, (change) => (change.names ? list() : null), signal);
  }

  watch(key: ServiceKey, signal: AbortSignal): AsyncGenerator<Snapshot | Unchanged, void, void> {
    const id = serviceId(key);
    const onChange = ({ key: changed, deregistered }: Change): Snapshot | null =>
      serviceId(changed) === id ? this.#judge.snapshot(this.#registry.snapshot(key), deregistered) : null;
    return this.#stream(snapshotSlot(), () => this.#judge.snapshot(this.#registry.snapshot(key), []), onChange, signal);
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    this.#check(signal);
    return this.#judge.snapshot(this.#registry.snapshot(key), []);
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    this.#check(signal);
    return writes.map((write) => this.#putOne(write, how));
  }

  /** Everybody in this process may. */
  async mayWrite(_keys: readonly ServiceKey[], signal: AbortSignal): Promise<readonly SourceError[]> {
    this.#check(signal);
    return [];
  }

  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    this.#check(signal);
    return receipts.map(({ service, nativeId, token }) => {
      const ttl = this.#registry.renew(service, nativeId, token ?? '');
      return ttl === null ? { kind: 'forgotten' } : { kind: 'renewed', leaseMs: ttl };
    });
  }

  async setHealth(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    this.#check(signal);
    const { service, nativeId, token } = receipt;
    const changed = this.#registry.update(service, nativeId, token ?? '', (instance) => ({ ...instance, health }));
    if (!changed) throw new SourceError('refused', `${nativeId} is not registered by us any more`);
  }

  async remove(receipts: readonly WriteReceipt[], _how: object, signal: AbortSignal): Promise<readonly (true | SourceError)[]> {
    this.#check(signal);
    return receipts.map(({ service, nativeId, token }) => {
      this.#registry.remove(service, nativeId, token ?? '');
      return true;
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stream of this.#streams) stream.end();
    this.#hold.release();
  }

  async *#stream<T>(
    slot: Mailbox<T>,
    now: () => T,
    onChange: (change: Change) => T | null,
    signal: AbortSignal,
  ): AsyncGenerator<T, void, void> {
    if (signal.aborted) return;
    this.#check(signal);
    const unsubscribe = this.#registry.subscribe({
      changed(change) {
        const item = onChange(change);
        if (item !== null) slot.put(item);
      },
      cut: () => slot.fail(new SourceError('lost', 'cut off from the embedded registry')),
    });
    this.#streams.add(slot);
    try {
      slot.put(now());
      yield* slot.read(signal);
    } finally {
      this.#streams.delete(slot);
      unsubscribe();
    }
  }

  #putOne({ key, instance, previous }: Write, how: WriteMode): WriteReceipt | SourceError {
    const token = previous?.token ?? this.#token;
    // A copy is its migration's, whoever wrote it last: the next owner of the migration takes it over.
    const migration = how.as === 'copy' ? instance.metadata.get('weir-migration') : undefined;
    const proof = { token: this.#token, ...(migration !== undefined && { migration }) };
    try {
      this.#registry.put(key, instance, { token, ttl: how.liveness === 'persistent' ? null : how.ttl }, proof);
      return { service: key, nativeId: instance.id, token };
    } catch (thrown) {
      return asSourceError(thrown);
    }
  }

  #check(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#closed) throw new SourceError('lost', 'the source is closed');
  }
}
