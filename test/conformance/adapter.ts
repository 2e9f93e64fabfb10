// The one conformance suite of all adapters. Owns the claims that every adapter must keep; which of them apply is chosen by the
// adapter's capabilities. Called by adapters/<kind>/*.test.ts with a harness; must never know a kind.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { Adapter, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { type Instance, NO_METADATA } from '../../src/model/instance.ts';
import { MAX_METADATA_KEY_BYTES, MAX_METADATA_KEYS, MAX_METADATA_VALUE_BYTES, sameMetadata } from '../../src/model/metadata.ts';
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { eventually } from '../support/eventually.ts';
import { RecordingSink } from '../support/recording-sink.ts';

/** Put it wherever the adapter takes a password or token; the suite searches logs and errors for it. */
export const CANARY = 'canary-5e1f0c7d9b';

/** Native control of the registry, on a path that is not our adapter. Keys are the source's own words. */
export interface NativeRegistry {
  /** Upserts these instances of one service by address; other instances of it stay. Writes every field the registry can hold. */
  put(key: ServiceKey, instances: readonly Instance[]): Promise<void>;
  /** Removes instances by the ids that the adapter's snapshots show. */
  remove(key: ServiceKey, ids: readonly string[]): Promise<void>;
  /** Leaves a service that is known and has no instances, where the registry has such a thing. */
  clear?(key: ServiceKey): Promise<void>;
  /** Adds one malformed record beside the good ones of a service. */
  spoil?(key: ServiceKey): Promise<void>;
  /** Drops every connection of every client once; the registry stays up. */
  cut?(): Promise<void>;
  /** Loses all data and starts its revisions anew. */
  wipe?(): Promise<void>;
}

/** One adapter on one registry, made anew for every test. */
export interface Harness {
  readonly adapter: Adapter;
  /** The clock the adapter was given; `advance` moves it. */
  readonly clock: Clock;
  readonly registry: NativeRegistry;
  /** A second, independent client of the same registry; the harness closes it. */
  another(): Promise<Adapter>;
  /** A service of the registry for a test's name; different names give different services, none exists before the test. */
  key(name: string): ServiceKey;
  /** Lets `ms` pass: moves a fake clock (and lets promises settle), or really waits. */
  advance(ms: number): Promise<void>;
  /** Everything that was logged so far, as text. */
  logs(): string;
  /** Timers of the adapter that are still set. */
  timersLeft?(): number;
  close(): Promise<void>;
}

export interface AdapterSpec {
  readonly name: string;
  make(): Promise<Harness>;
  /** Claims this registry cannot keep, by exact name, each with the reason. */
  readonly skip?: readonly { readonly test: string; readonly reason: string }[];
}

const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };

/** A plain instance; `n` makes the address. Documentation addresses: no test connects to them. */
export function sampleInstance(n: number, fields: Partial<Instance> = {}): Instance {
  const host = fields.host ?? `192.0.2.${n}`;
  const port = fields.port ?? 8_000 + n;
  return {
    id: `${host}:${port}`,
    host,
    port,
    transport: 'tcp',
    weight: 100,
    health: 'healthy',
    isolated: false,
    metadata: NO_METADATA,
    ...fields,
  };
}

/** Registers the suite for one adapter with node:test. */
export function describeAdapter(spec: AdapterSpec): void {
  describe(`adapter ${spec.name} keeps the contract`, () => {
    const skips = new Map((spec.skip ?? []).map((skip) => [skip.test, skip.reason]));
    for (const [name, body] of CLAIMS) {
      const reason = skips.get(name);
      skips.delete(name);
      it(name, { timeout: 90_000, ...(reason === undefined ? {} : { skip: reason }) }, async (t) => {
        const harness = await spec.make();
        try {
          await body(harness, t);
        } finally {
          await harness.close();
        }
      });
    }
    it('every skip names a claim of the suite and has a reason', () => {
      assert.deepEqual([...skips.keys()], []);
      assert.ok((spec.skip ?? []).every(({ reason }) => reason.trim().length > 0));
    });
  });
}

