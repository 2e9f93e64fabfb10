// Owns one ownership's view of a ledger in a shared store: which revision of each key it read or wrote last. Every write compares that, so
// that whoever was overtaken is told. Called by shared-store.ts; must never take another owner's write for its own.
import { createHash } from 'node:crypto';
import type { StateStore } from '../adapter/state-store.ts';
import { raceAbort } from '../kernel/cancel.ts';
import type { ServiceId } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import { isEmptyPage } from './codec.ts';
import { GroupCommit } from './group-commit.ts';
import type { LedgerPage } from './migration.ts';
import { clear, eachOf, keyPart, ledgerOf, listBelow } from './shared-keys.ts';
import { partKey, planPage, readLedger, type Shape, WHOLE } from './shared-page.ts';

/** What is known of one key. */
interface Known {
  /** Null: it is not there. */
  readonly revision: string | null;
  /** Of the value; empty where there is none. */
  readonly digest: string;
  /** Values that we tried to write since, without hearing whether it was done. */
  readonly tried: ReadonlySet<string>;
}

const ABSENT: Known = { revision: null, digest: '', tried: new Set() };
const MAX_TRIES = 4;

export interface SharedLedgerDeps {
  readonly state: StateStore;
  readonly id: string;
  /** Text that no other ownership has. */
  readonly writer: string;
  /** Aborts when the right to write may be lost. */
  readonly lost: AbortSignal;
}

export class SharedLedger {
  readonly #deps: SharedLedgerDeps;
  readonly #prefix: string;
  readonly #known = new Map<string, Known>();
  readonly #shapes = new Map<ServiceId, Shape>();
  readonly #commit = new GroupCommit<LedgerPage>((pages) => this.#saveAll(pages));
  #overtaken = false;
  #generations = 0;
  #read = false;

  constructor(deps: SharedLedgerDeps) {
    this.#deps = deps;
    this.#prefix = ledgerOf(deps.id);
  }

  /**
   * The ledger as it stands. The first read is what later writes are compared with; another one changes nothing of that.
   * Throws WeirError MIGRATION_JOURNAL, SourceError.
   */
  async read(signal: AbortSignal): Promise<ReadonlyMap<ServiceId, LedgerPage>> {
    const { state, id } = this.#deps;
    const entries = await listBelow(state, this.#prefix, signal);
    const { pages, shapes, strays } = readLedger(id, this.#prefix, entries);
    if (this.#read) return pages;
    this.#read = true;
    const stray = new Set(strays.map(({ key }) => key));
    for (const { key, value, revision } of entries) {
      if (!stray.has(key)) this.#known.set(key, { revision, digest: digestOf(value), tried: new Set() });
    }
    for (const [service, shape] of shapes) this.#shapes.set(service, shape);
    // What cannot be cleared now is cleared by the next owner.
    await clear(state, strays, signal).catch(() => undefined);
    return pages;
  }

  /** Resolves once the pages stand in the store. Throws SourceError: `fenced` = own again, read again. */
  save(pages: readonly LedgerPage[], signal: AbortSignal): Promise<void> {
    this.#mayWrite();
    return pages.length === 0 ? Promise.resolve() : raceAbort(this.#commit.add(pages), signal);
  }

  #mayWrite(): void {
    if (this.#overtaken || this.#deps.lost.aborted)
      throw new SourceError('fenced', `the right to write for the migration ${this.#deps.id} is lost`);
  }

  async #saveAll(pages: readonly LedgerPage[]): Promise<void> {
    const newest = [...new Map(pages.map((page) => [page.service, page])).values()];
    await eachOf(newest, (page) => this.#savePage(page));
  }

  async #savePage(page: LedgerPage): Promise<void> {
    const key = this.#prefix + keyPart(page.service);
    const before = this.#shapes.get(page.service) ?? WHOLE;
    if (isEmptyPage(page)) {
      await this.#write(key, null);
      this.#shapes.delete(page.service);
      return this.#dropParts(key, before);
    }
    const nextGeneration = (): string => `${digestOf(this.#deps.writer).slice(0, 8)}-${++this.#generations}`;
    const { shape, parts, head } = planPage(page, key, before, this.#deps.writer, nextGeneration);
    await eachOf(parts, ([part, text]) => this.#write(part, text));
    await this.#write(key, head);
    this.#shapes.set(page.service, shape);
    if (shape.generation !== before.generation) await this.#dropParts(key, before);
  }

  /** No head names them any more: what stays is a stray, which the next owner clears. */
  async #dropParts(head: string, { generation, parts }: Shape): Promise<void> {
    const keys = Array.from({ length: parts }, (_, n) => partKey(head, generation, n));
    await eachOf(keys, (key) => this.#write(key, null).catch(() => undefined));
  }

  /** Writes (null: deletes) a key that must be as we know it. */
  async #write(key: string, text: string | null): Promise<void> {
    const { state, lost } = this.#deps;
    const digest = text === null ? '' : digestOf(text);
    for (let n = 0; n < MAX_TRIES; n++) {
      this.#mayWrite();
      const known = this.#known.get(key) ?? ABSENT;
      if (known.tried.size > 0 && n === 0) await this.#settle(key, known);
      const { revision, digest: stored, tried } = this.#known.get(key) ?? ABSENT;
      if (stored === digest) return;
      // Before the call: what becomes of it may never be known.
      this.#known.set(key, { revision, digest: stored, tried: new Set([...tried, digest]) });
      const entry = await state.cas(key, text, revision, lost);
      if (entry !== null) {
        if (text === null) this.#known.delete(key);
        else this.#known.set(key, { revision: entry.revision, digest, tried: new Set() });
        return;
      }
      await this.#settle(key, { revision, digest: stored, tried });
    }
    throw this.#fenced(key);
  }

  /** Looks what became of earlier tries; throws `fenced` when somebody else wrote the key. */
  async #settle(key: string, known: Known): Promise<void> {
    const { state, lost } = this.#deps;
    const found = await state.get(key, lost);
    const revision = found?.revision ?? null;
    const digest = found === null ? '' : digestOf(found.value);
    // A try may still be under way in the store: it stays on the list.
    if (revision !== known.revision && !known.tried.has(digest)) throw this.#fenced(key);
    this.#known.set(key, { revision, digest, tried: known.tried });
  }

  #fenced(key: string): SourceError {
    this.#overtaken = true;
    return new SourceError('fenced', `another owner of the migration ${this.#deps.id} wrote ${key}`);
  }
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
