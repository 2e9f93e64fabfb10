// Owns when a service is looked at: soon after a change (coalesced, W6), when it waits for time, and once in five minutes anyway. Called
// by mirror.ts. Three timers, whatever the number of services; a change of one never visits another.
import type { Clock, Timer } from '../kernel/clock.ts';
import type { ServiceId } from '../model/service.ts';

/** Changes of one service within this time are one, ms. */
const COALESCE_MS = 20;
/** Services that one turn of the event loop looks at. */
const PER_TURN = 200;
/** Every service is looked at once in this time though nothing changed, ms; spread evenly. */
export const SWEEP_MS = 300_000;
const SWEEP_STEP_MS = 5_000;

export interface AgendaDeps {
  readonly clock: Clock;
  readonly look: (service: ServiceId) => void;
  /** After each turn. */
  readonly turned: () => void;
  /** All services, for the sweep. */
  readonly all: () => Iterable<ServiceId>;
  readonly sweep: (service: ServiceId) => void;
}

export class Agenda {
  readonly #deps: AgendaDeps;
  /** Since when each is to be looked at; the first to come is the first to be looked at. */
  readonly #dirty = new Map<ServiceId, number>();
  readonly #due = new Map<ServiceId, number>();
  #turn: Timer | null = null;
  #alarm: { readonly timer: Timer; readonly at: number } | null = null;
  #sweep: Timer | null = null;
  #sweeping: Iterator<ServiceId> = [].values();
  #share = 0;
  #closed = false;

  constructor(deps: AgendaDeps) {
    this.#deps = deps;
  }

  /** Starts the sweep. */
  start(): void {
    if (this.#closed) return;
    this.#sweep = this.#deps.clock.setTimer(SWEEP_STEP_MS, () => {
      this.#step();
      this.start();
    });
  }

  add(service: ServiceId): void {
    if (this.#closed || this.#dirty.has(service)) return;
    this.#dirty.set(service, this.#deps.clock.now());
    this.#turn ??= this.#deps.clock.setTimer(COALESCE_MS, () => this.#onTurn());
  }

  /** Look at it then; Infinity: time alone brings nothing. Monotonic ms. */
  later(service: ServiceId, at: number): void {
    if (this.#closed) return;
    if (!Number.isFinite(at)) this.#due.delete(service);
    else {
      this.#due.set(service, at);
      if (this.#alarm === null || at < this.#alarm.at) this.#arm(at);
    }
  }

  drop(service: ServiceId): void {
    this.#due.delete(service);
  }

  /** Since when the oldest change waits to be looked at, monotonic ms; null: none does. */
  oldest(): number | null {
    for (const since of this.#dirty.values()) return since;
    return null;
  }

  close(): void {
    this.#closed = true;
    this.#turn?.cancel();
    this.#alarm?.timer.cancel();
    this.#sweep?.cancel();
    this.#dirty.clear();
    this.#due.clear();
  }

  #onTurn(): void {
    this.#turn = null;
    let left = PER_TURN;
    for (const service of this.#dirty.keys()) {
      if (left-- === 0) break;
      this.#dirty.delete(service);
      this.#deps.look(service);
    }
    if (this.#dirty.size > 0 && !this.#closed) this.#turn ??= this.#deps.clock.setTimer(1, () => this.#onTurn());
    this.#deps.turned();
  }

  #arm(at: number): void {
    this.#alarm?.timer.cancel();
    const now = this.#deps.clock.now();
    const ms = Math.max(COALESCE_MS, at - now);
    this.#alarm = { at: now + ms, timer: this.#deps.clock.setTimer(ms, () => this.#onAlarm()) };
  }

  #onAlarm(): void {
    this.#alarm = null;
    const now = this.#deps.clock.now();
    let next = Number.POSITIVE_INFINITY;
    for (const [service, at] of this.#due) {
      if (at > now) next = Math.min(next, at);
      else {
        this.#due.delete(service);
        this.add(service);
      }
    }
    if (Number.isFinite(next)) this.#arm(next);
  }

  #step(): void {
    let item = this.#sweeping.next();
    if (item.done === true) {
      const all = [...this.#deps.all()];
      this.#share = Math.ceil((all.length * SWEEP_STEP_MS) / SWEEP_MS);
      this.#sweeping = all.values();
      item = this.#sweeping.next();
    }
    for (let n = 1; item.done !== true; n++) {
      this.#deps.sweep(item.value);
      if (n >= this.#share) break;
      item = this.#sweeping.next();
    }
  }
}
