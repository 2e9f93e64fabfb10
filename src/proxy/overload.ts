// Owns pressure and what follows from it (proxy-semantics §16), and the counts of what is in flight. Called by the sampler's
// timer (data-plane.ts) and read by exchange.ts and listener.ts on every request: reading it must cost nothing.
import type { Clock, Timer } from '../kernel/clock.ts';

/** One look at the process, each 0..1 and above: RSS / limit, fds / limit, event-loop delay p99 / 200 ms. */
export interface PressureSample {
  readonly memory: number;
  readonly fds: number;
  readonly loopDelay: number;
}

/** Looks at the process; given by app, since only it may ask the process. */
export type PressureSampler = () => PressureSample;

export const SAMPLE_MS = 250;
const SHRINK_FROM = 0.85;
const SHRINK_TO = 0.95;
const SMALLEST_SCALE = 0.1;
const CLOSE_AT = 0.92;
const SHED_AT = 0.95;
const STOP_ACCEPT_AT = 0.98;

/** Requests and bytes in flight at which new ones are answered 503 (proxy-semantics §3). */
export const MAX_IN_FLIGHT = 4_096;
export const MAX_BUFFERED_BYTES = 256 * 1024 * 1024;

/** Factor for timeouts at this pressure: 1 up to 0.85, falling linearly to 0.1 at 0.95. */
export function timeoutScale(pressure: number): number {
  if (pressure <= SHRINK_FROM) return 1;
  if (pressure >= SHRINK_TO) return SMALLEST_SCALE;
  return 1 - ((pressure - SHRINK_FROM) / (SHRINK_TO - SHRINK_FROM)) * (1 - SMALLEST_SCALE);
}

/** The gate that every request passes; one per data plane. */
export class OverloadGate {
  /** Factor for the timeouts of requests. */
  scale = 1;
  /** Each reply carries `Connection: close`. */
  closing = false;
  /** New requests are answered 503, no retries. */
  shedding = false;
  /** No connection is accepted. */
  stopAccepting = false;
  pressure = 0;
  /** Requests in flight; tunnels and streaming routes are not counted. */
  requests = 0;
  /** Request bytes held for them. */
  bytes = 0;

  /** True when one more request is too much. */
  get full(): boolean {
    return this.shedding || this.requests >= MAX_IN_FLIGHT || this.bytes >= MAX_BUFFERED_BYTES;
  }

  /** Takes one sample; returns true when an action started or ended. */
  update(sample: PressureSample): boolean {
    const pressure = Math.max(sample.memory, sample.fds, sample.loopDelay);
    const before = Number(this.closing) + Number(this.shedding) + Number(this.stopAccepting);
    this.pressure = pressure;
    this.scale = timeoutScale(pressure);
    this.closing = pressure >= CLOSE_AT;
    this.shedding = pressure >= SHED_AT;
    this.stopAccepting = pressure >= STOP_ACCEPT_AT;
    return before !== Number(this.closing) + Number(this.shedding) + Number(this.stopAccepting);
  }
}

/** Samples every 250 ms until the returned timer is cancelled; `onChange` after each sample that changed an action. */
export function watchPressure(gate: OverloadGate, sampler: PressureSampler, clock: Clock, onChange: () => void): Timer {
  let timer: Timer;
  const look = (): void => {
    if (gate.update(sampler())) onChange();
    timer = clock.setTimer(SAMPLE_MS, look);
  };
  timer = clock.setTimer(SAMPLE_MS, look);
  return { cancel: () => timer.cancel() };
}
