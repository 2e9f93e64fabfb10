// The rules of the gRPC protocol, against the fake: handshake, acks, order, empty lists, moves, returns, tokens, names.
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { Adapter, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeNacos, type FakeVersion, startFakeNacos } from './fake.ts';
import type { FakeInstance } from './fake-store.ts';
import { type Made, makeAdapter, PLAIN } from './fake-support.ts';

const KEY = { namespace: 'default', name: 'web' };
const ID = 'public@@DEFAULT_GROUP@@web';
const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Rig extends Made {
  readonly fake: FakeNacos;
  readonly clock: FakeClock;
  /** Lets time pass on both sides until the claim holds. */
  until(what: string, claim: () => boolean, stepMs?: number): Promise<void>;
  advance(ms: number): Promise<void>;
}

async function rig(version: FakeVersion = '3.0.3', config: object = {}, options = PLAIN): Promise<Rig> {
  const clock = new FakeClock();
  const fake = await startFakeNacos(version, clock);
  ends.push(() => fake.close());
  const made = makeAdapter({ ...fake.config, ...config }, { clock, options });
  ends.push(() => made.adapter.close());
  const advance = (ms: number): Promise<void> => clock.advance(ms);
  const until = async (what: string, claim: () => boolean, stepMs = 20): Promise<void> => {
    await eventually(async () => {
      if (claim()) return true;
      await advance(stepMs);
      if (claim()) return true;
      throw new Error(`not seen: ${what}`);
    }, 30_000);
  };
  return { ...made, fake, clock, advance, until };
}

class Watch {
  readonly items: (Snapshot | Unchanged)[] = [];
  error: unknown = null;
  readonly #stop = new AbortController();

  constructor(adapter: Adapter, key = KEY) {
    void this.#run(adapter, key);
  }

  get hosts(): string[] {
    const last = this.items.findLast((item) => item.kind !== 'unchanged');
    return last?.kind === 'present' ? last.instances.map(({ host }) => host) : [];
  }

  stop(): void {
    this.#stop.abort();
  }

