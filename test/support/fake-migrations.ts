// A MigrationsPort that remembers what it was asked and answers what a test put in; for tests of the API and of the command line.
import type { MigrationsPort } from '../../src/api/ports.ts';
import { WeirError } from '../../src/kernel/errors.ts';
import type { MigrationStatus } from '../../src/migrate/known.ts';
import type { MigrationDoc, MigrationSpec } from '../../src/migrate/migration.ts';
import type { Step } from '../../src/migrate/phases.ts';
import type { Plan } from '../../src/migrate/plan.ts';
import type { VerifyResult } from '../../src/migrate/verify.ts';
import { doc, spec } from '../migrate/docs.ts';

export class FakeMigrations implements MigrationsPort {
  readonly known = new Map<string, MigrationStatus>();
  readonly calls: unknown[] = [];
  planned: Plan = { services: [], errors: [], warnings: [] };
  verified: VerifyResult | null = null;
  /** Thrown by the next step. */
  refusal: WeirError | null = null;

  put(changes: Partial<MigrationDoc> = {}, more: Partial<MigrationStatus> = {}): MigrationStatus {
    const one = doc({ spec: spec(), ...changes });
    const status: MigrationStatus = {
      id: one.spec.id,
      from: one.spec.from,
      to: one.spec.to,
      doc: one,
      broken: null,
      worker: null,
      behind: [],
      sidecars: [],
      sides: null,
      shared: false,
      ...more,
    };
    this.known.set(status.id, status);
    return status;
  }

  list(): readonly MigrationStatus[] {
    return [...this.known.values()];
  }

  status(id: string): MigrationStatus {
    const found = this.known.get(id);
    if (found === undefined) throw new WeirError('MIGRATION_NOT_FOUND', `there is no migration ${id}`, { details: { id } });
    return found;
  }

  async plan(id: string): Promise<Plan> {
    this.status(id);
    return this.planned;
  }

  async create(order: MigrationSpec): Promise<MigrationStatus> {
    this.calls.push(['create', order]);
    return this.put({ spec: order });
  }

  async step(id: string, step: Step): Promise<MigrationStatus> {
    this.calls.push([id, step]);
    if (this.refusal !== null) throw this.refusal;
    return this.status(id);
  }

  async verify(id: string): Promise<VerifyResult> {
    this.calls.push([id, 'verify']);
    this.status(id);
    if (this.verified === null) throw new Error('the test put no result in');
    return this.verified;
  }

  lastVerify(id: string): VerifyResult | null {
    this.status(id);
    return this.verified;
  }

  async forget(id: string, sidecar: string): Promise<MigrationStatus> {
    this.calls.push([id, 'forget', sidecar]);
    return this.status(id);
  }

  async freeze(frozen: boolean): Promise<readonly MigrationStatus[]> {
    this.calls.push(['freeze', frozen]);
    return this.list();
  }

  async collect(id: string): Promise<MigrationStatus> {
    this.calls.push([id, 'collect']);
    return this.status(id);
  }
}
