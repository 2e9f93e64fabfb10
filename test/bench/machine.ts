// Owns what the bench knows of the machine: which peers are installed, CPU time of a process group, pinning.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';

/** USER_HZ of Linux: the unit of utime and stime in /proc. */
const TICKS_PER_SECOND = 100;

/** A program that runs while its figures are taken. */
export interface Running {
  readonly name: string;
  /** CPU seconds (user and system) that its whole process group has used up to now. */
  cpuSeconds(): number;
  /** Resident memory of the group, MiB. */
  rssMb(): number;
  stop(): Promise<void>;
}

/** Path of an installed program, or null. */
export function which(program: string): string | null {
  const found = spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' });
  return found.status === 0 ? found.stdout.trim() : null;
}

/** A fresh folder for configs and logs of one run. */
export function scratch(): string {
  return mkdtempSync(join(tmpdir(), 'weir-bench-'));
}

/** The command behind `taskset` on one core where there are several cores and taskset; as it is otherwise. */
export function pinned(core: number, command: string, args: readonly string[]): readonly [string, readonly string[]] {
  if (cpus().length < 2 || which('taskset') === null) return [command, args];
  return ['taskset', ['-c', String(core), command, ...args]];
}

/** Starts a program in a process group of its own, pinned to a core, and waits until it listens on `port` of 127.0.0.1. */
export async function start(
  name: string,
  core: number,
  command: string,
  args: readonly string[],
  port: number,
  env: NodeJS.ProcessEnv = {},
): Promise<Running> {
  const [program, all] = pinned(core, command, args);
  const child = spawn(program, [...all], { detached: true, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString('utf8')).slice(-4_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const group = child.pid ?? 0;
  let exited = false;
  const exit = new Promise<void>((resolve) =>
    child.on('exit', () => {
      exited = true;
      resolve();
    }),
  );
  const end = performance.now() + 15_000;
  while (!(await listens(port))) {
    if (exited || performance.now() > end) throw new Error(`${name} does not listen on ${port}:\n${output}`);
    await pause(50);
  }
  return {
    name,
    cpuSeconds: () => groupStats(group).ticks / TICKS_PER_SECOND,
    rssMb: () => groupStats(group).rssPages / 256,
    async stop() {
      if (!exited) process.kill(-group, 'SIGKILL');
      await exit;
    },
  };
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        address !== null && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      );
    });
  });
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function groupStats(group: number): { ticks: number; rssPages: number } {
  let ticks = 0;
  let rssPages = 0;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    let stat: string;
    try {
      stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
    } catch {
      continue; // The process ended between the listing and the read.
    }
    // Fields after the command in parentheses: state ppid pgrp … utime(12th) stime(13th) … rss(22nd).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (Number(fields[2]) !== group) continue;
    ticks += Number(fields[11]) + Number(fields[12]);
    rssPages += Number(fields[21]);
  }
  return { ticks, rssPages };
}
