// Owns the policies of a service as plain, structured-cloneable data with every default in one place.
// Durations ms, sizes bytes. Sources of the numbers: proxy-semantics.md §3-§10, catalog-rules.md R2, M3.

export type LoadBalancerPolicy = 'leastRequest' | 'roundRobin' | 'random';

export interface RetryPolicy {
  readonly on: readonly RetryCondition[];
  /** Retries after the first try. */
  readonly attempts: number;
  /** 0: off. */
  readonly perTryTimeout: number;
  readonly nonIdempotent: boolean;
  /** Requests that carry Idempotency-Key may be repeated. */
  readonly idempotencyKey: boolean;
  readonly statusCodes: readonly number[];
  readonly budget: { readonly percent: number; readonly minConcurrency: number; readonly interval: number };
}

export type RetryCondition =
  | 'connectFailure'
  | 'refusedStream'
  | 'reset'
  | 'gatewayError'
  | '5xx'
  | 'retriable4xx'
  | 'retriableStatusCodes';

export interface OutlierPolicy {
  readonly enabled: boolean;
  /** Sweep. */
  readonly interval: number;
  readonly baseEjectionTime: number;
  readonly maxEjectionTime: number;
  readonly maxEjectionTimeJitter: number;
  readonly maxEjectionPercent: number;
  readonly alwaysEjectOneHost: boolean;
  readonly consecutive5xx: number;
  /** Probability in per cent that a detection is applied. */
  readonly enforcingConsecutive5xx: number;
  readonly consecutiveGatewayFailure: number;
  readonly enforcingConsecutiveGatewayFailure: number;
  readonly splitExternalLocalOriginErrors: boolean;
  readonly consecutiveLocalOriginFailure: number;
  readonly enforcingConsecutiveLocalOriginFailure: number;
}

export interface BreakerPolicy {
  readonly enabled: boolean;
  readonly consecutiveFailures: number;
  /** Per cent of the results in `window`, once there are `minimumRequests`. */
  readonly errorPercent: number;
  readonly minimumRequests: number;
  readonly window: number;
  readonly sleepWindow: number;
  readonly maxSleepWindow: number;
  /** Successes in a row that close a half-open breaker. */
  readonly halfOpenSuccesses: number;
}

export interface LimitsPolicy {
  readonly maxConnections: number;
  readonly maxPendingRequests: number;
  readonly maxRequests: number;
}

/** All that the data plane needs to know of a service besides its endpoints. */
export interface ClusterPolicy {
  readonly loadBalancer: { readonly policy: LoadBalancerPolicy };
  readonly outlierDetection: OutlierPolicy;
  readonly breaker: BreakerPolicy;
  readonly limits: LimitsPolicy;
  readonly retry: RetryPolicy;
  /** Whole request; 0: none. */
  readonly timeout: number;
  /** Lifts the body timeouts. */
  readonly streaming: boolean;
  readonly maxRequestBody: number;
  /** Host field sent upstream; null: the client's own. */
  readonly rewriteHost: string | null;
  /** Per cent; 0 disables panic. */
  readonly panicThreshold: number;
  readonly connectTimeout: number;
}

export type HealthCheckKind = 'http' | 'tcp' | 'grpc';

/** Active check of a service. */
export interface HealthCheckPolicy {
  readonly kind: HealthCheckKind;
  /** HTTP only. */
  readonly path: string;
  /** HTTP only: status ranges that pass, inclusive. */
  readonly expectedStatuses: readonly (readonly [number, number])[];
  /** HTTP only; null: host:port. */
  readonly host: string | null;
  /** gRPC only: the service asked for. */
  readonly grpcService: string;
  readonly interval: number;
  readonly timeout: number;
  readonly healthyThreshold: number;
  readonly unhealthyThreshold: number;
  /** Interval while the cluster has no traffic. */
  readonly noTrafficInterval: number;
}

/** R2. `enabled` false: blind trust in the registry. */
export interface HoldPolicy {
  readonly enabled: boolean;
  /** 0..24 h. */
  readonly max: number;
  /** Earliest second read. */
  readonly secondRead: number;
}

/** M3. */
export type MergePolicy =
  | { readonly kind: 'union' }
  | { readonly kind: 'prefer'; readonly order: readonly string[] }
  | { readonly kind: 'weighted'; readonly shares: readonly { readonly source: string; readonly share: number }[] };

/** Everything that settings say of one service; equal objects are shared by all services of one `services:` entry. */
export interface ServicePolicy {
  readonly merge: MergePolicy;
  readonly hold: HoldPolicy;
  readonly healthCheck: HealthCheckPolicy | null;
  readonly cluster: ClusterPolicy;
}

export const DEFAULT_RETRY: RetryPolicy = {
  on: ['connectFailure', 'refusedStream', 'reset', 'gatewayError'],
  attempts: 2,
  perTryTimeout: 0,
  nonIdempotent: false,
  idempotencyKey: false,
  statusCodes: [],
  budget: { percent: 20, minConcurrency: 3, interval: 10_000 },
};

export const DEFAULT_OUTLIER: OutlierPolicy = {
  enabled: true,
  interval: 10_000,
  baseEjectionTime: 30_000,
  maxEjectionTime: 300_000,
  maxEjectionTimeJitter: 0,
  maxEjectionPercent: 50,
  alwaysEjectOneHost: true,
  consecutive5xx: 5,
  enforcingConsecutive5xx: 100,
  consecutiveGatewayFailure: 5,
  enforcingConsecutiveGatewayFailure: 0,
  splitExternalLocalOriginErrors: false,
  consecutiveLocalOriginFailure: 5,
  enforcingConsecutiveLocalOriginFailure: 100,
};

export const DEFAULT_BREAKER: BreakerPolicy = {
  enabled: true,
  consecutiveFailures: 10,
  errorPercent: 50,
  minimumRequests: 10,
  window: 60_000,
  sleepWindow: 30_000,
  maxSleepWindow: 300_000,
  halfOpenSuccesses: 1,
};

export const DEFAULT_LIMITS: LimitsPolicy = { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024 };

export const DEFAULT_CLUSTER_POLICY: ClusterPolicy = {
  loadBalancer: { policy: 'leastRequest' },
  outlierDetection: DEFAULT_OUTLIER,
  breaker: DEFAULT_BREAKER,
  limits: DEFAULT_LIMITS,
  retry: DEFAULT_RETRY,
  timeout: 15_000,
  streaming: false,
  maxRequestBody: 10 * 1024 * 1024,
  rewriteHost: null,
  panicThreshold: 50,
  connectTimeout: 1_000,
};

/** D6 and R8: what is probed without a configured check (held, suspect, unknown): TCP connect every 2 s, fall 3, rise 2. */
export const DEFAULT_HEALTH_CHECK: HealthCheckPolicy = {
  kind: 'tcp',
  path: '/',
  expectedStatuses: [[200, 200]],
  host: null,
  grpcService: '',
  interval: 2_000,
  timeout: 1_000,
  healthyThreshold: 2,
  unhealthyThreshold: 3,
  noTrafficInterval: 60_000,
};

export const DEFAULT_HOLD: HoldPolicy = { enabled: true, max: 300_000, secondRead: 15_000 };

export const DEFAULT_SERVICE_POLICY: ServicePolicy = {
  merge: { kind: 'union' },
  hold: DEFAULT_HOLD,
  healthCheck: null,
  cluster: DEFAULT_CLUSTER_POLICY,
};