/** Reads a watch (or list) into an array, so that a test can wait for what it wants to see. */
class Reader<T> {
  readonly items: T[] = [];
  readonly #controller = new AbortController();
  readonly #harness: Harness;
  readonly done: Promise<'ended' | { thrown: unknown }>;

  constructor(harness: Harness, open: (signal: AbortSignal) => AsyncIterable<T>) {
    this.#harness = harness;
    this.done = this.#run(open);
  }

  get last(): T | undefined {
    return this.items.at(-1);
  }

  until(what: string, claim: (items: readonly T[]) => boolean, deadlineMs = 20_000): Promise<unknown> {
    return waitFor(this.#harness, what, () => claim(this.items), deadlineMs);
  }

  async stop(): Promise<'ended' | { thrown: unknown }> {
    this.#controller.abort(new Error('the test has seen enough'));
    return this.done;
  }

  async #run(open: (signal: AbortSignal) => AsyncIterable<T>): Promise<'ended' | { thrown: unknown }> {
    try {
      for await (const item of open(this.#controller.signal)) this.items.push(item);
      return 'ended';
    } catch (thrown) {
      return { thrown };
    }
  }
}

/** Lets the harness's time pass in small steps until the claim holds. */
async function waitFor(
  harness: Harness,
  what: string,
  claim: () => boolean | Promise<boolean>,
  deadlineMs = 20_000,
): Promise<void> {
  await eventually(async () => {
    if (await claim()) return true;
    await harness.advance(20);
    if (await claim()) return true;
    throw new Error(`not seen: ${what}`);
  }, deadlineMs);
}

type Seen = Snapshot | Unchanged;

function watching(harness: Harness, key: ServiceKey, adapter: Adapter = harness.adapter): Reader<Seen> {
  return new Reader(harness, (signal) => adapter.watch(key, signal));
}

function listing(harness: Harness): Reader<ServiceList> {
  return new Reader(harness, (signal) => harness.adapter.services?.(signal) ?? assert.fail('list without services()'));
}

/** The newest whole snapshot among the items. */
function newest(items: readonly Seen[]): Snapshot | undefined {
  return items.findLast((item): item is Snapshot => item.kind !== 'unchanged');
}

function addresses(snapshot: Snapshot | undefined): string[] | null {
  if (snapshot === undefined) return null;
  return snapshot.kind === 'absent' ? [] : snapshot.instances.map(({ host, port }) => `${host} ${port}`).sort();
}

function shows(...instances: Instance[]): (items: readonly Seen[]) => boolean {
  const want = instances.map(({ host, port }) => `${host} ${port}`).sort();
  return (items) => {
    const got = addresses(newest(items));
    return got !== null && got.length === want.length && got.every((address, i) => address === want[i]);
  };
}

function never(): AbortSignal {
  return new AbortController().signal;
}

function isReceipt(result: WriteReceipt | SourceError | undefined): result is WriteReceipt {
  return result !== undefined && !(result instanceof Error);
}

async function put(adapter: Adapter, writes: readonly Write[], how: WriteMode = OWN): Promise<WriteReceipt[]> {
  const results = (await adapter.put?.(writes, how, never())) ?? assert.fail('register without put()');
  assert.equal(results.length, writes.length, 'one answer for each write');
  return results.map((result) => {
    if (isReceipt(result)) return result;
    throw result;
  });
}

async function present(adapter: Adapter, key: ServiceKey): Promise<Instance[]> {
  const snapshot = await adapter.read(key, never());
  return snapshot.kind === 'absent' ? [] : [...snapshot.instances];
}

/** Waits until the (other) client sees exactly one instance of the service and returns it. */
async function onlyOne(
  harness: Harness,
  adapter: Adapter,
  key: ServiceKey,
  claim = (_: Instance): boolean => true,
): Promise<Instance> {
  let seen: Instance[] = [];
  await waitFor(harness, `exactly one instance of ${serviceId(key)}`, async () => {
    seen = await present(adapter, key);
    return seen.length === 1 && seen.every(claim);
  });
  return seen[0] ?? assert.fail('nothing seen');
}

function needs(t: TestContext, holds: boolean | undefined, what: string): boolean {
  if (holds !== true) t.skip(`not for this adapter: ${what}`);
  return holds === true;
}

type Claim = readonly [name: string, body: (harness: Harness, t: TestContext) => Promise<void>];

const READING: readonly Claim[] = [
  [
    'the first snapshot of a watch comes at once and is whole',
    async (h) => {
      const key = h.key('first');
      const two = [sampleInstance(1), sampleInstance(2)] as const;
      await h.registry.put(key, two);
      await waitFor(h, 'both by a read', async () => (await present(h.adapter, key)).length === 2);
      const reader = watching(h, key);
      await reader.until('a first item', (items) => items.length > 0);
      assert.equal(reader.items[0]?.kind, 'present');
      assert.ok(shows(...two)(reader.items.slice(0, 1)));
      assert.equal(await reader.stop(), 'ended');
    },
  ],
  [
    'a change gives the whole snapshot, not the difference',
    async (h) => {
      const key = h.key('whole');
      await h.registry.put(key, [sampleInstance(1), sampleInstance(2)]);
      const reader = watching(h, key);
      await reader.until('both', shows(sampleInstance(1), sampleInstance(2)));
      await h.registry.put(key, [sampleInstance(3)]);
      await reader.until('all three', shows(sampleInstance(1), sampleInstance(2), sampleInstance(3)));
      const gone = newest(reader.items);
      const id = gone?.kind === 'present' ? gone.instances.find(({ port }) => port === 8_001)?.id : undefined;
      await h.registry.remove(key, [id ?? assert.fail('no id')]);
      await reader.until('the two that are left', shows(sampleInstance(2), sampleInstance(3)));
      await reader.stop();
    },
  ],
  [
    'scale to zero is seen by a watch and by a read',
    async (h) => {
      const key = h.key('zero');
      await h.registry.put(key, [sampleInstance(1), sampleInstance(2)]);
      const reader = watching(h, key);
      await reader.until('both', shows(sampleInstance(1), sampleInstance(2)));
      const before = newest(reader.items);
      assert.ok(before?.kind === 'present');
      await h.registry.remove(
        key,
        before.instances.map(({ id }) => id),
      );
      await reader.until('nothing left', shows());
      assert.deepEqual(await present(h.adapter, key), []);
      await reader.stop();
    },
  ],
  [
    'an unknown service is an answer and no failure; where the registry tells it from an empty one it is absent',
    async (h) => {
      const snapshot = await h.adapter.read(h.key('nobody'), never());
      assert.deepEqual(addresses(snapshot), []);
      if (h.adapter.capabilities.tellsAbsent) assert.equal(snapshot.kind, 'absent');
      const reader = watching(h, h.key('nobody'));
      await reader.until('a first item', (items) => items.length > 0);
      assert.equal(newest(reader.items)?.kind, snapshot.kind);
      assert.equal(await reader.stop(), 'ended');
    },
  ],
  [
    'a known service without instances is present and empty',
    async (h, t) => {
      const clear = h.registry.clear?.bind(h.registry);
      if (!needs(t, h.adapter.capabilities.tellsAbsent && clear !== undefined, 'it cannot tell empty from unknown')) return;
      const key = h.key('empty');
      await h.registry.put(key, [sampleInstance(1)]);
      const reader = watching(h, key);
      await reader.until('one', shows(sampleInstance(1)));
      await clear?.(key);
      await reader.until('present, empty', (items) => newest(items)?.kind === 'present' && shows()(items));
      assert.equal((await h.adapter.read(key, never())).kind, 'present');
      await reader.stop();
    },
  ],
  [
    'a watch on an unknown service sees it appear',
    async (h) => {
      const key = h.key('later');
      const reader = watching(h, key);
      await reader.until('a first item', (items) => items.length > 0);
      await h.registry.put(key, [sampleInstance(7)]);
      await reader.until('the new one', shows(sampleInstance(7)));
      await reader.stop();
    },
  ],
  [
    'no older state is seen after a newer one',
    async (h) => {
      const key = h.key('order');
      const reader = watching(h, key);
      const all: Instance[] = [];
      for (let n = 1; n <= 20; n++) {
        all.push(sampleInstance(n));
        await h.registry.put(key, [sampleInstance(n)]);
        if (n % 5 === 0) await h.advance(5);
      }
      await reader.until('all twenty', shows(...all));
      const counts = reader.items
        .filter((item): item is Snapshot => item.kind !== 'unchanged')
        .map((s) => addresses(s)?.length ?? 0);
      assert.deepEqual(
        counts,
        counts.toSorted((a, b) => a - b),
      );
      await reader.stop();
    },
  ],
  [
    'two watches of one service see the same, and ending one leaves the other',
    async (h) => {
      const key = h.key('shared');
      const one = watching(h, key);
      const two = watching(h, key);
      await h.registry.put(key, [sampleInstance(1)]);
      await one.until('the first', shows(sampleInstance(1)));
      await two.until('the first', shows(sampleInstance(1)));
      assert.equal(await one.stop(), 'ended');
      await h.registry.put(key, [sampleInstance(2)]);
      await two.until('the second', shows(sampleInstance(1), sampleInstance(2)));
      await two.stop();
    },
  ],
  [
    'an abort ends watches and lists quietly, also before their first item, and rejects a read with its reason',
    async (h) => {
      const key = h.key('abort');
      await h.registry.put(key, [sampleInstance(1)]);
      const idle = watching(h, key);
      await idle.until('the first', shows(sampleInstance(1)));
      assert.equal(await idle.stop(), 'ended');
      assert.equal(await watching(h, key).stop(), 'ended');
      if (h.adapter.capabilities.list) {
        const list = listing(h);
        await list.until('a list', (items) => items.length > 0);
        assert.equal(await list.stop(), 'ended');
      }
      const reason = new Error('stop');
      await assert.rejects(h.adapter.read(key, AbortSignal.abort(reason)), (thrown) => thrown === reason);
    },
  ],
  [
    'the list of services is level-triggered: each item holds every name',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.list, 'it cannot list')) return;
      const [a, b] = [h.key('list-a'), h.key('list-b')];
      await h.registry.put(a, [sampleInstance(1)]);
      const reader = listing(h);
      const holds =
        (...keys: ServiceKey[]) =>
        (items: readonly ServiceList[]): boolean => {
          const names = new Set(items.at(-1)?.keys.map(serviceId));
          return items.at(-1)?.complete === true && keys.every((key) => names.has(serviceId(key)));
        };
      await reader.until('the first name', holds(a));
      await h.registry.put(b, [sampleInstance(2)]);
      await reader.until('both names', holds(a, b));
      await reader.stop();
    },
  ],
  [
    'weights are read on our scale: normal is 100, zero stays zero, little never becomes zero',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.reads.has('weight'), 'it reads no weight')) return;
      const key = h.key('weights');
      const weights = [0, 100, 300];
      await h.registry.put(
        key,
        weights.map((weight, n) => sampleInstance(n + 1, { weight })),
      );
      await waitFor(h, 'all three', async () => (await present(h.adapter, key)).length === 3);
      const seen = (await present(h.adapter, key)).toSorted((x, y) => x.port - y.port).map(({ weight }) => weight);
      assert.deepEqual(seen, weights);
    },
  ],
  [
    'IPv6 addresses are read in their canonical form',
    async (h) => {
      const key = h.key('ipv6');
      await h.registry.put(key, [sampleInstance(1, { host: '2001:db8::1', port: 8_001 })]);
      const seen = await onlyOne(h, h.adapter, key);
      assert.deepEqual([seen.host, seen.port], ['2001:db8::1', 8_001]);
    },
  ],
  [
    'metadata over the limits is cut, and the list survives',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.reads.has('metadata'), 'it reads no metadata')) return;
      const key = h.key('limits');
      const metadata = new Map([
        ['kept', 'yes'],
        ['long', 'x'.repeat(MAX_METADATA_VALUE_BYTES + 1)],
      ]);
      for (let n = 0; n < MAX_METADATA_KEYS + 10; n++) metadata.set(`k${n}`, String(n));
      await h.registry.put(key, [sampleInstance(1, { metadata }), sampleInstance(2)]);
      await waitFor(h, 'both', async () => (await present(h.adapter, key)).length === 2);
      const fat = (await present(h.adapter, key)).find(({ port }) => port === 8_001) ?? assert.fail('the fat one is gone');
      assert.equal(fat.metadata.get('kept'), 'yes');
      assert.ok(fat.metadata.size <= MAX_METADATA_KEYS);
      for (const [name, value] of fat.metadata) {
        assert.ok(Buffer.byteLength(name) <= MAX_METADATA_KEY_BYTES && Buffer.byteLength(value) <= MAX_METADATA_VALUE_BYTES);
      }
    },
  ],
  [
    'a malformed record is dropped and counted, the good ones of its list stay',
    async (h, t) => {
      const spoil = h.registry.spoil?.bind(h.registry);
      if (!needs(t, spoil !== undefined, 'its harness cannot write a malformed record')) return;
      const key = h.key('spoiled');
      await h.registry.put(key, [sampleInstance(1)]);
      await spoil?.(key);
      const reader = watching(h, key);
      await reader.until('the rejected record', (items) => {
        const snapshot = newest(items);
        return snapshot?.kind === 'present' && snapshot.rejected.length === 1 && shows(sampleInstance(1))(items);
      });
      await reader.stop();
    },
  ],
  [
    'names like __proto__ and constructor are services like any other',
    async (h) => {
      const names = ['__proto__', 'constructor', 'toString'];
      for (const [n, name] of names.entries()) {
        const key = { ...h.key('hostile'), name };
        await h.registry.put(key, [sampleInstance(n + 1, { metadata: new Map([[name, 'value']]) })]);
        const seen = await onlyOne(h, h.adapter, key);
        assert.equal(seen.port, 8_001 + n);
        if (h.adapter.capabilities.reads.has('metadata')) assert.equal(seen.metadata.get(name), 'value');
      }
      assert.equal(Object.hasOwn(Object.prototype, 'value'), false);
    },
  ],
];

