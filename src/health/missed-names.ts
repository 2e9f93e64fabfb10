// Owns the names that the data plane asked for and that were no service then: told when they become one. Clients choose them, so their
// number is bounded. Called by publish.
import type { Clock, Timer } from '../kernel/clock.ts';
import type { ServiceId } from '../model/service.ts';

const MAX_MISSED = 10_000;
const MAX_PENDING = 1_000;
/** The data plane waits 1 s for an answer: a watch that was started on demand gets nearly all of it. */
export const DEMAND_WAIT_MS = 950;

export class MissedNames {
  readonly #clock: Clock;
  readonly #answer: (service: ServiceId) => void;
  readonly #names = new Set<ServiceId>();
  readonly #pending = new Map<ServiceId, Timer>();

  /** `answer`: tells the data plane that there is no such service (now). */
  constructor(clock: Clock, answer: (service: ServiceId) => void) {
    this.#clock = clock;
    this.#answer = answer;
  }

  has(service: ServiceId): boolean {
    return this.#names.has(service);
  }

  /** Notes the name and answers: at once, or after {@link DEMAND_WAIT_MS} when the service may still come. */
  miss(service: ServiceId, mayCome: boolean): void {
    this.remember(service);
    if (this.#pending.has(service)) return;
    if (!mayCome || this.#pending.size >= MAX_PENDING) {
      this.#answer(service);
      return;
    }
    const timer = this.#clock.setTimer(DEMAND_WAIT_MS, () => {
      this.#pending.delete(service);
      this.#answer(service);
    });
    this.#pending.set(service, timer);
  }

  /** Tell when the service comes (back). The oldest name goes when there are too many. */
  remember(service: ServiceId): void {
    this.#names.delete(service);
    this.#names.add(service);
    if (this.#names.size <= MAX_MISSED) return;
    for (const oldest of this.#names) {
      this.found(oldest);
      return;
    }
  }

  /** The service is there. */
  found(service: ServiceId): void {
    this.#names.delete(service);
    this.#pending.get(service)?.cancel();
    this.#pending.delete(service);
  }

  close(): void {
    for (const timer of this.#pending.values()) timer.cancel();
    this.#pending.clear();
    this.#names.clear();
  }
}
