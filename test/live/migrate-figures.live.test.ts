// The figures of a migration on real servers, on a smaller set (`npm run bench -- migrate` has the whole one): the first mirror within the
// target's pace, a change until the target took it, an idle mirror, a start after kill -9 that writes nothing twice, a rollback.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { benchMigrate } from '../bench/migrate.ts';
import type { OriginKind, TargetKind } from '../bench/migrate-registries.ts';
import { availableRegistries } from '../registries/available.ts';
import { assertFigure } from '../support/figure.ts';

const SERVICES = 100;
const INSTANCES = 10;
/** Of the figure for 1,000 services in 60 s. */
const FIRST_MIRROR_S = 6;

function itMoves(from: OriginKind, to: TargetKind): void {
  it(`${SERVICES} services × ${INSTANCES} from ${from} to ${to} keep the figures of a migration`, {
    timeout: 120_000,
  }, async (t) => {
    const found = await availableRegistries();
    const missing = [from, to].filter((name) => !found.some((one) => one.name === name && one.available));
    if (missing.length > 0) {
      if (process.env['CI'] !== undefined) assert.fail(`missing in CI: ${missing.join(', ')}`);
      t.skip(`no ${missing.join(', ')}`);
      return;
    }
    // An origin on Consul may show a changed weight by its minute sweep only.
    const onlyAdditions = from === 'consul';
    const size = { services: SERVICES, instances: INSTANCES, changes: 20, idleS: 0.5, restMs: 600, steps: true };
    const figures = await benchMigrate({ from, to, ...size, onlyAdditions });
    t.diagnostic(JSON.stringify(figures));
    assert.equal(figures.counted, SERVICES * INSTANCES, 'copies in the target right after the first mirror');
    assert.equal(figures.writesAfterResume, 0, 'writes after a kill -9');
    assertFigure(t, 'first mirror', figures.mirrorS, FIRST_MIRROR_S, 's');
    assertFigure(t, 'an addition in the origin until the target took it, p99', figures.additionP99Ms, 1_000, 'ms');
    if (!onlyAdditions)
      assertFigure(t, 'a changed weight in the origin until the target took it, p99', figures.fieldP99Ms, 1_000, 'ms');
    assertFigure(t, 'start after kill -9 until the ledger is read and the mirror runs', figures.resumeMs, 5_000, 'ms');
    assertFigure(t, 'rollback until every request is drawn by the old side', figures.rollbackLastMs, 2_000, 'ms');
  });
}

describe('migrations, figures on real servers', () => {
  itMoves('consul', 'etcd');
  itMoves('etcd', 'polaris');
});
