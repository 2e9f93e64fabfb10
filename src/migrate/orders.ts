// Owns the taking of an order: what forbids it beside its plan, and the document that it becomes. Pure. Called by migrations.ts.
import { WeirError } from '../kernel/errors.ts';
import { ENDED, type MigrationDoc, type MigrationSpec } from './migration.ts';
import { overlap } from './scope.ts';

/** What an order is held against. */
export interface Others {
  /** Ids of the configured sources. */
  readonly sources: readonly string[];
  readonly docs: readonly MigrationDoc[];
  /** Migrations whose journal cannot be read. */
  readonly broken: ReadonlyMap<string, string>;
}

/** Throws WeirError SOURCE_NOT_FOUND or MIGRATION_CONFLICT. */
export function checkOrder(spec: MigrationSpec, { sources, docs, broken }: Others): void {
  for (const source of [spec.from, spec.to]) {
    if (sources.includes(source)) continue;
    throw new WeirError('SOURCE_NOT_FOUND', `no source ${source} is configured`, { details: { source, sources } });
  }
  if (broken.has(spec.id) || docs.some((doc) => doc.spec.id === spec.id)) throw exists(spec.id);
  for (const doc of docs) {
    const both = ENDED.has(doc.phase) ? null : overlap(spec, doc.spec);
    if (both === null) continue;
    throw new WeirError(
      'MIGRATION_CONFLICT',
      `services: ${both.a} meets ${both.b} of migration ${doc.spec.id}, which is in ${doc.phase}`,
      { details: { id: spec.id, other: doc.spec.id, pattern: both.a, otherPattern: both.b } },
    );
  }
}

/** There is one of this name. */
export function exists(id: string): WeirError {
  return new WeirError('MIGRATION_CONFLICT', `there is a migration ${id} already`, { details: { id } });
}

/** A plan; nothing is written to a registry for it. */
export function newDoc(spec: MigrationSpec, now: number, frozen: boolean): MigrationDoc {
  return {
    version: 1,
    spec,
    phase: 'plan',
    weight: 0,
    createdAt: now,
    startedAt: null,
    since: now,
    epoch: 0,
    lastVerify: null,
    okSince: null,
    stopped: null,
    keptCopies: false,
    baselined: false,
    aliases: [],
    frozen,
    forgotten: [],
  };
}

/** The plan has errors. */
export function invalid(errors: readonly string[]): WeirError {
  const [first = 'the order is not valid'] = errors;
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : '';
  return new WeirError('MIGRATION_INVALID', `${first}${more}`, { details: { errors } });
}

/** Enough of an order to find its services. */
export function patternsOnly(id: string, from: string, to: string, services: readonly string[]): MigrationSpec {
  return {
    id,
    from,
    to,
    services,
    direction: 'oneWay',
    liveness: 'beat',
    sticky: null,
    mapping: { namespace: null, name: null, metadata: { rename: new Map(), drop: new Set(), set: new Map() } },
    gates: { soak: 0, maxErrorRate: null, maxP99Ratio: null, onBreach: 'stop' },
    limits: { callsPerSecond: 1, deletePercentPerMinute: 1, grace: 0 },
  };
}
