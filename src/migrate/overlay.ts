// Owns what running migrations say of the merge of a service (migration.md "Phases"): MergeOverlay for the catalog, from phase and
// weight alone. Called by migrations.ts; asked by the catalog at every merge, so it answers from a Map. Must never do I/O.
import type { MergePolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import { compilePattern, type Pattern } from '../settings/pattern.ts';
import type { Phase } from './migration.ts';

/** All of a migration that the read side needs; also what every sidecar keeps on its own disk. */
export interface OverlayEntry {
  readonly id: string;
  readonly from: string;
  readonly to: string;
  readonly services: readonly string[];
  readonly phase: Phase;
  readonly weight: number;
  readonly sticky: string | null;
}

export interface Overlaid {
  readonly merge: MergePolicy;
  readonly migration: string;
  readonly holdsByTime: boolean;
  readonly isolationIgnores?: string;
  readonly sticky?: string;
}

interface Compiled {
  readonly entry: OverlayEntry;
  readonly patterns: readonly Pattern[];
  readonly said: Overlaid | null;
}

/** A service is asked for again and again; this many answers are kept. */
const MAX_KNOWN = 20_000;

export class Overlay {
  #entries: readonly Compiled[] = [];
  readonly #known = new Map<ServiceId, Overlaid | null>();

  /** Takes the migrations as they stand. Answers whether any service's overlay may have changed. */
  set(entries: readonly OverlayEntry[]): boolean {
    const before = JSON.stringify(this.#entries.map(({ entry }) => entry));
    if (before === JSON.stringify(entries)) return false;
    this.#entries = entries.map((entry) => ({ entry, patterns: entry.services.map(compilePattern), said: overlayOf(entry) }));
    this.#known.clear();
    return true;
  }

  get entries(): readonly OverlayEntry[] {
    return this.#entries.map(({ entry }) => entry);
  }

  of(service: ServiceId): Overlaid | null {
    if (this.#entries.length === 0) return null;
    const known = this.#known.get(service);
    if (known !== undefined) return known;
    // At most one migration that has not ended takes a service; a newer one stands before an ended one.
    const matching = this.#entries.filter(({ said, patterns }) => said !== null && patterns.some((matches) => matches(service)));
    const found = matching.find(({ entry }) => entry.phase !== 'finished') ?? matching[0];
    const said = found?.said ?? null;
    if (this.#known.size >= MAX_KNOWN) this.#known.clear();
    this.#known.set(service, said);
    return said;
  }
}

/** The read side of each phase. Null: the settings' own policy. */
export function overlayOf({ id, from, to, phase, weight, sticky }: OverlayEntry): Overlaid | null {
  const migrating = { migration: id, holdsByTime: false } as const;
  switch (phase) {
    case 'mirror':
      return { merge: { kind: 'prefer', order: [from, to] }, ...migrating };
    case 'shift':
      return {
        merge: { kind: 'weighted', shares: [share(from, 100 - weight), share(to, weight)] },
        ...migrating,
        ...(sticky === null ? {} : { sticky }),
      };
    case 'cutover':
      return { merge: { kind: 'prefer', order: [to, from] }, ...migrating, isolationIgnores: from };
    case 'finished':
      return { merge: { kind: 'prefer', order: [to] }, migration: id, holdsByTime: true };
    case 'plan':
    case 'aborting':
    case 'aborted':
      return null;
  }
}

function share(source: string, of: number): { readonly source: string; readonly share: number } {
  return { source, share: of };
}
