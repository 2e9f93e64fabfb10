// Owns what the kernel charges to the own control group (v2 or v1), and the limit at which it kills. Called by process-facts.ts at each
// look at pressure. Must never throw: a file that cannot be read is a group without a limit.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Bytes. */
export interface MemoryUse {
  readonly used: number;
  readonly limit: number;
}

/** Where the kernel shows control groups; tests have their own. */
export interface CgroupPlaces {
  /** What /proc/self/cgroup says. */
  readonly self: string;
  readonly root: string;
}

const PLACES: CgroupPlaces = { self: '/proc/self/cgroup', root: '/sys/fs/cgroup' };

interface Files {
  readonly used: string;
  readonly limits: readonly string[];
  readonly stat: string;
  /** In `stat`: pages of files, which the kernel drops before anything is killed. v1 counts the groups below in the total only. */
  readonly droppable: RegExp;
  /** Processes of the group, one a line. */
  readonly procs: string;
}

/** Above memory.high the kernel slows the process down, at memory.max it kills. */
const V2 = { used: 'memory.current', limits: ['memory.max', 'memory.high'], droppable: /^(?:in)?active_file (\d+)$/gm };
const V1 = { used: 'memory.usage_in_bytes', limits: ['memory.limit_in_bytes'], droppable: /^total_(?:in)?active_file (\d+)$/gm };

/**
 * Memory of the own control group. What counts is what the kernel cannot drop before it kills: own pages, those of sockets and of the
 * kernel; resident memory lacks the latter. Pages of files are no pressure, however recently they were read.
 */
export class CgroupMemory {
  readonly #files: Files | null;

  constructor(places: CgroupPlaces = PLACES) {
    this.#files = ownFiles(places);
  }

  /**
   * Null where the group has no limit below `total`, the memory of the host in bytes. Nothing is used as long as others are in the group:
   * what they take is told from ours by nobody, and shedding requests would not give it back.
   */
  look(total: number): MemoryUse | null {
    if (this.#files === null) return null;
    const limit = Math.min(...this.#files.limits.map(bytesIn));
    const used = bytesIn(this.#files.used);
    if (!(limit > 0 && limit < total) || !Number.isFinite(used)) return null;
    if (textOf(this.#files.procs).trim().includes('\n')) return { used: 0, limit };
    let droppable = 0;
    for (const [, bytes] of textOf(this.#files.stat).matchAll(this.#files.droppable)) droppable += Number(bytes);
    return { used: Math.max(0, used - droppable), limit };
  }
}

/** The files of the own group: that of the memory controller in v1, else the one group of v2. */
function ownFiles({ self, root }: CgroupPlaces): Files | null {
  const lines = textOf(self)
    .split('\n')
    .map((line) => /^\d+:([^:]*):(\/.*)$/.exec(line));
  const v1 = lines.find((line) => line?.[1]?.split(',').includes('memory'))?.[2];
  if (v1 !== undefined) return inGroup([join(root, 'memory', v1), join(root, 'memory')], V1);
  const v2 = lines.find((line) => line?.[1] === '')?.[2];
  return v2 === undefined ? null : inGroup([join(root, v2), root], V2);
}

/** In a container the mount shows the own group as the root, whatever the path of it outside. */
function inGroup(folders: readonly string[], { used, limits, droppable }: typeof V1): Files | null {
  const folder = folders.find((one) => Number.isFinite(bytesIn(join(one, used))));
  if (folder === undefined) return null;
  return {
    used: join(folder, used),
    limits: limits.map((name) => join(folder, name)),
    stat: join(folder, 'memory.stat'),
    procs: join(folder, 'cgroup.procs'),
    droppable,
  };
}

/** Infinity for `max`, and where there is no such file. */
function bytesIn(path: string): number {
  const text = textOf(path).trim();
  return /^\d+$/.test(text) ? Number(text) : Number.POSITIVE_INFINITY;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
