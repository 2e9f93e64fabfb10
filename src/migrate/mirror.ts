// Owns the write side of ONE migration (migration.md "Rules of the mirror"): which services are looked at and when, how it ends, and what
// is told of it. Called by worker.ts on the sidecar that owns the migration. side.ts does the work of each direction; this file binds
// both to one ledger, one store and one right to write. Must never scan all services for one change, nor set a timer per instance.
import { messageOf } from '../kernel/errors.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import { Agenda } from './agenda.ts';
import type { CopyCounts, Ledger } from './ledger.ts';
import type { MigrationSpec } from './migration.ts';
import type { MigrationStore, Ownership } from './ports.ts';
import { Removals } from './removals.ts';
import { Saver } from './saver.ts';
import { Side, type SideDeps } from './side.ts';

/** A store that did not take the end of an ending is asked again after this, ms. */
const SAVE_AGAIN_MS = 1_000;

export interface MirrorDeps extends SideDeps {
  readonly store: Pick<MigrationStore, 'savePages'>;
}

export interface MirrorTask {
  readonly spec: MigrationSpec;
  readonly epoch: number;
  /** Of the store; from now on the mirror alone changes it. */
  readonly ledger: Ledger;
  readonly ownership: Ownership;
  /** In scope, as both sources know them now. */
  services(): Iterable<ServiceId>;
  inScope(service: ServiceId): boolean;
  /** The service in the words of a source; null: it has no name there (W8). */
  mapKey(source: string, service: ServiceId): ServiceKey | null;
  frozen(): boolean;
  /** Both sides were read whole once: what is native in `to` and new from now on appeared after the start. */
  baselined(): boolean;
}

export interface MirrorStatus {
  readonly services: number;
  /** By source. */
  readonly copies: ReadonlyMap<string, CopyCounts>;
  /** Writes and reads that wait. */
  readonly queued: number;
  /** Age of the oldest change that is not carried out yet, ms. */
  readonly lagMs: number;
  /** By source. */
  readonly lastError: ReadonlyMap<string, string>;
  /** What is waited for, with the number of services (0: all). */
  readonly waiting: ReadonlyMap<string, number>;
  readonly lost: boolean;
}

export class Mirror {
  readonly #deps: MirrorDeps;
  readonly #task: MirrorTask;
  readonly #saver: Saver;
  readonly #forth: Side;
  readonly #back: Side;
  readonly #agenda: Agenda;
  /** When both sides had given a complete answer on a service first, monotonic ms; null: not yet. */
  readonly #bothAt = new Map<ServiceId, number | null>();
  readonly #waits = new Map<ServiceId, string>();
  readonly #waiters = new Set<{ done(): boolean; resolve(): void; reject(reason: unknown): void }>();
  readonly #lost = new AbortController();
  readonly #onLost = (): void => this.#lose(this.#task.ownership.lost.reason);
  #unsubscribe: (() => void) | null = null;
  #storeError: SourceError | null = null;
  #closed = false;

