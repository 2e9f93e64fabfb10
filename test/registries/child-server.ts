// The life of a real registry as a child process on loopback: start, signals, its data lost, copied and put back. Base of the servers in
// start.ts, consul.ts, polaris.ts and nacos.ts. Owns the process and its folder; must never touch a process that it did not start.
import { type ChildProcess, spawn } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';

export interface Command {
  readonly path: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Its last words are kept, to be told when it ends by itself. */
const LAST_WORDS = 8_000;

export abstract class ChildServer {
  readonly root: string;
  /** Below `root`, or a folder that is kept at `stop`. */
  readonly data: string;
  readonly #name: string;
  readonly #readyMs: number;
  #child: ChildProcess | null = null;
  /** The process that we ended ourselves; any other end is told. */
  #killed: ChildProcess | null = null;
  #output = '';

  /** `readyMs`: how long a start may take. */
  constructor(name: string, root: string, readyMs: number, data = join(root, 'data')) {
    this.#name = name;
    this.root = root;
    this.data = data;
    this.#readyMs = readyMs;
  }

  /** What is to be started, with the same ports and data each time. */
  protected abstract command(): Promise<Command>;

  /** Throws, or answers false, as long as it does not serve yet. */
  protected abstract serves(): Promise<unknown>;

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  /** What it said since its start; the end of it. */
  get output(): string {
    return this.#output;
  }

  /** Resolves when it serves. Throws when it ends before. */
  async start(): Promise<void> {
    const { path, args, ...how } = await this.command();
    this.#output = '';
    const child = spawn(path, [...args], { stdio: ['ignore', 'pipe', 'pipe'], ...how });
    this.#child = child;
    const keep = (chunk: Buffer): void => {
      this.#output = (this.#output + chunk.toString()).slice(-LAST_WORDS);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    let failed = false;
    child.once('error', (error) => {
      failed = true;
      keep(Buffer.from(error.message));
    });
    child.once('exit', (code, signal) => {
      if (this.#killed !== child)
        console.error(`${this.#name} ended by itself: ${signal ?? code}: ${this.#output.slice(-2_000)}`);
    });
    const over = (): boolean => failed || hasEnded(child);
    await eventually(async () => over() || (await this.serves()), this.#readyMs, 50);
    if (over()) throw new Error(`${this.#name} ended at once: ${this.#output}`);
  }

  /** Sends the signal; for SIGKILL and SIGTERM resolves when the process is gone. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === null || child.pid === undefined || hasEnded(child)) return;
    const ends = signal === 'SIGKILL' || signal === 'SIGTERM';
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    if (ends) this.#killed = child;
    child.kill(signal);
    if (ends) await gone;
  }

  /** Starts it again (after `kill`), on the same data and ports. */
  restart(): Promise<void> {
    return this.start();
  }

  /** Kill, remove the data, start. */
  async wipe(): Promise<void> {
    await this.kill('SIGKILL');
    await rm(this.data, { recursive: true, force: true });
    await this.start();
  }

  /** Kill, copy the data away, start. */
  async snapshotData(): Promise<void> {
    await this.kill('SIGKILL');
    await rm(this.#copy, { recursive: true, force: true });
    await cp(this.data, this.#copy, { recursive: true });
    await this.start();
  }

  /** Kill, put the copy back, start. */
  async restoreData(): Promise<void> {
    await this.kill('SIGKILL');
    await rm(this.data, { recursive: true, force: true });
    await cp(this.#copy, this.data, { recursive: true });
    await this.start();
  }

  async stop(): Promise<void> {
    await this.kill('SIGCONT');
    await this.kill('SIGKILL');
    await rm(this.root, { recursive: true, force: true });
  }

  get #copy(): string {
    return join(this.root, 'copy');
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
