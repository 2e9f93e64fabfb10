// Owns the plan of a migration: what a start would write, what would be lost on the way, and everything that forbids it. Called by
// migrations.ts (GET …/plan, create, start). Reads accounts and, where the registry shows them, subscribers; must never write.
import type { InstanceField } from '../adapter/capabilities.ts';
import type { Adapter } from '../adapter/contract.ts';
import { isForeignCopy, readMarker } from '../catalog/copies.ts';
import { hostPort } from '../kernel/address.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import { type Instance, NORMAL_WEIGHT } from '../model/instance.ts';
import { RESERVED_PREFIX } from '../model/metadata.ts';
import { type ServiceId, serviceId } from '../model/service.ts';
import { type CopyRules, desiredCopy } from './desired.ts';
import type { Ledger } from './ledger.ts';
import type { MigrationSpec } from './migration.ts';
import { askRights, sideFaults } from './plan-sides.ts';
import type { MigrationCatalog, MigrationSources } from './ports.ts';
import type { Scope } from './scope.ts';

/** Subscribers are asked for this many services at most. */
const MAX_ASKED = 200;
const ASK_AT_ONCE = 8;
/** Keys of metadata that every copy carries besides. */
const MARKERS = 4;

export interface PlannedService {
  readonly service: ServiceId;
  /** The service in the target's own words; null: it has no name there. */
  readonly as: string | null;
  /** Addresses that would be written. */
  readonly write: readonly string[];
  /** Present in `from` and not copied, with the reason. */
  readonly skipped: readonly string[];
  /** Fields that the target does not keep, in words. */
  readonly losses: readonly string[];
  /** What already stands in the target at an address of `from`, or of another owner. */
  readonly conflicts: readonly string[];
  /** Why it has no name in the target; null: it has one. */
  readonly unmapped: string | null;
  /** Who reads `from` by an SDK of its own and does not follow us; null: the registry does not show them. */
  readonly subscribers: readonly string[] | null;
}

export interface Plan {
  readonly services: readonly PlannedService[];
  /** Each forbids the start. */
  readonly errors: readonly string[];
  /** Worth knowing, forbids nothing. */
  readonly warnings: readonly string[];
}

export interface PlanInput {
  readonly clock: Clock;
  readonly spec: MigrationSpec;
  readonly scope: Scope;
  readonly catalog: MigrationCatalog;
  readonly sources: MigrationSources;
  readonly shared: boolean;
  /** Of a migration that has started. */
  readonly ledger: Ledger | null;
}

export async function makePlan(input: PlanInput, signal: AbortSignal): Promise<Plan> {
  const { spec, scope, sources } = input;
  const from = sources.adapter(spec.from);
  const to = sources.adapter(spec.to);
  const errors: string[] = [];
  const warnings: string[] = [];
  if (from === null || to === null) {
    errors.push(`source ${from === null ? spec.from : spec.to} is not configured`);
    return { services: [], errors, warnings };
  }
  sideFaults(input, from, to, { errors, warnings });
  const names = new Map<string, ServiceId>();
  const services: PlannedService[] = [];
  for (const service of scope.services()) {
    const planned = plannedService(input, service, to);
    services.push(planned);
    if (planned.unmapped !== null) errors.push(planned.unmapped);
    if (planned.as === null) continue;
    const other = names.get(planned.as);
    if (other === undefined) names.set(planned.as, service);
    else errors.push(`${other} and ${service} would both be ${planned.as} in ${spec.to}`);
  }
  if (services.length === 0) warnings.push(`no service of ${spec.from} matches ${spec.services.join(', ')} yet`);
  if (!input.shared) warnings.push('this sidecar only: other sidecars do not see the phase (state.shared is not configured)');
  await askRights(input, from, to, { errors, warnings }, signal);
  return { services: await withSubscribers(services, input, from, signal), errors, warnings };
}

