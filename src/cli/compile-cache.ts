// Owns where compiled code is kept between two starts: reading and compiling some hundred modules is half of a start otherwise.
// Called by run.ts before it imports the sidecar. What lies there is executed: only a directory that is ours alone is used.
import { lstatSync, mkdirSync } from 'node:fs';
import { enableCompileCache, flushCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The user's cache; the system's as root. */
function cacheDirectory(env: ReadonlyMap<string, string>, uid: number): string {
  const base = env.get('XDG_CACHE_HOME') ?? (uid === 0 ? '/var/cache' : join(homedir(), '.cache'));
  return join(base, 'weir', 'compiled');
}

/** Makes the directory, if need be; false when others may write there or it cannot be had. */
export function isOursAlone(directory: string, uid: number): boolean {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const found = lstatSync(directory);
    return found.isDirectory() && found.uid === uid && (found.mode & 0o022) === 0;
  } catch {
    return false;
  }
}

/**
 * Compiled code of the modules loaded from now on is taken from, and put into, the cache. The returned function writes what is new;
 * a process that is killed later has it then. Without a safe place (or with Node's own variables set) nothing happens.
 */
export function useCompileCache(env: ReadonlyMap<string, string>): () => void {
  const uid = process.getuid?.();
  if (uid === undefined || env.has('NODE_COMPILE_CACHE') || env.has('NODE_DISABLE_COMPILE_CACHE')) return () => {};
  const directory = cacheDirectory(env, uid);
  if (!isOursAlone(directory, uid)) return () => {};
  enableCompileCache(directory);
  return flushCompileCache;
}
