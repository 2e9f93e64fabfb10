// npm run test:live: the tests against real servers, one file at a time. --full: also the long rows (npm run test:full).
// In CI a missing server is a failure; elsewhere its tests are skipped and named.
//
// Servers of others, on a machine that is shared, are late at times. A file that failed is run once more, alone; what passes then is
// named as flaky, so that it is seen and mended. More than a few are no accident: then nothing is run again.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { availableRegistries } from '../registries/available.ts';
import { run } from './processes.ts';
import { testFiles } from './test-files.ts';

const words = process.argv.slice(2);
const full = words.includes('--full');
const only = words.filter((word) => word !== '--full');
const registries = await availableRegistries({ build: true });
console.log('Real registries:');
for (const registry of registries) {
  console.log(`  ${registry.name}: ${registry.available ? 'found' : 'NOT FOUND'} (${registry.how})`);
}
const files = [...(await testFiles('live', only)), ...(full ? await testFiles('full', only) : [])];
const env = full
  ? {
      ...process.env,
      WEIR_MUTATIONS: process.env['WEIR_MUTATIONS'] ?? '100000',
      WEIR_HISTORIES: process.env['WEIR_HISTORIES'] ?? '300',
    }
  : process.env;
const plain = full ? await testFiles('plain', only.length > 0 ? only : ['http1', 'adapters']) : [];
/** At most this many failed files may be accidents. */
const MAX_AGAIN = 3;

/** Runs files one at a time; answers the exit code and the files in which a test failed. */
async function runFiles(
  chosen: readonly string[],
): Promise<{ readonly code: number | null; readonly failed: readonly string[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-live-'));
  const list = join(folder, 'failed');
  try {
    const reporters = [
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      `--test-reporter=${new URL('./failed-files.ts', import.meta.url).href}`,
      `--test-reporter-destination=${list}`,
    ];
    const timeout = `--test-timeout=${full ? 7_200_000 : 900_000}`;
    const { code } = await run(
      process.execPath,
      ['--disable-proto=throw', '--test', '--test-concurrency=1', timeout, ...reporters, ...chosen],
      {
        env,
      },
    );
    const failed = (await readFile(list, 'utf8').catch(() => '')).split('\n').filter((line) => line !== '');
    return { code, failed };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

let result = await runFiles([...files, ...plain]);
if (result.code !== 0 && result.failed.length > 0 && result.failed.length <= MAX_AGAIN) {
  const again = result.failed;
  console.log(`\nFailed, and run once more alone:\n${again.map((file) => `  ${file}`).join('\n')}\n`);
  result = await runFiles(again);
  if (result.code === 0) console.log(`\nFLAKY (passed the second time):\n${again.map((file) => `  ${file}`).join('\n')}`);
}
const missing = registries.filter((registry) => !registry.available);
if (missing.length > 0) console.log(`\nNot tested for want of a server: ${missing.map((registry) => registry.name).join(', ')}`);
const missingFails = missing.length > 0 && process.env['CI'] !== undefined;
process.exitCode = result.code !== 0 || missingFails ? 1 : 0;
