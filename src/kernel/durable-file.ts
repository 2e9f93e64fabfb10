// Owns writing files that survive a crash: whole replacement, append with fsync, a lock file. No domain words, no format.
// Called by last-good, journals, overrides; must never leave a half-written file under the real name.
import { randomBytes } from 'node:crypto';
import { type FileHandle, lstat, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { WeirError } from './errors.ts';

/** Only the owner may read what weir keeps. */
export const PRIVATE_MODE = 0o600;

/**
 * Replaces `path` by `chunks` written in order: unique temporary name → fsync → rename → fsync of the directory (R11).
 * A failure leaves the old file as it was and no temporary file behind. Throws the system's error.
 */
export async function replaceFile(path: string, chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', PRIVATE_MODE);
    try {
      for await (const chunk of chunks) await writeAll(file, chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
  await syncDirectory(dirname(path));
}

/** Makes a rename or a new file in the directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes all of the bytes at the end of the file (a single write may be short). */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let offset = 0; offset < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, offset, bytes.length - offset);
    offset += bytesWritten;
  }
}

export type ReadRefusal = 'missing' | 'symlink' | 'notAFile' | 'owner' | 'tooBig';

/** Reads a file that only we should have written: no symlink, a regular file, ours (or root's), at most `maxBytes`. */
export async function readOwnFile(path: string, maxBytes: number, uid: number | null): Promise<Buffer | ReadRefusal> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return 'missing';
  if (found.isSymbolicLink()) return 'symlink';
  if (!found.isFile()) return 'notAFile';
  if (uid !== null && found.uid !== uid && found.uid !== 0) return 'owner';
  return found.size > maxBytes ? 'tooBig' : readFile(path);
}

/** A directory that one process owns until `release` (or its death: a lock of a process that is gone is taken over). */
export interface DirectoryLock {
  release(): Promise<void>;
}

/** A life of a process: pids are used again after a restart of the host or of a container. */
export interface ProcessLife {
  readonly pid: number;
  /** Tells this life from every other of the same pid; empty where it cannot be known. */
  readonly birth: string;
}

/**
 * Takes `<directory>/lock` for the process `self`. Throws WeirError STATE_LOCKED when a living process holds it.
 * `isAlive` tells whether a life still goes on (app asks the system).
 */
export async function lockDirectory(
  directory: string,
  self: ProcessLife,
  isAlive: (holder: ProcessLife) => boolean,
): Promise<DirectoryLock> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = `${directory}/lock`;
  for (let round = 0; round < 3; round++) {
    try {
      const file = await open(path, 'wx', PRIVATE_MODE);
      await writeAll(file, Buffer.from(`${self.pid} ${self.birth}\n`));
      await file.close();
      return { release: () => rm(path, { force: true }) };
    } catch (thrown) {
      if ((await stat(path).catch(() => null)) === null && round === 2) throw thrown;
    }
    const [pid = '', ...birth] = (await readFile(path, 'utf8').catch(() => '')).trim().split(' ');
    const holder: ProcessLife = { pid: Number.parseInt(pid, 10), birth: birth.join(' ') };
    if (holder.pid !== self.pid && Number.isInteger(holder.pid) && isAlive(holder)) {
      throw new WeirError('STATE_LOCKED', `state directory ${directory} is in use by process ${holder.pid}`, {
        details: { pid: holder.pid },
      });
    }
    await rm(path, { force: true });
  }
  throw new WeirError('STATE_LOCKED', `state directory ${directory} could not be locked`);
}
