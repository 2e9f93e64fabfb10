// Owns the telling of a source's state: an event and the listeners, once per change. Called by the source desk and at restore.
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Events } from '../telemetry/events.ts';
import type { SourceRecord } from './sources.ts';

export class Announcer {
  readonly #events: Events;
  readonly #log: Log;
  readonly #listeners = new Set<(sourceId: string) => void>();

  constructor(events: Events, log: Log) {
    this.#events = events;
    this.#log = log;
  }

  /** Told the id of every source whose state changed. */
  subscribe(listener: (sourceId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells the state when it is another than the one told last. */
  announce(source: SourceRecord): void {
    const { state, loss } = source;
    if (state === source.announced) return;
    const before = source.announced;
    source.announced = state;
    const { id } = source.config;
    if (state === 'live') this.#events.emit('source_live', { source: id, before });
    else if (state !== 'connecting') {
      const why = loss === null ? { cause: 'restored' } : { cause: loss.cause, message: loss.message };
      this.#events.emit('source_stale', { source: id, state, ...why });
    }
    for (const listener of this.#listeners) {
      try {
        listener(id);
      } catch (thrown) {
        this.#log.error({ error: messageOf(thrown) }, 'a listener of the sources failed');
      }
    }
  }
}
