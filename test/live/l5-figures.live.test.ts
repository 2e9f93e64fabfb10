// The figures of the L5 adapter on a real server: how soon a change is seen, and what 1,000 watched SIDs cost while nothing happens.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { startPolaris } from '../registries/polaris.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { Bench, Console, itL5, key, makeAdapter, never } from './l5-support.ts';

const POLL_MS = 1_000;

describe('L5 adapter, figures on a real Polaris', () => {
  itL5('a change that the server serves is seen within one poll interval and 100 ms (median of 7)', 120_000, async (defer, t) => {
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
  });

  itL5('1,000 watched SIDs cost under 8 % of a core while nothing changes', 300_000, async (defer, t) => {
    const server = await startPolaris();
    defer(() => server.stop());
    const native = new Console(server);
    const sids = Array.from({ length: 1_000 }, (_, n) => `1001:${n + 1}`);
    for (const [n, sid] of sids.entries()) {
      await native.put(
        sid,
        [1, 2, 3].map((i) => ({ host: `10.${i}.${n >> 8}.${n & 255}`, port: 80 })),
      );
    }
    const b = new Bench(makeAdapter([server.l5], { sids }));
    defer(() => b.close());
    await eventually(() => assert.ok(sids.every((sid) => b.view(sid).length === 3)), 60_000, 200);
    const cpu = process.cpuUsage();
    const start = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 20_000));
    const { user, system } = process.cpuUsage(cpu);
    const share = (user + system) / 1_000 / (performance.now() - start);
    assertFigure(t, '1,000 idle SIDs with 3 instances polled every second', 100 * share, 8, '% of a core');
    assert.deepEqual(b.removed, []);
  });
});
