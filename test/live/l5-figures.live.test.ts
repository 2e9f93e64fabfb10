// The figures of the L5 adapter on a real server: how soon a change is seen, and what 1,000 watched SIDs cost while nothing happens.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { sampleInstance } from '../conformance/adapter.ts';
import { startPolaris } from '../registries/polaris.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { Bench, Console, key, makeAdapter, never } from './l5-support.ts';
import { idleCost, quietNames } from './polaris-idle-child.ts';
import { Raw } from './polaris-support.ts';
import { itPolaris } from './source-bench.ts';

const POLL_MS = 1_000;

describe('L5 adapter, figures on a real Polaris', () => {
  itPolaris(
    'a change that the server serves is seen within one poll interval and 100 ms (median of 7)',
    120_000,
    async (defer, t) => {
      const server = await startPolaris();
      defer(() => server.stop());
      const native = new Console(server);
      await native.put('1001:1', [{ host: '10.0.0.1', port: 80 }]);
      const b = new Bench(makeAdapter([server.l5], { sids: ['1001:1'] }));
      defer(() => b.close());
      // Asked without a pause: it tells from when on the server has the change (its caches turn once a second).
      const { adapter: eager } = makeAdapter([server.l5], { sids: [] });
      defer(() => eager.close());
      await eventually(() => assert.equal(b.view('1001:1').length, 1), 20_000);
      const delays: number[] = [];
      for (let n = 2; n <= 8; n++) {
        const address = `10.0.0.${n}:80`;
        await native.put('1001:1', [{ host: `10.0.0.${n}`, port: 80 }]);
        for (;;) {
          const snapshot = await eager.read(key('1001:1'), never());
          if (snapshot.kind === 'present' && snapshot.instances.some(({ host }) => host === `10.0.0.${n}`)) break;
        }
        const served = performance.now();
        await eventually(() => assert.ok(b.view('1001:1').includes(address)), 20_000, 2);
        delays.push(performance.now() - served);
      }
      const median = delays.toSorted((x, y) => x - y)[3] ?? 0;
      t.diagnostic(`change served -> view: all ${delays.map((ms) => ms.toFixed(0)).join(' ')} ms`);
      assertFigure(t, 'change served -> view, median', median, POLL_MS + 100, 'ms');
    },
  );

  itPolaris('1,000 watched SIDs cost under 8 % of a core while nothing changes, and 30 kB each', 300_000, async (defer, t) => {
    const server = await startPolaris();
    defer(() => server.stop());
    // Over gRPC: the console makes one service at a time, which would take a minute.
    const raw = new Raw(server.grpc);
    defer(() => raw.close());
    const keys = quietNames('l5', 1_000).map(key);
    for (let n = 0; n < keys.length; n += 100) {
      await Promise.all(
        keys.slice(n, n + 100).map((one) => raw.put(one, [sampleInstance(1), sampleInstance(2), sampleInstance(3)])),
      );
    }
    const none = await idleCost('l5', server.l5, 0);
    const all = await idleCost('l5', server.l5, 1_000);
    t.diagnostic(
      `without a SID: ${none.cpu.toFixed(2)} % of a core, RSS ${Math.round(none.rss / 1e6)} MB; with them ${Math.round(all.rss / 1e6)} MB`,
    );
    assertFigure(t, '1,000 idle SIDs with 3 instances polled every second', all.cpu, 8, '% of a core');
    assertFigure(t, 'memory of one watched SID with 3 instances', (all.heap - none.heap) / 1e6, 30, 'kB');
    assert.equal(all.removed, 0);
  });
});
