// What the transports of all kinds share: whether the registry is there, what goes down with it, and who arrived when.
// Called by the transports and by herd.ts.
import type { HerdClock } from './clock.ts';

/** Names of the services that every registry has. */
export const SERVICES: readonly string[] = Array.from({ length: 4 }, (_, n) => `svc-${n}`);

export class World {
  readonly clock: HerdClock;
  /** Every request that was answered since the return: time (ms since then) and sidecar. */
  readonly arrivals: { readonly at: number; readonly sidecar: number }[] = [];
  /** Requests and connects that were refused while the registry was down. */
  refused = 0;
  #up = true;
  #since = 0;
  readonly #open = new Set<() => void>();

  constructor(clock: HerdClock) {
    this.clock = clock;
  }

  get up(): boolean {
    return this.#up;
  }

  /** Every open connection breaks, and no new one comes about. */
  fall(): void {
    this.#up = false;
    for (const cut of [...this.#open]) cut();
    this.#open.clear();
  }

  rise(): void {
    this.#up = true;
    this.#since = this.clock.now();
    this.arrivals.length = 0;
  }

  /** A request of this sidecar; false: refused. */
  ask(sidecar: number): boolean {
    if (!this.#up) this.refused++;
    else this.arrivals.push({ at: this.clock.now() - this.#since, sidecar });
    return this.#up;
  }

  /** `cut` is called when the registry falls, unless the answer was called before. */
  whenCut(cut: () => void): () => void {
    this.#open.add(cut);
    return () => void this.#open.delete(cut);
  }
}

/** Undone at the end of a run, last first. */
export type Ends = (() => void)[];

/** Puts another function in the place of a method until the end of the run. */
export function replace(ends: Ends, target: object, name: string, method: unknown): void {
  const before = Object.getOwnPropertyDescriptor(target, name);
  Object.defineProperty(target, name, {
    value: method,
    configurable: true,
    writable: true,
    enumerable: before?.enumerable ?? true,
  });
  ends.push(() => {
    if (before === undefined) Reflect.deleteProperty(target, name);
    else Object.defineProperty(target, name, before);
  });
}

/** Sidecar n speaks to an address of its own, by which the transports know it. */
export function hostOf(sidecar: number): string {
  return `127.9.${sidecar >> 8}.${sidecar & 255}`;
}

/** The sidecar that an address (or a text with one in it) belongs to. */
export function sidecarOf(text: string): number {
  const [, high, low] = /127\.9\.(\d+)\.(\d+)/.exec(text) ?? [];
  if (high === undefined || low === undefined) throw new Error(`no address of a sidecar in ${text}`);
  return Number(high) * 256 + Number(low);
}
