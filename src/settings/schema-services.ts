// Owns the schema of one `services:` entry and of health checks: every key, its bounds, its default (from model/policy.ts), its meaning.
// Called by schema.ts alone.
import { Type } from 'typebox';
import {
  DEFAULT_BREAKER,
  DEFAULT_CLUSTER_POLICY,
  DEFAULT_HEALTH_CHECK,
  DEFAULT_HOLD,
  DEFAULT_LIMITS,
  DEFAULT_OUTLIER,
  DEFAULT_RETRY,
} from '../model/policy.ts';
import { duration, flag, oneOf, size, text, unbuilt, whole } from './marks.ts';

const STRICT = { additionalProperties: false } as const;
const FILLED = { ...STRICT, 'x-fill': true } as const;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const statusRange = Type.Unsafe<number | string>({
  anyOf: [
    { type: 'integer', minimum: 100, maximum: 599 },
    { type: 'string', pattern: '^[1-5]\\d\\d-[1-5]\\d\\d$' },
  ],
  'x-expected': 'a status 100..599 or a range such as 200-299',
});

const httpCheck = Type.Object(
  {
    path: Type.Optional(
      text(
        'Path of the GET; never a host, port or scheme.',
        'a path that starts with / and holds no space or control character',
        {
          pattern: '^/[!-~]*$',
          default: DEFAULT_HEALTH_CHECK.path,
        },
      ),
    ),
    expectedStatuses: Type.Optional(
      Type.Array(statusRange, {
        minItems: 1,
        maxItems: 20,
        default: [200],
        description: 'Statuses that pass. Any other status makes the instance unhealthy at once.',
      }),
    ),
    host: Type.Optional(
      text('Host field of the check; without it host:port of the instance.', 'a host name or host:port', {
        pattern: '^[A-Za-z0-9._:\\[\\]-]{1,255}$',
      }),
    ),
  },
  { ...STRICT, description: 'GET on a path; redirects are not followed.' },
);

const tcpCheck = Type.Object(
  {
    send: Type.Optional(unbuilt('Bytes to send.', 'send and expect of TCP checks')),
    expect: Type.Optional(unbuilt('Bytes to expect.', 'send and expect of TCP checks')),
  },
  {
    ...STRICT,
    description: 'A TCP connect. It can lower a verdict or settle an unknown one, never overrule a registry that says unhealthy.',
  },
);

const grpcCheck = Type.Object(
  {
    service: Type.Optional(
      Type.String({ maxLength: 255, default: '', description: 'Name asked of grpc.health.v1.Health/Check.' }),
    ),
  },
  { ...STRICT, description: 'gRPC health checking protocol, plain text.' },
);

const check = DEFAULT_HEALTH_CHECK;

/** Active check of a service's instances, also of a registration of this host. Exactly one of http, tcp, grpc. */
export const healthCheckSchema = Type.Object(
  {
    http: Type.Optional(httpCheck),
    tcp: Type.Optional(tcpCheck),
    grpc: Type.Optional(grpcCheck),
    interval: Type.Optional(duration('Time between two checks of an instance.', { min: 100, max: HOUR }, check.interval)),
    timeout: Type.Optional(duration('A check that takes longer has failed.', { min: 10, max: 60_000 }, check.timeout)),
    healthyThreshold: Type.Optional(
      whole('Passes in a row that make an unhealthy instance healthy.', 1, 100, check.healthyThreshold),
    ),
    unhealthyThreshold: Type.Optional(
      whole('Failures in a row that make a healthy instance unhealthy.', 1, 100, check.unhealthyThreshold),
    ),
    noTrafficInterval: Type.Optional(
      duration('Interval while the service has no traffic.', { min: 100, max: DAY }, check.noTrafficInterval),
    ),
  },
  { ...STRICT, description: 'Active health check; without it only held, suspect and unknown instances are probed (TCP).' },
);

const retry = DEFAULT_RETRY;
const HEDGING = 'hedging';

const retrySchema = Type.Object(
  {
    on: Type.Optional(
      Type.Array(
        oneOf('Condition of a retry.', [
          'connectFailure',
          'refusedStream',
          'reset',
          'gatewayError',
          '5xx',
          'retriable4xx',
          'retriableStatusCodes',
        ]),
        { uniqueItems: true, maxItems: 7, default: [...retry.on], description: 'Which failures are tried again.' },
      ),
    ),
    attempts: Type.Optional(whole('Retries after the first try.', 0, 10, retry.attempts)),
    perTryTimeout: Type.Optional(
      duration(
        'Until the response head of one try; ignored unless it is below `timeout`.',
        { min: 1, max: HOUR, zero: true },
        retry.perTryTimeout,
      ),
    ),
    nonIdempotent: Type.Optional(flag('Retry POST and PATCH after a byte was sent, too.', retry.nonIdempotent)),
    idempotencyKey: Type.Optional(flag('Requests that carry Idempotency-Key may be repeated.', retry.idempotencyKey)),
    statusCodes: Type.Optional(
      Type.Array(whole('A status.', 400, 599), { maxItems: 50, default: [], description: 'For `retriableStatusCodes`.' }),
    ),
    budget: Type.Optional(
      Type.Object(
        {
          percent: Type.Optional(whole('Retries in the window, per cent of first tries.', 0, 100, retry.budget.percent)),
          minConcurrency: Type.Optional(whole('Retries that are always allowed.', 0, 1_000, retry.budget.minConcurrency)),
          interval: Type.Optional(
            duration(
              'Window; 0 counts requests in flight instead.',
              { min: 1_000, max: 600_000, zero: true },
              retry.budget.interval,
            ),
          ),
        },
        { ...FILLED, description: 'Bounds retries per service, so that they cannot multiply an outage.' },
      ),
    ),
    hedgeOnPerTryTimeout: Type.Optional(unbuilt('Send a second try, keep the first.', HEDGING, false)),
    hedging: Type.Optional(unbuilt('Hedged requests.', HEDGING)),
  },
  { ...FILLED, description: 'Only idempotent requests are repeated, unless nothing was sent.' },
);

