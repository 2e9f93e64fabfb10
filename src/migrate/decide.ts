// Owns what is to be done about the copies of one service in one target, now: the rules of the mirror (migration.md, by number) as a
// pure function of what both sources say, what the ledger holds and what this process remembers. Called by mirror.ts for every changed
// service. Must never read a clock, call anything, or decide by more than it is given.
import type { WriteReceipt } from '../adapter/contract.ts';
import { isForeignCopy, readMarker } from '../catalog/copies.ts';
import type { SourceAccount } from '../catalog/view.ts';
import type { Instance, RegistryHealth } from '../model/instance.ts';
import {
  type CopyRules,
  type Desired,
  desiredCopy,
  digestOf,
  sameAgain,
  shortDigest,
  showsAll,
  type Withheld,
} from './desired.ts';
import { type Address, addressOf } from './ledger.ts';
import type { LedgerEntry } from './migration.ts';
import { type Standing, standings } from './standing.ts';

/** A target is asked about a write at the earliest this long after it, ms: registries show what they took with a delay. */
export const SETTLE_MS = 5_000;
/** A copy whose health in the target is another than ours for this long is set right, ms. */
export const UNLIKE_MS = 15_000;
/** What others change in our copies, or take away, is set right at most this often, ms. */
export const REPAIR_MS = 60_000;

/** What this process remembers of a copy beside the ledger; a restart forgets it. Monotonic ms. */
export interface Note {
  /** End of our last write of it; -Infinity: by an earlier life. */
  readonly wroteAt: number;
  /** What the target showed first after that (its digest): rounding and its own entries included. Null: not seen yet. */
  readonly shown: string | null;
  /** Since when the target shows another health. */
  readonly unlikeSince: number | null;
  /** End of the last repair that was made; one that only waits for its turn is none. */
  readonly repairedAt: number;
  /** Failed or refused on its own: not before this. */
  readonly waitUntil: number;
  /** Failures in a row. */
  readonly failures: number;
  /** The registry knows its lease no more. */
  readonly forgotten: boolean;
  /** What the registry refused to say (digest and health): as good as no word for it. */
  readonly unsayable: string | null;
}

export const NEW_NOTE: Note = {
  wroteAt: Number.NEGATIVE_INFINITY,
  shown: null,
  unlikeSince: null,
  repairedAt: Number.NEGATIVE_INFINITY,
  waitUntil: Number.NEGATIVE_INFINITY,
  failures: 0,
  forgotten: false,
  unsayable: null,
};

/** Names one content for {@link Note.unsayable}. */
export function contentOf(digest: string, health: RegistryHealth): string {
  return `${health} ${digest}`;
}

/** all: every native of the origin · new: those that are not in the baseline (return copies). */
export type Wants = { readonly kind: 'all' } | { readonly kind: 'new'; readonly baseline: readonly Address[] | null };

export interface DecideInput {
  readonly rules: CopyRules;
  readonly wants: Wants;
  /** Null: the source has no word on the service. */
  readonly origin: SourceAccount | null;
  readonly target: SourceAccount | null;
  /** Of this service in this target. */
  readonly entries: readonly LedgerEntry[];
  /** By the ledger, copies of ours that stand in the origin; empty where the origin keeps metadata (the markers tell there). */
  readonly copiesInOrigin: ReadonlySet<Address>;
  /** The target's adapter can set health alone. */
  readonly setsHealth: boolean;
  readonly notes: ReadonlyMap<Address, Note>;
  /** A call is under way for these. */
  readonly busy: ReadonlySet<Address>;
  /** `target` was read afresh after our last write of the service: it tells what became of a write whose answer was lost. */
  readonly confirmed: boolean;
  /** Monotonic ms. */
  readonly now: number;
  /** End of the grace; null: no complete first read of both sides yet (rule 2). */
  readonly graceEndsAt: number | null;
  /** Removals that the rate leaves. */
  readonly removals: { readonly count: number; readonly nextAt: number };
}

export type PutReason = 'new' | 'changed' | 'again' | 'lost' | 'repair' | 'epoch' | 'adopt' | 'kept';

/** One thing to do. What touches a registry is a put, a health, a remove or a read; the others change the ledger alone. */
export type Action =
  | {
      readonly kind: 'put';
      readonly address: Address;
      readonly instance: Instance;
      readonly digest: string;
      readonly previous: WriteReceipt | null;
      readonly why: PutReason;
    }
  | { readonly kind: 'health'; readonly address: Address; readonly entry: LedgerEntry; readonly health: RegistryHealth }
  | {
      readonly kind: 'remove';
      readonly address: Address;
      readonly entry: LedgerEntry;
      readonly receipt: WriteReceipt;
      /** gone: the origin has it no more · withheld · native: a native record has its address (outside the rate) · ended. */
      readonly why: 'gone' | 'withheld' | 'native' | 'ended';
    }
  | { readonly kind: 'strike'; readonly entry: LedgerEntry; readonly why: string }
  | { readonly kind: 'withhold'; readonly address: Address; readonly instance: Instance; readonly entry: LedgerEntry | null }
  /** Read the target afresh, then decide again. */
  | { readonly kind: 'read' };

