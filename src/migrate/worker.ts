// Owns the life of a migration's writing side on this sidecar: winning the right to write, reading the ledger, running the mirror, and
// carrying out the phases that end it (aborting, finished). Called by migrations.ts, one for each migration that writes.
// Must never write without the right, and never end a phase before the ledger says so.
import { raceAbort } from '../kernel/cancel.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { ServiceId } from '../model/service.ts';
import { Aliases } from './aliases.ts';
import { type CopyCounts, Ledger } from './ledger.ts';
import { MIRRORING, type MigrationDoc } from './migration.ts';
import { Mirror, type MirrorDeps } from './mirror.ts';
import type { EngineDeps, Ownership } from './ports.ts';
import type { Scope } from './scope.ts';

/** A lost right, or a store that is away, is tried again after this, ms. */
const RETRY_MS = 1_000;
/** `collect` gives up waiting after this; what is left is said. */
const COLLECT_MS = 20_000;
/** The first pass over all services has begun by then, ms. */
const FIRST_PASS_MS = 200;

export interface WorkerDeps extends EngineDeps {
  readonly id: string;
  readonly scope: Scope;
  /** The document as it is now. */
  readonly doc: () => MigrationDoc;
  /** Sidecars that have not applied the present phase. */
  readonly behind: () => readonly string[];
  readonly frozen: () => boolean;
  /** Edits the document by compare-and-set; answers it as it is then. */
  readonly change: (edit: (doc: MigrationDoc) => MigrationDoc) => Promise<MigrationDoc>;
}

export interface WorkerStatus {
  /** This sidecar has the right to write. */
  readonly owner: boolean;
  /** Nothing waits to be written, every call was answered, and both sides are there to say so. */
  readonly settled: boolean;
  readonly services: number;
  /** By source, then by state. */
  readonly copies: Readonly<Record<string, CopyCounts>>;
  readonly queued: number;
  readonly lagMs: number;
  /** What is waited for, in words. */
  readonly waiting: readonly string[];
  /** The newest failure of each source. */
  readonly errors: Readonly<Record<string, string>>;
}

/** What is waited for inside a turn of ownership. */
interface Turn {
  readonly ownership: Ownership;
  readonly ledger: Ledger;
  readonly mirror: Mirror;
  readonly startedAt: number;
  /** Aborts when this turn is over: right lost, or closed. */
  readonly over: AbortSignal;
}

export class Worker {
  readonly #deps: WorkerDeps;
  readonly #closed = new AbortController();
  readonly #aliases: Aliases;
  #running: Promise<void> | null = null;
  #turn: Turn | null = null;
  #waitingFor = 'the right to write';
  /** Told when the document may have changed. */
  #woken: (() => void) | null = null;
  #collecting = false;
  #noting = false;
  #over = false;

  constructor(deps: WorkerDeps) {
    this.#deps = deps;
    this.#aliases = new Aliases(deps);
  }

  /** Begins; ends by itself when the migration has nothing left to write. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** The document, or what stops writes, may have changed. */
  wake(): void {
    this.#woken?.();
  }

