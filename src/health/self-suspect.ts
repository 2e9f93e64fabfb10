// Owns the question whether WE are the problem (R8): most targets that passed their previous check fail within one interval.
// Called by the prober with every counted result. Pure state; must never look at a verdict.

/** More than this share fails … */
const SHARE = 0.7;
/** … of at least so many targets … */
const MIN_TARGETS = 10;
/** … of at least so many services. */
const MIN_SERVICES = 2;

/** A check that is judged; the object is its identity. */
export interface Suspectable {
  /** ms between its checks. */
  readonly interval: number;
  /** Services that ask for it. */
  services(): Iterable<string>;
}

interface Entry {
  readonly at: number;
  readonly ok: boolean;
}

/** Results of one interval's length of checks with that interval; a Map keeps them in the order of time. */
class Window<T extends Suspectable> {
  readonly #length: number;
  readonly #entries = new Map<T, Entry>();
  #failed = 0;

  constructor(length: number) {
    this.#length = length;
  }

  get size(): number {
    return this.#entries.size;
  }

  get failed(): number {
    return this.#failed;
  }

  add(target: T, ok: boolean, at: number): void {
    this.delete(target);
    this.#entries.set(target, { at, ok });
    if (!ok) this.#failed++;
  }

  delete(target: T): void {
    const entry = this.#entries.get(target);
    if (entry === undefined) return;
    this.#entries.delete(target);
    if (!entry.ok) this.#failed--;
  }

  prune(now: number): void {
    for (const [target, { at }] of this.#entries) {
      if (now - at <= this.#length) return;
      this.delete(target);
    }
  }

  targets(): Iterable<T> {
    return this.#entries.keys();
  }
}

/** Freezes when most fail at once; thaws when at most 70 % of those are still failing. */
export class SelfSuspect<T extends Suspectable> {
  readonly #windows = new Map<number, Window<T>>();
  /** While frozen: the targets of the judgement and whether their newest result passed. */
  #frozen: Map<T, boolean> | null = null;
  #passing = 0;

  get frozen(): boolean {
    return this.#frozen !== null;
  }

  /** Numbers for people: targets judged, and those of them that fail. */
  get counts(): { readonly targets: number; readonly failed: number } {
    if (this.#frozen !== null) return { targets: this.#frozen.size, failed: this.#frozen.size - this.#passing };
    return totals([...this.#windows.values()]);
  }

  /** Notes a result. `previousOk`: the check before it passed. The answer says what changed. */
  note(target: T, previousOk: boolean, ok: boolean, now: number): 'froze' | 'thawed' | null {
    if (this.#frozen !== null) return this.#noteFrozen(target, ok);
    if (!previousOk) return null;
    let window = this.#windows.get(target.interval);
    if (window === undefined) {
      window = new Window(target.interval);
      this.#windows.set(target.interval, window);
    }
    window.add(target, ok, now);
    return !ok && this.#judge(window, now) ? 'froze' : null;
  }

  /** The target is checked no more. */
  forget(target: T): 'thawed' | null {
    for (const window of this.#windows.values()) window.delete(target);
    const passed = this.#frozen?.get(target);
    if (this.#frozen === null || passed === undefined) return null;
    this.#frozen.delete(target);
    if (passed) this.#passing--;
    return this.#maybeThaw();
  }

  /** Fast and slow checks are judged apart, else the slow ones' old passes would hide an outage; and all together. */
  #judge(own: Window<T>, now: number): boolean {
    const windows = [...this.#windows.values()];
    for (const window of windows) window.prune(now);
    const guilty = isMost([own]) ? [own] : isMost(windows) ? windows : null;
    if (guilty === null) return false;
    const targets = guilty.flatMap((window) => [...window.targets()]);
    if (!spreadOver(targets)) return false;
    this.#frozen = new Map(targets.map((target) => [target, false]));
    this.#passing = 0;
    this.#windows.clear();
    return true;
  }

  #noteFrozen(target: T, ok: boolean): 'thawed' | null {
    const before = this.#frozen?.get(target);
    if (before === undefined || before === ok) return null;
    this.#frozen?.set(target, ok);
    this.#passing += ok ? 1 : -1;
    return this.#maybeThaw();
  }

  #maybeThaw(): 'thawed' | null {
    const size = this.#frozen?.size ?? 0;
    if (size >= MIN_TARGETS && size - this.#passing > SHARE * size) return null;
    this.#frozen = null;
    this.#passing = 0;
    return 'thawed';
  }
}

function totals<T extends Suspectable>(windows: readonly Window<T>[]): { targets: number; failed: number } {
  let targets = 0;
  let failed = 0;
  for (const window of windows) {
    targets += window.size;
    failed += window.failed;
  }
  return { targets, failed };
}

function isMost<T extends Suspectable>(windows: readonly Window<T>[]): boolean {
  const { targets, failed } = totals(windows);
  return targets >= MIN_TARGETS && failed > SHARE * targets;
}

function spreadOver(targets: readonly Suspectable[]): boolean {
  const services = new Set<string>();
  for (const target of targets) {
    for (const service of target.services()) services.add(service);
    if (services.size >= MIN_SERVICES) return true;
  }
  return false;
}
