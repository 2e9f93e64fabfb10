// What the live tests of nacos, polaris and l5 share: the adapter as app would make it, and a catalog with one source, fed by it.
// Called by their *-support.ts; starts no server.
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import type { Adapter, AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import type { Select } from '../../src/adapter/select.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { Catalog } from '../../src/catalog/catalog.ts';
import { NO_OVERLAY } from '../../src/catalog/evidence.ts';
import type { ViewInstance } from '../../src/catalog/view.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { type Log, silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { polarisBinary } from '../registries/polaris.ts';
import { source } from '../support/catalog-fixture.ts';

export interface Made {
  readonly adapter: Adapter;
  readonly counts: Map<string, number>;
  /** What it logged. */
  readonly lines: string[];
}

/** Makes an adapter whose counts and log lines are kept. */
export function made(create: (deps: AdapterDeps) => Adapter, deps: Partial<AdapterDeps> = {}): Made {
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const adapter = create({
    sourceId: 'test',
    clock: systemClock,
    random: seededRandom(7),
    dial: () => null,
    log,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
    ...deps,
  });
  return { adapter, counts, lines };
}

export interface SourceBenchOptions {
  readonly kind: string;
  readonly timeout: SourceOptions['timeout'];
  readonly select?: Select;
}

/** A catalog with one source, fed by a supervisor, wired as app does it. Probes say nothing, so every hold stays. */
export class SourceBench {
  readonly catalog: Catalog;
  readonly supervisor: Supervisor;
  readonly made: Made;
  /** Instances that left a view, `service address`. */
  readonly removed: string[] = [];
  readonly #before = new Map<string, ReadonlySet<string>>();

  constructor(of: Made, { kind, timeout, select = { kind: 'all' } }: SourceBenchOptions) {
    this.made = of;
    const metrics = new Metrics();
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
      sources: [source(kind, { kind, dial: () => null })],
      names: [],
      policyOf: () => DEFAULT_SERVICE_POLICY,
    });
    this.supervisor = new Supervisor({
      sourceId: kind,
      adapter: of.adapter,
      select,
      sink: this.catalog,
      clock: systemClock,
      random: seededRandom(3),
      log: silentLog,
      timeout,
      // The figures are about the adapter; the back-off has its own tests.
      maxBackoff: 2_000,
    });
    this.catalog.onHeld((_source, key, held) => {
      if (held) this.supervisor.keep(key);
      else this.supervisor.release(key);
    });
    this.catalog.onConfirmRead((_source, key) => void this.supervisor.readNow(key).catch(() => undefined));
    this.catalog.subscribe((service, view) => {
      const now = new Set(view?.instances.map(({ host, port }) => hostPort(host, port)));
      for (const address of this.#before.get(service) ?? []) if (!now.has(address)) this.removed.push(`${service} ${address}`);
      this.#before.set(service, now);
    });
    this.supervisor.start();
  }

  /** Addresses in the view of a service; a bare name is one of the namespace `default`. */
  view(service: ServiceKey | string): string[] {
    return this.#instances(service)
      .map(({ host, port }) => hostPort(host, port))
      .sort();
  }

  /** Of them, those that are held though the source dropped them. */
  held(service: ServiceKey | string): number {
    return this.#instances(service).filter(({ held }) => held).length;
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

  #instances(service: ServiceKey | string): readonly ViewInstance[] {
    const key = typeof service === 'string' ? { namespace: 'default', name: service } : service;
    return this.catalog.get(serviceId(key))?.instances ?? [];
  }
}

/** A test that needs a real Polaris, which is an L5 server, too: missing it fails in CI and skips elsewhere. */
export function itPolaris(
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
