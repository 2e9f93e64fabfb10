// Owns what is known of addresses that left a service lately (R3: 10 min), so that a flap does not forget failures. Called by the prober.
import type { Clock } from '../kernel/clock.ts';
import type { AskMemory } from './ask.ts';

/** R3. */
export const REMEMBER_MS = 600_000;
const MAX_REMEMBERED = 20_000;

export class AskMemories {
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #kept = new Map<string, { readonly memory: AskMemory; readonly until: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#kept.size;
  }

  keep(key: string, memory: AskMemory): void {
    const now = this.#clock.now();
    this.#kept.delete(key);
    this.#kept.set(key, { memory, until: now + REMEMBER_MS });
    for (const [oldest, { until }] of this.#kept) {
      if (this.#kept.size <= MAX_REMEMBERED && until > now) return;
      this.#kept.delete(oldest);
    }
  }

  /** What is known, once; null when nothing is, or it is too old. */
  take(key: string): AskMemory | null {
    const found = this.#kept.get(key);
    this.#kept.delete(key);
    return found !== undefined && found.until > this.#clock.now() ? found.memory : null;
  }
}
