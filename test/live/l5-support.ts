// What the tests of L5 share, against the fake as against the L5 server of a real Polaris: skips, a writer past the adapter (the
// console API), the adapter as app makes it, a catalog fed by it.
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { factory } from '../../adapters/l5/index.ts';
import type { Adapter, SourceOptions } from '../../src/adapter/contract.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { Catalog } from '../../src/catalog/catalog.ts';
import { NO_OVERLAY } from '../../src/catalog/evidence.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { type Log, silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import type { Instance } from '../../src/model/instance.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { type PolarisServer, polarisBinary } from '../registries/polaris.ts';
import { source } from '../support/catalog-fixture.ts';

/** Claims of the conformance suite that the central protocol cannot keep. */
export const SKIPS = [
  {
    test: 'weights are read on our scale: normal is 100, zero stays zero, little never becomes zero',
    reason: 'a server leaves instances of weight 0 out; the scale is proved in mapping.test.ts',
  },
  { test: 'IPv6 addresses are read in their canonical form', reason: 'the protocol carries IPv4 only' },
  { test: 'metadata over the limits is cut, and the list survives', reason: 'the protocol carries no metadata' },
  {
    test: 'names like __proto__ and constructor are services like any other',
    reason: 'it wants metadata of instances, which the protocol does not carry; such names are proved in adapter.test.ts',
  },
  {
    test: 'a wiped registry is heard again, whatever its revisions are',
    reason: 'the protocol has no revisions that could start anew; hearing a wiped server is proved in adapter.test.ts',
  },
] as const;

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 5_000, normalWeight: null };

