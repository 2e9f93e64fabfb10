// Owns one source of kind `file`. Called by the supervisor through the contract; must never write the file.
import type { Capabilities } from '../../src/adapter/capabilities.ts';
import type { Adapter, AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import { raceAbort } from '../../src/kernel/cancel.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { mapRecords } from './mapping.ts';
import { type Content, FileMirror, loadFile } from './mirror.ts';

export const fileCapabilities: Capabilities = {
  watch: 'push',
  list: true,
  register: false,
  heartbeat: 'none',
  reads: new Set(['weight', 'isolated', 'protocol', 'version', 'locality', 'metadata']),
  keeps: new Set([]),
  // A file that an editor is still writing looks like one from which services were deleted.
  tellsDeregistration: false,
  tellsAbsent: true,
};

export class FileAdapter implements Adapter {
  readonly kind = 'file';
  readonly capabilities = fileCapabilities;
  readonly #path: string;
  readonly #deps: AdapterDeps;
  readonly #normalWeight: number | null;
  readonly #mirror: FileMirror;
  readonly #streams = new Set<{ end(): void }>();
  #closed = false;

  constructor(path: string, options: SourceOptions, deps: AdapterDeps) {
    this.#path = path;
    this.#deps = deps;
    this.#normalWeight = options.normalWeight;
    this.#mirror = new FileMirror(path, deps.clock);
  }

  services(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    let names = '';
    return this.#stream(new Mailbox<ServiceList>(), signal, ({ services }) => {
      const now = [...services.keys()].join('\0');
      if (now === names && now !== '') return null;
      names = now;
      return { keys: [...services.values()].map(({ key }) => key), failed: [], complete: true };
    });
  }

  watch(key: ServiceKey, signal: AbortSignal): AsyncGenerator<Snapshot | Unchanged, void, void> {
    let before: string | null = null;
    return this.#stream(snapshotSlot(), signal, (content) => {
      // Another service's change is none of this one.
      const now = JSON.stringify(content.services.get(serviceId(key))?.records ?? null);
      if (now === before) return null;
      before = now;
      return this.#snapshot(key, content);
    });
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    this.#check(signal);
    return this.#snapshot(key, await raceAbort(loadFile(this.#path), signal));
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stream of this.#streams) stream.end();
  }

  #snapshot(key: ServiceKey, content: Content): Snapshot {
    const base = { epoch: 'file', sourceRevision: content.revision };
    const service = content.services.get(serviceId(key));
    if (service === undefined) return { ...base, kind: 'absent' };
    const { instances, rejected, cut } = mapRecords(service.records, this.#deps.dial, this.#normalWeight);
    if (cut > 0) this.#deps.count('metadataCut', cut);
    return { ...base, kind: 'present', instances, rejected };
  }

  async *#stream<T>(slot: Mailbox<T>, signal: AbortSignal, item: (content: Content) => T | null): AsyncGenerator<T, void, void> {
    if (signal.aborted) return;
    this.#check(signal);
    const unsubscribe = this.#mirror.subscribe({
      content(content) {
        const next = item(content);
        if (next !== null) slot.put(next);
      },
      failed: (error) => slot.fail(error),
    });
    this.#streams.add(slot);
    try {
      yield* slot.read(signal);
    } finally {
      this.#streams.delete(slot);
      unsubscribe();
    }
  }

  #check(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#closed) throw new SourceError('lost', 'the source is closed');
  }
}
