// Owns the way from a record of the file to an Instance. Pure; called by mirror.ts.
import { canonicalHost, hostPort } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, type Locality, NORMAL_WEIGHT, scaleWeight } from '../../src/model/instance.ts';
import { boundedMetadata } from '../../src/model/metadata.ts';
import type { RejectedRecord } from '../../src/model/snapshot.ts';
import type { FileRecord } from './native.ts';

const TWICE = 'the same id (or address) stands in this service twice';

export interface Mapped {
  readonly instances: readonly Instance[];
  readonly rejected: readonly RejectedRecord[];
  /** Metadata entries that were over a limit. */
  readonly cut: number;
}

/** Maps one service's records; the same id twice keeps the first. `normal`: the file's own normal weight. */
export function mapRecords(records: readonly FileRecord[], dial: DialPolicy, normal: number | null): Mapped {
  const instances = new Map<string, Instance>();
  const rejected: RejectedRecord[] = [];
  let cut = 0;
  for (const record of records) {
    const mapped = mapRecord(record, dial, normal ?? NORMAL_WEIGHT);
    if (typeof mapped === 'string') rejected.push({ nativeId: record.id ?? `${record.host}:${record.port}`, reason: mapped });
    else if (instances.has(mapped.instance.id)) rejected.push({ nativeId: mapped.instance.id, reason: TWICE });
    else {
      instances.set(mapped.instance.id, mapped.instance);
      cut += mapped.cut;
    }
  }
  return { instances: [...instances.values()], rejected, cut };
}

/** The instance, or why there is none. */
function mapRecord(record: FileRecord, dial: DialPolicy, normal: number): { instance: Instance; cut: number } | string {
  const host = canonicalHost(record.host);
  if (host === null) return REFUSAL_TEXT.badHost;
  const refused = dial(host, record.port);
  if (refused !== null) return REFUSAL_TEXT[refused];
  const weight = scaleWeight(record.weight ?? normal, normal);
  if (weight === null) return 'the weight is no finite number >= 0';
  const { metadata, cut } = boundedMetadata(Object.entries(record.metadata ?? {}));
  const locality = mapLocality(record.locality);
  const instance: Instance = {
    id: record.id ?? hostPort(host, record.port),
    host,
    port: record.port,
    transport: record.transport ?? 'tcp',
    weight,
    // A file knows nothing of health; checks decide.
    health: 'unknown',
    isolated: record.isolated ?? false,
    ...(record.protocol !== undefined && { protocol: record.protocol }),
    ...(record.version !== undefined && { version: record.version }),
    ...(locality !== null && { locality }),
    metadata,
  };
  return { instance, cut };
}

function mapLocality(raw: FileRecord['locality']): Locality | null {
  if (raw === undefined) return null;
  const { region, zone, campus } = raw;
  const locality = {
    ...(region !== undefined && { region }),
    ...(zone !== undefined && { zone }),
    ...(campus !== undefined && { campus }),
  };
  return Object.keys(locality).length === 0 ? null : locality;
}
