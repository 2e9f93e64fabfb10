// A real Consul that begins anew (wiped, restored) is known as such in the very list that lacks something, even where every index stands
// above those that were known; a restart with its data is not. What the catalog does with a new epoch is its own matter.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { request } from 'undici';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type ConsulServer, consulBinary, type StartConsulOptions, startConsul } from '../registries/consul.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { itLive, key, type Made, makeAdapter, PLAIN, Raw, withCleanup } from './consul-support.ts';

interface Bench {
  readonly server: ConsulServer;
  readonly proxy: FaultProxy;
  readonly raw: Raw;
  readonly made: Made;
  /** What watches of this service have shown. */
  readonly shown: readonly Snapshot[];
}

async function bench(defer: (end: () => unknown) => void, options: StartConsulOptions, config: object): Promise<Bench> {
  const server = await startConsul(options);
  defer(() => server.stop());
  const proxy = await startFaultProxy(server.endpoint);
  defer(() => proxy.close());
  const raw = new Raw(server.address);
  for (const n of [1, 2, 3, 4]) await raw.register('web', sampleInstance(n));
  await raw.register('zzz', sampleInstance(9));
  const made = makeAdapter(`http://${proxy.endpoint}`, PLAIN, config);
  defer(() => made.adapter.close());
  const stop = new AbortController();
  defer(() => stop.abort(new Error('enough')));
  const shown: Snapshot[] = [];
  const follow = async (name: string, into: Snapshot[]): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        for await (const item of made.adapter.watch(key(name), stop.signal)) if (item.kind !== 'unchanged') into.push(item);
      } catch {
        // Lost: opened again, as the supervisor does.
      }
      await made.deps.clock.sleep(200, stop.signal).catch(() => {});
    }
  };
  const names = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        for await (const _ of made.adapter.services?.(stop.signal) ?? []);
      } catch {
        // As above.
      }
      await made.deps.clock.sleep(200, stop.signal).catch(() => {});
    }
  };
  void names();
  // With one query of its own for a single service the other one comes by the firehose.
  void follow('zzz', []);
  void follow('web', shown);
  await eventually(() => sizeOf(shown.at(-1)) === 4, 20_000, 20);
  return { server, proxy, raw, made, shown };
}

function sizeOf(snapshot: Snapshot | undefined): number {
  return snapshot === undefined ? -1 : snapshot.kind === 'absent' ? 0 : snapshot.instances.length;
}

async function indexOf(server: ConsulServer, path: string): Promise<number> {
  const answer = await request(`${server.address}/v1${path}`, { reset: true });
  await answer.body.dump();
  return Number(answer.headers['x-consul-index']);
}

/** The first list with fewer than four, and the epoch before it. */
async function firstShort(b: Bench, from: number): Promise<Snapshot> {
  const short = (): Snapshot | undefined => b.shown.slice(from).find((one) => sizeOf(one) < 4);
  await eventually(() => short() !== undefined, 45_000, 20);
  return short() ?? assert.fail('none');
}

const { path, how } = await consulBinary(true);
const absent = path === null && process.env['CI'] === undefined ? `no Consul: ${how}` : false;

describe('a real Consul that begins anew', { skip: absent, concurrency: 4 }, () => {
  for (const maxWatches of [98, 1]) {
    const way = maxWatches === 1 ? 'by the firehose' : 'by queries of their own';
    itLive(
      `${way}: wiped and refilled with three of four above every old index, the list of three has another epoch`,
      90_000,
      () =>
        withCleanup(async (defer) => {
          const b = await bench(defer, {}, { maxWatches });
          const before = await indexOf(b.server, '/health/service/web');
          const from = b.shown.length;
          const { epoch } = b.shown.at(-1) ?? assert.fail('nothing shown');
          // Nobody looks while it is refilled.
          b.proxy.retarget('127.0.0.1:1');
          b.proxy.cut();
          await b.server.wipe();
          for (let n = 0; (await indexOf(b.server, '/catalog/services')) <= before + 5; n++) {
            await b.raw.register('noise', sampleInstance(1, { port: 2_000 + n }));
          }
          for (const n of [1, 2, 3]) await b.raw.register('web', sampleInstance(n));
          assert.ok((await indexOf(b.server, '/health/service/web')) > before, 'no index tells it');
          b.proxy.retarget(b.server.endpoint);
          const short = await firstShort(b, from);
          assert.equal(sizeOf(short), 3);
          assert.notEqual(short.epoch, epoch);
          assert.equal(b.made.counts.get('epochs'), 1);
        }),
    );

    itLive(
      `${way}: restored from a snapshot while it runs, it is known within one wait, and the shorter list has another epoch`,
      90_000,
      () =>
        withCleanup(async (defer) => {
          const b = await bench(defer, { data: true }, { maxWatches });
          await b.raw.deregister('native/web-192.0.2.4:8004');
          await eventually(() => sizeOf(b.shown.at(-1)) === 3, 30_000, 20);
          const saved = await request(`${b.server.address}/v1/snapshot`, { reset: true });
          const archive = Buffer.from(await saved.body.arrayBuffer());
          await b.raw.register('web', sampleInstance(4));
          await eventually(() => sizeOf(b.shown.at(-1)) === 4, 30_000, 20);
          const from = b.shown.length;
          const { epoch } = b.shown.at(-1) ?? assert.fail('nothing shown');
          const put = await request(`${b.server.address}/v1/snapshot`, { method: 'PUT', body: archive, reset: true });
          assert.equal(put.statusCode, 200, await put.body.text());
          const short = await firstShort(b, from);
          assert.notEqual(short.epoch, epoch);
          assert.equal(b.made.counts.get('epochs'), 1);
        }),
    );

    itLive(`${way}: killed and restarted with its data, and an ordinary removal: the same epoch`, 60_000, () =>
      withCleanup(async (defer) => {
        const b = await bench(defer, { data: true }, { maxWatches });
        await b.server.kill('SIGKILL');
        await b.server.restart();
        await b.raw.deregister('native/web-192.0.2.4:8004');
        await eventually(() => sizeOf(b.shown.at(-1)) === 3, 30_000, 20);
        assert.equal(new Set(b.shown.map(({ epoch }) => epoch)).size, 1);
        assert.equal(b.made.counts.get('epochs') ?? 0, 0);
      }),
    );
  }

  itLive('without Connect it is told by its servers alone', 60_000, () =>
    withCleanup(async (defer) => {
      const b = await bench(defer, { data: true, hcl: 'connect { enabled = false }' }, {});
      const from = b.shown.length;
      const { epoch } = b.shown.at(-1) ?? assert.fail('nothing shown');
      b.proxy.retarget('127.0.0.1:1');
      b.proxy.cut();
      await b.server.wipe();
      for (let n = 0; n < 40; n++) await b.raw.register('noise', sampleInstance(1, { port: 2_000 + n }));
      for (const n of [1, 2, 3]) await b.raw.register('web', sampleInstance(n));
      b.proxy.retarget(b.server.endpoint);
      const short = await firstShort(b, from);
      assert.equal(sizeOf(short), 3);
      assert.notEqual(short.epoch, epoch);
    }),
  );
});
