// Plays a story of docs/migration.md: the demo as a process of its own, the page's commands in a shell, and callers who count every
// failed request and every provider that is registered somewhere and yet not in the view.
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './eventually.ts';
import { type Block, lacking } from './story-page.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const READY_MS = 60_000;
/** A block has this long to show what the page promises: a Polaris with a file store may show for 75 s what it removed. */
const BLOCK_MS = 120_000;
/** Between two requests of our caller, and two looks at the view. */
const CALL_MS = 10;
const LOOK_MS = 250;

export class StoryRun {
  readonly variables: ReadonlyMap<string, string>;
  readonly callers: Callers;
  readonly #demo: ChildProcess;
  readonly #home: string;
  readonly #output: () => string;

  constructor(demo: ChildProcess, home: string, variables: ReadonlyMap<string, string>, output: () => string) {
    this.#demo = demo;
    this.#home = home;
    this.variables = variables;
    this.#output = output;
    this.callers = new Callers(this.variable('PROXY'), this.variable('WEIR_API'), this.variable('STAGE'));
  }

  variable(name: string): string {
    return this.variables.get(name) ?? assert.fail(`the demo told no ${name}`);
  }

  /** Runs a block of the page; commands that were refused, or only look, are repeated until what the page promises is seen. */
  async play(block: Block): Promise<void> {
    const until = performance.now() + BLOCK_MS;
    for (;;) {
      const { code, output } = await this.shell(block.commands.join('\n'));
      const lacks = lacking(output, block.shows);
      if (lacks === null) return;
      const again =
        code !== 0 || block.commands.every((line) => !/migrate (start|rollback|cutover|finish|abort|collect)/.test(line));
      if (!again || performance.now() > until) {
        assert.fail(
          `${block.commands.join('\n')}\n-- the page promises: ${lacks}\n-- seen:\n${output}\n-- the stage:\n${this.#output().slice(-2_000)}`,
        );
      }
      await new Promise<void>((resolve) => setTimeout(resolve, 200));
    }
  }

  /** Both streams; the last command's exit code. `npm run -s weir --` is taken at its word without npm's own time. */
  shell(script: string): Promise<{ readonly code: number; readonly output: string }> {
    const prelude = `npm() { shift 4; "$NODE" "$ROOT/src/cli/main.ts" "$@"; }\nexec 2>&1\n`;
    const env = { ...process.env, ...Object.fromEntries(this.variables), NODE: process.execPath, ROOT };
    return new Promise((resolve) => {
      execFile('sh', ['-c', prelude + script], { cwd: ROOT, env, timeout: 30_000 }, (error, stdout) => {
        resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : 1, output: stdout });
      });
    });
  }

  async close(): Promise<void> {
    await this.callers.stop();
    await ended(this.#demo);
    await rm(this.#home, { recursive: true, force: true });
  }
}

/** Starts the stage; with `registries` on real ones, by the variables that name them. */
export async function startStory(story: string, registries: Readonly<Record<string, string>> | null = null): Promise<StoryRun> {
  const home = await mkdtemp(join(tmpdir(), 'weir-story-'));
  const args = [join(ROOT, 'src/cli/main.ts'), 'demo', '--story', story, ...(registries === null ? [] : ['--external'])];
  const env = { ...process.env, HOME: home, XDG_CACHE_HOME: join(home, '.cache'), ...registries };
  const demo = spawn(process.execPath, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  demo.stdout.on('data', keep);
  demo.stderr.on('data', keep);
  try {
    const variables = await eventually(
      async () => {
        if (demo.exitCode !== null) return null;
        return parsed(await readFile(join(home, '.cache/weir/demo.env'), 'utf8'));
      },
      READY_MS,
      50,
    );
    if (variables === null) assert.fail(`the demo ended: ${output}`);
    return new StoryRun(demo, home, variables, () => output);
  } catch (thrown) {
    await ended(demo);
    await rm(home, { recursive: true, force: true });
    throw thrown instanceof Error ? new Error(`${thrown.message}\n${output.slice(-2_000)}`) : thrown;
  }
}

function parsed(text: string): ReadonlyMap<string, string> {
  return new Map([...text.matchAll(/^export (\w+)='([^']*)'$/gm)].map(([, name = '', value = '']) => [name, value]));
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGINT');
  const hard = setTimeout(() => child.kill('SIGKILL'), 30_000);
  await gone;
  clearTimeout(hard);
}

/** One caller in a closed loop, and an observer of the view. */
export class Callers {
  requests = 0;
  readonly failures: string[] = [];
  /** `address`: registered somewhere, seen before, and missing from the view. */
  readonly lost: string[] = [];
  /** Told of every answer's upstream. */
  onUpstream: (upstream: string) => void = () => {};
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });
  readonly #running: Promise<unknown>;
  #stopped = false;

  constructor(proxy: string, api: string, stage: string) {
    this.#running = Promise.all([this.#call(proxy), this.#look(api, stage)]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    this.#agent.destroy();
  }

  async #call(proxy: string): Promise<void> {
    while (!this.#stopped) {
      const { status, upstream } = await one(`${proxy}/svc/default/hello/`, this.#agent);
      this.requests++;
      if (status === 200) this.onUpstream(upstream);
      else this.failures.push(`${status} ${upstream}`);
      await new Promise<void>((resolve) => setTimeout(resolve, CALL_MS));
    }
  }

  async #look(api: string, stage: string): Promise<void> {
    const seen = new Set<string>();
    while (!this.#stopped) {
      const before = await registered(stage);
      const answer: unknown = JSON.parse(await text(`${api}/v1/services/default/hello`));
      const view = new Set(Object(answer).instances.map(({ host, port }: { host: string; port: number }) => `${host}:${port}`));
      const after = await registered(stage);
      for (const address of before) {
        if (view.has(address)) seen.add(address);
        else if (seen.has(address) && after.has(address)) this.lost.push(address);
      }
      // Who left and comes back is seen anew.
      for (const address of seen) if (!after.has(address)) seen.delete(address);
      await new Promise<void>((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }
}

/** Addresses of providers that stand in a registry by themselves. */
async function registered(stage: string): Promise<ReadonlySet<string>> {
  const table = await text(`${stage}/providers`);
  return new Set([...table.matchAll(/^\S+ +(127\.0\.0\.1:\d+) +alive +[a-z]/gm)].map(([, address = '']) => address));
}

async function text(url: string): Promise<string> {
  const answer = await fetch(url);
  return answer.text();
}

function one(url: string, agent: Agent): Promise<{ readonly status: number | string; readonly upstream: string }> {
  return new Promise((resolve) => {
    const call = request(url, { agent }, (response) => {
      response.resume();
      const upstream = String(response.headers['x-weir-upstream'] ?? response.headers['x-weir-error'] ?? '');
      response.once('end', () => resolve({ status: response.statusCode ?? 0, upstream }));
      response.once('error', (error) => resolve({ status: error.message, upstream }));
    });
    call.once('error', (error) => resolve({ status: error.message, upstream: '' }));
    call.end();
  });
}
