// Owns what is known of our copies while weir runs (W3): the pages of one migration, in memory, found in one step. Called by the mirror
// (which alone changes it where this sidecar owns the migration), by the catalog of every sidecar, and by status. Must never do I/O.
import type { ServiceId } from '../model/service.ts';
import type { CopyState, LedgerEntry, LedgerPage } from './migration.ts';

/** An address within one service and source: `host:port/transport` as the baseline spells it. */
export type Address = string;

/** What stands in one source of one migration. */
export type CopyCounts = { readonly [state in CopyState]: number };

interface Page {
  baseline: readonly Address[] | null;
  /** By {@link entryKey}. */
  readonly entries: Map<string, LedgerEntry>;
}

/** The address of an entry, an instance or a baseline item. IPv6 hosts stand without brackets: nobody splits it again. */
export function addressOf(at: { readonly host: string; readonly port: number; readonly transport: 'tcp' | 'udp' }): Address {
  return `${at.host}:${at.port}/${at.transport}`;
}

export class Ledger {
  readonly #pages = new Map<ServiceId, Page>();
  readonly #counts = new Map<string, Record<CopyState, number>>();

  constructor(pages: ReadonlyMap<ServiceId, LedgerPage> = new Map()) {
    for (const page of pages.values()) this.put(page);
  }

  /** Copies of all sources and states. */
  get size(): number {
    let size = 0;
    for (const counts of this.#counts.values()) for (const n of Object.values(counts)) size += n;
    return size;
  }

  page(service: ServiceId): LedgerPage | undefined {
    const page = this.#pages.get(service);
    return page === undefined ? undefined : { service, baseline: page.baseline, entries: [...page.entries.values()] };
  }

  /** Replaces a page; one without baseline and entries is forgotten. */
  put(page: LedgerPage): void {
    for (const entry of this.#pages.get(page.service)?.entries.values() ?? []) this.#count(entry, -1);
    this.#pages.delete(page.service);
    if (page.baseline === null && page.entries.length === 0) return;
    const entries = new Map(page.entries.map((entry) => [keyOf(entry), entry]));
    for (const entry of entries.values()) this.#count(entry, 1);
    this.#pages.set(page.service, { baseline: page.baseline, entries });
  }

  setBaseline(service: ServiceId, baseline: readonly Address[]): void {
    this.#of(service).baseline = baseline;
  }

  /** Writes one entry, in the place of the one that has its address. */
  write(entry: LedgerEntry): void {
    const { entries } = this.#of(entry.service);
    const key = keyOf(entry);
    const before = entries.get(key);
    if (before !== undefined) this.#count(before, -1);
    entries.set(key, entry);
    this.#count(entry, 1);
  }

  /** Drops one entry; what stands in the registry is no longer our matter. */
  strike(entry: LedgerEntry): void {
    const page = this.#pages.get(entry.service);
    const before = page?.entries.get(keyOf(entry));
    if (page === undefined || before === undefined) return;
    page.entries.delete(keyOf(entry));
    this.#count(before, -1);
    if (page.entries.size === 0 && page.baseline === null) this.#pages.delete(entry.service);
  }

  entry(target: string, service: ServiceId, host: string, port: number, transport: 'tcp' | 'udp'): LedgerEntry | undefined {
    return this.#pages.get(service)?.entries.get(entryKey(target, { host, port, transport }));
  }

  /** Copies of one service in one source. */
  entriesIn(target: string, service: ServiceId): LedgerEntry[] {
    const found: LedgerEntry[] = [];
    for (const entry of this.#pages.get(service)?.entries.values() ?? []) if (entry.target === target) found.push(entry);
    return found;
  }

  /**
   * Origin of a copy of ours at this address of this source; null: none stands there (a kept one is an ordinary record). `nativeId`: of the
   * record that is asked about, which may be another one at the same address.
   */
  copyOrigin(service: ServiceId, source: string, host: string, port: number, nativeId?: string): string | null {
    for (const transport of ['tcp', 'udp'] as const) {
      const entry = this.entry(source, service, host, port, transport);
      if (entry === undefined || entry.state === 'kept' || entry.state === 'withheld') continue;
      if (nativeId === undefined || mayBe(entry, nativeId)) return entry.origin;
    }
    return null;
  }

  *pages(): Generator<LedgerPage, void, void> {
    for (const service of this.#pages.keys()) {
      const page = this.page(service);
      if (page !== undefined) yield page;
    }
  }

  services(): Iterable<ServiceId> {
    return this.#pages.keys();
  }

  /** By source. */
  counts(): ReadonlyMap<string, CopyCounts> {
    return this.#counts;
  }

  #of(service: ServiceId): Page {
    let page = this.#pages.get(service);
    if (page === undefined) {
      page = { baseline: null, entries: new Map() };
      this.#pages.set(service, page);
    }
    return page;
  }

  #count({ target, state }: LedgerEntry, by: number): void {
    let counts = this.#counts.get(target);
    if (counts === undefined) {
      counts = { intent: 0, written: 0, withheld: 0, removing: 0, kept: 0 };
      this.#counts.set(target, counts);
    }
    counts[state] += by;
    if (Object.values(counts).every((n) => n === 0)) this.#counts.delete(target);
  }
}

/** By its id; where no answer has told us the id of our record, any could be it. */
export function mayBe({ receipt }: LedgerEntry, nativeId: string): boolean {
  return receipt === null || receipt.nativeId === nativeId;
}

function keyOf(entry: LedgerEntry): string {
  return entryKey(entry.target, entry);
}

function entryKey(
  target: string,
  at: { readonly host: string; readonly port: number; readonly transport: 'tcp' | 'udp' },
): string {
  return `${target}\u0000${addressOf(at)}`;
}
