// Owns what the store says of every migration, as this sidecar has taken it: the documents, which of them cannot be read, and the overlay
// that follows from them. Called by migrations.ts and upkeep.ts. Must never change a document but by compare-and-set, nor let a store
// that is lost change what is read.
import { withDeadline } from '../kernel/cancel.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import { type Known, newKnown } from './known.ts';
import type { MigrationDoc, SidecarReport } from './migration.ts';
import { patternsOnly } from './orders.ts';
import { Overlay, type OverlayEntry } from './overlay.ts';
import type { EngineDeps, MigrationStore, OverlayMemory, StoredDoc } from './ports.ts';
import { Scope } from './scope.ts';

/** A document that changes under our hands this often is left to others. */
const MAX_TRIES = 8;
/** One call to the store, ms. */
const STORE_MS = 5_000;
/** A store that was lost is asked again after this, ms. */
const STORE_RETRY_MS = 1_000;

export interface DocumentsDeps extends EngineDeps {
  readonly memory: OverlayMemory;
  /** A document was taken: worker, gate and report are to follow it. */
  readonly onTaken: (known: Known) => void;
}

export class Documents {
  readonly overlay = new Overlay();
  readonly known = new Map<string, Known>();
  /** Migrations whose journal cannot be read, with the reason. */
  readonly broken = new Map<string, string>();
  readonly #deps: DocumentsDeps;
  readonly #closed = new AbortController();
  #loaded = false;
  #watching: Promise<void> = Promise.resolve();
  /** Steps and documents one after the other: a step must see what the step before it did. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(deps: DocumentsDeps) {
    this.#deps = deps;
  }

  /** Aborts at `close`. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** What this sidecar applied last holds until the store is heard. Resolves when that is in force; rejects never. */
  async open(): Promise<void> {
    try {
      this.overlay.set(await this.#deps.memory.load());
    } catch (thrown) {
      this.#deps.log.error({ error: messageOf(thrown) }, 'the last overlay of migrations cannot be read');
    }
  }

  /** Follows the store until `close`. */
  start(): void {
    this.#watching = this.#follow();
  }

  /** Resolves when nothing follows, or changes, a document any more. */
  async close(): Promise<void> {
    this.#closed.abort(new WeirError('INTERNAL', 'migrations are closed'));
    await this.#watching;
    await this.#turn.catch(() => undefined);
  }

  /** Throws WeirError MIGRATION_NOT_FOUND, MIGRATION_JOURNAL. */
  find(id: string): Known {
    const broken = this.broken.get(id);
    if (broken !== undefined) throw new WeirError('MIGRATION_JOURNAL', broken, { details: { id } });
    const known = this.known.get(id);
    if (known === undefined) throw new WeirError('MIGRATION_NOT_FOUND', `there is no migration ${id}`, { details: { id } });
    return known;
  }

  /** Takes a document as the store has it; `reports`: all of them, null: not known anew. */
  take(doc: MigrationDoc, revision: string, reports: readonly SidecarReport[] | null): Known {
    const { id } = doc.spec;
    let known = this.known.get(id);
    if (known === undefined) {
      known = newKnown(doc, revision, this.#deps.catalog);
      this.known.set(id, known);
    }
    known.doc = doc;
    known.revision = revision;
    if (this.#deps.store.shared && reports !== null) {
      known.behind = known.fleet.behind(doc, reports, this.#deps.clock.now());
      known.sidecars = reports.map(({ sidecar }) => sidecar).sort();
    }
    this.#overlayChanged();
    this.#deps.onTaken(known);
    return known;
  }

  /** The store has it no more. */
  drop(id: string): void {
    const known = this.known.get(id);
    this.known.delete(id);
    void known?.worker?.close();
    this.#overlayChanged();
  }

  /** Edits a document until nobody else did in between. */
  async change(id: string, edit: (doc: MigrationDoc) => Promise<MigrationDoc>): Promise<Known> {
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      const known = this.find(id);
      const { doc, revision } = known;
      const next = await edit(doc);
      if (next === doc) return known;
      const written = await this.ask((store, signal) => store.putDoc(next, revision, signal));
      if (written !== null) {
        const taken = this.take(next, written, null);
        const moved = next.phase !== doc.phase || next.weight !== doc.weight;
        // Until they say so again, every sidecar of a fleet but this one is behind the new step.
        const late = moved ? taken.sidecars.filter((name) => name !== this.#deps.sidecar) : taken.behind;
        taken.behind = late.filter((name) => !next.forgotten.includes(name));
        return taken;
      }
      await this.#newer(known, revision);
    }
    throw new WeirError('MIGRATION_CONFLICT', `migration ${id} is being changed by others: try again`, { details: { id } });
  }

  /** Runs when everything that was asked for before has ended. */
  inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turn.catch(() => undefined).then(run);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** One call to the store, with its deadline. */
  ask<T>(call: (store: MigrationStore, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, store } = this.#deps;
    return withDeadline(clock, STORE_MS, this.#closed.signal, (signal) => call(store, signal));
  }

  async #follow(): Promise<void> {
    const { store, clock, log } = this.#deps;
    const { signal } = this.#closed;
    while (!signal.aborted) {
      try {
        for await (const docs of store.watch(signal)) this.#takeAll(docs);
      } catch (thrown) {
        if (signal.aborted) return;
        // The last overlay stays in force: a lost store changes nothing.
        log.warn({ error: messageOf(thrown) }, 'the store of migrations is lost; what was applied last stays');
      }
      await clock.sleep(STORE_RETRY_MS, signal).catch(() => undefined);
    }
  }

  #takeAll(docs: readonly StoredDoc[]): void {
    this.#loaded = true;
    this.broken.clear();
    const seen = new Set<string>();
    for (const one of docs) {
      if (one.kind === 'broken') {
        seen.add(one.id);
        this.broken.set(one.id, one.reason);
        void this.known.get(one.id)?.worker?.close();
        this.known.delete(one.id);
        this.#deps.log.error({ migration: one.id, reason: one.reason }, 'the journal of a migration cannot be read');
        continue;
      }
      seen.add(one.doc.spec.id);
      this.take(one.doc, one.revision, one.reports);
    }
    for (const id of [...this.known.keys()]) if (!seen.has(id)) this.drop(id);
    this.#overlayChanged();
  }

  #overlayChanged(): void {
    const before = this.overlay.entries;
    const entries = [...this.known.values()].map(({ doc }) => overlayEntry(doc));
    // A broken journal must not change what is read: its last overlay stays.
    for (const entry of before) if (this.broken.has(entry.id) || !this.#loaded) entries.push(entry);
    if (!this.overlay.set(entries.sort((a, b) => (a.id < b.id ? -1 : 1)))) return;
    this.#deps.memory.save(this.overlay.entries).catch((thrown: unknown) => {
      this.#deps.log.error({ error: messageOf(thrown) }, 'the overlay of migrations could not be written to disk');
    });
    const changed = new Map([...before, ...this.overlay.entries].map((entry) => [entry.id, entry]));
    for (const entry of changed.values()) this.#touch(entry);
  }

  #touch({ id, from, to, services }: OverlayEntry): void {
    const scope = this.known.get(id)?.scope ?? new Scope(patternsOnly(id, from, to, services), this.#deps.catalog);
    for (const service of scope.services()) this.#deps.catalog.touch(service);
  }

  /** Waits until the store has told of another revision than this one. */
  async #newer(known: Known, revision: string): Promise<void> {
    for (let n = 0; n < 20 && known.revision === revision; n++) await this.#deps.clock.sleep(50, this.#closed.signal);
  }
}

function overlayEntry({ spec, phase, weight }: MigrationDoc): OverlayEntry {
  const { id, from, to, services, sticky } = spec;
  return { id, from, to, services, phase, weight, sticky: sticky?.header ?? null };
}
