// A real Nacos as a child process on loopback, from a distribution that somebody built or unpacked: WEIR_TEST_NACOS_HOME=<folder with
// target/nacos-server.jar and conf/>. Called by test/live/nacos-*. Needs java. Nothing here downloads or builds one, and CI has none.
import { access, cp, mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { ChildServer, type Command } from './child-server.ts';
import { freePortWith } from './free-port.ts';

export interface StartNacosOptions {
  /** Login is needed; the first administrator is `nacos` with this password. */
  readonly password?: string;
  /** Life of a token, seconds. */
  readonly tokenTtl?: number;
}

export interface NacosProcess {
  /** `host:port` of HTTP; the same over restarts. gRPC is 1,000 above. */
  readonly address: string;
  readonly grpcPort: number;
  /** 2 or 3. */
  readonly generation: number;
  readonly pid: number;
  /** Sends the signal; for SIGKILL and SIGTERM resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again (after `kill`); resolves when both ports serve. */
  restart(): Promise<void>;
  /** Kill, remove the data, start. */
  wipe(): Promise<void>;
  stop(): Promise<void>;
}

const READY_MS = 120_000;
const GRPC = 1_000;
const CONSOLE = 500;
/** Beside HTTP: raft, gRPC for clients and for members, the console. */
const COMPANIONS = [-1_000, GRPC, GRPC + 1, CONSOLE];
const SECRET = Buffer.from('weir-test-secret-key-of-enough-length-0123456789').toString('base64');

/** The folder of the distribution, or null and why there is none. */
export async function nacosHome(): Promise<{ readonly path: string | null; readonly how: string }> {
  const path = process.env['WEIR_TEST_NACOS_HOME'];
  if (path === undefined) return { path: null, how: 'set WEIR_TEST_NACOS_HOME=<folder of a Nacos 2.x or 3.x distribution>' };
  try {
    await access(jarOf(path));
  } catch {
    return { path: null, how: `WEIR_TEST_NACOS_HOME: there is no ${jarOf(path)}` };
  }
  return { path, how: path };
}

/** Resolves when it serves. Throws where there is no distribution. */
export async function startNacos(options: StartNacosOptions = {}): Promise<NacosProcess> {
  const { path, how } = await nacosHome();
  if (path === null) throw new Error(`nacos: ${how}`);
  const properties = await readFile(join(path, 'conf', 'application.properties'), 'utf8');
  const generation = properties.includes('nacos.server.main.port') ? 3 : 2;
  const server = new Server(
    path,
    generation,
    options,
    await freePortWith(COMPANIONS),
    await mkdtemp(join(tmpdir(), 'weir-nacos-')),
  );
  await server.start();
  if (options.password !== undefined) await server.firstUser(options.password);
  return server;
}

class Server extends ChildServer implements NacosProcess {
  readonly address: string;
  readonly grpcPort: number;
  readonly generation: number;
  readonly #distribution: string;
  readonly #options: StartNacosOptions;
  readonly #port: number;

  constructor(distribution: string, generation: number, options: StartNacosOptions, port: number, root: string) {
    super('nacos', root, READY_MS);
    this.#distribution = distribution;
    this.generation = generation;
    this.#options = options;
    this.#port = port;
    this.address = `127.0.0.1:${port}`;
    this.grpcPort = port + GRPC;
  }

  protected async command(): Promise<Command> {
    // Data, logs and plugins live below nacos.home, so that the distribution stays as it was.
    await cp(join(this.#distribution, 'conf'), join(this.root, 'conf'), { recursive: true, force: true });
    const auth = String(this.#options.password !== undefined);
    const properties = {
      'nacos.standalone': 'true',
      'nacos.home': this.root,
      'user.home': this.root,
      'server.address': '127.0.0.1',
      'nacos.server.ip': '127.0.0.1',
      'nacos.inetutils.ip-address': '127.0.0.1',
      'nacos.remote.server.grpc.sdk.listen.address': '127.0.0.1',
      ...(this.generation === 3
        ? { 'nacos.server.main.port': this.#port, 'nacos.console.port': this.#port + CONSOLE }
        : { 'server.port': this.#port }),
      'nacos.core.auth.enabled': auth,
      'nacos.core.auth.admin.enabled': auth,
      'nacos.core.auth.console.enabled': auth,
      'nacos.core.auth.system.type': 'nacos',
      'nacos.core.auth.server.identity.key': 'weir-test',
      'nacos.core.auth.server.identity.value': 'weir-test',
      'nacos.core.auth.plugin.nacos.token.secret.key': SECRET,
      'nacos.core.auth.plugin.nacos.token.expire.seconds': this.#options.tokenTtl ?? 18_000,
    };
    const args = [
      ...['-Xms128m', '-Xmx512m', '-XX:TieredStopAtLevel=1'],
      ...Object.entries(properties).map(([name, value]) => `-D${name}=${value}`),
      ...['-jar', jarOf(this.#distribution)],
      `--spring.config.additional-location=file:${this.root}/conf/`,
      `--logging.config=${this.root}/conf/nacos-logback.xml`,
      // 2.x and 3.x stand on different generations of the framework.
      `--server.max-http${this.generation === 3 ? '-request' : ''}-header-size=524288`,
    ];
    return { path: 'java', args, cwd: this.root };
  }

  /** 3.x knows no user at first, 2.x the same. */
  async firstUser(password: string): Promise<void> {
    const path = this.generation === 3 ? '/v3/auth/user/admin' : '/v1/auth/users/admin';
    await eventually(async () => {
      const answer = await this.#post(path, { password });
      assertOk(answer.status, await answer.text());
    }, 30_000);
    // 3.x reads its users again every few seconds.
    const login = this.generation === 3 ? '/v3/auth/user/login' : '/v1/auth/users/login';
    await eventually(async () => (await this.#post(login, { username: 'nacos', password })).ok, 40_000, 200);
  }

  #post(path: string, form: Readonly<Record<string, string>>): Promise<Response> {
    return fetch(`http://${this.address}/nacos${path}`, { method: 'POST', body: new URLSearchParams(form) });
  }

  /** gRPC serves before HTTP does (seen, 3.0.3), so HTTP is asked. */
  protected async serves(): Promise<boolean> {
    const path = this.generation === 3 ? '/v3/admin/core/state' : '/v1/console/server/state';
    const answer = await fetch(`http://${this.address}/nacos${path}`, { signal: AbortSignal.timeout(2_000) });
    return (await answer.text()).includes('"version"') && (await this.#up());
  }

  async #up(): Promise<boolean> {
    const answer = await fetch(`http://${this.address}/nacos/v1/ns/operator/metrics`, { signal: AbortSignal.timeout(2_000) });
    const text = await answer.text();
    // With authentication 3.x does not tell a stranger.
    return answer.status === 403 || text.includes('"UP"');
  }
}

function jarOf(home: string): string {
  return join(home, 'target', 'nacos-server.jar');
}

function assertOk(status: number, text: string): void {
  // Somebody was there before us: a restart keeps its users.
  if (status !== 200 && status !== 409) throw new Error(`${status} ${text}`);
}
