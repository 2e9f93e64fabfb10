// A SourceSink that writes down what it is told; for tests of adapters and of the supervisor.
import type { SourceSink } from '../../src/adapter/source-sink.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import type { ServiceList, Snapshot, SourceError } from '../../src/model/snapshot.ts';

/** What was told, in order. `id` is null for the source as a whole. */
export type Told =
  | { readonly what: 'list'; readonly list: ServiceList }
  | { readonly what: 'snapshot'; readonly id: string; readonly snapshot: Snapshot }
  | { readonly what: 'unchanged'; readonly id: string }
  | { readonly what: 'lost'; readonly id: string | null; readonly error: SourceError };

export class RecordingSink implements SourceSink {
  readonly told: Told[] = [];

  list(_sourceId: string, list: ServiceList): void {
    this.told.push({ what: 'list', list });
  }

  snapshot(_sourceId: string, key: ServiceKey, snapshot: Snapshot): void {
    this.told.push({ what: 'snapshot', id: serviceId(key), snapshot });
  }

  unchanged(_sourceId: string, key: ServiceKey): void {
    this.told.push({ what: 'unchanged', id: serviceId(key) });
  }

  lost(_sourceId: string, key: ServiceKey | null, error: SourceError): void {
    this.told.push({ what: 'lost', id: key === null ? null : serviceId(key), error });
  }

  snapshots(key: ServiceKey): Snapshot[] {
    const id = serviceId(key);
    return this.told.flatMap((one) => (one.what === 'snapshot' && one.id === id ? [one.snapshot] : []));
  }

  lists(): ServiceList[] {
    return this.told.flatMap((one) => (one.what === 'list' ? [one.list] : []));
  }

  /** Losses of one service, or of the source as a whole (null). */
  losses(key: ServiceKey | null): SourceError[] {
    const id = key === null ? null : serviceId(key);
    return this.told.flatMap((one) => (one.what === 'lost' && one.id === id ? [one.error] : []));
  }

  /** `host:port` of the newest snapshot, sorted. */
  addresses(key: ServiceKey): string[] {
    const last = this.snapshots(key).at(-1);
    return last?.kind === 'present' ? last.instances.map(({ host, port }) => hostPort(host, port)).sort() : [];
  }

  /** Index among the snapshots of the first with at least `count` instances. */
  firstFull(key: ServiceKey, count: number): number {
    return this.snapshots(key).findIndex((snapshot) => snapshot.kind === 'present' && snapshot.instances.length >= count);
  }
}
