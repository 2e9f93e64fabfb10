// Owns what is published of every service: view + verdict (M5) for the API, view + verdict + policy = ClusterUpdate for the data plane.
// Called by catalog (changes), the data plane (first use), the API (reads), settings (reload). Work is done for what changed and for what
// somebody asked for, never for the whole catalog; must never do I/O.
import type { View } from '../catalog/view.ts';
import type { ClusterMessage } from '../cluster/cluster-update.ts';
import type { Interest } from '../cluster/interest.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { ClusterPolicy, ServicePolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { Settings } from '../settings/settings.ts';
import type { PreparedChange, SettingsUser } from '../settings/store.ts';
import type { Ask } from './ask.ts';
import { clusterUpdate } from './cluster-message.ts';
import { MissedNames } from './missed-names.ts';
import type { Overrides } from './overrides.ts';
import type { Prober } from './prober.ts';
import { Judge, type Published } from './published.ts';
import { type DialOf, ServiceChecks } from './service-checks.ts';
import { Traffic } from './traffic.ts';

/** The data plane waits 1 s for the answer to a first use; the checks of instances from disk get most of it. */
export const PROOF_WAIT_MS = 800;

/** What publish needs of the catalog; `Catalog` is one. */
export interface CatalogPort {
  get(service: ServiceId): View | undefined;
  subscribe(listener: (service: ServiceId, view: View | undefined) => void): () => void;
  /** Evidence about a held instance changed. */
  touch(service: ServiceId): void;
  /** The next index, for a changed verdict (M9). */
  takeIndex(): number;
  allNames(): Iterable<ServiceId>;
}

export interface PublishDeps {
  readonly clock: Clock;
  readonly catalog: CatalogPort;
  readonly prober: Prober;
  readonly overrides: Overrides;
  /** Outbound policies by source, as settings have them now. */
  readonly dialOf: DialOf;
  /** To the data plane. */
  readonly send: (message: ClusterMessage) => void;
  /** Services picked from within the last ms; counts of the data plane. */
  readonly activeServices: (withinMs: number) => Iterable<ServiceId>;
  /** Some source has no first answer yet (10 s after start at most). */
  readonly notReady: () => boolean;
  /** Starts a watch where a source is watched on demand; true: an answer may come soon. */
  readonly use: (service: ServiceId) => boolean;
}

/** A service that needs more than its view: it has checks or overrides, or the data plane asked for it. */
interface Entry {
  readonly service: ServiceId;
  readonly checks: ServiceChecks;
  policy: ServicePolicy;
  published: Published;
  /** Index that the listeners were told last. */
  toldIndex: number;
  /** What the data plane has; null: it was not sent anything. */
  sent: { readonly index: number; readonly policy: ClusterPolicy } | null;
  /** The data plane asked for it, and gets every change. */
  asked: boolean;
  /** The first answer waits for the checks of instances from disk. */
  waiting: Timer | null;
}

export type PublishedListener = (service: ServiceId, index: number) => void;

export class Publish implements Interest, SettingsUser {
  readonly name = 'health';
  readonly #deps: PublishDeps;
  readonly #entries = new Map<ServiceId, Entry>();
  readonly #judge: Judge;
  readonly #listeners = new Set<PublishedListener>();
  readonly #missed: MissedNames;
  readonly #traffic: Traffic;
  readonly #changedAsks = new Map<Entry, boolean>();
  readonly #unsubscribe: (() => void)[];
  /** Services of dedicated listeners: never idle, never forgotten. */
  #named: ReadonlySet<ServiceId>;
  #settings: Settings;
  #closed = false;

