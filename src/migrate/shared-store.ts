// Owns the migrations of a fleet in a shared store: documents, reports of sidecars, ledgers, one owner each. Called by app through the
// MigrationStore port; must never write a ledger without the lock, nor over what it cannot read.
import type { StateEntry, StateStore } from '../adapter/state-store.ts';
import type { Clock } from '../kernel/clock.ts';
import { parseJson } from '../kernel/decode.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import { Mailbox } from '../kernel/mailbox.ts';
import type { ServiceId } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import { decodeDoc, decodeReport, encodeDoc, encodeReport, type Read } from './codec.ts';
import type { LedgerPage, MigrationDoc, SidecarReport } from './migration.ts';
import type { MigrationStore, Ownership, StoredDoc } from './ports.ts';
import { clear, DOCS, docKey, keyPart, ledgerOf, listBelow, lockKey, REPORTS, reportsOf } from './shared-keys.ts';
import { SharedLedger } from './shared-ledger.ts';
import { takeOwnership } from './shared-ownership.ts';
import { readLedger } from './shared-page.ts';

const MAX_VALUE_BYTES = 4 * 1024 * 1024;

export interface SharedStoreDeps {
  /** Stays open: whoever opened it closes it, after this store. */
  readonly state: StateStore;
  /** A target's own store, for fences (`adapter.stateStore()`); null: it has none. */
  readonly stateOf: (source: string) => StateStore | null;
  /** This sidecar's name in the fleet. */
  readonly sidecar: string;
  readonly log: Log;
  readonly clock: Clock;
}

/** Connects at the first call. */
export function openSharedStore(deps: SharedStoreDeps): MigrationStore {
  return new SharedStore(deps);
}

interface Held {
  readonly ownership: Ownership;
  readonly ledger: SharedLedger;
}

class SharedStore implements MigrationStore {
  readonly shared = true;
  readonly #deps: SharedStoreDeps;
  readonly #held = new Map<string, Held>();
  /** Ledgers that could not be read, with the reason. */
  readonly #damaged = new Map<string, string>();
  readonly #refresh = new Set<() => void>();
  readonly #closed = new AbortController();

  constructor(deps: SharedStoreDeps) {
    this.#deps = deps;
  }

