// npm run check: types, lint and format, layer order, generated files; all of them run, then the verdict. Under 45 s.
import { pathToFileURL } from 'node:url';
import { type RunResult, run } from './processes.ts';

const CHECKS: readonly { readonly name: string; readonly command: string; readonly args: readonly string[] }[] = [
  { name: 'types', command: 'tsc', args: ['--noEmit', '-p', '.'] },
  { name: 'lint and format', command: 'biome', args: ['ci', '--colors=off', '.'] },
  {
    name: 'layer order and house rules',
    command: process.execPath,
    args: ['--test', '--test-reporter=dot', 'test/layers.test.ts'],
  },
  { name: 'generated files', command: process.execPath, args: ['src/cli/main.ts', 'schema', '--check', 'conf/schema.json'] },
];

/** Runs every check, two at a time; true when all passed. */
export async function check(): Promise<boolean> {
  const queue = [...CHECKS];
  let good = true;
  const worker = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const result: RunResult = await run(next.command, next.args, { capture: true });
      console.log(`${result.code === 0 ? 'ok  ' : 'FAIL'} ${next.name} (${(result.ms / 1_000).toFixed(1)} s)`);
      if (result.code !== 0) {
        good = false;
        console.log(result.output);
      }
    }
  };
  await Promise.all([worker(), worker()]);
  return good;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  process.exitCode = (await check()) ? 0 : 1;
}
