// The random explorer (reliability.md §3): scenarios from seeds, as many as fit. WEIR_EXPLORE_MINUTES: how long (5).
// WEIR_SCENARIO: this one seed alone, as a failure prints it. What it finds is pinned as a test of its own.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { SEED } from './harness/bench.ts';
import { runScenario, scenarioOf } from './harness/explorer.ts';

const MINUTES = Number(process.env['WEIR_EXPLORE_MINUTES'] ?? 5);
const ONLY = process.env['WEIR_SCENARIO'];

it('a seed makes the same scenario each time', () => {
  for (let seed = 0; seed < 200; seed++) assert.deepEqual(scenarioOf(seed), scenarioOf(seed));
});

it(`random scenarios for ${MINUTES} min: every promise holds in each`, { timeout: (MINUTES + 5) * 60_000 }, async (t) => {
  const failed: string[] = [];
  let done = 0;
  const end = performance.now() + MINUTES * 60_000;
  for (let seed = ONLY === undefined ? SEED : Number(ONLY); performance.now() < end; seed++) {
    const scenario = scenarioOf(seed);
    try {
      t.diagnostic(`${seed}: ${await runScenario(scenario)}`);
    } catch (thrown) {
      failed.push(String(thrown instanceof Error ? thrown.message : thrown));
      t.diagnostic(`${seed}: FAILED ${failed.at(-1)}`);
    }
    done++;
    if (ONLY !== undefined) break;
  }
  t.diagnostic(`${done} scenarios, ${failed.length} failed`);
  assert.deepEqual(failed, []);
});
