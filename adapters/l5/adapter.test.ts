// The adapter's own promises on the fake: timing, names, fail-over, faults of servers, what failures say, cost.
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { Adapter, SourceOptions } from '../../src/adapter/contract.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { type DialRules, dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { asSourceError, type ServiceList, type Snapshot, type SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { RecordingSink } from '../../test/support/recording-sink.ts';
import { type FakeL5, startFakeL5 } from './fake.ts';
import { SIGN_OF_LIFE_MS } from './followers.ts';
import { factory } from './index.ts';
import { REFRESH_MS } from './names.ts';
import { ipNumber } from './sid.ts';

const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
const NEVER = new AbortController().signal;
const SID = '192002625:487373';
const ONE = { host: '10.0.0.1', port: 80, weight: 100 };
const TWO = { host: '10.0.0.2', port: 80, weight: 100 };

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function fake(clock = new FakeClock()): Promise<FakeL5> {
  const started = await startFakeL5(clock);
  ends.push(() => started.stop());
  return started;
}

interface Bench {
  readonly adapter: Adapter;
  readonly clock: FakeClock;
  readonly counts: Map<string, number>;
}

function bench(servers: readonly (FakeL5 | string)[], config: object = {}, rules: Partial<DialRules> = {}): Bench {
  const clock = new FakeClock();
  const counts = new Map<string, number>();
  const addresses = servers.map((server) => (typeof server === 'string' ? server : server.endpoint));
  const adapter = factory.create({ servers: addresses, sids: [SID], ...config }, PLAIN, {
    sourceId: 'test',
    clock,
    random: seededRandom(1),
    dial: dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [], ...rules }, () => []),
    log: silentLog,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
  });
  ends.push(() => adapter.close());
  return { adapter, clock, counts };
}

/** A watch (or list) that is read into an array. */
class Reading<T> {
  readonly items: T[] = [];
  error: SourceError | null = null;
  readonly #stop = new AbortController();

  constructor(open: (signal: AbortSignal) => AsyncIterable<T>) {
    ends.push(() => this.stop());
    void this.#run(open);
  }

  stop(): void {
    this.#stop.abort(new Error('seen enough'));
  }

