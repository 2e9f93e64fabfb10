// Servers that are Go modules beside this file: built once into the user's cache, found there later.
// Called by the rows of the table; must never write into the tree.
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** `${XDG_CACHE_HOME:-~/.cache}/weir/registries`. */
export function cacheDirectory(): string {
  return join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'weir', 'registries');
}

export async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** The binary of `test/registries/<module>`, built when missing and asked for; null (with the reason) when it cannot be had. */
export async function builtBinary(
  module: string,
  version: string,
  build: boolean,
): Promise<{ path: string | null; how: string }> {
  const path = join(cacheDirectory(), `${module}-${version}`);
  if (await isExecutable(path)) return { path, how: path };
  if (!build) return { path: null, how: 'not built yet; npm run test:live builds it' };
  await mkdir(cacheDirectory(), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await run('go', ['build', '-o', temporary, '.'], {
      cwd: new URL(`./${module}/`, import.meta.url).pathname,
      timeout: 900_000,
      maxBuffer: 16 * 1024 * 1024,
    });
    await rename(temporary, path);
    return { path, how: path };
  } catch (thrown) {
    await rm(temporary, { force: true });
    const reason = thrown instanceof Error ? thrown.message.split('\n').slice(0, 3).join(' ') : String(thrown);
    return { path: null, how: `could not be built with go: ${reason.slice(0, 300)}` };
  }
}
