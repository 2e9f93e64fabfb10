// Owns one direction of a migration: copies of `origin` in `target`, what this process remembers of them, and the way from a decision to
// calls and back into the ledger. Called by mirror.ts, which has one for each direction. Must never write without its intent being durable.
import type { Adapter, WriteMode } from '../adapter/contract.ts';
import type { SourceAccount } from '../catalog/view.ts';
import { hostPort } from '../kernel/address.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import { type Snapshot, SourceError } from '../model/snapshot.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import { Beats } from './beats.ts';
import { type Action, type Decision, decide, isNative, NEW_NOTE, type Note, SETTLE_MS, type Wants } from './decide.ts';
import type { CopyRules } from './desired.ts';
import { drainActions, keepActions } from './ending.ts';
import { type Address, addressOf, type Ledger } from './ledger.ts';
import type { LedgerEntry, MigrationSpec } from './migration.ts';
import { afterCall, type EntryContext, intentOf, withheldEntry } from './outcomes.ts';
import type { MigrationCatalog, MigrationSources, Ownership } from './ports.ts';
import type { Removals } from './removals.ts';
import type { Saver } from './saver.ts';
import { belongs } from './standing.ts';
import { type Before, COPY_TTL_MS, type Op, type Outcome, TargetWriter, type WriteOp, type WriterHost } from './writer.ts';

/** A fresh read of a target speaks for this long, ms. */
const FRESH_MS = 5_000;
/** What is remembered of an address without a copy, ms. */
const FORGET_MS = 60_000;
/** An ending looks again for a source that is not there, ms. */
const ABSENT_MS = 1_000;
/** Registries that are polled show a removal this late, ms: a word from before that does not confirm it. */
const SHOWN_MS = 3_000;

/** mirror: as the rules say · drain: every copy goes · keep: copies become ordinary records · off: nothing is written. */
export type Mode = 'mirror' | 'drain' | 'keep' | 'off';

export interface SideMetrics {
  /** One write was made; `what`: put, health, remove. */
  wrote(target: string, what: string, ok: boolean): void;
}

export interface SideDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly audit: (line: AuditLine) => void;
  readonly metrics: SideMetrics;
  readonly catalog: MigrationCatalog;
  readonly sources: MigrationSources;
}

export interface SideTask {
  readonly spec: MigrationSpec;
  readonly epoch: number;
  readonly ledger: Ledger;
  readonly ownership: Ownership;
  mapKey(source: string, service: ServiceId): ServiceKey | null;
}

/** The mirror around its two sides. */
export interface SideHost {
  readonly saver: Saver;
  readonly removals: Removals;
  may(): 'go' | 'frozen' | 'lost';
  poke(service: ServiceId): void;
  lose(reason: unknown): void;
}

export class Side {
  readonly origin: string;
  readonly target: string;
  /** From `to` to `from`: return copies, or the second half of a two-way mirror. */
  readonly backwards: boolean;
  readonly writer: TargetWriter;
  readonly beats: Beats;
  mode: Mode = 'mirror';
  readonly #deps: SideDeps;
  readonly #task: SideTask;
  readonly #host: SideHost;
  readonly #notes = new Map<ServiceId, Map<Address, Note>>();
  readonly #fresh = new Map<ServiceId, { readonly at: number; readonly account: SourceAccount }>();
  /** When an ending removed the last copy of a service, until the target's own word shows that none stands; monotonic ms. */
  readonly #unconfirmed = new Map<ServiceId, number>();

  constructor(deps: SideDeps, task: SideTask, backwards: boolean, host: SideHost) {
    const { from, to, limits } = task.spec;
    this.#deps = deps;
    this.#task = task;
    this.#host = host;
    this.backwards = backwards;
    this.origin = backwards ? to : from;
    this.target = backwards ? from : to;
    const { clock, random, log } = deps;
    const { target } = this;
    this.beats = this.#newBeats();
    this.writer = new TargetWriter({
      clock,
      random,
      log,
      target,
      callsPerSecond: limits.callsPerSecond,
      host: this.#writerHost(),
    });
  }

