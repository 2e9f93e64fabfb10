// What the tests of Consul share, against the fake as against the real server: a raw writer past the adapter, the harness of the
// conformance suite, a source as app would make it (adapter, supervisor, catalog).
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { request } from 'undici';
import { factory } from '../../adapters/consul/index.ts';
import { nativeFields } from '../../adapters/consul/native-fields.ts';
import type { Adapter, AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { Catalog } from '../../src/catalog/catalog.ts';
import { NO_OVERLAY } from '../../src/catalog/evidence.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { type Clock, systemClock } from '../../src/kernel/clock.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { type Log, silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import type { Instance } from '../../src/model/instance.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import type { NativeRegistry } from '../conformance/adapter.ts';
import { consulBinary } from '../registries/consul.ts';
import { ALL_FIELDS, source } from '../support/catalog-fixture.ts';

/** A test against the real server; a missing server fails it in CI and skips it elsewhere. */
export function itLive(name: string, timeout: number, body: (t: TestContext) => Promise<void>): void {
  it(name, { timeout }, async (t) => {
    const { path, how } = await consulBinary(true);
    if (path !== null) return body(t);
    if (process.env['CI'] !== undefined) assert.fail(`Consul is missing in CI: ${how}`);
    t.skip(`no Consul: ${how}`);
  });
}

/** Runs `body` and tears down in the reverse order of `defer`. */
export async function withCleanup(body: (defer: (end: () => unknown) => void) => Promise<void>): Promise<void> {
  const ends: (() => unknown)[] = [];
  try {
    await body((end) => ends.push(end));
  } finally {
    for (const end of ends.reverse()) await end();
  }
}

export function never(): AbortSignal {
  return new AbortController().signal;
}

/** HTTP to Consul, past the adapter. */
export class Raw {
  readonly #address: string;
  readonly #token: string | null;

  constructor(address: string, token: string | null = null) {
    this.#address = address;
    this.#token = token;
  }

  async call(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<unknown> {
    const headers = this.#token === null ? {} : { 'x-consul-token': this.#token };
    // A connection of its own: tests cut those that stand.
    const sent = body === undefined ? null : JSON.stringify(body);
    const answer = await request(`${this.#address}/v1${path}`, { method, headers, body: sent, reset: true });
    const text = await answer.body.text();
    if (answer.statusCode !== 200) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
    return text === '' || !/^[[{"tf]/.test(text) ? text : JSON.parse(text);
  }

  /** A catalog record of one instance on a node of the tests, with one check. */
  async register(service: string, instance: Instance): Promise<void> {
    const { silent, ...fields } = nativeFields(cut(instance), 1, () => {});
    const id = nativeId(service, instance);
    const weightless = instance.weight === 0 && !instance.isolated;
    // Consul can say weight 0 of what is in the state `warning` only.
    const status = instance.isolated || instance.health === 'unhealthy' ? 'critical' : weightless ? 'warning' : 'passing';
    const meta = Object.fromEntries(Object.entries(fields.meta).filter(([key]) => key !== 'weir-weight'));
    await this.call('PUT', '/catalog/register', {
      Node: 'native',
      Address: '192.0.2.250',
      Service: {
        ID: id,
        Service: service,
        Tags: fields.tags,
        Address: fields.address,
        Port: fields.port,
        Meta: meta,
        Weights: { Passing: fields.weights.Passing, Warning: weightless ? 0 : fields.weights.Warning },
      },
      Check: {
        Node: 'native',
        CheckID: instance.isolated ? `_service_maintenance:${id}` : `check:${id}`,
        Name: 'native',
        Status: status,
        ServiceID: id,
      },
    });
  }

  async deregister(id: string): Promise<void> {
    const [node, ...rest] = id.split('/');
    await this.call('PUT', '/catalog/deregister', { Node: node, ServiceID: rest.join('/') });
  }
}

/** An id that no other service of the node has: Consul would move the record. */
function nativeId(service: string, { host, port }: Instance): string {
  return `${service}-${hostPort(host, port)}`;
}

/** What Consul itself would refuse to hold is not given to it. */
function cut(instance: Instance): Instance {
  const metadata = new Map([...instance.metadata].map(([key, value]) => [key, value.slice(0, 512)] as const).slice(0, 63));
  return { ...instance, metadata };
}

/** Native control for the conformance suite. */
export function nativeRegistry(raw: Raw, more: Partial<NativeRegistry> = {}): NativeRegistry {
  return {
    async put({ name }, instances) {
      for (const instance of instances) await raw.register(name, instance);
    },
    async remove(_key, ids) {
      for (const id of ids) await raw.deregister(id);
    },
    async spoil({ name }) {
      await raw.call('PUT', '/catalog/register', {
        Node: 'native',
        Address: '192.0.2.250',
        Service: { ID: `${name}-spoilt`, Service: name, Address: '192.0.2.251', Port: 70_000 },
      });
    },
    ...more,
  };
}

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };

/** Claims of the suite that Consul cannot keep. */
export const SKIPS = [
  {
    test: 'a lease that nobody renews ends: the record goes, renew says forgotten, remove still says true',
    reason: 'at the end of its TTL a record turns critical; the agent removes it 10 minutes later (one at least)',
  },
] as const;

export interface Made {
  readonly adapter: Adapter;
  readonly deps: AdapterDeps;
  readonly counts: Map<string, number>;
  readonly lines: string[];
}

/** The adapter as app would make it. */
export function makeAdapter(
  address: string,
  options: SourceOptions = PLAIN,
  config: object = {},
  clock: Clock = systemClock,
): Made {
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const deps: AdapterDeps = {
    sourceId: 'test',
    clock,
    random: seededRandom(7),
    dial: dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []),
    log,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
  };
  return { adapter: factory.create({ address, ...config }, options, deps), deps, counts, lines };
}

/** An adapter below a supervisor above a catalog. */
export class Rig {
  readonly catalog: Catalog;
  readonly supervisor: Supervisor;
  readonly made: Made;
  /** Every time a view had fewer instances than the one before: `service before after`. */
  readonly shrinks: string[] = [];
  readonly #sizes = new Map<string, number>();

  constructor(made: Made) {
    this.made = made;
    const { clock, random } = made.deps;
    const metrics = new Metrics();
    this.catalog = new Catalog({
      clock,
      log: silentLog,
      events: new Events(clock, silentLog, metrics),
      metrics,
      evidence: { failuresInARow: () => 0 },
      overlay: NO_OVERLAY,
      lastIndex: 0,
    });
    const { dial } = made.deps;
    this.catalog.configure({
      sources: [source('test', { kind: 'consul', dial, reads: ALL_FIELDS, lists: true })],
      names: [],
      policyOf: () => DEFAULT_SERVICE_POLICY,
    });
    this.catalog.subscribe((service, view) => {
      const size = view?.instances.length ?? 0;
      const before = this.#sizes.get(service) ?? 0;
      if (size < before) this.shrinks.push(`${service} ${before} ${size}`);
      this.#sizes.set(service, size);
    });
    const { adapter } = made;
    this.supervisor = new Supervisor({
      sourceId: 'test',
      adapter,
      select: { kind: 'all' },
      sink: this.catalog,
      clock,
      random,
      log: silentLog,
      timeout: 10_000,
    });
    this.catalog.onConfirmRead((_id, key) => void this.supervisor.readNow(key).catch(() => {}));
    this.supervisor.start();
  }

  /** `host:port`, sorted. */
  addresses(name: string): string[] {
    const view = this.catalog.get(`default/${name}`);
    return view?.instances.map(({ host, port }) => hostPort(host, port)).sort() ?? [];
  }

  get state(): string {
    return this.catalog.sourceSummary('test')?.state ?? 'none';
  }

  async close(): Promise<void> {
    await this.supervisor.close();
    await this.made.adapter.close();
    this.catalog.close();
  }
}

export function key(name: string): ServiceKey {
  return { namespace: 'default', name };
}
