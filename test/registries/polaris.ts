// A real Polaris as a child process on loopback (with its L5 and Nacos-compatible servers), and its row in the table. Called by live
// tests and by main.ts. Owns its configuration.
import { execFile } from 'node:child_process';
import { access, chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { parse, stringify } from 'yaml';
import { builtBinary, cacheDirectory } from './cache.ts';
import { ChildServer, type Command } from './child-server.ts';
import { freePorts, freePortWith } from './free-port.ts';
import type { RegistryRow } from './table.ts';

export const POLARIS_VERSION = '1.18.1';
const READY_MS = 60_000;
/** From the port of the Nacos HTTP API to that of its gRPC service. */
const NACOS_GRPC = 1_000;
const MODULE = 'github.com/polarismesh/polaris';

export interface StartPolarisOptions {
  /** Where the store file lives; kept at `stop` when given, else a temporary one is made and removed. */
  readonly dataDir?: string;
  /** Judges tokens of clients (Discover, Register); `strict` refuses anonymous ones. Default: off, as Polaris has it. */
  readonly clientAuth?: 'off' | 'loose' | 'strict';
  /** The gRPC port speaks TLS with this certificate. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
  /** False: the L5 port is open, but its answers are not switched on (`naming.l5Open`), so that its first question ends the process. */
  readonly l5Open?: boolean;
  /** Requests a second that the server takes of one method of gRPC (`/v1.PolarisGRPC/Discover`); twice as many at once. Default: any. */
  readonly apiLimit?: { readonly method: string; readonly rate: number };
  /** The log of every request (0.3 kB each) is written; default: errors only. */
  readonly accessLog?: boolean;
}

export interface PolarisServer {
  /** `host:port` of the discovery and registration service; this and the other ports stay the same over restarts. */
  readonly grpc: string;
  /** `host:port` of the console and client HTTP API. */
  readonly http: string;
  /** `host:port` of the L5 central protocol. */
  readonly l5: string;
  /** `host:port` of the Nacos 1.x HTTP API; its gRPC port is 1000 higher. */
  readonly nacos: string;
  /** Token of the seeded owner `polaris`; another one after `wipe`. */
  readonly token: string;
  readonly pid: number;
  /** Sends the signal; for SIGKILL and SIGTERM resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again (after `kill`), on the same data and ports; resolves when it answers. */
  restart(): Promise<void>;
  /** Kill, remove the data, start. */
  wipe(): Promise<void>;
  /** Kill, copy the data away, start. */
  snapshotData(): Promise<void>;
  /** Kill, put the copy back, start. */
  restoreData(): Promise<void>;
  /** A call of the console API with the owner's token; the decoded JSON. Throws for HTTP errors except with `any`. */
  console(method: string, path: string, body?: unknown, any?: 'any'): Promise<Record<string, unknown>>;
  stop(): Promise<void>;
}

/** The binary, or null and the reason. `build`: build it when it is missing. */
export function polarisBinary(build: boolean): Promise<{ path: string | null; how: string }> {
  return builtBinary('polaris', POLARIS_VERSION, build);
}

/** Resolves when all its ports answer. Throws when there is no binary. */
export async function startPolaris(options: StartPolarisOptions = {}): Promise<PolarisServer> {
  const { path, how } = await polarisBinary(true);
  if (path === null) throw new Error(`polaris: ${how}`);
  const conf = await configurationFolder();
  const [grpc = 0, http = 0, l5 = 0] = await freePorts(3);
  const ports = { grpc, http, l5, nacos: await freePortWith([NACOS_GRPC]) };
  const server = new Server(path, conf, options, ports, await mkdtemp(join(tmpdir(), 'weir-polaris-')));
  await server.start();
  return server;
}

interface Ports {
  readonly grpc: number;
  readonly http: number;
  readonly l5: number;
  readonly nacos: number;
}

class Server extends ChildServer implements PolarisServer {
  readonly #path: string;
  readonly #conf: string;
  readonly #options: StartPolarisOptions;
  readonly #ports: Ports;
  #token = '';

  constructor(path: string, conf: string, options: StartPolarisOptions, ports: Ports, root: string) {
    super('polaris', root, READY_MS, options.dataDir);
    this.#path = path;
    this.#conf = conf;
    this.#options = options;
    this.#ports = ports;
  }

  get grpc(): string {
    return `127.0.0.1:${this.#ports.grpc}`;
  }

  get http(): string {
    return `127.0.0.1:${this.#ports.http}`;
  }

  get l5(): string {
    return `127.0.0.1:${this.#ports.l5}`;
  }

  get nacos(): string {
    return `127.0.0.1:${this.#ports.nacos}`;
  }

  get token(): string {
    return this.#token;
  }

  protected async command(): Promise<Command> {
    await mkdir(this.data, { recursive: true });
    const conf = join(this.root, 'conf');
    if (!(await exists(conf))) await this.#writeConfiguration(conf);
    return { path: this.#path, args: ['start', '-c', join(conf, 'polaris-server.yaml')], cwd: this.root };
  }

  /** The login works and every port is open (they are opened one after the other). */
  protected async serves(): Promise<boolean> {
    const login = { owner: 'polaris', name: 'polaris', password: 'polaris' };
    const answer = await this.console('POST', '/core/v1/user/login', login);
    const { token } = Object(answer['loginResponse']);
    if (typeof token !== 'string' || token === '') return false;
    this.#token = token;
    return this.output.includes('finish starting server');
  }

  async console(method: string, path: string, body?: unknown, any?: 'any'): Promise<Record<string, unknown>> {
    const answer = await fetch(`http://${this.http}${path}`, {
      method,
      headers: { 'content-type': 'application/json', 'x-polaris-token': this.#token },
      signal: AbortSignal.timeout(10_000),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok && any === undefined) throw new Error(`polaris ${method} ${path}: ${answer.status} ${text.slice(0, 300)}`);
    return JSON.parse(text);
  }

  async #writeConfiguration(folder: string): Promise<void> {
    await cp(this.#conf, folder, { recursive: true });
    const file = join(folder, 'polaris-server.yaml');
    await writeFile(file, stringify(configuration(parse(await readFile(file, 'utf8')), this.#ports, this.data, this.#options)));
    await writeFile(join(folder, 'plugin', 'ratelimit', 'rule.yaml'), stringify(rateLimits(this.#options)));
  }
}

/** The server's own file with loopback addresses, free ports, L5 switched on and what we do not speak left out. */
function configuration(
  file: Record<string, Record<string, unknown>>,
  ports: Ports,
  data: string,
  options: StartPolarisOptions,
): object {
  const { tls, clientAuth = 'off' } = options;
  const apiservers = Object(file['apiservers']).map(({ name, option, api }: { name: string; option: object; api?: object }) => ({
    name,
    option: { ...option, listenIP: '127.0.0.1', listenPort: portOf(name, ports) },
    ...(api === undefined ? {} : { api }),
  }));
  const wanted = apiservers.filter(({ option }: { option: { listenPort: number | null } }) => option.listenPort !== null);
  for (const { name, option } of wanted) {
    if (name !== 'service-grpc') continue;
    option.tls = tls === undefined ? undefined : { certFile: tls.cert, keyFile: tls.key, trustedCAFile: tls.ca };
  }
  const services = [
    { name: 'polaris.checker', protocols: ['service-grpc'] },
    { name: 'cl5.discover', protocols: ['service-l5'] },
  ];
  const logger = Object.entries(Object(file['bootstrap']?.['logger'])).map(([scope, how]) => {
    const quiet = options.accessLog === true ? {} : { outputLevel: 'error' };
    return [scope, { ...Object(how), ...quiet }];
  });
  const ratelimit = {
    ...Object(Object(file['plugin']?.['ratelimit'])['option']),
    enable: options.apiLimit !== undefined,
    'rule-file': './conf/plugin/ratelimit/rule.yaml',
  };
  const strategy = {
    consoleOpen: true,
    consoleStrict: true,
    clientOpen: clientAuth !== 'off',
    clientStrict: clientAuth === 'strict',
  };
  return {
    ...file,
    bootstrap: {
      ...file['bootstrap'],
      logger: Object.fromEntries(logger),
      polaris_service: { enable_register: true, self_address: '127.0.0.1', services },
    },
    apiservers: [
      ...wanted,
      { name: 'service-l5', option: { listenIP: '127.0.0.1', listenPort: ports.l5, clusterName: 'cl5.discover' } },
    ],
    auth: { ...file['auth'], strategy: { name: 'defaultStrategy', option: strategy } },
    // Without it the first request of L5 ends the process.
    naming: { ...file['naming'], l5Open: options.l5Open !== false },
    plugin: { ...file['plugin'], ratelimit: { ...Object(file['plugin']?.['ratelimit']), option: ratelimit } },
    store: { name: 'boltdbStore', option: { path: join(data, 'polaris.bolt') } },
  };
}

/** The rule file of the server's rate limiter. */
function rateLimits({ apiLimit }: StartPolarisOptions): object {
  const off = { open: false, global: { open: false, bucket: 300, rate: 200 }, 'resource-cache-amount': 1024, 'white-list': [] };
  const limit = { open: true, bucket: 2 * (apiLimit?.rate ?? 1), rate: apiLimit?.rate ?? 1 };
  return {
    // The file replaces the option of the same name; without it here the server limits nothing.
    enable: apiLimit !== undefined,
    'ip-limit': off,
    'instance-limit': off,
    'api-limit': {
      open: apiLimit !== undefined,
      rules: [{ name: 'ours', limit }],
      apis: apiLimit === undefined ? [] : [{ name: apiLimit.method, rule: 'ours' }],
    },
  };
}

function portOf(apiserver: string, ports: Ports): number | null {
  if (apiserver === 'api-http') return ports.http;
  if (apiserver === 'service-grpc') return ports.grpc;
  return apiserver === 'service-nacos' ? ports.nacos : null;
}

/** `release/conf` of the server's module, copied beside the binary once: it is read-only there, and Go is needed to find it. */
async function configurationFolder(): Promise<string> {
  const folder = join(cacheDirectory(), `polaris-${POLARIS_VERSION}-conf`);
  if (await exists(folder)) return folder;
  const cwd = new URL('./polaris/', import.meta.url).pathname;
  const download = ['mod', 'download', '-json', `${MODULE}@v${POLARIS_VERSION}`];
  const { stdout } = await promisify(execFile)('go', download, { cwd, timeout: 300_000, maxBuffer: 1024 * 1024 });
  const { Dir } = JSON.parse(stdout);
  const temporary = `${folder}.${process.pid}.tmp`;
  await cp(join(String(Dir), 'release', 'conf'), temporary, { recursive: true });
  await writable(temporary);
  // Another test process may have been faster.
  await rename(temporary, folder).catch(() => rm(temporary, { recursive: true, force: true }));
  return folder;
}

async function writable(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await writable(join(folder, entry.name));
    else await chmod(join(folder, entry.name), 0o644);
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

export const polaris: RegistryRow = {
  name: 'polaris',
  async find(build) {
    const address = process.env['WEIR_TEST_POLARIS'];
    if (address !== undefined) return { available: true, how: `WEIR_TEST_POLARIS=${address}` };
    const { path, how } = await polarisBinary(build);
    return { available: path !== null, how };
  },
  async up() {
    const server = await startPolaris();
    return {
      endpoint: server.grpc,
      settings: [
        'sources:',
        `  - {id: polaris, kind: polaris, servers: ["${server.grpc}"], namespace: default, register: true, allowLoopback: true}`,
        `# L5 at ${server.l5}, Nacos-compatible API at ${server.nacos}, console API at http://${server.http} (polaris / polaris)`,
      ],
      variables: {
        POLARIS: server.grpc,
        POLARIS_HTTP: server.http,
        POLARIS_L5: server.l5,
        POLARIS_NACOS: server.nacos,
        POLARIS_TOKEN: server.token,
        POLARIS_PID: server.pid,
      },
      stop: () => server.stop(),
    };
  },
};
