// Owns the bounded ring of events (catalog-rules §5): what an operator wants to know after the fact. Not a message bus.
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Metrics } from './metrics.ts';

export type EventType =
  | 'source_stale'
  | 'source_live'
  | 'hold_started'
  | 'hold_confirmed'
  | 'hold_released'
  | 'conflict'
  | 'epoch_changed'
  | 'service_merged'
  | 'last_good_fallback'
  | 'config_reloaded'
  | 'config_reload_failed'
  | 'self_suspect'
  | 'copy_orphan'
  | 'own_listener_dropped'
  | 'registration_lost'
  | 'adapter_failed'
  | 'migration_step'
  | 'migration_stopped'
  | 'migration_owner';

export interface WeirEvent {
  readonly id: number;
  /** Wall ms. */
  readonly at: number;
  readonly type: EventType;
  /** Plain JSON; names from registries are values. */
  readonly details: Readonly<Record<string, unknown>>;
}

const CAPACITY = 10_000;

/** Keeps the last 10,000 events; each is also a log line and a counter. */
export class Events {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #ring: WeirEvent[] = [];
  readonly #listeners = new Set<(event: WeirEvent) => void>();
  #next = 1;

  constructor(clock: Clock, log: Log, metrics: Metrics) {
    this.#clock = clock;
    this.#log = log;
    this.#metrics = metrics;
  }

  emit(type: EventType, details: Record<string, unknown>): void {
    const event: WeirEvent = { id: this.#next++, at: this.#clock.wallNow(), type, details };
    this.#ring.push(event);
    if (this.#ring.length > CAPACITY * 1.1) this.#ring.splice(0, this.#ring.length - CAPACITY);
    this.#metrics.counter('weir_events_total', type).inc();
    this.#log.info({ event: type, ...details }, type);
    for (const listener of this.#listeners) listener(event);
  }

  /** The newest `limit` events, oldest first. */
  recent(limit: number): readonly WeirEvent[] {
    return this.#ring.slice(-limit);
  }

  /** Calls `listener` for every later event, until the returned function is called. */
  subscribe(listener: (event: WeirEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
