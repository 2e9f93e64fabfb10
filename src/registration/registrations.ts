// Owns the registrations of this host: what is wanted (API, weir.yaml), in which sources, and that it outlives us (journal).
// Called by api (upsert, remove, list), health through app (setHealth), app (replaceDeclared, retarget, leaveSource, shutdown).
// Must never touch a record that is not ours, and never lose a receipt.
//
//   PUT / weir.yaml ──▶ chooseTargets ──▶ Target per source ──▶ Keeper ──▶ adapter.put / renew / setHealth / remove
//                            journal ◀── wish, receipts ◀────────┘
import type { Adapter } from '../adapter/contract.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type ServiceKey, serviceId } from '../model/service.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { chooseTargets, type Destination, type NativeKey, type RegistrationSource } from './choose-targets.ts';
import { Journal, type JournalEntry } from './journal.ts';
import { entryOf, type JournaledTarget, registrationIn, targetsIn } from './journal-entry.ts';
import { Keeper } from './keeper.ts';
import {
  type Registration,
  type RegistrationRequest,
  registrationFault,
  registrationKey,
  registrationOf,
} from './registration.ts';
import { countStates, type RegistrationView, registrationView } from './registration-view.ts';
import { Target, type TargetState } from './target.ts';
import { Turns } from './turns.ts';
import { WriteCounts } from './write-counts.ts';

/** How long an answer waits for the first word of the registries; they are kept trying after it. */
const FIRST_WORD_MS = 2_000;
/** How long a shutdown waits for deregistrations. */
const LEAVE_MS = 5_000;

export interface RegistrationsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The sources as they stand now. */
  readonly sources: () => readonly RegistrationSource[];
  readonly nativeKey: NativeKey;
  readonly audit: (line: AuditLine) => void;
  readonly metrics: Metrics;
  /** A record that was live may be gone from its registry. */
  readonly onLost: (details: { source: string; service: string; id: string; error: string }) => void;
  readonly journalPath: string;
  readonly uid: number | null;
}

interface Entry {
  registration: Registration;
  declared: boolean;
  leaving: boolean;
  healthy: boolean | null;
  /** By source id and native service. */
  readonly targets: Map<string, Target>;
}

export class Registrations {
  readonly #deps: RegistrationsDeps;
  readonly #journal: Journal;
  readonly #keeper: Keeper;
  readonly #entries = new Map<string, Entry>();
  readonly #entryOf = new Map<Target, Entry>();
  readonly #states = new Map<Target, TargetState>();
  readonly #waiters = new Set<() => void>();
  readonly #listeners = new Set<() => void>();
  /** Changes of one registration come one after the other. */
  readonly #turns = new Turns();
  readonly #counts: WriteCounts;
  /** By source id: whose connection the targets were served by when they were chosen last. */
  readonly #adapters = new Map<string, Adapter>();
  #ending = false;