  /** Once a second: what follows from the copies by and by. */
  tick(): void {
    const turn = this.#turn;
    const { doc, change, log, id } = this.#deps;
    if (turn === null || turn.over.aborted || !MIRRORING.has(doc().phase)) return;
    void this.#aliases.work(turn.ledger, turn.over);
    if (doc().baselined || this.#noting || !turn.mirror.wholeOnce) return;
    this.#noting = true;
    change((now) => ({ ...now, baselined: true }))
      .catch((thrown: unknown) =>
        log.warn({ migration: id, error: messageOf(thrown) }, 'the first whole read could not be noted'),
      )
      .finally(() => {
        this.#noting = false;
      });
  }

  /** Nothing is left to do. */
  get over(): boolean {
    return this.#over;
  }

  get owns(): boolean {
    return this.#turn !== null;
  }

  get settled(): boolean {
    return this.#turn !== null && isSettled(this.#turn, this.#deps.clock.now());
  }

  /** Null while this sidecar does not own the migration. */
  get ledger(): Ledger | null {
    return this.#turn?.ledger ?? null;
  }

  copyOrigin(service: ServiceId, source: string, host: string, port: number, nativeId: string): string | null {
    return this.#turn?.ledger.copyOrigin(service, source, host, port, nativeId) ?? null;
  }

  status(): WorkerStatus {
    const turn = this.#turn;
    if (turn === null) {
      const waiting = this.#over ? [] : [this.#waitingFor];
      return { owner: false, settled: this.#over, services: 0, copies: {}, queued: 0, lagMs: 0, waiting, errors: {} };
    }
    const { services, copies, queued, lagMs, waiting, lastError } = turn.mirror.status();
    const words = [...waiting].map(([what, count]) => (count > 0 ? `${what} (${count} services)` : what));
    if (this.#deps.frozen()) words.unshift('frozen: nothing is written');
    if (this.#waitingFor !== '') words.unshift(this.#waitingFor);
    if (this.#aliases.waiting !== null) words.push(this.#aliases.waiting);
    const troubles = this.#troubles();
    words.unshift(...troubles);
    return {
      owner: true,
      // Whoever waits for the copies waits for calls under way, too.
      settled: this.settled && troubles.length === 0 && [...copies.values()].every(({ intent }) => intent === 0),
      services,
      copies: Object.fromEntries(copies),
      queued,
      lagMs,
      waiting: words,
      errors: Object.fromEntries(lastError),
    };
  }

  /** Sources that are not live: what they would say, and what would be written then, is not known. */
  #troubles(): string[] {
    const { sources, doc } = this.#deps;
    const { from, to } = doc().spec;
    return [from, to].flatMap((source) => {
      const trouble = sources.trouble?.(source) ?? null;
      return trouble === null ? [] : [`${source}, which is ${trouble}`];
    });
  }

  /** Takes every copy of an ended migration away; answers how many are left after a while. */
  async collect(): Promise<number> {
    const { clock } = this.#deps;
    this.#collecting = true;
    this.#over = false;
    if (this.#running === null) this.#running = this.#run();
    else this.wake();
    const until = clock.now() + COLLECT_MS;
    while (!this.#over && clock.now() < until && !this.#closed.signal.aborted) await clock.sleep(50, this.#closed.signal);
    this.#collecting = false;
    if (this.#over) return 0;
    return this.#turn?.ledger.size ?? 1;
  }

  /** Stops; copies stay and live as long as their leases do. */
  async close(): Promise<void> {
    this.#closed.abort(new WeirError('INTERNAL', 'the migration is closed'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, log, id } = this.#deps;
    const { signal } = this.#closed;
    while (!signal.aborted && !this.#over) {
      try {
        await this.#own();
      } catch (thrown) {
        if (signal.aborted) break;
        this.#waitingFor = `the right to write: ${messageOf(thrown)}`;
        log.warn({ migration: id, error: messageOf(thrown) }, 'the writing side of a migration stopped; it is tried again');
      }
      if (!this.#over) await clock.sleep(RETRY_MS, signal).catch(() => undefined);
    }
    this.#running = null;
  }

  async #own(): Promise<void> {
    const { store, id, events, sidecar, doc } = this.#deps;
    const { signal } = this.#closed;
    const { from, to } = doc().spec;
    this.#waitingFor = 'the right to write';
    const ownership = await store.own(id, this.#fenced([to, from]), signal);
    try {
      this.#waitingFor = 'the ledger';
      const ledger = new Ledger(await store.ledger(id, signal));
      const epoch = await this.#nextEpoch();
      if (store.shared) events.emit('migration_owner', { migration: id, sidecar, epoch });
      await this.#serve(ownership, ledger, epoch);
    } finally {
      this.#turn = null;
      await ownership.release();
    }
  }

  /**
   * Where a lock of ours stands beside our records. Persistent copies outlive their owner: without a lock in a registry that has no leases
   * nobody takes them for orphans (orphans.ts), and each of its writes is a compare-and-set anyway.
   */
  #fenced(targets: readonly string[]): readonly string[] {
    const { doc, sources } = this.#deps;
    if (doc().spec.liveness !== 'persistent') return targets;
    return targets.filter((source) => sources.adapter(source)?.capabilities.heartbeat !== 'none');
  }

  /** Rule 11: a later owner writes a greater epoch into its markers. Alone, one epoch is enough. */
  async #nextEpoch(): Promise<number> {
    const { store, change, doc } = this.#deps;
    if (!store.shared && doc().epoch > 0) return doc().epoch;
    return (await change((now) => ({ ...now, epoch: now.epoch + 1 }))).epoch;
  }

  async #serve(ownership: Ownership, ledger: Ledger, epoch: number): Promise<void> {
    const { clock, scope, doc, frozen } = this.#deps;
    const mirror = new Mirror(mirrorDeps(this.#deps), {
      spec: doc().spec,
      epoch,
      ledger,
      ownership,
      services: () => scope.services(),
      inScope: (service) => scope.has(service),
      mapKey: (source, service) => scope.key(source, service),
      frozen,
      baselined: () => doc().baselined,
    });
    const over = AbortSignal.any([mirror.lost, this.#closed.signal]);
    this.#turn = { ownership, ledger, mirror, startedAt: clock.now(), over };
    this.#waitingFor = '';
    try {
      mirror.start();
      await this.#untilEnd(mirror, over);
    } finally {
      await mirror.close();
    }
  }

  /** Follows the phases until nothing is left to write, or the right is lost. */
  async #untilEnd(mirror: Mirror, over: AbortSignal): Promise<void> {
    const { doc, change } = this.#deps;
    while (!over.aborted) {
      const { phase, keptCopies } = doc();
      if (this.#collecting) {
        await raceAbort(mirror.drain(), over);
        await this.#aliases.undo(over);
        this.#over = true;
        return;
      }
      if (phase === 'aborting') {
        const late = this.#deps.behind();
        this.#waitingFor = late.length === 0 ? '' : `sidecars that still read by the migration: ${late.join(', ')}`;
        if (late.length === 0) {
          await raceAbort(mirror.drain(), over);
          await this.#aliases.undo(over);
          await change((now) =>
            now.phase === 'aborting' ? { ...now, phase: 'aborted', since: this.#deps.clock.wallNow() } : now,
          );
        } else await this.#next(over);
      } else if (phase === 'finished') {
        await raceAbort(mirror.finish(keptCopies), over);
        this.#over = true;
        return;
      } else if (MIRRORING.has(phase)) await this.#next(over);
      else {
        this.#over = true;
        return;
      }
    }
  }

  /** The next time that the document may have changed. */
  async #next(over: AbortSignal): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#woken = resolve;
    });
    await raceAbort(woken, over).catch(() => undefined);
    this.#woken = null;
  }
}

function isSettled({ mirror, startedAt }: Turn, now: number): boolean {
  if (now - startedAt < FIRST_PASS_MS) return false;
  const { queued, lagMs } = mirror.status();
  return queued === 0 && lagMs === 0;
}

function mirrorDeps({ clock, random, log, audit, metrics, catalog, sources, store }: WorkerDeps): MirrorDeps {
  return {
    clock,
    random,
    log,
    audit,
    catalog,
    sources,
    store,
    metrics: {
      wrote: (target, what, ok) => metrics.counter('weir_registry_writes_total', target, what, ok ? 'ok' : 'failed').inc(),
    },
  };
}
