// Owns what becomes of copies whose whole fleet is gone, in registries where records have no lease (migration.md rule 4: Consul): once the
// owner's locks in that registry have been free for five minutes, a weir that has no part in the migration sets its copies unhealthy.
// Called by app.ts. Must never remove a copy, nor touch one of a migration that this sidecar's own store knows.
import type { Adapter } from '../adapter/contract.ts';
import type { StateStore } from '../adapter/state-store.ts';
import { readMarker } from '../catalog/copies.ts';
import { withDeadline } from '../kernel/cancel.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import type { Events } from '../telemetry/events.ts';
import { Pace } from './pace.ts';
import type { MigrationCatalog, MigrationSources } from './ports.ts';
import { listBelow, targetLocksOf } from './shared-keys.ts';
import { LOCK_TTL_MS } from './shared-ownership.ts';

/** Between two looks, ms; owners that come back within one are not seen, and need not be. [W] */
export const LOOK_MS = 30_000;
/** A lock that has been free for so long has no owner any more, ms (migration.md rule 4). */
export const FREE_MS = 300_000;
/** One question to the registry, ms: a lock that is not had by then is held. */
const ASK_MS = 5_000;
const CALLS_PER_SECOND = 50;
/** Services looked through in one turn of the event loop. */
const PER_TURN = 500;

export interface OrphansDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: Events;
  readonly audit: (line: AuditLine) => void;
  readonly catalog: Pick<MigrationCatalog, 'account' | 'servicesOf'>;
  readonly sources: MigrationSources;
  /** Migrations that this sidecar has a part in, the broken ones included. */
  readonly known: () => ReadonlySet<string>;
  /** `migrations.frozen`: nothing is written. */
  readonly frozen: () => boolean;
}

interface Copy {
  readonly service: ServiceId;
  readonly key: ServiceKey;
  readonly nativeId: string;
}

/** An adapter in whose registry copies would stay healthy for ever. */
type Unleased = Adapter & Required<Pick<Adapter, 'setHealth' | 'stateStore'>>;

export class Orphans {
  readonly #deps: OrphansDeps;
  readonly #closed = new AbortController();
  /** Since when every lock has been free at every look, monotonic ms; by source and migration. */
  readonly #freeSince = new Map<string, number>();
  /** Locks that stood there once: whoever gives one up may take its key away. By source and migration. */
  readonly #locks = new Map<string, Set<string>>();
  #running: Promise<void> = Promise.resolve();

  constructor(deps: OrphansDeps) {
    this.#deps = deps;
  }

  /** Looks until `close`. */
  start(): void {
    this.#running = this.#run();
  }

  async close(): Promise<void> {
    this.#closed.abort(new Error('migrations are closed'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#deps;
    const { signal } = this.#closed;
    while (!signal.aborted) {
      await clock.sleep(LOOK_MS, signal).catch(() => undefined);
      // What was not looked at was not seen free.
      if (this.#deps.frozen()) this.#freeSince.clear();
      for (const source of signal.aborted || this.#deps.frozen() ? [] : this.#deps.sources.ids) {
        await this.#look(source).catch((thrown: unknown) => {
          for (const name of this.#freeSince.keys()) if (name.startsWith(`${source} `)) this.#freeSince.delete(name);
          if (!signal.aborted) log.info({ source, error: messageOf(thrown) }, 'copies without an owner could not be looked for');
        });
      }
    }
  }

