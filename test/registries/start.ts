// Real etcd servers as child processes on loopback. Called by live tests and by main.ts.
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EtcdClient } from '../../adapters/etcd/client.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { systemRandom } from '../../src/kernel/random.ts';
import { ChildServer, type Command } from './child-server.ts';
import { type EtcdVersion, etcdBinary } from './etcd.ts';
import { freePorts } from './free-port.ts';

const READY_MS = 60_000;

export interface StartEtcdOptions {
  readonly version: EtcdVersion;
  /** Kept at `stop` when given; else a temporary one is made and removed. */
  readonly dataDir?: string;
  /** Creates the user root with this password and switches authentication on. */
  readonly auth?: { readonly password: string };
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string; readonly clientCertAuth?: boolean };
  readonly extraArgs?: readonly string[];
}

export interface EtcdServer {
  /** `host:port` of the client URL; the same over restarts. */
  readonly endpoint: string;
  readonly version: EtcdVersion;
  readonly pid: number;
  /** Sends the signal; for SIGKILL and SIGTERM resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again (after `kill`), on the same data and port; resolves when it answers. */
  restart(): Promise<void>;
  /** Kill, remove the data, start: same flags, so cluster and member id stay. */
  wipe(): Promise<void>;
  /** Kill, copy the data away, start. */
  snapshotData(): Promise<void>;
  /** Kill, put the copy back, start. */
  restoreData(): Promise<void>;
  stop(): Promise<void>;
}

/** Resolves when the server answers. Throws when there is no binary of this version. */
export async function startEtcd(options: StartEtcdOptions): Promise<EtcdServer> {
  const { path, how } = await etcdBinary(options.version, true);
  if (path === null) throw new Error(`etcd ${options.version}: ${how}`);
  const [client = 0, peer = 0] = await freePorts(2);
  const root = await mkdtemp(join(tmpdir(), 'weir-etcd-'));
  const server = new Server(path, options, client, peer, root);
  await server.start();
  return server;
}

/** Members that form one cluster; each can be killed and restarted on its own. Resolves when all of them answer. */
export async function startEtcdCluster(version: EtcdVersion, size: number): Promise<readonly EtcdServer[]> {
  const { path, how } = await etcdBinary(version, true);
  if (path === null) throw new Error(`etcd ${version}: ${how}`);
  const ports = await freePorts(size * 2);
  const peers = ports.slice(size);
  const members = peers.map((peer, n) => `m${n}=http://127.0.0.1:${peer}`).join(',');
  const servers: Server[] = [];
  for (const [n, peer] of peers.entries()) {
    const root = await mkdtemp(join(tmpdir(), 'weir-etcd-'));
    servers.push(new Server(path, { version }, ports[n] ?? 0, peer, root, { name: `m${n}`, members }));
  }
  await Promise.all(servers.map((server) => server.start()));
  return servers;
}

class Server extends ChildServer implements EtcdServer {
  readonly endpoint: string;
  readonly version: EtcdVersion;
  readonly #path: string;
  readonly #options: StartEtcdOptions;
  readonly #peerPort: number;
  readonly #member: { readonly name: string; readonly members: string };
  #authOn = false;

  constructor(
    path: string,
    options: StartEtcdOptions,
    port: number,
    peerPort: number,
    root: string,
    member = { name: 'weir-test', members: `weir-test=http://127.0.0.1:${peerPort}` },
  ) {
    super(`etcd ${options.version}`, root, READY_MS, options.dataDir);
    this.#member = member;
    this.endpoint = `127.0.0.1:${port}`;
    this.version = options.version;
    this.#path = path;
    this.#options = options;
    this.#peerPort = peerPort;
  }

  override async start(): Promise<void> {
    await super.start();
    if (this.#options.auth !== undefined && !this.#authOn) await this.#switchAuthOn(this.#options.auth.password);
  }

  override async wipe(): Promise<void> {
    await this.kill('SIGKILL');
    this.#authOn = false;
    await super.wipe();
  }

  protected async command(): Promise<Command> {
    const { tls } = this.#options;
    const url = `${tls === undefined ? 'http' : 'https'}://${this.endpoint}`;
    const peer = `http://127.0.0.1:${this.#peerPort}`;
    const args = [
      ...['--name', this.#member.name, '--data-dir', this.data, '--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', this.#member.members],
      ...['--log-level', 'error', ...(this.version === '3.6' ? ['--unsafe-no-fsync'] : [])],
      ...(tls === undefined ? [] : ['--cert-file', tls.cert, '--key-file', tls.key, '--trusted-ca-file', tls.ca]),
      ...(tls?.clientCertAuth === true ? ['--client-cert-auth'] : []),
      ...(this.#options.extraArgs ?? []),
    ];
    const env = { ...process.env, ...(process.arch === 'arm64' ? { ETCD_UNSUPPORTED_ARCH: 'arm64' } : {}) };
    return { path: this.#path, args, env };
  }

  protected async serves(): Promise<boolean> {
    const { tls, auth } = this.#options;
    const client = new EtcdClient(
      [{ address: this.endpoint, tls: tls !== undefined }],
      {
        auth: this.#authOn && auth !== undefined ? { username: 'root', password: auth.password } : {},
        tls: tls === undefined ? null : { ca: tls.ca, cert: tls.cert, key: tls.key },
        timeout: 2_000,
        normalWeight: null,
      },
      { clock: systemClock, random: systemRandom },
    );
    try {
      await client.call('Range', { key: Buffer.from('/') }, AbortSignal.timeout(2_000));
      return true;
    } finally {
      client.close();
    }
  }

  async #switchAuthOn(password: string): Promise<void> {
    // The JSON gateway: our own client knows no call that changes users.
    const post = async (path: string, body: object): Promise<void> => {
      const answer = await fetch(`http://${this.endpoint}/v3/auth/${path}`, { method: 'POST', body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(`etcd auth ${path}: ${answer.status} ${await answer.text()}`);
    };
    await post('user/add', { name: 'root', password });
    await post('role/add', { name: 'root' });
    await post('user/grant', { user: 'root', role: 'root' });
    await post('enable', {});
    this.#authOn = true;
  }
}
