// Owns which services have traffic (D6: a pick, or a first use, in the last 60 s). One timer, and only while somebody uses anything.
// Called by publish; costs what is in use, never what exists.
import type { Clock, Timer } from '../kernel/clock.ts';
import type { ServiceId } from '../model/service.ts';

/** D6: a cluster without a pick for this long has no traffic. */
export const TRAFFIC_MS = 60_000;
const SWEEP_MS = 2_000;

export interface TrafficDeps {
  readonly clock: Clock;
  /** Services picked from within the last ms. */
  readonly activeServices: (withinMs: number) => Iterable<ServiceId>;
  /** The answer of `isActive` changed; not called for `use` and `forget`. */
  readonly onChange: (service: ServiceId) => void;
}

export class Traffic {
  readonly #deps: TrafficDeps;
  /** Monotonic ms of the newest use, of the services that the data plane has. */
  readonly #usedAt = new Map<ServiceId, number>();
  readonly #active = new Set<ServiceId>();
  #timer: Timer | null = null;
  #closed = false;

  constructor(deps: TrafficDeps) {
    this.#deps = deps;
  }

  isActive(service: ServiceId): boolean {
    return this.#active.has(service);
  }

  /** The data plane uses the service from now on. */
  use(service: ServiceId): void {
    this.#usedAt.set(service, this.#deps.clock.now());
    this.#active.add(service);
    this.#arm();
  }

  /** The service is gone. */
  forget(service: ServiceId): void {
    this.#usedAt.delete(service);
    this.#active.delete(service);
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#timer !== null || this.#closed || this.#usedAt.size === 0) return;
    this.#timer = this.#deps.clock.setTimer(SWEEP_MS, () => {
      this.#timer = null;
      this.#look();
      this.#arm();
    });
  }

  #look(): void {
    const now = this.#deps.clock.now();
    const changed: ServiceId[] = [];
    // Twice the time between two looks: a pick is seen at least once.
    for (const service of this.#deps.activeServices(2 * SWEEP_MS)) {
      if (!this.#usedAt.has(service)) continue;
      this.#usedAt.set(service, now);
      if (this.#active.has(service)) continue;
      this.#active.add(service);
      changed.push(service);
    }
    for (const service of this.#active) {
      if (now - (this.#usedAt.get(service) ?? 0) <= TRAFFIC_MS) continue;
      this.#active.delete(service);
      changed.push(service);
    }
    for (const service of changed) this.#deps.onChange(service);
  }
}
