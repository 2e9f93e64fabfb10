// Documents, pages and reports of migrations for the tests of their stores.
import type { LedgerEntry, LedgerPage, MigrationDoc, SidecarReport } from '../../src/migrate/migration.ts';
import type { MigrationStore, StoredDoc } from '../../src/migrate/ports.ts';

export const NEVER = new AbortController().signal;

/** A document in which every field says something. */
export function migrationDoc(id: string, fields: Partial<MigrationDoc> = {}): MigrationDoc {
  return {
    version: 1,
    spec: {
      id,
      from: 'consul-sz',
      to: 'etcd-main',
      services: ['shop/*', 'größe/constructor'],
      direction: 'twoWay',
      liveness: 'beat',
      sticky: { header: 'x-user' },
      mapping: {
        namespace: '{namespace}-new',
        name: null,
        metadata: {
          rename: new Map([['zone', '__proto__']]),
          drop: new Set(['secret', 'constructor']),
          set: new Map([['by', 'weir']]),
        },
      },
      gates: { soak: 600_000, maxErrorRate: 0.01, maxP99Ratio: null, onBreach: 'rollback' },
      limits: { callsPerSecond: 50, deletePercentPerMinute: 15, grace: 60_000 },
    },
    phase: 'shift',
    weight: 25,
    createdAt: 1,
    startedAt: 2,
    since: 3,
    epoch: 4,
    lastVerify: { outcome: 'drift', at: 5, services: 6, missing: 0, extra: 1, differing: 2, unreachable: 0 },
    okSince: null,
    stopped: { at: 7, reason: 'error rate 3 % over 1 %' },
    keptCopies: false,
    baselined: false,
    aliases: [],
    frozen: true,
    forgotten: ['host-9'],
    ...fields,
  };
}

export function ledgerEntry(service: string, port: number, fields: Partial<LedgerEntry> = {}): LedgerEntry {
  return {
    target: 'etcd-main',
    origin: 'consul-sz',
    service,
    key: { namespace: 'default', name: service },
    host: '10.0.0.1',
    port,
    transport: 'tcp',
    state: 'written',
    receipt: { service: { namespace: 'default', name: service }, nativeId: `i${port}`, leaseId: '77', token: '1.2' },
    applied: 'abc',
    health: 'healthy',
    at: 1_700_000_000_000,
    epoch: 1,
    ...fields,
  };
}

/** A page of copies at these ports. */
export function ledgerPage(service: string, ports: readonly number[], fields: Partial<LedgerEntry> = {}): LedgerPage {
  return { service, baseline: ['10.0.0.9:80/tcp'], entries: ports.map((port) => ledgerEntry(service, port, fields)) };
}

export function emptyPage(service: string): LedgerPage {
  return { service, baseline: null, entries: [] };
}

export function sidecarReport(sidecar: string, weight = 25): SidecarReport {
  return { sidecar, phase: 'shift', weight, at: 8 };
}

/** The first item of a watch. */
export async function docsNow(store: MigrationStore): Promise<readonly StoredDoc[]> {
  const stop = new AbortController();
  for await (const docs of store.watch(stop.signal)) {
    stop.abort();
    return docs;
  }
  throw new Error('the watch ended without an item');
}