const outlier = DEFAULT_OUTLIER;
const percent = (words: string, fallback: number) => whole(words, 0, 100, fallback);
const RATE_DETECTION = 'outlier detection by success rate or failure percentage';

const outlierSchema = Type.Object(
  {
    enabled: Type.Optional(flag('Outlier detection at all.', outlier.enabled)),
    interval: Type.Optional(duration('Time between two sweeps.', { min: 100, max: HOUR }, outlier.interval)),
    baseEjectionTime: Type.Optional(
      duration('First ejection; later ones are multiples.', { min: 100, max: DAY }, outlier.baseEjectionTime),
    ),
    maxEjectionTime: Type.Optional(duration('Longest ejection.', { min: 100, max: DAY }, outlier.maxEjectionTime)),
    maxEjectionTimeJitter: Type.Optional(
      duration('Random time added to an ejection.', { min: 1, max: HOUR, zero: true }, outlier.maxEjectionTimeJitter),
    ),
    maxEjectionPercent: Type.Optional(percent('Share of the instances that may be ejected.', outlier.maxEjectionPercent)),
    alwaysEjectOneHost: Type.Optional(flag('One may always be ejected.', outlier.alwaysEjectOneHost)),
    consecutive5xx: Type.Optional(whole('Failures in a row.', 1, 100_000, outlier.consecutive5xx)),
    enforcingConsecutive5xx: Type.Optional(percent('Probability that it ejects.', outlier.enforcingConsecutive5xx)),
    consecutiveGatewayFailure: Type.Optional(whole('502, 503, 504 in a row.', 1, 100_000, outlier.consecutiveGatewayFailure)),
    enforcingConsecutiveGatewayFailure: Type.Optional(
      percent('Probability that it ejects.', outlier.enforcingConsecutiveGatewayFailure),
    ),
    splitExternalLocalOriginErrors: Type.Optional(
      flag('Count connect failures, resets and timeouts apart from statuses.', outlier.splitExternalLocalOriginErrors),
    ),
    consecutiveLocalOriginFailure: Type.Optional(
      whole('Local failures in a row, when split.', 1, 100_000, outlier.consecutiveLocalOriginFailure),
    ),
    enforcingConsecutiveLocalOriginFailure: Type.Optional(
      percent('Probability that it ejects.', outlier.enforcingConsecutiveLocalOriginFailure),
    ),
    successRate: Type.Optional(unbuilt('Detection by success rate.', RATE_DETECTION)),
    failurePercentage: Type.Optional(unbuilt('Detection by failure percentage.', RATE_DETECTION)),
  },
  { ...FILLED, description: 'Takes instances that fail requests out of picking for a while.' },
);

const breaker = DEFAULT_BREAKER;

const breakerSchema = Type.Object(
  {
    enabled: Type.Optional(flag('Breakers at all.', breaker.enabled)),
    consecutiveFailures: Type.Optional(whole('Failures in a row that open it.', 1, 100_000, breaker.consecutiveFailures)),
    errorPercent: Type.Optional(whole('Share of failures in the window that opens it.', 1, 100, breaker.errorPercent)),
    minimumRequests: Type.Optional(
      whole('Results in the window before the share counts.', 1, 1_000_000, breaker.minimumRequests),
    ),
    window: Type.Optional(duration('Window of the share.', { min: 1_000, max: HOUR }, breaker.window)),
    sleepWindow: Type.Optional(
      duration('How long it stays open at first; doubled at each re-opening.', { min: 100, max: HOUR }, breaker.sleepWindow),
    ),
    maxSleepWindow: Type.Optional(duration('Longest time open.', { min: 100, max: DAY }, breaker.maxSleepWindow)),
    halfOpenSuccesses: Type.Optional(whole('Successes in a row that close it.', 1, 100, breaker.halfOpenSuccesses)),
  },
  { ...FILLED, description: 'closed / open / half-open, per instance.' },
);

const limits = DEFAULT_LIMITS;

