// Owns the migrations of a sidecar that shares no state: one document and one ledger file each, below the state directory.
// Called by app through the MigrationStore port; must never write over what it cannot read: such a migration is `broken`, all others go on.
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Type } from 'typebox';
import type { Clock } from '../kernel/clock.ts';
import { decoder, parseJson } from '../kernel/decode.ts';
import { readOwnFile, replaceFile, syncDirectory } from '../kernel/durable-file.ts';
import { WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import { Mailbox } from '../kernel/mailbox.ts';
import type { ServiceId } from '../model/service.ts';
import { decodeDoc, encodeDoc, JOURNAL_VERSION, type Read } from './codec.ts';
import { checksum, LedgerFile, refusalText } from './ledger-file.ts';
import type { LedgerPage, MigrationDoc, SidecarReport } from './migration.ts';
import type { MigrationStore, Ownership, StoredDoc } from './ports.ts';

const MAGIC = 'weir-migration';
const MAX_DOC_BYTES = 16 * 1024 * 1024;
const ID = /^[A-Za-z0-9._-]{1,64}$/;
const DOC_SUFFIX = '.json';
const LEDGER_SUFFIX = '.ledger';

const decodeFile = decoder(
  Type.Object({
    magic: Type.Literal(MAGIC),
    version: Type.Number(),
    checksum: Type.String(),
    revision: Type.Integer({ minimum: 1 }),
    doc: Type.Unknown(),
  }),
);

export interface FileStoreDeps {
  /** `<state directory>/migrations`; made when it is missing. */
  readonly directory: string;
  /** Owner that the files must have; null where the system has none. */
  readonly uid: number | null;
  readonly log: Log;
  readonly clock: Clock;
}

type Slot =
  | { readonly kind: 'doc'; readonly doc: MigrationDoc; readonly revision: number; readonly ledger: LedgerFile }
  | { readonly kind: 'broken'; readonly reason: string };

/** Reads what is there. Throws the system's error when the directory cannot be made or listed; a bad file makes its migration `broken`. */
export async function openFileStore(deps: FileStoreDeps): Promise<MigrationStore> {
  const store = new FileStore(deps);
  await store.load();
  return store;
}

class FileStore implements MigrationStore {
  readonly shared = false;
  readonly #deps: FileStoreDeps;
  readonly #slots = new Map<string, Slot>();
  /** By migration; this sidecar's only. */
  readonly #reports = new Map<string, SidecarReport>();
  /** Changes of one migration come one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>();
  readonly #watchers = new Set<Mailbox<readonly StoredDoc[]>>();
  readonly #closed = new AbortController();

  constructor(deps: FileStoreDeps) {
    this.#deps = deps;
  }

  async load(): Promise<void> {
    const { directory, log } = this.#deps;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const names = (await readdir(directory)).sort();
    const withDoc = new Set(names.flatMap((name) => idOf(name, DOC_SUFFIX)));
    for (const id of withDoc) {
      const slot = await this.#loadSlot(id);
      if (slot.kind === 'broken') log.error({ migration: id }, `migration journal: ${slot.reason}; nothing is written for it`);
      this.#slots.set(id, slot);
    }
    for (const id of names.flatMap((name) => idOf(name, LEDGER_SUFFIX))) {
      if (!withDoc.has(id))
        log.warn({ migration: id, path: this.#ledgerPath(id) }, 'a ledger without its migration is left as it is');
    }
  }

  async *watch(signal: AbortSignal): AsyncGenerator<readonly StoredDoc[], void, void> {
    const box = new Mailbox<readonly StoredDoc[]>();
    this.#watchers.add(box);
    box.put(this.#all());
    try {
      yield* box.read(AbortSignal.any([signal, this.#closed.signal]));
    } finally {
      this.#watchers.delete(box);
    }
  }

  putDoc(doc: MigrationDoc, expected: string | null, signal: AbortSignal): Promise<string | null> {
    const { id } = doc.spec;
    return this.#inTurn(id, signal, async () => {
      const slot = this.#readable(id);
      if ((slot === null ? null : String(slot.revision)) !== expected) return null;
      // Of the clock, so that a migration that is made again never meets a revision of the one before.
      const revision = Math.max((slot?.revision ?? 0) + 1, Math.floor(this.#deps.clock.wallNow()));
      const text = docText(doc, revision);
      // The ledger first: from here on a document without one is damage.
      const ledger = slot?.ledger ?? (await this.#newLedger(id));
      try {
        await replaceFile(this.#docPath(id), [Buffer.from(text)]);
      } catch (thrown) {
        if (slot === null) await ledger.close();
        throw thrown;
      }
      this.#slots.set(id, { kind: 'doc', doc, revision, ledger });
      this.#tell();
      return String(revision);
    });
  }

  dropDoc(id: string, expected: string, signal: AbortSignal): Promise<boolean> {
    return this.#inTurn(id, signal, async () => {
      const slot = this.#readable(id);
      if (slot === null || String(slot.revision) !== expected) return false;
      await rm(this.#docPath(id), { force: true });
      await syncDirectory(this.#deps.directory);
      this.#slots.delete(id);
      this.#reports.delete(id);
      await slot.ledger.close();
      await rm(this.#ledgerPath(id), { force: true });
      this.#tell();
      return true;
    });
  }

  async ledger(id: string): Promise<ReadonlyMap<ServiceId, LedgerPage>> {
    return this.#known(id).ledger.pages();
  }

  async savePages(id: string, pages: readonly LedgerPage[], signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#closed.signal.throwIfAborted();
    await this.#known(id).ledger.save(pages);
  }

  async report(id: string, report: SidecarReport): Promise<void> {
    if (this.#slots.get(id)?.kind !== 'doc') return;
    this.#reports.set(id, report);
    this.#tell();
  }

  /** At once: the state directory is locked, nobody else writes. */
  async own(): Promise<Ownership> {
    return { lost: this.#closed.signal, fences: new Map(), release: () => Promise.resolve() };
  }

  async close(): Promise<void> {
    this.#closed.abort(new Error('the migration store is closed'));
    await Promise.allSettled(this.#turns.values());
    for (const slot of this.#slots.values()) if (slot.kind === 'doc') await slot.ledger.close();
  }

  #all(): readonly StoredDoc[] {
    return [...this.#slots].map(([id, slot]) => {
      if (slot.kind === 'broken') return { kind: 'broken', id, reason: slot.reason };
      const report = this.#reports.get(id);
      return { kind: 'doc', doc: slot.doc, revision: String(slot.revision), reports: report === undefined ? [] : [report] };
    });
  }

  #tell(): void {
    for (const box of this.#watchers) box.put(this.#all());
  }

  /** Null: there is none. Throws WeirError MIGRATION_JOURNAL for a broken one. */
  #readable(id: string): (Slot & { readonly kind: 'doc' }) | null {
    const slot = this.#slots.get(id) ?? null;
    if (slot?.kind === 'broken') throw new WeirError('MIGRATION_JOURNAL', slot.reason, { details: { migration: id } });
    return slot;
  }

  #known(id: string): Slot & { readonly kind: 'doc' } {
    const slot = this.#readable(id);
    if (slot === null) throw new WeirError('MIGRATION_NOT_FOUND', `there is no migration ${id}`, { details: { migration: id } });
    return slot;
  }

  async #inTurn<T>(id: string, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    if (!ID.test(id)) throw new WeirError('MIGRATION_INVALID', 'the id of a migration is 1..64 characters of A-Z a-z 0-9 . _ -');
    const before = this.#turns.get(id) ?? Promise.resolve();
    const turn = before.then(() => {
      signal.throwIfAborted();
      this.#closed.signal.throwIfAborted();
      return run();
    });
    const settled = turn.catch(() => undefined);
    this.#turns.set(id, settled);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(id) === settled) this.#turns.delete(id);
    }
  }

  async #loadSlot(id: string): Promise<Slot> {
    const path = this.#docPath(id);
    const bytes = await readOwnFile(path, MAX_DOC_BYTES, this.#deps.uid);
    if (typeof bytes === 'string') return { kind: 'broken', reason: `${path}: ${refusalText(bytes)}` };
    const read = readDoc(bytes, id);
    if (!read.ok) return { kind: 'broken', reason: `${path}:1: ${read.reason}` };
    const ledger = await LedgerFile.load(this.#ledgerDeps(id));
    return ledger.ok ? { kind: 'doc', ...read.value, ledger: ledger.value } : { kind: 'broken', reason: ledger.reason };
  }

  /** What a ledger of that name holds that nobody knows of any more is put aside: it may be all that tells of copies. */
  async #newLedger(id: string): Promise<LedgerFile> {
    const found = await LedgerFile.load(this.#ledgerDeps(id));
    const path = this.#ledgerPath(id);
    const isEmpty = found.ok && found.value.pages().size === 0;
    const aside = `${path}.left-${Math.floor(this.#deps.clock.wallNow())}`;
    if (
      !isEmpty &&
      (await rename(path, aside).then(
        () => true,
        () => false,
      ))
    ) {
      this.#deps.log.warn({ migration: id, aside }, 'a ledger of an earlier migration of this id was put aside');
    }
    return LedgerFile.create(this.#ledgerDeps(id));
  }

  #docPath(id: string): string {
    return join(this.#deps.directory, id + DOC_SUFFIX);
  }

  #ledgerPath(id: string): string {
    return join(this.#deps.directory, id + LEDGER_SUFFIX);
  }

  #ledgerDeps(id: string) {
    return { path: this.#ledgerPath(id), id, uid: this.#deps.uid, log: this.#deps.log };
  }
}

function idOf(name: string, suffix: string): readonly string[] {
  const id = name.endsWith(suffix) ? name.slice(0, -suffix.length) : '';
  return ID.test(id) ? [id] : [];
}

/** JSON of one line, so that it can be read; the checksum tells a hand that edited it, or a disk. */
function docText(doc: MigrationDoc, revision: number): string {
  const stored = encodeDoc(doc);
  const sum = checksum(JSON.stringify([revision, stored]));
  return `${JSON.stringify({ magic: MAGIC, version: JOURNAL_VERSION, checksum: sum, revision, doc: stored })}\n`;
}

function readDoc(bytes: Buffer, id: string): Read<{ readonly doc: MigrationDoc; readonly revision: number }> {
  const parsed = parseJson(bytes, { maxBytes: MAX_DOC_BYTES });
  const file = parsed.ok ? decodeFile(parsed.value) : parsed;
  if (!file.ok) return { ok: false, reason: 'no migration document' };
  const { version, revision, doc } = file.value;
  if (version !== JOURNAL_VERSION)
    return { ok: false, reason: `journal of version ${version}, this weir reads ${JOURNAL_VERSION}` };
  if (checksum(JSON.stringify([revision, doc])) !== file.value.checksum)
    return { ok: false, reason: 'the document is not as weir wrote it (checksum)' };
  const read = decodeDoc(doc);
  if (!read.ok) return read;
  if (read.value.spec.id !== id) return { ok: false, reason: `the document of the migration ${read.value.spec.id}` };
  return { ok: true, value: { doc: read.value, revision } };
}
