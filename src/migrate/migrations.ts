// Owns all migrations of this sidecar: what the store says of them, the overlay that follows from it, one worker each, and the steps
// that people ask for. Called by api (through its port) and app.ts. Must never write to a registry itself (mirror.ts does), nor change
// a document but by compare-and-set.
import { withDeadline } from '../kernel/cancel.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ServiceId } from '../model/service.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { stepFacts } from './facts.ts';
import { behindOf, REPORT_MS } from './fleet.ts';
import { GateWatch } from './gate-watch.ts';
import { brokenStatus, type Known, type MigrationStatus, newKnown, statusOf } from './known.ts';
import { Ledger } from './ledger.ts';
import { ENDED, type LedgerPage, MIRRORING, type MigrationDoc, type MigrationSpec, type VerifySummary } from './migration.ts';
import { checkOrder, exists, invalid, newDoc, patternsOnly } from './orders.ts';
import { type Overlaid, Overlay, type OverlayEntry } from './overlay.ts';
import { type Step, take } from './phases.ts';
import { makePlan, type Plan } from './plan.ts';
import type { MigrationCatalog, MigrationSources, MigrationStore, ProbeAddress, ReadSides, StoredDoc } from './ports.ts';
import { Scope } from './scope.ts';
import { type VerifyResult, verify } from './verify.ts';
import { Worker } from './worker.ts';

/** A document that changes under our hands this often is left to others. */
const MAX_TRIES = 8;
/** One call to the store, ms. */
const STORE_MS = 5_000;
/** A store that was lost is asked again after this, ms. */
const STORE_RETRY_MS = 1_000;
/** While a migration mirrors, verify runs by itself this often at most and at least, ms. */
/** The first one after the copies are written, ms. */
const FIRST_VERIFY_MS = 5_000;
const AUTO_VERIFY_MIN_MS = 30_000;
const AUTO_VERIFY_MAX_MS = 300_000;
/** And it rests for so many times as long as it took. */
const VERIFY_REST = 20;

/** Where this sidecar keeps what it applied last, so that a lost store changes nothing. */
export interface OverlayMemory {
  load(): Promise<readonly OverlayEntry[]>;
  save(entries: readonly OverlayEntry[]): Promise<void>;
}

export interface MigrationsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly audit: (line: AuditLine) => void;
  readonly catalog: MigrationCatalog;
  readonly sources: MigrationSources;
  readonly store: MigrationStore;
  readonly memory: OverlayMemory;
  readonly probe: ProbeAddress;
  readonly sides: ReadSides;
  /** This sidecar's name in the fleet. */
  readonly sidecar: string;
}

export class Migrations {
  readonly #deps: MigrationsDeps;
  readonly #overlay = new Overlay();
  readonly #known = new Map<string, Known>();
  readonly #broken = new Map<string, string>();
  readonly #closed = new AbortController();
  readonly #wallZero: number;
  /** Of weir.yaml: stops this sidecar's writes whatever the documents say. */
  #frozenHere: boolean;
  #loaded = false;
  #tick: Timer | null = null;
  #watching: Promise<void> = Promise.resolve();
  /** Steps and documents one after the other: a step must see what the step before it did. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(deps: MigrationsDeps, frozen: boolean) {
    this.#deps = deps;
    this.#frozenHere = frozen;
    this.#wallZero = deps.clock.wallNow() - deps.clock.now();
    deps.metrics.onCollect(() => this.#collect());
  }

  /** What this sidecar applied last holds until the store is heard. Resolves when that is in force; rejects never. */
  async open(): Promise<void> {
    try {
      this.#overlay.set(await this.#deps.memory.load());
    } catch (thrown) {
      this.#deps.log.error({ error: messageOf(thrown) }, 'the last overlay of migrations cannot be read');
    }
  }

  /** Follows the store until `close`. */
  start(): void {
    this.#watching = this.#follow();
    this.#arm();
  }

