// Owns the JSON of one service (contract.md "Shapes"): view + verdicts + source states + ejections → plain data, text and ETag.
// Called by services.ts, watch.ts, explain.ts; pure but for the short-lived text of the newest readings.
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { instanceId } from '../catalog/identity.ts';
import type { Conflict, Provenance, ServiceSourceState, ViewInstance } from '../catalog/view.ts';
import type { ClusterState, EndpointState } from '../cluster/interest.ts';
import { hostPort } from '../kernel/address.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Verdict } from '../model/health-status.ts';
import type { Locality } from '../model/instance.ts';
import type { ServiceId } from '../model/service.ts';
import type { CatalogReader, DataPlanePort, Published } from './ports.ts';

export interface InstanceAnswer {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly weight: number;
  readonly verdict: Verdict;
  readonly held: boolean;
  readonly suspect: boolean;
  readonly ejected: boolean;
  readonly registryHealth: string;
  readonly isolated: boolean;
  readonly network?: string;
  readonly transport?: 'udp';
  readonly protocol?: string;
  readonly version?: string;
  readonly locality?: Locality;
  readonly metadata: Readonly<Record<string, string>>;
  readonly provenance: readonly Provenance[];
}

export interface SourceStateAnswer {
  readonly state: string;
  readonly presence: string;
  readonly ageMs: number | null;
  readonly contactAgeMs: number | null;
  readonly held: number;
  readonly instances: number;
  readonly rejected: number;
  readonly sourceRevision: string;
  readonly epoch: string;
  readonly cause?: string;
  readonly message?: string;
}

export interface ServiceAnswer {
  readonly namespace: string;
  readonly name: string;
  readonly revision: number;
  /** Some source that the answer is built from is stale; `ageMs` is then the age of the oldest of them. */
  readonly stale: boolean;
  readonly ageMs: number | null;
  readonly sources: Readonly<Record<string, SourceStateAnswer>>;
  readonly instances: readonly InstanceAnswer[];
  readonly conflicts: readonly Conflict[];
}

/** What is stale in the states of a service: true with the age of the oldest stale answer. */
export function staleness(states: readonly ServiceSourceState[]): { readonly stale: boolean; readonly ageMs: number | null } {
  const stale = states.filter(({ state, presence }) => (state === 'stale' || state === 'failed') && presence !== 'neverSeen');
  const ages = stale.map(({ ageMs }) => ageMs).filter((age) => age !== null);
  return { stale: stale.length > 0, ageMs: ages.length === 0 ? null : Math.round(Math.max(...ages)) };
}

/** The state of one source as answers carry it. */
export function sourceStateAnswer(state: ServiceSourceState): SourceStateAnswer {
  const { source: _source, ageMs, contactAgeMs, ...rest } = state;
  return { ...rest, ageMs: rounded(ageMs), contactAgeMs: rounded(contactAgeMs) };
}

/** Whole milliseconds. */
export function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms);
}

/** The whole answer; `keep` chooses instances (all by default). */
export function serviceAnswer(
  published: Published,
  states: readonly ServiceSourceState[],
  cluster: ClusterState | null,
  keep: (instance: ViewInstance, verdict: Verdict) => boolean = () => true,
): ServiceAnswer {
  const { view, verdicts, index } = published;
  const endpoints = endpointsByAddress(cluster);
  const instances: InstanceAnswer[] = [];
  view.instances.forEach((instance, at) => {
    const verdict = verdicts[at] ?? 'unknown';
    if (!keep(instance, verdict)) return;
    instances.push(instanceAnswer(view.service, instance, verdict, endpoints.get(hostPort(instance.host, instance.port))));
  });
  return {
    namespace: view.key.namespace,
    name: view.key.name,
    revision: index,
    ...staleness(states),
    sources: Object.fromEntries(states.map((state) => [state.source, sourceStateAnswer(state)])),
    instances,
    conflicts: view.conflicts,
  };
}

/** Endpoint states by `host:port`. */
export function endpointsByAddress(cluster: ClusterState | null): ReadonlyMap<string, EndpointState> {
  return new Map((cluster?.endpoints ?? []).map((endpoint) => [hostPort(endpoint.host, endpoint.port), endpoint]));
}

function instanceAnswer(
  service: ServiceId,
  instance: ViewInstance,
  verdict: Verdict,
  endpoint: EndpointState | undefined,
): InstanceAnswer {
  const { host, port, weight, held, suspect, registryHealth, isolated, provenance, metadata } = instance;
  return {
    id: instanceId(service, instance),
    host,
    port,
    weight,
    verdict,
    held,
    suspect,
    ejected: endpoint?.ejected ?? false,
    registryHealth,
    isolated,
    ...(instance.network === '' ? {} : { network: instance.network }),
    ...(instance.transport === 'udp' ? { transport: 'udp' as const } : {}),
    ...(instance.protocol === undefined ? {} : { protocol: instance.protocol }),
    ...(instance.version === undefined ? {} : { version: instance.version }),
    ...(instance.locality === undefined ? {} : { locality: instance.locality }),
    metadata: Object.fromEntries(metadata),
    provenance,
  };
}

/** Weak: two answers with one ETag may differ in ages, in nothing else. */
export function etagOf(answer: ServiceAnswer): string {
  const states = Object.entries(answer.sources).map(([id, state]) => [id, state.state, state.presence, state.held]);
  const ejected = answer.instances.map((instance) => (instance.ejected ? '1' : '0')).join('');
  const hash = createHash('sha256')
    .update(JSON.stringify([answer.revision, states, ejected]))
    .digest('base64url');
  return `W/"${answer.revision.toString(36)}-${hash.slice(0, 16)}"`;
}

/** One rendered reading. */
export interface Rendered {
  readonly revision: number;
  readonly text: string;
  readonly etag: string;
}

/** A rendering serves this long: a change that wakes 10,000 readers is rendered once, ages are off by no more than this. */
const SHARE_MS = 100;

/** Renders whole services and shares the text among readers of the same moment. */
export class ServiceRenderer {
  readonly #catalog: CatalogReader;
  readonly #dataPlane: DataPlanePort;
  readonly #clock: Clock;
  readonly #shared = new LRUCache<ServiceId, { published: Published; at: number; rendered: Promise<Rendered> }>({ max: 64 });

  constructor(catalog: CatalogReader, dataPlane: DataPlanePort, clock: Clock) {
    this.#catalog = catalog;
    this.#dataPlane = dataPlane;
    this.#clock = clock;
  }

  /** The whole service as text. */
  render(published: Published): Promise<Rendered> {
    const service = published.view.service;
    const now = this.#clock.now();
    const found = this.#shared.get(service);
    if (found !== undefined && found.published === published && now - found.at < SHARE_MS) return found.rendered;
    const rendered = this.answer(published).then((answer) => this.finish(answer));
    this.#shared.set(service, { published, at: now, rendered });
    // A failed rendering must not be served again; the caller gets the failure itself.
    rendered.catch(() => this.#shared.delete(service));
    return rendered;
  }

  /** The service as data, with the instances that `keep` chooses. */
  async answer(published: Published, keep?: (instance: ViewInstance, verdict: Verdict) => boolean): Promise<ServiceAnswer> {
    const service = published.view.service;
    const cluster = await this.#dataPlane.state(service);
    return serviceAnswer(published, this.#catalog.states(service), cluster, keep);
  }

  /** Text and ETag of an answer. */
  finish(answer: ServiceAnswer): Rendered {
    return { revision: answer.revision, text: JSON.stringify(answer), etag: etagOf(answer) };
  }
}
