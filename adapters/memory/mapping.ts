// Owns the way from a record of the embedded registry to what the catalog may see: canonical host, bounded metadata, allowed
// address. Called by adapter.ts for every snapshot.
import type { AdapterDeps } from '../../src/adapter/contract.ts';
import { canonicalHost } from '../../src/kernel/address.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, MAX_WEIGHT, type NativeId } from '../../src/model/instance.ts';
import { boundedMetadata } from '../../src/model/metadata.ts';
import type { RejectedRecord, Snapshot } from '../../src/model/snapshot.ts';

export class Judge {
  readonly #dial: DialPolicy;
  readonly #count: AdapterDeps['count'];
  /** Records are immutable, so each is made canonical once; equal snapshots keep their instances. Null: it cannot be. */
  readonly #canonical = new WeakMap<Instance, Instance | null>();

  constructor(dial: DialPolicy, count: AdapterDeps['count']) {
    this.#dial = dial;
    this.#count = count;
  }

  /** The registry's own snapshot with every record judged; `deregistered` is added where there is any. */
  snapshot(raw: Snapshot, deregistered: readonly NativeId[]): Snapshot {
    if (raw.kind === 'absent') return raw;
    const instances: Instance[] = [];
    const rejected: RejectedRecord[] = [];
    for (const record of raw.instances) {
      const judged = this.#judge(record);
      if (typeof judged === 'string') rejected.push({ nativeId: record.id, reason: judged });
      else instances.push(judged);
    }
    return { ...raw, instances, rejected, ...(deregistered.length > 0 && { deregistered }) };
  }

  #judge(record: Instance): Instance | string {
    let canonical = this.#canonical.get(record);
    if (canonical === undefined) {
      canonical = this.#canonicalize(record);
      this.#canonical.set(record, canonical);
    }
    if (canonical === null) return 'host, port or weight is malformed';
    // Asked each time: own listeners change on reload.
    const refusal = this.#dial(canonical.host, canonical.port);
    return refusal === null ? canonical : REFUSAL_TEXT[refusal];
  }

  #canonicalize(record: Instance): Instance | null {
    const host = canonicalHost(record.host);
    const weighted = Number.isInteger(record.weight) && record.weight >= 0 && record.weight <= MAX_WEIGHT;
    if (host === null || !weighted) return null;
    const { metadata, cut } = boundedMetadata(record.metadata);
    if (cut > 0) this.#count('metadataCut', cut);
    return { ...record, host, metadata };
  }
}
