// Owns all migrations of this sidecar: the steps that people ask for, what is shown of each, one worker each. What the store says of them is
// with documents.ts, what time brings with upkeep.ts. Called by api (through its port) and app.ts.
// Longer than usual: every step, and what is asked and told around it, stands together.
// Must never write to a registry itself (mirror.ts does), nor change
// a document but by compare-and-set.
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { ServiceId } from '../model/service.ts';
import { Documents } from './documents.ts';
import { stepFacts } from './facts.ts';
import { GateWatch } from './gate-watch.ts';
import { brokenStatus, type Known, type MigrationStatus, statusOf } from './known.ts';
import { Ledger } from './ledger.ts';
import { ENDED, type LedgerPage, MIRRORING, type MigrationDoc, type MigrationSpec, type VerifySummary } from './migration.ts';
import { checkOrder, exists, invalid, newDoc } from './orders.ts';
import type { Overlaid } from './overlay.ts';
import { type Step, take } from './phases.ts';
import { makePlan, type Plan } from './plan.ts';
import type { EngineDeps, OverlayMemory, ProbeAddress, ReadSides } from './ports.ts';
import { Scope } from './scope.ts';
import { Upkeep } from './upkeep.ts';
import { type VerifyResult, verify } from './verify.ts';
import { Worker } from './worker.ts';

export interface MigrationsDeps extends EngineDeps {
  readonly memory: OverlayMemory;
  readonly probe: ProbeAddress;
  readonly sides: ReadSides;
}

export class Migrations {
  readonly #deps: MigrationsDeps;
  readonly #docs: Documents;
  readonly #upkeep: Upkeep;
  readonly #wallZero: number;
  /** Of weir.yaml: stops this sidecar's writes whatever the documents say. */
  #frozenHere: boolean;