  async #run(adapter: Adapter, key: typeof KEY): Promise<void> {
    try {
      for await (const item of adapter.watch(key, this.#stop.signal)) this.items.push(item);
    } catch (thrown) {
      this.error = thrown;
    }
  }
}

function host(n: number, fields: Partial<FakeInstance> = {}): FakeInstance {
  return {
    ip: `192.0.2.${n}`,
    port: 80,
    weight: 1,
    healthy: true,
    enabled: true,
    ephemeral: true,
    clusterName: 'DEFAULT',
    metadata: {},
    ...fields,
  };
}

function instance(n: number, fields: Partial<Instance> = {}): Instance {
  return {
    id: '',
    host: `192.0.2.${n}`,
    port: 80,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: new Map(),
    ...fields,
  };
}

function never(): AbortSignal {
  return new AbortController().signal;
}

async function put(adapter: Adapter, instances: readonly Instance[], how = OWN): Promise<WriteReceipt[]> {
  const results =
    (await adapter.put?.(
      instances.map((one) => ({ key: KEY, instance: one })),
      how,
      never(),
    )) ?? [];
  return results.map((result) => {
    if (result instanceof Error) throw result;
    return result;
  });
}

function causes(thrown: unknown): string {
  return thrown instanceof SourceError ? `${thrown.causeKind}: ${thrown.message}` : String(thrown);
}

describe('the connection', () => {
  it('says module naming at setup and sends the namespace with each call, public for the default one', async () => {
    const { adapter, fake, until } = await rig('3.0.3', { namespace: '' });
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    const setup = fake.log.find(({ call }) => call === 'ConnectionSetupRequest');
    assert.deepEqual(setup?.body['labels'], { source: 'sdk', module: 'naming', AppName: 'weir' });
    const subscribe = fake.log.find(({ call }) => call === 'SubscribeServiceRequest');
    assert.deepEqual(subscribe?.body, {
      namespace: 'public',
      module: 'naming',
      serviceName: 'web',
      groupName: 'DEFAULT_GROUP',
      subscribe: true,
      clusters: '',
    });
    watch.stop();
  });

  it('every push is acknowledged with its id: none comes twice', async () => {
    const { adapter, fake, until, clock } = await rig();
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    const acknowledged = (): number => fake.acks.filter(({ type }) => type === 'NotifySubscriberResponse').length;
    await until('the push that follows a subscription', () => acknowledged() >= 1);
    fake.store.publish(ID, 'raw', [host(1)]);
    await until('it', () => watch.hosts.length === 1);
    await eventually(() => acknowledged() >= 2);
    const before = watch.items.length;
    const from = clock.now();
    await until('ten seconds', () => clock.now() - from >= 10_000, 250);
    assert.equal(watch.items.length, before);
    assert.ok(fake.acks.every(({ requestId, type }) => type === 'SetupAckResponse' || requestId !== undefined));
  });

  it('a health call goes out every 5 s, so the server never probes, and its detection race hits nobody', async () => {
    const { adapter, fake, until } = await rig();
    fake.detectionRace = true;
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    const from = fake.log.length;
    await until(
      'ten health calls',
      () => fake.log.slice(from).filter(({ call }) => call === 'HealthCheckRequest').length >= 10,
      250,
    );
    const times = fake.log.flatMap(({ call, at }) => (call === 'HealthCheckRequest' ? [at] : []));
    for (let n = 1; n < times.length; n++) assert.ok((times[n] ?? 0) - (times[n - 1] ?? 0) <= 5_300, 'spaced by 5 s');
    assert.equal(fake.acks.filter(({ type }) => type === 'ClientDetectionResponse').length, 0);
    assert.equal(watch.error, null);
  });

  it('a half-open connection is lost within 10 s', async () => {
    const { adapter, fake, until, clock } = await rig();
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    fake.halfOpen = true;
    const from = clock.now();
    await until('the loss', () => watch.error !== null, 100);
    assert.ok(clock.now() - from <= 10_000, `${clock.now() - from} ms`);
    assert.match(causes(watch.error), /^lost: /);
  });

  it('an end of the stream without an error is a loss, and the next watch stands on a new epoch', async () => {
    const { adapter, fake, until } = await rig();
    fake.store.publish(ID, 'raw', [host(1)]);
    const watch = new Watch(adapter);
    await until('it', () => watch.hosts.length === 1);
    fake.endStreams();
    await until('the loss', () => watch.error !== null);
    assert.match(causes(watch.error), /^lost: .*ended the stream/);
    const again = new Watch(adapter);
    await until('it again', () => again.items.length > 0);
    const [a, b] = [watch.items[0], again.items[0]];
    assert.ok(a?.kind === 'present' && b?.kind === 'present' && a.epoch !== b.epoch);
  });

  it('a starting server is waited for', async () => {
    const { adapter, fake, until } = await rig();
    fake.starting = true;
    const watch = new Watch(adapter);
    await until('three tries', () => fake.log.filter(({ call }) => call === 'ServerCheckRequest').length >= 3);
    fake.starting = false;
    await until('an item', () => watch.items.length > 0);
    assert.equal(watch.error, null);
  });

  it('a setup that is never confirmed is a loss that says so', async () => {
    const { adapter, fake, until } = await rig();
    fake.neverAck = true;
    const watch = new Watch(adapter);
    await until('the loss', () => watch.error !== null);
    assert.match(causes(watch.error), /does not confirm the connection/);
  });

  it('many watches that come back at once make one connection, and a server that cuts each is tried at most once a second', async () => {
    const { adapter, fake, until, advance } = await rig();
    const watches = Array.from({ length: 20 }, (_, n) => new Watch(adapter, { ...KEY, name: `s${n}` }));
    await until('all', () => watches.every(({ items }) => items.length > 0));
    assert.equal(fake.connections, 1);
    const from = fake.log.length;
    for (let round = 0; round < 30; round++) {
      fake.cut();
      for (let n = 0; n < 5; n++) void new Watch(adapter, { ...KEY, name: `r${round}-${n}` });
      await advance(500);
    }
    const checks = fake.log.slice(from).filter(({ call }) => call === 'ServerCheckRequest').length;
    assert.ok(checks <= 15, `${checks} connections in 15 s`);
  });
});

describe('lists of hosts', () => {
  it('an empty list is delivered, and so is the first empty push', async () => {
    const { adapter, fake, until } = await rig();
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    assert.ok(watch.items[0]?.kind === 'present');
    fake.store.publish(ID, 'raw', [host(1)]);
    await until('it', () => watch.hosts.length === 1);
    fake.store.publish(ID, 'raw', []);
    await until('nothing', () => watch.hosts.length === 0);
    assert.ok(watch.items.at(-1)?.kind === 'present');
  });

  it('an older push is dropped on the same connection and counted', async () => {
    const { adapter, fake, until, counts } = await rig();
    fake.store.publish(ID, 'raw', [host(1), host(2)]);
    const watch = new Watch(adapter);
    await until('both', () => watch.hosts.length === 2);
    fake.mangle = (info) => ({ ...info, hosts: [], lastRefTime: 5 });
    fake.push(ID);
    await until('the count', () => (counts.get('push.older') ?? 0) > 0);
    assert.equal(watch.hosts.length, 2);
  });

  it('after a reconnect a list with an older clock is taken: another server, another epoch', async () => {
    const { adapter, fake, until } = await rig();
    fake.store.publish(ID, 'raw', [host(1)]);
    const watch = new Watch(adapter);
    await until('it', () => watch.hosts.length === 1);
    fake.store.skewMs = -3_600_000;
    fake.store.publish(ID, 'raw', [host(1), host(2)]);
    fake.cut();
    await until('the loss', () => watch.error !== null);
    const again = new Watch(adapter);
    await until('both', () => again.hosts.length === 2);
  });

  it('hosts null is a broken envelope: the watch throws malformed, nothing is removed', async () => {
    const { adapter, fake, until } = await rig();
    fake.store.publish(ID, 'raw', [host(1)]);
    const watch = new Watch(adapter);
    await until('it', () => watch.hosts.length === 1);
    fake.mangle = (info) => ({ ...info, hosts: null });
    fake.push(ID);
    await until('the throw', () => watch.error !== null);
    assert.match(causes(watch.error), /^malformed: /);
    assert.equal(watch.hosts.length, 1);
  });

  it('under protection everybody is healthy for the server and unknown for us; a read with the right to it sees the truth', async () => {
    const { adapter, fake, until } = await rig();
    fake.store.publish(ID, 'raw', [host(1, { healthy: false }), host(2, { healthy: false })]);
    fake.store.protect(ID, 0);
    const watch = new Watch(adapter);
    await until('both, unknown', () => {
      const last = watch.items.findLast((item) => item.kind === 'present');
      return (
        last?.kind === 'present' && last.instances.length === 2 && last.instances.every(({ health }) => health === 'unknown')
      );
    });
    const truth = await adapter.read(KEY, never());
    assert.ok(truth.kind === 'present' && truth.instances.every(({ health }) => health === 'unhealthy'));
    fake.adminDenied = true;
    const shown = await adapter.read(KEY, never());
    assert.ok(shown.kind === 'present' && shown.instances.every(({ health }) => health === 'unknown'));
  });

  it('a disabled instance is hidden from subscribers and isolated for a confirming read, not gone', async () => {
    const { adapter, fake, until } = await rig();
    fake.store.publish(ID, 'raw', [host(1), host(2)]);
    fake.store.edit(ID, '192.0.2.2#80#DEFAULT', { enabled: false });
    const watch = new Watch(adapter);
    await until('one', () => watch.hosts.length === 1);
    const read = await adapter.read(KEY, never());
    assert.ok(read.kind === 'present');
    assert.deepEqual(
      read.instances.map(({ host: address, isolated }) => [address, isolated]),
      [
        ['192.0.2.1', false],
        ['192.0.2.2', true],
      ],
    );
  });

  it('a lost push is made good within two minutes by asking again', async () => {
    const { adapter, fake, until, advance } = await rig();
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    await advance(1_000);
    fake.mangle = () => null;
    fake.store.publish(ID, 'raw', [host(1)]);
    await until('it all the same', () => watch.hosts.length === 1, 250);
    assert.ok(fake.log.some(({ call }) => call === 'ServiceQueryRequest'));
  });

  it('the last reader that leaves ends the subscription', async () => {
    const { adapter, fake, until } = await rig();
    const [one, two] = [new Watch(adapter), new Watch(adapter)];
    await until('both', () => one.items.length > 0 && two.items.length > 0);
    one.stop();
    two.stop();
    const calls = () => fake.log.flatMap(({ call, body }) => (call === 'SubscribeServiceRequest' ? [body['subscribe']] : []));
    await until('the end', () => calls().includes(false));
    assert.deepEqual(calls(), [true, false]);
  });
});

describe('registrations', () => {
  it('each change sends the whole set of a service: N to N-1 is a batch of N-1, the last one is a deregistration', async () => {
    const { adapter, fake } = await rig();
    const receipts = await put(adapter, [instance(1), instance(2), instance(3)]);
    await adapter.remove?.(receipts.slice(0, 1), {}, never());
    await adapter.remove?.(receipts.slice(1, 2), {}, never());
    await adapter.remove?.(receipts.slice(2), {}, never());
    const calls = fake.log.flatMap(({ call, body }) => {
      if (call === 'BatchInstanceRequest') return [Array.isArray(body['instances']) ? body['instances'].length : -1];
      return call === 'InstanceRequest' ? [body['type']] : [];
    });
    assert.deepEqual(calls, [3, 2, 'registerInstance', 'deregisterInstance']);
    assert.deepEqual(fake.store.everyHost(ID), []);
  });

  it('a registration that changes nothing is not sent again by the redo, and the same put twice keeps one record', async () => {
    const { adapter, fake } = await rig();
    await put(adapter, [instance(1)]);
    await put(adapter, [instance(1)]);
    assert.equal(fake.store.everyHost(ID)?.length, 1);
  });

  it('registrations return by themselves after a loss, without a watch that would ask', async () => {
    const { adapter, fake, until } = await rig();
    await put(adapter, [instance(1), instance(2)]);
    fake.wipe();
    await until('both again', () => fake.store.everyHost(ID)?.length === 2);
  });

  it('registrations return when the server was down for minutes', async () => {
    const { adapter, fake, until, advance } = await rig();
    await put(adapter, [instance(1)]);
    await fake.down();
    fake.store.wipe();
    for (let step = 0; step < 100; step++) await advance(1_200);
    await fake.up();
    await until('it again', () => fake.store.everyHost(ID)?.length === 1);
  });

  it('what a busy server does not take after a loss is sent until it stands, and until then no renewal claims that it does', async () => {
    const { adapter, fake, until, counts } = await rig();
    const [receipt] = await put(adapter, [instance(1)]);
    assert.ok(receipt !== undefined);
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
    fake.overLimit.add('InstanceRequest');
    fake.wipe();
    await until('three tries', () => (counts.get('registration.redo') ?? 0) >= 3, 200);
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    assert.equal(fake.store.everyHost(ID), null);
    const tries = fake.log.filter(({ call }) => call === 'InstanceRequest').map(({ at }) => at);
    assert.ok(
      tries.slice(2).every((at, n) => at - (tries[n + 1] ?? at) >= 500),
      tries.join(),
    );
    fake.overLimit.clear();
    await until('it again', () => fake.store.everyHost(ID)?.length === 1, 200);
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
  });

  it('after a loss 200 subscriptions and 200 registrations go out once each, at most 32 under way at once', async () => {
    const { adapter, fake, until } = await rig();
    const keys = Array.from({ length: 200 }, (_, n) => ({ namespace: 'default', name: `web-${n}` }));
    for (const key of keys) await adapter.put?.([{ key, instance: instance(1) }], OWN, never());
    const watches = keys.map((key) => new Watch(adapter, key));
    await until('all', () => watches.every(({ hosts }) => hosts.length === 1), 100);
    const before = fake.log.length;
    fake.slowMs = 1_000;
    fake.wipe();
    // Who watches comes again after a loss, as the supervisor does.
    await until('the loss', () => watches.every(({ error }) => error !== null), 100);
    const again = new Map(keys.map((key) => [key, new Watch(adapter, key)]));
    const comeAgain = (): void => {
      for (const [key, watch] of again) if (watch.error !== null) again.set(key, new Watch(adapter, key));
    };
    const naming = (): string[] =>
      fake.log
        .slice(before)
        .flatMap(({ call, body }) => (body['serviceName'] === undefined ? [] : [`${call} ${body['serviceName']}`]));
    let most = 0;
    let last = 0;
    await until(
      'everything',
      () => {
        comeAgain();
        // No answer comes within these 250 ms: what is new since the last look is under way.
        most = Math.max(most, naming().length - last);
        last = naming().length;
        return last >= 400;
      },
      250,
    );
    assert.ok(most <= 32, `${most} at once`);
    fake.slowMs = 0;
    await until('all again', () => [...again.values()].every(({ hosts }) => hosts.length === 1), 250);
    assert.equal(new Set(naming()).size, naming().length, 'something was sent twice');
    for (const watch of [...watches, ...again.values()]) watch.stop();
  });

  it('what is put while the server still works on the call before is sent, too; one that is refused takes nothing of another away', async () => {
    const { adapter, fake, clock, until } = await rig();
    await put(adapter, [instance(1)]);
    fake.slowMs = 1_000;
    const first = put(adapter, [instance(2)]);
    const second = put(adapter, [instance(3)]);
    const refused = adapter.put?.([{ key: KEY, instance: instance(4, { port: 70_000 }) }], OWN, never());
    let done = false;
    const all = Promise.all([first, second, refused]).then(([, , answers]) => {
      done = true;
      assert.ok(answers?.[0] instanceof SourceError);
    });
    await until('all answers', () => done, 100);
    await all;
    // A removal waits for the registration that was asked for before it.
    const late = put(adapter, [instance(6)]);
    await until('the call', () => JSON.stringify(fake.log.at(-1)?.body).includes('192.0.2.6'), 0);
    const removed = adapter.remove?.([{ service: KEY, nativeId: '192.0.2.6#80#DEFAULT', token: 'connection' }], {}, never());
    fake.slowMs = 0;
    await clock.advance(1_000);
    await late;
    assert.deepEqual(await removed, [true]);
    await put(adapter, [instance(5)]);
    const hosts = () => (fake.store.everyHost(ID) ?? []).map(({ ip }) => ip).sort();
    assert.deepEqual(hosts(), ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.5']);
  });

  it('health of ours goes out with the set, unknown of our own is not yet healthy', async () => {
    const { adapter, fake } = await rig();
    const [receipt] = await put(adapter, [instance(1, { health: 'unknown' })]);
    assert.equal(fake.store.everyHost(ID)?.[0]?.healthy, false);
    await adapter.setHealth?.(receipt ?? assert.fail('no receipt'), 'healthy', never());
    assert.equal(fake.store.everyHost(ID)?.[0]?.healthy, true);
  });

  it('a refused batch leaves what stood before, and says why', async () => {
    const { adapter, fake } = await rig();
    fake.store.persist('public@@DEFAULT_GROUP@@web', host(9, { ephemeral: false }));
    const [result] = (await adapter.put?.([{ key: KEY, instance: instance(1) }], OWN, never())) ?? [];
    assert.match(causes(result), /^refused: .*persistent service/);
    assert.equal(fake.store.everyHost(ID)?.length, 1);
  });

  it('persistent records go over gRPC where the server can, else over HTTP, and are removed', async () => {
    for (const version of ['3.0.3', '2.1.1'] as const) {
      const { adapter, fake, clock } = await rig(version);
      const pump = setInterval(() => void clock.advance(50), 5);
      const [receipt] = await put(adapter, [instance(1)], { as: 'copy', ttl: 15_000, liveness: 'persistent' });
      assert.deepEqual(
        fake.store.everyHost(ID)?.map(({ ephemeral }) => ephemeral),
        [false],
      );
      assert.equal(
        fake.log.some(({ call }) => call === 'PersistentInstanceRequest'),
        version === '3.0.3',
      );
      assert.deepEqual(await adapter.remove?.([receipt ?? assert.fail('none')], {}, never()), [true]);
      assert.deepEqual(fake.store.everyHost(ID), []);
      clearInterval(pump);
    }
  });

  it('a copy that lives by beats outlives our connection; an unhealthy one is not beaten, and a forgotten one is said so', async () => {
    const { adapter, fake } = await rig();
    const how: WriteMode = { as: 'copy', ttl: 15_000, liveness: 'beat' };
    const [receipt] = await put(adapter, [instance(1)], how);
    const mine = receipt ?? assert.fail('no receipt');
    fake.endStreams();
    assert.equal(fake.store.everyHost(ID)?.length, 1);
    assert.deepEqual(await adapter.renew?.([mine], never()), [{ kind: 'renewed', leaseMs: 90_000 }]);
    await adapter.setHealth?.(mine, 'unhealthy', never());
    assert.equal((await adapter.renew?.([mine], never()))?.length, 1);
    assert.equal(fake.store.everyHost(ID)?.[0]?.healthy, false);
    await adapter.setHealth?.(mine, 'healthy', never());
    fake.store.wipe();
    assert.deepEqual(await adapter.renew?.([mine], never()), [{ kind: 'forgotten' }]);
  });
});

describe('copies and the providers that they stand in for', () => {
  const copyOf = (n: number): Instance => instance(n, { metadata: new Map([['weir-origin', 'old']]) });
  const hosts = (fake: FakeNacos): string[] =>
    (fake.store.everyHost(ID) ?? []).map(({ metadata }) => ('weir-origin' in metadata ? 'copy' : 'provider')).sort();

  it('a copy that lives by beats is removed beside a provider on a connection of its own, and not once it is its record', async () => {
    const { adapter, fake, until } = await rig();
    const how: WriteMode = { as: 'copy', ttl: 90_000, liveness: 'beat' };
    const [receipt = assert.fail('no receipt')] = await put(adapter, [copyOf(1)], how);
    assert.equal(receipt.nativeId, '192.0.2.1#80#DEFAULT#copy');
    fake.store.publish(ID, 'another connection', [host(1)]);
    assert.deepEqual(hosts(fake), ['copy', 'provider']);
    assert.deepEqual(await adapter.remove?.([receipt], {}, never()), [true]);
    assert.deepEqual(hosts(fake), ['provider']);
    fake.store.publish(ID, 'another connection', []);
    const [second = assert.fail('no receipt')] = await put(adapter, [copyOf(1)], how);
    // The provider registers over HTTP: one record for both.
    fake.store.register(ID, host(1));
    await until('the list', () => fake.store.info(ID).hosts.every(({ metadata }) => !('weir-origin' in metadata)));
    assert.deepEqual(await adapter.remove?.([second], {}, never()), [true]);
    assert.deepEqual(hosts(fake), ['provider']);
  });

  it('all copies of a service that live by the connection go in one call, and one leaves without the others', async () => {
    const { adapter, fake } = await rig();
    const how: WriteMode = { as: 'copy', ttl: 90_000, liveness: 'connection' };
    const receipts = await put(adapter, [copyOf(1), copyOf(2), copyOf(3)], how);
    assert.equal(adapter.capabilities.setsByConnection, true);
    assert.equal(fake.log.filter(({ call }) => call === 'BatchInstanceRequest').length, 1);
    assert.equal(fake.log.filter(({ call }) => call === 'InstanceRequest').length, 0);
    assert.deepEqual(await adapter.remove?.(receipts.slice(0, 1), {}, never()), [true]);
    assert.equal(fake.store.everyHost(ID)?.length, 2);
  });

  it('beats of many copies go side by side, and each has its answer', async () => {
    const { adapter, fake } = await rig();
    const how: WriteMode = { as: 'copy', ttl: 90_000, liveness: 'beat' };
    const receipts = await put(
      adapter,
      Array.from({ length: 40 }, (_, n) => copyOf(n + 1)),
      how,
    );
    fake.store.deregister(ID, host(7));
    const results = (await adapter.renew?.(receipts, never())) ?? [];
    const kinds = results.map((result) => (result instanceof SourceError ? result.message : result.kind));
    assert.deepEqual(
      kinds,
      receipts.map(({ nativeId }) => (nativeId.startsWith('192.0.2.7#') ? 'forgotten' : 'renewed')),
    );
  });
});

describe('moves, tokens and refusals', () => {
  it('ConnectReset: the watch goes on without a loss, registrations stand on the new connection before the old one goes', async () => {
    const { adapter, fake, until, counts } = await rig();
    await put(adapter, [instance(1)]);
    const watch = new Watch(adapter);
    await until('it', () => watch.hosts.length === 1);
    const hosts: number[] = [];
    fake.resetConnections(null);
    await until('the new connection', () => {
      hosts.push(fake.store.everyHost(ID)?.length ?? 0);
      return (
        counts.get('connection.reset') === 1 &&
        fake.connections === 1 &&
        fake.log.filter(({ call }) => call === 'ConnectionSetupRequest').length === 2
      );
    });
    assert.ok(
      hosts.every((count) => count >= 1),
      'never gone',
    );
    fake.store.publish(ID, 'raw', [host(2)]);
    await until('both', () => watch.hosts.length === 2);
    assert.equal(watch.error, null);
  });

  it('an expired token is renewed before its end; a killed one once, and the call succeeds', async () => {
    const options = { ...PLAIN, auth: { username: 'weir', password: 'right' } };
    const { adapter, fake, until, clock } = await rig('3.0.3', {}, options);
    fake.auth = new Map([['weir', 'right']]);
    fake.tokenTtl = 60;
    const watch = new Watch(adapter);
    await until('an item', () => watch.items.length > 0);
    fake.killTokens();
    assert.equal((await adapter.read(KEY, never())).kind, 'present');
    const logins = () => fake.log.filter(({ call }) => call.includes('login')).length;
    assert.equal(logins(), 2);
    // It is renewed in the last fifteenth to tenth of its life.
    const from = clock.now();
    await until('57 s', () => clock.now() - from >= 57_000, 250);
    assert.equal((await adapter.read(KEY, never())).kind, 'present');
    assert.equal(logins(), 3);
  });

  it('a wrong password, a wrong token and a missing right are denied, each with what to change', async () => {
    for (const [auth, may, pattern] of [
      [{ username: 'weir', password: 'wrong' }, true, /^denied: .*check auth.username and auth.password/],
      [{ token: 'eyJ.wrong' }, true, /^denied: .*check auth.username, auth.password or auth.token/],
      [{}, true, /^denied: .*check auth.username, auth.password or auth.token/],
      [{ username: 'weir', password: 'right' }, false, /^denied: .*no right.*namespace/],
    ] as const) {
      const { adapter, fake, until } = await rig('3.0.3', {}, { ...PLAIN, auth });
      fake.auth = new Map([['weir', 'right']]);
      fake.mayUse = () => may;
      const watch = new Watch(adapter);
      await until('the throw', () => watch.error !== null);
      assert.match(causes(watch.error), pattern);
      assert.equal(watch.items.length, 0);
    }
  });

  it('a namespace that is not there is said when the list is empty', async () => {
    const { adapter, until } = await rig('3.0.3', { namespace: 'gmae' });
    let error: unknown = null;
    const lists: ServiceList[] = [];
    void (async () => {
      try {
        for await (const list of adapter.services?.(never()) ?? []) lists.push(list);
      } catch (thrown) {
        error = thrown;
      }
    })();
    await until('the throw', () => error !== null);
    assert.match(causes(error), /^refused: .*no namespace gmae .*public/);
    assert.equal(lists.length, 0);
  });

  it('a call over the limit is a loss with a wait, and no message shows a secret', async () => {
    const { adapter, fake, until } = await rig();
    fake.overLimit.add('SubscribeServiceRequest');
    const watch = new Watch(adapter);
    await until('the throw', () => watch.error !== null);
    assert.ok(watch.error instanceof SourceError && watch.error.causeKind === 'lost' && watch.error.retryAfterMs === 1_000);
  });
});

describe('names of services', () => {
  async function listed(at: Rig): Promise<{ lists: ServiceList[]; error: () => unknown; stop: () => void }> {
    const lists: ServiceList[] = [];
    const stop = new AbortController();
    let error: unknown = null;
    void (async () => {
      try {
        for await (const list of at.adapter.services?.(stop.signal) ?? []) lists.push(list);
      } catch (thrown) {
        error = thrown;
      }
    })();
    return { lists, error: () => error, stop: () => stop.abort() };
  }

  it('all groups are listed by pages of 500, without doubles', async () => {
    const at = await rig();
    for (let n = 0; n < 1_203; n++) at.fake.store.touch(`public@@${n % 2 ? 'A' : 'DEFAULT_GROUP'}@@s${n}`);
    const { lists, stop } = await listed(at);
    await at.until('the list', () => lists.length > 0);
    assert.equal(lists[0]?.keys.length, 1_203);
    assert.ok(lists[0]?.complete && lists[0].keys.some(({ name }) => name === 'A@@s1'));
    stop();
  });

  it('without the right to list, names are followed by fuzzy watch; over 500 of them that is no complete list', async () => {
    const at = await rig();
    at.fake.adminDenied = true;
    for (let n = 0; n < 25; n++) at.fake.store.publish(`public@@DEFAULT_GROUP@@s${n}`, 'raw', [host(1)]);
    const { lists, stop } = await listed(at);
    await at.until('the list', () => lists.length > 0);
    assert.equal(lists[0]?.keys.length, 25);
    at.fake.store.publish('public@@DEFAULT_GROUP@@late', 'raw', [host(1)]);
    await at.until('the new one', () => lists.at(-1)?.keys.length === 26);
    at.fake.store.publish('public@@DEFAULT_GROUP@@late', 'raw', []);
    await at.until('gone', () => lists.at(-1)?.keys.length === 25);
    for (let n = 25; n < 501; n++) at.fake.store.publish(`public@@DEFAULT_GROUP@@s${n}`, 'raw', [host(1)]);
    await at.until('the groups instead', () => at.lines.some((line) => line.includes('"way":"groups"')));
    stop();
  });

  it('names that are missing for a minute after a loss are in doubt, not gone', async () => {
    const at = await rig();
    for (const name of ['a', 'b']) at.fake.store.touch(`public@@DEFAULT_GROUP@@${name}`);
    const watch = new Watch(at.adapter);
    const first = await listed(at);
    await at.until('both', () => first.lists.at(-1)?.keys.length === 2);
    at.fake.wipe();
    at.fake.store.touch('public@@DEFAULT_GROUP@@a');
    await at.until('the loss', () => watch.error !== null);
    const second = new Watch(at.adapter);
    await at.until('the short list', () => first.lists.at(-1)?.keys.length === 1);
    assert.deepEqual(
      first.lists.at(-1)?.failed.map(({ name }) => name),
      ['b'],
    );
    await at.until('the end of doubt', () => first.lists.at(-1)?.failed.length === 0, 250);
    first.stop();
    second.stop();
  });
});
