// Registrations of a real `weir run` process against a fake etcd in this process: what survives kill -9, SIGTERM and a reload, and
// what the command line says. The real registries are in test/live/registration.live.test.ts.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type FakeEtcd, startFakeEtcd } from '../../adapters/etcd/fake.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { FaultBench } from '../faults/harness/bench.ts';
import { etcdSource } from '../faults/harness/etcd-registry.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { eventually } from '../support/eventually.ts';
import { runWeir } from '../support/run-weir.ts';

interface Bed {
  readonly bench: FaultBench;
  readonly fakes: readonly FakeEtcd[];
  /** `id address weight` of each record of the service in the n-th etcd, with the revision of its last write when asked for. */
  records(n: number, service?: string, revisions?: boolean): readonly string[];
  configure(more?: string): string;
}

/** Two fake etcds that are named `a` and `b`. */
async function onTwoEtcds(body: (bed: Bed) => Promise<void>): Promise<void> {
  const bench = new FaultBench();
  try {
    const fakes = [await startFakeEtcd('3.6.16', systemClock), await startFakeEtcd('3.6.16', systemClock)];
    for (const fake of fakes) bench.defer(() => fake.close());
    const sources = fakes.map(({ endpoint }, n) => etcdSource(endpoint, n === 0 ? 'a' : 'b', ', register: true')).join('');
    await body({
      bench,
      fakes,
      configure: (more = '') => bench.config(`sources:\n${sources}${more}`),
      records(n, service = 'lobby', revisions = false) {
        const prefix = `/services/${service}/`;
        const range = { key: Buffer.from(prefix), rangeEnd: Buffer.from(`/services/${service}0`) };
        return (fakes[n]?.store.range(range).kvs ?? []).map((kv) => {
          const { Addr, Metadata } = JSON.parse(kv.value.toString());
          const id = kv.key.toString().slice(prefix.length);
          return `${id} ${Addr} ${Metadata.weight}${revisions ? ` ${kv.createRevision}.${kv.modRevision} ${kv.lease}` : ''}`;
        });
      },
    });
  } finally {
    await bench.close();
  }
}

const body = (port: number, more: object = {}): object => ({ host: '127.0.0.1', port, ...more });

async function put(weir: WeirProcess, id: string, given: object): Promise<number> {
  const answer = await weir.send('PUT', `/v1/registrations/default/lobby/${id}`, given);
  await answer.arrayBuffer();
  return answer.status;
}

async function reload(weir: WeirProcess): Promise<void> {
  const done = await weir.metric('weir_config_reloads_total', 'ok');
  weir.signal('SIGHUP');
  await eventually(async () => assert.ok((await weir.metric('weir_config_reloads_total', 'ok')) > done), 10_000);
}