  constructor(deps: MirrorDeps, task: MirrorTask) {
    this.#deps = deps;
    this.#task = task;
    const { clock, random, store, catalog } = deps;
    const { ledger, spec, ownership } = task;
    this.#saver = new Saver({
      clock,
      random,
      page: (service) => ledger.page(service),
      save: (pages) => store.savePages(spec.id, pages, this.#lost.signal),
      onResult: (error) => {
        this.#storeError = error;
        if (error?.causeKind === 'fenced') this.#lose(error);
      },
    });
    const host = {
      saver: this.#saver,
      removals: new Removals(spec.limits.deletePercentPerMinute),
      may: () => this.#may(),
      poke: (service: ServiceId) => this.poke(service),
      lose: (reason: unknown) => this.#lose(reason),
    };
    this.#forth = new Side(deps, task, false, host);
    this.#back = new Side(deps, task, true, host);
    this.#agenda = new Agenda({
      clock,
      look: (service) => this.#lookSafely(service),
      turned: () => this.#check(),
      all: () => {
        host.removals.sweep(clock.now());
        return this.#all();
      },
      sweep: (service) => {
        catalog.use(service);
        this.poke(service);
      },
    });
    if (ownership.lost.aborted) this.#onLost();
    else ownership.lost.addEventListener('abort', this.#onLost, { once: true });
  }

  /** Aborts when the right to write is lost: by the owner's lock, or because a target or the store refused us as a stale owner. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  start(): void {
    if (this.#closed) return;
    this.#unsubscribe = this.#deps.catalog.subscribe((service) => this.poke(service));
    for (const service of this.#all()) {
      this.#deps.catalog.use(service);
      this.poke(service);
    }
    for (const { beats } of [this.#forth, this.#back]) beats.start();
    this.#agenda.start();
  }

  /** Look at this service soon. */
  poke(service: ServiceId): void {
    if (this.#closed) return;
    if (this.#task.inScope(service) || this.#task.ledger.page(service) !== undefined) this.#agenda.add(service);
    else this.#check();
  }

  /**
   * Takes every copy of the ledger away (abort, collect): not slowed by the rate, retried until none is left, the targets show none, and the
   * store knows it.
   * Rejects with SourceError when the right to write is lost, or at `close`.
   */
  async drain(): Promise<void> {
    this.#forth.mode = 'drain';
    this.#back.mode = 'drain';
    await this.#end(() => this.#task.ledger.size === 0 && this.#forth.unconfirmed + this.#back.unconfirmed === 0);
  }

  /**
   * Ends the mirror: return copies are taken from `from`; the copies in `to` become ordinary records where `keepCopies`, else they stay as
   * they are. Rejects as {@link drain} does.
   */
  async finish(keepCopies: boolean): Promise<void> {
    this.#forth.mode = keepCopies ? 'keep' : 'off';
    this.#back.mode = 'drain';
    await this.#end(() => {
      const counts = this.#task.ledger.counts();
      const { intent, written, withheld, removing } = counts.get(this.#forth.target) ?? NO_COPIES;
      const returned = !counts.has(this.#back.target) && this.#back.unconfirmed === 0;
      return returned && (!keepCopies || intent + written + withheld + removing === 0);
    });
  }

  /** {@link finish} that keeps the copies. */
  keep(): Promise<void> {
    return this.finish(true);
  }

  /** Every service in scope was read whole on both sides once, so that its baseline is known. */
  get wholeOnce(): boolean {
    let any = false;
    for (const service of this.#task.services()) {
      any = true;
      if ((this.#bothAt.get(service) ?? null) === null) return false;
      if ((this.#task.ledger.page(service)?.baseline ?? null) === null) return false;
    }
    return any;
  }

  status(): MirrorStatus {
    const now = this.#deps.clock.now();
    const sides = [this.#forth, this.#back];
    const lastError = new Map<string, string>();
    const waiting = new Map<string, number>();
    let since = this.#agenda.oldest() ?? now;
    for (const { target, writer, beats } of sides) {
      const error = writer.lastError ?? beats.lastError;
      if (error !== null) lastError.set(target, `${error.causeKind}: ${error.message}`);
      if (writer.waiting !== null && writer.queued > 0) waiting.set(writer.waiting, 0);
      since = Math.min(since, writer.oldest() ?? now);
    }
    if (this.#storeError !== null) waiting.set(`the store: ${this.#storeError.message}`, 0);
    for (const what of this.#waits.values()) waiting.set(what, (waiting.get(what) ?? 0) + 1);
    return {
      services: this.#bothAt.size,
      copies: this.#task.ledger.counts(),
      queued: sides.reduce((sum, { writer }) => sum + writer.queued, 0),
      lagMs: now - since,
      lastError,
      waiting,
      lost: this.#lost.signal.aborted,
    };
  }

  /** Stops; copies stay and live as long as their leases do. */
  async close(): Promise<void> {
    this.#stop();
    this.#giveUp(new SourceError('lost', 'the mirror is closed'));
    await Promise.all([this.#forth.close(), this.#back.close()]);
    if (!this.#lost.signal.aborted) await this.#saver.close();
  }

  // --- one service ---

  #lookSafely(service: ServiceId): void {
    try {
      this.#look(service);
    } catch (thrown) {
      // A bug of ours must cost this service only, and only until the next sweep.
      this.#deps.log.error({ service, error: messageOf(thrown) }, 'mirroring a service failed');
    }
  }

  #look(service: ServiceId): void {
    const { ledger, spec } = this.#task;
    const [from, to] = [this.#back.account(service), this.#forth.account(service)];
    let bothAt = this.#bothAt.get(service) ?? null;
    if (from?.live === true && to?.live === true) bothAt ??= this.#deps.clock.now();
    this.#bothAt.set(service, bothAt);
    if (to?.live === true && this.#forth.mode === 'mirror' && (ledger.page(service)?.baseline ?? null) === null) {
      // Of a service that came after the first whole read nothing was there before.
      ledger.setBaseline(service, this.#task.baselined() ? [] : this.#forth.nativesIn(to, service));
      this.#saver.mark(service);
      this.#saver.soon();
    }
    const graceEndsAt = bothAt === null ? null : bothAt + spec.limits.grace;
    const decisions = [this.#forth.look(service, from, to, graceEndsAt), this.#back.look(service, to, from, graceEndsAt)];
    const waits = decisions.find(({ waiting }) => waiting !== null)?.waiting ?? null;
    if (waits === null) this.#waits.delete(service);
    else this.#waits.set(service, waits);
    this.#agenda.later(service, Math.min(...decisions.map(({ nextAt }) => nextAt)));
    if (!this.#task.inScope(service) && ledger.page(service) === undefined) this.#forget(service);
  }

  #forget(service: ServiceId): void {
    this.#bothAt.delete(service);
    this.#waits.delete(service);
    this.#agenda.drop(service);
    this.#forth.forget(service);
    this.#back.forget(service);
  }

  /** Services in scope, and those that have copies though they are in scope no more. */
  *#all(): Generator<ServiceId, void, void> {
    const { ledger } = this.#task;
    const seen = new Set(this.#task.services());
    yield* seen;
    for (const service of [...ledger.services()]) if (!seen.has(service)) yield service;
  }

  #may(): 'go' | 'frozen' | 'lost' {
    if (this.#lost.signal.aborted || this.#task.ownership.lost.aborted) return 'lost';
    return this.#task.frozen() ? 'frozen' : 'go';
  }

  // --- ends ---

  async #end(done: () => boolean): Promise<void> {
    for (const service of this.#all()) this.poke(service);
    await this.#until(done);
    for (;;) {
      try {
        return await this.#saver.flush();
      } catch {
        // The copies are as they should be; the store must learn it.
        if (this.#closed) throw new SourceError('lost', 'the mirror ended before the store knew');
        await this.#deps.clock.sleep(SAVE_AGAIN_MS, this.#lost.signal);
      }
    }
  }

  #until(done: () => boolean): Promise<void> {
    if (this.#closed) return Promise.reject(new SourceError('lost', 'the mirror is closed'));
    if (done()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.add({ done, resolve, reject });
    });
  }

  #check(): void {
    for (const waiter of this.#waiters) {
      if (!waiter.done()) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }

  #giveUp(reason: unknown): void {
    for (const waiter of this.#waiters) waiter.reject(reason);
    this.#waiters.clear();
  }

  #lose(reason: unknown): void {
    if (this.#lost.signal.aborted) return;
    this.#lost.abort(reason);
    this.#stop();
    this.#saver.abandon();
    this.#giveUp(new SourceError('fenced', 'the right to write for this migration is lost'));
    this.#deps.log.warn({ migration: this.#task.spec.id }, 'the right to write for a migration is lost');
    void this.#forth.close();
    void this.#back.close();
  }

  #stop(): void {
    this.#closed = true;
    this.#task.ownership.lost.removeEventListener('abort', this.#onLost);
    this.#unsubscribe?.();
    this.#agenda.close();
  }
}

const NO_COPIES: CopyCounts = { intent: 0, written: 0, withheld: 0, removing: 0, kept: 0 };
