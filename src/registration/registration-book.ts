// Owns the registrations of this host as they stand: each with its wish, its targets and their receipts, and that the journal knows it.
// Called by registrations.ts, which decides what is wanted. Must never lose a receipt, nor let two registrations have one record.
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { serviceId } from '../model/service.ts';
import type { Destination } from './choose-targets.ts';
import type { Journal, JournalEntry } from './journal.ts';
import { entryOf, type JournaledTarget, registrationIn, targetsIn } from './journal-entry.ts';
import { type Registration, registrationFault, registrationKey } from './registration.ts';
import { type RegistrationView, registrationView } from './registration-view.ts';
import { Target, type TargetState } from './target.ts';

export interface BookDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly onLost: (details: { source: string; service: string; id: string; error: string }) => void;
  readonly journalPath: string;
  readonly journal: Journal;
  /** Renews and writes the targets that it is given; wakes for what is due. */
  readonly keeper: { add(target: Target): void; delete(target: Target): void; wake(): void };
}

/** One registration. */
export interface Entry {
  registration: Registration;
  declared: boolean;
  leaving: boolean;
  healthy: boolean | null;
  /** By source id and native service. */
  readonly targets: Map<string, Target>;
}

export class Book {
  /** By registration key. */
  readonly entries = new Map<string, Entry>();
  /** Every target, with the registration that it belongs to. */
  readonly targets = new Map<Target, Entry>();
  readonly #deps: BookDeps;
  readonly #states = new Map<Target, TargetState>();
  readonly #waiters = new Set<() => void>();
  readonly #listeners = new Set<() => void>();

  constructor(deps: BookDeps) {
    this.#deps = deps;
  }

  /** Called after every change of what is wanted. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Takes up what the journal held. */
  restore(record: JournalEntry): void {
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
    this.entries.set(registrationKey(registration.service, registration.id), entry);
    for (const journaled of targetsIn(record)) this.#addTarget(entry, journaled, journaled);
  }

  /** Makes the wish the present one; nothing is awaited, so that it happens at once. */
  apply(registration: Registration, declared: boolean, destinations: readonly Destination[]): Entry {
    const key = registrationKey(registration.service, registration.id);
    const entry = this.entries.get(key) ?? {
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
    this.entries.set(key, entry);
    const places = new Set(destinations.map(placeOf));
    for (const [place, target] of entry.targets) if (!places.has(place)) this.leaveTarget(target);
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

  /** Another registration of the same address in one of the same places: both would write the same record in turns. */
  rivalOf(wish: Registration, destinations: readonly Destination[]): string | null {
    const places = new Set(destinations.map(placeOf));
    for (const { registration, leaving, targets } of this.entries.values()) {
      const { service, id } = registration;
      if (leaving || !sameAddress(registration, wish) || registrationKey(service, id) === registrationKey(wish.service, wish.id))
        continue;
      for (const place of targets.keys()) if (places.has(place)) return id;
    }
    return null;
  }

  /** Its removals begin with the next turn of the keeper. */
  markLeaving(entry: Entry): void {
    entry.leaving = true;
    for (const target of entry.targets.values()) this.leaveTarget(target);
  }

  /** Resolves once the wish to be gone is in the journal. */
  async leave(entry: Entry): Promise<void> {
    this.markLeaving(entry);
    // The wish to be gone first: a crash before the removals are done must not bring it back.
    await this.save(entry);
    this.dropIfOver(entry);
    this.#deps.keeper.wake();
    for (const listener of this.#listeners) listener();
  }

  /** One place of a registration goes. */
  leaveTarget(target: Target): void {
    target.leaving = true;
    target.hurry(this.#deps.clock.now());
  }

  /** A place is known no more; its record, if there is one, stays. */
  forget(entry: Entry, place: string, target: Target): void {
    entry.targets.delete(place);
    this.targets.delete(target);
    this.#states.delete(target);
    this.#deps.keeper.delete(target);
  }

  /** A registration that is leaving, and has left everywhere, is known no more. */
  dropIfOver(entry: Entry): void {
    if (!entry.leaving || entry.targets.size > 0) return;
    const key = registrationKey(entry.registration.service, entry.registration.id);
    if (this.entries.get(key) === entry) this.entries.delete(key);
    void this.save(entry);
  }

  /** The newest state to the journal. A journal that cannot be written is said and does not stop the keeping of leases. */
  async save(entry: Entry | undefined): Promise<void> {
    if (entry === undefined) return;
    const key = registrationKey(entry.registration.service, entry.registration.id);
    const over = entry.leaving && entry.targets.size === 0;
    try {
      await this.#deps.journal.write(key, over ? null : entryOf(entry.registration, entry, [...entry.targets.values()]));
    } catch (thrown) {
      this.#deps.log.error(
        { path: this.#deps.journalPath, error: messageOf(thrown) },
        'the registration journal cannot be written',
      );
    }
  }

  /** Waits until each target had a word after its last change (or is over), or `ms` have passed. */
  async settled(targets: readonly Target[], ms: number): Promise<void> {
    const { clock } = this.#deps;
    const open = (): boolean =>
      targets.some(
        (target) => this.targets.has(target) && (target.inFlight || (target.error === null && target.dueAt <= clock.now())),
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

  /** As people see it. */
  view({ registration, targets }: Entry): RegistrationView {
    return registrationView(registration, targets.values(), this.#deps.clock.now());
  }

  #addTarget(entry: Entry, where: Destination, journaled: JournaledTarget | null): Target {
    const target = new Target(where, entry.registration, this.#deps.random, journaled?.known ?? null);
    target.leftovers = journaled?.leftovers ?? [];
    target.leaving = entry.leaving;
    target.healthy = entry.healthy;
    target.dueAt = this.#deps.clock.now();
    entry.targets.set(placeOf(where), target);
    this.targets.set(target, entry);
    this.#deps.keeper.add(target);
    return target;
  }

  /**
   * The record that a registration which is leaving still has at this place and address: a registration under another id begins with
   * it, so that a change of name leaves no gap, and no late removal takes the new record away.
   */
  #takeOver(entry: Entry, where: Destination): JournaledTarget | null {
    const place = placeOf(where);
    for (const other of this.entries.values()) {
      const target = other.targets.get(place);
      if (other === entry || target?.leaving !== true || target.inFlight || target.receipt === null) continue;
      if (!sameAddress(other.registration, entry.registration)) continue;
      const { receipt, leftovers, applied } = target;
      if (entry.healthy === null && sameCheck(other.registration, entry.registration)) entry.healthy = other.healthy;
      this.forget(other, place, target);
      this.dropIfOver(other);
      // The body is another one, so that it is put.
      return { ...where, known: { receipt, applied: { body: '', health: applied?.health ?? 'unknown' } }, leftovers };
    }
    return null;
  }

  /** A target had a word of its registry. */
  onOutcome(target: Target): void {
    const entry = this.targets.get(target);
    const now = target.state(this.#deps.clock.now());
    if (now === 'lost' && this.#states.get(target) === 'live') {
      const { service, id } = target.registration;
      this.#deps.onLost({ source: target.sourceId, service: serviceId(service), id, error: target.error?.message ?? 'lost' });
    }
    this.#states.set(target, now);
    if (entry !== undefined && target.over) {
      this.forget(entry, placeOf(target), target);
      void this.save(entry);
      this.dropIfOver(entry);
    }
    for (const waiter of [...this.#waiters]) waiter();
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
