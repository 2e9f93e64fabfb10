// Watches and lists over the fake server: one stream for all, cadence, what answers mean, faults of the server, the HTTP fallback.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { describe, it } from 'node:test';
import type { Adapter, SourceOptions } from '../../src/adapter/contract.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { asSourceError, type ServiceList, type Snapshot, type SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakePolaris, startFakePolaris } from './fake.ts';
import { refusal } from './fake-store.ts';
import { BACK_TO_GRPC_MS } from './feed.ts';
import { factory } from './index.ts';
import { TYPE_INSTANCE, textOf } from './protocol.ts';
import { testDeps } from './test-support.ts';

interface Rig {
  readonly fake: FakePolaris;
  readonly clock: FakeClock;
  readonly counts: Map<string, number>;
  adapter(config?: object, options?: Partial<SourceOptions>): Adapter;
  /** Lets time pass for both sides in small steps until the claim holds. */
  until(claim: () => boolean): Promise<void>;
}

async function rig(body: (r: Rig) => Promise<void>): Promise<void> {
  const clock = new FakeClock();
  const fake = await startFakePolaris(clock);
  const counts = new Map<string, number>();
  const adapters: Adapter[] = [];
  try {
    await body({
      fake,
      clock,
      counts,
      adapter(config = {}, options = {}) {
        const all = { auth: {}, tls: null, timeout: 5_000, normalWeight: null, ...options };
        const made = factory.create({ servers: [fake.grpc], ...config }, all, testDeps(clock, [], counts));
        adapters.push(made);
        return made;
      },
      until: (claim) =>
        eventually(async () => {
          if (claim()) return true;
          await clock.advance(25);
          return claim();
        }, 20_000).then(() => undefined),
    });
  } finally {
    for (const one of adapters) await one.close();
    await fake.close();
  }
}

class Reader<T> {
  readonly items: T[] = [];
  error: SourceError | null = null;
  readonly #stop = new AbortController();
  readonly done: Promise<void>;

