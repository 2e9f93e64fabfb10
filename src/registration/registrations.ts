// Owns what is wanted of this host's registrations (API, weir.yaml), in which sources; how they stand is with registration-book.ts.
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
import { Journal } from './journal.ts';
import { Keeper } from './keeper.ts';
import {
  type Registration,
  type RegistrationRequest,
  registrationFault,
  registrationKey,
  registrationOf,
} from './registration.ts';
import { Book, type Entry } from './registration-book.ts';
import { countStates, type RegistrationView } from './registration-view.ts';
import type { TargetState } from './target.ts';
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

export class Registrations {
  readonly #deps: RegistrationsDeps;
  readonly #journal: Journal;
  readonly #keeper: Keeper;
  readonly #book: Book;
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
      onReceipt: (target) => void this.#book.save(this.#book.targets.get(target)),
      onOutcome: (target) => this.#book.onOutcome(target),
    });
    this.#book = new Book({ ...deps, journal, keeper: this.#keeper });
  }

  /** Reads the journal and takes up again what it holds: renewing comes first, so nothing is written twice. */
  static async open(deps: RegistrationsDeps): Promise<Registrations> {
    const { journal, entries } = await Journal.open({ path: deps.journalPath, uid: deps.uid, log: deps.log });
    const registrations = new Registrations(deps, journal);
    for (const entry of entries) registrations.#book.restore(entry);
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
      const before = this.#book.entries.get(key);
      if (before?.declared === true) throw declaredConflict(registration);
      const destinations = chooseTargets(registration, this.#deps.sources(), this.#deps.nativeKey);
      const rival = this.#book.rivalOf(registration, destinations);
      if (rival !== null)
        throw new WeirError('REGISTRATION_CONFLICT', `this host registers the address as ${rival}`, { details: { id: rival } });
      const previous = before === undefined || before.leaving ? null : before.registration;
      const entry = this.#book.apply(registration, false, destinations);
      await this.#book.save(entry);
      this.#keeper.wake();
      const targets = [...entry.targets.values()].filter(({ leaving }) => !leaving);
      await this.#book.settled(targets, FIRST_WORD_MS);
      const refused = targets.find((target) => target.state(this.#deps.clock.now()) === 'refused');
      if (refused === undefined) {
        await this.#book.save(entry);
        return this.#book.view(entry);
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
      const entry = this.#book.entries.get(key);
      if (entry === undefined || entry.leaving) return null;
      if (entry.declared) throw declaredConflict(entry.registration);
      const view = this.#book.view(entry);
      await this.#book.leave(entry);
      await this.#book.settled([...entry.targets.values()], FIRST_WORD_MS);
      return view;
    });
  }

  list(): readonly RegistrationView[] {
    return [...this.#book.entries.values()].filter(({ leaving }) => !leaving).map((entry) => this.#book.view(entry));
  }

  /** All registrations that are wanted, for those who check their health. */
  wanted(): readonly Registration[] {
    return [...this.#book.entries.values()].filter(({ leaving }) => !leaving).map(({ registration }) => registration);
  }

  /** Called after every change of what is wanted. */
  subscribe(listener: () => void): () => void {
    return this.#book.subscribe(listener);
  }

  /** Targets by state, for metrics. */
  counts(): ReadonlyMap<TargetState, number> {
    return countStates(this.#book.targets.keys(), this.#deps.clock.now());
  }

  /** The verdict of the registration's own check: failing means unhealthy, or taken out, as the registration says. */
  setHealth(service: ServiceKey, id: string, healthy: boolean): void {
    const entry = this.#book.entries.get(registrationKey(service, id));
    if (entry === undefined || entry.healthy === healthy) return;
    entry.healthy = healthy;
    for (const target of entry.targets.values()) {
      target.healthy = healthy;
      target.hurry(this.#deps.clock.now());
    }
    void this.#book.save(entry);
    this.#keeper.wake();
  }

  /** The registrations of weir.yaml: those that are gone from it are removed, others stay as they are. Never throws; faults are logged. */
  async replaceDeclared(list: readonly Registration[]): Promise<void> {
    if (this.#ending) return;
    const declared = new Set(list.map(({ service, id }) => registrationKey(service, id)));
    const gone = [...this.#book.entries].filter(([key, entry]) => entry.declared && !entry.leaving && !declared.has(key));
    // In one turn: no removal begins before a new wish had the chance to take its record over.
    for (const [, entry] of gone) this.#book.markLeaving(entry);
    const declaring = list.map((registration) => this.#declare(registration));
    await Promise.all([...declaring, ...gone.map(([, entry]) => this.#book.leave(entry))]);
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
    for (const entry of [...this.#book.entries.values()]) {
      for (const [place, target] of entry.targets) {
        if (!sources.has(target.sourceId)) this.#book.forget(entry, place, target);
        // What lived by the old connection went with it, and the new one may lead to another server.
        else if (fresh.has(target.sourceId)) target.hurry(this.#deps.clock.now());
      }
      if (!entry.leaving) this.#book.apply(entry.registration, entry.declared, this.#destinations(entry.registration));
      await this.#book.save(entry);
      this.#book.dropIfOver(entry);
    }
    this.#keeper.wake();
  }

  /** Deregisters everything at one source, before its adapter is closed for good; waits at most 5 s. */
  async leaveSource(sourceId: string): Promise<void> {
    const targets = [...this.#book.targets.keys()].filter((target) => target.sourceId === sourceId);
    for (const target of targets) this.#book.leaveTarget(target);
    this.#keeper.wake();
    await this.#book.settled(targets, LEAVE_MS);
  }

  /**
   * deregister: removes everything, waits at most 5 s; what could not be removed stays in the journal and is removed at the next
   * start. keep: leases stay as they are and are taken up again by the next process. Nothing is renewed afterwards.
   */
  async shutdown(how: 'deregister' | 'keep'): Promise<void> {
    this.#ending = true;
    if (how === 'deregister') {
      const targets = [...this.#book.targets.keys()];
      await Promise.all([...this.#book.entries.values()].map((entry) => this.#book.leave(entry)));
      await this.#book.settled(targets, LEAVE_MS);
    }
    await this.#keeper.close();
    await this.#journal.close();
  }

  async #declare(registration: Registration): Promise<void> {
    const destinations = this.#destinations(registration);
    const rival = this.#book.rivalOf(registration, destinations);
    if (rival === null) {
      await this.#book.save(this.#book.apply(registration, true, destinations));
      return;
    }
    const { service, id } = registration;
    this.#deps.log.error(
      { service: serviceId(service), id, other: rival },
      'two registrations of one service have the same address',
    );
  }

  /** Like chooseTargets, for wishes that nobody waits for: where they cannot be chosen now, they stay as they are. */
  #destinations(registration: Registration): readonly Destination[] {
    try {
      return chooseTargets(registration, this.#deps.sources(), this.#deps.nativeKey);
    } catch (thrown) {
      const service = serviceId(registration.service);
      this.#deps.log.error({ service, id: registration.id, error: messageOf(thrown) }, 'a registration has no targets now');
      const targets = this.#book.entries.get(registrationKey(registration.service, registration.id))?.targets.values() ?? [];
      return [...targets].filter(({ leaving }) => !leaving);
    }
  }

  async #undo(entry: Entry, previous: Registration | null): Promise<void> {
    if (previous === null) await this.#book.leave(entry);
    else {
      this.#book.apply(previous, entry.declared, this.#destinations(previous));
      await this.#book.save(entry);
    }
    this.#keeper.wake();
  }
}

function stopping(): WeirError {
  return new WeirError('DRAINING', 'weir is stopping: what it keeps is left or removed as shutdown.registrations says');
}

function declaredConflict({ service, id }: Registration): WeirError {
  const message = `${serviceId(service)} ${id} is declared in the configuration and is changed there`;
  return new WeirError('REGISTRATION_CONFLICT', message, { details: { declared: true } });
}
