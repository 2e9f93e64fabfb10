// Owns verify: both registries read afresh, held against each other and against our ledger, field by field, with a probe of every copied
// address (migration.md "Verify"). Called by migrations.ts. Must never write, and never take a failed read for an empty one.
import type { Adapter } from '../adapter/contract.ts';
import { readMarker } from '../catalog/copies.ts';
import { hostPort } from '../kernel/address.ts';
import { withDeadline } from '../kernel/cancel.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import { type Instance, NORMAL_WEIGHT } from '../model/instance.ts';
import type { ServiceId } from '../model/service.ts';
import { desiredCopy } from './desired.ts';
import { isOthersCopy } from './facts.ts';
import type { Ledger } from './ledger.ts';
import type { LedgerEntry, MigrationSpec, VerifyOutcome, VerifySummary } from './migration.ts';
import { copyRules } from './plan.ts';
import type { MigrationSources, ProbeAddress } from './ports.ts';
import type { Scope } from './scope.ts';

const AT_ONCE = 16;
const PROBES_AT_ONCE = 32;
const READ_MS = 10_000;
const PROBE_MS = 2_000;
/** Registries round weights to their own steps: a difference of this part is none. */
const WEIGHT_STEP = 0.02;

export interface FieldDiff {
  readonly address: string;
  readonly field: string;
  readonly from: string;
  readonly to: string;
}

export interface VerifiedService {
  readonly service: ServiceId;
  readonly outcome: VerifyOutcome;
  /** Routable in `from`, not in `to` at all. */
  readonly missing: readonly string[];
  /** In `to` without a living origin, a ledger entry, or a right to be there. */
  readonly extra: readonly string[];
  readonly differing: readonly FieldDiff[];
  /** Healthy in `from` and not in `to`, or the reverse. */
  readonly health: readonly FieldDiff[];
  /** Copied addresses that did not answer our own probe. */
  readonly unreachable: readonly { readonly address: string; readonly reason: string }[];
  /** ms between the reads and now; null: the read failed. */
  readonly readAgeMs: { readonly from: number | null; readonly to: number | null };
  /** Why nothing can be said; null: both sides were read. */
  readonly error: string | null;
}

export interface VerifyResult {
  readonly outcome: VerifyOutcome;
  readonly summary: VerifySummary;
  /** Every service that is not ok, and up to 1,000 that are. */
  readonly services: readonly VerifiedService[];
}

export interface VerifyDeps {
  readonly clock: Clock;
  readonly sources: MigrationSources;
  readonly probe: ProbeAddress;
  readonly scope: Scope;
  readonly spec: MigrationSpec;
  readonly ledger: Ledger;
  readonly startedAt: number | null;
}

const MAX_OK_SHOWN = 1_000;

/** Costs two reads a service and one probe an address. Rejects only with the signal's reason. */
export async function verify(deps: VerifyDeps, signal: AbortSignal): Promise<VerifyResult> {
  const ids = new Set(deps.scope.services());
  for (const { service } of deps.ledger.pages()) ids.add(service);
  const found: VerifiedService[] = [];
  await inChunks([...ids].sort(), AT_ONCE, async (service) => void found.push(await verifyService(deps, service, signal)));
  found.sort((a, b) => (a.service < b.service ? -1 : 1));
  const outcome = worst(found.map((one) => one.outcome));
  const sum = (count: (one: VerifiedService) => number): number => found.reduce((total, one) => total + count(one), 0);
  let shown = 0;
  return {
    outcome,
    summary: {
      outcome,
      at: deps.clock.wallNow(),
      services: found.length,
      missing: sum((one) => one.missing.length),
      extra: sum((one) => one.extra.length),
      differing: sum((one) => one.differing.length + one.health.length),
      unreachable: sum((one) => one.unreachable.length),
    },
    services: found.filter((one) => one.outcome !== 'ok' || shown++ < MAX_OK_SHOWN),
  };
}

type Reading =
  | { readonly ok: true; readonly instances: readonly Instance[]; readonly at: number }
  | { readonly ok: false; readonly error: string };

