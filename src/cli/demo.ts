// Owns `weir demo` (npm start): a whole sidecar on one machine with three embedded registries that overlap and six small upstreams, a
// little traffic, live counters, and lines that say what to try. State lives in a temporary folder; Ctrl-C ends everything.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeirError } from '../kernel/errors.ts';
import { startTraffic } from './demo-traffic.ts';
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

/** Runs until it is stopped; resolves with the exit code. */
export async function demo(io: Io, signals: Signals = process): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-demo-'));
  const farm = await startUpstreams(SPECS, (line) => io.out(`${line}\n`));
  try {
    return await runUntilStopped(io, signals, async () => {
      const app = await startSidecar(folder, await readFile(confFile('demo.yaml'), 'utf8'));
      for (const one of REGISTERED) await register(app, one, farm.upstreams);
      io.out(introduction(app, farm.upstreams));
      return withTraffic(
        app,
        startTraffic({
          app,
          upstreams: farm.upstreams,
          path: (n) => (n % 8 === 0 ? '/svc/demo/report/' : '/svc/demo/hello/'),
          service: 'demo/hello',
          say: (line) => io.out(`${line}\n`),
        }),
      );
    });
  } finally {
    farm.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** The demo's own requests end before the drain: what a closed port refuses is no failure to show. */
export function withTraffic(app: Runnable, traffic: { stop(): void }): Runnable {
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

/** A sidecar with this configuration, on the usual ports where they are free; state and log (`weir.log`) go into the folder. */
export async function startSidecar(folder: string, config: string, logLevel: 'info' | 'warn' = 'warn'): Promise<Runnable> {
  const { startApp } = await import('../app.ts');
  const path = join(folder, 'weir.yaml');
  const start = async (text: string): Promise<Runnable> => {
    await writeFile(path, `${text}state: {dir: ${JSON.stringify(join(folder, 'state'))}}\n`);
    return startApp({ configPath: path, logLevel, logTo: join(folder, 'weir.log') });
  };
  let text = config;
  for (const port of [7900, 7980]) if (!(await isFree(port))) text = anyPort(text, port);
  try {
    return await start(text);
  } catch (thrown) {
    // Another demo was faster.
    if (!(thrown instanceof WeirError) || thrown.code !== 'LISTEN_FAILED') throw thrown;
    return start(anyPort(anyPort(text, 7900), 7980));
  }
}

function anyPort(text: string, port: number): string {
  return text.replace(`127.0.0.1:${port}`, '127.0.0.1:0');
}

/** A file of conf/, which stands beside src/ in a checkout and beside dist/ in the package. */
export function confFile(name: string): string {
  const up = import.meta.url.endsWith('.ts') ? '../../' : '../../../';
  return fileURLToPath(new URL(`${up}conf/${name}`, import.meta.url));
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
