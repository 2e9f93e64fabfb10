// startApp from its start to its end: what a failed start leaves behind, what a second stop does, what a reload keeps.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { type RunningApp, startApp } from '../../src/app.ts';
import { WeirError } from '../../src/kernel/errors.ts';
import { type FaultBench, HEAD, onBench, SERVICE, sleep } from '../faults/harness/bench.ts';
import { Client } from '../faults/harness/client.ts';
import { eventually } from '../support/eventually.ts';

async function start(bench: FaultBench, configPath: string): Promise<RunningApp> {
  const app = await startApp({ configPath, logTo: bench.path('log') });
  bench.defer(() => app.close());
  return app;
}

const portOf = (address: string): number => Number(address.split(':').at(-1));

function source(bench: FaultBench): string {
  return `sources:\n  - {id: fixed, kind: file, path: ${bench.services(bench.upstreams)}}\n`;
}

describe('a sidecar in this process', { concurrency: false }, () => {
  it('a start that fails because a port is in use says so and leaves neither lock nor listener behind', () =>
    onBench(async (bench) => {
      await bench.upstream();
      const taken = createServer();
      await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
      bench.defer(() => taken.close());
      const address = taken.address();
      assert.ok(address !== null && typeof address === 'object');
      const head = (api: number, proxy: number): string =>
        `api: {listen: "127.0.0.1:${api}"}\nproxy: {listen: "127.0.0.1:${proxy}"}\nstate: {dir: ${bench.path('state')}}\n`;
      for (const [api, proxy] of [
        [address.port, 0],
        [0, address.port],
      ] as const) {
        const config = bench.write('weir.yaml', head(api, proxy) + source(bench));
        await assert.rejects(
          startApp({ configPath: config, logTo: bench.path('log') }),
          (thrown: unknown) => thrown instanceof WeirError && thrown.code === 'LISTEN_FAILED',
        );
        assert.equal(existsSync(bench.path('state/lock')), false);
      }
      await start(bench, bench.config(source(bench)));
    }));

  it('two of them never share a state directory, and the first goes on', () =>
    onBench(async (bench) => {
      await bench.upstream();
      const weir = await bench.weir(bench.config(source(bench)));
      const other = bench.write('other.yaml', `${HEAD}state: {dir: ${bench.path('state')}}\n${source(bench)}`);
      await assert.rejects(startApp({ configPath: other, logTo: bench.path('log') }), /STATE_LOCKED|in use by process/);
      await bench.ready(weir, 1);
      assert.equal(existsSync(bench.path('state/lock')), true);
    }));

  it('the second drain ends what hangs at once; closing again is harmless', () =>
    onBench(async (bench) => {
      const upstream = await bench.upstream();
      await upstream.set({ kind: 'hang' });
      const app = await start(bench, bench.config(source(bench)));
      const client = new Client(portOf(app.proxyAddress), SERVICE);
      bench.defer(() => client.close());
      const asked = client.ask({ id: 'h', method: 'GET', path: '/', body: '' });
      await sleep(300);
      const began = performance.now();
      const drained = app.drain();
      await sleep(200);
      await app.drain();
      await drained;
      assert.ok(performance.now() - began < 15_000, 'no grace of 30 s after the second signal');
      assert.notEqual((await asked).verdict, 'ok');
      await app.close();
      await app.close();
    }));

  it('a refused reload changes nothing, the next good one counts, and connections stay open over both', () =>
    onBench(async (bench) => {
      await bench.upstream();
      const app = await start(bench, bench.config(source(bench)));
      const client = new Client(portOf(app.proxyAddress), SERVICE);
      bench.defer(() => client.close());
      const ask = async (id: string): Promise<void> =>
        assert.equal((await client.ask({ id, method: 'GET', path: '/', body: '' })).verdict, 'ok');
      await eventually(() => ask('a'));
      bench.config(`${source(bench)}nonsense: 1\n`);
      assert.equal((await app.reload()).kind, 'refused');
      await ask('b');
      bench.config(`${source(bench)}services: [{match: "*", timeout: 3s}]\n`);
      assert.equal((await app.reload()).kind, 'reloaded');
      await ask('c');
      assert.equal(client.connections, 1, 'one connection served all three');
    }));
});
