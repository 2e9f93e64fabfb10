// Owns `weir demo --story`: a sidecar between two registries (embedded ones, or those that the environment names), providers that are
// registered natively, steady traffic, and what to type next. A file in the user's cache tells other terminals the addresses.
// State lives in a temporary folder; Ctrl-C ends everything.
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NativeDoor, openEtcdDoor, startEmbedded } from '../app/embedded.ts';
import { messageOf } from '../kernel/errors.ts';
import { confFile, startSidecar, withTraffic } from './demo.ts';
import { consulDoor, nacosDoor, openCl5Door, polarisDoor, type Variables } from './demo-doors.ts';
import { Stage } from './demo-stage.ts';
import { STORIES, type Story } from './demo-stories.ts';
import { startTraffic } from './demo-traffic.ts';
import { type DemoUpstream, startUpstreams } from './demo-upstreams.ts';
import { type Io, usageFailure } from './io.ts';
import { type Runnable, runUntilStopped, type Signals } from './run.ts';

/** Every story moves this service. */
const SERVICE = 'default/hello';
const READY_MS = 15_000;
/** Taking copies out of real registries at the end. */
const TIDY_MS = 15_000;

export interface StoryOptions {
  readonly story: string;
  /** Real registries, by the variables of the environment. */
  readonly external?: boolean;
}

/** Runs until it is stopped; resolves with the exit code. */
export async function demoStory(io: Io, { story: id, external }: StoryOptions, signals: Signals = process): Promise<number> {
  const story = STORIES.find((one) => one.id === id);
  if (story === undefined) throw usageFailure(`--story: one of ${STORIES.map((one) => one.id).join(', ')}`);
  const registries = external === true ? outside(story, io.env) : await startEmbedded(story.registries);
  const ends: (() => unknown)[] = [() => registries.close()];
  const say = (line: string): void => io.out(`${line}\n`);
  try {
    const folder = await mkdtemp(join(tmpdir(), 'weir-demo-'));
    ends.push(() => rm(folder, { recursive: true, force: true }));
    const farm = await startUpstreams(
      story.providers.map(({ name }) => ({ name, kind: 'steady' })),
      say,
    );
    ends.push(() => farm.stop());
    const scene = { registries, folder, external: external === true, upstreams: farm.upstreams, ends };
    return await runUntilStopped(io, signals, () => begin(io, story, scene));
  } finally {
    for (const end of ends.reverse()) await end();
  }
}

interface Registries {
  readonly variables: Variables;
  readonly doors: ReadonlyMap<string, NativeDoor>;
  close(): Promise<void>;
}

interface Scene {
  readonly registries: Registries;
  readonly folder: string;
  readonly external: boolean;
  readonly upstreams: readonly DemoUpstream[];
  /** What must be undone, run backwards. */
  readonly ends: (() => unknown)[];
}

async function begin(io: Io, story: Story, { registries, folder, external, upstreams, ends }: Scene): Promise<Runnable> {
  const { variables } = registries;
  const say = (line: string): void => io.out(`${line}\n`);
  const text = filled(await readFile(confFile(story.config), 'utf8'), variables);
  const doors = await doorsOf(story, registries);
  const traffic = { requests: 0, failed: 0 };
  let live: { readonly requests: number; readonly failed: number } = traffic;
  const stage = new Stage({ upstreams, doors, traffic: () => live, say });
  ends.push(() => stage.close());
  const stageAddress = await stage.listen();
  for (const { name, registered } of story.providers) for (const registry of registered) await stage.put(name, registry);
  if (story.neighbour !== undefined) await settle(story.neighbour, variables, upstreams, ends);
  const app = await startSidecar(folder, text, 'info');
  await untilReady(app);
  const running = startTraffic({ app, upstreams, path: () => `/svc/${SERVICE}/`, service: SERVICE, say });
  live = running;
  const file = await writeVariables(
    io,
    new Map([...variables, ...ownVariables(app, stageAddress), ['LOG', join(folder, 'weir.log')]]),
  );
  ends.push(() => rm(file, { force: true }));
  io.out(introduction(story, app, file));
  const stopping = withTraffic(app, running);
  // Embedded registries end with this process; real ones must not keep what a broken-off story left in them.
  return external ? { ...stopping, drain: () => tidy(app, say).then(() => stopping.drain()) } : stopping;
}