const WRITING: readonly Claim[] = [
  [
    'what is put is seen by another client, and its receipt is plain JSON',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.register, 'it cannot register')) return;
      const key = h.key('put');
      const [receipt] = await put(h.adapter, [{ key, instance: sampleInstance(1) }]);
      assert.deepEqual(JSON.parse(JSON.stringify(receipt)), receipt);
      const seen = await onlyOne(h, await h.another(), key);
      assert.deepEqual([seen.host, seen.port], ['192.0.2.1', 8_001]);
    },
  ],
  [
    'several writes of several services are answered in their order',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.register, 'it cannot register')) return;
      const keys = ['batch-a', 'batch-b', 'batch-c'].map((name) => h.key(name));
      const receipts = await put(
        h.adapter,
        keys.map((key, n) => ({ key, instance: sampleInstance(n + 1) })),
      );
      assert.deepEqual(
        receipts.map(({ service }) => serviceId(service)),
        keys.map((key) => serviceId(key)),
      );
      for (const [n, key] of keys.entries()) assert.equal((await onlyOne(h, h.adapter, key)).port, 8_001 + n);
    },
  ],
  [
    'putting again changes the record in place, with and without the receipt',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.register, 'it cannot register')) return;
      const key = h.key('again');
      const weighted = h.adapter.capabilities.keeps.has('weight');
      const [first] = await put(h.adapter, [{ key, instance: sampleInstance(1) }]);
      const previous = first ?? assert.fail('no receipt');
      for (const write of [
        { key, instance: sampleInstance(1, { weight: 200 }), previous },
        { key, instance: sampleInstance(1, { weight: 300 }) },
      ]) {
        await put(h.adapter, [write]);
        await onlyOne(h, h.adapter, key, ({ weight }) => !weighted || weight === write.instance.weight);
      }
    },
  ],
  [
    'removing is idempotent',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.register, 'it cannot register')) return;
      const key = h.key('remove');
      const receipts = await put(h.adapter, [
        { key, instance: sampleInstance(1) },
        { key, instance: sampleInstance(2) },
      ]);
      const other = await h.another();
      await waitFor(h, 'both', async () => (await present(other, key)).length === 2);
      for (let round = 0; round < 2; round++) {
        assert.deepEqual(await h.adapter.remove?.(receipts.slice(0, 1), {}, never()), [true]);
        assert.equal((await onlyOne(h, other, key)).port, 8_002);
      }
    },
  ],
  [
    'a renewed lease keeps its record beyond the ttl',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.heartbeat === 'core', 'the core renews nothing here')) return;
      const key = h.key('renew');
      const ttl = 5_000;
      const receipts = await put(h.adapter, [{ key, instance: sampleInstance(1) }], { ...OWN, ttl });
      for (let beat = 0; beat < 5; beat++) {
        await h.advance(ttl / 3);
        const [result] = (await h.adapter.renew?.(receipts, never())) ?? [];
        assert.ok(result !== undefined && !(result instanceof Error) && result.kind === 'renewed', JSON.stringify(result));
        assert.ok(result.leaseMs > ttl / 3 && result.leaseMs <= 60_000, `lease of ${result.leaseMs} ms`);
      }
      assert.equal((await present(h.adapter, key)).length, 1);
    },
  ],
  [
    'a lease that nobody renews ends: the record goes, renew says forgotten, remove still says true',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.heartbeat === 'core', 'the core renews nothing here')) return;
      const key = h.key('forgotten');
      const ttl = 5_000;
      const reader = watching(h, key);
      const receipts = await put(h.adapter, [{ key, instance: sampleInstance(1) }], { ...OWN, ttl });
      await reader.until('it', shows(sampleInstance(1)));
      await h.advance(ttl);
      await reader.until('its end', shows(), 30_000);
      const last = newest(reader.items);
      assert.ok(last?.kind !== 'present' || (last.deregistered ?? []).length === 0, 'expiry is no deregistration');
      assert.deepEqual(await h.adapter.renew?.(receipts, never()), [{ kind: 'forgotten' }]);
      assert.deepEqual(await h.adapter.remove?.(receipts, {}, never()), [true]);
      await put(h.adapter, [{ key, instance: sampleInstance(1), ...(receipts[0] && { previous: receipts[0] }) }], {
        ...OWN,
        ttl,
      });
      await reader.until('it again', shows(sampleInstance(1)));
      await reader.stop();
    },
  ],
  [
    'a deregistration on purpose is told from expiry',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.tellsDeregistration && h.adapter.capabilities.register, 'its protocol does not tell'))
        return;
      const key = h.key('purpose');
      const receipts = await put(h.adapter, [{ key, instance: sampleInstance(1) }]);
      const reader = watching(h, key, await h.another());
      await reader.until('it', shows(sampleInstance(1)));
      const seen = newest(reader.items);
      const id = seen?.kind === 'present' ? seen.instances[0]?.id : undefined;
      await h.adapter.remove?.(receipts, {}, never());
      await reader.until('the word', (items) => {
        return items.some((item) => item.kind === 'present' && item.deregistered?.includes(id ?? '') === true);
      });
      await reader.stop();
    },
  ],
  [
    'the fields that the capabilities call kept survive a put',
    async (h, t) => {
      const { register, keeps, reads } = h.adapter.capabilities;
      if (!needs(t, register, 'it cannot register')) return;
      assert.ok(
        [...keeps].every((field) => reads.has(field)),
        'what is kept must be readable',
      );
      const key = h.key('fields');
      const instance = sampleInstance(1, {
        weight: 200,
        protocol: 'grpc',
        version: '1.2.3',
        locality: { region: 'south', zone: 'a', campus: 'a1' },
        metadata: new Map([
          ['plain', 'value'],
          ['unicode', 'größe 大小'],
          ['odd=&"', 'x=1&y="2"'],
        ]),
      });
      await put(h.adapter, [{ key, instance }]);
      const seen = await onlyOne(h, await h.another(), key);
      for (const field of ['weight', 'protocol', 'version', 'locality'] as const) {
        if (keeps.has(field)) assert.deepEqual(seen[field], instance[field], field);
      }
      if (keeps.has('metadata')) {
        const ours = new Map([...seen.metadata].filter(([name]) => instance.metadata.has(name)));
        assert.ok(sameMetadata(ours, instance.metadata), JSON.stringify([...seen.metadata]));
      }
      for (const [field, changed] of [
        ['health', { health: 'unhealthy' }],
        ['isolated', { isolated: true }],
      ] as const) {
        if (!keeps.has(field)) continue;
        await put(h.adapter, [{ key, instance: { ...instance, ...changed } }]);
        await onlyOne(h, h.adapter, key, (now) => now[field] === { ...instance, ...changed }[field]);
      }
    },
  ],
  [
    'weights survive a put as well as the scale of the registry allows',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.register && h.adapter.capabilities.keeps.has('weight'), 'it keeps no weight')) return;
      for (const [weight, least, most] of [
        [0, 0, 0],
        [1, 1, 100],
        [100, 100, 100],
        [250, 200, 300],
      ] as const) {
        const key = h.key(`weight-${weight}`);
        await put(h.adapter, [{ key, instance: sampleInstance(1, { weight }) }]);
        const seen = await onlyOne(h, h.adapter, key);
        assert.ok(seen.weight >= least && seen.weight <= most, `${weight} became ${seen.weight}`);
      }
    },
  ],
  [
    'an IPv6 instance survives a put',
    async (h, t) => {
      if (!needs(t, h.adapter.capabilities.register, 'it cannot register')) return;
      const key = h.key('put-ipv6');
      await put(h.adapter, [{ key, instance: sampleInstance(1, { host: '2001:db8::7', port: 8_001 }) }]);
      const seen = await onlyOne(h, await h.another(), key);
      assert.deepEqual([seen.host, seen.port], ['2001:db8::7', 8_001]);
    },
  ],
  [
    'a health that is set is seen by another client',
    async (h, t) => {
      const set = h.adapter.setHealth?.bind(h.adapter);
      if (!needs(t, set !== undefined && h.adapter.capabilities.reads.has('health'), 'it has no health to set')) return;
      const key = h.key('health');
      const [receipt] = await put(h.adapter, [{ key, instance: sampleInstance(1) }]);
      const other = await h.another();
      for (const health of ['unhealthy', 'healthy'] as const) {
        await set?.(receipt ?? assert.fail('no receipt'), health, never());
        await onlyOne(h, other, key, (seen) => seen.health === health);
      }
    },
  ],
];

