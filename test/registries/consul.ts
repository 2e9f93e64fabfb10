// A real Consul as a child process on loopback, and its row in the table. Called by live tests and by main.ts.
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { builtBinary } from './cache.ts';
import { ChildServer, type Command } from './child-server.ts';
import { freePorts } from './free-port.ts';
import type { RegistryRow } from './table.ts';

export const CONSUL_VERSION = '1.14.11';
const READY_MS = 60_000;

export interface StartConsulOptions {
  /** One server with a data directory, which survives restarts; else a `-dev` agent, which forgets everything. */
  readonly data?: boolean;
  /** ACLs with default deny; this is the token that may do everything. */
  readonly rootToken?: string;
  /** Speaks HTTPS at `address` and plain HTTP at `plainAddress`; `verify`: no client without a certificate of `ca`. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string; readonly verify?: boolean };
  /** Opens the port over which a cluster peering comes. */
  readonly peering?: boolean;
  /** More configuration (HCL). */
  readonly hcl?: string;
}

export interface ConsulServer {
  /** `http(s)://host:port`; the same over restarts. */
  readonly address: string;
  /** `host:port`. */
  readonly endpoint: string;
  /** `http://host:port`; `address` unless TLS is on. */
  readonly plainAddress: string;
  /** `host:port` where servers speak to each other: no HTTP there. */
  readonly rpcEndpoint: string;
  readonly pid: number;
  /** Sends the signal; for SIGKILL and SIGTERM resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again (after `kill`); resolves when it has a leader. */
  restart(): Promise<void>;
  /** Kill, remove the data, start. */
  wipe(): Promise<void>;
  /** Kill, copy the data away, start. */
  snapshotData(): Promise<void>;
  /** Kill, put the copy back, start. */
  restoreData(): Promise<void>;
  stop(): Promise<void>;
}

/** The binary, or null and the reason. `build`: build it when it is missing. */
export function consulBinary(build: boolean): Promise<{ path: string | null; how: string }> {
  return builtBinary('consul', CONSUL_VERSION, build);
}

/** Resolves when the server has a leader. Throws when there is no binary. */
export async function startConsul(options: StartConsulOptions = {}): Promise<ConsulServer> {
  const { path, how } = await consulBinary(true);
  if (path === null) throw new Error(`consul: ${how}`);
  const ports = await freePorts(8);
  const server = new Server(path, options, ports, await mkdtemp(join(tmpdir(), 'weir-consul-')));
  await server.start();
  return server;
}

class Server extends ChildServer implements ConsulServer {
  readonly endpoint: string;
  readonly address: string;
  readonly plainAddress: string;
  readonly rpcEndpoint: string;
  readonly #path: string;
  readonly #options: StartConsulOptions;
  readonly #ports: readonly number[];

  constructor(path: string, options: StartConsulOptions, ports: readonly number[], root: string) {
    super('consul', root, READY_MS);
    this.endpoint = `127.0.0.1:${ports[0]}`;
    this.address = `${options.tls === undefined ? 'http' : 'https'}://${this.endpoint}`;
    this.plainAddress = options.tls === undefined ? this.address : `http://127.0.0.1:${ports[6]}`;
    this.rpcEndpoint = `127.0.0.1:${ports[3]}`;
    this.#path = path;
    this.#options = options;
    this.#ports = ports;
  }

  protected async command(): Promise<Command> {
    const { data, rootToken, tls, peering, hcl } = this.#options;
    const [http, grpc, dns, rpc, lan, wan, plain, grpcTls] = this.#ports;
    const args = [
      ...[
        'agent',
        '-bind',
        '127.0.0.1',
        '-client',
        '127.0.0.1',
        '-node',
        'weir-test',
        '-log-level',
        'err',
        '-grpc-tls-port',
        peering === true ? `${grpcTls}` : '-1',
      ],
      ...(data === true ? ['-server', '-bootstrap-expect', '1', '-data-dir', this.data] : ['-dev']),
      ...(tls === undefined ? ['-http-port', `${http}`] : ['-http-port', `${plain}`, '-https-port', `${http}`]),
      ...['-grpc-port', `${grpc}`, '-dns-port', `${dns}`, '-server-port', `${rpc}`],
      ...['-serf-lan-port', `${lan}`, '-serf-wan-port', `${wan}`, '-hcl', 'performance { raft_multiplier = 1 }'],
      ...(rootToken === undefined
        ? []
        : [
            '-hcl',
            `acl { enabled = true, default_policy = "deny", tokens { initial_management = "${rootToken}", agent = "${rootToken}" } }`,
          ]),
      ...(tls === undefined
        ? []
        : [
            '-hcl',
            `tls { https { ca_file = "${tls.ca}", cert_file = "${tls.cert}", key_file = "${tls.key}", verify_incoming = ${tls.verify === true} } }`,
          ]),
      ...(hcl === undefined ? [] : ['-hcl', hcl]),
    ];
    return { path: this.#path, args };
  }

  protected async serves(): Promise<boolean> {
    const { rootToken } = this.#options;
    const headers = rootToken === undefined ? {} : { 'x-consul-token': rootToken };
    const signal = AbortSignal.timeout(2_000);
    // It has a leader, and the agent has told the servers of itself: sessions and `serfHealth` need that.
    const answer = await fetch(`${this.plainAddress}/v1/health/node/weir-test`, { headers, signal });
    const text = await answer.text();
    return answer.status === 200 && text.includes('serfHealth');
  }
}

export const consul: RegistryRow = {
  name: 'consul',
  async find(build) {
    const address = process.env['WEIR_TEST_CONSUL'];
    if (address !== undefined) return { available: true, how: `WEIR_TEST_CONSUL=${address}` };
    const { path, how } = await consulBinary(build);
    return { available: path !== null, how };
  },
  async up() {
    const server = await startConsul();
    return {
      endpoint: server.endpoint,
      settings: ['sources:', `  - {id: consul, kind: consul, address: "${server.address}", register: true, allowLoopback: true}`],
      variables: { CONSUL: server.endpoint, CONSUL_PID: server.pid },
      stop: () => server.stop(),
    };
  },
};