  async close(): Promise<void> {
    this.#closed.abort(new WeirError('INTERNAL', 'migrations are closed'));
    this.#tick?.cancel();
    await this.#watching;
    await this.#turn.catch(() => undefined);
    await Promise.all([...this.#known.values()].map(({ worker }) => worker?.close()));
    await this.#deps.store.close();
  }

  // The read side (MergeOverlay of the catalog).

  overlayOf(service: ServiceId): Overlaid | null {
    return this.#overlay.of(service);
  }

  copyOrigin(service: ServiceId, source: string, host: string, port: number): string | null {
    // Elsewhere the markers tell: a record without one is native, whatever the ledger has at its address (rule 5).
    if (this.#deps.sources.adapter(source)?.capabilities.keeps.has('metadata') !== false) return null;
    for (const { worker } of this.#known.values()) {
      const origin = worker?.copyOrigin(service, source, host, port) ?? null;
      if (origin !== null) return origin;
    }
    return null;
  }

  // Reading.

  list(): readonly MigrationStatus[] {
    const sound = [...this.#known.values()].map((known) => this.#statusOf(known));
    const broken = [...this.#broken].map(([id, reason]) => this.#brokenStatus(id, reason));
    return [...sound, ...broken].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Throws WeirError MIGRATION_NOT_FOUND. */
  status(id: string): MigrationStatus {
    const reason = this.#broken.get(id);
    return reason === undefined ? this.#statusOf(this.#find(id)) : this.#brokenStatus(id, reason);
  }

  /** What a start would write. Throws WeirError MIGRATION_NOT_FOUND, MIGRATION_JOURNAL. */
  async plan(id: string): Promise<Plan> {
    return this.#planOf(this.#find(id));
  }

  /** The newest verify of this sidecar, whole; null: none has run here. */
  lastVerify(id: string): VerifyResult | null {
    return this.#find(id).lastVerify;
  }

  // Steps. Each answers the state after it, and throws WeirError with everything that is missing.

  /** Takes an order: a plan, nothing is written to a registry. Throws MIGRATION_CONFLICT, SOURCE_NOT_FOUND, MIGRATION_INVALID. */
  create(spec: MigrationSpec): Promise<MigrationStatus> {
    return this.#inTurn(async () => {
      this.#checkOrder(spec);
      const { clock } = this.#deps;
      const now = clock.wallNow();
      const frozen = [...this.#known.values()].some((known) => known.doc.frozen && !ENDED.has(known.doc.phase));
      const doc = newDoc(spec, now, frozen);
      const plan = await this.#planFor(doc, new Scope(spec, this.#deps.catalog), null);
      if (plan.errors.length > 0) throw invalid(plan.errors);
      const revision = await this.#ask((store, signal) => store.putDoc(doc, null, signal));
      if (revision === null) throw exists(spec.id);
      this.#audit(spec.id, 'migration-create', 'ok');
      return this.#statusOf(this.#take(doc, revision, []));
    });
  }

  step(id: string, step: Step): Promise<MigrationStatus> {
    return this.#inTurn(async () => {
      const what = `migration-${step.kind}`;
      try {
        const known = await this.#change(id, async (doc) => {
          const result = take(step, doc, await this.#facts(this.#find(id), step));
          if (result.ok) return result.doc;
          const [first = 'it is not allowed now'] = result.missing;
          const more = result.missing.length > 1 ? ` (and ${result.missing.length - 1} more)` : '';
          throw new WeirError(result.code, `${step.kind}: ${first}${more}`, { details: { id, missing: result.missing } });
        });
        this.#audit(id, what, 'ok');
        return this.#statusOf(known);
      } catch (thrown) {
        this.#audit(id, what, messageOf(thrown));
        throw thrown;
      }
    });
  }

  /** Reads both sides afresh and compares. Throws MIGRATION_NOT_FOUND. */
  verify(id: string): Promise<VerifyResult> {
    const known = this.#find(id);
    known.verifying ??= this.#verify(known).finally(() => {
      known.verifying = null;
    });
    return known.verifying;
  }

