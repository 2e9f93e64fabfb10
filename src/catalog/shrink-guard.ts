// Owns R2: which removals are believed, which are held, and what confirms a held one. One SourceGuard per source, one
// ServiceGuard per service of it. Called by catalog with time as an argument; must never set a timer, merge or publish.
// One file although it is long: the rules of R2 only make sense side by side.
import type { Instance, NativeId } from '../model/instance.ts';
import type { HoldPolicy } from '../model/policy.ts';
import { ORIGIN_KEY } from './copies.ts';
import { type Address, compareAddress, indexOfAddress } from './identity.ts';
import { LossWindow } from './loss-window.ts';

/** Probes in a row that must fail before a second read confirms a removal. */
export const FAILED_PROBES = 3;

/** More than this part of a service's instances gone in one answer is held. */
const SERVICE_SHARE = 0.5;
/** More than this part of a source's instances gone within the window is held, from this many on. */
const SOURCE_SHARE = 0.2;
const SOURCE_FLOOR = 10;
/** More than this part of a source's services emptied makes their holds source-wide. */
const EMPTIED_SHARE = 0.5;

export type HoldKind = 'service' | 'sourceWide';

/** A removal that waits for proof. */
export interface Hold {
  /** A source-wide one is never confirmed by time; a hold never turns back into one of a single service. */
  kind: HoldKind;
  /** Monotonic ms. */
  readonly since: number;
  /** Reading of the hold clock (live time of the source) at its start. */
  readonly clockAt: number;
  /** A full read, late enough, missed it again. */
  secondRead: boolean;
}

/** An instance that stays though the last good answer does not carry it. `hold` null: its record came malformed. */
export interface Kept {
  readonly instance: Instance;
  readonly hold: Hold | null;
}

/** One complete answer, addresses judged and records deduplicated. */
export interface Answer {
  /** Sorted by address, no address twice. */
  readonly instances: readonly Instance[];
  readonly rejected: ReadonlySet<NativeId>;
  /** Proven by the protocol; empty where it cannot prove it. */
  readonly deregistered: ReadonlySet<NativeId>;
  /**
   * The source's history began anew since the answer before (wiped, restored, another cluster, R6). What is missing then says more about
   * the registry than about the instances: it is held, and time alone never confirms it.
   */
  readonly newEpoch: boolean;
}

export type Confirmation = 'probe' | 'time' | 'deregistered' | 'operator' | 'addressReused';

/** What an answer did. Lists are empty where nothing happened. */
export interface Outcome {
  readonly added: readonly Instance[];
  /** Gone from the view now, without a hold. */
  readonly removed: readonly Instance[];
  readonly held: readonly Kept[];
  readonly returned: readonly Kept[];
  /** Held before, now proven. */
  readonly confirmed: readonly Kept[];
  /** The holds of this answer are source-wide. */
  readonly sourceWide: boolean;
  /** Something that a view shows may differ. */
  readonly changed: boolean;
}

const NONE: readonly Kept[] = [];
const NO_INSTANCES: readonly Instance[] = [];

/** Counts of one source that the rules need, all kept incrementally. */
export class SourceGuard {
  readonly window = new LossWindow();
  /** Instances known: listed and kept. */
  known = 0;
  /** Services with at least one known instance. */
  populated = 0;
  /** Services of which every known instance is held. */
  emptied = 0;
  /** Instances held. */
  heldInstances = 0;
  /** Services with holds. */
  readonly holding = new Set<ServiceGuard>();
  #wide = false;

  /** True when `lost` more instances now are a source-wide loss (> 20 % of all within 10 s, at least 10). */
  losesTooMuch(lost: number, now: number): boolean {
    const gone = this.window.lost(now) + lost;
    const base = this.known + this.window.applied(now);
    return gone >= SOURCE_FLOOR && gone > base * SOURCE_SHARE;
  }

  /** More than half of the source's services came back empty. */
  get emptiedTooMuch(): boolean {
    return this.emptied > this.populated * EMPTIED_SHARE;
  }

