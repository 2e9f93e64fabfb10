// Owns one listening socket and the connections it accepted: caps, exchanges, draining. Called by listeners.ts.
// It must never parse: sockets go to the codec at once.
import { unlink } from 'node:fs';
import net from 'node:net';
import {
  createDownstream,
  DOWNSTREAM_LIMITS,
  type Downstream,
  type DownstreamLimits,
  type DownstreamOptions,
  REFUSAL_FIELDS,
} from '../http1/downstream.ts';
import { addressClass, canonicalHost, isIpLiteral } from '../kernel/address.ts';
import type { OwnListener } from '../kernel/dial.ts';
import { WeirError } from '../kernel/errors.ts';
import type { Gauge } from '../telemetry/metrics.ts';
import { Exchange, type ListenerState } from './exchange.ts';
import type { ListenerFacts, ProxyContext } from './proxy-context.ts';
import type { ListenAddress } from './proxy-update.ts';

/** Connections per address that is not loopback (proxy-semantics §3). */
export const MAX_PER_ADDRESS = 1_000;

/** Turns of the loop that closing waits at most for an empty queue. */
const MAX_STOP_TURNS = 200;

/** What listeners share: the count of all connections, and the counters of what is refused. */
export interface ListenerDeps {
  readonly context: ProxyContext;
  readonly limits?: DownstreamLimits;
  /** All downstream connections together; nofile / 2 minus a reserve. */
  readonly maxConnections: number;
  readonly counts: { connections: number };
  /** Connections by remote address, over all listeners. */
  readonly perAddress: Map<string, number>;
  readonly onRefused: (status: number) => void;
  /** An inherited listening socket for this address, or null. */
  readonly inherited: (listen: ListenAddress) => number | null;
}

/** An open listening socket. */
export class Listener {
  readonly #deps: ListenerDeps;
  readonly #listen: ListenAddress;
  readonly #gauge: Gauge;
  readonly #server: net.Server;
  /** Asked for at every dial of a source: looked up once. */
  #own: OwnListener | null = null;
  readonly #state: ListenerState;
  readonly #options: DownstreamOptions;
  readonly #open = new Map<Downstream, Exchange>();
  /** Connections accepted so far. */
  accepted = 0;
  /** Told when a connection has closed; for the drain. */
  onConnectionClosed: () => void = () => {};

