// Owns what is let into the catalog of one answer: outbound policy (reliability.md §4), limits of a record, duplicates (M1), forged
// markers (M4). Called by catalog for every snapshot; must never decide what an absence means (shrink-guard does).
import { canonicalHost, hostPort } from '../kernel/address.ts';
import { type DialPolicy, type DialRefusal, REFUSAL_TEXT } from '../kernel/dial.ts';
import { type Instance, MAX_WEIGHT, type NativeId } from '../model/instance.ts';
import type { Interner } from '../model/intern.ts';
import { compareText } from '../model/service.ts';
import type { RejectedRecord } from '../model/snapshot.ts';
import { readMarker, withoutForgedMarkers } from './copies.ts';
import { compareAddress } from './identity.ts';
import type { MergeSource } from './merge-input.ts';
import { sameRecord } from './same.ts';

export interface Admitted {
  /** Sorted by address, no address twice; the very array of `previous` when nothing changed. */
  readonly instances: readonly Instance[];
  /** Records refused here, beside those that the adapter refused. */
  readonly refused: readonly (RejectedRecord & { readonly rule: DialRefusal | 'badRecord' })[];
  readonly duplicates: MergeSource['duplicates'];
}

const NO_DUPLICATES: MergeSource['duplicates'] = [];

/** Admits the records of one answer. `previous` is what was listed before, sorted by address: equal records keep their objects. */
export function admit(given: readonly Instance[], previous: readonly Instance[], dial: DialPolicy, interner: Interner): Admitted {
  const refused: (RejectedRecord & { rule: DialRefusal | 'badRecord' })[] = [];
  const good: Instance[] = [];
  for (const raw of given) {
    let instance = raw;
    let fault = recordFault(raw) ?? dial(raw.host, raw.port);
    if (fault === 'badHost') {
      instance = withCanonicalHost(raw);
      fault = dial(instance.host, instance.port);
    }
    if (fault === null) good.push(instance);
    else refused.push({ nativeId: instance.id, reason: reasonOf(instance, fault), rule: fault });
  }
  const sorted = isSorted(good);
  const { instances, duplicates } = sorted
    ? { instances: good, duplicates: NO_DUPLICATES }
    : withoutDuplicates(good.sort(compareRecords));
  return { instances: reuse(instances, previous, interner), refused, duplicates };
}

/** M1: adapters canonicalise; one that does not must not split an instance in two. */
function withCanonicalHost(instance: Instance): Instance {
  const host = canonicalHost(instance.host);
  return host === null || host === instance.host ? instance : { ...instance, host };
}

function recordFault(instance: Instance): 'badRecord' | null {
  const { weight } = instance;
  return Number.isInteger(weight) && weight >= 0 && weight <= MAX_WEIGHT ? null : 'badRecord';
}

function reasonOf(instance: Instance, fault: DialRefusal | 'badRecord'): string {
  if (fault === 'badRecord') return `the weight is no whole number in 0..${MAX_WEIGHT}`;
  return `${hostPort(instance.host, instance.port).slice(0, 80)}: ${REFUSAL_TEXT[fault]}`;
}

/** M1: native before copy, then the lexically smaller id. */
function compareRecords(a: Instance, b: Instance): number {
  const order = compareAddress(a, b);
  if (order !== 0) return order;
  const copies = Number(readMarker(a.metadata) !== null) - Number(readMarker(b.metadata) !== null);
  return copies === 0 ? compareText(a.id, b.id) : copies;
}

/** Strictly ascending: sorted and without duplicates. */
function isSorted(list: readonly Instance[]): boolean {
  let last: Instance | null = null;
  for (const instance of list) {
    if (last !== null && compareAddress(last, instance) >= 0) return false;
    last = instance;
  }
  return true;
}

function withoutDuplicates(sorted: readonly Instance[]): { instances: readonly Instance[]; duplicates: Admitted['duplicates'] } {
  const instances: Instance[] = [];
  const duplicates: { address: string; ids: NativeId[] }[] = [];
  for (const instance of sorted) {
    const last = instances.at(-1);
    if (last === undefined || compareAddress(last, instance) !== 0) {
      instances.push(instance);
      continue;
    }
    const address = hostPort(instance.host, instance.port);
    const listed = duplicates.at(-1);
    if (listed?.address === address) listed.ids.push(instance.id);
    else duplicates.push({ address, ids: [last.id, instance.id] });
  }
  return { instances, duplicates: duplicates.length === 0 ? NO_DUPLICATES : duplicates };
}

/** Takes the earlier object wherever the record is equal, shares the parts of the others. */
function reuse(next: readonly Instance[], previous: readonly Instance[], interner: Interner): readonly Instance[] {
  let at = 0;
  let same = next.length === previous.length;
  const kept = next.map((instance, i) => {
    let earlier = previous[at];
    while (earlier !== undefined && compareAddress(earlier, instance) < 0) earlier = previous[++at];
    const metadata = withoutForgedMarkers(instance.metadata);
    const clean = metadata === instance.metadata ? instance : { ...instance, metadata };
    if (earlier !== undefined && sameRecord(earlier, clean)) {
      if (earlier !== previous[i]) same = false;
      return earlier;
    }
    same = false;
    return interner.instance(instance, metadata);
  });
  return same ? previous : kept;
}