  /** Services whose last removals the target has not confirmed yet: some say yes and go on showing the record. */
  get unconfirmed(): number {
    return this.#unconfirmed.size;
  }

  /** What the target says of a service: the catalog's word, or that of a fresh read where it is newer. */
  account(service: ServiceId): SourceAccount | null {
    const account = this.#deps.catalog.account(this.target, service);
    const fresh = this.#fresh.get(service);
    if (fresh === undefined) return account;
    if (this.#deps.clock.now() - fresh.at < FRESH_MS && fresh.at >= (account?.goodAt ?? 0)) return fresh.account;
    this.#fresh.delete(service);
    return account;
  }

  /** Natives among what the target says. */
  nativesIn({ instances }: SourceAccount, service: ServiceId): Address[] {
    const copies = this.#copiesIn(this.target, service);
    return instances
      .filter(({ instance }) => isNative(instance) && !copies.has(addressOf(instance)))
      .map(({ instance }) => addressOf(instance))
      .sort();
  }

  /** Decides about one service and hands it to the writer. `graceEndsAt`: null before both sides gave a complete answer. */
  look(service: ServiceId, origin: SourceAccount | null, target: SourceAccount | null, graceEndsAt: number | null): Decision {
    const { mode } = this;
    const entries = this.#task.ledger.entriesIn(this.target, service);
    const adapter = this.#deps.sources.adapter(this.target);
    const key = this.#task.mapKey(this.target, service) ?? (mode === 'mirror' ? null : (entries[0]?.key ?? null));
    if (mode === 'off' || key === null || adapter === null || !adapter.capabilities.register || adapter.put === undefined) {
      this.writer.cancel(service);
      return this.#nothing(adapter, key, entries);
    }
    const decision =
      mode === 'mirror'
        ? this.#mirror(service, origin, target, adapter, entries, graceEndsAt)
        : this.#ending(service, target, adapter, entries, mode);
    this.#apply(service, key, decision);
    this.#prune(service);
    return decision;
  }

  forget(service: ServiceId): void {
    this.#notes.delete(service);
    this.#fresh.delete(service);
  }

  async close(): Promise<void> {
    await Promise.all([this.writer.close(), this.beats.close()]);
  }

  // --- decisions ---

  #nothing(adapter: Adapter | null, key: ServiceKey | null, entries: readonly LedgerEntry[]): Decision {
    const { mode, target } = this;
    const absent = adapter === null ? `source ${target} is not there to write to` : null;
    // Nobody can be asked any more.
    if (adapter === null) this.#unconfirmed.clear();
    const what = mode === 'off' ? null : (absent ?? (key === null ? `no name in ${target}` : null));
    const open = (mode === 'drain' || mode === 'keep') && entries.length > 0;
    const nextAt = open ? this.#deps.clock.now() + ABSENT_MS : Number.POSITIVE_INFINITY;
    return { actions: [], notes: NO_NOTES, nextAt, waiting: what };
  }