describe('registrations of a process', () => {
  it('kill -9: the next process renews what stands, writes nothing anew, and removes it at SIGTERM', { timeout: 60_000 }, () =>
    onTwoEtcds(async ({ bench, records, configure }) => {
      const first = await bench.weir(configure());
      const { code, out, err } = await runWeir(['register', 'default/lobby', '127.0.0.1:8000', '--id', 'l1', '--api', first.api]);
      assert.equal(code, 0, err);
      assert.match(out, /^default\/lobby 127\.0\.0\.1:8000 is kept as l1\n/);
      assert.match(out, /a +live +l1/);
      assert.ok(!out.includes('not there yet'));
      const before = [records(0, 'lobby', true), records(1, 'lobby', true)];
      assert.deepEqual([records(0), records(1)], [['l1 127.0.0.1:8000 100'], ['l1 127.0.0.1:8000 100']]);
      // The log is buffered for half a second.
      await eventually(() => assert.equal(first.output().split('"what":"put"').length, 3));
      await first.kill();
      const second = await bench.weir(configure());
      await eventually(async () => {
        const { registrations } = await second.get<{ registrations: readonly { targets: Record<string, { state: string }> }[] }>(
          '/v1/registrations',
        );
        assert.deepEqual(
          registrations.map(({ targets }) => Object.entries(targets).map(([source, { state }]) => `${source} ${state}`)),
          [['a live', 'b live']],
        );
      }, 10_000);
      assert.deepEqual([records(0, 'lobby', true), records(1, 'lobby', true)], before);
      assert.equal(await second.terminate(), 0);
      assert.deepEqual([records(0), records(1)], [[], []]);
      const third = await bench.weir(configure());
      assert.deepEqual(await third.get('/v1/registrations'), { registrations: [] });
      const writes = `${first.output()}${second.output()}`
        .split('\n')
        .filter((line) => line.includes('"audit":true') && line.includes('"registry"'))
        .map((line) => JSON.parse(line))
        .map(({ what, registry, service, instance, result }) => `${what} ${registry} ${service} ${instance} ${result}`);
      assert.deepEqual(writes.sort(), [
        'put a default/lobby l1 127.0.0.1:8000 ok',
        'put b default/lobby l1 127.0.0.1:8000 ok',
        'remove a default/lobby l1 127.0.0.1:8000 ok',
        'remove b default/lobby l1 127.0.0.1:8000 ok',
      ]);
    }),
  );

  it('a registry that cannot be reached is named by the command, and gets the record when it can', { timeout: 60_000 }, () =>
    onTwoEtcds(async ({ bench, fakes, records, configure }) => {
      const weir = await bench.weir(configure());
      await fakes[1]?.close();
      const { code, out } = await runWeir(['register', 'default/lobby', '127.0.0.1:8000', '--api', weir.api]);
      assert.equal(code, 0);
      assert.match(out, /b +pending/);
      assert.match(out, /not there yet: b; the sidecar keeps trying\n$/);
      assert.deepEqual(records(0), ['127.0.0.1-8000 127.0.0.1:8000 100']);
      const gone = await runWeir(['deregister', 'default/lobby', '127.0.0.1:8000', '--api', weir.api]);
      assert.equal(gone.code, 0, gone.err);
      await eventually(() => assert.deepEqual(records(0), []));
      const again = await runWeir(['deregister', 'default/lobby', '127.0.0.1:8000', '--api', weir.api]);
      assert.equal(again.code, 1);
      assert.match(again.err, /REGISTRATION_NOT_FOUND/);
    }),
  );

  it(
    'weir.yaml declares, changes, renames and removes by reload; `shutdown` is taken by the reload, too',
    {
      timeout: 60_000,
    },
    () =>
      onTwoEtcds(async ({ bench, records, configure }) => {
        const declared = (entry: string, shutdown = 'deregister'): string =>
          configure(
            `registrations: [{service: default/lobby, host: 127.0.0.1, port: 8000, ${entry}}]\nshutdown: {registrations: ${shutdown}}\n`,
          );
        const weir = await bench.weir(declared('id: one'));
        await eventually(() => assert.deepEqual([records(0), records(1)], Array(2).fill(['one 127.0.0.1:8000 100'])));
        assert.equal(await put(weir, 'api', body(8001)), 200);
        assert.equal(await put(weir, 'one', body(8000)), 409, 'what the file declares is changed in the file');
        declared('id: one, weight: 7, sources: [a]');
        await reload(weir);
        await eventually(() => {
          assert.deepEqual(records(0).toSorted(), ['api 127.0.0.1:8001 100', 'one 127.0.0.1:8000 7']);
          assert.deepEqual(records(1), ['api 127.0.0.1:8001 100']);
        });
        declared('id: two, weight: 7, sources: [a]', 'keep');
        await reload(weir);
        await eventually(() => assert.deepEqual(records(0).toSorted(), ['api 127.0.0.1:8001 100', 'two 127.0.0.1:8000 7']));
        const kept = [records(0, 'lobby', true), records(1, 'lobby', true)];
        assert.equal(await weir.terminate(), 0);
        assert.deepEqual([records(0, 'lobby', true), records(1, 'lobby', true)], kept);
        // Gone from the file while nobody ran: the next process removes it, and keeps what the API registered.
        const next = await bench.weir(configure());
        await eventually(() => assert.deepEqual([records(0), records(1)], Array(2).fill(['api 127.0.0.1:8001 100'])));
        assert.equal(await next.terminate(), 0);
        assert.deepEqual([records(0), records(1)], [[], []]);
      }),
  );
});