const limitsSchema = Type.Object(
  {
    maxConnections: Type.Optional(whole('Connections to all instances.', 1, 65_535, limits.maxConnections)),
    maxPendingRequests: Type.Optional(whole('Requests that wait for a connection.', 0, 65_535, limits.maxPendingRequests)),
    maxRequests: Type.Optional(whole('Requests in flight.', 1, 65_535, limits.maxRequests)),
  },
  { ...FILLED, description: 'Caps per service; beyond them 503 UPSTREAM_OVERFLOW at once.' },
);

const mergeSchema = Type.Unsafe<
  'union' | { readonly prefer: readonly string[] } | { readonly weighted: Readonly<Record<string, number>> }
>({
  anyOf: [
    { const: 'union' },
    {
      type: 'object',
      required: ['prefer'],
      properties: {
        prefer: {
          'x-expected': 'a list of source ids',
          type: 'array',
          items: { type: 'string' },
          minItems: 1,
          maxItems: 64,
          uniqueItems: true,
        },
      },
      additionalProperties: false,
    },
    {
      type: 'object',
      required: ['weighted'],
      properties: {
        weighted: {
          'x-expected': '{source: share, …}',
          type: 'object',
          additionalProperties: { type: 'number', minimum: 0, maximum: 1_000_000 },
          minProperties: 1,
        },
      },
      additionalProperties: false,
    },
  ],
  'x-expected': 'union, {prefer: [source, …]} or {weighted: {source: share, …}}',
  description: 'How several sources become one view: all of them, the first that has instances, or shares of the traffic.',
  default: 'union',
});

const holdSchema = Type.Unsafe<false | { readonly max?: string | number; readonly secondRead?: string | number }>({
  anyOf: [
    { const: false },
    Type.Object(
      {
        max: Type.Optional(
          duration('After this long a removal is believed.', { min: 1, max: DAY, zero: true }, DEFAULT_HOLD.max),
        ),
        secondRead: Type.Optional(
          duration('Earliest second read that confirms.', { min: 1_000, max: HOUR }, DEFAULT_HOLD.secondRead),
        ),
      },
      STRICT,
    ),
  ],
  'x-expected': 'false or {max: 0..24h, secondRead: 1s..1h}',
  'x-fill': true,
  description: 'Keeps instances that vanish in bulk until it is sure; false: blind trust in the registry.',
});

const cluster = DEFAULT_CLUSTER_POLICY;
const LATER_POLICY = 'this load-balancing policy';

/** One `services:` entry. */
export const serviceSchema = Type.Object(
  {
    match: text(
      '`namespace/name`; * stands for any run of characters. The first entry that matches decides.',
      'a pattern such as game/*',
    ),
    names: Type.Optional(
      Type.Unsafe<Readonly<Record<string, string>>>({
        type: 'object',
        additionalProperties: {
          type: 'string',
          minLength: 1,
          maxLength: 512,
          'x-expected': 'a name or a template such as game-{name}',
        },
        description: 'What these services are called in a source; {name} and {namespace} stand for the parts of our own.',
      }),
    ),
    merge: Type.Optional(mergeSchema),
    loadBalancer: Type.Optional(
      Type.Object(
        {
          policy: Type.Optional(
            oneOf('The algorithm.', ['leastRequest', 'roundRobin', 'random'], cluster.loadBalancer.policy, {
              ringHash: LATER_POLICY,
              maglev: LATER_POLICY,
            }),
          ),
          subset: Type.Optional(unbuilt('Subsets by metadata.', 'subset load balancing')),
          slowStart: Type.Optional(unbuilt('Slow start of new instances.', 'slow start')),
          locality: Type.Optional(unbuilt('Priorities by locality.', 'locality priorities')),
        },
        { ...FILLED, description: 'How an instance is picked.' },
      ),
    ),
    healthCheck: Type.Optional(healthCheckSchema),
    outlierDetection: Type.Optional(outlierSchema),
    breaker: Type.Optional(breakerSchema),
    limits: Type.Optional(limitsSchema),
    retry: Type.Optional(retrySchema),
    timeout: Type.Optional(
      duration('Whole request, retries and body included.', { min: 1, max: DAY, zero: true }, cluster.timeout),
    ),
    streaming: Type.Optional(flag('Lifts the body timeouts.', cluster.streaming)),
    maxRequestBody: Type.Optional(
      size('Larger request bodies are answered 413.', { min: 0, max: 1_099_511_627_776 }, cluster.maxRequestBody),
    ),
    rewriteHost: Type.Optional(
      text('Host field sent upstream; without it the client’s own.', 'a host name or host:port', {
        pattern: '^[A-Za-z0-9._:\\[\\]-]{1,255}$',
      }),
    ),
    panicThreshold: Type.Optional(
      whole('Below this share of available instances health is ignored; 0: never.', 0, 100, cluster.panicThreshold),
    ),
    connectTimeout: Type.Optional(duration('TCP connect to an instance.', { min: 10, max: 60_000 }, cluster.connectTimeout)),
    hold: Type.Optional(holdSchema),
    mirror: Type.Optional(unbuilt('Traffic mirroring.', 'traffic mirroring')),
    rateLimit: Type.Optional(unbuilt('Rate limits.', 'rate limits')),
    signatures: Type.Optional(unbuilt('Request signatures.', 'request signatures')),
  },
  { ...STRICT, description: 'Policies of the services that match.' },
);
