// Owns the running sources: one adapter and one supervisor each, built from settings, kept across reloads that do not change them.
// Called by app.ts; the catalog's wishes (keep, confirm) and first uses are carried to the supervisors here.
import type { Adapter, AdapterLoader } from '../adapter/contract.ts';
import { Supervisor } from '../adapter/supervisor.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { CatalogSource } from '../catalog/sources.ts';
import type { Clock } from '../kernel/clock.ts';
import { type DialPolicy, dialPolicy, type OwnListener } from '../kernel/dial.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ServiceId } from '../model/service.ts';
import type { RegistrationSource } from '../registration/choose-targets.ts';
import type { Settings, SourceSettings } from '../settings/settings.ts';
import type { PreparedChange, SettingsUser } from '../settings/store.ts';
import type { Audit } from '../telemetry/audit.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { OnDemandUse } from './on-demand.ts';

export interface SourcesDeps {
  readonly loader: AdapterLoader;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly audit: Audit;
  /** Addresses that are ourselves. */
  readonly own: () => readonly OwnListener[];
  /** Deregisters everything of ours at a source that leaves the configuration, before its adapter is closed. */
  readonly leaveSource: (sourceId: string) => Promise<void>;
  /** The set of sources changed. */
  readonly changed: () => void;
}

/** Kinds that live in this process or host: a file that was mended should not wait for a back-off of 30 s. */
const LOCAL_KINDS = new Set(['file', 'memory']);
const LOCAL_MAX_BACKOFF_MS = 2_000;
/** An adapter that is not closed after this long is left behind. [W] */
const CLOSE_LIMIT_MS = 2_000;

interface Running {
  readonly settings: SourceSettings;
  readonly adapter: Adapter;
  readonly supervisor: Supervisor;
  readonly dial: DialPolicy;
  readonly counts: Map<string, number>;
}

export class RunningSources implements SettingsUser {
  readonly name = 'sources';
  readonly #deps: SourcesDeps;
  readonly #onDemand: OnDemandUse;
  #running = new Map<string, Running>();
  /** No longer configured; their adapters live until what we registered there is gone. */
  readonly #leaving = new Map<string, Running>();
  readonly #ending = new Set<Promise<void>>();
  #begun = false;

  constructor(deps: SourcesDeps) {
    this.#deps = deps;
    this.#onDemand = new OnDemandUse(deps.clock, (service) => this.#drop(service));
    deps.catalog.onHeld((sourceId, native, held) => {
      const supervisor = this.#running.get(sourceId)?.supervisor;
      if (held) supervisor?.keep(native);
      else supervisor?.release(native);
    });
    deps.catalog.onConfirmRead((sourceId, native) => {
      void this.#running
        .get(sourceId)
        ?.supervisor.readNow(native)
        .catch((thrown: unknown) => deps.log.info({ source: sourceId, error: messageOf(thrown) }, 'a confirming read failed'));
    });
  }

