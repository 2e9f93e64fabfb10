// Owns `weir demo` (npm start): a whole sidecar on one machine with three embedded registries that overlap and six small upstreams, a
// little traffic, live counters, and lines that say what to try. State lives in a temporary folder; Ctrl-C ends everything.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DemoCounters } from './demo-counters.ts';
import { type DemoUpstream, startUpstreams, type UpstreamSpec } from './demo-upstreams.ts';
import type { Io } from './io.ts';
import { type Runnable, runUntilStopped, type Signals } from './run.ts';

const SPECS: readonly UpstreamSpec[] = [
  { name: 'a', kind: 'steady' },
  { name: 'b', kind: 'steady' },
  { name: 'c', kind: 'flaky' },
  { name: 'd', kind: 'steady' },
  { name: 'e', kind: 'steady' },
  { name: 'f', kind: 'slow' },
];

/**
 * Which upstream is registered where. `b` lives in all three registries, which differ on its weight and version (conflicts to look at);
 * `legacy` calls the service by another name, see conf/demo.yaml.
 */
const REGISTERED: readonly {
  readonly service: string;
  readonly upstream: string;
  readonly source: string;
  readonly weight: number;
  readonly version?: string;
}[] = [
  { service: 'demo/hello', upstream: 'a', source: 'east', weight: 100 },
  { service: 'demo/hello', upstream: 'b', source: 'east', weight: 100, version: '1.5' },
  { service: 'demo/hello', upstream: 'b', source: 'west', weight: 50, version: '1.5' },
  { service: 'demo/hello', upstream: 'b', source: 'legacy', weight: 200, version: '1.4' },
  { service: 'demo/hello', upstream: 'c', source: 'west', weight: 100 },
  { service: 'demo/hello', upstream: 'd', source: 'legacy', weight: 100 },
  { service: 'demo/report', upstream: 'e', source: 'east', weight: 100 },
  { service: 'demo/report', upstream: 'f', source: 'west', weight: 100 },
];

const REQUEST_EVERY_MS = 25;
const COUNTERS_EVERY_MS = 2_000;

/** Runs until it is stopped; resolves with the exit code. */
export async function demo(io: Io, signals: Signals = process): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-demo-'));
  const farm = await startUpstreams(SPECS, (line) => io.out(`${line}\n`));
  try {
    return await runUntilStopped(io, signals, async () => {
      const app = await startSidecar(folder);
      for (const one of REGISTERED) await register(app, one, farm.upstreams);
      io.out(introduction(app, farm.upstreams));
      return withTraffic(
        app,
        startTraffic(app, farm.upstreams, (line) => io.out(`${line}\n`)),
      );
    });
  } finally {
    farm.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** The demo's own requests end before the drain: what a closed port refuses is no failure to show. */
function withTraffic(app: Runnable, traffic: { stop(): void }): Runnable {
  const { apiAddress, proxyAddress } = app;
  return {
    apiAddress,
    proxyAddress,
    drain() {
      traffic.stop();
      return app.drain();
    },
    close() {
      traffic.stop();
      return app.close();
    },
  };
}

async function startSidecar(folder: string): Promise<Runnable> {
  const { startApp } = await import('../app.ts');
  let text = await readFile(demoConfigPath(), 'utf8');
  for (const port of [7900, 7980]) if (!(await isFree(port))) text = text.replace(`127.0.0.1:${port}`, '127.0.0.1:0');
  const path = join(folder, 'weir.yaml');
  await writeFile(path, `${text}state: {dir: ${JSON.stringify(join(folder, 'state'))}}\n`);
  return startApp({ configPath: path, logLevel: 'warn', logTo: join(folder, 'weir.log') });
}

function demoConfigPath(): string {
  // conf/ stands beside src/ in a checkout and beside dist/ in the package.
  return fileURLToPath(
    new URL(import.meta.url.endsWith('.ts') ? '../../conf/demo.yaml' : '../../../conf/demo.yaml', import.meta.url),
  );
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

async function register(
  app: Runnable,
  { service, upstream, source, weight, version }: (typeof REGISTERED)[number],
  upstreams: readonly DemoUpstream[],
): Promise<void> {
  const port = upstreams.find(({ name }) => name === upstream)?.port ?? 0;
  const answer = await fetch(`${app.apiAddress}/v1/registrations/${service}/${upstream}-${source}`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ host: '127.0.0.1', port, weight, version, metadata: { upstream }, sources: [source] }),
  });
  if (!answer.ok) throw new Error(`registering ${upstream} in ${source}: ${answer.status} ${await answer.text()}`);
}

