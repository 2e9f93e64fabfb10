// A store of migrations in memory that outlives the sidecars that use it, for one of them (local) or for a fleet (shared: locks with a
// time to live, reports). Everything goes through the codec of the real stores, so that nothing survives that they would lose.
// Called by world.ts; a handle belongs to one life and does nothing once that life is over.
import type { Clock } from '../../src/kernel/clock.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { decodeDoc, decodePage, encodeDoc, encodePage, isEmptyPage } from '../../src/migrate/codec.ts';
import type { LedgerPage, MigrationDoc, SidecarReport } from '../../src/migrate/migration.ts';
import type { MigrationStore, Ownership, StoredDoc } from '../../src/migrate/ports.ts';
import type { ServiceId } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { Caller } from './plain-registry.ts';

const LOCK_TTL_MS = 6_000;
/** migration.md rule 11: the owner stops at 0.8 of it. */
const SAFE_MS = 0.8 * LOCK_TTL_MS;
const RENEW_MS = 1_000;

interface Slot {
  readonly doc: string;
  readonly revision: number;
  readonly reports: Map<string, SidecarReport>;
  readonly pages: Map<ServiceId, string>;
}

interface Lock {
  readonly holder: string;
  renewedAt: number;
}

export class StoreMemory {
  readonly slots = new Map<string, Slot>();
  readonly broken = new Map<string, string>();
  readonly shared: boolean;
  /** Calls fail and watches end. */
  down = false;
  readonly #locks = new Map<string, Lock>();
  readonly #watchers = new Set<Mailbox<readonly StoredDoc[]>>();
  #revision = 0;

  constructor(shared: boolean) {
    this.shared = shared;
  }

  /** Entries of a migration's ledger. */
  entries(id: string): LedgerPage['entries'][number][] {
    return [...(this.slots.get(id)?.pages.values() ?? [])].flatMap((text) => pageOf(text).entries);
  }

  setDown(down: boolean): void {
    this.down = down;
    if (!down) return;
    for (const box of this.#watchers) box.fail(new SourceError('lost', 'the store is away'));
    this.#watchers.clear();
  }

  handle(caller: Caller, clock: Clock): MigrationStore {
    const run = async <T>(now: () => T): Promise<T> => {
      await Promise.resolve();
      if (caller.dead) return new Promise<T>(() => {});
      if (this.down) throw new SourceError('lost', 'the store is away');
      const result = now();
      await Promise.resolve();
      // Killed between the effect and the answer.
      return caller.dead ? new Promise<T>(() => {}) : result;
    };
    return {
      shared: this.shared,
      watch: (signal) => this.#watch(caller, signal),
      putDoc: (doc, expected) => run(() => this.#putDoc(doc, expected)),
      dropDoc: (id, expected) =>
        run(() => {
          if (String(this.slots.get(id)?.revision) !== expected) return false;
          this.slots.delete(id);
          this.#tell();
          return true;
        }),
      ledger: (id) =>
        run(() => new Map([...(this.slots.get(id)?.pages ?? [])].map(([service, text]) => [service, pageOf(text)]))),
      savePages: (id, pages, signal) =>
        run(() => {
          signal.throwIfAborted();
          this.#save(caller, id, pages);
        }),
      report: (id, report) =>
        run(() => {
          this.slots.get(id)?.reports.set(report.sidecar, report);
          this.#tell();
        }),
      own: (id, _targets, signal) => this.#own(caller, clock, id, signal),
      close: () => Promise.resolve(),
    };
  }

  #putDoc(doc: MigrationDoc, expected: string | null): string | null {
    const { id } = doc.spec;
    const slot = this.slots.get(id);
    if ((slot === undefined ? null : String(slot.revision)) !== expected) return null;
    const revision = ++this.#revision;
    this.slots.set(id, {
      doc: JSON.stringify(encodeDoc(doc)),
      revision,
      reports: slot?.reports ?? new Map(),
      pages: slot?.pages ?? new Map(),
    });
    this.#tell();
    return String(revision);
  }

  #save(caller: Caller, id: string, pages: readonly LedgerPage[]): void {
    if (this.shared && this.#locks.get(id)?.holder !== caller.name) throw new SourceError('fenced', 'another owner writes');
    const slot = this.slots.get(id);
    if (slot === undefined) throw new SourceError('refused', `no migration ${id}`);
    for (const page of pages) {
      if (isEmptyPage(page)) slot.pages.delete(page.service);
      else slot.pages.set(page.service, JSON.stringify(encodePage(page)));
    }
  }

  async *#watch(caller: Caller, signal: AbortSignal): AsyncGenerator<readonly StoredDoc[], void, void> {
    if (this.down) throw new SourceError('lost', 'the store is away');
    const box = new Mailbox<readonly StoredDoc[]>();
    this.#watchers.add(box);
    box.put(this.#all());
    for await (const docs of box.read(signal)) if (!caller.dead) yield docs;
  }

  async #own(caller: Caller, clock: Clock, id: string, signal: AbortSignal): Promise<Ownership> {
    const name = caller.name;
    for (;;) {
      signal.throwIfAborted();
      const held = this.#locks.get(id);
      if (!this.down && (!this.shared || held === undefined || clock.now() - held.renewedAt >= LOCK_TTL_MS)) break;
      await clock.sleep(100, signal);
    }
    const lost = new AbortController();
    if (!this.shared) return { lost: lost.signal, fences: new Map(), release: () => Promise.resolve() };
    const lock = { holder: name, renewedAt: clock.now() };
    this.#locks.set(id, lock);
    const renew = (): void => {
      if (lost.signal.aborted || this.#locks.get(id) !== lock) return lost.abort(new SourceError('fenced', 'the lock is lost'));
      if (!this.down) lock.renewedAt = clock.now();
      else if (clock.now() - lock.renewedAt >= SAFE_MS) return lost.abort(new SourceError('fenced', 'the lock is in doubt'));
      clock.setTimer(RENEW_MS, renew);
    };
    clock.setTimer(RENEW_MS, renew);
    return {
      lost: lost.signal,
      fences: new Map(),
      release: async () => {
        if (!caller.dead && this.#locks.get(id) === lock) this.#locks.delete(id);
        lost.abort(new SourceError('fenced', 'the lock was given back'));
      },
    };
  }

  #tell(): void {
    for (const box of this.#watchers) box.put(this.#all());
  }

  #all(): readonly StoredDoc[] {
    const docs = [...this.slots].map(([id, { doc, revision, reports }]): StoredDoc => {
      const read = decodeDoc(JSON.parse(doc));
      if (!read.ok) return { kind: 'broken', id, reason: read.reason };
      return { kind: 'doc', doc: read.value, revision: String(revision), reports: [...reports.values()] };
    });
    return [...docs, ...[...this.broken].map(([id, reason]): StoredDoc => ({ kind: 'broken', id, reason }))];
  }
}

function pageOf(text: string): LedgerPage {
  const read = decodePage(JSON.parse(text));
  if (!read.ok) throw new Error(read.reason);
  return read.value;
}