  constructor(open: (signal: AbortSignal) => AsyncIterable<T>) {
    this.done = (async () => {
      try {
        for await (const item of open(this.#stop.signal)) this.items.push(item);
      } catch (thrown) {
        this.error = asSourceError(thrown);
      }
    })();
  }

  stop(): Promise<void> {
    this.#stop.abort(new Error('seen enough'));
    return this.done;
  }
}

const key = (name: string, namespace = 'default'): ServiceKey => ({ namespace, name });

function watch(adapter: Adapter, of: ServiceKey): Reader<Snapshot | Unchanged> {
  return new Reader((signal) => adapter.watch(of, signal));
}

function list(adapter: Adapter): Reader<ServiceList> {
  return new Reader((signal) => adapter.services?.(signal) ?? assert.fail('no list'));
}

function add({ fake }: Rig, name: string, port = 80, namespace = 'default'): string {
  const native = {
    service: { value: name },
    namespace: { value: namespace },
    host: { value: '192.0.2.1' },
    port: { value: port },
  };
  const id = textOf(fake.store.register(native).instance?.id) ?? assert.fail('no id');
  fake.store.refresh();
  return id;
}

function snapshots(reader: Reader<Snapshot | Unchanged>): Snapshot[] {
  return reader.items.filter((item): item is Snapshot => item.kind !== 'unchanged');
}

describe('polaris feed', () => {
  it('many services share one stream, and each is asked again with its revision after at most one interval', () =>
    rig(async (r) => {
      const names = Array.from({ length: 100 }, (_, n) => `s${n}`);
      for (const name of names) add(r, name);
      const adapter = r.adapter();
      const readers = names.map((name) => watch(adapter, key(name)));
      await r.until(() => readers.every(({ items }) => items.length > 0));
      assert.equal(r.fake.streamsOpened, 1);
      const asked = new Map<string, number[]>();
      const from = r.fake.log.length;
      for (let n = 0; n < 200; n++) {
        const before = r.fake.log.length;
        await r.clock.advance(25);
        if (r.fake.log.length > before) await eventually(() => true);
      }
      for (const { about, at } of r.fake.log.slice(from)) asked.set(about, [...(asked.get(about) ?? []), at]);
      assert.equal(asked.size, 100);
      for (const times of asked.values()) {
        for (const [n, at] of times.entries()) {
          // Behind the interval may come ticks and the turn of the fake's own socket.
          if (n > 0) assert.ok(at - (times[n - 1] ?? 0) <= 1_000 + 200, `${at - (times[n - 1] ?? 0)} ms`);
        }
      }
      const perTick = new Map<number, number>();
      for (const { at } of r.fake.log.slice(from)) perTick.set(at, (perTick.get(at) ?? 0) + 1);
      assert.ok(Math.max(...perTick.values()) < 40, 'polls are spread over the interval');
      for (const reader of readers) await reader.stop();
    }));

  it('a quiet service says so from time to time, and not at every poll', () =>
    rig(async (r) => {
      add(r, 'quiet');
      const reader = watch(r.adapter(), key('quiet'));
      await r.until(() => reader.items.filter(({ kind }) => kind === 'unchanged').length >= 2);
      assert.equal(snapshots(reader).length, 1);
      assert.ok(r.fake.log.filter(({ call }) => call === 'Discover').length >= 8);
      await reader.stop();
    }));

  it('an alias is a service under its own name, with the instances of the real one', () =>
    rig(async (r) => {
      add(r, 'real');
      assert.equal(r.fake.store.alias('default', '192000065:65537', key('real')), 200_000);
      r.fake.store.refresh();
      const adapter = r.adapter();
      const reader = watch(adapter, key('192000065:65537'));
      const names = list(adapter);
      await r.until(() => reader.items.length > 0 && names.items.length > 0);
      const [seen] = snapshots(reader);
      assert.ok(seen?.kind === 'present' && seen.instances[0]?.port === 80);
      assert.deepEqual(names.items[0]?.keys.map(({ name }) => name).sort(), ['192000065:65537', 'real']);
      await reader.stop();
      await names.stop();
    }));

  it('unhealthy and isolated instances are in the list, told apart', () =>
    rig(async (r) => {
      const [sick, drained] = [add(r, 'mixed', 1), add(r, 'mixed', 2)];
      r.fake.store.change('default', 'mixed', sick, { healthy: {} });
      r.fake.store.change('default', 'mixed', drained, { isolate: { value: true } });
      r.fake.store.refresh();
      const seen = await r.adapter().read(key('mixed'), new AbortController().signal);
      assert.ok(seen.kind === 'present');
      const byPort = new Map(seen.instances.map((one) => [one.port, one]));
      assert.deepEqual([byPort.get(1)?.health, byPort.get(1)?.isolated], ['unhealthy', false]);
      assert.deepEqual([byPort.get(2)?.health, byPort.get(2)?.isolated], ['healthy', true]);
    }));

  it('empty lists whose revision changes at every answer are no change', () =>
    rig(async (r) => {
      r.fake.store.createService('default', 'empty');
      r.fake.store.refresh();
      let n = 0;
      r.fake.answer = (_, right) => ({
        ...right,
        code: { value: 200_000 },
        service: { ...right.service, revision: { value: `r${n++}` } },
      });
      const reader = watch(r.adapter(), key('empty'));
      await r.until(() => n > 8);
      assert.equal(snapshots(reader).length, 1);
      await reader.stop();
    }));

  it('a service that was deleted and made anew is another epoch; so is a return to a revision that was left', () =>
    rig(async (r) => {
      add(r, 'anew');
      const image = r.fake.store.image();
      const reader = watch(r.adapter(), key('anew'));
      const epochs = (): string[] => snapshots(reader).map(({ epoch }) => epoch);
      await r.until(() => epochs().length === 1);
      add(r, 'anew', 81);
      await r.until(() => epochs().length === 2);
      assert.equal(epochs()[0], epochs()[1]);
      r.fake.store.restore(image);
      await r.until(() => epochs().length === 3);
      assert.notEqual(epochs()[2], epochs()[1]);
      r.fake.store.deleteService('default', 'anew');
      await r.until(() => snapshots(reader).at(-1)?.kind === 'absent');
      add(r, 'anew');
      await r.until(() => snapshots(reader).at(-1)?.kind === 'present');
      assert.notEqual(epochs().at(-1), epochs()[2]);
      await reader.stop();
    }));

  it('a refusal of one service fails its watch alone, and the stream goes on', () =>
    rig(async (r) => {
      add(r, 'good');
      add(r, 'secret');
      r.fake.answer = ({ service }) => (textOf(service?.name) === 'secret' ? refusal(401_001) : null);
      const adapter = r.adapter();
      const [good, secret] = [watch(adapter, key('good')), watch(adapter, key('secret'))];
      await r.until(() => secret.error !== null && good.items.length > 0);
      assert.equal(secret.error?.causeKind, 'denied');
      assert.match(secret.error?.message ?? '', /default\/secret.*auth\.token/);
      add(r, 'good', 81);
      await r.until(() => snapshots(good).length === 2);
      assert.equal(r.fake.streamsOpened, 1);
      await good.stop();
    }));

  it('a stream that ends with status OK, silence, and answers out of step fail every watch, and removed nothing before', () =>
    rig(async (r) => {
      const breaks: readonly [string, () => void, RegExp][] = [
        ['ended', () => r.fake.endStreams(), /connection broke|ended by itself/],
        ['failed', () => r.fake.failStreams(14, 'going away'), /going away/],
        ['too many', () => r.fake.sendUnasked(), /nobody asked for|out of step/],
        [
          'silent',
          () => {
            r.fake.silent = true;
          },
          /no answer within/,
        ],
      ];
      add(r, 'a');
      add(r, 'b');
      const adapter = r.adapter();
      for (const [name, broken, claim] of breaks) {
        // A server that fails again and again is left alone for a while.
        await r.clock.advance(15_000);
        const readers = [watch(adapter, key('a')), watch(adapter, key('b'))];
        await r.until(() => readers.every(({ items }) => items.length > 0));
        broken();
        await r.until(() => readers.every(({ error }) => error !== null));
        for (const { error, items } of readers) {
          assert.match(error?.message ?? '', claim, name);
          assert.ok(items.every((item) => item.kind === 'unchanged' || (item.kind === 'present' && item.instances.length === 1)));
        }
      }
      r.fake.silent = false;
    }));

  it('three faults of the server in a row send the source to the next server', () =>
    rig(async (r) => {
      const second = await startFakePolaris(r.clock);
      try {
        const native = {
          service: { value: 'a' },
          namespace: { value: 'default' },
          host: { value: '192.0.2.1' },
          port: { value: 80 },
        };
        for (const fake of [r.fake, second]) {
          fake.store.register(native);
          fake.store.refresh();
        }
        const sick = new Set([r.fake, second].slice(0, 1));
        for (const fake of [r.fake, second])
          fake.answer = () => (sick.has(fake) ? { ...refusal(500_001), type: TYPE_INSTANCE } : null);
        const adapter = r.adapter({ servers: [r.fake.grpc, second.grpc] });
        let seen: Snapshot | Unchanged | undefined;
        for (let attempt = 0; seen === undefined && attempt < 10; attempt++) {
          const readers = ['a', 'a', 'b', 'c'].map((name) => watch(adapter, key(name)));
          await r.until(() => readers.every(({ error, items }) => error !== null || items.length > 0));
          seen = readers[0]?.items[0];
          for (const reader of readers) {
            if (reader.error !== null) assert.equal(reader.error.causeKind, 'lost');
            await reader.stop();
          }
        }
        assert.equal(seen?.kind, 'present');
        await adapter.close();
      } finally {
        await second.close();
      }
    }));

  it('a namespace that shows nothing is told in words with those that have services; the default one is just empty', () =>
    rig(async (r) => {
      add(r, 'a', 80, 'Production');
      const wrong = list(r.adapter({ namespace: 'production' }));
      await r.until(() => wrong.error !== null);
      assert.equal(wrong.error?.causeKind, 'refused');
      assert.match(wrong.error?.message ?? '', /namespace production is unknown .* services in: Production/);
      const empty = list(r.adapter({ namespace: 'default' }));
      await r.until(() => empty.items.length > 0);
      assert.deepEqual(empty.items[0], { keys: [], failed: [], complete: true });
      const all = list(r.adapter({ namespace: '*' }));
      await r.until(() => all.items.length > 0);
      assert.deepEqual(all.items[0]?.keys, [{ namespace: 'Production', name: 'a' }]);
      await empty.stop();
      await all.stop();
    }));

  it('"no change" to a first question is no answer', () =>
    rig(async (r) => {
      add(r, 'a');
      r.fake.answer = (_, right) => ({ ...right, code: { value: 200_001 } });
      const reader = watch(r.adapter(), key('a'));
      await r.until(() => reader.error !== null);
      assert.equal(reader.error?.causeKind, 'malformed');
    }));

  it('HTTP is used while gRPC is down, and left without a loss when gRPC is back', () =>
    rig(async (r) => {
      add(r, 'a');
      await r.fake.down();
      const adapter = r.adapter({ servers: [r.fake.grpc, `http://${r.fake.http}`] });
      const first = watch(adapter, key('a'));
      await r.until(() => first.error !== null);
      assert.match(first.error?.message ?? '', /nothing listens there/);
      const reader = watch(adapter, key('a'));
      await r.until(() => reader.items.length > 0);
      assert.equal(r.counts.get('fallback.http'), 1);
      assert.equal(r.fake.streamsOpened, 0);
      await r.fake.up();
      await r.clock.advance(BACK_TO_GRPC_MS);
      add(r, 'a', 81);
      await r.until(() => r.fake.streamsOpened > 0 && snapshots(reader).length === 2);
      assert.equal(reader.error, null);
      r.fake.endStreams();
      await r.until(() => reader.error !== null);
    }));

  it('a read with several servers asks another one than the watch, and that one where the other is down', () =>
    rig(async (r) => {
      const second = await startFakePolaris(r.clock);
      try {
        add(r, 'a');
        const adapter = r.adapter({ servers: [r.fake.grpc, second.grpc] });
        const kinds = new Set<string>();
        const reader = watch(adapter, key('a'));
        await r.until(() => reader.items.length > 0);
        kinds.add(snapshots(reader)[0]?.kind ?? '');
        kinds.add((await adapter.read(key('a'), new AbortController().signal)).kind);
        assert.deepEqual([...kinds].sort(), ['absent', 'present']);
        await second.down();
        assert.equal((await adapter.read(key('a'), new AbortController().signal)).kind, 'present', 'the other one is down');
        await reader.stop();
        await adapter.close();
      } finally {
        await second.close();
      }
    }));

  it('while no server answers, a crowd of watches connects once in 0.5 s, then ever more seldom, and all hear the same reason', () =>
    rig(async (r) => {
      add(r, 'a');
      const adapter = r.adapter();
      const first = watch(adapter, key('a'));
      await r.until(() => first.items.length > 0);
      await r.fake.down();
      await first.done;
      const tries: number[] = [];
      const start = r.clock.now();
      for (let n = 0; r.clock.now() - start < 60_000; n++) {
        const crowd = Array.from({ length: 20 }, (_, i) => watch(adapter, key(`${n}-${i}`)));
        for (const one of crowd) {
          await one.done;
          assert.equal(one.error?.causeKind, 'lost');
          assert.match(one.error?.message ?? '', /nothing listens there/);
        }
        const waits = crowd.map(({ error }) => error?.retryAfterMs);
        // Whoever was told no knows when to come back; the rest had a try of their own, all of them the same one.
        if (waits.some((wait) => wait === undefined)) tries.push(r.clock.now() - start);
        await r.clock.advance(100);
      }
      assert.ok(tries.length >= 5 && tries.length <= 11, JSON.stringify(tries));
      const gaps = tries.slice(1).map((at, n) => at - (tries[n] ?? 0));
      assert.ok(Math.max(...gaps) >= 14_000 && Math.max(...gaps) <= 15_200, JSON.stringify(gaps));
      await r.fake.up();
      await r.clock.advance(15_000);
      const again = watch(adapter, key('a'));
      await r.until(() => again.items.length > 0);
      await again.stop();
    }));

  it('over the rate limit of the server, in codes or as HTTP 429, a watch is lost with a wait of 5 s and the others go on', () =>
    rig(async (r) => {
      for (const name of ['a', 'b']) add(r, name);
      r.fake.answer = ({ service }) => (textOf(service?.name) === 'a' ? { code: { value: 403_003 } } : null);
      const adapter = r.adapter();
      const [limited, other] = [watch(adapter, key('a')), watch(adapter, key('b'))];
      await limited.done;
      assert.deepEqual([limited.error?.causeKind, limited.error?.retryAfterMs], ['lost', 5_000]);
      assert.match(limited.error?.message ?? '', /the server limits our rate \(403003/);
      await r.until(() => other.items.length > 0);
      assert.equal(other.error, null);
      await other.stop();
      assert.equal(r.fake.streamsOpened, 1);
      for (const [status, wait, words] of [
        [429, 5_000, /limits our rate/],
        [503, undefined, /a gateway answers there/],
      ] as const) {
        const gateway = createServer((_, response) => void response.writeHead(status).end('busy'));
        gateway.listen(0, '127.0.0.1');
        await once(gateway, 'listening');
        try {
          const overHttp = r.adapter({ servers: [`http://127.0.0.1:${Object(gateway.address()).port}`] });
          const reader = watch(overHttp, key('a'));
          await reader.done;
          assert.deepEqual([reader.error?.causeKind, reader.error?.retryAfterMs], ['lost', wait]);
          assert.match(reader.error?.message ?? '', words);
          await overHttp.close();
        } finally {
          gateway.close();
        }
      }
    }));
});
