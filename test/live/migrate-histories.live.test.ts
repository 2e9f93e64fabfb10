// Three histories of migrations with real weir processes on real servers under traffic, with kill -9 of the sidecar and of the target
// and rollbacks in the middle; judged by test/migrate/checker.ts, which reads the servers by their own protocols. More of them in
// test/migrate/live.full.test.ts.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type FaultBench, onBench } from '../faults/harness/bench.ts';
import { consulSite, etcdSite, type LiveFigures, liveHistory, polarisSite } from '../migrate/live.ts';
import { fleetHistory } from '../migrate/live-fleet.ts';
import { consulBinary } from '../registries/consul.ts';
import { etcdBinary } from '../registries/etcd.ts';
import { polarisBinary } from '../registries/polaris.ts';
import { assertFigure } from '../support/figure.ts';

function itReal(name: string, body: (bench: FaultBench, t: TestContext) => Promise<LiveFigures>): void {
  it(name, { timeout: 240_000 }, async (t) => {
    const binaries = await Promise.all([consulBinary(true), polarisBinary(true), etcdBinary('3.6', true)]);
    const missing = binaries.find(({ path }) => path === null);
    if (missing !== undefined) {
      if (process.env['CI'] !== undefined) assert.fail(`a server is missing in CI: ${missing.how}`);
      t.skip(missing.how);
      return;
    }
    await onBench(async (bench) => {
      const figures = await body(bench, t);
      t.diagnostic(JSON.stringify(figures));
      assert.equal(figures.failed, 0);
      assertFigure(t, 'rollback in force', Math.max(...figures.rollbackMs), 2_000, 'ms');
    }, 230_000);
  });
}

describe('migrations on real servers, under traffic', { concurrency: false }, () => {
  itReal('Consul → Polaris: nobody is lost over kill -9 of weir and Polaris, and the abort leaves nothing', async (bench) => {
    const [from, to] = await Promise.all([consulSite(bench, 'consul'), polarisSite(bench, 'polaris')]);
    return liveHistory(bench, from, to, { seed: 11, end: 'abort' });
  });

  itReal('etcd → Polaris, both ways: copies on both sides, and none is left once every provider has moved', async (bench) => {
    const [from, to] = await Promise.all([etcdSite(bench, 'etcd'), polarisSite(bench, 'polaris')]);
    return liveHistory(bench, from, to, { seed: 12, end: 'move', twoWay: true });
  });

  itReal('CL5 → Polaris: the copies stay, and old callers find the SID as an alias', async (bench) => {
    const [from, to] = await Promise.all([polarisSite(bench, 'cl5', '1001:77'), polarisSite(bench, 'polaris')]);
    const config = 'services: [{match: default/hello, names: {cl5: "1001:77"}}]\n';
    const figures = await liveHistory(bench, from, to, { seed: 13, end: 'keep', config });
    assert.deepEqual(await to.aliases(), ['1001:77']);
    return figures;
  });

  it('a fleet of five: one writes, kill -9 moves the work within 10 s and loses no copy, steps wait for reports', {
    timeout: 120_000,
  }, async (t) => {
    const { path, how } = await etcdBinary('3.6', true);
    if (path === null) {
      if (process.env['CI'] !== undefined) assert.fail(`etcd is missing in CI: ${how}`);
      t.skip(how);
      return;
    }
    await onBench(async (bench) => {
      const figures = await fleetHistory(bench, 5);
      t.diagnostic(JSON.stringify(figures));
      assertFigure(t, 'another sidecar mirrors', figures.takeOverMs, 10_000, 'ms');
    }, 110_000);
  });
});
