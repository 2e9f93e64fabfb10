// Random histories of migrations in one process, on a fake clock, judged by checker.ts. WEIR_HISTORIES: how many; WEIR_HISTORY: one
// seed alone (the one that a failure printed). What they found stands in regressions.test.ts; histories.full.test.ts runs a thousand.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runHistory } from './script.ts';

const HISTORIES = Number(process.env['WEIR_HISTORIES'] ?? 100);
const ONE = process.env['WEIR_HISTORY'];

describe('random histories of migrations', { concurrency: false }, () => {
  if (ONE !== undefined) {
    it(`keep every promise: history ${ONE}`, async () => void (await runHistory(Number(ONE))));
    return;
  }
  it(`keep every promise: ${HISTORIES} seeds`, { timeout: 7_200_000 }, async (t) => {
    const failures: string[] = [];
    const began = performance.now();
    for (let seed = 1; seed <= HISTORIES; seed++) {
      await runHistory(seed).catch((thrown: unknown) => {
        failures.push(thrown instanceof Error ? thrown.message : String(thrown));
      });
    }
    t.diagnostic(`${HISTORIES} histories in ${Math.round((performance.now() - began) / 1_000)} s`);
    const [first = ''] = failures;
    assert.equal(
      failures.length,
      0,
      `${failures.length} of ${HISTORIES} failed; repeat one by WEIR_HISTORY=<seed>. The first:\n${first}`,
    );
  });
});
