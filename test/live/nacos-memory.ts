// What a watched service costs in memory, measured in a process of its own. Called by tests on the fake and on real servers.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { isRecord } from '../../src/kernel/decode.ts';
import { assertFigure } from '../support/figure.ts';

/** Heap (with what lies beside it) of one watched service, KiB; three instances, two keys of metadata each. */
export const HEAP_PER_SERVICE_KIB = 16;

/** `figure-0` to `figure-<count>` must be there. Prints heap and RSS, and holds the heap to its figure. */
export async function measureMemory(t: TestContext, what: string, config: object, count = 1_000): Promise<void> {
  const child = fileURLToPath(new URL('./nacos-memory-child.ts', import.meta.url));
  const args = ['--expose-gc', child, JSON.stringify(config), String(count)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 180_000 });
  const told: unknown = JSON.parse(stdout);
  assert.ok(isRecord(told) && isRecord(told['base']));
  const kib = (value: unknown): number => Number(value) / 1_024;
  t.diagnostic(
    `${what}: one watch: heap ${kib(told['base']['heap']).toFixed(0)} KiB, RSS ${kib(told['base']['rss']).toFixed(0)} KiB`,
  );
  t.diagnostic(`${what}: ${count} more: RSS ${(kib(told['rss']) / count).toFixed(2)} KiB each`);
  assertFigure(t, `${what}: heap of one watched service`, kib(told['heap']) / count, HEAP_PER_SERVICE_KIB, 'KiB');
}
