// The figures of five registries at once, on a smaller set (`npm run bench -- five` has the whole one): nothing is removed when all of them
// drop their connections at once, everything is live again, and the sidecar stays awake.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertFigure } from '../support/figure.ts';
import { benchFive, INSTANCES } from './five-registries.ts';

const SERVICES = 300;

it(`five registries with ${SERVICES} services each, merged: all drop their connections, nothing is removed, all come back`, async (t) => {
  const figures = await benchFive({ services: SERVICES, names: 'merged', settleMs: 2_000 });
  t.diagnostic(JSON.stringify(figures));
  assert.equal(figures.catalogServices, SERVICES);
  assert.equal(figures.catalogInstances, 5 * SERVICES * INSTANCES);
  assert.equal(figures.removed, 0);
  assert.equal(figures.holds, 0);
  assertFigure(t, 'resident memory of the sidecar', figures.rssMb, 300, 'MiB');
  // Processor time, since the loop of a process that gets no processor stands still, too; the delay by the clock is in the line above.
  assertFigure(t, "the event loop's longest turns while all reconnect, p99, processor time", figures.backWorkP99Ms, 50, 'ms');
});