/** A test that needs the real server: missing it fails in CI and skips elsewhere. */
export function itL5(
  name: string,
  timeout: number,
  body: (defer: (end: () => unknown) => void, t: TestContext) => Promise<void>,
): void {
  it(name, { timeout }, async (t) => {
    const { path, how } = await polarisBinary(true);
    if (path === null) {
      if (process.env['CI'] !== undefined) assert.fail(`Polaris is missing in CI: ${how}`);
      t.skip(`no Polaris: ${how}`);
      return;
    }
    const ends: (() => unknown)[] = [];
    try {
      await body((end) => ends.push(end), t);
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
}

export function never(): AbortSignal {
  return new AbortController().signal;
}

export function key(name: string): ServiceKey {
  return { namespace: 'default', name };
}

const EXISTS = 400_201;
const NO_CHANGE = [200_001, 200_002];

/** Services and instances of the Polaris namespace `default`, written by its console API. */
export class Console {
  readonly #server: PolarisServer;
  readonly #services = new Set<string>();

  constructor(server: PolarisServer) {
    this.#server = server;
  }

  /** A service named `sid`; with an L5 name where one is given. */
  async service(sid: string, name = '', nearby = false): Promise<void> {
    if (this.#services.has(sid)) return;
    this.#services.add(sid);
    const metadata = {
      ...(name !== '' && { 'internal-cl5-sid': sid, 'internal-cl5-name': name }),
      ...(nearby && { 'internal-enable-nearby': 'true' }),
    };
    await this.#call('POST', '/naming/v1/services', [{ name: sid, namespace: 'default', metadata, owners: 'polaris' }]);
  }

  /** Upserts by address, 100 in a call. */
  async put(sid: string, instances: readonly Partial<Instance>[], metadata: Record<string, string> = {}): Promise<void> {
    await this.service(sid);
    const records = instances.map(({ host, port, weight = 100, health = 'healthy', isolated = false }) => ({
      ...{ service: sid, namespace: 'default', host, port, weight, isolate: isolated, healthy: health === 'healthy', metadata },
    }));
    for (let at = 0; at < records.length; at += 100) {
      await this.#call('POST', '/naming/v1/instances', records.slice(at, at + 100));
      await this.#call('PUT', '/naming/v1/instances', records.slice(at, at + 100));
    }
  }

  /** By `host:port`. */
  async remove(sid: string, addresses: readonly string[]): Promise<void> {
    const records = addresses.map((address) => {
      const [host, port] = address.split(':');
      return { service: sid, namespace: 'default', host, port: Number(port) };
    });
    await this.#call('POST', '/naming/v1/instances/delete/host', records);
  }

  /** A second name of a service. */
  async alias(alias: string, sid: string): Promise<void> {
    const body = { service: sid, namespace: 'default', alias, alias_namespace: 'default', type: 'DEFAULT', owners: 'polaris' };
    await this.#call('POST', '/naming/v1/service/alias', body);
  }

  /** Nothing of it is there any more. */
  forget(): void {
    this.#services.clear();
  }

  async #call(method: string, path: string, body: unknown): Promise<void> {
    const answer = await this.#server.console(method, path, body, 'any');
    const { code } = answer;
    if (![200_000, EXISTS, ...NO_CHANGE].includes(Number(code))) {
      throw new Error(`polaris ${method} ${path}: ${JSON.stringify(answer).slice(0, 400)}`);
    }
  }
}

export interface Made {
  readonly adapter: Adapter;
  readonly counts: Map<string, number>;
  readonly lines: string[];
}

/** The adapter as app would make it. */
export function makeAdapter(servers: readonly string[], config: object = {}, options: SourceOptions = PLAIN): Made {
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const adapter = factory.create({ servers, ...config }, options, {
    sourceId: 'l5',
    clock: systemClock,
    random: seededRandom(7),
    dial: () => null,
    log,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
  });
  return { adapter, counts, lines };
}

/** A catalog with one source, fed by a supervisor, wired as app does it. Probes say nothing, so every hold stays. */
export class Bench {
  readonly catalog: Catalog;
  readonly supervisor: Supervisor;
  readonly made: Made;
  /** Instances that left a view, `service address`. */
  readonly removed: string[] = [];
  readonly #before = new Map<string, ReadonlySet<string>>();

  constructor(made: Made) {
    const metrics = new Metrics();
    this.made = made;
    this.catalog = new Catalog({
      clock: systemClock,
      log: silentLog,
      events: new Events(systemClock, silentLog, metrics),
      metrics,
      evidence: { failuresInARow: () => 0 },
      overlay: NO_OVERLAY,
      lastIndex: 0,
    });
    this.catalog.configure({
      sources: [source('l5', { kind: 'l5', dial: () => null })],
      names: [],
      policyOf: () => DEFAULT_SERVICE_POLICY,
    });
    this.supervisor = new Supervisor({
      sourceId: 'l5',
      adapter: made.adapter,
      select: { kind: 'all' },
      sink: this.catalog,
      clock: systemClock,
      random: seededRandom(3),
      log: silentLog,
      timeout: PLAIN.timeout,
      // The figures are about the adapter; the back-off has its own tests.
      maxBackoff: 2_000,
    });
    this.catalog.onHeld((_source, service, held) => {
      if (held) this.supervisor.keep(service);
      else this.supervisor.release(service);
    });
    this.catalog.onConfirmRead((_source, service) => void this.supervisor.readNow(service).catch(() => undefined));
    this.catalog.subscribe((service, view) => {
      const now = new Set(view?.instances.map(({ host, port }) => hostPort(host, port)));
      for (const address of this.#before.get(service) ?? []) if (!now.has(address)) this.removed.push(`${service} ${address}`);
      this.#before.set(service, now);
    });
    this.supervisor.start();
  }

  /** Addresses in the view of a service. */
  view(sid: string): string[] {
    return (this.catalog.get(serviceId(key(sid)))?.instances ?? []).map(({ host, port }) => hostPort(host, port)).sort();
  }

  /** Of them, those that are held though the source dropped them. */
  held(sid: string): number {
    return (this.catalog.get(serviceId(key(sid)))?.instances ?? []).filter(({ held }) => held).length;
  }

  get lost(): boolean {
    return this.supervisor.summary().lostWatches > 0;
  }

  get state(): string {
    return this.supervisor.summary().state;
  }

  get lastError(): string {
    return this.supervisor.summary().lastError ?? '';
  }

  async close(): Promise<void> {
    await this.supervisor.close();
    await this.made.adapter.close();
    this.catalog.close();
  }
}