  /** Builds the adapters that `next` needs and that do not run yet. Throws WeirError where a kind refuses its configuration. */
  async prepare(next: Settings): Promise<PreparedChange> {
    const wanted = new Map<string, Running>();
    const fresh: Running[] = [];
    for (const settings of next.sources) {
      const running = this.#running.get(settings.id);
      if (running?.settings.fingerprint === settings.fingerprint) wanted.set(settings.id, running);
      else {
        const built = await this.#build(settings);
        fresh.push(built);
        wanted.set(settings.id, built);
      }
    }
    return {
      commit: () => this.#swap(next, wanted, fresh),
      discard: async () => {
        await Promise.all(fresh.map((one) => this.#close(one)));
      },
    };
  }

  /** Opens the streams of the configured sources; those of later changes open with the change. */
  begin(): void {
    this.#begun = true;
    for (const { supervisor } of this.#running.values()) supervisor.start();
  }

  /** The sources that registrations may go to; leaving ones only so that what is there can be removed. */
  registrationSources(): readonly RegistrationSource[] {
    const source = ({ settings, adapter }: Running, stays: boolean): RegistrationSource => ({
      sourceId: settings.id,
      adapter,
      registerByDefault: stays && settings.register,
      canRegister: stays && adapter.capabilities.register,
    });
    return [
      ...[...this.#running.values()].map((running) => source(running, true)),
      ...[...this.#leaving.values()].map((running) => source(running, false)),
    ];
  }

  /** The outbound policy of a source; null for one that is gone. */
  dialOf(sourceId: string): DialPolicy | null {
    return this.#running.get(sourceId)?.dial ?? null;
  }

  /** What `/v1/sources` shows beside the catalog's words. */
  about(
    sourceId: string,
  ): { readonly adapter: Adapter; readonly counts: ReadonlyMap<string, number>; readonly nextTryInMs: number | null } | null {
    const running = this.#running.get(sourceId);
    if (running === undefined) return null;
    const { adapter, counts, supervisor } = running;
    return {
      adapter,
      counts,
      // Looks at every watch while some are lost, and each merge of a service asks for its sources' adapters.
      get nextTryInMs() {
        return supervisor.summary().nextTryInMs;
      },
    };
  }

  /**
   * Somebody uses the service: on-demand sources begin to watch it. Says whether some source may still answer that has not
   * (so that the asker may wait).
   */
  use(service: ServiceId): boolean {
    let mayCome = false;
    for (const { settings, supervisor, adapter } of this.#running.values()) {
      if (settings.select.kind !== 'onDemand') continue;
      const native = this.#deps.catalog.toNative(settings.id, service);
      if (native === null) continue;
      const listed = supervisor.lists(native);
      if (listed === false && adapter.capabilities.list) continue;
      // Names that nobody lists come from requests: a bounded number of new ones a second (architecture.md §5).
      if (!this.#onDemand.use(service, listed === null && !adapter.capabilities.list)) continue;
      supervisor.want(native);
      mayCome = true;
    }
    return mayCome;
  }

  /** Ends every watch; adapters stay open for the registrations. */
  async stopWatching(): Promise<void> {
    this.#onDemand.close();
    await Promise.all([...this.#running.values()].map(({ supervisor }) => supervisor.close()));
  }

  /** Closes every adapter; after stopWatching and the registrations' shutdown. */
  async close(): Promise<void> {
    await this.stopWatching();
    await Promise.all(this.#ending);
    await Promise.all([...this.#running.values(), ...this.#leaving.values()].map((one) => this.#close(one)));
  }

  async #build(settings: SourceSettings): Promise<Running> {
    const { loader, clock, random, log, metrics, catalog, audit } = this.#deps;
    const factory = await loader.load(settings.kind);
    if (factory === null) throw new WeirError('CONFIG_INVALID', `source ${settings.id}: there is no kind ${settings.kind}`);
    const counts = new Map<string, number>();
    const dial = dialPolicy(settings.dial, this.#deps.own);
    const adapter = factory.create(settings.config, settings.options, {
      sourceId: settings.id,
      clock,
      random,
      dial,
      log: log.child({ source: settings.id }),
      count: (what, by = 1) => {
        counts.set(what, (counts.get(what) ?? 0) + by);
        metrics.counter('weir_source_oddities_total', settings.id, what).inc(by);
      },
      wrote: (write) => {
        audit.write({ registry: settings.id, ...write });
        metrics.counter('weir_registry_writes_total', settings.id, write.what, write.result === 'ok' ? 'ok' : 'failed').inc();
      },
    });
    const supervisor = new Supervisor({
      sourceId: settings.id,
      adapter,
      select: settings.select,
      sink: catalog,
      clock,
      random,
      log,
      timeout: settings.options.timeout,
      ...(LOCAL_KINDS.has(settings.kind) ? { maxBackoff: LOCAL_MAX_BACKOFF_MS } : {}),
    });
    return { settings, adapter, supervisor, dial, counts };
  }

  #swap(next: Settings, wanted: Map<string, Running>, fresh: readonly Running[]): void {
    const before = this.#running;
    this.#running = wanted;
    this.#deps.catalog.configure({
      sources: next.sources.flatMap((settings) => {
        const running = wanted.get(settings.id);
        return running === undefined ? [] : [catalogSource(running)];
      }),
      names: next.names,
      policyOf: (service) => next.services.policyOf(service),
    });
    for (const [id, old] of before) if (wanted.get(id) !== old) this.#end(id, old, wanted.has(id));
    if (this.#begun) for (const { supervisor } of fresh) supervisor.start();
    this.#deps.changed();
  }

  /** A replaced source's registrations are taken over by its successor; those of a removed one are removed first. */
  #end(id: string, old: Running, replaced: boolean): void {
    if (!replaced) this.#leaving.set(id, old);
    const ending = (async () => {
      await old.supervisor.close();
      if (!replaced) await this.#deps.leaveSource(id);
      await this.#close(old);
      if (this.#leaving.get(id) === old) {
        this.#leaving.delete(id);
        for (const what of old.counts.keys()) this.#deps.metrics.remove('weir_source_oddities_total', id, what);
        this.#deps.changed();
      }
    })()
      .catch((thrown: unknown) => this.#deps.events.emit('adapter_failed', { source: id, error: messageOf(thrown) }))
      .finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  /** Closes an adapter. One that hangs or throws is told about and left behind: it must not keep the process or a reload. */
  async #close({ settings, adapter }: Running): Promise<void> {
    const { clock, events } = this.#deps;
    const over = new AbortController();
    const late = clock.sleep(CLOSE_LIMIT_MS, over.signal).then(
      () => `close() took longer than ${CLOSE_LIMIT_MS} ms`,
      () => null,
    );
    const closed = Promise.resolve()
      .then(() => adapter.close())
      .then(() => null, messageOf);
    const error = await Promise.race([closed, late]);
    over.abort();
    if (error !== null) events.emit('adapter_failed', { source: settings.id, error });
  }

  #drop(service: ServiceId): void {
    for (const { settings, supervisor } of this.#running.values()) {
      if (settings.select.kind !== 'onDemand') continue;
      const native = this.#deps.catalog.toNative(settings.id, service);
      if (native === null) continue;
      supervisor.drop(native);
      this.#deps.catalog.unwatched(settings.id, native);
    }
  }
}

function catalogSource({ settings, adapter, dial }: Running): CatalogSource {
  const { capabilities } = adapter;
  return {
    id: settings.id,
    kind: settings.kind,
    network: settings.network,
    asNamespace: settings.asNamespace,
    ...(adapter.namespaces === undefined ? {} : { namespaces: adapter.namespaces }),
    dial,
    reads: capabilities.reads,
    lists: capabilities.list,
    tellsDeregistration: capabilities.tellsDeregistration,
    expireAfter: settings.expireAfter,
  };
}