  async *watch(signal: AbortSignal): AsyncGenerator<readonly StoredDoc[], void, void> {
    const over = new AbortController();
    const until = AbortSignal.any([signal, over.signal, this.#closed.signal]);
    const box = new Mailbox<readonly StoredDoc[]>();
    let docs: readonly StateEntry[] | null = null;
    let reports: readonly StateEntry[] | null = null;
    const put = (): void => {
      if (docs !== null && reports !== null) box.put(joined(docs, reports, this.#damaged));
    };
    const follow = async (prefix: string, take: (entries: readonly StateEntry[]) => void): Promise<void> => {
      try {
        for await (const entries of this.#deps.state.watch(prefix, until)) {
          take(entries);
          put();
        }
        throw new SourceError('lost', 'the shared store ended a watch');
      } catch (thrown) {
        // After an abort nobody reads this.
        box.fail(thrown);
      }
    };
    this.#refresh.add(put);
    const loops = [
      follow(DOCS, (entries) => {
        docs = entries;
      }),
      follow(REPORTS, (entries) => {
        reports = entries;
      }),
    ];
    try {
      yield* box.read(AbortSignal.any([signal, this.#closed.signal]));
    } finally {
      this.#refresh.delete(put);
      over.abort(new Error('nobody watches any more'));
      await Promise.all(loops);
    }
  }

  async putDoc(doc: MigrationDoc, expected: string | null, signal: AbortSignal): Promise<string | null> {
    const { id } = doc.spec;
    const { state } = this.#deps;
    const until = this.#until(signal);
    const text = JSON.stringify(encodeDoc(doc));
    if (expected === null) {
      // Listed before the look at the document: what stands there then is of an earlier migration of this id, whose end was cut short.
      const left = await this.#belongings(id, until);
      if ((await state.get(docKey(id), until)) !== null) return null;
      await clear(state, left, until);
    }
    return (await state.cas(docKey(id), text, expected, until))?.revision ?? null;
  }

  async dropDoc(id: string, expected: string, signal: AbortSignal): Promise<boolean> {
    const { state, log } = this.#deps;
    const until = this.#until(signal);
    if ((await state.cas(docKey(id), null, expected, until)) === null) return false;
    try {
      await clear(state, await this.#belongings(id, until), until);
    } catch (thrown) {
      log.warn(
        { migration: id, error: messageOf(thrown) },
        'what belonged to a dropped migration is left until its id is used again',
      );
    }
    this.#damaged.delete(id);
    return true;
  }

  async ledger(id: string, signal: AbortSignal): Promise<ReadonlyMap<ServiceId, LedgerPage>> {
    const until = this.#until(signal);
    try {
      const pages = await this.#readLedger(id, until);
      if (this.#damaged.delete(id)) this.#tell();
      return pages;
    } catch (thrown) {
      if (thrown instanceof WeirError) {
        this.#damaged.set(id, thrown.message);
        this.#tell();
      }
      throw thrown;
    }
  }

  async savePages(id: string, pages: readonly LedgerPage[], signal: AbortSignal): Promise<void> {
    const reason = this.#damaged.get(id);
    if (reason !== undefined) throw new WeirError('MIGRATION_JOURNAL', reason, { details: { migration: id } });
    const held = this.#held.get(id);
    if (held === undefined) throw new SourceError('fenced', `this sidecar does not own the migration ${id}`);
    await held.ledger.save(pages, this.#until(signal));
  }

  async report(id: string, report: SidecarReport, signal: AbortSignal): Promise<void> {
    const { state } = this.#deps;
    const until = this.#until(signal);
    const key = reportsOf(id) + keyPart(report.sidecar);
    const text = JSON.stringify(encodeReport(report));
    // Only this sidecar writes the key: the second try is for an answer that was lost.
    for (let n = 0; n < 2; n++) {
      const now = await state.get(key, until);
      if ((await state.cas(key, text, now?.revision ?? null, until)) !== null) return;
    }
    throw new SourceError('lost', `another sidecar reports as ${report.sidecar}: each needs an id of its own`);
  }

  /** Read the ledger after it and before the first write: what is written is compared with what was read then. */
  async own(id: string, targets: readonly string[], signal: AbortSignal): Promise<Ownership> {
    const { state, sidecar } = this.#deps;
    const { ownership, writer } = await takeOwnership(this.#deps, id, targets, sidecar, this.#until(signal));
    const held = { ownership, ledger: new SharedLedger({ state, id, writer, lost: ownership.lost }) };
    this.#held.set(id, held);
    const forget = (): void => {
      if (this.#held.get(id) === held) this.#held.delete(id);
    };
    if (ownership.lost.aborted) forget();
    else ownership.lost.addEventListener('abort', forget, { once: true });
    return ownership;
  }

  async close(): Promise<void> {
    this.#closed.abort(new Error('the migration store is closed'));
    await Promise.all([...this.#held.values()].map(({ ownership }) => ownership.release()));
  }

  #readLedger(id: string, signal: AbortSignal): Promise<ReadonlyMap<ServiceId, LedgerPage>> {
    const held = this.#held.get(id);
    if (held !== undefined) return held.ledger.read(signal);
    const prefix = ledgerOf(id);
    return listBelow(this.#deps.state, prefix, signal).then((entries) => readLedger(id, prefix, entries).pages);
  }

  async #belongings(id: string, signal: AbortSignal): Promise<readonly StateEntry[]> {
    const { state } = this.#deps;
    // Consul keeps the key of a lock that was given up.
    const lock = await state.get(lockKey(id), signal);
    const below = [...(await listBelow(state, ledgerOf(id), signal)), ...(await listBelow(state, reportsOf(id), signal))];
    return lock === null ? below : [...below, lock];
  }

  #tell(): void {
    for (const put of this.#refresh) put();
  }

  #until(signal: AbortSignal): AbortSignal {
    const until = AbortSignal.any([signal, this.#closed.signal]);
    until.throwIfAborted();
    return until;
  }
}

function joined(
  docs: readonly StateEntry[],
  reports: readonly StateEntry[],
  damaged: ReadonlyMap<string, string>,
): readonly StoredDoc[] {
  const byId = new Map<string, SidecarReport[]>();
  for (const { key, value } of reports) {
    const id = key.slice(REPORTS.length, key.indexOf('/', REPORTS.length));
    const read = readJson(value, decodeReport);
    // A report that cannot be read is silence: nothing goes on by it.
    if (read.ok) byId.set(id, [...(byId.get(id) ?? []), read.value]);
  }
  return docs.map(({ key, value, revision }): StoredDoc => {
    const id = key.slice(DOCS.length);
    const read = readJson(value, decodeDoc);
    const reason = read.ok
      ? read.value.spec.id === id
        ? (damaged.get(id) ?? null)
        : 'the document of another migration'
      : read.reason;
    if (read.ok && reason === null) return { kind: 'doc', doc: read.value, revision, reports: byId.get(id) ?? [] };
    return { kind: 'broken', id, reason: damaged.get(id) ?? `shared store, key ${key}: ${reason}` };
  });
}

function readJson<T>(text: string, decode: (value: unknown) => Read<T>): Read<T> {
  const parsed = parseJson(text, { maxBytes: MAX_VALUE_BYTES });
  return parsed.ok ? decode(parsed.value) : { ok: false, reason: 'no JSON' };
}