async function verifyService(deps: VerifyDeps, service: ServiceId, signal: AbortSignal): Promise<VerifiedService> {
  const { spec, clock } = deps;
  const [from, to] = await Promise.all([read(deps, spec.from, service, signal), read(deps, spec.to, service, signal)]);
  const age = (reading: Reading): number | null => (reading.ok ? Math.max(0, clock.now() - reading.at) : null);
  const base = { service, missing: [], extra: [], differing: [], health: [], unreachable: [] };
  if (!from.ok || !to.ok) {
    const error = [from, to].flatMap((one) => (one.ok ? [] : [one.error])).join('; ');
    // What could not be read may be missing: a cutover now is not known to be safe.
    return { ...base, outcome: 'unsafe', readAgeMs: { from: age(from), to: age(to) }, error };
  }
  const compared = compare(deps, service, from.instances, to.instances);
  const unreachable = await probeAll(deps, service, compared.copied, signal);
  const outcome = worst([compared.outcome, unreachable.length > 0 ? 'drift' : 'ok']);
  const { missing, extra, differing, health } = compared;
  return {
    service,
    outcome,
    missing,
    extra,
    differing,
    health,
    unreachable,
    readAgeMs: { from: age(from), to: age(to) },
    error: null,
  };
}

async function read(
  { spec, sources, scope, clock }: VerifyDeps,
  source: string,
  service: ServiceId,
  signal: AbortSignal,
): Promise<Reading> {
  const adapter = sources.adapter(source);
  const key = scope.keyIn(source, service);
  if (adapter === null) return { ok: false, error: `source ${source} is not configured` };
  if ('reason' in key)
    return source === spec.to ? { ok: false, error: key.reason } : { ok: true, instances: [], at: clock.now() };
  try {
    const snapshot = await withDeadline(clock, READ_MS, signal, (until) => adapter.read(key, until));
    return { ok: true, instances: snapshot.kind === 'present' ? snapshot.instances : [], at: clock.now() };
  } catch (thrown) {
    signal.throwIfAborted();
    return { ok: false, error: `${source}: ${messageOf(thrown)}` };
  }
}

interface Compared {
  readonly outcome: VerifyOutcome;
  readonly missing: string[];
  readonly extra: string[];
  readonly differing: FieldDiff[];
  readonly health: FieldDiff[];
  /** Addresses of copies of ours. */
  readonly copied: readonly { readonly host: string; readonly port: number }[];
}

/** The comparison of one service; pure beside the ledger. */
export function compare(
  deps: Pick<VerifyDeps, 'spec' | 'sources' | 'ledger'>,
  service: ServiceId,
  from: readonly Instance[],
  to: readonly Instance[],
): Compared {
  const { spec, sources, ledger } = deps;
  const target = sources.adapter(spec.to);
  const result: Compared & { outcome: VerifyOutcome; copied: { host: string; port: number }[] } = {
    outcome: 'ok',
    missing: [],
    extra: [],
    differing: [],
    health: [],
    copied: [],
  };
  const here = byAddress(from);
  const there = byAddress(to);
  const others = (instance: Instance): boolean => isOthersCopy(instance, spec.id);
  const ours = (source: string, instance: Instance): string | null => {
    if (others(instance)) return null;
    return readMarker(instance.metadata)?.origin ?? ledger.copyOrigin(service, source, instance.host, instance.port, instance.id);
  };
  for (const [address, instance] of here) {
    if (others(instance) || ours(spec.from, instance) !== null) continue;
    const copy = there.get(address);
    if (copy === undefined)
      missing(result, address, instance, ledger.entry(spec.to, service, instance.host, instance.port, instance.transport));
    else if (ours(spec.to, copy) !== null && target !== null) differences(result, address, instance, copy, spec, target);
    else if (target?.capabilities.reads.has('health') === true) healthDiff(result, address, instance, copy);
  }
  for (const [address, instance] of there) {
    const origin = ours(spec.to, instance);
    if (origin === null) continue;
    result.copied.push({ host: instance.host, port: instance.port });
    const known = ledger.entry(spec.to, service, instance.host, instance.port, instance.transport);
    if (!here.has(address)) extra(result, `${address}: its origin in ${origin} is gone`);
    else if (known === undefined) extra(result, `${address}: a copy that is not in our ledger`);
  }
  for (const [address, instance] of here) {
    if (ours(spec.from, instance) === spec.to && !there.has(address))
      extra(result, `${address}: a return copy in ${spec.from} whose provider is gone`);
  }
  return result;
}

function missing(
  result: Compared & { outcome: VerifyOutcome },
  address: string,
  instance: Instance,
  entry: LedgerEntry | undefined,
): void {
  if (entry?.state === 'withheld') return;
  result.missing.push(address);
  const routable = !instance.isolated && instance.health !== 'unhealthy' && instance.weight > 0;
  result.outcome = worst([result.outcome, routable ? 'unsafe' : 'drift']);
}

