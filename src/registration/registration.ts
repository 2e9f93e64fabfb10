// Owns what a registration is: the wish to have an instance of this host known to registries. Plain data, defaults, validation.
// Called by api (requests), app (settings) and registrations.ts.
import { canonicalHost } from '../kernel/address.ts';
import { WeirError } from '../kernel/errors.ts';
import { type Instance, MAX_WEIGHT, NO_METADATA, NORMAL_WEIGHT, type RegistryHealth } from '../model/instance.ts';
import { boundedMetadata, RESERVED_PREFIX } from '../model/metadata.ts';
import { DEFAULT_HEALTH_CHECK, type HealthCheckPolicy } from '../model/policy.ts';
import { nameFault, type ServiceKey, serviceId } from '../model/service.ts';
import type { RegistrationSettings } from '../settings/settings.ts';

export const DEFAULT_TTL_MS = 15_000;
export const MIN_TTL_MS = 5_000;
export const MAX_TTL_MS = 60_000;

/** One registration, complete: what the file declares and what a request gives end as the same thing. Durations ms. */
export type Registration = RegistrationSettings;

/** The parts of a check that a request may give; exactly one of http, tcp and grpc names the kind (none: tcp). */
export interface HealthCheckRequest {
  readonly http?: { readonly path: string };
  readonly tcp?: boolean;
  readonly grpc?: { readonly service: string };
  readonly interval?: number;
  readonly timeout?: number;
  readonly healthyThreshold?: number;
  readonly unhealthyThreshold?: number;
}

/** A decoded request; what was left out gets its default. */
export interface RegistrationRequest {
  readonly service: ServiceKey;
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly weight?: number;
  readonly metadata?: ReadonlyMap<string, string>;
  readonly protocol?: string;
  readonly version?: string;
  readonly sources?: readonly string[];
  readonly ttl?: number;
  readonly healthCheck?: HealthCheckRequest;
  readonly onUnhealthy?: 'unhealthy' | 'remove';
}

/** Key of a registration: id within its service. */
export function registrationKey(service: ServiceKey, id: string): string {
  return `${serviceId(service)}\0${id}`;
}

/** Fills in the defaults. Throws WeirError BAD_REQUEST with what is wrong. */
export function registrationOf(request: RegistrationRequest): Registration {
  const registration: Registration = {
    service: request.service,
    id: request.id,
    host: canonicalHost(request.host) ?? request.host,
    port: request.port,
    weight: request.weight ?? NORMAL_WEIGHT,
    metadata: request.metadata ?? NO_METADATA,
    ...(request.protocol !== undefined && { protocol: request.protocol }),
    ...(request.version !== undefined && { version: request.version }),
    sources: request.sources ?? null,
    ttl: request.ttl ?? DEFAULT_TTL_MS,
    healthCheck: request.healthCheck === undefined ? null : healthCheckOf(request.healthCheck),
    onUnhealthy: request.onUnhealthy ?? 'unhealthy',
  };
  const fault = registrationFault(registration);
  if (fault !== null) throw new WeirError('BAD_REQUEST', fault);
  return registration;
}

function healthCheckOf(request: HealthCheckRequest): HealthCheckPolicy {
  const base = DEFAULT_HEALTH_CHECK;
  const numbers = {
    interval: request.interval ?? base.interval,
    timeout: request.timeout ?? base.timeout,
    healthyThreshold: request.healthyThreshold ?? base.healthyThreshold,
    unhealthyThreshold: request.unhealthyThreshold ?? base.unhealthyThreshold,
  };
  if (request.http !== undefined) return { ...base, ...numbers, kind: 'http', path: request.http.path };
  if (request.grpc !== undefined) return { ...base, ...numbers, kind: 'grpc', grpcService: request.grpc.service };
  return { ...base, ...numbers, kind: 'tcp' };
}

/** What is wrong with a registration, in words, or null. Also asked of what comes back from the journal. */
export function registrationFault(registration: Registration): string | null {
  const { service, id, host, port, weight, ttl, metadata } = registration;
  for (const [what, text] of [
    ['namespace', service.namespace],
    ['name', service.name],
    ['id', id],
  ] as const) {
    const fault = nameFault(text);
    if (fault !== null) return `${what} ${fault}`;
  }
  if (service.namespace.includes('/')) return 'namespace holds a slash';
  if (canonicalHost(host) !== host) return 'host is neither an IP address nor a host name';
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return 'port is not in 1..65535';
  if (!Number.isInteger(weight) || weight < 0 || weight > MAX_WEIGHT) return `weight is not a whole number in 0..${MAX_WEIGHT}`;
  if (!Number.isFinite(ttl) || ttl < MIN_TTL_MS || ttl > MAX_TTL_MS) return `ttl is not in ${MIN_TTL_MS}..${MAX_TTL_MS} ms`;
  for (const key of metadata.keys()) if (key.startsWith(RESERVED_PREFIX)) return `metadata keys ${RESERVED_PREFIX}* are our own`;
  return boundedMetadata(metadata).cut > 0
    ? 'metadata is over its limits (64 keys of 128 bytes, values of 1 KiB, no control characters)'
    : null;
}

/** The record that registries should have. */
export function instanceOf(registration: Registration, health: RegistryHealth, weight = registration.weight): Instance {
  const { id, host, port, protocol, version, metadata } = registration;
  return {
    id,
    host,
    port,
    transport: 'tcp',
    weight,
    health,
    isolated: false,
    ...(protocol !== undefined && { protocol }),
    ...(version !== undefined && { version }),
    metadata,
  };
}
