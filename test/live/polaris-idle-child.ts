// A process that does nothing but watch services that do not change, for the figures of Polaris and L5: adapter, supervisor and catalog,
// without the server and the test beside them. Run with --expose-gc: `<polaris|l5> <host:port> <services>`; prints one line of JSON.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { eventually } from '../support/eventually.ts';
import { Bench as L5Bench, makeAdapter as l5Adapter } from './l5-support.ts';
import { Bench } from './polaris-support.ts';

const SETTLE_MS = 2_500;
const MEASURE_MS = 8_000;

/** What the process costs. */
export interface IdleCost {
  /** Of a core, %. */
  readonly cpu: number;
  /** Live objects and buffers after a collection, bytes. */
  readonly heap: number;
  readonly rss: number;
  /** Instances that left a view. */
  readonly removed: number;
}

/** Measures in a process of its own. */
export async function idleCost(kind: 'polaris' | 'l5', address: string, count: number): Promise<IdleCost> {
  const args = ['--expose-gc', '--disable-proto=throw', fileURLToPath(import.meta.url), kind, address, String(count)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 90_000 });
  const cost: IdleCost = JSON.parse(stdout);
  return cost;
}

/** Services as the tests name them. */
export function quietNames(kind: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, n) => (kind === 'l5' ? `1001:${n + 1}` : `quiet-${n}`));
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function main(kind: string, address: string, count: number): Promise<IdleCost> {
  const names = quietNames(kind, count);
  const polaris = kind === 'l5' ? null : new Bench([address], undefined, {}, { kind: count === 0 ? 'onDemand' : 'all' });
  const l5 = kind === 'l5' ? new L5Bench(l5Adapter([address], { sids: names })) : null;
  const size = (name: string): number =>
    polaris?.view({ namespace: 'default', name }).length ?? l5?.view(name).length ?? Number.NaN;
  await eventually(() => names.every((name) => size(name) === 3), 60_000, 100);
  await pause(SETTLE_MS);
  const before = process.cpuUsage();
  const from = performance.now();
  await pause(MEASURE_MS);
  const { user, system } = process.cpuUsage(before);
  const cpu = (user + system) / 10 / (performance.now() - from);
  // Twice: what the first collection frees may hold more.
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, external, rss } = process.memoryUsage();
  return { cpu, heap: heapUsed + external, rss, removed: polaris?.removed.length ?? l5?.removed.length ?? 0 };
}

const [kind, address, count] = process.argv.slice(2);
if (kind !== undefined && address !== undefined && import.meta.main) {
  console.log(JSON.stringify(await main(kind, address, Number(count))));
  process.exit(0);
}
