// Owns the way to a cluster: which member is asked now, the connections, the token, the files of TLS.
// Called by everything in this folder that talks to etcd; must never retry but once after a fresh token (section 1).
import { readFile } from 'node:fs/promises';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { canonicalHost } from '../../src/kernel/address.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { type Random, randomBelow } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { type CallStream, Connection, loadGrpc, type Purpose, type TlsMaterial } from './connection.ts';
import { connectionFault, DEADLINE_EXCEEDED, EtcdFailure, isAuthOff, isTokenFault } from './errors.ts';
import type { CallName, Calls } from './protocol.ts';

export interface Endpoint {
  /** `host:port`. */
  readonly address: string;
  readonly tls: boolean;
}

/** `http://h:p`, `https://h:p` or `h:p` (TLS when `tls` is set) → endpoint; a text that says what is wrong otherwise. */
export function parseEndpoint(text: string, tlsConfigured: boolean): Endpoint | string {
  const match = /^(?:(https?):\/\/)?(\[[0-9a-fA-F:.]+\]|[^:/[\]]+)(?::(\d{1,5}))?\/?$/.exec(text);
  const host = match?.[2] === undefined ? null : canonicalHost(match[2]);
  if (match === null || host === null) return `endpoint ${text}: expected http://host:port, https://host:port or host:port`;
  const port = Number(match[3] ?? 2379);
  if (port < 1 || port > 65_535) return `endpoint ${text}: the port is not in 1..65535`;
  if (match[1] === 'http' && tlsConfigured)
    return `endpoint ${text}: says plain text but tls is set: write https:// or remove tls`;
  return { address: `${host.includes(':') ? `[${host}]` : host}:${port}`, tls: match[1] === 'https' || tlsConfigured };
}

export interface ClientDeps {
  readonly clock: Clock;
  readonly random: Random;
}

/** A watch stream together with the connection that carries nothing else. */
export interface OwnStream<N extends CallName> extends CallStream<N> {
  readonly endpoint: string;
}

/** The way to one cluster. */
export class EtcdClient {
  readonly #endpoints: readonly Endpoint[];
  readonly #options: SourceOptions;
  readonly #deps: ClientDeps;
  readonly #calls = new Map<number, Connection>();
  readonly #streams = new Set<{ close(): void }>();
  #current: number;
  #token: string | null;
  #authOff = false;
  #login: Promise<string | null> | null = null;
  #closed = false;

  constructor(endpoints: readonly Endpoint[], options: SourceOptions, deps: ClientDeps) {
    this.#endpoints = endpoints;
    this.#options = options;
    this.#deps = deps;
    this.#current = randomBelow(deps.random, endpoints.length);
    this.#token = options.auth.token ?? null;
  }

  /** The member that is asked now. */
  get endpoint(): string {
    return this.#endpoints[this.#current]?.address ?? '';
  }

  /**
   * One call with a deadline. `other` asks another member than the current one where there is one. Rejects with EtcdFailure,
   * SourceError (files of TLS) or the signal's reason.
   */
  async call<N extends CallName>(name: N, request: Calls[N][0], signal: AbortSignal, other = false): Promise<Calls[N][1]> {
    const index = other ? (this.#current + 1) % this.#endpoints.length : this.#current;
    const connection = await this.#connection(index);
    try {
      return await this.#authorized(connection, signal, (token) =>
        connection.call(name, request, { token, hasLeader: true }, signal),
      );
    } catch (thrown) {
      if (connectionFault(thrown)) this.#drop(index, connection);
      throw thrown;
    }
  }

  /** Opens a stream on a connection of its own, which is closed with it. A failure makes the next call take the next member. */
  async stream<N extends CallName>(
    name: N,
    signal: AbortSignal,
    onMessage: (message: Calls[N][1]) => void,
    onEnd: (failure: EtcdFailure) => void,
  ): Promise<OwnStream<N>> {
    const index = this.#current;
    const token = await this.#authorized(await this.#connection(index), signal, async (known) => known);
    signal.throwIfAborted();
    const connection = await this.#connect(index, 'weir-watch');
    if (signal.aborted) connection.close();
    signal.throwIfAborted();
    let closed = false;
    const close = (): void => {
      if (closed) return;
      closed = true;
      this.#streams.delete(handle);
      signal.removeEventListener('abort', close);
      stream.cancel();
      connection.close();
    };
    const stream = connection.stream(name, { token, hasLeader: true }, onMessage, (failure) => {
      close();
      if (connectionFault(failure)) this.lost(connection.endpoint);
      onEnd(failure);
    });
    const handle = { close };
    this.#streams.add(handle);
    signal.addEventListener('abort', close, { once: true });
    return { endpoint: connection.endpoint, write: (request) => stream.write(request), cancel: close };
  }

  /**
   * One burst over a bidi stream: all requests out, as many answers in, in any order. On the connection of the calls, with their
   * deadline. Rejects like `call`.
   */
  async burst<N extends CallName>(
    name: N,
    requests: readonly Calls[N][0][],
    signal: AbortSignal,
  ): Promise<readonly Calls[N][1][]> {
    const index = this.#current;
    const connection = await this.#connection(index);
    try {
      return await this.#authorized(connection, signal, (token) => this.#burst(connection, name, requests, token, signal));
    } catch (thrown) {
      if (connectionFault(thrown)) this.#drop(index, connection);
      throw thrown;
    }
  }

