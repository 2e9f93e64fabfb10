// Owns what only the process can tell: user, host, limits, memory, descriptors, delay of the event loop. Called by app.ts.
import { readdirSync, readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { homedir, hostname, totalmem } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { ProcessLife } from '../kernel/durable-file.ts';
import type { PressureSample } from '../proxy/overload.ts';
import type { Surroundings } from '../settings/references.ts';
import { CgroupMemory, type MemoryUse } from './memory-use.ts';

/** Loop delay that counts as full pressure (proxy-semantics §16), ms. */
const FULL_LOOP_DELAY_MS = 200;
const LOOP_RESOLUTION_MS = 10;
/** A delay is pressure once it lasted over so many looks (1 s at one every 250 ms). [W] */
const LOOKS_OF_PRESSURE = 4;
const DEFAULT_NOFILE = 1_024;
/** From this share of the memory on what is garbage is collected at once: who sheds makes no garbage any more, and so would never be
 * found to have room again (as Envoy's shrink_heap). At most this often, and with at most a twentieth of a core. */
const COLLECT_FROM = 0.9;
const COLLECT_EVERY_MS = 2_000;
const COLLECT_REST = 20;

/** Null where there are no users (not on Linux). */
export function ownUid(): number | null {
  return process.getuid?.() ?? null;
}

/** This process, told from any other that gets its pid. */
export function ownLife(): ProcessLife {
  return { pid: process.pid, birth: birthOf(process.pid) };
}

/** Boot of the host and start within it (proc(5), field 22); empty where there is no /proc. */
function birthOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()} ${started}`;
  } catch {
    return '';
  }
}

/** Does this life go on? Another process with its pid (after a crash and a restart of the host) is not it. */
export function isAlive({ pid, birth }: ProcessLife): boolean {
  try {
    // Signal 0 only asks.
    process.kill(pid, 0);
  } catch (thrown) {
    // A process of another user lives, too.
    if (!(thrown instanceof Error && 'code' in thrown && thrown.code === 'EPERM')) return false;
  }
  const now = birthOf(pid);
  return birth === '' || now === '' || now === birth;
}

/** Default state directory: the system's as root, else the user's. */
function defaultStateDir(): string {
  if (ownUid() === 0) return '/var/lib/weir';
  return join(process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local', 'state'), 'weir');
}

/** What references in the configuration are looked up in. */
export function surroundings(): Surroundings {
  return {
    env: (name) => process.env[name],
    async readFile(path, maxBytes) {
      const { size } = await stat(path);
      if (size > maxBytes) throw new RangeError(`the file has ${size} bytes, at most ${maxBytes} are read`);
      return readFile(path);
    },
    hostName: hostname(),
    stateDir: defaultStateDir(),
  };
}

/** Soft limit of open files. */
export function nofileLimit(): number {
  try {
    const line = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    const soft = Number(line?.[1]);
    return Number.isInteger(soft) ? soft : DEFAULT_NOFILE;
  } catch {
    return DEFAULT_NOFILE;
  }
}

/**
 * The delay that every one of the last looks had. One stall (a collection, a frozen or starved process, one big registry answer) is over
 * when it is seen: shedding then would fail requests that can be served. An overloaded loop is late at every look.
 */
export class LastingDelay {
  readonly #last: number[] = [];

  /** Takes the delay of one look; the smallest of the last four, 0 before there are as many. */
  after(delay: number): number {
    this.#last.push(delay);
    if (this.#last.length > LOOKS_OF_PRESSURE) this.#last.shift();
    return this.#last.length < LOOKS_OF_PRESSURE ? 0 : Math.min(...this.#last);
  }
}

/** Memory in use as a share of what may be used. */
export class MemoryPressure {
  readonly #look: () => MemoryUse;
  readonly #now: () => number;
  readonly #collect: () => number;
  #last = Number.POSITIVE_INFINITY;
  #collectAt = Number.NEGATIVE_INFINITY;

  /** `collect` answers the processor time that it took, ms: what others take of a core is no reason to collect less. */
  constructor(look: () => MemoryUse, now: () => number, collect: () => number) {
    this.#look = look;
    this.#now = now;
    this.#collect = collect;
  }

  /**
   * One look. What it grew by since the look before counts twice: it can grow by as much again before the next one, and at the limit the
   * kernel kills.
   */
  sample(): number {
    let { used, limit } = this.#look();
    const growth = Math.max(0, used - this.#last);
    this.#last = used;
    if ((used + growth) / limit >= COLLECT_FROM && this.#now() >= this.#collectAt) {
      const spent = this.#collect();
      this.#collectAt = this.#now() + Math.max(COLLECT_EVERY_MS, spent * COLLECT_REST);
      ({ used, limit } = this.#look());
    }
    return (used + growth) / limit;
  }
}

/** Measures pressure; `close` ends the measuring of the loop. */
export class PressureMeter {
  readonly #loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  readonly #nofile: number;
  readonly #memory = new MemoryPressure(memoryLook(), () => performance.now(), garbageCollector());
  readonly #lasting = new LastingDelay();
  #worstSinceScrape = 0;
  #looked = false;

  constructor(nofile: number) {
    this.#nofile = nofile;
    this.#loop.enable();
  }

  /** One look; the loop's figure is that of the time since the look before. */
  sample(): PressureSample {
    // The first look covers the start of the process, which loads modules and is no sign of overload.
    const delay = this.#looked ? Math.max(0, this.#loop.percentile(99) / 1e6 - LOOP_RESOLUTION_MS) : 0;
    this.#looked = true;
    this.#worstSinceScrape = Math.max(this.#worstSinceScrape, delay);
    const memory = this.#memory.sample();
    // After what the look itself took: a collection is no sign of an overloaded loop.
    this.#loop.reset();
    return {
      memory,
      fds: openFiles() / this.#nofile,
      loopDelay: this.#lasting.after(delay) / FULL_LOOP_DELAY_MS,
    };
  }

  /** The worst p99 of a look since the last call, ms. */
  takeWorst(): number {
    const worst = this.#worstSinceScrape;
    this.#worstSinceScrape = 0;
    return worst;
  }

  close(): void {
    this.#loop.disable();
  }
}

/**
 * The limit of the own control group, else what the host has or lets us have. Resident memory counts where it is more than what the group
 * is charged: pages of node itself may be charged to another group, and then nothing is left to drop when it grows between two looks.
 */
function memoryLook(): () => MemoryUse {
  const total = totalmem();
  const constrained = process.constrainedMemory();
  const limit = constrained > 0 && constrained < total ? constrained : total;
  const group = new CgroupMemory();
  return () => {
    const resident = process.memoryUsage.rss();
    const own = group.look(total);
    return own === null ? { used: resident, limit } : { used: Math.max(resident, own.used), limit: own.limit };
  };
}

/** Made at its first use: a flag of V8 brings the function to new contexts only. Answers the processor time that it took, ms. */
function garbageCollector(): () => number {
  let collect: unknown;
  return () => {
    if (collect === undefined) {
      setFlagsFromString('--expose-gc');
      collect = runInNewContext('gc');
    }
    const before = process.cpuUsage();
    if (typeof collect === 'function') collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1_000;
  };
}

function openFiles(): number {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return 0;
  }
}