  constructor(deps: ListenerDeps, listen: ListenAddress, facts: ListenerFacts, gauge: Gauge) {
    this.#deps = deps;
    this.#listen = listen;
    this.#gauge = gauge;
    this.#state = { facts };
    this.#options = {
      open: (connection) => this.#opened(connection),
      wheel: deps.context.wheel,
      limits: deps.limits ?? DOWNSTREAM_LIMITS,
      draining: false,
      refusalFields: REFUSAL_FIELDS,
      onRefused: (status) => deps.onRefused(status),
    };
    this.#server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
  }

  /** Opens the socket. Rejects with a WeirError `LISTEN_FAILED` that names the address and the cause. */
  async listen(): Promise<void> {
    try {
      await this.#listenOnce();
    } catch (thrown) {
      if (!(await this.#clearStalePath(thrown))) throw listenFailed(this.#listen, thrown);
      await this.#listenOnce().catch((again: unknown) => {
        throw listenFailed(this.#listen, again);
      });
    }
    // From here an error (out of descriptors at accept) is survived; connections are closed by the system or wait.
    this.#server.on('error', () => {});
  }

  /** What new requests are filtered and routed by; open ones keep what they started with. */
  set facts(facts: ListenerFacts) {
    this.#state.facts = facts;
  }

  /** Where it listens now (the port, when 0 was asked for); null before and after, and for a path. */
  get address(): { readonly host: string; readonly port: number } | null {
    const address = this.#server.address();
    return address === null || typeof address === 'string' ? null : { host: address.address, port: address.port };
  }

  /** As the outbound policy wants to know it. */
  get own(): OwnListener | null {
    if (!this.#server.listening) return null;
    this.#own ??= this.#ownNow();
    return this.#own;
  }

  #ownNow(): OwnListener | null {
    const { address } = this;
    if (address === null) return null;
    const host = canonicalHost(address.host) ?? address.host;
    const unspecified = isIpLiteral(host) && addressClass(host) === 'unspecified';
    return { host: unspecified ? '*' : host, port: address.port };
  }

  /** While true every reply carries `Connection: close`. */
  set draining(draining: boolean) {
    this.#options.draining = draining;
  }

  get connections(): number {
    return this.#open.size;
  }

  /** Connections on which nothing is open. */
  get idle(): number {
    let n = 0;
    for (const connection of this.#open.keys()) if (connection.idle) n++;
    return n;
  }

  /** Accepts no more. Closing resets what waits in the kernel's queue, so it happens right after turns that found the queue empty. */
  async stop(): Promise<void> {
    let quiet = 0;
    for (let turn = 0; turn < MAX_STOP_TURNS && quiet < 2; turn++) {
      const before = this.accepted;
      await new Promise<void>((resolve) => setImmediate(resolve));
      quiet = this.accepted === before ? quiet + 1 : 0;
    }
    this.#server.close();
  }

  /** Requests, tunnels, and heads that are being read: what a drain waits for. */
  get pending(): number {
    let n = 0;
    for (const [connection, exchange] of this.#open) if (exchange.busy || !(connection.idle || connection.closing)) n++;
    return n;
  }

  /** Closes idle connections; `fresh`: also those that have not had a request yet, whose first one may be on its way. */
  closeIdle(fresh: boolean): void {
    for (const [connection, exchange] of [...this.#open]) if (fresh || exchange.used) connection.closeIfIdle();
  }

  /** Answers or cuts every open exchange. The sockets are destroyed by `destroy`. */
  hardStop(): void {
    for (const exchange of [...this.#open.values()]) if (exchange.busy) exchange.hardStop();
  }

  destroy(): void {
    this.#server.close();
    for (const connection of [...this.#open.keys()]) connection.destroy();
  }

  #accept(socket: net.Socket): void {
    const { counts, perAddress, maxConnections, context } = this.#deps;
    const address = socket.remoteAddress ?? '';
    const taken = perAddress.get(address) ?? 0;
    if (context.gate.stopAccepting || counts.connections >= maxConnections || isOneTooMany(address, taken)) {
      socket.on('error', () => {});
      socket.destroy();
      return;
    }
    counts.connections++;
    this.accepted++;
    perAddress.set(address, taken + 1);
    socket.on('close', () => this.#left(address));
    createDownstream(socket, this.#options);
  }

  #opened(connection: Downstream): Exchange {
    const exchange = new Exchange(this.#deps.context, this.#state, connection, () => {
      this.#open.delete(connection);
      this.#gauge.add(-1);
      this.onConnectionClosed();
    });
    this.#open.set(connection, exchange);
    this.#gauge.add(1);
    return exchange;
  }

  #left(address: string): void {
    const { counts, perAddress } = this.#deps;
    counts.connections--;
    const left = (perAddress.get(address) ?? 1) - 1;
    if (left > 0) perAddress.set(address, left);
    else perAddress.delete(address);
  }

  #listenOnce(): Promise<void> {
    const server = this.#server;
    const fd = this.#deps.inherited(this.#listen);
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      const ready = (): void => {
        server.off('error', reject);
        resolve();
      };
      const { host, port, path } = this.#listen;
      if (fd !== null) server.listen({ fd }, ready);
      else if (path !== undefined) server.listen({ path, backlog: 511 }, ready);
      else server.listen({ host, port, backlog: 1_024 }, ready);
    });
  }

  /** A socket file that a dead process left behind is removed: nobody answers on it. */
  #clearStalePath(thrown: unknown): Promise<boolean> {
    const { path } = this.#listen;
    if (path === undefined || !(thrown instanceof Error) || !('code' in thrown) || thrown.code !== 'EADDRINUSE') {
      return Promise.resolve(false);
    }
    return new Promise((resolve) => {
      const probe = net.connect({ path });
      probe.once('connect', () => {
        probe.destroy();
        resolve(false);
      });
      probe.once('error', () => unlink(path, (error) => resolve(error === null)));
    });
  }
}

/** Whether an address that has `taken` connections may have no more; this machine's own addresses are not limited. */
export function isOneTooMany(address: string, taken: number): boolean {
  return taken >= MAX_PER_ADDRESS && !isLocal(address);
}

function isLocal(address: string): boolean {
  return address === '' || address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}

/** For people: `127.0.0.1:7980` or the path. */
export function listenText(listen: ListenAddress): string {
  if (listen.path !== undefined) return `unix:${listen.path}`;
  return listen.host.includes(':') ? `[${listen.host}]:${listen.port}` : `${listen.host}:${listen.port}`;
}

function listenFailed(listen: ListenAddress, thrown: unknown): WeirError {
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : 'unknown';
  const why = code === 'EADDRINUSE' ? 'the address is in use' : code === 'EACCES' ? 'not permitted' : code;
  return new WeirError('LISTEN_FAILED', `cannot listen on ${listenText(listen)}: ${why}`, {
    details: { listen: listenText(listen), code },
    cause: thrown,
  });
}