export interface Decision {
  readonly actions: readonly Action[];
  /** Notes that changed. */
  readonly notes: ReadonlyMap<Address, Note>;
  /** What the target shows of our copies in a spelling of its own ({@link LedgerEntry.shown}); nothing is written to it for that. */
  readonly learned?: readonly LedgerEntry[];
  /** Decide again then, though nothing changed; Infinity: no need. */
  readonly nextAt: number;
  /** What is waited for, for people; null: nothing. */
  readonly waiting: string | null;
}

/** Rules 1 to 6 of migration.md. */
export function decide(input: DecideInput): Decision {
  const pass = new Pass(input);
  pass.run();
  const { actions, notes, learned, nextAt, waiting } = pass;
  return { actions, notes, learned, nextAt, waiting };
}

class Pass {
  readonly actions: Action[] = [];
  readonly notes = new Map<Address, Note>();
  readonly learned: LedgerEntry[] = [];
  nextAt = Number.POSITIVE_INFINITY;
  waiting: string | null = null;
  readonly #in: DecideInput;
  readonly #standing: ReadonlyMap<Address, Standing>;
  readonly #wanted: ReadonlyMap<Address, Instance>;
  #removalsLeft: number;
  #reads = false;

  constructor(input: DecideInput) {
    this.#in = input;
    this.#standing = standings(input.target, input.entries, input.rules);
    this.#wanted = wantedOf(input);
    this.#removalsLeft = input.removals.count;
  }

