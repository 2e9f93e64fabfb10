// Owns the six upstream processes of the demo: starts them, starts a killed one again on its port after a while, ends them all.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** How an upstream behaves: slow answers after 300 ms, flaky answers every third request with 503. */
export type UpstreamKind = 'steady' | 'slow' | 'flaky';

export interface UpstreamSpec {
  readonly name: string;
  readonly kind: UpstreamKind;
}

/** A started upstream; pid and alive change when it dies and comes back, the port stays. */
export interface DemoUpstream extends UpstreamSpec {
  readonly port: number;
  readonly pid: number;
  readonly alive: boolean;
}

/** Time after which a killed upstream is started again, ms: long enough to see retries and ejection, short enough to wait for. */
const RESTART_AFTER_MS = 15_000;

class Upstream implements DemoUpstream {
  readonly name: string;
  readonly kind: UpstreamKind;
  port = 0;
  alive = false;
  #child: ChildProcess | null = null;
  #stopped = false;
  readonly #say: (line: string) => void;

  constructor(spec: UpstreamSpec, say: (line: string) => void) {
    this.name = spec.name;
    this.kind = spec.kind;
    this.#say = say;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<void> {
    const child = fork(entryPath(), [this.name, String(this.port), this.kind], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
    this.#child = child;
    child.on('exit', () => this.#died());
    this.port = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`upstream ${this.name} ended at its start`)));
      child.stdout?.once('data', (line: Buffer) => resolve(Number(line.toString('utf8'))));
    });
    this.alive = true;
  }

  stop(): void {
    this.#stopped = true;
    this.#child?.kill('SIGKILL');
  }

  #died(): void {
    if (this.#stopped || !this.alive) return;
    this.alive = false;
    this.#say(`upstream ${this.name} died; it comes back on port ${this.port} in ${RESTART_AFTER_MS / 1_000} s`);
    setTimeout(() => void this.#revive(), RESTART_AFTER_MS).unref();
  }

  async #revive(): Promise<void> {
    if (this.#stopped) return;
    await this.start();
    this.#say(`upstream ${this.name} is back (pid ${this.pid})`);
  }
}

/** Starts all of them and waits until each listens. */
export async function startUpstreams(
  specs: readonly UpstreamSpec[],
  say: (line: string) => void,
): Promise<{ upstreams: readonly DemoUpstream[]; stop(): void }> {
  const upstreams = specs.map((spec) => new Upstream(spec, say));
  await Promise.all(upstreams.map((upstream) => upstream.start()));
  return {
    upstreams,
    stop() {
      for (const upstream of upstreams) upstream.stop();
    },
  };
}

function entryPath(): string {
  // The built package has .js beside this file, a checkout .ts.
  return fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './demo-upstream.ts' : './demo-upstream.js', import.meta.url));
}
