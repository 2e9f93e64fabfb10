// A catalog on a fake clock with scripted sources and probes; for tests of the catalog and of what stands on it.

import type { InstanceField } from '../../src/adapter/capabilities.ts';
import { Catalog, type CatalogConfig } from '../../src/catalog/catalog.ts';
import type { MergeOverlay } from '../../src/catalog/evidence.ts';
import { NO_OVERLAY } from '../../src/catalog/evidence.ts';
import type { CatalogSource } from '../../src/catalog/sources.ts';
import type { View } from '../../src/catalog/view.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { dialPolicy, type OwnListener } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { type Instance, NO_METADATA } from '../../src/model/instance.ts';
import { DEFAULT_SERVICE_POLICY, type ServicePolicy } from '../../src/model/policy.ts';
import type { ServiceId, ServiceKey } from '../../src/model/service.ts';
import { parseServiceId } from '../../src/model/service.ts';
import { SourceError, type SourceErrorCause } from '../../src/model/snapshot.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { FakeClock } from './fake-clock.ts';

export const ALL_FIELDS: ReadonlySet<InstanceField> = new Set([
  'weight',
  'health',
  'isolated',
  'protocol',
  'version',
  'locality',
  'metadata',
]);

/** `10.0.0.1:80` or `name:80` as an instance; `over` replaces fields. */
export function instance(address: string, over: Partial<Instance> = {}): Instance {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  const port = Number(address.slice(colon + 1));
  return {
    id: over.id ?? `id-${address}`,
    host,
    port,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: NO_METADATA,
    ...over,
  };
}

/** `10.0.<a>.<i>:80` for i in 1..n. */
export function addresses(n: number, a = 0, from = 1): string[] {
  return Array.from({ length: n }, (_, i) => `10.${a}.${(from + i) >> 8}.${(from + i) & 255}:80`);
}

export function source(id: string, over: Partial<CatalogSource> = {}): CatalogSource {
  return {
    id,
    kind: 'memory',
    network: '',
    asNamespace: null,
    dial: dialPolicy({ allowLoopback: false, allowNames: true, cidrs: [], ports: [] }, () => []),
    reads: ALL_FIELDS,
    lists: true,
    tellsDeregistration: false,
    expireAfter: null,
    ...over,
  };
}

export function dialWith(own: readonly OwnListener[], allowLoopback = false) {
  return dialPolicy({ allowLoopback, allowNames: true, cidrs: [], ports: [] }, () => own);
}

export class CatalogFixture {
  readonly clock: FakeClock;
  readonly metrics = new Metrics();
  readonly events: Events;
  readonly catalog: Catalog;
  readonly policies = new Map<ServiceId, ServicePolicy>();
  /** Failed probes in a row by `host:port`. */
  readonly failing = new Map<string, number>();
  readonly views: { service: ServiceId; view: View | undefined; at: number }[] = [];
  readonly reads: { source: string; key: ServiceKey; at: number }[] = [];
  #revision = 0;

  constructor(
    options: {
      sources?: CatalogSource[];
      overlay?: MergeOverlay;
      lastIndex?: number;
      names?: CatalogConfig['names'];
      clock?: FakeClock;
    } = {},
  ) {
    this.clock = options.clock ?? new FakeClock();
    this.events = new Events(this.clock, silentLog, this.metrics);
    this.catalog = new Catalog({
      clock: this.clock,
      log: silentLog,
      events: this.events,
      metrics: this.metrics,
      evidence: { failuresInARow: (_service, _network, host, port) => this.failing.get(hostPort(host, port)) ?? 0 },
      overlay: options.overlay ?? NO_OVERLAY,
      lastIndex: options.lastIndex ?? 0,
    });
    this.configure(options.sources ?? [source('a')], options.names);
    this.catalog.subscribe((service, view) => this.views.push({ service, view, at: this.clock.now() }));
    this.catalog.onConfirmRead((id, key) => this.reads.push({ source: id, key, at: this.clock.now() }));
  }

  configure(sources: readonly CatalogSource[], names: CatalogConfig['names'] = []): void {
    const policyOf = (service: ServiceId): ServicePolicy => this.policies.get(service) ?? DEFAULT_SERVICE_POLICY;
    this.catalog.configure({ sources, names, policyOf });
  }

  list(sourceId: string, services: readonly ServiceId[], over: { failed?: ServiceId[]; complete?: boolean } = {}): void {
    const failed = (over.failed ?? []).map(key);
    this.catalog.list(sourceId, { keys: services.map(key), failed, complete: over.complete ?? true });
  }

  /** A present answer of addresses or instances. */
  say(
    sourceId: string,
    service: ServiceId,
    given: readonly (string | Instance)[],
    over: { rejected?: { nativeId: string; reason: string }[]; deregistered?: string[]; epoch?: string } = {},
  ): void {
    const instances = given.map((one) => (typeof one === 'string' ? instance(one) : one));
    this.catalog.snapshot(sourceId, key(service), {
      kind: 'present',
      epoch: over.epoch ?? 'e1',
      sourceRevision: String(++this.#revision),
      instances,
      rejected: over.rejected ?? [],
      ...(over.deregistered === undefined ? {} : { deregistered: over.deregistered }),
    });
  }

  absent(sourceId: string, service: ServiceId, epoch = 'e1'): void {
    this.catalog.snapshot(sourceId, key(service), { kind: 'absent', epoch, sourceRevision: String(++this.#revision) });
  }

  lose(sourceId: string, service: ServiceId | null = null, cause: SourceErrorCause = 'lost'): void {
    this.catalog.lost(sourceId, service === null ? null : key(service), new SourceError(cause, `made ${cause}`));
  }

  /** Addresses of the view, sorted as the view is; `(held)` is marked by `!`. */
  view(service: ServiceId): string[] {
    return this.catalog.get(service)?.instances.map((one) => (one.held ? '!' : '') + hostPort(one.host, one.port)) ?? [];
  }

  size(service: ServiceId): number {
    return this.catalog.get(service)?.instances.length ?? -1;
  }

  heldIn(service: ServiceId): number {
    return this.catalog.get(service)?.instances.filter((one) => one.held).length ?? 0;
  }

  fail(given: readonly string[], times = 3): void {
    for (const address of given) this.failing.set(address, times);
  }

  eventTypes(): string[] {
    return this.events.recent(10_000).map((event) => event.type);
  }
}

export function key(service: ServiceId): ServiceKey {
  const parsed = parseServiceId(service);
  if (parsed === null) {
    const slash = service.indexOf('/');
    return { namespace: service.slice(0, slash), name: service.slice(slash + 1) };
  }
  return parsed;
}
