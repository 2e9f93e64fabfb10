// Owns which services are watched because somebody uses them: begun at first use, ended when idle, new unlisted names at a bounded rate.
// Called by sources.ts. One timer for all of them.
import type { Clock, Timer } from '../kernel/clock.ts';
import type { ServiceId } from '../model/service.ts';

/** A service that nobody used for this long is not watched on demand any more, ms. */
export const IDLE_MS = 600_000;
const SWEEP_MS = 60_000;
/** architecture.md §5: names that no source lists, a second. */
const NEW_UNLISTED_A_SECOND = 10;

export class OnDemandUse {
  readonly #clock: Clock;
  readonly #drop: (service: ServiceId) => void;
  readonly #used = new Map<ServiceId, number>();
  #timer: Timer | null = null;
  #second = 0;
  #newInSecond = 0;
  #closed = false;

  constructor(clock: Clock, drop: (service: ServiceId) => void) {
    this.#clock = clock;
    this.#drop = drop;
  }

  /** Notes a use. False: a new name that no source lists, over this second's number; ask again later. */
  use(service: ServiceId, unlisted: boolean): boolean {
    if (this.#closed) return false;
    const now = this.#clock.now();
    if (unlisted && !this.#used.has(service) && !this.#allowNew(now)) return false;
    this.#used.set(service, now);
    this.#timer ??= this.#clock.setTimer(SWEEP_MS, () => this.#sweep());
    return true;
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #allowNew(now: number): boolean {
    const second = Math.floor(now / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#newInSecond = 0;
    }
    return ++this.#newInSecond <= NEW_UNLISTED_A_SECOND;
  }

  #sweep(): void {
    this.#timer = null;
    const now = this.#clock.now();
    for (const [service, at] of this.#used) {
      if (now - at < IDLE_MS) continue;
      this.#used.delete(service);
      this.#drop(service);
    }
    if (this.#used.size > 0 && !this.#closed) this.#timer = this.#clock.setTimer(SWEEP_MS, () => this.#sweep());
  }
}
