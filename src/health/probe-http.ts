// Owns the HTTP check: GET of a path, the expected statuses pass, redirects are answers like any other. undici, loaded at the first
// check; one connection a target. Called by the prober through the Probe port. Must never follow a redirect, nor take more than a path
// from outside.
import { connect as connectSocket, type Socket } from 'node:net';
import type { buildConnector, Client, Dispatcher } from 'undici';
import { hostPort } from '../kernel/address.ts';
import { dialAddress, type Resolve, systemResolve } from './dial-address.ts';
import { failed, PASS, type Probe, type ProbeResult, type ProbeRun, type ProbeTarget, reasonOf, targetKey } from './probe.ts';

/** Enough for any health page; more of a body is not read and the connection is given up. */
const MAX_BODY_BYTES = 65_536;
/** The check's own deadline comes first; these only keep undici from waiting for ever. */
const BACKSTOP_MS = 120_000;

type Undici = typeof import('undici');

interface Connection {
  readonly client: Client;
  /** The judge of the run that is under way; a new socket is dialled by it. */
  how: ProbeRun | null;
  /** Sockets that were opened so far. */
  opened: number;
}

export class HttpProbe implements Probe {
  readonly #resolve: Resolve;
  readonly #connections = new Map<string, Connection>();
  #undici: Promise<Undici> | null = null;

  constructor(resolve: Resolve = systemResolve) {
    this.#resolve = resolve;
  }

  async run(target: ProbeTarget, how: ProbeRun): Promise<ProbeResult> {
    let undici: Undici;
    try {
      this.#undici ??= import('undici');
      undici = await this.#undici;
      how.signal.throwIfAborted();
    } catch (thrown) {
      return failed(reasonOf(thrown));
    }
    const key = targetKey(target);
    // What may not be dialled is not asked over an old connection either.
    const connection = this.#connections.get(key) ?? this.#open(target, undici);
    this.#connections.set(key, connection);
    connection.how = how;
    const first = await this.#attempt(connection, target, how);
    const result = first === 'reused' ? await this.#attempt(connection, target, how) : first;
    connection.how = null;
    if (!how.keep || result === 'reused' || !result.ok) this.drop(target);
    return result === 'reused' ? failed('reset on a reused connection, twice') : result;
  }

  drop(target: ProbeTarget): void {
    const key = targetKey(target);
    const connection = this.#connections.get(key);
    if (connection === undefined) return;
    this.#connections.delete(key);
    connection.client.destroy().catch(() => {
      // A client that is gone already has nothing left to close.
    });
  }

  async close(): Promise<void> {
    const all = [...this.#connections.values()];
    this.#connections.clear();
    await Promise.allSettled(all.map(({ client }) => client.destroy()));
  }

  /** 'reused': the check failed on a connection that had served before: it is repeated once (R8). */
  async #attempt(connection: Connection, target: ProbeTarget, how: ProbeRun): Promise<ProbeResult | 'reused'> {
    const refused = how.dial(target.host, target.port);
    if (refused !== null) return failed(`not dialled: ${refused}`);
    const openedBefore = connection.opened;
    try {
      const response = await connection.client.request({
        method: 'GET',
        path: target.path,
        headers: { host: target.hostHeader ?? hostPort(target.host, target.port), 'user-agent': 'weir-health', accept: '*/*' },
        signal: how.signal,
      });
      return await judge(response, target, how.signal);
    } catch (thrown) {
      const reused = openedBefore > 0 && connection.opened === openedBefore;
      return reused && !how.signal.aborted ? 'reused' : failed(reasonOf(how.signal.aborted ? how.signal.reason : thrown));
    }
  }

  #open(target: ProbeTarget, undici: Undici): Connection {
    const connector: buildConnector.connector = (_options, callback) => {
      this.#dial(target, connection).then(
        (socket) => callback(null, socket),
        (thrown: unknown) => callback(thrown instanceof Error ? thrown : new Error(String(thrown)), null),
      );
    };
    const client = new undici.Client(`http://${hostPort(target.host, target.port)}`, {
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: 4_000,
      keepAliveMaxTimeout: 600_000,
      keepAliveTimeoutThreshold: 2_000,
      headersTimeout: BACKSTOP_MS,
      bodyTimeout: BACKSTOP_MS,
      maxHeaderSize: 16_384,
      strictContentLength: true,
      connect: connector,
    });
    const connection: Connection = { client, how: null, opened: 0 };
    return connection;
  }

  async #dial(target: ProbeTarget, connection: Connection): Promise<Socket> {
    const how = connection.how;
    if (how === null) throw new Error('no check is under way');
    const address = await dialAddress(target.host, target.port, how.dial, this.#resolve, how.signal);
    const socket = await openSocket(address, target.port, how.signal);
    connection.opened++;
    return socket;
  }
}

/** The status decides; the body is read to its end (or its cap) so that the connection can be used again. */
async function judge(response: Dispatcher.ResponseData, target: ProbeTarget, signal: AbortSignal): Promise<ProbeResult> {
  const { statusCode, body } = response;
  const expected = target.expectedStatuses.some(([from, to]) => statusCode >= from && statusCode <= to);
  try {
    await body.dump({ limit: MAX_BODY_BYTES, signal });
  } catch (thrown) {
    // A body that never ends or breaks off is no health page; the wrong status has spoken by itself.
    if (expected) return failed(signal.aborted ? reasonOf(signal.reason) : `body: ${reasonOf(thrown)}`);
  }
  return expected ? PASS : failed(`status ${statusCode}`, true);
}

function openSocket(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const socket = connectSocket({ host, port, noDelay: true });
    const stop = (): void => {
      signal.removeEventListener('abort', onAbort);
      socket.off('error', onError);
    };
    const onAbort = (): void => {
      stop();
      socket.on('error', () => {});
      socket.destroy();
      reject(signal.reason);
    };
    const onError = (thrown: Error): void => {
      stop();
      reject(thrown);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('error', onError);
    socket.once('connect', () => {
      stop();
      resolve(socket);
    });
  });
}
