// Owns the way between a registration with its targets and a line of the journal. Pure; called by registrations.ts.
import type { WriteReceipt } from '../adapter/contract.ts';
import type { ServiceKey } from '../model/service.ts';
import type { JournalEntry } from './journal.ts';
import type { Registration } from './registration.ts';
import type { KnownRecord, Target } from './target.ts';

export interface JournaledTarget {
  readonly sourceId: string;
  readonly key: ServiceKey;
  readonly known: KnownRecord | null;
  readonly leftovers: readonly WriteReceipt[];
}

export function entryOf(
  registration: Registration,
  flags: { readonly declared: boolean; readonly leaving: boolean; readonly healthy: boolean | null },
  targets: readonly Target[],
): JournalEntry {
  const { service, id, host, port, weight, metadata, protocol, version, sources, ttl, healthCheck, onUnhealthy } = registration;
  return {
    service: { ...service },
    id,
    declared: flags.declared,
    leaving: flags.leaving,
    healthy: flags.healthy,
    host,
    port,
    weight,
    metadata: [...metadata],
    ...(protocol !== undefined && { protocol }),
    ...(version !== undefined && { version }),
    sources: sources === null ? null : [...sources],
    ttl,
    healthCheck:
      healthCheck === null
        ? null
        : { ...healthCheck, expectedStatuses: healthCheck.expectedStatuses.map(([from, to]): [number, number] => [from, to]) },
    onUnhealthy,
    targets: targets.map(targetOf),
  };
}

function targetOf({ sourceId, key, receipt, applied, leftovers }: Target): JournalEntry['targets'][number] {
  // A receipt whose record may have changed since (a forgotten lease) is still what a put must prove ownership by.
  const known = receipt === null ? null : { receipt, body: applied?.body ?? '', health: applied?.health ?? ('unknown' as const) };
  return { sourceId, key: { ...key }, ...(known !== null && { known }), leftovers: [...leftovers] };
}

export function registrationIn(entry: JournalEntry): Registration {
  const { service, id, host, port, weight, metadata, protocol, version, sources, ttl, healthCheck, onUnhealthy } = entry;
  return {
    service,
    id,
    host,
    port,
    weight,
    metadata: new Map(metadata),
    ...(protocol !== undefined && { protocol }),
    ...(version !== undefined && { version }),
    sources,
    ttl,
    healthCheck,
    onUnhealthy,
  };
}

export function targetsIn(entry: JournalEntry): JournaledTarget[] {
  return entry.targets.map(({ sourceId, key, known, leftovers }) => ({
    sourceId,
    key,
    known:
      known === undefined ? null : { receipt: receiptOf(known.receipt), applied: { body: known.body, health: known.health } },
    leftovers: leftovers.map(receiptOf),
  }));
}

function receiptOf({ service, nativeId, leaseId, token }: WrittenReceipt): WriteReceipt {
  return { service, nativeId, ...(leaseId !== undefined && { leaseId }), ...(token !== undefined && { token }) };
}

type WrittenReceipt = JournalEntry['targets'][number]['leftovers'][number];