  /** A service came back empty: when that makes too many, every hold of an emptied service becomes source-wide. */
  noteEmptied(service: ServiceGuard): void {
    const tooMuch = this.emptiedTooMuch;
    if (tooMuch && this.#wide) service.widen();
    else if (tooMuch) for (const one of this.holding) if (one.present.length === 0) one.widen();
    // The others were widened when the line was crossed; looking at all of them each time would be quadratic.
    this.#wide = tooMuch;
  }
}

/** What one source is believed to have of one service. */
export class ServiceGuard {
  readonly #source: SourceGuard;
  /** The last good answer, sorted by address. */
  #present: readonly Instance[] = NO_INSTANCES;
  /** Sorted by address; never an address that is present. */
  #kept: readonly Kept[] = NONE;
  /** Holds that ended only because the list names the service again; until the next answer they may turn out to be losses after all. */
  #doubted: readonly Kept[] = NONE;
  #clock = 0;
  #liveSince: number | null = null;
  /** Hold clock at which the next confirming read is wanted. */
  #askAt = Number.POSITIVE_INFINITY;

  constructor(source: SourceGuard) {
    this.#source = source;
  }

  get present(): readonly Instance[] {
    return this.#present;
  }

  get kept(): readonly Kept[] {
    return this.#kept;
  }

  get known(): number {
    return this.#present.length + this.#kept.length;
  }

  get held(): number {
    return this.#kept === NONE ? 0 : this.#kept.reduce((n, one) => n + (one.hold === null ? 0 : 1), 0);
  }

  /** Starts or stops the hold clock: it stands still while the source is lost. */
  setLive(live: boolean, now: number): void {
    if (live) {
      this.#liveSince ??= now;
    } else if (this.#liveSince !== null) {
      this.#clock += now - this.#liveSince;
      this.#liveSince = null;
    }
  }

  /** Live time of this service's source so far, ms. */
  holdClock(now: number): number {
    return this.#clock + (this.#liveSince === null ? 0 : now - this.#liveSince);
  }

  /** Takes what was on disk, as last known good. */
  restore(present: readonly Instance[], held: readonly { instance: Instance; kind: HoldKind }[], now: number): void {
    const clockAt = this.holdClock(now);
    const kept = held.map(({ instance, kind }) => ({ instance, hold: { kind, since: now, clockAt, secondRead: false } }));
    this.#replace(present, kept);
    if (kept.length > 0) this.#askAt = clockAt;
  }