  constructor(deps: PublishDeps, settings: Settings) {
    this.#deps = deps;
    this.#settings = settings;
    this.#named = namedServices(settings);
    this.#judge = new Judge(deps.overrides);
    this.#missed = new MissedNames(deps.clock, (service) => this.#sendAbsent(service));
    const { clock, activeServices } = deps;
    this.#traffic = new Traffic({ clock, activeServices, onChange: (service) => this.#trafficChanged(service) });
    this.#unsubscribe = [
      deps.catalog.subscribe((service, view) => this.#viewChanged(service, view)),
      deps.overrides.subscribe((service) => this.#overridesChanged(service)),
    ];
  }

  /** Takes up what is there already: services of dedicated listeners, with overrides, with configured checks. Once, after the catalog was restored. */
  start(): void {
    for (const service of this.#named) this.firstUse(service);
    this.#scan();
  }

  // --- the data plane ------------------------------------------------------------------------------------------------------

  /** A request named a service of which the data plane has no cluster. Answered now, or within 1 s where a watch or a check has to be waited for. */
  firstUse(service: ServiceId): void {
    if (this.#closed) return;
    const soon = this.#deps.use(service);
    const view = this.#deps.catalog.get(service);
    if (view === undefined) {
      this.#missed.miss(service, soon);
      return;
    }
    const entry = this.#entryOf(service, view);
    const before = entry.sent;
    this.#ask(entry);
    this.#update(entry, view);
    // Asked again, so what was sent is forgotten there.
    if (before !== null && entry.sent === before) this.#send(entry);
  }

  // --- the API -------------------------------------------------------------------------------------------------------------

  /** What is published of the service now; null: no source knows it. */
  read(service: ServiceId): Published | null {
    const view = this.#deps.catalog.get(service);
    if (view === undefined) return null;
    const entry = this.#entries.get(service) ?? (this.#needsEntry(service) ? this.#entryOf(service, view) : null);
    if (entry === null) return this.#judge.plain(view);
    if (entry.published.view !== view) this.#refresh(entry, view);
    return entry.published;
  }

  /** Instances in all, those whose verdict is healthy, and those that may be picked as far as verdicts go. */
  counts(service: ServiceId): { readonly total: number; readonly healthy: number; readonly routable: number } {
    const verdicts = this.read(service)?.verdicts ?? [];
    let healthy = 0;
    let routable = 0;
    for (const verdict of verdicts) {
      if (verdict === 'healthy') healthy++;
      if (verdict === 'healthy' || verdict === 'unknown') routable++;
    }
    return { total: verdicts.length, healthy, routable };
  }

  /** Why the verdict is what it is; null: nothing beyond the registries' word, or no such instance. */
  verdictReason(service: ServiceId, network: string, host: string, port: number): string | null {
    const published = this.read(service);
    const at =
      published?.view.instances.findIndex((one) => one.network === network && one.host === host && one.port === port) ?? -1;
    return published?.reasons[at] ?? null;
  }

  /** Told every change of view or verdict, with its index. A removed service reads as null by then. */
  subscribe(listener: PublishedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // --- settings ------------------------------------------------------------------------------------------------------------

  prepare(next: Settings): PreparedChange {
    return { commit: () => this.#configure(next) };
  }

  #configure(next: Settings): void {
    const before = this.#named;
    this.#settings = next;
    this.#named = namedServices(next);
    for (const entry of [...this.#entries.values()]) {
      const policy = next.services.policyOf(entry.service);
      if (policy === entry.policy) continue;
      entry.policy = policy;
      this.#update(entry, entry.published.view);
    }
    for (const service of this.#named) if (!before.has(service)) this.firstUse(service);
    this.#scan();
  }

  /** Services that need an entry though nothing changed about them. */
  #scan(): void {
    for (const service of this.#deps.catalog.allNames()) {
      if (this.#entries.has(service) || !this.#needsEntry(service)) continue;
      const view = this.#deps.catalog.get(service);
      if (view !== undefined) this.#entryOf(service, view);
    }
  }

  // --- changes -------------------------------------------------------------------------------------------------------------

  #viewChanged(service: ServiceId, view: View | undefined): void {
    if (this.#closed) return;
    if (view === undefined) {
      this.#removed(service);
      return;
    }
    const awaited = this.#named.has(service) || this.#missed.has(service);
    const entry = this.#entries.get(service) ?? (awaited || this.#needsEntry(service) ? this.#entryOf(service, view) : null);
    if (entry === null) {
      this.#tell(service, this.#judge.plain(view).index);
      return;
    }
    if (awaited && !entry.asked) this.#ask(entry);
    this.#update(entry, view);
  }

  #removed(service: ServiceId): void {
    const entry = this.#entries.get(service);
    const index = this.#deps.catalog.takeIndex();
    if (entry !== undefined) {
      this.#entries.delete(service);
      this.#changedAsks.delete(entry);
      this.#traffic.forget(service);
      entry.waiting?.cancel();
      entry.checks.end();
      if (entry.asked) this.#missed.miss(service, false);
    }
    this.#tell(service, index);
  }

  #overridesChanged(service: ServiceId): void {
    const view = this.#deps.catalog.get(service);
    if (view === undefined || this.#closed) return;
    this.#update(this.#entryOf(service, view), view);
  }

  /** Results of many checks come in one turn of the loop: one update for all of a service. */
  #askChanged(entry: Entry, ask: Ask): void {
    if (this.#changedAsks.size === 0) queueMicrotask(() => this.#settleAsks());
    const instance = entry.published.view.instances.find(
      ({ network, host, port }) => network === ask.target.network && host === ask.target.host && port === ask.target.port,
    );
    const evidence = instance?.held === true || instance?.suspect === true;
    this.#changedAsks.set(entry, evidence || this.#changedAsks.get(entry) === true);
  }

  #settleAsks(): void {
    const changed = [...this.#changedAsks];
    this.#changedAsks.clear();
    for (const [entry, evidence] of changed) {
      if (this.#entries.get(entry.service) !== entry || this.#closed) continue;
      // The catalog decides about holds first; what it changes comes back through #viewChanged.
      if (evidence) this.#deps.catalog.touch(entry.service);
      const view = this.#deps.catalog.get(entry.service);
      if (view !== undefined && this.#entries.get(entry.service) === entry) this.#update(entry, view);
    }
  }

  #trafficChanged(service: ServiceId): void {
    const entry = this.#entries.get(service);
    const view = this.#deps.catalog.get(service);
    if (entry !== undefined && view !== undefined) this.#update(entry, view);
  }

  /** Brings an entry up to date and tells whoever has not been told yet. */
  #update(entry: Entry, view: View): void {
    this.#refresh(entry, view);
    const { index } = entry.published;
    if (entry.asked && (entry.sent?.index !== index || entry.sent.policy !== entry.policy.cluster)) this.#answer(entry, view);
    if (entry.toldIndex === index) return;
    entry.toldIndex = index;
    this.#tell(entry.service, index);
  }

  /** Checks and verdicts as they must be now. Equal verdicts on the same view keep the published object. */
  #refresh(entry: Entry, view: View): void {
    entry.checks.sync(view, entry.policy.healthCheck, this.#traffic.isActive(entry.service));
    entry.published = this.#judge.again(entry.published, view, entry.checks, () => this.#deps.catalog.takeIndex());
  }

  // --- entries -------------------------------------------------------------------------------------------------------------

  #needsEntry(service: ServiceId): boolean {
    return this.#settings.services.policyOf(service).healthCheck !== null || this.#deps.overrides.has(service);
  }

  #entryOf(service: ServiceId, view: View): Entry {
    const found = this.#entries.get(service);
    if (found !== undefined) return found;
    const policy = this.#settings.services.policyOf(service);
    const entry: Entry = {
      service,
      checks: new ServiceChecks(service, this.#deps.prober, this.#deps.dialOf, (ask) => this.#askChanged(entry, ask)),
      policy,
      published: this.#judge.plain(view),
      toldIndex: this.#judge.plain(view).index,
      sent: null,
      asked: false,
      waiting: null,
    };
    this.#entries.set(service, entry);
    this.#refresh(entry, view);
    return entry;
  }

  #ask(entry: Entry): void {
    entry.asked = true;
    this.#missed.found(entry.service);
    this.#traffic.use(entry.service);
  }

  // --- messages ------------------------------------------------------------------------------------------------------------

  /** Sends the newest state; at the first time, instances from disk that are too old get a moment to prove themselves. */
  #answer(entry: Entry, view: View): void {
    if (entry.sent === null && entry.checks.hasUnproven(view)) {
      entry.waiting ??= this.#deps.clock.setTimer(PROOF_WAIT_MS, () => this.#send(entry));
      return;
    }
    this.#send(entry);
  }

  #send(entry: Entry): void {
    entry.waiting?.cancel();
    entry.waiting = null;
    const { view, verdicts, index } = entry.published;
    const words = view.instances.map((instance, i) => ({
      verdict: verdicts[i] ?? 'unknown',
      recoveredAt: entry.checks.askOf(instance)?.recoveredAt ?? null,
    }));
    entry.sent = { index, policy: entry.policy.cluster };
    this.#deps.send(clusterUpdate(view, words, entry.policy.cluster, index));
  }

  #sendAbsent(service: ServiceId): void {
    this.#deps.send({ kind: 'absent', service, why: this.#deps.notReady() ? 'notReady' : 'unknown' });
  }

  #tell(service: ServiceId, index: number): void {
    for (const listener of this.#listeners) listener(service, index);
  }

  /** Ends checks and listening; what was sent stays. */
  close(): void {
    this.#closed = true;
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#traffic.close();
    this.#missed.close();
    for (const entry of this.#entries.values()) {
      entry.waiting?.cancel();
      entry.checks.end();
    }
    this.#entries.clear();
  }
}

function namedServices(settings: Settings): ReadonlySet<ServiceId> {
  return new Set(settings.listeners.map(({ service }) => service));
}
