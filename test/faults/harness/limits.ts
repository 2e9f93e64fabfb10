// Limits that the kernel sets on one process of a test: memory and processor time by a cgroup (v1 or v2), descriptors and file size by
// prlimit, disk space by a small tmpfs. Called by the fault tests of the host. What this machine or user may not do comes back as words,
// so that "not run here" is a result of its own; must never touch a group, mount or process that it did not make.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../../src/kernel/errors.ts';
import type { FaultBench } from './bench.ts';

/** A command that runs the rest of its line under a limit. */
export type Wrap = readonly string[];

export interface Limited {
  readonly wrap: Wrap;
  /** Sets another limit, in the words of the maker; null: none. */
  set(limit: number | null): void;
  /** How often the kernel enforced it: processes killed for memory, or periods throttled. */
  enforced(): number;
}

const ROOT = '/sys/fs/cgroup';
let made = 0;

type Controller = 'memory' | 'cpu';

/** A group of its own for the controller, v1 where it is mounted, else v2; words when neither can be made. */
function makeGroup(bench: FaultBench, controller: Controller): { readonly path: string; readonly v2: boolean } | string {
  const v1 = `${ROOT}/${controller}/cgroup.procs`;
  const v2 = !existsSync(v1) && existsSync(`${ROOT}/cgroup.controllers`);
  if (!v2 && !existsSync(v1)) return `no cgroup of controller ${controller} is mounted here`;
  const parent = v2 ? ROOT : `${ROOT}/${controller}`;
  const path = `${parent}/weir-faults-${process.pid}-${++made}`;
  try {
    if (v2 && !readFileSync(`${ROOT}/cgroup.subtree_control`, 'utf8').split(/\s+/).includes(controller)) {
      return `the cgroup root does not hand controller ${controller} down`;
    }
    mkdirSync(path);
  } catch (thrown) {
    return `a cgroup cannot be made here: ${messageOf(thrown)}`;
  }
  bench.defer(() => removeGroup(path));
  return { path, v2 };
}

/** The kernel needs a moment to forget the last process of a group. */
async function removeGroup(path: string): Promise<void> {
  for (let n = 0; n < 40; n++) {
    try {
      rmdirSync(path);
      return;
    } catch {
      await sleep(50);
    }
  }
}

function limited(
  bench: FaultBench,
  controller: Controller,
  first: number,
  write: (path: string, v2: boolean, limit: number | null) => void,
  enforced: (path: string, v2: boolean) => number,
): Limited | string {
  const group = makeGroup(bench, controller);
  if (typeof group === 'string') return group;
  const { path, v2 } = group;
  try {
    write(path, v2, first);
  } catch (thrown) {
    return `the limit of a cgroup cannot be set here: ${messageOf(thrown)}`;
  }
  return {
    wrap: ['sh', '-c', `echo $$ > ${path}/cgroup.procs && exec "$@"`, 'sh'],
    set: (limit) => write(path, v2, limit),
    enforced: () => enforced(path, v2),
  };
}

function counterOf(file: string, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(readFileSync(file, 'utf8'))?.[1] ?? 0);
}

/** At most so many bytes of memory. `enforced` counts kills. */
export function memoryCap(bench: FaultBench, bytes: number): Limited | string {
  return limited(
    bench,
    'memory',
    bytes,
    (path, v2, limit) =>
      writeFileSync(
        `${path}/${v2 ? 'memory.max' : 'memory.limit_in_bytes'}`,
        limit === null ? (v2 ? 'max' : '-1') : String(limit),
      ),
    (path, v2) => counterOf(`${path}/${v2 ? 'memory.events' : 'memory.oom_control'}`, 'oom_kill'),
  );
}

/** At most so many per cent of one core. `enforced` counts periods of 100 ms that ended throttled. */
export function cpuCap(bench: FaultBench, percent: number): Limited | string {
  return limited(
    bench,
    'cpu',
    percent,
    (path, v2, limit) => {
      const quota = limit === null ? null : Math.round(limit * 1_000);
      if (v2) writeFileSync(`${path}/cpu.max`, `${quota ?? 'max'} 100000`);
      else writeFileSync(`${path}/cpu.cfs_quota_us`, String(quota ?? -1));
    },
    (path) => counterOf(`${path}/cpu.stat`, 'nr_throttled'),
  );
}

/** Soft and hard limit of one resource of prlimit(1) (`nofile`, `fsize`); words where there is no such program. */
export function resourceCap(resource: 'nofile' | 'fsize', n: number): Wrap | string {
  const { status } = spawnSync('prlimit', ['--version'], { stdio: 'ignore' });
  return status === 0 ? ['prlimit', `--${resource}=${n}:${n}`] : 'prlimit (util-linux) is not installed';
}

/** A tmpfs of so many bytes on a new folder. Words where we may not mount. */
export function smallDisk(bench: FaultBench, path: string, bytes: number): { readOnly(on: boolean): void } | string {
  mkdirSync(path, { mode: 0o700 });
  const mount = (...args: string[]): string | null => {
    const { status, error, stderr } = spawnSync('mount', args, { encoding: 'utf8' });
    return status === 0 ? null : (error?.message ?? stderr.trim());
  };
  const refusal = mount('-t', 'tmpfs', '-o', `size=${bytes},mode=700`, 'tmpfs', path);
  if (refusal !== null) return `a tmpfs cannot be mounted here: ${refusal}`;
  bench.defer(() => {
    // Whatever still has a file open there lets go of it later.
    spawnSync('umount', ['-l', path], { stdio: 'ignore' });
  });
  return {
    // A disk with an open file cannot be made read-only from outside; the same folder once more on top of it can, and every path leads there.
    readOnly(on) {
      const steps = on ? [mount('--bind', path, path), mount('-o', 'remount,bind,ro', path)] : [];
      if (!on) spawnSync('umount', ['-l', path], { stdio: 'ignore' });
      for (const fault of steps) if (fault !== null) throw new Error(`read-only: ${fault}`);
    },
  };
}
