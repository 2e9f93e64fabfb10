// Owns the port from the supervisor up to whoever keeps what sources say (catalog implements it). Types only.
import type { ServiceKey } from '../model/service.ts';
import type { ServiceList, Snapshot, SourceError } from '../model/snapshot.ts';

/** Takes what one source says, in the source's own words. Calls are synchronous and never throw. */
export interface SourceSink {
  /** The whole list of names in scope. */
  list(sourceId: string, list: ServiceList): void;
  snapshot(sourceId: string, key: ServiceKey, snapshot: Snapshot): void;
  /** Heard from, nothing changed. */
  unchanged(sourceId: string, key: ServiceKey): void;
  /** One service (or, with key null, the source as a whole) was lost; nothing may be removed. */
  lost(sourceId: string, key: ServiceKey | null, error: SourceError): void;
}
