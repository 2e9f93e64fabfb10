// Owns how fast copies may go (migration.md rule 2): in any minute 15 % of a service's copies in one source, at least one. Called by
// the mirror. Must never count what a native record replaces, nor the end of a migration: those are outside the rate.
import type { ServiceId } from '../model/service.ts';

const WINDOW_MS = 60_000;

export class Removals {
  /** Shares of 1. */
  readonly #share: number;
  /** Times of the removals of the last minute, oldest first. */
  readonly #recent = new Map<string, number[]>();

  constructor(percentPerMinute: number) {
    this.#share = percentPerMinute / 100;
  }

  /** How many may go now, of `copies` that stand now; and when the next one may where none may. */
  left(target: string, service: ServiceId, copies: number, now: number): { readonly count: number; readonly nextAt: number } {
    const recent = this.#current(target, service, now);
    // Measured at what stood a minute ago, so that a shrinking service does not shrink its own allowance.
    const allowed = Math.max(1, Math.floor((copies + recent.length) * this.#share));
    return { count: Math.max(0, allowed - recent.length), nextAt: (recent[recent.length - allowed] ?? now) + WINDOW_MS };
  }

  /** One goes now. */
  take(target: string, service: ServiceId, now: number): void {
    const recent = this.#current(target, service, now);
    recent.push(now);
    this.#recent.set(keyOf(target, service), recent);
  }

  /** Services that are remembered; each for a minute after its last removal, or until it is asked for. */
  get size(): number {
    return this.#recent.size;
  }

  /** Forgets what is older than a minute; called now and then. */
  sweep(now: number): void {
    for (const [key, times] of this.#recent) if ((times.at(-1) ?? 0) <= now - WINDOW_MS) this.#recent.delete(key);
  }

  #current(target: string, service: ServiceId, now: number): number[] {
    const key = keyOf(target, service);
    const times = this.#recent.get(key);
    if (times === undefined) return [];
    const recent = times.filter((at) => at > now - WINDOW_MS);
    if (recent.length === 0) this.#recent.delete(key);
    else this.#recent.set(key, recent);
    return recent;
  }
}

function keyOf(target: string, service: ServiceId): string {
  return `${target}\u0000${service}`;
}
