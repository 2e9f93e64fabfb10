// A thousand random histories of migrations, beside the ones of histories.test.ts. Called by npm run test:full.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runHistory } from './script.ts';

const FIRST = 1_001;
const COUNT = 1_000;

describe('a thousand random histories of migrations', { concurrency: false }, () => {
  for (let from = FIRST; from < FIRST + COUNT; from += 100) {
    it(`keep every promise: seeds ${from} to ${from + 99}`, { timeout: 1_800_000 }, async () => {
      const failures: string[] = [];
      for (let seed = from; seed < from + 100; seed++) {
        await runHistory(seed).catch((thrown: unknown) => {
          failures.push(thrown instanceof Error ? thrown.message : String(thrown));
        });
      }
      assert.equal(
        failures.length,
        0,
        `${failures.length} failed; repeat one by WEIR_HISTORY=<seed>. The first:\n${failures[0] ?? ''}`,
      );
    });
  }
});
