// Runs files of tests by node --test, for run-tests.ts and run-live.ts. On a machine that is shared a single test of thousands can be
// late, and so can the servers of others: files that failed are run once more, alone; what passes then is named as FLAKY, loudly, so
// that it is seen and mended. More than a few are no accident: then nothing is run again. Must never make a second failure a success.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from './processes.ts';

export interface RunFiles {
  /** Further options of node --test. */
  readonly options: readonly string[];
  /** Files at a time in the first run; the second has one. */
  readonly concurrency: number;
  /** At most this many failed files may be accidents. */
  readonly maxAgain: number;
  readonly env?: NodeJS.ProcessEnv;
}

interface Ran {
  readonly code: number;
  /** The files in which a test failed. */
  readonly failed: readonly string[];
}

/** Runs the files, those that failed once more when they are few; answers the exit code. */
export async function runFiles(files: readonly string[], how: RunFiles): Promise<number> {
  const first = await once(files, how, how.concurrency);
  if (first.code === 0 || first.failed.length === 0 || first.failed.length > how.maxAgain) return first.code;
  const again = first.failed.map((file) => `  ${relative('.', file)}`).join('\n');
  console.log(`\nFailed, and run once more alone:\n${again}\n`);
  const second = await once(first.failed, how, 1);
  console.log(second.code === 0 ? `\nFLAKY (failed, passed the second time: mend it):\n${again}` : '\nFailed twice.');
  return second.code;
}

async function once(files: readonly string[], how: RunFiles, concurrency: number): Promise<Ran> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-run-'));
  const list = join(folder, 'failed');
  const reporters = [
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${new URL('./failed-files.ts', import.meta.url).href}`,
    `--test-reporter-destination=${list}`,
  ];
  try {
    const { code } = await run(
      process.execPath,
      ['--disable-proto=throw', '--test', `--test-concurrency=${concurrency}`, ...how.options, ...reporters, ...files],
      how.env === undefined ? {} : { env: how.env },
    );
    const failed = (await readFile(list, 'utf8').catch(() => '')).split('\n').filter((line) => line !== '');
    return { code, failed };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
