// What the live tests of Polaris share: a raw client past the adapter, the adapter as app makes it, a catalog fed by it.
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { Connection } from '../../adapters/polaris/client.ts';
import { factory } from '../../adapters/polaris/index.ts';
import { nativeOf } from '../../adapters/polaris/mapping.ts';
import { type NativeInstance, TYPE_INSTANCE, textOf } from '../../adapters/polaris/protocol.ts';
import { Question } from '../../adapters/polaris/question.ts';
import { Servers } from '../../adapters/polaris/servers.ts';
import type { Adapter, SourceOptions } from '../../src/adapter/contract.ts';
import type { Select } from '../../src/adapter/select.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { Catalog } from '../../src/catalog/catalog.ts';
import { NO_OVERLAY } from '../../src/catalog/evidence.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { type Log, silentLog } from '../../src/kernel/log.ts';
import { seededRandom, systemRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import type { Instance } from '../../src/model/instance.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { polarisBinary } from '../registries/polaris.ts';
import { source } from '../support/catalog-fixture.ts';

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 5_000, normalWeight: null };
const MAPPING = { normalWeight: 100, dial: () => null, count: () => {} };

/** A test that needs the real server: missing it fails in CI and skips elsewhere. */
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

export function never(): AbortSignal {
  return new AbortController().signal;
}

/** A client of the tests' own, past the adapter. */
export class Raw {
  readonly #connection: Connection;
  readonly #servers: Servers;
  readonly #wheel = new TimerWheel(systemClock);

  constructor(grpc: string, token: string | null = null) {
    this.#connection = new Connection(grpc, null, token, 5_000, systemClock);
    const options = { ...PLAIN, auth: token === null ? {} : { token } };
    const deps = { clock: systemClock, random: systemRandom, wheel: this.#wheel };
    this.#servers = new Servers([{ kind: 'grpc', address: grpc, tls: false }], options, deps);
  }

  /** Registers without a health check. A second write of one address within a batch of the server is tried again. */
  async put(key: ServiceKey, instances: readonly Instance[]): Promise<void> {
    await Promise.all(
      instances.map(async (instance) => {
        const native = nativeOf(key, instance, { ttl: null, sendIsolate: true }, MAPPING);
        if (typeof native === 'string') throw new Error(native);
        await this.register(native);
      }),
    );
  }

  async register(native: NativeInstance): Promise<string> {
    for (let attempt = 0; ; attempt++) {
      const { code, info, instance } = await this.#connection.call('RegisterInstance', native, never());
      if (code?.value === 200_000) return textOf(instance?.id) ?? '';
      if (code?.value !== 400_208 || attempt >= 3) throw new Error(`register: ${code?.value} ${textOf(info)}`);
    }
  }

  async remove(ids: readonly string[]): Promise<void> {
    for (const id of ids) await this.#connection.call('DeregisterInstance', { id: { value: id } }, never());
  }

  /** Ids of a service as the server shows them now; null for an unknown one. */
  async ids(key: ServiceKey): Promise<string[] | null> {
    const { result } = await this.#servers.ask(new Question(TYPE_INSTANCE, key.namespace, key.name), never());
    if (result.kind !== 'answer' || result.answer.code?.value !== 200_000) return null;
    return (result.answer.instances ?? []).map(({ id }) => textOf(id) ?? '');
  }

  close(): void {
    this.#connection.close();
    this.#servers.close();
    this.#wheel.close();
  }
}

export interface Made {
  readonly adapter: Adapter;
  readonly counts: Map<string, number>;
  readonly lines: string[];
}

/** The adapter as app would make it. */
export function makeAdapter(servers: readonly string[], options: SourceOptions = PLAIN, config: object = {}): Made {
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const adapter = factory.create({ servers, ...config }, options, {
    sourceId: 'polaris',
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

  constructor(servers: readonly string[], options: SourceOptions = PLAIN, config: object = {}, select: Select = { kind: 'all' }) {
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
      sources: [source('polaris', { kind: 'polaris', dial: () => null })],
      names: [],
      policyOf: () => DEFAULT_SERVICE_POLICY,
    });
    this.made = makeAdapter(servers, options, config);
    this.supervisor = new Supervisor({
      sourceId: 'polaris',
      adapter: this.made.adapter,
      select,
      sink: this.catalog,
      clock: systemClock,
      random: seededRandom(3),
      log: silentLog,
      timeout: options.timeout,
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

  /** Addresses in the view of a service. */
  view(key: ServiceKey): string[] {
    return (this.catalog.get(serviceId(key))?.instances ?? []).map(({ host, port }) => hostPort(host, port)).sort();
  }

  /** Of them, those that are held though the source dropped them. */
  held(key: ServiceKey): number {
    return (this.catalog.get(serviceId(key))?.instances ?? []).filter(({ held }) => held).length;
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
