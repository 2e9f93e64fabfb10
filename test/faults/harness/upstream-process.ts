// Upstreams as processes of their own, so that they can be killed, frozen and started again on the same port; what they executed is
// read back from their files. Called by the fault tests; must never signal a process that it did not start.
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type UpstreamMode =
  | { readonly kind: 'ok'; readonly delayMs?: number }
  | { readonly kind: 'status'; readonly status: number; readonly fields?: readonly string[] }
  | { readonly kind: 'hang' }
  /** Bytes as they are (`{id}`: the request's id), then nothing, an end or a reset. */
  | { readonly kind: 'raw'; readonly bytes: string; readonly next?: 'end' | 'reset' }
  | { readonly kind: 'late'; readonly bytes: string; readonly afterMs: number }
  | { readonly kind: 'drip'; readonly everyMs: number }
  /** 1xx heads without end, `atOnce` of them together, then one every `everyMs`. */
  | { readonly kind: 'interim'; readonly status: number; readonly atOnce: number; readonly everyMs: number }
  /** Answers after `fromMs`, falling in a straight line to nothing over the first `overMs` of the mode. */
  | { readonly kind: 'warming'; readonly fromMs: number; readonly overMs: number }
  | { readonly kind: 'closesIdle'; readonly withinMs: number };

const MAIN = fileURLToPath(new URL('./upstream-main.ts', import.meta.url));

/** One upstream. Made by `startUpstream`. */
export class UpstreamProcess {
  readonly name: string;
  readonly idFile: string;
  port = 0;
  #child: ChildProcess | null = null;
  #mode: UpstreamMode = { kind: 'ok' };

  constructor(name: string, directory: string) {
    this.name = name;
    this.idFile = join(directory, `${name}.ids`);
    writeFileSync(this.idFile, '');
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Starts, or starts again on the same port and in the same mode. */
  async start(): Promise<void> {
    const child = fork(MAIN, [String(this.port), this.idFile], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child = child;
    this.port = await new Promise<number>((resolve, reject) => {
      child.once('message', (message: { readonly port: number }) => resolve(message.port));
      child.once('exit', (code) => reject(new Error(`upstream ${this.name} ended with ${code}`)));
    });
    if (this.#mode.kind !== 'ok') await this.set(this.#mode);
  }

  /** Resolves when the process answers by the new mode. */
  async set(mode: UpstreamMode): Promise<void> {
    this.#mode = mode;
    const child = this.#child;
    if (child === null) return;
    const done = new Promise<void>((resolve) => child.once('message', () => resolve()));
    child.send(mode);
    await done;
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGKILL');
    await gone;
  }

  /** The process stands still; the kernel goes on taking its connections. */
  freeze(): void {
    this.#child?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#child?.kill('SIGCONT');
  }

  /** How often each request id was executed here, over all lives of the process. */
  executed(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const line of readFileSync(this.idFile, 'utf8').split('\n')) {
      const id = line.split(' ')[0] ?? '';
      if (id !== '') counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    return counts;
  }
}

export async function startUpstream(name: string, directory: string): Promise<UpstreamProcess> {
  const upstream = new UpstreamProcess(name, directory);
  await upstream.start();
  return upstream;
}

/** Executions of every id over several upstreams. */
export function executions(upstreams: readonly UpstreamProcess[]): Map<string, number> {
  const all = new Map<string, number>();
  for (const upstream of upstreams) for (const [id, n] of upstream.executed()) all.set(id, (all.get(id) ?? 0) + n);
  return all;
}
