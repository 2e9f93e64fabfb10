// The file adapter keeps the contract, and its own promises about bad files and editors.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Adapter, AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { Supervisor } from '../../src/adapter/supervisor.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import type { Instance } from '../../src/model/instance.ts';
import { serviceId } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { describeAdapter, type Harness, sampleInstance } from '../../test/conformance/adapter.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { RecordingSink } from '../../test/support/recording-sink.ts';
import { factory } from './index.ts';

const options: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
const never = new AbortController().signal;
let directory = '';
let files = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-file-'));
});
after(() => rm(directory, { recursive: true }));

function deps(clock: FakeClock): AdapterDeps {
  const dial = dialPolicy({ allowLoopback: true, allowNames: true, cidrs: [], ports: [] }, () => []);
  return { sourceId: 'test', clock, random: seededRandom(1), dial, log: silentLog, count: () => {} };
}

function asRecord(instance: Instance): object {
  const { health: _, metadata, ...fields } = instance;
  return { ...fields, metadata: Object.fromEntries(metadata) };
}

async function harness(): Promise<Harness> {
  const path = join(directory, `services-${++files}.yaml`);
  const services = new Map<string, Map<string, object>>();
  // JSON is YAML; replaced by rename, as careful editors do.
  const write = async (): Promise<void> => {
    const content = Object.fromEntries([...services].map(([id, records]) => [id, { instances: [...records.values()] }]));
    await writeFile(`${path}.tmp`, JSON.stringify({ services: content }));
    await rename(`${path}.tmp`, path);
  };
  await write();
  const clock = new FakeClock();
  const adapters = [factory.create({ path }, options, deps(clock))];
  const records = (id: string): Map<string, object> => {
    const found = services.get(id) ?? new Map<string, object>();
    services.set(id, found);
    return found;
  };
  return {
    adapter: adapters[0] ?? assert.fail(),
    clock,
    registry: {
      async put(key, instances) {
        for (const instance of instances) records(serviceId(key)).set(instance.id, asRecord(instance));
        await write();
      },
      async remove(key, ids) {
        for (const id of ids) records(serviceId(key)).delete(id);
        await write();
      },
      async clear(key) {
        records(serviceId(key)).clear();
        await write();
      },
      async spoil(key) {
        records(serviceId(key)).set('bad', { host: '0.0.0.0', port: 80 });
        await write();
      },
    },
    async another() {
      const other = factory.create({ path }, options, deps(clock));
      adapters.push(other);
      return other;
    },
    key: (name) => ({ namespace: 'test', name }),
    advance: (ms) => clock.advance(ms),
    logs: () => '',
    timersLeft: () => clock.pending,
    async close() {
      for (const adapter of adapters) await adapter.close();
    },
  };
}

describeAdapter({ name: 'file', make: harness });

