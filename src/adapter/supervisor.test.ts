import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingSink } from '../../test/support/recording-sink.ts';
import { silentLog } from '../kernel/log.ts';
import { Mailbox } from '../kernel/mailbox.ts';
import { seededRandom } from '../kernel/random.ts';
import { type Instance, NO_METADATA } from '../model/instance.ts';
import { type ServiceKey, serviceId } from '../model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../model/snapshot.ts';
import type { Adapter } from './contract.ts';
import type { Select } from './select.ts';
import { Supervisor } from './supervisor.ts';

const key = (name: string): ServiceKey => ({ namespace: 'ns', name });

function instance(port: number): Instance {
  return {
    id: `i${port}`,
    host: '192.0.2.1',
    port,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: NO_METADATA,
  };
}

function snapshot(...ports: number[]): Snapshot {
  return { kind: 'present', epoch: 'e', sourceRevision: String(ports.length), instances: ports.map(instance), rejected: [] };
}

function list(...names: string[]): ServiceList {
  return { keys: names.map(key), failed: [], complete: true };
}

type Item = Snapshot | Unchanged;

/** An adapter whose every stream is driven by the test. */
class ScriptedAdapter implements Adapter {
  readonly kind = 'scripted';
  readonly capabilities;
  readonly opened: { id: string; at: number; signal: AbortSignal; slot: Mailbox<Item> }[] = [];
  lists: Mailbox<ServiceList>[] = [];
  /** What a watch does when it is opened; by default it waits for its slot. */
  onWatch: (id: string, slot: Mailbox<Item>) => AsyncIterable<Item> | undefined = () => undefined;
  onRead: (key: ServiceKey, signal: AbortSignal) => Promise<Snapshot> = async () => snapshot(1);
  #clock: FakeClock;

  constructor(clock: FakeClock, how: { list?: boolean; watch?: 'push' | 'poll' } = {}) {
    this.#clock = clock;
    this.capabilities = {
      watch: how.watch ?? 'push',
      list: how.list ?? true,
      register: false,
      heartbeat: 'none',
      reads: new Set([]),
      keeps: new Set([]),
      tellsDeregistration: false,
      tellsAbsent: true,
    } as const;
  }

  services(signal: AbortSignal): AsyncIterable<ServiceList> {
    const slot = new Mailbox<ServiceList>();
    this.lists.push(slot);
    return slot.read(signal);
  }

