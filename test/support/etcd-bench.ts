// A fake etcd, an adapter on it and time that stands still: what the unit tests of adapters/etcd share.
import { type FakeEtcd, type FakeVersion, startFakeEtcd } from '../../adapters/etcd/fake.ts';
import { factory } from '../../adapters/etcd/index.ts';
import type { Adapter, AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import type { Log } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { type Instance, NO_METADATA } from '../../src/model/instance.ts';
import { asSourceError, type Snapshot, type SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';

export const NEVER = new AbortController().signal;
export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 3_000, normalWeight: null };

export interface Bench {
  readonly fake: FakeEtcd;
  readonly adapter: Adapter;
  /** Time of the adapter; the server has its own, moved by `advance` as well. */
  readonly clock: FakeClock;
  readonly counts: Map<string, number>;
  readonly lines: string[];
  /** Moves both clocks. */
  advance(ms: number): Promise<void>;
  /** Lets time pass in steps of `stepMs` until the claim holds. */
  until(claim: () => boolean | Promise<boolean>, what: string, stepMs?: number): Promise<void>;
  put(service: string, id: string, port: number, weight?: number): void;
  remove(service: string, id: string): void;
  another(options?: SourceOptions, config?: object): Adapter;
  close(): Promise<void>;
}

export async function etcdBench(version: FakeVersion, options: SourceOptions = PLAIN, config: object = {}): Promise<Bench> {
  const clock = new FakeClock();
  const serverClock = new FakeClock();
  const fake = await startFakeEtcd(version, serverClock);
  const counts = new Map<string, number>();
  const lines: string[] = [];
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const deps: AdapterDeps = {
    sourceId: 'bench',
    clock,
    random: seededRandom(1),
    dial: () => null,
    log,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
  };
  const adapters: Adapter[] = [];
  const another = (other = options, otherConfig = config): Adapter => {
    const adapter = factory.create({ endpoints: [`http://${fake.endpoint}`], ...otherConfig }, other, deps);
    adapters.push(adapter);
    return adapter;
  };
  const advance = async (ms: number): Promise<void> => {
    await serverClock.advance(ms);
    await clock.advance(ms);
  };
  return {
    fake,
    adapter: another(),
    clock,
    counts,
    lines,
    advance,
    until: (claim, what, stepMs = 20) =>
      eventually(async () => {
        if (await claim()) return;
        await advance(stepMs);
        throw new Error(`not seen: ${what}`);
      }, 10_000),
    put(service, id, port, weight = 100) {
      const value = JSON.stringify({ Op: 0, Addr: `10.0.0.1:${port}`, Metadata: { weight } });
      fake.store.put({ key: Buffer.from(`/services/${service}/${id}`), value: Buffer.from(value) });
    },
    remove(service, id) {
      fake.store.deleteRange({ key: Buffer.from(`/services/${service}/${id}`) });
    },
    another,
    async close() {
      for (const adapter of adapters) await adapter.close();
      await fake.close();
    },
  };
}

export const KEY = { namespace: 'default', name: 'svc' };

/** One watch, read into arrays until it ends. */
export class Watching {
  readonly items: (Snapshot | Unchanged)[] = [];
  error: SourceError | null = null;
  ended = false;
  readonly #stop = new AbortController();

  constructor(adapter: Adapter, key = KEY) {
    void this.#run(adapter.watch(key, this.#stop.signal));
  }

  get last(): Snapshot | undefined {
    return this.items.findLast((item): item is Snapshot => item.kind !== 'unchanged');
  }

  /** Ids of the newest snapshot, sorted; null before the first. */
  get ids(): string | null {
    const { last } = this;
    if (last === undefined) return null;
    return last.kind === 'absent'
      ? ''
      : last.instances
          .map(({ id }) => id)
          .sort()
          .join(' ');
  }

  stop(): void {
    this.#stop.abort(new Error('the test has seen enough'));
  }

  async #run(items: AsyncIterable<Snapshot | Unchanged>): Promise<void> {
    try {
      for await (const item of items) this.items.push(item);
    } catch (thrown) {
      this.error = asSourceError(thrown);
    }
    this.ended = true;
  }
}

export function instance(port: number, fields: Partial<Instance> = {}): Instance {
  return {
    id: `i${port}`,
    host: '10.0.0.1',
    port,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: NO_METADATA,
    ...fields,
  };
}