function plannedService(input: PlanInput, service: ServiceId, to: Adapter): PlannedService {
  const { spec, scope, catalog, ledger } = input;
  const key = scope.keyIn(spec.to, service);
  const origin = catalog.account(spec.from, service);
  const there = new Map(
    (catalog.account(spec.to, service)?.instances ?? []).map(({ instance }) => [
      hostPort(instance.host, instance.port),
      instance,
    ]),
  );
  const write: string[] = [];
  const skipped: string[] = [];
  const conflicts: string[] = [];
  const losses = new Set<string>();
  for (const { instance } of origin?.instances ?? []) {
    const address = hostPort(instance.host, instance.port);
    const why =
      notCopied(instance.metadata) ??
      (ledger?.copyOrigin(service, spec.from, instance.host, instance.port, instance.id) != null ? 'is a copy of ours' : null);
    const desired = desiredCopy(instance, copyRules(spec, to));
    if (why !== null) skipped.push(`${address} ${why}`);
    else if (desired.kind === 'withheld') skipped.push(`${address} ${desired.reason}`);
    else {
      const native = there.get(address);
      if (native !== undefined && notCopied(native.metadata) === null)
        conflicts.push(`${address} is registered in ${spec.to} by itself: it gets no copy`);
      else write.push(address);
      for (const loss of lossesOf(instance, desired.instance, to)) losses.add(loss);
    }
  }
  if (origin !== null && !origin.live) skipped.push(`${spec.from} has no current word on it`);
  return {
    service,
    as: 'reason' in key ? null : serviceId(key),
    write,
    skipped,
    losses: [...losses],
    conflicts,
    unmapped: 'reason' in key ? key.reason : null,
    subscribers: null,
  };
}

/** How copies from `from` to `to` are made. */
export function copyRules(spec: MigrationSpec, to: Adapter): CopyRules {
  const { id, from, mapping } = spec;
  return { origin: from, migration: id, epoch: 0, metadata: mapping.metadata, backwards: false, keeps: to.capabilities.keeps };
}

/** What of the origin's record the target will not show, in words. */
function lossesOf(origin: Instance, copy: Instance, { capabilities, kind }: Adapter): string[] {
  const losses: string[] = [];
  const { keeps } = capabilities;
  const lost = (field: InstanceField, has: boolean): void => {
    if (has && !keeps.has(field)) losses.push(`${kind} keeps no ${field}`);
  };
  lost('weight', origin.weight !== NORMAL_WEIGHT);
  lost('protocol', origin.protocol !== undefined);
  lost('version', origin.version !== undefined);
  lost('locality', origin.locality !== undefined);
  lost('metadata', origin.metadata.size > 0);
  if (!keeps.has('health')) losses.push(`${kind} keeps no health: it is carried as weight 0, or the copy is withheld`);
  if (origin.isolated && !keeps.has('isolated'))
    losses.push(`${kind} has no word for isolated: it is carried as weight or health`);
  const cut = [...origin.metadata.keys()].filter((key) => !key.startsWith(RESERVED_PREFIX)).length + MARKERS - copy.metadata.size;
  if (keeps.has('metadata') && cut > 0) losses.push(`${cut} keys of metadata do not fit or are dropped by the mapping`);
  return losses;
}

function notCopied(metadata: ReadonlyMap<string, string>): string | null {
  if (readMarker(metadata) !== null) return 'is a copy';
  return isForeignCopy(metadata) ? 'is a copy of another tool' : null;
}

async function withSubscribers(
  services: readonly PlannedService[],
  { spec, catalog }: PlanInput,
  from: Adapter,
  signal: AbortSignal,
): Promise<readonly PlannedService[]> {
  if (from.subscribers === undefined) return services;
  const all = [...services];
  for (let at = 0; at < Math.min(all.length, MAX_ASKED); at += ASK_AT_ONCE) {
    await Promise.all(
      all.slice(at, at + ASK_AT_ONCE).map(async (planned, n) => {
        const key = catalog.account(spec.from, planned.service)?.key;
        if (key === undefined) return;
        all[at + n] = { ...planned, subscribers: await subscribersOf(from, key, signal) };
      }),
    );
  }
  return all;
}

async function subscribersOf(
  from: Adapter,
  key: { namespace: string; name: string },
  signal: AbortSignal,
): Promise<readonly string[]> {
  try {
    const found = (await from.subscribers?.(key, signal)) ?? [];
    return found.map(({ address, agent }) => (agent === undefined ? address : `${address} (${agent})`));
  } catch (thrown) {
    signal.throwIfAborted();
    return [`not known: ${messageOf(thrown)}`];
  }
}