function introduction(app: Runnable, upstreams: readonly DemoUpstream[]): string {
  const api = app.apiAddress;
  const proxy = `http://${app.proxyAddress}`;
  const flag = api.endsWith(':7900') ? '' : ` --api ${api}`;
  const portOf = (name: string): number => upstreams.find((one) => one.name === name)?.port ?? 0;
  const victim = upstreams.find(({ name }) => name === 'a');
  const lines: readonly (readonly [string, string])[] = [
    [`curl -i ${proxy}/svc/demo/hello/`, 'a request; x-weir-upstream says who answered'],
    [`curl -s -H 'Host: hello.demo.weir' ${proxy}/`, 'the same by Host'],
    [`npm run -s weir -- instances demo/hello${flag}`, 'one view of three registries: b stands in all of them'],
    [`curl -s ${api}/v1/services/demo/hello`, 'the same as JSON: provenance, and conflicts of weight and version'],
    [`npm run -s weir -- explain demo/hello${flag}`, 'why each instance is in or out, and what each registry says'],
    [`kill -9 ${victim?.pid ?? 0}`, 'upstream a dies: retries, ejection, and recovery 15 s later'],
    [`npm run -s weir -- isolate demo/hello 127.0.0.1:${portOf('d')} --for 30s${flag}`, 'takes d out by hand'],
  ];
  const width = Math.max(...lines.map(([command]) => command.length));
  const about = ({ name, port, pid, kind }: DemoUpstream): string =>
    `${name}=127.0.0.1:${port} (pid ${pid}${kind === 'steady' ? '' : `, ${kind}`})`;
  return `
weir demo: three embedded registries (east, west, legacy), six upstreams, one catalog, one proxy. API ${api}, proxy ${proxy}

Try in another terminal:
${lines.map(([command, what]) => `  ${command.padEnd(width)}  # ${what}`).join('\n')}

Upstreams: ${upstreams.map(about).join('  ')}
Counters every 2 s, Ctrl-C stops everything:
`;
}

/** About 40 requests a second through the proxy, open loop, and a line of counters. */
function startTraffic(app: Runnable, upstreams: readonly DemoUpstream[], say: (line: string) => void): { stop(): void } {
  const counters = new DemoCounters(upstreams);
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const [host = '127.0.0.1', port = '0'] = app.proxyAddress.split(':');
  let n = 0;
  const asking = setInterval(() => {
    const path = ++n % 8 === 0 ? '/svc/demo/report/' : '/svc/demo/hello/';
    const call = request({ host, port, path, agent }, (response) => {
      response.resume();
      const { headers, statusCode = 0 } = response;
      counters.answered(statusCode, Number(headers['x-weir-attempts'] ?? 0), String(headers['x-weir-upstream'] ?? ''));
    });
    call.on('error', () => counters.answered(0, 0, ''));
    call.end();
  }, REQUEST_EVERY_MS);
  const telling = setInterval(() => void tell(app, counters, say), COUNTERS_EVERY_MS);
  return {
    stop() {
      clearInterval(asking);
      clearInterval(telling);
      agent.destroy();
    },
  };
}

async function tell(app: Runnable, counters: DemoCounters, say: (line: string) => void): Promise<void> {
  try {
    const answer = await fetch(`${app.apiAddress}/v1/services/demo/hello`);
    say(counters.line(await answer.json(), COUNTERS_EVERY_MS));
  } catch {
    // The sidecar is stopping: there is nothing left to count.
  }
}
