// Owns how the keys of one service become its list: the layout's rules across keys, then one record per address. Pure.
// Called by feed.ts and adapter.ts, so that a watch and a read say the same.
import { hostPort } from '../../src/kernel/address.ts';
import type { Instance } from '../../src/model/instance.ts';
import { compareText, type ServiceKey } from '../../src/model/service.ts';
import type { RejectedRecord } from '../../src/model/snapshot.ts';
import { type KeyRecord, type MappingOptions, nativeServiceOf } from './mapping.ts';

/** One key of a service with what it says. */
export interface Found {
  /** With the prefix. */
  readonly key: string;
  readonly record: KeyRecord;
  readonly modRevision: bigint;
}

/** The keys of one service after the rules that its layout has across keys. Costs nothing in layouts without such rules. */
export function combined(service: ServiceKey, found: readonly Found[], options: MappingOptions): readonly Found[] {
  const { layout, prefix, namespace } = options;
  const native = nativeServiceOf(service, layout, namespace);
  if (layout.combine === undefined || typeof native === 'string') return found;
  const ordered = [...found].sort((a, b) => compareText(a.key, b.key));
  const members = ordered.map(({ key, record: { instances, tag } }) => ({
    key: key.slice(prefix.length),
    instances,
    ...(tag === undefined ? {} : { tag }),
  }));
  const counting = layout.combine(native, members);
  return ordered.flatMap((one, n) => {
    const instances = counting[n] ?? null;
    if (instances === null) return [];
    return [instances === one.record.instances ? one : { ...one, record: { ...one.record, instances } }];
  });
}

/** The instances of several keys as one list: one address once (highest revision wins, section 10) and once for each migration, sorted by id. */
export function mergeKeys(records: Iterable<{ readonly record: KeyRecord; readonly modRevision: bigint }>): {
  instances: readonly Instance[];
  rejected: readonly RejectedRecord[];
  duplicates: number;
} {
  const byAddress = new Map<string, { instance: Instance; modRevision: bigint }>();
  const rejected: RejectedRecord[] = [];
  let duplicates = 0;
  for (const { record, modRevision } of records) {
    for (const one of record.rejected) rejected.push(one);
    for (const instance of record.instances) {
      // A mirror's copy beside the provider's own key is no duplicate: whoever counts them as one must see both.
      const copyOf = instance.metadata.get('weir-migration') ?? '';
      const address = `${hostPort(instance.host, instance.port)} ${instance.transport} ${copyOf}`;
      const other = byAddress.get(address);
      if (other !== undefined) duplicates++;
      if (other === undefined || isNewer(instance, modRevision, other)) byAddress.set(address, { instance, modRevision });
    }
  }
  const instances = [...byAddress.values()].map((one) => one.instance).sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  return { instances, rejected, duplicates };
}

function isNewer(instance: Instance, modRevision: bigint, other: { instance: Instance; modRevision: bigint }): boolean {
  if (modRevision !== other.modRevision) return modRevision > other.modRevision;
  return instance.id < other.instance.id;
}