describe('file adapter', () => {
  const key = { namespace: 'demo', name: 'hello' };

  async function withFile(text: string | null): Promise<{ path: string; clock: FakeClock; adapter: Adapter }> {
    const path = join(directory, `own-${++files}.yaml`);
    if (text !== null) await writeFile(path, text);
    const clock = new FakeClock();
    return { path, clock, adapter: factory.create({ path }, options, deps(clock)) };
  }

  async function failure(adapter: Adapter): Promise<SourceError> {
    try {
      await adapter.read(key, never);
    } catch (thrown) {
      if (thrown instanceof SourceError) return thrown;
    }
    return assert.fail('no SourceError');
  }

  it('reads the documented form', async () => {
    const { adapter } = await withFile(
      'services:\n  demo/hello:\n    instances:\n      - {host: 127.0.0.1, port: 9001, weight: 50, metadata: {zone: a, n: 1}}\n      - {host: Node-1., port: 9002}\n',
    );
    const snapshot = await adapter.read(key, never);
    assert.ok(snapshot.kind === 'present');
    assert.deepEqual(
      snapshot.instances.map(({ id, host, weight, health, metadata }) => ({ id, host, weight, health, metadata: [...metadata] })),
      [
        {
          id: '127.0.0.1:9001',
          host: '127.0.0.1',
          weight: 50,
          health: 'unknown',
          metadata: [
            ['zone', 'a'],
            ['n', '1'],
          ],
        },
        { id: 'node-1:9002', host: 'node-1', weight: 100, health: 'unknown', metadata: [] },
      ],
    );
  });

  it('a fault is malformed and says file, line and column; all faults at once', async () => {
    const { adapter, path } = await withFile(
      'services:\n  demo/hello:\n    instances:\n      - {host: a, port: 0}\n      - {port: 80, extra: 1}\n  nothing: {instances: []}\n',
    );
    const error = await failure(adapter);
    assert.equal(error.causeKind, 'malformed');
    const lines = error.message.split('\n');
    assert.ok(
      lines.some((line) => line.startsWith(`${path}:4:25 services["demo/hello"].instances[0].port: expected`)),
      error.message,
    );
    assert.ok(
      lines.some((line) => line.startsWith(`${path}:5:9 services["demo/hello"].instances[1]`)),
      error.message,
    );
    assert.ok(
      lines.some((line) => line.startsWith(`${path}:6:3 services["nothing"]: expected a name namespace/name`)),
      error.message,
    );
  });

  it('refuses what YAML allows and nobody needs: duplicate keys, broken syntax, alias bombs, other top keys, foreign bytes', async () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
      .split('')
      .map((c, n) => `${c}: &${c} [${`*${'abcdefgh'[n]},`.repeat(9)}]`)
      .join('\n')}\nservices: {demo/hello: {instances: *h}}\n`;
    for (const text of ['services: {a/b: {instances: []}, a/b: {instances: []}}', 'services: [', 'other: 1', '- 1', bomb]) {
      const { adapter } = await withFile(text);
      assert.equal((await failure(adapter)).causeKind, 'malformed', text.slice(0, 40));
    }
    const { adapter, path } = await withFile('');
    await writeFile(path, new Uint8Array([0xff, 0xfe, 0x20]));
    assert.equal((await failure(adapter)).causeKind, 'malformed');
  });

  it('an empty file has no services; a missing one is lost', async () => {
    const empty = await withFile('');
    assert.equal((await empty.adapter.read(key, never)).kind, 'absent');
    const missing = await withFile(null);
    assert.equal((await failure(missing.adapter)).causeKind, 'lost');
  });

  it('a bad edit is lost, never empty; the good one after it is seen, also when it was written in place', async () => {
    const good = (port: number): string => `services: {demo/hello: {instances: [{host: 10.0.0.1, port: ${port}}]}}`;
    const { path, clock, adapter } = await withFile(good(1));
    const sink = new RecordingSink();
    const supervisor = new Supervisor({
      sourceId: 'fixed',
      adapter,
      select: { kind: 'all' },
      sink,
      clock,
      random: seededRandom(1),
      log: silentLog,
      timeout: 10_000,
      maxBackoff: 2_000,
    });
    supervisor.start();
    const seen = (claim: () => boolean) =>
      eventually(async () => {
        await clock.advance(50);
        return claim();
      });
    await seen(() => sink.addresses(key).join() === '10.0.0.1:1');
    await writeFile(path, 'services: {demo/hello: {instances: [');
    await seen(() => sink.losses(key).some(({ causeKind }) => causeKind === 'malformed'));
    assert.deepEqual([supervisor.summary().state, supervisor.summary().cause], ['stale', 'malformed']);
    assert.ok(sink.snapshots(key).every((one) => one.kind === 'present' && one.instances.length === 1));
    await writeFile(path, good(2));
    await seen(() => sink.addresses(key).join() === '10.0.0.1:2');
    await seen(() => supervisor.summary().state === 'live');
    await supervisor.close();
    await adapter.close();
    await seen(() => clock.pending === 0);
  });

  it('a change of one service gives nothing to the watch of another', async () => {
    const h = await harness();
    const [a, b] = [h.key('a'), h.key('b')];
    await h.registry.put(a, [sampleInstance(1)]);
    await h.registry.put(b, [sampleInstance(2)]);
    const items = { a: 0, b: 0 };
    const stop = new AbortController();
    const read = async (name: 'a' | 'b'): Promise<void> => {
      for await (const _ of h.adapter.watch(h.key(name), stop.signal)) items[name]++;
    };
    const reading = [read('a'), read('b')];
    const reached = (claim: () => boolean) =>
      eventually(async () => {
        await h.advance(50);
        return claim();
      });
    await reached(() => items.a === 1 && items.b === 1);
    await h.registry.put(a, [sampleInstance(3)]);
    await reached(() => items.a === 2);
    assert.equal(items.b, 1);
    stop.abort();
    await Promise.all(reading);
    await h.close();
  });

  it('a change that gives no notice (the target of a symlink) is found by the re-stat', async () => {
    const good = (port: number): string => `services: {demo/hello: {instances: [{host: 10.0.0.1, port: ${port}}]}}`;
    const elsewhere = await mkdtemp(join(tmpdir(), 'weir-file-target-'));
    const path = join(directory, `link-${++files}.yaml`);
    await writeFile(join(elsewhere, 'real.yaml'), good(1));
    await symlink(join(elsewhere, 'real.yaml'), path);
    const clock = new FakeClock();
    const adapter = factory.create({ path }, options, deps(clock));
    const stop = new AbortController();
    const ports: number[] = [];
    const reading = (async () => {
      for await (const item of adapter.watch(key, stop.signal)) {
        if (item.kind === 'present') ports.push(item.instances[0]?.port ?? 0);
      }
    })();
    const seen = (port: number) =>
      eventually(async () => {
        await clock.advance(100);
        return ports.at(-1) === port;
      });
    await seen(1);
    await writeFile(join(elsewhere, 'real.yaml'), good(22));
    await seen(22);
    stop.abort();
    await reading;
    await rm(elsewhere, { recursive: true });
  });

  it('a file whose directory does not exist yet is lost, and seen once it is there', async () => {
    const path = join(directory, `later-${++files}`, 'services.yaml');
    const clock = new FakeClock();
    const adapter = factory.create({ path }, options, deps(clock));
    const sink = new RecordingSink();
    const supervisor = new Supervisor({
      sourceId: 'fixed',
      adapter,
      select: { kind: 'all' },
      sink,
      clock,
      random: seededRandom(1),
      log: silentLog,
      timeout: 10_000,
      maxBackoff: 2_000,
    });
    supervisor.start();
    const seen = (claim: () => boolean) =>
      eventually(async () => {
        await clock.advance(50);
        return claim();
      });
    await seen(() => sink.losses(null).length > 0);
    assert.equal(supervisor.summary().state, 'connecting');
    await mkdir(join(path, '..'));
    await writeFile(path, 'services: {demo/hello: {instances: [{host: 10.0.0.1, port: 5}]}}');
    await seen(() => sink.addresses(key).length === 1);
    await supervisor.close();
    await adapter.close();
  });
});