  private constructor(deps: RegistrationsDeps, journal: Journal) {
    this.#deps = deps;
    this.#journal = journal;
    this.#counts = new WriteCounts(deps.metrics);
    this.#keeper = new Keeper({
      ...deps,
      count: (...write) => this.#counts.count(...write),
      onReceipt: (target) => void this.#save(this.#entryOf.get(target)),
      onOutcome: (target) => this.#onOutcome(target),
    });
  }

  /** Reads the journal and takes up again what it holds: renewing comes first, so nothing is written twice. */
  static async open(deps: RegistrationsDeps): Promise<Registrations> {
    const { journal, entries } = await Journal.open({ path: deps.journalPath, uid: deps.uid, log: deps.log });
    const registrations = new Registrations(deps, journal);
    for (const entry of entries) registrations.#restore(entry);
    return registrations;
  }

  /** Why an earlier journal could not be taken up, or null. */
  get journalFault(): string | null {
    return this.#journal.fault;
  }

  /**
   * Creates or changes a registration of the API. Resolves once it is in the journal and every target had its first word (or 2 s are
   * over): from then on it is kept. Throws WeirError BAD_REQUEST, SOURCE_NOT_FOUND, REGISTRATION_TARGET, DRAINING, and
   * REGISTRATION_CONFLICT where a registry says that the address is another owner's (the registration is then as it was before).
   */
  async upsert(request: RegistrationRequest): Promise<RegistrationView> {
    return this.upsertComplete(registrationOf(request));
  }

  /** Like upsert, for a registration whose defaults were filled in by the caller. */
  async upsertComplete(registration: Registration): Promise<RegistrationView> {
    const fault = registrationFault(registration);
    if (fault !== null) throw new WeirError('BAD_REQUEST', fault);
    const key = registrationKey(registration.service, registration.id);
    return this.#turns.run(key, async () => {
      if (this.#ending) throw stopping();
      const before = this.#entries.get(key);
      if (before?.declared === true) throw declaredConflict(registration);
      const destinations = chooseTargets(registration, this.#deps.sources(), this.#deps.nativeKey);
      const rival = this.#rivalOf(registration, destinations);
      if (rival !== null)
        throw new WeirError('REGISTRATION_CONFLICT', `this host registers the address as ${rival}`, { details: { id: rival } });
      const previous = before === undefined || before.leaving ? null : before.registration;
      const entry = this.#apply(registration, false, destinations);
      await this.#save(entry);
      this.#keeper.wake();
      const targets = [...entry.targets.values()].filter(({ leaving }) => !leaving);
      await this.#settled(targets, FIRST_WORD_MS);
      const refused = targets.find((target) => target.state(this.#deps.clock.now()) === 'refused');
      if (refused === undefined) {
        await this.#save(entry);
        return this.#view(entry);
      }
      const reason = refused.error?.message ?? 'refused';
      await this.#undo(entry, previous);
      throw new WeirError('REGISTRATION_CONFLICT', `${refused.sourceId}: ${reason}`, {
        details: { source: refused.sourceId, targets: { [refused.sourceId]: reason } },
      });
    });
  }

  /** Resolves once the removal is in the journal (and done, or 2 s are over); null: there was none. Throws for a declared one. */
  remove(service: ServiceKey, id: string): Promise<RegistrationView | null> {
    const key = registrationKey(service, id);
    return this.#turns.run(key, async () => {
      if (this.#ending) throw stopping();
      const entry = this.#entries.get(key);
      if (entry === undefined || entry.leaving) return null;
      if (entry.declared) throw declaredConflict(entry.registration);
      const view = this.#view(entry);
      await this.#leave(entry);
      await this.#settled([...entry.targets.values()], FIRST_WORD_MS);
      return view;
    });
  }

  list(): readonly RegistrationView[] {
    return [...this.#entries.values()].filter(({ leaving }) => !leaving).map((entry) => this.#view(entry));
  }

  /** All registrations that are wanted, for those who check their health. */
  wanted(): readonly Registration[] {
    return [...this.#entries.values()].filter(({ leaving }) => !leaving).map(({ registration }) => registration);
  }

  /** Called after every change of what is wanted. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Targets by state, for metrics. */
  counts(): ReadonlyMap<TargetState, number> {
    return countStates(this.#entryOf.keys(), this.#deps.clock.now());
  }

  /** The verdict of the registration's own check: failing means unhealthy, or taken out, as the registration says. */
  setHealth(service: ServiceKey, id: string, healthy: boolean): void {
    const entry = this.#entries.get(registrationKey(service, id));
    if (entry === undefined || entry.healthy === healthy) return;
    entry.healthy = healthy;
    for (const target of entry.targets.values()) {
      target.healthy = healthy;
      target.hurry(this.#deps.clock.now());
    }
    void this.#save(entry);
    this.#keeper.wake();
  }

  /** The registrations of weir.yaml: those that are gone from it are removed, others stay as they are. Never throws; faults are logged. */
  async replaceDeclared(list: readonly Registration[]): Promise<void> {
    if (this.#ending) return;
    const declared = new Set(list.map(({ service, id }) => registrationKey(service, id)));
    const gone = [...this.#entries].filter(([key, entry]) => entry.declared && !entry.leaving && !declared.has(key));
    // In one turn: no removal begins before a new wish had the chance to take its record over.
    for (const [, entry] of gone) this.#markLeaving(entry);
    const declaring = list.map((registration) => this.#declare(registration));
    await Promise.all([...declaring, ...gone.map(([, entry]) => this.#leave(entry))]);
    this.#keeper.wake();
  }

  /** Chooses targets anew; call it once all sources of a new configuration stand. Sources that are gone are forgotten, see leaveSource. */
  async retarget(): Promise<void> {
    if (this.#ending) return;
    const sources = new Map(this.#deps.sources().map(({ sourceId, adapter }) => [sourceId, adapter]));
    const fresh = new Set([...sources].filter(([id, adapter]) => this.#adapters.get(id) !== adapter).map(([id]) => id));
    this.#adapters.clear();
    for (const [id, adapter] of sources) this.#adapters.set(id, adapter);
    this.#counts.keepOnly(new Set(sources.keys()));
    for (const entry of [...this.#entries.values()]) {
      for (const [place, target] of entry.targets) {
        if (!sources.has(target.sourceId)) this.#forget(entry, place, target);
        // What lived by the old connection went with it, and the new one may lead to another server.
        else if (fresh.has(target.sourceId)) target.hurry(this.#deps.clock.now());
      }
      if (!entry.leaving) this.#apply(entry.registration, entry.declared, this.#destinations(entry.registration));
      await this.#save(entry);
      this.#dropIfOver(entry);
    }
    this.#keeper.wake();
  }

  /** Deregisters everything at one source, before its adapter is closed for good; waits at most 5 s. */
  async leaveSource(sourceId: string): Promise<void> {
    const targets = [...this.#entryOf.keys()].filter((target) => target.sourceId === sourceId);
    for (const target of targets) this.#leaveTarget(target);
    this.#keeper.wake();
    await this.#settled(targets, LEAVE_MS);
  }

  /**
   * deregister: removes everything, waits at most 5 s; what could not be removed stays in the journal and is removed at the next
   * start. keep: leases stay as they are and are taken up again by the next process. Nothing is renewed afterwards.
   */
  async shutdown(how: 'deregister' | 'keep'): Promise<void> {
    this.#ending = true;
    if (how === 'deregister') {
      const targets = [...this.#entryOf.keys()];
      await Promise.all([...this.#entries.values()].map((entry) => this.#leave(entry)));
      await this.#settled(targets, LEAVE_MS);
    }
    await this.#keeper.close();
    await this.#journal.close();
  }

  async #declare(registration: Registration): Promise<void> {
    const destinations = this.#destinations(registration);
    const rival = this.#rivalOf(registration, destinations);
    if (rival === null) {
      await this.#save(this.#apply(registration, true, destinations));
      return;
    }
    const { service, id } = registration;
    this.#deps.log.error(
      { service: serviceId(service), id, other: rival },
      'two registrations of one service have the same address',
    );
  }

  /** Another registration of the same address in one of the same places: both would write the same record in turns. */
  #rivalOf(wish: Registration, destinations: readonly Destination[]): string | null {
    const places = new Set(destinations.map(placeOf));
    for (const { registration, leaving, targets } of this.#entries.values()) {
      const { service, id } = registration;
      if (leaving || !sameAddress(registration, wish) || registrationKey(service, id) === registrationKey(wish.service, wish.id))
        continue;
      for (const place of targets.keys()) if (places.has(place)) return id;
    }
    return null;
  }

  #restore(record: JournalEntry): void {
    const registration = registrationIn(record);
    const fault = registrationFault(registration);
    if (fault !== null) {
      this.#deps.log.warn(
        { service: serviceId(record.service), id: record.id, fault },
        'a registration of the journal is not valid',
      );
      return;
    }
    const { declared, leaving, healthy } = record;
    const entry: Entry = { registration, declared, leaving, healthy, targets: new Map() };
    this.#entries.set(registrationKey(registration.service, registration.id), entry);
    for (const journaled of targetsIn(record)) this.#addTarget(entry, journaled, journaled);
  }

  #addTarget(entry: Entry, where: Destination, journaled: JournaledTarget | null): Target {
    const target = new Target(where, entry.registration, this.#deps.random, journaled?.known ?? null);
    target.leftovers = journaled?.leftovers ?? [];
    target.leaving = entry.leaving;
    target.healthy = entry.healthy;
    target.dueAt = this.#deps.clock.now();
    entry.targets.set(placeOf(where), target);
    this.#entryOf.set(target, entry);
    this.#keeper.add(target);
    return target;
  }

  /** Makes the wish the present one; nothing is awaited, so that it happens at once. */
  #apply(registration: Registration, declared: boolean, destinations: readonly Destination[]): Entry {
    const key = registrationKey(registration.service, registration.id);
    const entry = this.#entries.get(key) ?? {
      registration,
      declared,
      leaving: false,
      healthy: null,
      targets: new Map<string, Target>(),
    };
    const changed = entry.leaving || !sameWish(entry.registration, registration);
    // A verdict is about an address and needs a check that can change it.
    if (registration.healthCheck === null || !sameAddress(entry.registration, registration)) entry.healthy = null;
    Object.assign(entry, { registration, declared, leaving: false });
    this.#entries.set(key, entry);
    const places = new Set(destinations.map(placeOf));
    for (const [place, target] of entry.targets) if (!places.has(place)) this.#leaveTarget(target);
    for (const where of destinations) {
      const target = entry.targets.get(placeOf(where)) ?? this.#addTarget(entry, where, this.#takeOver(entry, where));
      target.registration = registration;
      target.healthy = entry.healthy;
      if (changed || target.leaving) target.hurry(this.#deps.clock.now());
      target.leaving = false;
    }
    for (const listener of this.#listeners) listener();
    return entry;
  }

  /**
   * The record that a registration which is leaving still has at this place and address: a registration under another id begins with
   * it, so that a change of name leaves no gap, and no late removal takes the new record away.
   */
  #takeOver(entry: Entry, where: Destination): JournaledTarget | null {
    const place = placeOf(where);
    for (const other of this.#entries.values()) {
      const target = other.targets.get(place);
      if (other === entry || target?.leaving !== true || target.inFlight || target.receipt === null) continue;
      if (!sameAddress(other.registration, entry.registration)) continue;
      const { receipt, leftovers, applied } = target;
      if (entry.healthy === null && sameCheck(other.registration, entry.registration)) entry.healthy = other.healthy;
      this.#forget(other, place, target);
      this.#dropIfOver(other);
      // The body is another one, so that it is put.
      return { ...where, known: { receipt, applied: { body: '', health: applied?.health ?? 'unknown' } }, leftovers };
    }
    return null;
  }

  /** Like chooseTargets, for wishes that nobody waits for: where they cannot be chosen now, they stay as they are. */
  #destinations(registration: Registration): readonly Destination[] {
    try {
      return chooseTargets(registration, this.#deps.sources(), this.#deps.nativeKey);
    } catch (thrown) {
      const service = serviceId(registration.service);
      this.#deps.log.error({ service, id: registration.id, error: messageOf(thrown) }, 'a registration has no targets now');
      const targets = this.#entries.get(registrationKey(registration.service, registration.id))?.targets.values() ?? [];
      return [...targets].filter(({ leaving }) => !leaving);
    }
  }

  async #undo(entry: Entry, previous: Registration | null): Promise<void> {
    if (previous === null) await this.#leave(entry);
    else {
      this.#apply(previous, entry.declared, this.#destinations(previous));
      await this.#save(entry);
    }
    this.#keeper.wake();
  }

  #markLeaving(entry: Entry): void {
    entry.leaving = true;
    for (const target of entry.targets.values()) this.#leaveTarget(target);
  }

  async #leave(entry: Entry): Promise<void> {
    this.#markLeaving(entry);
    // The wish to be gone first: a crash before the removals are done must not bring it back.
    await this.#save(entry);
    this.#dropIfOver(entry);
    this.#keeper.wake();
    for (const listener of this.#listeners) listener();
  }

  #leaveTarget(target: Target): void {
    target.leaving = true;
    target.hurry(this.#deps.clock.now());
  }

  #onOutcome(target: Target): void {
    const entry = this.#entryOf.get(target);
    const now = target.state(this.#deps.clock.now());
    if (now === 'lost' && this.#states.get(target) === 'live') {
      const { service, id } = target.registration;
      this.#deps.onLost({ source: target.sourceId, service: serviceId(service), id, error: target.error?.message ?? 'lost' });
    }
    this.#states.set(target, now);
    if (entry !== undefined && target.over) {
      this.#forget(entry, placeOf(target), target);
      void this.#save(entry);
      this.#dropIfOver(entry);
    }
    for (const waiter of [...this.#waiters]) waiter();
  }

  #forget(entry: Entry, place: string, target: Target): void {
    entry.targets.delete(place);
    this.#entryOf.delete(target);
    this.#states.delete(target);
    this.#keeper.delete(target);
  }

  #dropIfOver(entry: Entry): void {
    if (!entry.leaving || entry.targets.size > 0) return;
    const key = registrationKey(entry.registration.service, entry.registration.id);
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
    void this.#save(entry);
  }

  /** The newest state to the journal. A journal that cannot be written is said and does not stop the keeping of leases. */
  async #save(entry: Entry | undefined): Promise<void> {
    if (entry === undefined) return;
    const key = registrationKey(entry.registration.service, entry.registration.id);
    const over = entry.leaving && entry.targets.size === 0;
    try {
      await this.#journal.write(key, over ? null : entryOf(entry.registration, entry, [...entry.targets.values()]));
    } catch (thrown) {
      this.#deps.log.error(
        { path: this.#deps.journalPath, error: messageOf(thrown) },
        'the registration journal cannot be written',
      );
    }
  }

  /** Waits until each target had a word after its last change (or is over), or `ms` have passed. */
  async #settled(targets: readonly Target[], ms: number): Promise<void> {
    const { clock } = this.#deps;
    const open = (): boolean =>
      targets.some(
        (target) => this.#entryOf.has(target) && (target.inFlight || (target.error === null && target.dueAt <= clock.now())),
      );
    if (!open()) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        timer.cancel();
        this.#waiters.delete(waiter);
        resolve();
      };
      const waiter = (): void => {
        if (!open()) end();
      };
      const timer = clock.setTimer(ms, end);
      this.#waiters.add(waiter);
    });
  }

  #view({ registration, targets }: Entry): RegistrationView {
    return registrationView(registration, targets.values(), this.#deps.clock.now());
  }
}

function placeOf({ sourceId, key }: Destination): string {
  return `${sourceId}\0${serviceId(key)}`;
}

function sameWish(a: Registration, b: Registration): boolean {
  const text = (wish: Registration): string => JSON.stringify({ ...wish, metadata: [...wish.metadata].sort() });
  return a === b || text(a) === text(b);
}

function sameAddress(a: Registration, b: Registration): boolean {
  return a.host === b.host && a.port === b.port;
}

function sameCheck(a: Registration, b: Registration): boolean {
  return JSON.stringify(a.healthCheck) === JSON.stringify(b.healthCheck);
}

function stopping(): WeirError {
  return new WeirError('DRAINING', 'weir is stopping: what it keeps is left or removed as shutdown.registrations says');
}

function declaredConflict({ service, id }: Registration): WeirError {
  const message = `${serviceId(service)} ${id} is declared in the configuration and is changed there`;
  return new WeirError('REGISTRATION_CONFLICT', message, { details: { declared: true } });
}