  #mirror(
    service: ServiceId,
    origin: SourceAccount | null,
    target: SourceAccount | null,
    adapter: Adapter,
    entries: readonly LedgerEntry[],
    graceEndsAt: number | null,
  ): Decision {
    const now = this.#deps.clock.now();
    return decide({
      rules: this.#rules(adapter),
      wants: this.#wants(service),
      origin,
      target,
      entries,
      copiesInOrigin: this.#copiesIn(this.origin, service),
      setsHealth: adapter.setHealth !== undefined,
      notes: this.#notes.get(service) ?? NO_NOTES,
      busy: this.writer.busy(service),
      confirmed: this.#confirmed(service),
      now,
      graceEndsAt,
      removals: this.#host.removals.left(this.target, service, entries.filter(stands).length, now),
    });
  }

  #ending(
    service: ServiceId,
    target: SourceAccount | null,
    adapter: Adapter,
    entries: readonly LedgerEntry[],
    mode: 'drain' | 'keep',
  ): Decision {
    const now = this.#deps.clock.now();
    const notes = [...(this.#notes.get(service) ?? NO_NOTES)];
    const off = notes.filter(([, { waitUntil }]) => waitUntil > now);
    const unsure = notes.filter(([, { wroteAt }]) => (target?.goodAt ?? 0) - wroteAt < SETTLE_MS);
    const actions = (mode === 'drain' ? drainActions : keepActions)({
      rules: this.#rules(adapter),
      target,
      entries,
      busy: this.writer.busy(service),
      putOff: new Set(off.map(([address]) => address)),
      unsure: new Set(unsure.map(([address]) => address)),
      confirmed: this.#confirmed(service),
    });
    const nextAt = Math.min(...off.map(([, { waitUntil }]) => waitUntil), Number.POSITIVE_INFINITY);
    const waiting = off.length > 0 ? 'a write failed and is tried again' : null;
    if (actions.length > 0 || entries.length > 0) return { actions, notes: NO_NOTES, nextAt, waiting };
    return this.#confirmEnd(service, target, adapter, now) ?? { actions, notes: NO_NOTES, nextAt, waiting };
  }

  /** Nothing of ours is known any more: what is still to be done until the target says so too; null: it does. */
  #confirmEnd(service: ServiceId, target: SourceAccount | null, adapter: Adapter, now: number): Decision | null {
    const removedAt = this.#unconfirmed.get(service);
    if (removedAt === undefined) return null;
    const from = removedAt + (adapter.capabilities.watch === 'push' ? 0 : SHOWN_MS);
    const rules = this.#rules(adapter);
    const stands = target?.instances.some(({ instance, held }) => !held && belongs(instance, undefined, rules) === 'ours');
    if (target?.live === true && target.goodAt >= from && stands !== true) {
      this.#unconfirmed.delete(service);
      return null;
    }
    const actions: readonly Action[] = now >= from ? [{ kind: 'read' }] : [];
    return {
      actions,
      notes: NO_NOTES,
      nextAt: Math.max(from, now + ABSENT_MS),
      waiting: 'the target to show that the copies are gone',
    };
  }

  /** What touches the ledger alone is done here; the rest goes to the writer. */
  #apply(service: ServiceId, key: ServiceKey, { actions, notes, learned = [] }: Decision): void {
    const { ledger } = this.#task;
    for (const entry of learned) ledger.write(entry);
    if (learned.length > 0) {
      this.#host.saver.mark(service);
      this.#host.saver.soon();
    }
    for (const [address, note] of notes) this.#notesOf(service).set(address, note);
    for (const action of actions) {
      if (action.kind === 'strike') {
        ledger.strike(action.entry);
        this.#notes.get(service)?.delete(addressOf(action.entry));
        this.#audit(service, action.entry, 'strike', action.why);
      } else if (action.kind === 'withhold') {
        ledger.write(this.#withheld(service, key, action));
        this.#audit(service, action.instance, 'withhold', 'ok');
      } else continue;
      this.#host.saver.mark(service);
      this.#host.saver.soon();
    }
    this.writer.plan(service, key, actions);
  }

  #withheld(service: ServiceId, key: ServiceKey, action: Extract<Action, { kind: 'withhold' }>): LedgerEntry {
    if (action.entry !== null) return { ...action.entry, state: 'withheld' };
    return withheldEntry(service, key, action.instance, this.#context());
  }

  #rules(adapter: Adapter): CopyRules {
    const { spec, epoch } = this.#task;
    const { origin, backwards } = this;
    return { origin, migration: spec.id, epoch, metadata: spec.mapping.metadata, backwards, keeps: adapter.capabilities.keeps };
  }

  #wants(service: ServiceId): Wants {
    if (!this.backwards || this.#task.spec.direction === 'twoWay') return { kind: 'all' };
    return { kind: 'new', baseline: this.#task.ledger.page(service)?.baseline ?? null };
  }

  /** Copies of ours by the ledger; none where the source keeps metadata, since the markers tell there (rule 5). */
  #copiesIn(source: string, service: ServiceId): ReadonlySet<Address> {
    if (this.#deps.sources.adapter(source)?.capabilities.keeps.has('metadata') ?? true) return NO_ADDRESSES;
    return new Set(this.#task.ledger.entriesIn(source, service).filter(stands).map(addressOf));
  }

  /** A read that began after every write of the service tells what became of them. */
  #confirmed(service: ServiceId): boolean {
    const fresh = this.#fresh.get(service);
    if (fresh === undefined || this.#deps.clock.now() - fresh.at >= FRESH_MS) return false;
    for (const { wroteAt } of this.#notes.get(service)?.values() ?? []) if (wroteAt > fresh.at) return false;
    return true;
  }

  // --- what the writer asks and tells ---

  #writerHost(): WriterHost {
    const { ownership } = this.#task;
    return {
      adapter: () => this.#deps.sources.adapter(this.target),
      may: () => this.#host.may(),
      fence: () => ownership.fences.get(this.target),
      liveness: ({ action }) => (action.why === 'kept' ? 'persistent' : this.#liveness()),
      begin: (ops) => this.#begin(ops),
      whose: (op, snapshot) => this.#whose(op, snapshot),
      done: (op, outcome, whole) => this.#done(op, outcome, whole),
      read: (service, key, snapshot, startedAt) => this.#read(service, key, snapshot, startedAt),
      settled: (services) => {
        for (const service of services) this.#host.poke(service);
        this.#host.saver.soon();
      },
    };
  }

  /** `connection` is said of `to`: return copies in a registry that ties nothing to connections live by beats. */
  #liveness(): WriteMode['liveness'] {
    const { liveness } = this.#task.spec;
    if (liveness !== 'connection') return liveness;
    return this.#deps.sources.adapter(this.target)?.capabilities.heartbeat === 'server' ? 'connection' : 'beat';
  }

  #newBeats(): Beats {
    const { clock, random, log, sources } = this.#deps;
    const { ledger } = this.#task;
    const { target } = this;
    return new Beats({
      clock,
      random,
      log,
      target,
      ttl: COPY_TTL_MS,
      adapter: () => sources.adapter(target),
      mayRenew: () => this.#liveness() === 'beat' && this.#host.may() !== 'lost',
      entries: () => leased(ledger, target),
      onForgotten: ({ service, ...at }) => {
        const notes = this.#notesOf(service);
        notes.set(addressOf(at), { ...(notes.get(addressOf(at)) ?? NEW_NOTE), forgotten: true });
        this.#host.poke(service);
      },
      onFenced: (error) => this.#host.lose(error),
    });
  }

  async #begin(ops: readonly WriteOp[]): Promise<void> {
    const { saver, removals } = this.#host;
    for (const op of ops) {
      const { action, service } = op;
      this.#task.ledger.write(intentOf(op, this.#entryOf(op), this.#context()));
      saver.mark(service);
      const rated = action.kind === 'remove' && (action.why === 'gone' || action.why === 'withheld');
      if (rated) removals.take(this.target, service, this.#deps.clock.now());
    }
    await saver.flush();
  }

  #done(op: WriteOp, outcome: Outcome, whole: boolean): void {
    const { service, action } = op;
    const before = this.#entryOf(op);
    if (before === null) return;
    const notes = this.#notesOf(service);
    const note = notes.get(action.address) ?? NEW_NOTE;
    const after = afterCall(op, before, outcome, whole, note, this.#context());
    const failed = outcome instanceof SourceError;
    if (action.kind === 'remove' && action.why === 'ended' && !failed) this.#unconfirmed.set(service, this.#deps.clock.now());
    if (after.entry === null) this.#task.ledger.strike(before);
    else this.#task.ledger.write(after.entry);
    // Also of a copy that is gone: the target may show it for a while.
    notes.set(action.address, { ...note, ...after.note });
    this.#host.saver.mark(service);
    const what = action.kind === 'health' ? `health ${action.health}` : action.kind;
    this.#audit(
      service,
      before,
      what,
      failed ? `${outcome.causeKind}: ${outcome.message}` : outcome === 'native' ? 'skipped: not ours' : 'ok',
    );
    this.#deps.metrics.wrote(this.target, action.kind, !failed);
    if (failed && outcome.causeKind === 'fenced') this.#host.lose(outcome);
  }

  #read(service: ServiceId, key: ServiceKey, snapshot: Snapshot, startedAt: number): void {
    const base = { source: this.target, key, live: true, epoch: snapshot.epoch, goodAt: this.#deps.clock.now() };
    const account: SourceAccount =
      snapshot.kind === 'absent'
        ? { ...base, presence: 'absent', instances: [] }
        : { ...base, presence: 'present', instances: snapshot.instances.map((instance) => ({ instance, held: false })) };
    this.#fresh.set(service, { at: startedAt, account });
  }

  /** Rule 2, right before a removal. */
  #whose({ action: { receipt, entry } }: Op<'remove'>, snapshot: Snapshot): Before {
    const keeps = this.#deps.sources.adapter(this.target)?.capabilities.keeps ?? new Set();
    // Without markers the receipt is all that there is: the registry itself knows whether it still names something.
    const blind: Before = keeps.has('metadata') ? 'gone' : 'ours';
    if (snapshot.kind === 'absent') return blind;
    const shown = snapshot.instances.find(({ id }) => id === receipt.nativeId);
    if (shown !== undefined)
      return belongs(shown, entry, { migration: this.#task.spec.id, keeps }) === 'ours' ? 'ours' : 'native';
    if (snapshot.rejected.some(({ nativeId }) => nativeId === receipt.nativeId)) return 'ours';
    // A registry that shows one record for an address hides ours behind the native beside it; the receipt names ours alone.
    const hidden = snapshot.instances.some((one) => addressOf(one) === addressOf(entry));
    return hidden ? 'ours' : blind;
  }

  // --- small parts ---

  /** Drops what is remembered of addresses that have had no copy for a while. */
  #prune(service: ServiceId): void {
    const notes = this.#notes.get(service);
    if (notes === undefined) return;
    const now = this.#deps.clock.now();
    const known = new Set(this.#task.ledger.entriesIn(this.target, service).map(addressOf));
    for (const [address, { waitUntil, wroteAt }] of notes) {
      if (!known.has(address) && Math.max(waitUntil, wroteAt + FORGET_MS) <= now) notes.delete(address);
    }
    if (notes.size === 0) this.#notes.delete(service);
  }

  #entryOf({ service, action }: WriteOp): LedgerEntry | null {
    const { host, port, transport } = action.kind === 'put' ? action.instance : action.entry;
    return this.#task.ledger.entry(this.target, service, host, port, transport) ?? null;
  }

  #context(): EntryContext {
    const { clock, random } = this.#deps;
    const { target, origin } = this;
    return { target, origin, epoch: this.#task.epoch, wall: clock.wallNow(), now: clock.now(), random };
  }

  #notesOf(service: ServiceId): Map<Address, Note> {
    let notes = this.#notes.get(service);
    if (notes === undefined) {
      notes = new Map();
      this.#notes.set(service, notes);
    }
    return notes;
  }

  #audit(service: ServiceId, at: { readonly host: string; readonly port: number }, what: string, result: string): void {
    const instance = hostPort(at.host, at.port);
    this.#deps.audit({ what, registry: this.target, service, instance, migration: this.#task.spec.id, result });
  }
}

const NO_NOTES: ReadonlyMap<Address, Note> = new Map();
const NO_ADDRESSES: ReadonlySet<Address> = new Set();

/** There may be a record of ours in the registry. */
function stands({ state }: LedgerEntry): boolean {
  return state !== 'withheld' && state !== 'kept';
}

/** Copies that hold a lease: also those that are about to go, so that a lease never removes faster than the rules. */
function leased(ledger: Ledger, target: string): LedgerEntry[] {
  const found: LedgerEntry[] = [];
  for (const service of ledger.services()) {
    for (const entry of ledger.entriesIn(target, service))
      if (entry.receipt !== null && entry.state !== 'kept') found.push(entry);
  }
  return found;
}