  watch(of: ServiceKey, signal: AbortSignal): AsyncIterable<Item> {
    const slot = new Mailbox<Item>();
    this.opened.push({ id: serviceId(of), at: this.#clock.now(), signal, slot });
    return this.onWatch(serviceId(of), slot) ?? slot.read(signal);
  }

  read(of: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    return this.onRead(of, signal);
  }

  async close(): Promise<void> {}

  /** Ids whose watch is open now. */
  get watching(): string[] {
    return this.opened
      .filter(({ signal }) => !signal.aborted)
      .map(({ id }) => id)
      .sort();
  }

  slot(name: string): Mailbox<Item> {
    return this.opened.findLast(({ id }) => id === `ns/${name}`)?.slot ?? assert.fail(`${name} is not watched`);
  }
}

function setup(how: { select?: Select; list?: boolean; watch?: 'push' | 'poll'; maxServices?: number } = {}) {
  const clock = new FakeClock();
  const adapter = new ScriptedAdapter(clock, how);
  const sink = new RecordingSink();
  const supervisor = new Supervisor({
    sourceId: 's',
    adapter,
    select: how.select ?? { kind: 'all' },
    sink,
    clock,
    random: seededRandom(1),
    log: silentLog,
    timeout: 10_000,
    ...(how.maxServices !== undefined && { maxServices: how.maxServices }),
  });
  supervisor.start();
  return { clock, adapter, sink, supervisor };
}

describe('supervisor: what is watched', () => {
  it('watches every listed name, hands on its snapshots, and ends the watch when the list drops the name', async () => {
    const { adapter, sink, supervisor } = setup();
    await settle();
    adapter.lists[0]?.put(list('a', 'b'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a', 'ns/b']);
    adapter.slot('a').put(snapshot(1, 2));
    await settle();
    assert.deepEqual(sink.addresses(key('a')), ['192.0.2.1:1', '192.0.2.1:2']);
    adapter.lists[0]?.put(list('b'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/b']);
    assert.equal(sink.lists().length, 2);
    assert.deepEqual(sink.losses(key('a')), [], 'a name that left is not lost');
    await supervisor.close();
  });

  it('goes on watching a name that the sink keeps when the list drops it, until it is released', async () => {
    const { adapter, sink, supervisor } = setup();
    const told = sink.list.bind(sink);
    sink.list = (id, names) => {
      told(id, names);
      if (names.keys.length === 0) supervisor.keep(key('a'));
    };
    await settle();
    adapter.lists[0]?.put(list('a'));
    await settle();
    adapter.lists[0]?.put(list());
    await settle();
    assert.equal(adapter.opened.length, 1, 'the watch went on without a break');
    assert.deepEqual(adapter.watching, ['ns/a']);
    supervisor.release(key('a'));
    await settle();
    assert.deepEqual(adapter.watching, []);
    await supervisor.close();
  });

  it('concludes nothing from what the enumeration could not read', async () => {
    const { adapter, supervisor } = setup();
    await settle();
    adapter.lists[0]?.put(list('a', 'b'));
    await settle();
    adapter.lists[0]?.put({ keys: [key('b')], failed: [key('a')], complete: true });
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a', 'ns/b']);
    adapter.lists[0]?.put({ keys: [key('c')], failed: [], complete: false });
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a', 'ns/b', 'ns/c']);
    adapter.lists[0]?.put(list('c'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/c']);
    await supervisor.close();
  });

  it('watches by patterns', async () => {
    const { adapter, supervisor } = setup({ select: { kind: 'patterns', patterns: ['ns/game-*', 'ns/*.tail'] } });
    await settle();
    adapter.lists[0]?.put(list('game-1', 'shop', 'x.tail', 'game'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/game-1', 'ns/x.tail']);
    await supervisor.close();
  });

  it('onDemand: watches a wanted name once it is listed, and drops it when nobody wants it', async () => {
    const { adapter, supervisor } = setup({ select: { kind: 'onDemand' } });
    supervisor.want(key('a'));
    await settle();
    assert.deepEqual(adapter.watching, []);
    assert.equal(supervisor.lists(key('a')), null);
    adapter.lists[0]?.put(list('a', 'b'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a']);
    assert.deepEqual([supervisor.lists(key('b')), supervisor.lists(key('c'))], [true, false]);
    supervisor.drop(key('a'));
    await settle();
    assert.deepEqual(adapter.watching, []);
    await supervisor.close();
  });

  it('onDemand on a source that cannot list: a wanted name is watched at once', async () => {
    const { adapter, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    supervisor.want(key('a'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a']);
    assert.equal(adapter.lists.length, 0);
    await supervisor.close();
  });

  it('over the limit it watches the first names of the alphabet and says so', async () => {
    const { adapter, sink, supervisor } = setup({ maxServices: 2 });
    await settle();
    adapter.lists[0]?.put(list('c', 'a', 'b'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a', 'ns/b']);
    assert.equal(sink.losses(null).at(-1)?.causeKind, 'limit');
    assert.deepEqual([supervisor.summary().state, supervisor.summary().cause], ['stale', 'limit']);
    adapter.lists[0]?.put(list('a', 'c'));
    await settle();
    assert.deepEqual(adapter.watching, ['ns/a', 'ns/c']);
    assert.equal(supervisor.summary().state, 'live');
    await supervisor.close();
  });
});

describe('supervisor: loss and recovery', () => {
  it('a throw is a loss, is told once, and is tried again by R7 with jitter', async () => {
    const { clock, adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    adapter.onWatch = () => {
      throw new SourceError('denied', 'no rights');
    };
    supervisor.want(key('a'));
    await clock.advance(0);
    assert.equal(sink.losses(key('a')).at(0)?.causeKind, 'denied');
    assert.equal(supervisor.summary().state, 'failed');
    await clock.advance(300_000);
    const gaps = adapter.opened.slice(1).map(({ at }, n) => at - (adapter.opened[n]?.at ?? 0));
    for (const [n, gap] of gaps.entries()) {
      const cap = Math.min(30_000, 1_000 * 2 ** n);
      assert.ok(gap >= cap / 2 && gap <= cap + 50, `try ${n + 1} waited ${gap} of ${cap}`);
    }
    assert.ok(gaps.length > 10);
    assert.equal(sink.losses(key('a')).length, adapter.opened.length);
    await supervisor.close();
    assert.equal(clock.pending, 0);
  });

  it('a stream that ends by itself is lost too', async () => {
    const { clock, adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    supervisor.want(key('a'));
    await settle();
    adapter.slot('a').put(snapshot(1));
    adapter.slot('a').end();
    await settle();
    assert.match(sink.losses(key('a')).at(0)?.message ?? '', /ended by itself/);
    assert.equal(supervisor.summary().state, 'stale');
    await clock.advance(1_100);
    adapter.slot('a').put(snapshot(2));
    await settle();
    assert.deepEqual(sink.addresses(key('a')), ['192.0.2.1:2']);
    assert.equal(supervisor.summary().state, 'live');
    await supervisor.close();
  });

  it('back-off starts again only after 30 s of health', async () => {
    const { clock, adapter, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    supervisor.want(key('a'));
    const nextGap = async (healthyMs: number): Promise<number> => {
      await settle();
      const before = adapter.opened.length;
      adapter.slot('a').put(snapshot(1));
      await clock.advance(healthyMs);
      adapter.slot('a').fail(new SourceError('lost', 'cut'));
      const from = clock.now();
      while (adapter.opened.length === before) await clock.advance(25);
      return clock.now() - from;
    };
    for (let n = 0; n < 4; n++) await nextGap(1_000);
    assert.ok((await nextGap(1_000)) >= 8_000, 'the fifth wait is from 16 s / 2');
    assert.ok((await nextGap(31_000)) <= 1_050, 'after health the first wait again');
    await supervisor.close();
  });

  it('waits at least as long as the registry asks', async () => {
    const { clock, adapter, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    adapter.onWatch = () => {
      throw new SourceError('lost', 'throttled', { retryAfterMs: 20_000 });
    };
    supervisor.want(key('a'));
    await clock.advance(19_900);
    assert.equal(adapter.opened.length, 1);
    assert.ok((supervisor.summary().nextTryInMs ?? 0) <= 150);
    await clock.advance(200);
    assert.equal(adapter.opened.length, 2);
    await supervisor.close();
  });

  it("a watch that hangs before its first answer is given up after the timeout; later silence is its protocol's matter", async () => {
    const { clock, adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    supervisor.want(key('a'));
    await clock.advance(9_900);
    assert.equal(sink.losses(key('a')).length, 0);
    await clock.advance(200);
    assert.match(sink.losses(key('a')).at(0)?.message ?? '', /no first answer within 10000 ms/);
    assert.equal(adapter.opened[0]?.signal.aborted, true);
    await clock.advance(1_100);
    adapter.slot('a').put(snapshot(1));
    await clock.advance(3_600_000);
    assert.equal(adapter.opened.length, 2);
    await supervisor.close();
  });

  it('C11: an adapter that ignores its signal, throws at once or gives no iterable harms neither its other watches nor close', async () => {
    const { clock, adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    const deaf: AsyncIterable<Item> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}), return: () => new Promise(() => {}) }),
    };
    adapter.onWatch = (id) => {
      if (id === 'ns/deaf') return deaf;
      if (id === 'ns/throws') throw new TypeError('bug');
      if (id === 'ns/none') return null as unknown as AsyncIterable<Item>;
      return undefined;
    };
    for (const name of ['deaf', 'throws', 'none', 'good']) supervisor.want(key(name));
    await settle();
    adapter.slot('good').put(snapshot(1));
    await clock.advance(15_000);
    assert.deepEqual(sink.addresses(key('good')), ['192.0.2.1:1']);
    assert.deepEqual(sink.losses(key('good')), []);
    for (const name of ['deaf', 'throws']) assert.ok(sink.losses(key(name)).length > 0, name);
    assert.ok(sink.losses(key('throws')).length > 2, 'it is tried again');
    await supervisor.close();
    assert.equal(clock.pending, 0);
  });

  it('a lost list makes the source stale and ends no watch', async () => {
    const { clock, adapter, sink, supervisor } = setup();
    await settle();
    adapter.lists[0]?.put(list('a'));
    await settle();
    adapter.slot('a').put(snapshot(1));
    adapter.lists[0]?.fail(new SourceError('lost', 'cut'));
    await settle();
    assert.equal(sink.losses(null).length, 1);
    assert.deepEqual(adapter.watching, ['ns/a']);
    const { state, cause, lastError, nextTryInMs } = supervisor.summary();
    assert.deepEqual([state, cause, lastError], ['stale', 'lost', 'cut']);
    assert.ok(nextTryInMs !== null && nextTryInMs <= 1_000);
    await clock.advance(1_100);
    adapter.lists[1]?.put(list('a'));
    await settle();
    assert.equal(supervisor.summary().state, 'live');
    await supervisor.close();
  });

  it('nothing is reported after close', async () => {
    const { adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    supervisor.want(key('a'));
    await settle();
    const slot = adapter.slot('a');
    slot.put(snapshot(1));
    const closing = supervisor.close();
    slot.put(snapshot(1, 2));
    await closing;
    await settle();
    assert.deepEqual(sink.told, []);
  });
});

describe('supervisor: cost', () => {
  it('a poll loop whose index churns makes at most 2 requests a second', async () => {
    const { clock, adapter, supervisor } = setup({ select: { kind: 'onDemand' }, list: false, watch: 'poll' });
    let asked = 0;
    adapter.onWatch = () =>
      (async function* () {
        for (;;) {
          asked++;
          yield { kind: 'unchanged' } as const;
        }
      })();
    supervisor.want(key('a'));
    await clock.advance(10_000);
    assert.ok(asked >= 18 && asked <= 23, `${asked} requests in 10 s`);
    await supervisor.close();
  });

  it('a push stream that never waits leaves the others their turn', async () => {
    const { adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    adapter.onWatch = (id) =>
      id !== 'ns/flood'
        ? undefined
        : (async function* () {
            for (;;) yield { kind: 'unchanged' } as const;
          })();
    supervisor.want(key('flood'));
    supervisor.want(key('good'));
    await settle();
    adapter.slot('good').put(snapshot(1));
    await settle();
    assert.deepEqual(sink.addresses(key('good')), ['192.0.2.1:1']);
    await supervisor.close();
  });

  it('10,000 lost services wait on one timer, and at most 64 open at once', async () => {
    const { clock, adapter, sink, supervisor } = setup();
    const names = Array.from({ length: 10_000 }, (_, n) => `s${n}`);
    await settle();
    adapter.lists[0]?.put(list(...names));
    await settle();
    assert.equal(adapter.opened.length, 64);
    adapter.onWatch = (_id, slot) => {
      slot.put(snapshot(1));
      return undefined;
    };
    for (const { slot } of [...adapter.opened]) slot.put(snapshot(1));
    for (let turn = 0; turn < 2_000 && supervisor.summary().watched + adapter.opened.length < 20_000; turn++) await settle();
    assert.equal(adapter.opened.length, 10_000);
    for (const { slot } of [...adapter.opened]) slot.fail(new SourceError('lost', 'cut'));
    await settle(20);
    assert.equal(supervisor.summary().lostWatches, 10_000);
    assert.ok(clock.pending <= 2, `${clock.pending} timers`);
    await clock.advance(1_100);
    await settle(50);
    assert.equal(supervisor.summary().lostWatches, 0);
    assert.equal(sink.losses(key('s7')).length, 1);
    await supervisor.close();
    assert.equal(clock.pending, 0);
  });
});

describe('supervisor: confirming read', () => {
  it('gives the snapshot to the sink and to the caller', async () => {
    const { sink, supervisor } = setup({ list: false });
    assert.deepEqual(await supervisor.readNow(key('a')), snapshot(1));
    assert.deepEqual(sink.snapshots(key('a')), [snapshot(1)]);
    await supervisor.close();
  });

  it('an answer that a watch has overtaken is read again, so that nothing older follows something newer', async () => {
    const { adapter, sink, supervisor } = setup({ select: { kind: 'onDemand' }, list: false });
    supervisor.want(key('a'));
    await settle();
    adapter.slot('a').put(snapshot(1));
    await settle();
    let reads = 0;
    adapter.onRead = async () => {
      if (++reads > 1) return snapshot(1, 2, 3);
      adapter.slot('a').put(snapshot(1, 2));
      await settle();
      return snapshot();
    };
    await supervisor.readNow(key('a'));
    const sizes = sink.snapshots(key('a')).map((one) => (one.kind === 'present' ? one.instances.length : -1));
    assert.deepEqual(sizes, [1, 2, 3]);
    await supervisor.close();
  });

  it('a hanging read fails by the deadline and loses nothing', async () => {
    const { clock, adapter, sink, supervisor } = setup({ list: false });
    adapter.onRead = () => new Promise(() => {});
    const reading = assert.rejects(
      supervisor.readNow(key('a')),
      (thrown) => thrown instanceof SourceError && thrown.causeKind === 'lost',
    );
    await clock.advance(10_100);
    await reading;
    assert.deepEqual(sink.told, []);
    await supervisor.close();
  });
});
