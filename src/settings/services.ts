// Owns the policies of services: from `services:` entries to ServicePolicy objects and the matcher that finds them.
// Called by compile.ts; must give equal entries the same object, so that a reload touches only what changed.
import {
  DEFAULT_BREAKER,
  DEFAULT_CLUSTER_POLICY,
  DEFAULT_HEALTH_CHECK,
  DEFAULT_HOLD,
  DEFAULT_LIMITS,
  DEFAULT_OUTLIER,
  DEFAULT_RETRY,
  DEFAULT_SERVICE_POLICY,
  type HealthCheckPolicy,
  type HoldPolicy,
  type MergePolicy,
  type ServicePolicy,
} from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import { compilePattern, isGlob, type Pattern } from './pattern.ts';
import type { HealthCheckEntry, ServiceEntry } from './schema.ts';
import type { ServicePolicies } from './settings.ts';
import { parseDuration, parseSize } from './units.ts';

/** Policies by their JSON text: makes equal policies of two loads the same object. Lives as long as the loader. */
export type PolicyPool = Map<string, ServicePolicy>;

/** Compiles all entries. `pool` is left holding exactly the policies of these entries. */
export function servicePolicies(entries: readonly ServiceEntry[], pool: PolicyPool): ServicePolicies {
  const exact = new Map<string, number>();
  const globs: { readonly index: number; readonly matches: Pattern }[] = [];
  const policies: ServicePolicy[] = [];
  const used = new Map<string, ServicePolicy>();
  for (const [index, entry] of entries.entries()) {
    const policy = policyOfEntry(entry);
    const text = JSON.stringify(policy);
    const kept = used.get(text) ?? pool.get(text) ?? policy;
    used.set(text, kept);
    policies.push(kept);
    if (isGlob(entry.match)) globs.push({ index, matches: compilePattern(entry.match) });
    else if (!exact.has(entry.match)) exact.set(entry.match, index);
  }
  pool.clear();
  for (const [text, policy] of used) pool.set(text, policy);
  const indexOf = (service: ServiceId): number | undefined => {
    const named = exact.get(service) ?? Number.POSITIVE_INFINITY;
    const glob = globs.find(({ index, matches }) => index < named && matches(service))?.index;
    return glob ?? exact.get(service);
  };
  return {
    policyOf: (service) => policies[indexOf(service) ?? -1] ?? DEFAULT_SERVICE_POLICY,
    entryOf: (service) => entries[indexOf(service) ?? -1]?.match ?? null,
  };
}

/** ms of a duration that the schema accepted. */
export function ms(value: string | number | undefined, fallback: number): number {
  return value === undefined ? fallback : (parseDuration(value) ?? fallback);
}

/** The policy of a `healthCheck:` block; the schema and compile.ts have seen to it that it names one kind. */
export function healthCheckPolicy(entry: HealthCheckEntry): HealthCheckPolicy {
  const base = DEFAULT_HEALTH_CHECK;
  const kind = entry.http !== undefined ? 'http' : entry.grpc !== undefined ? 'grpc' : 'tcp';
  return {
    kind,
    path: entry.http?.path ?? base.path,
    expectedStatuses: entry.http?.expectedStatuses?.map(statusRange) ?? base.expectedStatuses,
    host: entry.http?.host ?? base.host,
    grpcService: entry.grpc?.service ?? base.grpcService,
    interval: ms(entry.interval, base.interval),
    timeout: ms(entry.timeout, base.timeout),
    healthyThreshold: entry.healthyThreshold ?? base.healthyThreshold,
    unhealthyThreshold: entry.unhealthyThreshold ?? base.unhealthyThreshold,
    noTrafficInterval: Math.max(ms(entry.noTrafficInterval, base.noTrafficInterval), ms(entry.interval, base.interval)),
  };
}

function statusRange(value: number | string): readonly [number, number] {
  if (typeof value === 'number') return [value, value];
  const [from = '', to = ''] = value.split('-');
  return [Number(from), Number(to)];
}

