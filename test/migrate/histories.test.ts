// Random histories of migrations in one process, on a fake clock, judged by checker.ts. WEIR_HISTORIES: how many; WEIR_HISTORY: one
// seed alone (the one that a failure printed). Seeds that once failed stand in REGRESSIONS with what they found.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runHistory } from './script.ts';

const HISTORIES = Number(process.env['WEIR_HISTORIES'] ?? 300);
const ONE = process.env['WEIR_HISTORY'];

/** What the engine once did wrong in that history. Seeds are kept though the script has changed since: they cost 0.1 s each. */
const REGRESSIONS: readonly { readonly seed: number; readonly found: string }[] = [
  { seed: 2, found: 'a native beside our copy was taken for the copy, by the ledger, and left the view with its origin' },
  { seed: 5, found: 'a side that cannot say health was held to it by verify' },
  { seed: 7, found: 'the copy of another migration was an extra of ours, so that verify never said ok' },
  { seed: 12, found: 'a wall clock that jumped back made the soak last for hours' },
  { seed: 73, found: 'a verify of an outage long over forbade the cutover' },
  { seed: 260, found: 'a copy of an earlier epoch waited for the sweep' },
  { seed: 291, found: 'a native that the target had lost, and the catalog held, kept its copy away' },
  { seed: 357, found: 'of many lost copies one a minute was put again' },
];

describe('random histories of migrations', { concurrency: false }, () => {
  if (ONE !== undefined) {
    it(`keep every promise: history ${ONE}`, async () => void (await runHistory(Number(ONE))));
    return;
  }
  for (const { seed, found } of REGRESSIONS) it(`${seed}: no more: ${found}`, async () => void (await runHistory(seed)));

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