  constructor(deps: MigrationsDeps, frozen: boolean) {
    this.#deps = deps;
    this.#frozenHere = frozen;
    this.#wallZero = deps.clock.wallNow() - deps.clock.now();
    this.#docs = new Documents({ ...deps, onTaken: (known) => this.#follows(known) });
    this.#upkeep = new Upkeep({ ...deps, docs: this.#docs, verify: (id) => this.verify(id) });
    deps.metrics.onCollect(() => this.#collect());
  }

  /** What this sidecar applied last holds until the store is heard. Resolves when that is in force; rejects never. */
  open(): Promise<void> {
    return this.#docs.open();
  }

  /** Follows the store until `close`. */
  start(): void {
    this.#docs.start();
    this.#upkeep.start();
  }

  async close(): Promise<void> {
    this.#upkeep.close();
    await this.#docs.close();
    await Promise.all([...this.#docs.known.values()].map(({ worker }) => worker?.close()));
    await this.#deps.store.close();
  }

  // The read side (MergeOverlay of the catalog).

  overlayOf(service: ServiceId): Overlaid | null {
    return this.#docs.overlay.of(service);
  }

  copyOrigin(service: ServiceId, source: string, host: string, port: number, nativeId: string): string | null {
    // Elsewhere the markers tell: a record without one is native, whatever the ledger has at its address (rule 5).
    if (this.#deps.sources.adapter(source)?.capabilities.keeps.has('metadata') !== false) return null;
    for (const { worker } of this.#docs.known.values()) {
      const origin = worker?.copyOrigin(service, source, host, port, nativeId) ?? null;
      if (origin !== null) return origin;
    }
    return null;
  }

  // Reading.

  list(): readonly MigrationStatus[] {
    const sound = [...this.#docs.known.values()].map((known) => this.#statusOf(known));
    const broken = [...this.#docs.broken].map(([id, reason]) => this.#brokenStatus(id, reason));
    return [...sound, ...broken].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Throws WeirError MIGRATION_NOT_FOUND. */
  status(id: string): MigrationStatus {
    const reason = this.#docs.broken.get(id);
    return reason === undefined ? this.#statusOf(this.#docs.find(id)) : this.#brokenStatus(id, reason);
  }

  /** What a start would write. Throws WeirError MIGRATION_NOT_FOUND, MIGRATION_JOURNAL. */
  async plan(id: string): Promise<Plan> {
    return this.#planOf(this.#docs.find(id));
  }

  /** The newest verify of this sidecar, whole; null: none has run here. */
  lastVerify(id: string): VerifyResult | null {
    return this.#docs.find(id).lastVerify;
  }

  // Steps. Each answers the state after it, and throws WeirError with everything that is missing.

  /** Takes an order: a plan, nothing is written to a registry. Throws MIGRATION_CONFLICT, SOURCE_NOT_FOUND, MIGRATION_INVALID. */
  create(spec: MigrationSpec): Promise<MigrationStatus> {
    return this.#docs.inTurn(async () => {
      this.#checkOrder(spec);
      const { clock } = this.#deps;
      const now = clock.wallNow();
      const frozen = [...this.#docs.known.values()].some((known) => known.doc.frozen && !ENDED.has(known.doc.phase));
      const doc = newDoc(spec, now, frozen);
      const plan = await this.#planFor(doc, new Scope(spec, this.#deps.catalog), null);
      if (plan.errors.length > 0) throw invalid(plan.errors);
      const revision = await this.#docs.ask((store, signal) => store.putDoc(doc, null, signal));
      if (revision === null) throw exists(spec.id);
      this.#audit(spec.id, 'migration-create', 'ok');
      return this.#statusOf(this.#docs.take(doc, revision, []));
    });
  }

  step(id: string, step: Step): Promise<MigrationStatus> {
    return this.#docs.inTurn(async () => {
      const what = `migration-${step.kind}`;
      try {
        const known = await this.#docs.change(id, async (doc) => {
          const result = take(step, doc, await this.#facts(this.#docs.find(id), step));
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
    const known = this.#docs.find(id);
    known.verifying ??= this.#verify(known).finally(() => {
      known.verifying = null;
    });
    return known.verifying;
  }

  /** Declares a sidecar gone: steps wait for it no more. */
  forget(id: string, sidecar: string): Promise<MigrationStatus> {
    return this.#docs.inTurn(async () => {
      const known = await this.#docs.change(id, async (doc) =>
        doc.forgotten.includes(sidecar) ? doc : { ...doc, forgotten: [...doc.forgotten, sidecar] },
      );
      this.#audit(id, 'migration-forget', sidecar);
      return this.#statusOf(known);
    });
  }

  /** Stop switch of every migration that has not ended. */
  freeze(frozen: boolean): Promise<readonly MigrationStatus[]> {
    return this.#docs.inTurn(async () => {
      for (const id of [...this.#docs.known.keys()]) {
        await this.#docs.change(id, async (doc) => (ENDED.has(doc.phase) ? doc : { ...doc, frozen }));
        this.#audit(id, frozen ? 'migration-freeze' : 'migration-thaw', 'ok');
      }
      return this.list();
    });
  }

  get frozenHere(): boolean {
    return this.#frozenHere;
  }

  /** Of weir.yaml (`migrations.frozen`). */
  freezeHere(frozen: boolean): void {
    this.#frozenHere = frozen;
    for (const { worker } of this.#docs.known.values()) worker?.wake();
  }

  /** Takes away what an ended migration left (kept copies, orphans), then forgets it. Throws MIGRATION_PHASE while it runs. */
  async collect(id: string): Promise<MigrationStatus> {
    const known = this.#docs.find(id);
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
    return this.#docs.inTurn(async () => {
      const status = this.#statusOf(known);
      await this.#docs.ask((store, signal) => store.dropDoc(id, known.revision, signal));
      this.#docs.drop(id);
      return status;
    });
  }

  /** Brings worker, gate and report in line with the document. */
  #follows(known: Known): void {
    const { doc } = known;
    const writes =
      MIRRORING.has(doc.phase) || doc.phase === 'aborting' || (doc.phase === 'finished' && known.worker?.over !== true);
    if (writes && known.worker === null && !this.#docs.closed.aborted) {
      known.worker = this.#newWorker(known);
      known.worker.start();
    }
    known.worker?.wake();
    if (doc.phase === 'shift') {
      known.gate ??= new GateWatch({ clock: this.#deps.clock, sides: this.#deps.sides });
    } else known.gate = null;
    this.#upkeep.report(known);
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
      change: (edit) =>
        this.#docs.inTurn(() => this.#docs.change(known.doc.spec.id, async (doc) => edit(doc))).then((after) => after.doc),
    });
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
      this.#docs.closed,
    );
    known.lastVerify = result;
    const { summary } = result;
    const now = this.#steadyNow();
    await this.#docs.inTurn(() =>
      this.#docs.change(id, async (doc) => ({ ...doc, lastVerify: summary, okSince: okSince(doc, summary, now) })),
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
    const facts = stepFacts({
      doc: known.doc,
      now: this.#steadyNow(),
      behind: known.behind,
      planErrors: plan?.errors ?? [],
      ledger,
      catalog,
      scope: known.scope,
    });
    const { to, liveness } = known.doc.spec;
    // A service there is either of records that somebody keeps alive or of such that nobody does (Nacos).
    const keepsNone = liveness !== 'persistent' && this.#deps.sources.adapter(to)?.capabilities.heartbeat === 'server';
    return { ...facts, keepsNone };
  }

  async #planOf(known: Known): Promise<Plan> {
    return this.#planFor(known.doc, known.scope, known.doc.startedAt === null ? null : await this.#ledgerOf(known));
  }

  #planFor(doc: MigrationDoc, scope: Scope, ledger: Ledger | null): Promise<Plan> {
    const { catalog, sources, clock, store } = this.#deps;
    return makePlan({ clock, spec: doc.spec, scope, catalog, sources, shared: store.shared, ledger }, this.#docs.closed);
  }

  /** The worker's own, else a copy as the store has it. */
  async #ledgerOf(known: Known): Promise<Ledger> {
    const own = known.worker?.ledger ?? null;
    if (own !== null) return own;
    const pages: ReadonlyMap<ServiceId, LedgerPage> =
      known.doc.startedAt === null ? new Map() : await this.#docs.ask((store, signal) => store.ledger(known.doc.spec.id, signal));
    return new Ledger(pages);
  }

  #checkOrder(spec: MigrationSpec): void {
    const docs = [...this.#docs.known.values()].map(({ doc }) => doc);
    checkOrder(spec, { sources: this.#deps.sources.ids, docs, broken: this.#docs.broken });
  }

  #statusOf(known: Known): MigrationStatus {
    return statusOf(known, this.#deps.store.shared);
  }

  #brokenStatus(id: string, broken: string): MigrationStatus {
    const { from = '', to = '' } = this.#docs.overlay.entries.find((entry) => entry.id === id) ?? {};
    return brokenStatus(id, { from, to }, broken, this.#deps.store.shared);
  }

  #audit(migration: string, what: string, result: string): void {
    this.#deps.audit({ what, migration, result });
  }

  #collect(): void {
    const { metrics } = this.#deps;
    for (const { doc, worker } of this.#docs.known.values()) {
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

/** Since when every verify has been ok; never later than now, whatever an earlier life's clock said. */
function okSince(doc: MigrationDoc, { outcome }: VerifySummary, now: number): number | null {
  return outcome === 'ok' ? Math.min(doc.okSince ?? now, now) : null;
}
