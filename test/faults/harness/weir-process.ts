// `weir run` as a child process: started on free ports, asked over its API, killed. Called by the fault tests and the bench of starts;
// must never signal a process that it did not start.
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));
/** Compiled code of weir, shared by all tests of this user: a second start is what an operator sees. */
const CACHE = join(tmpdir(), `weir-test-cache-${process.getuid?.() ?? 0}`);
const SAID = /API on http:\/\/([^,]+), proxy on ([^\s]+)/;

export interface SourceState {
  readonly id: string;
  readonly state: string;
  readonly ageMs: number | null;
  readonly cause?: string;
  readonly services: number;
  readonly instances: number;
}

export interface InstanceState {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly weight: number;
  readonly verdict: string;
  readonly held: boolean;
  readonly ejected: boolean;
}

export interface ServiceState {
  readonly revision: number;
  readonly stale: boolean;
  readonly sources: Readonly<Record<string, { readonly state: string; readonly ageMs: number | null; readonly held: number }>>;
  readonly instances: readonly InstanceState[];
}

/** A running `weir run`. Made by `startWeir`. */
export class WeirProcess {
  readonly child: ChildProcess;
  readonly api: string;
  readonly proxyPort: number;
  /** From the start of the process until it said its addresses, ms. */
  readonly startedInMs: number;
  /** Standard output and error so far. */
  readonly output: () => string;
  readonly ended: Promise<number>;

  constructor(
    child: ChildProcess,
    api: string,
    proxyPort: number,
    startedInMs: number,
    output: () => string,
    ended: Promise<number>,
  ) {
    this.child = child;
    this.api = api;
    this.proxyPort = proxyPort;
    this.startedInMs = startedInMs;
    this.output = output;
    this.ended = ended;
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.ended;
  }

  /** SIGTERM; the exit code. Throws with the last words of a process that a signal ended. */
  async terminate(): Promise<number> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGTERM');
    const code = await this.ended;
    const { signalCode } = this.child;
    if (signalCode !== null) throw new Error(`weir was ended by ${signalCode}: ${this.output().slice(-2_000)}`);
    return code;
  }

  /** Resident memory of the whole process, MiB; `peak`: the most it ever was. */
  rssMb(peak = false): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
    return Number(new RegExp(`${peak ? 'VmHWM' : 'VmRSS'}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1_024;
  }

  /** Processor time of the whole process so far, ms. */
  cpuMs(): number {
    const stat = readFileSync(`/proc/${this.child.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  /** A JSON answer of the API. */
  async get<T>(path: string): Promise<T> {
    const answer = await fetch(`http://${this.api}${path}`, { signal: AbortSignal.timeout(10_000) });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    const value: { readonly of: T } = JSON.parse(`{"of":${await answer.text()}}`);
    return value.of;
  }

  async status(path: string): Promise<number> {
    const answer = await fetch(`http://${this.api}${path}`, { signal: AbortSignal.timeout(10_000) });
    await answer.arrayBuffer();
    return answer.status;
  }

  async send(method: string, path: string, body: object = {}): Promise<Response> {
    const headers = { 'content-type': 'application/json' };
    return fetch(`http://${this.api}${path}`, { method, headers, body: JSON.stringify(body) });
  }

  service(name: string): Promise<ServiceState> {
    return this.get(`/v1/services/${name}`);
  }

  async source(id: string): Promise<SourceState> {
    const { sources } = await this.get<{ readonly sources: readonly SourceState[] }>('/v1/sources');
    const found = sources.find((source) => source.id === id);
    if (found === undefined) throw new Error(`no source ${id}`);
    return found;
  }

  /** Sum of a metric's series whose line contains `labels`. */
  async metric(name: string, labels = ''): Promise<number> {
    const answer = await fetch(`http://${this.api}/metrics`);
    let sum = 0;
    for (const line of (await answer.text()).split('\n')) {
      if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
      if (line.includes(labels)) sum += Number(line.slice(line.lastIndexOf(' ') + 1));
    }
    return sum;
  }

  /** Lines of the log with this event. */
  events(type: string): readonly Record<string, unknown>[] {
    return this.output()
      .split('\n')
      .filter((line) => line.includes(`"event":"${type}"`))
      .map((line) => JSON.parse(line));
  }
}

export interface StartOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly nodeArgs?: readonly string[];
  /** How long it may take until it says its addresses, ms. */
  readonly within?: number;
  /** A command that sets a limit and becomes weir (`exec`), so that the pid stays. */
  readonly wrap?: readonly string[];
}

/** Starts `weir run -c configPath`; resolves once it says its addresses. Throws when it ends before. */
export async function startWeir(configPath: string, options: StartOptions = {}): Promise<WeirProcess> {
  const began = performance.now();
  const line = [...(options.wrap ?? []), process.execPath, '--disable-proto=throw', ...(options.nodeArgs ?? [])];
  const [command = process.execPath, ...args] = [...line, MAIN, 'run', '-c', configPath];
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, XDG_CACHE_HOME: CACHE, ...options.env },
  });
  const chunks: string[] = [];
  child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk.toString('utf8')));
  const ended = new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? -1)));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`weir did not start: ${chunks.join('').slice(-2_000)}`));
    }, options.within ?? 60_000);
    child.stderr?.on('data', (chunk: Buffer) => {
      chunks.push(chunk.toString('utf8'));
      const said = SAID.exec(chunk.toString('utf8'));
      if (said === null) return;
      clearTimeout(timer);
      const port = Number((said[2] ?? '').split(':').at(-1));
      resolve(new WeirProcess(child, said[1] ?? '', port, performance.now() - began, () => chunks.join(''), ended));
    });
    void ended.then((code) => {
      clearTimeout(timer);
      reject(new Error(`weir ended with ${code}: ${chunks.join('').slice(-2_000)}`));
    });
  });
}
