// A process of its own with one source of kind nacos, which tells what watching costs it: run with --expose-gc by nacos-memory.ts.
// Arguments: the configuration of the source (JSON), how many services `figure-<n>` to watch. One line of JSON comes out.
import assert from 'node:assert/strict';
import { eventually } from '../support/eventually.ts';
import { makeAdapter } from './nacos-support.ts';

const [, , config = '{}', text = '0'] = process.argv;
const collect = globalThis.gc ?? assert.fail('run with --expose-gc');
const { adapter } = makeAdapter(JSON.parse(config));
const stop = new AbortController();
let seen = 0;

async function watch(name: string): Promise<void> {
  let first = true;
  for await (const item of adapter.watch({ namespace: 'default', name }, stop.signal)) {
    if (first && item.kind === 'present' && item.instances.length > 0) seen++;
    first = false;
  }
}

/** After collections in a row, so that what is only garbage is gone. */
async function used(): Promise<{ heap: number; rss: number }> {
  for (let round = 0; round < 5; round++) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    collect();
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: heapUsed + external, rss };
}

// The connection and the packages are paid once.
const watches = [watch('figure-0')];
await eventually(() => seen === 1, 30_000);
const before = await used();
for (let n = 1; n <= Number(text); n++) watches.push(watch(`figure-${n}`));
await eventually(() => seen === Number(text) + 1, 120_000);
const after = await used();
stop.abort();
await Promise.all(watches);
await adapter.close();
process.stdout.write(`${JSON.stringify({ base: before, heap: after.heap - before.heap, rss: after.rss - before.rss })}\n`);
