// Histories of migrations with real weir processes over the sockets of the registries' fakes, whose links are slow, cut and dead at
// times: one for each kind as a target and as an origin. The same script and the same checker as on the real servers.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type FaultBench, onBench } from '../faults/harness/bench.ts';
import { assertFigure } from '../support/figure.ts';
import { type LiveOptions, liveHistory, type Site } from './live.ts';
import { fakeConsulSite, fakeEtcdSite, fakeNacosSite, upstreams } from './socket-sites.ts';

type Make = (bench: FaultBench, id: string, seed: number) => Promise<Site>;

const HISTORIES: readonly (readonly [string, Make, Make, Pick<LiveOptions, 'end' | 'twoWay'>])[] = [
  ['etcd → Consul', fakeEtcdSite, fakeConsulSite, { end: 'abort' }],
  ['Consul → etcd', fakeConsulSite, fakeEtcdSite, { end: 'move' }],
  ['etcd → Nacos', fakeEtcdSite, fakeNacosSite, { end: 'abort' }],
  ['Nacos → Consul', fakeNacosSite, fakeConsulSite, { end: 'keep' }],
  ['Consul → Nacos, both ways', fakeConsulSite, fakeNacosSite, { end: 'move', twoWay: true }],
];
const FIRST = Number(process.env['WEIR_HISTORIES_FROM'] ?? 200);
const ONE = process.env['WEIR_HISTORY'];

describe('histories of migrations over sockets', { concurrency: 5 }, () => {
  for (const [n, [name, from, to, options]] of HISTORIES.entries()) {
    const seed = FIRST + n;
    if (ONE !== undefined && Number(ONE) !== seed) continue;
    it(`${name}, ${options.end}, seed ${seed}`, { timeout: 200_000 }, (t) =>
      onBench(async (bench) => {
        const sites = await Promise.all([from(bench, 'old', seed), to(bench, 'new', seed + 1)]);
        const figures = await liveHistory(bench, ...sites, {
          ...{ seed, ...options, pace: 0.4 },
          upstreams: await upstreams(bench, 5),
        });
        t.diagnostic(JSON.stringify(figures));
        assert.equal(figures.failed, 0);
        assertFigure(t, 'rollback in force', Math.max(...figures.rollbackMs), 2_000, 'ms');
      }, 190_000),
    );
  }
});