  async #burst<N extends CallName>(
    connection: Connection,
    name: N,
    requests: readonly Calls[N][0][],
    token: string | null,
    outer: AbortSignal,
  ): Promise<readonly Calls[N][1][]> {
    const answers: Calls[N][1][] = [];
    if (requests.length === 0) return answers;
    const { timeout } = this.#options;
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        timer.cancel();
        outer.removeEventListener('abort', onAbort);
        stream.cancel();
        settle();
      };
      const onAbort = (): void => end(() => reject(outer.reason));
      const timer = this.#deps.clock.setTimer(timeout, () =>
        end(() => reject(new EtcdFailure(DEADLINE_EXCEEDED, `no answer within ${timeout} ms`, connection.endpoint))),
      );
      const stream = connection.stream(
        name,
        { token, hasLeader: true },
        (answer) => {
          answers.push(answer);
          if (answers.length === requests.length) end(() => resolve(answers));
        },
        (failure) => end(() => reject(failure)),
      );
      outer.addEventListener('abort', onAbort, { once: true });
      for (const request of requests) stream.write(request);
    });
  }

  /** The next call logs in again; for a token that a stream found refused. */
  forgetToken(): void {
    if (this.#options.auth.token === undefined) this.#token = null;
    this.#authOff = false;
  }

  /** True when a fresh token can be had. */
  get canLogIn(): boolean {
    return this.#options.auth.username !== undefined;
  }

  /** Take the next member from now on, unless that was done already. */
  lost(endpoint: string): void {
    if (endpoint === this.endpoint) this.#current = (this.#current + 1) % this.#endpoints.length;
  }

  /** Ends every stream and connection; later calls reject. */
  close(): void {
    this.#closed = true;
    for (const stream of [...this.#streams]) stream.close();
    for (const connection of this.#calls.values()) connection.close();
    this.#calls.clear();
  }

  #drop(index: number, connection: Connection): void {
    if (this.#calls.get(index) === connection) this.#calls.delete(index);
    connection.close();
    this.lost(connection.endpoint);
  }

  async #connection(index: number): Promise<Connection> {
    const known = this.#calls.get(index);
    if (known !== undefined) return known;
    const fresh = await this.#connect(index, 'weir-kv');
    const raced = this.#calls.get(index);
    if (raced !== undefined) {
      fresh.close();
      return raced;
    }
    this.#calls.set(index, fresh);
    return fresh;
  }

  async #connect(index: number, purpose: Purpose): Promise<Connection> {
    const endpoint = this.#endpoints[index];
    if (this.#closed || endpoint === undefined) throw new SourceError('lost', 'etcd: the source is closed');
    const [grpc, tls] = await Promise.all([loadGrpc(), endpoint.tls ? this.#tlsMaterial() : null]);
    if (this.#closed) throw new SourceError('lost', 'etcd: the source is closed');
    try {
      return new Connection(grpc, endpoint.address, purpose, tls, this.#options.timeout, this.#deps.clock);
    } catch (thrown) {
      throw new SourceError('denied', `etcd: tls.ca, tls.cert or tls.key is not usable: ${messageOf(thrown)}`, { cause: thrown });
    }
  }

  /** Read again for each connection, so that renewed certificates are taken without a restart. */
  async #tlsMaterial(): Promise<TlsMaterial> {
    const { ca, cert, key, serverName } = this.#options.tls ?? {};
    const read = async (path: string | undefined, name: string): Promise<Buffer | null> => {
      if (path === undefined) return null;
      try {
        return await readFile(path);
      } catch (thrown) {
        throw new SourceError('denied', `etcd: tls.${name} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
      }
    };
    const [caBytes, certBytes, keyBytes] = await Promise.all([read(ca, 'ca'), read(cert, 'cert'), read(key, 'key')]);
    return { ca: caBytes, cert: certBytes, key: keyBytes, serverName: serverName ?? null };
  }

  async #authorized<T>(connection: Connection, signal: AbortSignal, run: (token: string | null) => Promise<T>): Promise<T> {
    const token = await this.#currentToken(connection, signal);
    try {
      return await run(token);
    } catch (thrown) {
      if (!isTokenFault(thrown) || !this.canLogIn) throw thrown;
      if (this.#token === token) this.forgetToken();
      return run(await this.#currentToken(connection, signal));
    }
  }

  async #currentToken(connection: Connection, signal: AbortSignal): Promise<string | null> {
    const { username, password } = this.#options.auth;
    if (this.#token !== null || username === undefined || this.#authOff) return this.#token;
    // One login for all callers that wait: a flood of them is itself a load on etcd (bcrypt).
    this.#login ??= this.#logIn(connection, username, password ?? '').finally(() => {
      this.#login = null;
    });
    const token = await this.#login;
    signal.throwIfAborted();
    return token;
  }

  async #logIn(connection: Connection, name: string, password: string): Promise<string | null> {
    try {
      const context = { token: null, hasLeader: true };
      const { token } = await connection.call('Authenticate', { name, password }, context, new AbortController().signal);
      this.#token = token;
    } catch (thrown) {
      if (!isAuthOff(thrown)) throw thrown;
      this.#authOff = true;
      this.#token = null;
    }
    return this.#token;
  }
}