  /** Declares a sidecar gone: steps wait for it no more. */
  forget(id: string, sidecar: string): Promise<MigrationStatus> {
    return this.#inTurn(async () => {
      const known = await this.#change(id, async (doc) =>
        doc.forgotten.includes(sidecar) ? doc : { ...doc, forgotten: [...doc.forgotten, sidecar] },
      );
      this.#audit(id, 'migration-forget', sidecar);
      return this.#statusOf(known);
    });
  }

  /** Stop switch of every migration that has not ended. */
  freeze(frozen: boolean): Promise<readonly MigrationStatus[]> {
    return this.#inTurn(async () => {
      for (const id of [...this.#known.keys()]) {
        await this.#change(id, async (doc) => (ENDED.has(doc.phase) ? doc : { ...doc, frozen }));
        this.#audit(id, frozen ? 'migration-freeze' : 'migration-thaw', 'ok');
      }
      return this.list();
    });
  }

  /** Of weir.yaml (`migrations.frozen`). */
  freezeHere(frozen: boolean): void {
    this.#frozenHere = frozen;
    for (const { worker } of this.#known.values()) worker?.wake();
  }

  /** Takes away what an ended migration left (kept copies, orphans), then forgets it. Throws MIGRATION_PHASE while it runs. */
  async collect(id: string): Promise<MigrationStatus> {
    const known = this.#find(id);
    if (!ENDED.has(known.doc.phase)) {
      throw new WeirError('MIGRATION_PHASE', `collect: the migration is in ${known.doc.phase}, it must have ended`, {
        details: { id },
      });
    }
    const worker = known.worker ?? this.#newWorker(known);
    known.worker = worker;
    // Not in turn: a registry that is away must not keep other steps waiting.
    const left = await worker.collect();
    this.#audit(id, 'migration-collect', left === 0 ? 'ok' : `${left} copies are left`);
    if (left > 0)
      throw new WeirError('MIGRATION_PHASE', `collect: ${left} copies could not be removed yet`, { details: { id, left } });
    return this.#inTurn(async () => {
      const status = this.#statusOf(known);
      await this.#ask((store, signal) => store.dropDoc(id, known.revision, signal));
      this.#drop(id);
      return status;
    });
  }

  // Following the store.

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
    this.#broken.clear();
    const seen = new Set<string>();
    for (const one of docs) {
      if (one.kind === 'broken') {
        seen.add(one.id);
        this.#broken.set(one.id, one.reason);
        void this.#known.get(one.id)?.worker?.close();
        this.#known.delete(one.id);
        this.#deps.log.error({ migration: one.id, reason: one.reason }, 'the journal of a migration cannot be read');
        continue;
      }
      seen.add(one.doc.spec.id);
      this.#take(one.doc, one.revision, one.reports);
    }
    for (const id of [...this.#known.keys()]) if (!seen.has(id)) this.#drop(id);
    this.#overlayChanged();
  }

  #take(doc: MigrationDoc, revision: string, reports: Extract<StoredDoc, { kind: 'doc' }>['reports']): Known {
    const { id } = doc.spec;
    const now = this.#deps.clock.wallNow();
    let known = this.#known.get(id);
    if (known === undefined) {
      known = newKnown(doc, revision, this.#deps.catalog);
      this.#known.set(id, known);
    }
    known.doc = doc;
    known.revision = revision;
    if (this.#deps.store.shared) {
      known.behind = behindOf(doc, reports, now);
      known.sidecars = reports.map(({ sidecar }) => sidecar).sort();
    }
    this.#overlayChanged();
    this.#follows(known);
    return known;
  }

  /** Brings worker, gate and report in line with the document. */
  #follows(known: Known): void {
    const { doc } = known;
    const writes =
      MIRRORING.has(doc.phase) || doc.phase === 'aborting' || (doc.phase === 'finished' && known.worker?.over !== true);
    if (writes && known.worker === null && !this.#closed.signal.aborted) {
      known.worker = this.#newWorker(known);
      known.worker.start();
    }
    known.worker?.wake();
    if (doc.phase === 'shift') {
      known.gate ??= new GateWatch({ clock: this.#deps.clock, sides: this.#deps.sides });
    } else known.gate = null;
    this.#report(known);
  }

  #newWorker(known: Known): Worker {
    return new Worker({
      ...this.#deps,
      id: known.doc.spec.id,
      scope: known.scope,
      doc: () => known.doc,
      behind: () => known.behind,
      frozen: () => this.#frozenHere || known.doc.frozen,
      /** Ends a phase that the worker carries out: aborting → aborted. */
      change: (edit) => this.#inTurn(() => this.#change(known.doc.spec.id, async (doc) => edit(doc))).then((after) => after.doc),
    });
  }

  #drop(id: string): void {
    const known = this.#known.get(id);
    this.#known.delete(id);
    void known?.worker?.close();
    this.#overlayChanged();
  }

  #overlayChanged(): void {
    const before = this.#overlay.entries;
    const entries = [...this.#known.values()].map(({ doc }) => overlayEntry(doc));
    // A broken journal must not change what is read: its last overlay stays.
    for (const entry of before) if (this.#broken.has(entry.id) || !this.#loaded) entries.push(entry);
    if (!this.#overlay.set(entries.sort((a, b) => (a.id < b.id ? -1 : 1)))) return;
    this.#deps.memory.save(this.#overlay.entries).catch((thrown: unknown) => {
      this.#deps.log.error({ error: messageOf(thrown) }, 'the overlay of migrations could not be written to disk');
    });
    const changed = new Map([...before, ...this.#overlay.entries].map((entry) => [entry.id, entry]));
    for (const entry of changed.values()) this.#touch(entry);
  }

  #touch({ id, from, to, services }: OverlayEntry): void {
    const scope = this.#known.get(id)?.scope ?? new Scope(patternsOnly(id, from, to, services), this.#deps.catalog);
    for (const service of scope.services()) this.#deps.catalog.touch(service);
  }

  #report(known: Known): void {
    const { store, clock, sidecar, log } = this.#deps;
    if (!store.shared || known.doc.phase === 'plan') return;
    const { phase, weight, spec } = known.doc;
    const state = `${phase} ${weight}`;
    if (state === known.reported && clock.now() - known.reportedAt < REPORT_MS) return;
    known.reported = state;
    known.reportedAt = clock.now();
    const report = { sidecar, phase, weight, at: clock.wallNow() };
    this.#ask((to, signal) => to.report(spec.id, report, signal)).catch((thrown: unknown) => {
      known.reported = '';
      log.info({ migration: spec.id, error: messageOf(thrown) }, 'the report of this sidecar could not be written');
    });
  }

  // Time.

  #arm(): void {
    this.#tick = this.#deps.clock.setTimer(1_000, () => {
      this.#onTick();
      if (!this.#closed.signal.aborted) this.#arm();
    });
  }

  #onTick(): void {
    for (const known of this.#known.values()) {
      if (!ENDED.has(known.doc.phase)) this.#report(known);
      known.worker?.tick();
      this.#autoVerify(known);
      this.#watchGate(known);
    }
  }

  /** The owner verifies by itself, so that the soak time needs nobody's hand and a cutover is judged by no old word. */
  #autoVerify(known: Known): void {
    const { doc, worker } = known;
    if (!MIRRORING.has(doc.phase) || worker?.owns !== true || worker.settled !== true) return;
    const now = this.#deps.clock.now();
    // Registries show what was written a second or two later.
    if (known.nextVerifyAt === 0) known.nextVerifyAt = now + FIRST_VERIFY_MS;
    if (now < known.nextVerifyAt) return;
    known.nextVerifyAt = now + Math.min(AUTO_VERIFY_MAX_MS, Math.max(AUTO_VERIFY_MIN_MS, doc.spec.gates.soak / 3));
    const rest = (): void => {
      known.nextVerifyAt = Math.max(known.nextVerifyAt, this.#deps.clock.now() + VERIFY_REST * (this.#deps.clock.now() - now));
    };
    this.verify(doc.spec.id).then(rest, (thrown: unknown) => {
      rest();
      this.#deps.log.info({ migration: doc.spec.id, error: messageOf(thrown) }, 'a verify failed');
    });
  }

  #watchGate(known: Known): void {
    const { doc, gate, scope } = known;
    const reason = gate?.look(doc.spec, (service) => scope.has(service)) ?? null;
    if (reason === null || doc.phase !== 'shift' || doc.stopped !== null) return;
    const { id, gates } = doc.spec;
    const at = this.#deps.clock.wallNow();
    this.#deps.events.emit('migration_stopped', { migration: id, reason, onBreach: gates.onBreach });
    void this.#inTurn(() =>
      this.#change(id, async (now): Promise<MigrationDoc> => {
        if (now.phase !== 'shift' || now.stopped !== null) return now;
        const stopped = { at, reason };
        return gates.onBreach === 'stop' ? { ...now, stopped } : { ...now, phase: 'mirror', weight: 0, since: at, stopped };
      }),
    ).then(
      () => this.#audit(id, gates.onBreach === 'stop' ? 'migration-stop' : 'migration-auto-rollback', reason),
      (thrown: unknown) => this.#deps.log.error({ migration: id, error: messageOf(thrown) }, 'a gate could not stop the shift'),
    );
  }

  // Parts of steps.

  async #verify(known: Known): Promise<VerifyResult> {
    const { clock, sources, probe } = this.#deps;
    const { id } = known.doc.spec;
    const result = await verify(
      {
        clock,
        sources,
        probe,
        scope: known.scope,
        spec: known.doc.spec,
        ledger: await this.#ledgerOf(known),
        startedAt: known.doc.startedAt,
      },
      this.#closed.signal,
    );
    known.lastVerify = result;
    const { summary } = result;
    const now = this.#steadyNow();
    await this.#inTurn(() =>
      this.#change(id, async (doc) => ({ ...doc, lastVerify: summary, okSince: okSince(doc, summary, now) })),
    );
    return result;
  }

  /** Wall time that does not jump while this process lives: the soak is a duration. */
  #steadyNow(): number {
    return this.#wallZero + this.#deps.clock.now();
  }

  async #facts(known: Known, step: Step) {
    const plan = step.kind === 'start' ? await this.#planOf(known) : null;
    const { catalog } = this.#deps;
    const needsSides = step.kind === 'finish' || step.kind === 'abort';
    const ledger = needsSides ? await this.#ledgerOf(known) : null;
    return stepFacts({
      doc: known.doc,
      now: this.#steadyNow(),
      behind: known.behind,
      planErrors: plan?.errors ?? [],
      ledger,
      catalog,
      scope: known.scope,
    });
  }

  async #planOf(known: Known): Promise<Plan> {
    return this.#planFor(known.doc, known.scope, known.doc.startedAt === null ? null : await this.#ledgerOf(known));
  }

  #planFor(doc: MigrationDoc, scope: Scope, ledger: Ledger | null): Promise<Plan> {
    const { catalog, sources } = this.#deps;
    return makePlan({ spec: doc.spec, scope, catalog, sources, shared: this.#deps.store.shared, ledger }, this.#closed.signal);
  }

  /** The worker's own, else a copy as the store has it. */
  async #ledgerOf(known: Known): Promise<Ledger> {
    const own = known.worker?.ledger ?? null;
    if (own !== null) return own;
    const pages: ReadonlyMap<ServiceId, LedgerPage> =
      known.doc.startedAt === null ? new Map() : await this.#ask((store, signal) => store.ledger(known.doc.spec.id, signal));
    return new Ledger(pages);
  }

  /** Edits a document until nobody else did in between. */
  async #change(id: string, edit: (doc: MigrationDoc) => Promise<MigrationDoc>): Promise<Known> {
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      const known = this.#find(id);
      const { doc, revision } = known;
      const next = await edit(doc);
      if (next === doc) return known;
      const written = await this.#ask((store, signal) => store.putDoc(next, revision, signal));
      if (written !== null) {
        const reports = [...known.sidecars];
        const taken = this.#take(next, written, []);
        // Until they say so again, every sidecar of a fleet but this one is behind the new step.
        if (this.#deps.store.shared) {
          taken.sidecars = reports;
          const same = next.phase === doc.phase && next.weight === doc.weight;
          taken.behind = same
            ? known.behind
            : reports.filter((name) => name !== this.#deps.sidecar && !next.forgotten.includes(name));
        }
        return taken;
      }
      await this.#newer(known, revision);
    }
    throw new WeirError('MIGRATION_CONFLICT', `migration ${id} is being changed by others: try again`, { details: { id } });
  }

  /** Waits until the store has told of another revision than this one. */
  async #newer(known: Known, revision: string): Promise<void> {
    for (let n = 0; n < 20 && known.revision === revision; n++) await this.#deps.clock.sleep(50, this.#closed.signal);
  }

  #checkOrder(spec: MigrationSpec): void {
    const docs = [...this.#known.values()].map(({ doc }) => doc);
    checkOrder(spec, { sources: this.#deps.sources.ids, docs, broken: this.#broken });
  }

  #statusOf(known: Known): MigrationStatus {
    return statusOf(known, this.#deps.store.shared);
  }

  #brokenStatus(id: string, broken: string): MigrationStatus {
    const { from = '', to = '' } = this.#overlay.entries.find((entry) => entry.id === id) ?? {};
    return brokenStatus(id, { from, to }, broken, this.#deps.store.shared);
  }

  #find(id: string): Known {
    const broken = this.#broken.get(id);
    if (broken !== undefined) throw new WeirError('MIGRATION_JOURNAL', broken, { details: { id } });
    const known = this.#known.get(id);
    if (known === undefined) throw new WeirError('MIGRATION_NOT_FOUND', `there is no migration ${id}`, { details: { id } });
    return known;
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turn.catch(() => undefined).then(run);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  #ask<T>(call: (store: MigrationStore, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, store } = this.#deps;
    return withDeadline(clock, STORE_MS, this.#closed.signal, (signal) => call(store, signal));
  }

  #audit(migration: string, what: string, result: string): void {
    this.#deps.audit({ what, migration, result });
  }

  #collect(): void {
    const { metrics } = this.#deps;
    for (const { doc, worker } of this.#known.values()) {
      const { id } = doc.spec;
      metrics.gauge('weir_migration_weight', id).set(doc.phase === 'cutover' || doc.phase === 'finished' ? 100 : doc.weight);
      const status = worker?.status();
      metrics.gauge('weir_migration_queue', id).set(status?.queued ?? 0);
      for (const [source, copies] of Object.entries(status?.copies ?? {})) {
        for (const [state, count] of Object.entries(copies)) metrics.gauge('weir_migration_copies', id, source, state).set(count);
      }
      metrics.gauge('weir_migration_lag_ms', id).set(status?.lagMs ?? 0);
    }
  }
}

function overlayEntry({ spec, phase, weight }: MigrationDoc): OverlayEntry {
  const { id, from, to, services, sticky } = spec;
  return { id, from, to, services, phase, weight, sticky: sticky?.header ?? null };
}

/** Since when every verify has been ok; never later than now, whatever an earlier life's clock said. */
function okSince(doc: MigrationDoc, { outcome }: VerifySummary, now: number): number | null {
  return outcome === 'ok' ? Math.min(doc.okSince ?? now, now) : null;
}