  async #look(source: string): Promise<void> {
    const adapter = this.#deps.sources.adapter(source);
    if (adapter === null || !isUnleased(adapter)) return;
    const store = adapter.stateStore();
    const found = await this.#copiesIn(source);
    const seen = new Set<string>();
    for (const [migration, copies] of found) {
      const name = `${source} ${migration}`;
      seen.add(name);
      const locks = await this.#locksOf(name, store, migration);
      if (!(await this.#withLocks(store, migration, locks, async () => undefined))) this.#freeSince.delete(name);
      else {
        const since = this.#freeSince.get(name) ?? this.#deps.clock.now();
        this.#freeSince.set(name, since);
        if (this.#deps.clock.now() - since >= FREE_MS) await this.#silence(source, adapter, store, migration, locks, copies);
      }
    }
    for (const names of [this.#freeSince, this.#locks])
      for (const name of names.keys()) if (name.startsWith(`${source} `) && !seen.has(name)) names.delete(name);
  }

  async #locksOf(name: string, store: StateStore, migration: string): Promise<ReadonlySet<string>> {
    const found = await this.#ask((until) => listBelow(store, targetLocksOf(migration), until));
    const locks = this.#locks.get(name) ?? new Set();
    for (const { key } of found) locks.add(key);
    this.#locks.set(name, locks);
    return locks;
  }

  #ask<T>(call: (until: AbortSignal) => Promise<T>): Promise<T> {
    return withDeadline(this.#deps.clock, ASK_MS, this.#closed.signal, call);
  }

  /** Copies of migrations that we have no part in and that still look healthy, by migration. */
  async #copiesIn(source: string): Promise<ReadonlyMap<string, readonly Copy[]>> {
    const { catalog, known } = this.#deps;
    const ours = known();
    const found = new Map<string, Copy[]>();
    let looked = 0;
    for (const service of [...catalog.servicesOf(source)]) {
      if (++looked % PER_TURN === 0) await this.#deps.clock.sleep(1, this.#closed.signal);
      const account = catalog.account(source, service);
      for (const { instance, held } of account?.live === true ? account.instances : []) {
        const migration = held || instance.health === 'unhealthy' ? undefined : readMarker(instance.metadata)?.migration;
        if (account === null || migration === undefined || ours.has(migration)) continue;
        const copies = found.get(migration) ?? [];
        copies.push({ service, key: account.key, nativeId: instance.id });
        found.set(migration, copies);
      }
    }
    return found;
  }

  /** Runs with every lock of the owner in our hand, so that no owner can begin meanwhile; false: one is held, or there never was one. */
  async #withLocks(
    store: StateStore,
    migration: string,
    locks: ReadonlySet<string>,
    run: (until: AbortSignal) => Promise<void>,
  ): Promise<boolean> {
    const { signal } = this.#closed;
    // An owner without a store that a fleet shares takes no lock: nothing can be said of it.
    if (locks.size === 0) return false;
    const held: Awaited<ReturnType<StateStore['lock']>>[] = [];
    try {
      for (const key of [...locks].sort()) held.push(await this.#ask((until) => store.lock(key, LOCK_TTL_MS, until)));
      await run(AbortSignal.any([signal, ...held.map(({ lost }) => lost)]));
      return true;
    } catch (thrown) {
      signal.throwIfAborted();
      this.#deps.log.debug({ migration, error: messageOf(thrown) }, 'the owner of copies holds its lock');
      return false;
    } finally {
      for (const lock of held.toReversed()) await lock.release().catch(() => undefined);
    }
  }

  async #silence(
    source: string,
    adapter: Unleased,
    store: StateStore,
    migration: string,
    locks: ReadonlySet<string>,
    copies: readonly Copy[],
  ): Promise<void> {
    const { clock, events, audit } = this.#deps;
    const pace = new Pace(clock, CALLS_PER_SECOND);
    let silenced = 0;
    await this.#withLocks(store, migration, locks, async (until) => {
      for (const { service, key, nativeId } of copies) {
        await pace.spend(1, until);
        const result = await adapter.setHealth({ service: key, nativeId }, 'unhealthy', until).then(() => 'ok', messageOf);
        until.throwIfAborted();
        if (result === 'ok') silenced++;
        audit({ what: 'orphan health unhealthy', registry: source, service, instance: nativeId, migration, result });
      }
    });
    if (silenced > 0) events.emit('copy_orphan', { source, migration, copies: silenced });
  }
}

function isUnleased(adapter: Adapter): adapter is Unleased {
  const { setHealth, stateStore, capabilities } = adapter;
  const stand = capabilities.copiesStand ?? capabilities.heartbeat === 'none';
  return stand && capabilities.register && setHealth !== undefined && stateStore !== undefined;
}