const LIVING: readonly Claim[] = [
  [
    'secrets are in no log line and in no error',
    async (h) => {
      const key = h.key('secrets');
      await h.registry.put(key, [sampleInstance(1)]);
      const reader = watching(h, key);
      await reader.until('it', shows(sampleInstance(1)));
      await h.registry.cut?.();
      await h.advance(100);
      const end = await reader.stop();
      assert.ok(!h.logs().includes(CANARY), 'a secret was logged');
      if (end !== 'ended') assert.ok(!String(end.thrown).includes(CANARY), 'a secret stands in an error');
    },
  ],
  [
    'closing ends every watch and leaves no timer, and closing twice is fine',
    async (h) => {
      const key = h.key('close');
      await h.registry.put(key, [sampleInstance(1)]);
      const reader = watching(h, key);
      await reader.until('it', shows(sampleInstance(1)));
      const list = h.adapter.capabilities.list ? listing(h) : null;
      await list?.until('a list', (items) => items.length > 0);
      if (h.adapter.capabilities.register) await put(h.adapter, [{ key, instance: sampleInstance(2) }]);
      await h.adapter.close();
      let ended = 0;
      for (const done of [reader.done, list?.done]) void done?.then(() => ended++);
      await waitFor(h, 'the end of every stream', () => ended === (list === null ? 1 : 2), 5_000);
      if (h.timersLeft) await waitFor(h, 'no timer left', () => h.timersLeft?.() === 0, 5_000);
      await h.adapter.close();
    },
  ],
  [
    'what is thrown when the registry is cut is a SourceError of cause lost',
    async (h, t) => {
      const cut = h.registry.cut?.bind(h.registry);
      if (!needs(t, cut !== undefined, 'its harness has no connection to cut')) return;
      const key = h.key('cut');
      await h.registry.put(key, [sampleInstance(1)]);
      const reader = watching(h, key);
      await reader.until('it', shows(sampleInstance(1)));
      await cut?.();
      const end = await waitDone(h, reader);
      assert.ok(end !== 'ended' && end.thrown instanceof SourceError, 'a cut must throw');
      assert.equal(end.thrown.causeKind, 'lost');
    },
  ],
  [
    'after a cut the supervisor has the newest state again, and nothing shrank in between',
    async (h, t) => {
      const cut = h.registry.cut?.bind(h.registry);
      if (!needs(t, cut !== undefined, 'its harness has no connection to cut')) return;
      const key = h.key('recovery');
      await supervised(h, key, async (sink) => {
        await h.registry.put(key, [sampleInstance(1), sampleInstance(2)]);
        await waitFor(h, 'both', () => sink.addresses(key).length === 2, 30_000);
        await cut?.();
        await h.registry.put(key, [sampleInstance(3)]);
        await waitFor(h, 'the third after the cut', () => sink.addresses(key).length === 3, 45_000);
        assert.ok(
          sink
            .snapshots(key)
            .slice(sink.firstFull(key, 2))
            .every((s) => (addresses(s)?.length ?? 0) >= 2),
        );
      });
    },
  ],
  [
    'a wiped registry is heard again, whatever its revisions are',
    async (h, t) => {
      const wipe = h.registry.wipe?.bind(h.registry);
      if (!needs(t, wipe !== undefined, 'its harness cannot wipe it')) return;
      const key = h.key('wiped');
      await supervised(h, key, async (sink) => {
        for (let n = 1; n <= 10; n++) await h.registry.put(key, [sampleInstance(n)]);
        await waitFor(h, 'ten', () => sink.addresses(key).length === 10, 30_000);
        const before = sink.snapshots(key).at(-1);
        await wipe?.();
        await h.registry.put(key, [sampleInstance(11)]);
        await waitFor(h, 'the new one alone', () => sink.addresses(key).join() === '192.0.2.11:8011', 60_000);
        assert.notEqual(sink.snapshots(key).at(-1)?.epoch, before?.epoch, 'revisions that start anew are a new epoch');
      });
    },
  ],
];

const CLAIMS: readonly Claim[] = [...READING, ...WRITING, ...LIVING];

async function waitDone<T>(harness: Harness, reader: Reader<T>): Promise<'ended' | { thrown: unknown }> {
  let end: 'ended' | { thrown: unknown } | null = null;
  void reader.done.then((value) => {
    end = value;
  });
  await waitFor(harness, 'the end of the watch', () => end !== null, 30_000);
  return reader.done;
}

/** Runs `body` with a supervisor that watches `key` alone. */
async function supervised(h: Harness, key: ServiceKey, body: (sink: RecordingSink) => Promise<void>): Promise<void> {
  const sink = new RecordingSink();
  const supervisor = new Supervisor({
    sourceId: 'conformance',
    adapter: h.adapter,
    select: { kind: 'onDemand' },
    sink,
    clock: h.clock,
    random: seededRandom(7),
    log: silentLog,
    timeout: 10_000,
  });
  supervisor.start();
  supervisor.want(key);
  try {
    await body(sink);
  } finally {
    await supervisor.close();
  }
}