function policyOfEntry(entry: ServiceEntry): ServicePolicy {
  return {
    merge: mergePolicy(entry.merge),
    hold: holdPolicy(entry.hold),
    healthCheck: entry.healthCheck === undefined ? null : healthCheckPolicy(entry.healthCheck),
    cluster: {
      loadBalancer: { policy: entry.loadBalancer?.policy ?? DEFAULT_CLUSTER_POLICY.loadBalancer.policy },
      outlierDetection: outlierPolicy(entry.outlierDetection ?? {}),
      breaker: breakerPolicy(entry.breaker ?? {}),
      limits: { ...DEFAULT_LIMITS, ...entry.limits },
      retry: retryPolicy(entry.retry ?? {}, ms(entry.timeout, DEFAULT_CLUSTER_POLICY.timeout)),
      timeout: ms(entry.timeout, DEFAULT_CLUSTER_POLICY.timeout),
      streaming: entry.streaming ?? DEFAULT_CLUSTER_POLICY.streaming,
      maxRequestBody:
        entry.maxRequestBody === undefined ? DEFAULT_CLUSTER_POLICY.maxRequestBody : (parseSize(entry.maxRequestBody) ?? 0),
      rewriteHost: entry.rewriteHost ?? DEFAULT_CLUSTER_POLICY.rewriteHost,
      panicThreshold: entry.panicThreshold ?? DEFAULT_CLUSTER_POLICY.panicThreshold,
      connectTimeout: ms(entry.connectTimeout, DEFAULT_CLUSTER_POLICY.connectTimeout),
    },
  };
}

function mergePolicy(merge: ServiceEntry['merge']): MergePolicy {
  if (merge === undefined || merge === 'union') return { kind: 'union' };
  if ('prefer' in merge) return { kind: 'prefer', order: merge.prefer };
  return { kind: 'weighted', shares: Object.entries(merge.weighted).map(([source, share]) => ({ source, share })) };
}

function holdPolicy(hold: ServiceEntry['hold']): HoldPolicy {
  if (hold === undefined) return DEFAULT_HOLD;
  if (hold === false) return { ...DEFAULT_HOLD, enabled: false };
  return { enabled: true, max: ms(hold.max, DEFAULT_HOLD.max), secondRead: ms(hold.secondRead, DEFAULT_HOLD.secondRead) };
}

function outlierPolicy(entry: NonNullable<ServiceEntry['outlierDetection']>): ServicePolicy['cluster']['outlierDetection'] {
  const base = DEFAULT_OUTLIER;
  const { successRate: _rate, failurePercentage: _percentage, ...plain } = entry;
  const baseEjectionTime = ms(entry.baseEjectionTime, base.baseEjectionTime);
  return {
    ...base,
    ...plain,
    interval: ms(entry.interval, base.interval),
    baseEjectionTime,
    // proxy-semantics §6: max(300 s, base) unless it is said.
    maxEjectionTime: ms(entry.maxEjectionTime, Math.max(base.maxEjectionTime, baseEjectionTime)),
    maxEjectionTimeJitter: ms(entry.maxEjectionTimeJitter, base.maxEjectionTimeJitter),
  };
}

function breakerPolicy(entry: NonNullable<ServiceEntry['breaker']>): ServicePolicy['cluster']['breaker'] {
  const base = DEFAULT_BREAKER;
  const sleepWindow = ms(entry.sleepWindow, base.sleepWindow);
  return {
    ...base,
    ...entry,
    window: ms(entry.window, base.window),
    sleepWindow,
    maxSleepWindow: ms(entry.maxSleepWindow, Math.max(base.maxSleepWindow, sleepWindow)),
  };
}

function retryPolicy(entry: NonNullable<ServiceEntry['retry']>, timeout: number): ServicePolicy['cluster']['retry'] {
  const base = DEFAULT_RETRY;
  const perTry = ms(entry.perTryTimeout, base.perTryTimeout);
  return {
    on: entry.on ?? base.on,
    attempts: entry.attempts ?? base.attempts,
    // proxy-semantics §3: not below the route timeout means ignored.
    perTryTimeout: timeout > 0 && perTry >= timeout ? 0 : perTry,
    nonIdempotent: entry.nonIdempotent ?? base.nonIdempotent,
    idempotencyKey: entry.idempotencyKey ?? base.idempotencyKey,
    statusCodes: entry.statusCodes ?? base.statusCodes,
    budget: {
      percent: entry.budget?.percent ?? base.budget.percent,
      minConcurrency: entry.budget?.minConcurrency ?? base.budget.minConcurrency,
      interval: ms(entry.budget?.interval, base.budget.interval),
    },
  };
}