  /** Judges a complete answer by R2 (and R4 for malformed records). */
  answer(answer: Answer, policy: HoldPolicy, now: number): Outcome {
    const split = this.#split(answer);
    const { lost, listedBefore, lostNatives, listedNatives } = split;
    const doubted = this.#doubtedOf(lost);
    const wide = doubted.some(({ hold }) => hold?.kind === 'sourceWide');
    const tooMuch = answer.newEpoch || wide || this.#source.losesTooMuch(lost.length, now);
    const sourceWide = policy.enabled && lost.length > 0 && tooMuch;
    // Its list may have told of the loss before its watch told of the new history.
    if (answer.newEpoch) this.widen();
    // A mirror puts its copies back at once where a registry lost everything: they must not make the loss of the natives look small.
    const most = lost.length > listedBefore * SERVICE_SHARE || lostNatives > listedNatives * SERVICE_SHARE;
    const hold = sourceWide || (policy.enabled && (most || doubted.length > 0));
    const held = hold ? this.#newHolds(lost, sourceWide ? 'sourceWide' : 'service', policy, now) : NONE;
    this.#markSecondRead(split.stillHeld, policy, now);
    this.#source.window.add(now, lost.length, hold ? 0 : lost.length);
    for (const one of split.returned) if (one.hold !== null) this.#source.window.takeBack(now, one.hold.since);
    const changed = this.#present !== answer.instances;
    this.#replace(answer.instances, sortKept([...split.stillHeld, ...split.malformed, ...held]));
    if (this.#present.length === 0 && this.#kept !== NONE) this.#source.noteEmptied(this);
    return {
      added: split.added,
      removed: hold ? split.proven : [...split.proven, ...lost],
      held,
      returned: split.returned,
      confirmed: split.confirmed,
      sourceWide: held.some((one) => one.hold?.kind === 'sourceWide'),
      changed: changed || split.confirmed.length > 0 || split.malformed.length > 0,
    };
  }

  /** Confirms what evidence or time confirms by now. `byTime`: the policy and a migration allow it. Only a live source confirms. */
  reconsider(policy: HoldPolicy, byTime: boolean, failures: (instance: Instance) => number, now: number) {
    if (this.#kept === NONE || this.#liveSince === null) return [];
    const clock = this.holdClock(now);
    const confirmed: { kept: Kept; by: Confirmation }[] = [];
    for (const kept of this.#kept) {
      if (kept.hold === null) continue;
      const timeUp = byTime && kept.hold.kind === 'service' && clock - kept.hold.clockAt >= policy.max;
      if (!policy.enabled) confirmed.push({ kept, by: 'operator' });
      else if (kept.hold.secondRead && failures(kept.instance) >= FAILED_PROBES) confirmed.push({ kept, by: 'probe' });
      else if (timeUp) confirmed.push({ kept, by: 'time' });
    }
    this.#drop(confirmed);
    return confirmed;
  }

  /**
   * The source has the service after all (its list said otherwise for a while): what was held is present again. A registry that was wiped
   * fills up bit by bit, so that the next answer may lack some of it: that is no new loss, however small, but the old one.
   */
  unhold(now: number): readonly Kept[] {
    const back = this.#kept.filter((one) => one.hold !== null);
    for (const { hold } of back) if (hold !== null) this.#source.window.takeBack(now, hold.since);
    this.#doubted = back.length === 0 ? this.#doubted : back;
    const present = [...this.#present, ...back.map((one) => one.instance)].sort(compareAddress);
    this.#replace(
      present,
      this.#kept.filter((one) => one.hold === null),
    );
    return back;
  }

  /** The operator believes the registry: every held instance goes. */
  release(): readonly Kept[] {
    const held = this.#kept.filter((one) => one.hold !== null);
    this.#drop(held.map((kept) => ({ kept })));
    return held;
  }

  /** The address showed up natively under another service: it was reused. */
  dropAddress(address: Address): Kept | null {
    const kept = this.#kept.find((one) => one.hold !== null && compareAddress(one.instance, address) === 0);
    if (kept === undefined) return null;
    this.#drop([{ kept }]);
    return kept;
  }

  /**
   * True when a confirming read is wanted now; it then counts as asked. A hold of a single service asks after `secondRead`;
   * a source-wide one only when a probe speaks for the removal, since a read alone would not confirm it.
   */
  wantsRead(policy: HoldPolicy, failing: () => boolean, now: number): boolean {
    if (this.#kept === NONE || this.#liveSince === null) return false;
    const clock = this.holdClock(now);
    if (clock < this.#askAt) return false;
    const waiting = this.#kept.filter((one) => one.hold !== null && !one.hold.secondRead);
    if (waiting.length === 0) return false;
    if (waiting.every((one) => one.hold?.kind === 'sourceWide') && !failing()) return false;
    this.#askAt = clock + Math.max(policy.secondRead, 1_000);
    return true;
  }

  /** Makes every hold source-wide. */
  widen(): void {
    for (const one of this.#kept) if (one.hold !== null) one.hold.kind = 'sourceWide';
  }

  /** Forgets everything: the source left the config, or its word expired. Nothing counts as lost. */
  clear(): void {
    this.#doubted = NONE;
    this.#replace(NO_INSTANCES, NONE);
  }

  /** Keeps of what is known only what passes (addresses that a new outbound policy refuses leave). Answers what left. */
  retain(passes: (instance: Instance) => boolean): readonly Instance[] {
    const left = [...this.#present, ...this.#kept.map((one) => one.instance)].filter((instance) => !passes(instance));
    if (left.length === 0) return left;
    const gone = new Set(left);
    this.#replace(
      this.#present.filter((instance) => !gone.has(instance)),
      this.#kept.filter((one) => !gone.has(one.instance)),
    );
    return left;
  }

  /** The holds that were doubted, of what an answer lacks; asked for once. */
  #doubtedOf(lost: readonly Instance[]): readonly Kept[] {
    const before = this.#doubted;
    this.#doubted = NONE;
    if (before === NONE || lost.length === 0) return NONE;
    const instances = before.map(({ instance }) => instance);
    return lost.flatMap((instance) => before[indexOfAddress(instances, instance)] ?? []);
  }

  #split(answer: Answer) {
    const lost: Instance[] = [];
    const proven: Instance[] = [];
    const returned: Kept[] = [];
    const confirmed: Kept[] = [];
    const stillHeld: Kept[] = [];
    const malformed: Kept[] = [];
    let listedBefore = 0;
    let listedNatives = 0;
    let lostNatives = 0;
    const judgeListed = (instance: Instance, asMalformed: Kept | null): void => {
      const native = isNative(instance);
      listedBefore++;
      listedNatives += native;
      if (indexOfAddress(answer.instances, instance) >= 0) return;
      if (answer.rejected.has(instance.id)) malformed.push(asMalformed ?? { instance, hold: null });
      else if (answer.deregistered.has(instance.id)) {
        proven.push(instance);
        listedBefore--;
        listedNatives -= native;
      } else {
        lost.push(instance);
        lostNatives += native;
      }
    };
    if (answer.instances !== this.#present) for (const instance of this.#present) judgeListed(instance, null);
    else {
      listedBefore = this.#present.length;
      if (this.#kept !== NONE) for (const instance of this.#present) listedNatives += isNative(instance);
    }
    for (const kept of this.#kept) {
      if (kept.hold === null) judgeListed(kept.instance, kept);
      else if (indexOfAddress(answer.instances, kept.instance) >= 0) returned.push(kept);
      else if (answer.deregistered.has(kept.instance.id)) confirmed.push(kept);
      else if (answer.rejected.has(kept.instance.id)) {
        returned.push(kept);
        malformed.push({ instance: kept.instance, hold: null });
      } else stillHeld.push(kept);
    }
    const added = this.#added(answer.instances);
    return { lost, lostNatives, proven, returned, confirmed, stillHeld, malformed, listedBefore, listedNatives, added };
  }

  #added(next: readonly Instance[]): readonly Instance[] {
    if (next === this.#present) return NO_INSTANCES;
    const kept = this.#kept.map((one) => one.instance);
    return next.filter((instance) => indexOfAddress(this.#present, instance) < 0 && indexOfAddress(kept, instance) < 0);
  }

  #newHolds(lost: readonly Instance[], kind: HoldKind, policy: HoldPolicy, now: number): readonly Kept[] {
    const clockAt = this.holdClock(now);
    this.#askAt = Math.min(this.#askAt, clockAt + policy.secondRead);
    return lost.map((instance) => ({ instance, hold: { kind, since: now, clockAt, secondRead: false } }));
  }

  #markSecondRead(stillHeld: readonly Kept[], policy: HoldPolicy, now: number): void {
    const clock = this.holdClock(now);
    for (const { hold } of stillHeld) if (hold !== null && clock - hold.clockAt >= policy.secondRead) hold.secondRead = true;
  }

  #drop(gone: readonly { readonly kept: Kept }[]): void {
    if (gone.length === 0) return;
    const set = new Set(gone.map((one) => one.kept));
    this.#replace(
      this.#present,
      this.#kept.filter((one) => !set.has(one)),
    );
  }

  #replace(present: readonly Instance[], kept: readonly Kept[]): void {
    this.#count(-1);
    this.#present = present;
    this.#kept = kept.length === 0 ? NONE : kept;
    this.#count(1);
    const held = this.held;
    if (held > 0) this.#source.holding.add(this);
    else {
      this.#source.holding.delete(this);
      this.#askAt = Number.POSITIVE_INFINITY;
    }
  }

  #count(sign: 1 | -1): void {
    const held = this.held;
    this.#source.known += sign * this.known;
    this.#source.heldInstances += sign * held;
    if (this.known > 0) this.#source.populated += sign;
    if (held > 0 && held === this.known) this.#source.emptied += sign;
  }
}

/** 1 for a record that no mirror of ours wrote. */
function isNative({ metadata }: Instance): 0 | 1 {
  return metadata.has(ORIGIN_KEY) ? 0 : 1;
}

function sortKept(kept: Kept[]): readonly Kept[] {
  return kept.sort((a, b) => compareAddress(a.instance, b.instance));
}
