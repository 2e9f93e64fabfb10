// What the live tests of etcd share: which servers there are, a raw writer, a follower that re-opens what the adapter loses.
import assert from 'node:assert/strict';
import { it, type SuiteContext, type TestContext } from 'node:test';
import { EtcdClient } from '../../adapters/etcd/client.ts';
import { factory } from '../../adapters/etcd/index.ts';
import { listPrefix } from '../../adapters/etcd/lister.ts';
import type { Adapter, SourceOptions } from '../../src/adapter/contract.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import type { Log } from '../../src/kernel/log.ts';
import { seededRandom, systemRandom } from '../../src/kernel/random.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, type Snapshot, type SourceError } from '../../src/model/snapshot.ts';
import { type EtcdVersion, etcdBinary } from '../registries/etcd.ts';

export const VERSIONS: readonly EtcdVersion[] = ['3.4', '3.6'];
export const PREFIX = '/services/';

/** A test per version; a missing server fails it in CI and skips it elsewhere. */
export function itPerVersion(name: string, timeout: number, body: (version: EtcdVersion, t: TestContext) => Promise<void>): void {
  for (const version of VERSIONS) {
    it(`${name} (etcd ${version})`, { timeout }, async (t) => {
      const { path, how } = await etcdBinary(version, true);
      if (path !== null) return body(version, t);
      if (process.env['CI'] !== undefined) assert.fail(`etcd ${version} is missing in CI: ${how}`);
      t.skip(`no etcd ${version}: ${how}`);
    });
  }
}

export type { SuiteContext };

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 3_000, normalWeight: null };

/** A client of the tests' own, past the adapter. */
export class Raw {
  readonly client: EtcdClient;

  constructor(endpoint: string, options: SourceOptions = PLAIN) {
    const tls = options.tls !== null;
    this.client = new EtcdClient([{ address: endpoint, tls }], options, { clock: systemClock, random: systemRandom });
  }

  async put(service: string, id: string, value: string, lease = '0'): Promise<bigint> {
    const key = Buffer.from(`${PREFIX}${service}/${id}`);
    const { header } = await this.client.call('Put', { key, value: Buffer.from(value), lease }, never());
    return BigInt(header?.revision ?? '0');
  }

  async remove(service: string, id: string): Promise<bigint> {
    const { header } = await this.client.call('DeleteRange', { key: Buffer.from(`${PREFIX}${service}/${id}`) }, never());
    return BigInt(header?.revision ?? '0');
  }

  async compact(revision: bigint): Promise<void> {
    await this.client.call('Compact', { revision: String(revision) }, never());
  }

  async grant(seconds: number): Promise<string> {
    return (await this.client.call('LeaseGrant', { ttl: String(seconds), id: '0' }, never())).id;
  }

  async revision(): Promise<bigint> {
    const { header } = await this.client.call('Range', { key: Buffer.from('/'), countOnly: true }, never());
    return BigInt(header?.revision ?? '0');
  }

  /** Everything below the prefix: `service id` → value. */
  async truth(): Promise<Map<string, string>> {
    const { kvs } = await listPrefix((request) => this.client.call('Range', request, never()), PREFIX);
    return new Map(kvs.map((kv) => [kv.key.toString().slice(PREFIX.length).replace('/', ' '), kv.value.toString()]));
  }

  close(): void {
    this.client.close();
  }
}

export function never(): AbortSignal {
  return new AbortController().signal;
}

/** The value that an instance of the layout grpc has; `weight` tells one write from the next. */
export function value(port: number, weight: number): string {
  return JSON.stringify({ Op: 0, Addr: `10.0.0.1:${port}`, Metadata: { weight } });
}

export interface Made {
  readonly adapter: Adapter;
  readonly counts: Map<string, number>;
  readonly lines: string[];
}

/** The adapter as app would make it. */
export function makeAdapter(endpoints: readonly string[], options: SourceOptions = PLAIN, config: object = {}): Made {
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const scheme = options.tls === null ? 'http' : 'https';
  const adapter = factory.create({ endpoints: endpoints.map((endpoint) => `${scheme}://${endpoint}`), ...config }, options, {
    sourceId: 'live',
    clock: systemClock,
    random: seededRandom(7),
    dial: () => null,
    log,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
  });
  return { adapter, counts, lines };
}

/** Follows services through the adapter and opens again, 100-300 ms after each loss, what it lost. */
export class Follower {
  /** Every snapshot in its order. */
  readonly seen: { readonly service: string; readonly snapshot: Snapshot }[] = [];
  readonly losses: SourceError[] = [];
  readonly #adapter: Adapter;
  readonly #state = new Map<string, Snapshot>();
  readonly #stop = new AbortController();
  readonly #loops: Promise<void>[] = [];
  /** Called with each snapshot and the one before it. */
  onSnapshot: (service: string, now: Snapshot, before: Snapshot | undefined) => void = () => {};

  constructor(adapter: Adapter, services: readonly string[]) {
    this.#adapter = adapter;
    for (const name of services) this.#loops.push(this.#follow({ namespace: 'default', name }));
  }

  /** What the adapter said last: `service id` → `port weight`. */
  state(): Map<string, string> {
    const state = new Map<string, string>();
    for (const [service, snapshot] of this.#state) {
      if (snapshot.kind !== 'present') continue;
      for (const { id, port, weight } of snapshot.instances) state.set(`${service} ${id}`, `${port} ${weight}`);
    }
    return state;
  }

  snapshotOf(service: string): Snapshot | undefined {
    return this.#state.get(service);
  }

  /** True when every service has an answer. */
  get complete(): boolean {
    return this.#state.size === this.#loops.length;
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('the test is over'));
    await Promise.all(this.#loops);
  }

  async #follow(key: ServiceKey): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        for await (const item of this.#adapter.watch(key, signal)) {
          if (item.kind === 'unchanged') continue;
          const before = this.#state.get(key.name);
          this.#state.set(key.name, item);
          this.seen.push({ service: key.name, snapshot: item });
          this.onSnapshot(key.name, item, before);
        }
      } catch (thrown) {
        this.losses.push(asSourceError(thrown));
      }
      await systemClock.sleep(100 + Math.random() * 200, signal).catch(() => {});
    }
  }
}

/** The store's truth in the words of `Follower.state`. */
export function expected(truth: ReadonlyMap<string, string>): Map<string, string> {
  const state = new Map<string, string>();
  for (const [name, text] of truth) {
    const { Addr, Metadata } = JSON.parse(text);
    state.set(name, `${String(Addr).split(':')[1]} ${Metadata.weight}`);
  }
  return state;
}

/** Compares sorted, so that a failure shows what differs. */
export function assertSameState(got: ReadonlyMap<string, string>, want: ReadonlyMap<string, string>): void {
  assert.deepEqual([...got].sort(), [...want].sort());
}

/** Revisions of one service never go back within an epoch. */
export function assertOrdered(follower: Follower): void {
  const last = new Map<string, bigint>();
  for (const { service, snapshot } of follower.seen) {
    const place = `${serviceId({ namespace: 'default', name: service })} ${snapshot.epoch}`;
    const revision = BigInt(snapshot.sourceRevision);
    assert.ok(revision >= (last.get(place) ?? 0n), `${place}: ${revision} after ${last.get(place)}`);
    last.set(place, revision);
  }
}