/** Takes back every migration: abort while that can be, collect otherwise. Never rejects. */
async function tidy({ apiAddress }: Runnable, say: (line: string) => void): Promise<void> {
  const base = `${apiAddress}/v1/migrations`;
  const ask = async (path: string, body?: object): Promise<string> => {
    const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
    const answer = await fetch(`${base}${path}`, { signal: AbortSignal.timeout(TIDY_MS), ...(body === undefined ? {} : post) });
    return answer.text();
  };
  try {
    const until = Date.now() + TIDY_MS;
    for (;;) {
      const open = [...(await ask('')).matchAll(/"id":"([^"]+)","from":"[^"]*","to":"[^"]*","phase":"(\w+)"/g)];
      if (open.length === 0) return;
      if (Date.now() > until) return say('some copies could not be taken away');
      for (const [, id, phase] of open) {
        if (phase === 'finished' || phase === 'aborted') await ask(`/${id}/collect`, {});
        else if (phase === 'cutover') await ask(`/${id}/rollback`, {});
        else if (phase !== 'aborting') await ask(`/${id}/abort`, { force: true });
      }
      await new Promise<void>((resolve) => setTimeout(resolve, 200));
    }
  } catch (thrown) {
    say(`taking migrations back: ${messageOf(thrown)}`);
  }
}

/** The registries that the environment names. Polaris has a face of Nacos: `NACOS` is that one unless it is set. */
function outside(story: Story, env: ReadonlyMap<string, string>): Registries {
  const variables = new Map<string, string>();
  for (const name of story.needs) {
    const value = env.get(name) ?? (name === 'NACOS' ? env.get('POLARIS_NACOS') : undefined);
    if (value === undefined) {
      throw usageFailure(
        `${name} is not set: \`npm run registries -- up …\` in another terminal, then \`. <the file that it names>\` here`,
      );
    }
    variables.set(name, value);
  }
  return { variables, doors: new Map(), close: async () => {} };
}

async function doorsOf({ registries: kinds }: Story, { variables, doors }: Registries): Promise<ReadonlyMap<string, NativeDoor>> {
  const found = new Map(doors);
  for (const kind of kinds) {
    if (found.has(kind)) continue;
    if (kind === 'consul') found.set(kind, consulDoor(variables));
    else if (kind === 'nacos') found.set(kind, nacosDoor(variables));
    else if (kind === 'etcd') found.set(kind, await openEtcdDoor(variables.get('ETCD') ?? '', 'hello'));
    else if (kind === 'polaris') found.set(kind, polarisDoor(variables, 'default'));
    else found.set(kind, await openCl5Door(variables));
  }
  return found;
}

async function settle(
  { namespace, service }: NonNullable<Story['neighbour']>,
  variables: Variables,
  upstreams: readonly DemoUpstream[],
  ends: (() => unknown)[],
): Promise<void> {
  const door = polarisDoor(variables, namespace, service);
  const provider = { name: 'neighbour', host: '127.0.0.1', port: upstreams[0]?.port ?? 0 };
  await door.put(provider);
  ends.push(() => door.remove(provider));
}

function filled(text: string, variables: Variables): string {
  return text.replace(/\$\{(\w+)\}/g, (whole, name: string) => variables.get(name) ?? whole);
}

/** Traffic begins when every registry is heard and the proxy knows whom to ask. */
async function untilReady(app: Runnable): Promise<void> {
  const until = Date.now() + READY_MS;
  for (;;) {
    const sources = await (await fetch(`${app.apiAddress}/v1/sources`)).text();
    const answer = await fetch(`http://${app.proxyAddress}/svc/${SERVICE}/`);
    await answer.text();
    if (answer.ok && !/"state":\s*"(?!live")/.test(sources)) return;
    if (Date.now() > until) throw new Error(`not ready: ${answer.status} from the proxy, ${sources}`);
    await new Promise<void>((resolve) => setTimeout(resolve, 100));
  }
}

function ownVariables(app: Runnable, stage: string): Variables {
  return new Map([
    ['WEIR_API', app.apiAddress],
    ['PROXY', `http://${app.proxyAddress}`],
    ['STAGE', `http://${stage}`],
  ]);
}

async function writeVariables(io: Io, variables: Variables): Promise<string> {
  const folder = join(io.env.get('XDG_CACHE_HOME') ?? join(io.env.get('HOME') ?? homedir(), '.cache'), 'weir');
  const file = join(folder, 'demo.env');
  await mkdir(folder, { recursive: true });
  // Whole at once: whoever waits for the file reads it as soon as it is there.
  const made = `${file}.${process.pid}`;
  await rm(made, { force: true });
  // A token may be among them.
  await writeFile(made, [...variables].map(([name, value]) => `export ${name}='${value}'\n`).join(''), {
    mode: 0o600,
    flag: 'wx',
  });
  await rename(made, file);
  return file;
}

function introduction({ id, title, next, registries, providers }: Story, app: Runnable, file: string): string {
  const where = providers.map(({ name, registered }) => `${name}: ${registered.join(', ') || 'nowhere yet'}`).join('; ');
  return `
weir demo --story ${id}
${title}. The whole story: docs/migration.md

Registries ${registries.join(' and ')}; providers of ${SERVICE}: ${where}; about 40 requests a second through ${app.proxyAddress}

Type in another terminal, in this folder:
  . ${file}
${next.map((line) => `  ${line}`).join('\n')}
  curl -s $STAGE/traffic

Counters every 2 s, Ctrl-C stops everything:
`;
}
