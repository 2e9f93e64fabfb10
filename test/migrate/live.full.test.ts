// Twenty histories of migrations on real servers (etcd, Consul, Polaris, CL5 as from), each with its own seed, and a fleet of ten. WEIR_HISTORY: one seed.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type FaultBench, onBench } from '../faults/harness/bench.ts';
import { assertFigure } from '../support/figure.ts';
import { consulSite, etcdSite, type LiveOptions, liveHistory, polarisSite, type Site } from './live.ts';
import { fleetHistory } from './live-fleet.ts';

const HISTORIES = 20;
/** WEIR_HISTORIES_FROM: other seeds than these. */
const FIRST = Number(process.env['WEIR_HISTORIES_FROM'] ?? 100);
const ONE = process.env['WEIR_HISTORY'];
const CL5 = 'services: [{match: default/hello, names: {cl5: "1001:77"}}]\n';

type Pair = (bench: FaultBench) => Promise<readonly [Site, Site]>;

const PAIRS: readonly { readonly name: string; readonly pair: Pair; readonly cl5?: true }[] = [
  { name: 'Consul → Polaris', pair: (bench) => Promise.all([consulSite(bench, 'consul'), polarisSite(bench, 'polaris')]) },
  { name: 'etcd → Polaris', pair: (bench) => Promise.all([etcdSite(bench, 'etcd'), polarisSite(bench, 'polaris')]) },
  {
    name: 'CL5 → Polaris',
    cl5: true,
    pair: (bench) => Promise.all([polarisSite(bench, 'cl5', '1001:77'), polarisSite(bench, 'polaris')]),
  },
  { name: 'Polaris → etcd', pair: (bench) => Promise.all([polarisSite(bench, 'polaris'), etcdSite(bench, 'etcd')]) },
  { name: 'etcd → Consul', pair: (bench) => Promise.all([etcdSite(bench, 'etcd'), consulSite(bench, 'consul')]) },
];
const ENDS: readonly LiveOptions['end'][] = ['abort', 'keep', 'move'];

describe('histories of migrations on real servers', { concurrency: false }, () => {
  for (let n = 0; n < HISTORIES; n++) {
    const { name, pair, cl5 } = PAIRS[n % PAIRS.length] ?? assert.fail();
    const seed = FIRST + n;
    if (ONE !== undefined && Number(ONE) !== seed) continue;
    // CL5 providers cannot register by themselves elsewhere.
    const end = cl5 === true ? (n % 2 === 0 ? 'keep' : 'abort') : (ENDS[n % ENDS.length] ?? 'abort');
    const twoWay = cl5 !== true && n % 4 === 3;
    it(`${name}, ${twoWay ? 'both ways' : 'one way'}, ${end}, seed ${seed}`, { timeout: 300_000 }, (t) =>
      onBench(async (bench) => {
        const [from, to] = await pair(bench);
        const figures = await liveHistory(bench, from, to, { seed, end, twoWay, ...(cl5 === true && { config: CL5 }) });
        t.diagnostic(JSON.stringify(figures));
        assert.equal(figures.failed, 0);
        assertFigure(t, 'rollback in force', Math.max(...figures.rollbackMs), 2_000, 'ms');
      }, 290_000),
    );
  }

  it('a fleet of ten', { timeout: 240_000 }, (t) =>
    onBench(async (bench) => {
      const figures = await fleetHistory(bench, 10);
      t.diagnostic(JSON.stringify(figures));
      assertFigure(t, 'another sidecar mirrors', figures.takeOverMs, 10_000, 'ms');
    }, 230_000),
  );
});