  async #run(open: (signal: AbortSignal) => AsyncIterable<T>): Promise<void> {
    try {
      for await (const item of open(this.#stop.signal)) this.items.push(item);
    } catch (thrown) {
      this.error = asSourceError(thrown);
    }
  }
}

function key(name = SID, namespace = 'default'): ServiceKey {
  return { namespace, name };
}

function watch({ adapter }: Bench, name = SID): Reading<Snapshot | Unchanged> {
  return new Reading((signal) => adapter.watch(key(name), signal));
}

function list({ adapter }: Bench): Reading<ServiceList> {
  return new Reading((signal) => adapter.services?.(signal) ?? assert.fail('no list'));
}

function hosts(reading: Reading<Snapshot | Unchanged>): string[] | null {
  const last = reading.items.findLast((item): item is Snapshot => item.kind !== 'unchanged');
  if (last === undefined) return null;
  return last.kind === 'absent' ? [] : last.instances.map(({ host }) => host).sort();
}

/** Moves the clock in steps until the claim holds. */
async function until(clock: FakeClock, claim: () => boolean, stepMs = 50): Promise<void> {
  await eventually(async () => {
    if (!claim()) await clock.advance(stepMs);
    assert.ok(claim(), `not yet: ${claim}`);
  }, 20_000);
}

async function failure({ adapter, clock }: Bench, name = SID): Promise<SourceError> {
  let error: SourceError | null = null;
  adapter.read(key(name), NEVER).catch((thrown) => {
    error = asSourceError(thrown);
  });
  await until(clock, () => error !== null, 500);
  return error ?? assert.fail();
}

describe('polling', () => {
  it('a change is seen within one interval and 100 ms, at whatever moment it happens', async () => {
    const server = await fake();
    const b = bench([server]);
    server.store.put(SID, [ONE]);
    const reading = watch(b);
    await until(b.clock, () => hosts(reading)?.length === 1);
    for (const moment of [0, 1, 333, 999]) {
      await b.clock.advance(moment);
      await settle(20);
      server.store.put(SID, [TWO]);
      const changedAt = b.clock.now();
      await until(b.clock, () => hosts(reading)?.length === 2, 10);
      assert.ok(b.clock.now() - changedAt <= 1_100, `after ${b.clock.now() - changedAt} ms`);
      server.store.remove(SID, '10.0.0.2:80');
      await until(b.clock, () => hosts(reading)?.length === 1, 10);
    }
  });

  it('one request an interval serves all watches, and those that open together are asked together at once', async () => {
    const server = await fake();
    const b = bench([server], { sids: [] });
    const readings = Array.from({ length: 200 }, (_, n) => watch(b, `1:${n}`));
    await eventually(() => assert.ok(readings.every(({ items }) => items.length === 1)));
    assert.equal(server.accepted, 1);
    assert.ok(server.requests.length <= 2, `${server.requests.length} requests`);
    const before = server.requests.length;
    for (let n = 0; n < 5; n++) {
      await b.clock.advance(1_000);
      await eventually(() => assert.equal(server.requests.length, before + n + 1));
    }
    assert.equal(server.requests.at(-1)?.sids.length, 200);
  });

  it('a SID watched twice is asked once, and large sets go in batches', async () => {
    const server = await fake();
    const b = bench([server], { batch: 3 });
    const readings = [SID, SID, '1:1', '1:2', '1:3'].map((name) => watch(b, name));
    await eventually(() => assert.ok(readings.every(({ items }) => items.length === 1)));
    assert.deepEqual(
      server.requests.map(({ sids }) => sids.length),
      [3, 1],
    );
  });

  it('without a change a watch gives a sign of life now and then, and the source revision stays', async () => {
    const server = await fake();
    const b = bench([server]);
    server.store.put(SID, [ONE, TWO]);
    const reading = watch(b);
    await until(b.clock, () => reading.items.length === 1);
    await until(b.clock, () => reading.items.length === 3, 250);
    assert.deepEqual(
      reading.items.map(({ kind }) => kind),
      ['present', 'unchanged', 'unchanged'],
    );
    assert.ok(b.clock.now() - 1_000 >= 2 * SIGN_OF_LIFE_MS);
  });

  it('a service that goes is empty and not absent, since all of it may be unhealthy', async () => {
    const server = await fake();
    const b = bench([server]);
    const reading = watch(b);
    await until(b.clock, () => reading.items.length === 1);
    assert.equal(reading.items[0]?.kind, 'absent');
    server.store.put(SID, [ONE]);
    await until(b.clock, () => hosts(reading)?.length === 1);
    server.store.wipe();
    await until(b.clock, () => hosts(reading)?.length === 0);
    assert.equal(reading.items.at(-1)?.kind, 'present');
    assert.equal((await b.adapter.read(key(), NEVER)).kind, 'present');
    server.store.put(SID, [TWO]);
    await until(b.clock, () => hosts(reading)?.join() === '10.0.0.2');
  });

  it('the last watch that ends closes the connection', async () => {
    const server = await fake();
    const b = bench([server]);
    const reading = watch(b);
    await until(b.clock, () => reading.items.length === 1);
    reading.stop();
    await eventually(() => assert.equal(server.open, 0));
    assert.equal(b.clock.pending, 0);
  });

  it('another namespace has no services, and ids above 2^31 are asked as they are', async () => {
    const server = await fake();
    const b = bench([server], { namespace: 'cl5' });
    server.store.put('4294967295:4294967294', [ONE]);
    assert.equal((await b.adapter.read(key(SID, 'default'), NEVER)).kind, 'absent');
    assert.equal(server.accepted, 0);
    const got = await b.adapter.read(key('4294967295:4294967294', 'cl5'), NEVER);
    assert.ok(got.kind === 'present');
    assert.equal(got.instances[0]?.id, '4294967295:4294967294/10.0.0.1:80');
    assert.deepEqual(server.requests.at(-1)?.sids, [[-1, -2]]);
  });

  it('what nobody asked for is counted and dropped', async () => {
    const server = await fake();
    const b = bench([server]);
    server.store.put('5:5', [ONE]);
    server.store.routed.push('5:5');
    const reading = watch(b);
    await until(b.clock, () => reading.items.length === 1);
    assert.deepEqual(hosts(reading), []);
    assert.equal(b.counts.get('entries.unasked'), 2);
  });
});

describe('who we say we are', () => {
  it('by default the address of the connection, else agentIp: it selects the set', async () => {
    const server = await fake();
    server.store.put(SID, [ONE, { ...TWO, setId: 'A' }]);
    server.store.sets.set('10.9.9.200', 'A');
    const plain = await bench([server]).adapter.read(key(), NEVER);
    assert.equal(server.requests.at(-1)?.agentIp, ipNumber('127.0.0.1'));
    const set = await bench([server], { agentIp: '10.9.9.200' }).adapter.read(key(), NEVER);
    assert.equal(server.requests.at(-1)?.ip, ipNumber('10.9.9.200'));
    assert.ok(plain.kind === 'present' && set.kind === 'present');
    assert.deepEqual(
      [plain, set].map(({ instances }) => instances.map(({ host }) => host)),
      [['10.0.0.1'], ['10.0.0.2']],
    );
  });

  it('over IPv6 it must be configured, and the source says so', async (t) => {
    const server = await fake();
    await server.stop();
    try {
      await server.start('::1', 0);
    } catch {
      return t.skip('this machine has no IPv6 loopback');
    }
    const address = `[::1]:${server.port}`;
    const error = await failure(bench([address]));
    assert.match(error.message, /set agentIp/);
    assert.equal(error.causeKind, 'refused');
    assert.equal((await bench([address], { agentIp: '10.0.0.7' }).adapter.read(key(), NEVER)).kind, 'absent');
  });
});

describe('names', () => {
  const names = ['demo.l5', '__proto__'];
  it('the list has the SIDs of the configured names, in order, and follows them as they appear', async () => {
    const server = await fake();
    const b = bench([server], { sids: ['9:1'], names });
    const reading = list(b);
    await until(b.clock, () => reading.items.length === 1);
    const listed = (): string[] | undefined => reading.items.at(-1)?.keys.map(({ name }) => name);
    assert.deepEqual(listed(), ['9:1']);
    server.store.put(SID, [ONE], { name: 'demo.l5' });
    await until(b.clock, () => listed()?.length === 2);
    server.store.put('8:1', [ONE], { name: '__proto__' });
    await until(b.clock, () => listed()?.length === 3);
    assert.deepEqual(listed(), ['8:1', '9:1', SID]);
    assert.ok(reading.items.every(({ complete, failed }) => complete && failed.length === 0));
  });

  it('a learnt name is metadata, and leads to the instances of its SID; with aliases it is listed, too', async () => {
    const server = await fake();
    server.store.put(SID, [ONE], { name: 'demo.l5' });
    server.store.put('8:1', [TWO], { name: 'constructor' });
    const b = bench([server], { sids: ['8:1'], names, aliases: true });
    const byName = watch(b, 'demo.l5');
    const bySid = watch(b, '8:1');
    const reading = list(b);
    await until(b.clock, () => reading.items.at(-1)?.keys.length === 4);
    assert.deepEqual(
      reading.items.at(-1)?.keys.map(({ name }) => name),
      ['8:1', SID, 'constructor', 'demo.l5'],
    );
    assert.deepEqual([hosts(byName), hosts(bySid)], [['10.0.0.1'], ['10.0.0.2']]);
    const [snapshot] = bySid.items;
    assert.ok(snapshot?.kind === 'present');
    assert.equal(snapshot.instances[0]?.metadata.get('l5.name'), 'constructor');
    const plain = bench([server], { sids: [], names });
    const short = list(plain);
    await until(plain.clock, () => short.items.length === 1);
    assert.deepEqual(
      short.items[0]?.keys.map(({ name }) => name),
      [SID],
    );
  });

  for (const name of ['__proto__', 'constructor', 'toString', 'größe 大小', 'a/b']) {
    it(`a service of the name ${name} is read and watched by it`, async () => {
      const server = await fake();
      const b = bench([server]);
      const reading = watch(b, name);
      await until(b.clock, () => reading.items.length === 1);
      assert.equal(reading.items[0]?.kind, 'absent');
      server.store.put('3:3', [ONE], { name });
      await until(b.clock, () => hosts(reading)?.length === 1);
      const read = await b.adapter.read(key(name), NEVER);
      assert.ok(read.kind === 'present');
      assert.equal(read.instances[0]?.metadata.get('l5.name'), name);
      assert.equal(Object.hasOwn(Object.prototype, 'l5.name'), false);
    });
  }

  it('a name that is gone keeps its SID, and one that moves is followed', async () => {
    const server = await fake();
    const b = bench([server], { sids: [], names: ['demo'] });
    server.store.put('1:1', [ONE], { name: 'demo' });
    const reading = watch(b, 'demo');
    const listed = list(b);
    await until(b.clock, () => hosts(reading)?.join() === '10.0.0.1');
    server.store.put('1:1', [], { name: '' });
    await b.clock.advance(REFRESH_MS + 2_000);
    await settle(20);
    assert.deepEqual(hosts(reading), ['10.0.0.1']);
    server.store.put('2:2', [TWO], { name: 'demo' });
    await until(b.clock, () => hosts(reading)?.join() === '10.0.0.2', 1_000);
    assert.deepEqual(
      listed.items.at(-1)?.keys.map(({ name }) => name),
      ['2:2'],
    );
  });

  it('without SIDs and names the source cannot list, and watches what is asked for', async () => {
    const server = await fake();
    const b = bench([server], { sids: [] });
    assert.equal(b.adapter.capabilities.list, false);
    server.store.put('7:7', [ONE]);
    const sink = new RecordingSink();
    const supervisor = supervise(b, sink);
    supervisor.start();
    supervisor.want(key('7:7'));
    await until(b.clock, () => sink.addresses(key('7:7')).length === 1);
  });
});

function supervise({ adapter, clock }: Bench, sink: RecordingSink): Supervisor {
  const supervisor = new Supervisor({
    sourceId: 'test',
    adapter,
    select: { kind: 'all' },
    sink,
    clock,
    random: seededRandom(3),
    log: silentLog,
    timeout: 10_000,
  });
  ends.push(() => supervisor.close());
  return supervisor;
}

describe('servers', () => {
  it('a server that refuses gives way to the next at once', async () => {
    const [dead, living] = [await fake(), await fake()];
    await dead.stop();
    living.store.put(SID, [ONE]);
    const b = bench([dead, living]);
    const reading = watch(b);
    await until(b.clock, () => hosts(reading)?.length === 1);
  });

  it('a lost server gives way to the next one when the supervisor opens again, and nothing shrinks', async () => {
    const [one, two] = [await fake(), await fake()];
    for (const server of [one, two]) server.store.put(SID, [ONE, TWO]);
    const b = bench([one, two]);
    const sink = new RecordingSink();
    supervise(b, sink).start();
    await until(b.clock, () => sink.addresses(key()).length === 2);
    await one.stop();
    await until(b.clock, () => two.requests.length > 0 && sink.snapshots(key()).length > 1);
    assert.ok(sink.snapshots(key()).every((snapshot) => snapshot.kind === 'present' && snapshot.instances.length === 2));
    assert.ok(sink.losses(key()).length > 0);
  });

  it('servers that an answer names are tried after the configured ones, on the same port', async () => {
    const clock = new FakeClock();
    const first = await fake(clock);
    const other = await startFakeL5(clock);
    await other.stop();
    await other.start('127.0.0.2', first.port);
    ends.push(() => other.stop());
    first.store.servers = ['127.0.0.1', '127.0.0.2'];
    other.store.put(SID, [TWO]);
    first.store.put(SID, [ONE]);
    const b = bench([first]);
    const sink = new RecordingSink();
    supervise(b, sink).start();
    await until(b.clock, () => sink.addresses(key()).join() === '10.0.0.1:80');
    await first.stop();
    await until(b.clock, () => sink.addresses(key()).join() === '10.0.0.2:80');
  });

  it('a server that an answer names is not connected to when the outbound policy refuses it', async () => {
    const server = await fake();
    server.store.servers = ['127.0.0.2', '169.254.169.254'];
    const b = bench([server], {}, { allowLoopback: false });
    const reading = watch(b);
    await until(b.clock, () => reading.items.length === 1);
    assert.equal(b.counts.get('servers.refused'), 2);
    await server.stop();
    await until(b.clock, () => reading.error !== null);
    await b.clock.advance(2_000);
    const again = watch(b);
    await until(b.clock, () => again.error !== null);
    assert.doesNotMatch(again.error?.message ?? '', /127\.0\.0\.2|169\.254/);
  });

  it('a read asks another server than the watches, over a connection that it does not keep', async () => {
    const [one, two] = [await fake(), await fake()];
    const b = bench([one, two]);
    const reading = watch(b);
    await until(b.clock, () => reading.items.length === 1);
    const before = one.requests.length;
    await Promise.all([1, 2, 3].map((n) => b.adapter.read(key(`1:${n}`), NEVER)));
    assert.equal(one.requests.length, before);
    assert.deepEqual([two.requests.length, two.accepted], [3, 1]);
    await eventually(() => assert.equal(two.open, 0));
  });

  it('1,000 watches on a dead server connect once in a while and not each for itself', async () => {
    const server = await fake();
    const sids = Array.from({ length: 1_000 }, (_, n) => `1:${n}`);
    const b = bench([server], { sids });
    const sink = new RecordingSink();
    const supervisor = supervise(b, sink);
    supervisor.start();
    await until(b.clock, () => supervisor.summary().watched === 1_000 && sink.snapshots(key('1:999')).length === 1, 10);
    server.faults.instead = 'close';
    const before = server.accepted;
    const start = b.clock.now();
    server.cut();
    await until(b.clock, () => b.clock.now() - start > 20_000, 100);
    const tries = server.accepted - before;
    assert.ok(tries > 0 && tries <= 20, `${tries} connections in 20 s`);
    server.heal();
    await until(b.clock, () => supervisor.summary().lostWatches === 0, 500);
    assert.ok(sink.told.every((one) => one.what !== 'snapshot' || one.snapshot.kind === 'absent'));
  });
});

describe('faults of a server', () => {
  async function faulty(set: (server: FakeL5) => void): Promise<SourceError> {
    const server = await fake();
    server.store.put(SID, [ONE]);
    const b = bench([server]);
    const reading = watch(b);
    await until(b.clock, () => hosts(reading)?.length === 1);
    set(server);
    await until(b.clock, () => reading.error !== null, 250);
    assert.deepEqual(hosts(reading), ['10.0.0.1'], 'a failure removed something');
    const error = reading.error ?? assert.fail();
    server.heal();
    await b.clock.advance(1_000);
    const again = watch(b);
    await until(b.clock, () => hosts(again)?.length === 1);
    return error;
  }

  for (const [what, set, cause, words] of [
    ['closes instead of an answer', (s: FakeL5) => (s.faults.instead = 'close'), 'lost', /instead of an answer/],
    ['closes in the middle of an answer', (s: FakeL5) => (s.faults.instead = 'half'), 'lost', /after \d+ bytes of an answer/],
    ['says nothing', (s: FakeL5) => (s.faults.instead = 'silence'), 'lost', /no answer within 5000 ms: the server hangs/],
    ['answers another question', (s: FakeL5) => (s.faults.seqnoOff = 1), 'malformed', /question \d+ instead of \d+/],
    ['answers with another result', (s: FakeL5) => (s.faults.result = -3), 'lost', /result -3 instead of 100/],
    ['announces 4 GiB', (s: FakeL5) => (s.faults.length = 0xffff_ffff), 'limit', /4294967295 bytes.*maxAnswer/],
    ['announces nothing', (s: FakeL5) => (s.faults.length = 0), 'malformed', /0 bytes/],
    ['speaks big-endian', (s: FakeL5) => (s.faults.bigEndian = true), 'malformed', /big-endian/],
    ['sends no message', (s: FakeL5) => (s.faults.body = Buffer.from('08', 'hex')), 'malformed', /no message: .*ends inside/],
    [
      'answers another command',
      (s: FakeL5) => (s.faults.body = Buffer.from('0801106618640000', 'hex')),
      'malformed',
      /no message|command/,
    ],
    [
      'sends an answer without its content',
      (s: FakeL5) => (s.faults.body = Buffer.from('08021065186428', 'hex')),
      'malformed',
      /./,
    ],
  ] as const) {
    it(`a server that ${what} is ${cause}, keeps what is there, and is heard again afterwards`, async () => {
      const error = await faulty(set);
      assert.equal(error.causeKind, cause);
      assert.match(error.message, words);
    });
  }

  it('the text of a failed answer is shown short and without control characters', async () => {
    const error = await faulty((server) =>
      Object.assign(server.faults, { result: 7, error: `no\u0000\u001b[31m${'x'.repeat(5_000)}` }),
    );
    assert.match(error.message, /result 7 instead of 100: no\?\?\[31mxxx/);
    assert.ok(error.message.length < 400);
  });

  it('answers byte by byte, late, and several in one write are the same answers', async () => {
    const server = await fake();
    server.store.put(SID, [ONE, TWO]);
    server.faults.bytewise = true;
    const b = bench([server]);
    assert.equal((await b.adapter.read(key(), NEVER)).kind, 'present');
    server.heal();
    server.faults.together = 3;
    const three = await Promise.all([1, 2, 3].map(() => b.adapter.read(key(), NEVER)));
    assert.ok(three.every((snapshot) => snapshot.kind === 'present' && snapshot.instances.length === 2));
  });

  it('an answer over the limit makes the next requests smaller', async () => {
    const server = await fake();
    const sids = Array.from({ length: 64 }, (_, n) => `1:${n}`);
    const many = Array.from({ length: 120 }, (_, n) => ({ host: `10.0.0.${n + 1}`, port: 80, weight: 100 }));
    for (const sid of sids) server.store.put(sid, many);
    const b = bench([server], { sids, maxAnswer: 65_536 });
    const sink = new RecordingSink();
    supervise(b, sink).start();
    await until(b.clock, () => sids.every((sid) => sink.addresses(key(sid)).length === 120), 200);
    const lost = sink.told.flatMap((one) => (one.what === 'lost' ? [one.error] : []));
    assert.ok(lost.length > 0);
    for (const error of lost) assert.equal(error.causeKind, 'limit', error.message);
  });

  it('a Polaris without l5Open dies at the first question: the text names the option', async () => {
    const server = await fake();
    server.faults.instead = 'death';
    const error = await failure(bench([server]));
    assert.equal(error.causeKind, 'lost');
    assert.match(error.message, /naming\.l5Open: true/);
  });
});

describe('cost', () => {
  it('1,000 watched SIDs cost under 80 ms of CPU a poll, the fake server included', { timeout: 120_000 }, async () => {
    const server = await fake();
    const sids = Array.from({ length: 1_000 }, (_, n) => `1:${n}`);
    for (const [n, sid] of sids.entries()) {
      server.store.put(
        sid,
        [1, 2, 3].map((i) => ({ host: `10.${i}.${n >> 8}.${n & 255}`, port: 80, weight: 100 })),
      );
    }
    const b = bench([server], { sids });
    const sink = new RecordingSink();
    supervise(b, sink).start();
    await until(b.clock, () => sids.every((sid) => sink.addresses(key(sid)).length === 3), 100);
    const before = server.requests.length;
    const cpu = process.cpuUsage();
    const polls = 20;
    for (let n = 1; n <= polls; n++) {
      await b.clock.advance(1_000);
      await until(b.clock, () => server.requests.length >= before + n, 1);
    }
    const { user, system } = process.cpuUsage(cpu);
    const perPoll = (user + system) / 1_000 / polls;
    assert.ok(perPoll < 80, `${perPoll.toFixed(1)} ms a poll`);
    assert.equal(sink.told.filter(({ what }) => what === 'snapshot').length, 1_000, 'nothing changed, nothing is said anew');
  });
});
