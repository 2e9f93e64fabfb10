// Histories of migrations with a real Nacos, which is killed and forgets everybody: WEIR_TEST_NACOS_HOME=<folder of a distribution>. Not in
// CI, which has none; the fake's part is in test/migrate/socket-histories.test.ts.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { onBench } from '../faults/harness/bench.ts';
import { consulSite, etcdSite, type LiveOptions, liveHistory } from '../migrate/live.ts';
import { nacosSite } from '../migrate/nacos-site.ts';
import { nacosHome } from '../registries/nacos.ts';
import { assertFigure } from '../support/figure.ts';

const { path, how } = await nacosHome();
const FIRST = Number(process.env['WEIR_HISTORIES_FROM'] ?? 300);

describe('migrations and a real Nacos, under traffic', { skip: path === null ? how : false, concurrency: false }, () => {
  const histories = [
    ['etcd → Nacos', etcdSite, nacosSite, { end: 'abort' }],
    ['Consul → Nacos', consulSite, nacosSite, { end: 'move' }],
    ['Nacos → etcd', nacosSite, etcdSite, { end: 'keep' }],
    ['etcd → Nacos', etcdSite, nacosSite, { end: 'move' }],
  ] as const;
  for (const [n, [name, from, to, options]] of histories.entries()) {
    const seed = FIRST + n;
    it(`${name}, ${options.end}, seed ${seed}`, { timeout: 300_000 }, (t) =>
      onBench(async (bench) => {
        const sites = await Promise.all([from(bench, 'old'), to(bench, 'new')]);
        const how: LiveOptions = { seed, ...options };
        const figures = await liveHistory(bench, ...sites, how);
        t.diagnostic(JSON.stringify(figures));
        assert.equal(figures.failed, 0);
        assertFigure(t, 'rollback in force', Math.max(...figures.rollbackMs), 2_000, 'ms');
      }, 290_000),
    );
  }
});