  run(): void {
    const known = new Set<Address>();
    for (const entry of this.#in.entries) {
      const address = addressOf(entry);
      known.add(address);
      // Kept copies are ordinary records since their finish.
      if (entry.state !== 'kept' && this.#isFree(address)) this.#known(entry, address);
    }
    for (const [address, instance] of this.#wanted)
      if (!known.has(address) && this.#isFree(address)) this.#new(address, instance);
    for (const [address, { ours }] of this.#standing) {
      if (ours !== null && !known.has(address) && !this.#wanted.has(address) && this.#isFree(address))
        this.#orphan(address, ours);
    }
  }

  // --- copies that the ledger knows ---

  #known(entry: LedgerEntry, address: Address): void {
    const standing = this.#at(address);
    if (standing.natives.length > 0 && this.#targetLive) return this.#replaced(entry, address, standing);
    if (entry.state === 'intent' && !this.#in.confirmed) return this.#read();
    const wanted = this.#wanted.get(address);
    if (wanted === undefined) return this.#goes(entry, address, standing, 'gone');
    const copy = this.#copyOf(wanted, address);
    if (copy.kind === 'withheld') this.#withhold(entry, address, standing, wanted);
    else if (!this.#targetLive) this.#wait('the target is not in touch');
    else this.#keep(entry, address, standing, copy);
  }

  /** Rule 5: a native record of the same address ends its copy. */
  #replaced(entry: LedgerEntry, address: Address, { natives, ours }: Standing): void {
    const { receipt } = entry;
    if (receipt !== null && natives.some(({ id }) => id === receipt.nativeId)) {
      this.actions.push({ kind: 'strike', entry, why: 'a native record took its place' });
    } else if (entry.state === 'withheld' && receipt === null) {
      this.actions.push({ kind: 'strike', entry, why: 'a native record came' });
    } else if (receipt !== null) {
      // Two records of one address are shown as one, so that ours is looked for before it is removed or struck.
      this.actions.push({ kind: 'remove', address, entry, receipt, why: 'native' });
    } else if (ours !== null) this.#adopt(address, ours);
    else if (this.#in.confirmed) this.actions.push({ kind: 'strike', entry, why: 'a native record came' });
    else this.#read();
  }

  /** Rules 1 and 2: what must hold before a copy may go. */
  #goes(entry: LedgerEntry, address: Address, { ours }: Standing, why: 'gone' | 'withheld'): void {
    const { origin, target, graceEndsAt, now, removals } = this.#in;
    if (origin === null || !origin.live) return this.#wait('the origin is not in touch: nothing is removed');
    if (target === null || !target.live) return this.#wait('the target is not in touch');
    if (graceEndsAt === null || graceEndsAt > now) return this.#wait('the grace before the first removal', graceEndsAt);
    if (entry.receipt === null) {
      if (ours !== null) this.#adopt(address, ours);
      else if (why === 'gone') this.actions.push({ kind: 'strike', entry, why: 'the origin is gone, and no copy stands' });
      return;
    }
    if (this.#removalsLeft <= 0) return this.#wait('the rate of removals', removals.nextAt);
    this.#removalsLeft--;
    this.actions.push({ kind: 'remove', address, entry, receipt: entry.receipt, why });
  }

  /** Rule 3: a target without a word for what the origin says has no record at all. */
  #withhold(entry: LedgerEntry, address: Address, standing: Standing, instance: Instance): void {
    if (entry.receipt !== null || standing.ours !== null) return this.#goes(entry, address, standing, 'withheld');
    if (entry.state !== 'withheld') this.actions.push({ kind: 'withhold', address, instance, entry });
  }

  #keep(entry: LedgerEntry, address: Address, standing: Standing, copy: Desired): void {
    const note = this.#note(address);
    const put = (why: PutReason): void => this.#put(address, copy, entry.receipt, why);
    if (entry.state !== 'written' || entry.receipt === null) return put('again');
    if (entry.applied !== copy.digest) return put('changed');
    if (note.forgotten) return put('lost');
    if (entry.health !== copy.instance.health) return this.#setHealth(entry, address, copy);
    if (standing.ours === null) this.#missing(note, put);
    else this.#compare(entry, address, standing.ours, copy, put);
  }

  /** The target shows no record of ours, or one that only the catalog holds. */
  #missing(note: Note, put: (why: PutReason) => void): void {
    const { now, target } = this.#in;
    if (now - note.wroteAt < SETTLE_MS) return this.#wait(null, note.wroteAt + SETTLE_MS);
    if ((target?.goodAt ?? 0) - note.wroteAt < SETTLE_MS) return this.#read();
    if (this.#mayRepair(note)) put('lost');
  }

  /** What the target shows of our copy against what we wrote. */
  #compare(entry: LedgerEntry, address: Address, ours: Instance, copy: Desired, put: (why: PutReason) => void): void {
    const { rules, now, target } = this.#in;
    let note = this.#note(address);
    // An account from before our write shows what stood before it.
    if ((target?.goodAt ?? 0) < note.wroteAt) return;
    const settled = now - note.wroteAt >= SETTLE_MS;
    if (isOlder(ours, rules)) {
      if (!settled) this.#wait(null, note.wroteAt + SETTLE_MS);
      else if (this.#mayRepair(note)) return put('epoch');
    }
    const shown = digestOf(ours, rules.keeps);
    if (note.shown === null) {
      // In an earlier life of ours it has shown this after our write.
      const known = entry.shown !== undefined && entry.shown === shortDigest(shown);
      if (known || showsAll(ours, copy.instance, rules.keeps)) note = this.#remember(address, { shown });
      else if (!settled) this.#wait(null, note.wroteAt + SETTLE_MS);
      // The registry's own spelling of what we wrote, or a foreign edit while we were away: one write settles which.
      else if (Number.isFinite(note.wroteAt)) {
        note = this.#remember(address, { shown });
        this.learned.push({ ...entry, shown: shortDigest(shown) });
      } else if (this.#mayRepair(note)) return put('repair');
    } else if (note.shown !== shown && this.#mayRepair(note)) return put('repair');
    this.#compareHealth(entry, address, ours, copy);
  }

  #compareHealth(entry: LedgerEntry, address: Address, ours: Instance, copy: Desired): void {
    const { now, rules } = this.#in;
    const note = this.#note(address);
    if (!rules.keeps.has('health') || copy.instance.isolated || !contradicts(ours.health, entry.health)) {
      if (note.unlikeSince !== null) this.#remember(address, { unlikeSince: null });
      return;
    }
    const since = note.unlikeSince ?? now;
    if (note.unlikeSince === null) this.#remember(address, { unlikeSince: since });
    if (now - since < UNLIKE_MS) this.#wait(null, since + UNLIKE_MS);
    else if (this.#mayRepair(note)) this.#setHealth(entry, address, copy);
  }

  // --- addresses that the ledger does not know ---

  #new(address: Address, instance: Instance): void {
    const { origin } = this.#in;
    const { natives, others, ours } = this.#at(address);
    if (!this.#targetLive) return this.#wait('the target is not in touch');
    if (origin === null || !origin.live) return this.#wait('the origin is not in touch');
    const copy = this.#copyOf(instance, address);
    // A write whose answer was lost, or a lost page of the ledger.
    if (ours !== null && (copy.kind === 'withheld' || natives.length > 0)) return this.#adopt(address, ours);
    if (natives.length > 0 || (ours === null && others)) return;
    if (copy.kind === 'withheld') this.actions.push({ kind: 'withhold', address, instance, entry: null });
    else this.#put(address, copy, null, ours === null ? 'new' : 'adopt');
  }

  /** A copy of ours that nobody wants and the ledger does not know: taken over first, removed by the rules then. */
  #orphan(address: Address, ours: Instance): void {
    const { origin, wants, now, target } = this.#in;
    const { wroteAt } = this.#note(address);
    // What we have just removed may still be shown: taking it over would write it again.
    if ((target?.goodAt ?? 0) - wroteAt < SETTLE_MS) {
      if (now - wroteAt < SETTLE_MS) this.#wait(null, wroteAt + SETTLE_MS);
      else this.#read();
      return;
    }
    const unknown = wants.kind === 'new' && wants.baseline === null;
    if (this.#targetLive && origin?.live === true && !unknown) this.#adopt(address, ours);
  }

  // --- small parts ---

  get #targetLive(): boolean {
    return this.#in.target?.live === true;
  }

  #at(address: Address): Standing {
    return this.#standing.get(address) ?? NOTHING;
  }

  #copyOf(instance: Instance, address: Address): Desired | Withheld {
    const copy = desiredCopy(instance, this.#in.rules);
    if (copy.kind === 'withheld' || this.#note(address).unsayable !== contentOf(copy.digest, copy.instance.health)) return copy;
    return { kind: 'withheld', reason: 'the target refused to say it' };
  }

  #note(address: Address): Note {
    return this.notes.get(address) ?? this.#in.notes.get(address) ?? NEW_NOTE;
  }

  #remember(address: Address, change: Partial<Note>): Note {
    const note = { ...this.#note(address), ...change };
    this.notes.set(address, note);
    return note;
  }

  /** Neither under way nor put off. */
  #isFree(address: Address): boolean {
    if (this.#in.busy.has(address)) return false;
    const { waitUntil } = this.#note(address);
    if (waitUntil <= this.#in.now) return true;
    this.#wait('a write failed and is tried again', waitUntil);
    return false;
  }

  #mayRepair({ repairedAt }: Note): boolean {
    if (this.#in.now - repairedAt >= REPAIR_MS) return true;
    this.#wait(null, repairedAt + REPAIR_MS);
    return false;
  }

  #setHealth(entry: LedgerEntry, address: Address, copy: Desired): void {
    const { health } = copy.instance;
    if (this.#in.setsHealth && this.#in.rules.keeps.has('health')) this.actions.push({ kind: 'health', address, entry, health });
    else this.#put(address, copy, entry.receipt, 'changed');
  }

  #put(address: Address, { instance, digest }: Desired, previous: WriteReceipt | null, why: PutReason): void {
    this.actions.push({ kind: 'put', address, instance, digest, previous, why });
  }

  /** Writes our record again as it stands: the answer is the receipt that the ledger lacks. */
  #adopt(address: Address, ours: Instance): void {
    const instance = sameAgain(ours, this.#in.rules.origin);
    const digest = digestOf(instance, this.#in.rules.keeps);
    this.actions.push({ kind: 'put', address, instance, digest, previous: null, why: 'adopt' });
  }

  #read(): void {
    if (!this.#reads) this.actions.push({ kind: 'read' });
    this.#reads = true;
  }

  #wait(what: string | null, until: number | null = null): void {
    if (what !== null) this.waiting = what;
    if (until !== null) this.nextAt = Math.min(this.nextAt, until);
  }
}

const NOTHING: Standing = { ours: null, natives: [], others: false };

/** Rule 5: what of the origin may be copied at all, by address. Held counts as there (rule 2). */
function wantedOf({ origin, wants, copiesInOrigin }: DecideInput): ReadonlyMap<Address, Instance> {
  const wanted = new Map<Address, Instance>();
  if (wants.kind === 'new' && wants.baseline === null) return wanted;
  const old = new Set(wants.kind === 'new' ? wants.baseline : []);
  for (const { instance } of origin?.instances ?? []) {
    const address = addressOf(instance);
    if (!isNative(instance) || copiesInOrigin.has(address) || old.has(address) || wanted.has(address)) continue;
    wanted.set(address, instance);
  }
  return wanted;
}

/** Neither a copy of any migration nor of another tool. */
export function isNative({ metadata }: Instance): boolean {
  return readMarker(metadata) === null && !isForeignCopy(metadata);
}

/** Rule 11: written by an owner before us. */
function isOlder({ metadata }: Instance, { keeps, epoch }: CopyRules): boolean {
  if (!keeps.has('metadata')) return false;
  return Number(readMarker(metadata)?.epoch ?? 0) < epoch;
}

/** `unknown` contradicts nothing: most registries cannot say it, and some say it of their own. */
function contradicts(shown: RegistryHealth, written: RegistryHealth): boolean {
  return shown !== written && shown !== 'unknown' && written !== 'unknown';
}