function extra(result: Compared & { outcome: VerifyOutcome }, what: string): void {
  result.extra.push(what);
  result.outcome = worst([result.outcome, 'drift']);
}

function healthDiff(result: Compared & { outcome: VerifyOutcome }, address: string, from: Instance, to: Instance): void {
  if (from.health === to.health || from.health === 'unknown' || to.health === 'unknown') return;
  result.health.push({ address, field: 'health', from: from.health, to: to.health });
  result.outcome = worst([result.outcome, to.health === 'unhealthy' ? 'unsafe' : 'drift']);
}

function differences(
  result: Compared & { outcome: VerifyOutcome },
  address: string,
  instance: Instance,
  copy: Instance,
  spec: MigrationSpec,
  target: Adapter,
): void {
  const desired = desiredCopy(instance, copyRules(spec, target));
  if (desired.kind === 'withheld') {
    extra(result, `${address}: ${desired.reason}, and yet it is there`);
    return;
  }
  const want = desired.instance;
  if (target.capabilities.reads.has('health') && target.capabilities.keeps.has('health')) healthDiff(result, address, want, copy);
  for (const diff of fieldDiffs(address, want, copy, target)) {
    result.differing.push(diff);
    const loses = (diff.field === 'isolated' && copy.isolated) || (diff.field === 'weight' && copy.weight === 0);
    result.outcome = worst([result.outcome, loses ? 'unsafe' : 'drift']);
  }
}

function fieldDiffs(address: string, want: Instance, got: Instance, { capabilities }: Adapter): FieldDiff[] {
  const diffs: FieldDiff[] = [];
  const seen = (field: 'weight' | 'isolated' | 'protocol' | 'version' | 'locality' | 'metadata'): boolean =>
    capabilities.keeps.has(field) && capabilities.reads.has(field);
  const differ = (field: string, from: string, to: string): void => {
    if (from !== to) diffs.push({ address, field, from, to });
  };
  if (seen('weight') && !sameWeight(want.weight, got.weight)) differ('weight', String(want.weight), String(got.weight));
  if (seen('isolated')) differ('isolated', String(want.isolated), String(got.isolated));
  if (seen('protocol')) differ('protocol', want.protocol ?? '', got.protocol ?? '');
  if (seen('version')) differ('version', want.version ?? '', got.version ?? '');
  if (seen('locality')) differ('locality', localityText(want), localityText(got));
  if (seen('metadata')) {
    for (const [key, value] of want.metadata) {
      if (!key.startsWith('weir-')) differ(`metadata.${key}`, value, got.metadata.get(key) ?? '(none)');
    }
  }
  return diffs;
}

/** Steps of a registry's scale (Polaris: whole numbers of 0..10000) are no difference. */
function sameWeight(a: number, b: number): boolean {
  if (a === 0 || b === 0) return a === b;
  return Math.abs(a - b) <= Math.max(WEIGHT_STEP * Math.max(a, b), NORMAL_WEIGHT / 100);
}

function localityText({ locality }: Instance): string {
  return [locality?.region, locality?.zone, locality?.campus].map((part) => part ?? '').join('/');
}

async function probeAll(
  { probe, clock }: VerifyDeps,
  service: ServiceId,
  copied: readonly { readonly host: string; readonly port: number }[],
  signal: AbortSignal,
): Promise<{ address: string; reason: string }[]> {
  const unreachable: { address: string; reason: string }[] = [];
  await inChunks(copied, PROBES_AT_ONCE, async ({ host, port }) => {
    const reason = await withDeadline(clock, PROBE_MS, signal, (until) => probe(service, host, port, until)).catch(
      (thrown: unknown) => {
        signal.throwIfAborted();
        return messageOf(thrown);
      },
    );
    if (reason !== null) unreachable.push({ address: hostPort(host, port), reason });
  });
  return unreachable;
}

function byAddress(instances: readonly Instance[]): ReadonlyMap<string, Instance> {
  return new Map(instances.map((instance) => [hostPort(instance.host, instance.port), instance]));
}

function worst(outcomes: readonly VerifyOutcome[]): VerifyOutcome {
  if (outcomes.includes('unsafe')) return 'unsafe';
  return outcomes.includes('drift') ? 'drift' : 'ok';
}

async function inChunks<T>(items: readonly T[], size: number, run: (item: T) => Promise<void>): Promise<void> {
  for (let at = 0; at < items.length; at += size) await Promise.all(items.slice(at, at + size).map(run));
}
