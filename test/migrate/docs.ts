// Migrations as tests need them: an order with every default, and a document in any phase.
import type { MigrationDoc, MigrationSpec } from '../../src/migrate/migration.ts';
import { decodeSpec } from '../../src/migrate/spec.ts';

/** An order from `old` to `new` for `game/*`, with these changes. Throws when it is none. */
export function spec(changes: Record<string, unknown> = {}): MigrationSpec {
  const decoded = decodeSpec({ id: 'm1', from: 'old', to: 'new', services: ['game/*'], ...changes });
  if (!decoded.ok) throw new Error(JSON.stringify(decoded.faults));
  return decoded.spec;
}

export function doc(changes: Partial<MigrationDoc> = {}): MigrationDoc {
  return {
    version: 1,
    spec: spec(),
    phase: 'plan',
    weight: 0,
    createdAt: 1_000,
    startedAt: null,
    since: 1_000,
    epoch: 1,
    lastVerify: null,
    okSince: null,
    stopped: null,
    keptCopies: false,
    baselined: false,
    aliases: [],
    frozen: false,
    forgotten: [],
    ...changes,
  };
}
