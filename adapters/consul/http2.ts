// Owns HTTP/2 to an agent over TLS: many blocking queries share a connection, and what does not block has one of its own, since a full
// connection of queries would hold it up (protocol notes, section 3, rule 8). A server that does not offer h2 in the handshake gets
// HTTP/1.1 instead. Called by client.ts; must never retry, and never leave a dead connection in use.
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { raceAbort } from '../../src/kernel/cancel.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import {
  CONNECT_MS,
  type HeadsRequest,
  type Lane,
  MAX_BODY,
  type TlsMaterial,
  type Transport,
  tooLarge,
  type WireAnswer,
  type WireHead,
  type WireRequest,
} from './transport.ts';

/** Below the 250 streams that an agent allows on a connection. */
const STREAMS = 200;
/** Of {@link Http2.heads}: no more of them on their way at once. */
const HEADS_AT_ONCE = 32;
/** How long the other side may take to answer a ping, ms. */
const PING_MS = 5_000;
const STREAM_WINDOW = 1024 * 1024;
const CONNECTION_WINDOW = 16 * 1024 * 1024;

type Kind = 'watch' | 'short';

interface Connection {
  readonly session: ClientHttp2Session;
  readonly limit: number;
  streams: number;
  /** No new stream: it is being closed, or it may be dead. */
  shut: boolean;
  /** Why it broke. */
  failure: Error | null;
}

export interface Http2Options {
  readonly origin: string;
  readonly clock: Clock;
  readonly tls: () => Promise<TlsMaterial>;
  /** Where requests go while the server speaks HTTP/1.1 only. */
  readonly fallback: Transport;
  /** Told at each new connection: whether it speaks h2. */
  readonly spoke: (h2: boolean) => void;
}

export class Http2 implements Transport {
  readonly #options: Http2Options;
  readonly #connections: Readonly<Record<Kind, Set<Connection>>> = { watch: new Set(), short: new Set() };
  readonly #opening = new Map<Kind, Promise<boolean>>();
  readonly #sockets = new Set<TLSSocket>();
  #plain = false;
  #closed = false;
  #breaks = 0;

  constructor(options: Http2Options) {
    this.#options = options;
  }

  get breaks(): number {
    return this.#breaks + this.#options.fallback.breaks;
  }

  async request(lane: Lane, request: WireRequest): Promise<WireAnswer> {
    const kind = lane === 'watch' ? 'watch' : 'short';
    while (!this.#plain) {
      const connection = this.#free(kind);
      if (connection !== null) return this.#send(connection, request);
      let opening = this.#opening.get(kind);
      if (opening === undefined) {
        opening = this.#open(kind).finally(() => this.#opening.delete(kind));
        // All who wait for it may have given up.
        opening.catch(() => undefined);
        this.#opening.set(kind, opening);
      }
      if (!(await raceAbort(opening, request.signal))) this.#plain = true;
    }
    return this.#options.fallback.request(lane, request);
  }

  async heads(request: HeadsRequest): Promise<readonly WireHead[]> {
    const { paths, headers, signal } = request;
    const found: WireHead[] = [];
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let at = next++; at < paths.length && !this.#plain; at = next++) {
        const answer = await this.request('read', { method: 'GET', path: paths[at] ?? '', headers, body: null, signal });
        for await (const _ of answer.body);
        found[at] = { status: answer.status, headers: answer.headers };
      }
    };
    await Promise.all(Array.from({ length: Math.min(HEADS_AT_ONCE, paths.length) }, worker));
    // What speaks HTTP/1.1 only is asked as such, from the beginning.
    return this.#plain ? this.#options.fallback.heads(request) : found;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const socket of this.#sockets) socket.destroy();
    for (const set of Object.values(this.#connections)) for (const { session } of set) session.destroy();
    await this.#options.fallback.close();
  }

  #free(kind: Kind): Connection | null {
    for (const connection of this.#connections[kind]) {
      if (!connection.shut && connection.streams < connection.limit) return connection;
    }
    return null;
  }

  /** Whether the other side speaks h2. Rejects when there is no connection. */
  async #open(kind: Kind): Promise<boolean> {
    const [{ connect }, material, http2] = await Promise.all([import('node:tls'), this.#options.tls(), import('node:http2')]);
    const { hostname, port } = new URL(this.#options.origin);
    const host = hostname.replace(/^\[|\]$/g, '');
    const socket = connect({
      host,
      port: Number(port === '' ? 443 : port),
      ALPNProtocols: ['h2', 'http/1.1'],
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...material,
    });
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    if (this.#closed) socket.destroy();
    let session: ClientHttp2Session | null = null;
    // Also until the session is adopted: a refusal of our certificate comes with the end of the handshake, or right behind it.
    await this.#within(socket, (settled, failed) => {
      socket.once('secureConnect', () => {
        if (socket.alpnProtocol !== 'h2') return settled();
        const settings = { enablePush: false, initialWindowSize: STREAM_WINDOW, maxHeaderListSize: 16_384 };
        session = http2.connect(this.#options.origin, { createConnection: () => socket, settings, maxSessionMemory: 128 });
        // Settings of the other side prove that it speaks h2 and took our certificate.
        session.once('remoteSettings', settled);
        session.on('error', failed);
      });
    });
    if (session === null) socket.destroy();
    else this.#adopt(kind, session, socket);
    this.#options.spoke(session !== null);
    return session !== null;
  }

  #adopt(kind: Kind, session: ClientHttp2Session, socket: TLSSocket): void {
    session.setLocalWindowSize(CONNECTION_WINDOW);
    const limit = Math.min(STREAMS, session.remoteSettings.maxConcurrentStreams ?? STREAMS);
    const connection: Connection = { session, limit, streams: 0, shut: session.destroyed, failure: null };
    this.#connections[kind].add(connection);
    const fail = (error: Error): void => {
      connection.failure ??= error;
      // An alert of TLS leaves the socket open and the session without an end.
      socket.destroy();
    };
    session.on('error', fail);
    socket.on('error', fail);
    session.once('goaway', () => (connection.shut = true));
    const over = (): void => {
      if (!this.#connections[kind].delete(connection)) return;
      // An idle connection that is closed says nothing of the server's data.
      if (!this.#closed && (connection.streams > 0 || connection.failure !== null)) this.#breaks++;
      connection.shut = true;
      if (!session.destroyed) session.destroy();
    };
    session.once('close', over);
    socket.once('close', over);
  }

  /** The first of: what `wait` says, an error or the end of the socket, the end of our patience. */
  async #within(socket: TLSSocket, wait: (settled: () => void, failed: (error: Error) => void) => void): Promise<void> {
    let fail = (_error: Error): void => {};
    const timer = this.#options.clock.setTimer(CONNECT_MS, () =>
      fail(Object.assign(new Error('no connection in time'), { code: 'CONNECT_TIMEOUT' })),
    );
    try {
      await new Promise<void>((resolve, reject) => {
        fail = reject;
        socket.on('error', reject);
        socket.once('close', () => reject(new Error('the connection was closed')));
        wait(resolve, reject);
      });
    } catch (thrown) {
      socket.destroy();
      throw thrown;
    } finally {
      timer.cancel();
    }
  }

  #send(connection: Connection, { method, path, headers, body, signal }: WireRequest): Promise<WireAnswer> {
    const stream = connection.session.request({ ':method': method, ':path': path, ...headers }, { endStream: body === null });
    connection.streams++;
    const onAbort = (): void => {
      // Late, or not wanted any more: in the first case the connection may be dead.
      this.#prove(connection);
      stream.close(CANCEL);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    stream.once('close', () => {
      connection.streams--;
      signal.removeEventListener('abort', onAbort);
    });
    if (body !== null) stream.end(body);
    return answerOf(stream, connection, signal);
  }

  /** Takes no new stream until the other side has answered a ping; without an answer the connection is dropped. */
  #prove(connection: Connection): void {
    const { session } = connection;
    if (connection.shut || session.destroyed) return;
    connection.shut = true;
    const timer = this.#options.clock.setTimer(PING_MS, () =>
      session.destroy(new Error('the other side answers no ping: the connection is dead')),
    );
    const sent = session.ping((error) => {
      timer.cancel();
      if (error === null && !session.closed) connection.shut = false;
    });
    if (!sent) timer.cancel();
  }
}

/** NGHTTP2_CANCEL; the constants would load the module. */
const CANCEL = 8;

function answerOf(stream: ClientHttp2Stream, connection: Connection, signal: AbortSignal): Promise<WireAnswer> {
  const why = (thrown: unknown): unknown => (signal.aborted ? signal.reason : (connection.failure ?? thrown));
  return new Promise((resolve, reject) => {
    stream.on('error', (error) => reject(why(error)));
    stream.once('close', () => reject(why(new Error(`the stream was closed (code ${stream.rstCode})`))));
    stream.once('response', (fields) => {
      const headers: Record<string, string | string[] | undefined> = {};
      for (const [name, value] of Object.entries(fields)) {
        if (!name.startsWith(':')) headers[name] = typeof value === 'number' ? String(value) : value;
      }
      const whole = bytesOf(stream, why);
      // Who gave up reading does not hear of it.
      whole.catch(() => undefined);
      resolve({ status: fields[':status'] ?? 0, headers, body: chunks(whole), abandon: () => stream.close(CANCEL) });
    });
  });
}

/** Reads from now on: what nobody has read when a stream closes is lost. */
function bytesOf(stream: ClientHttp2Stream, why: (thrown: unknown) => unknown): Promise<readonly Uint8Array[]> {
  const parts: Uint8Array[] = [];
  let size = 0;
  return new Promise((resolve, reject) => {
    stream.on('data', (part: Uint8Array) => {
      size += part.byteLength;
      if (size <= MAX_BODY) parts.push(part);
      else {
        reject(tooLarge());
        stream.close(CANCEL);
      }
    });
    stream.once('end', () => (stream.rstCode === 0 ? resolve(parts) : reject(why(new Error('the answer was cut')))));
    stream.once('error', (error) => reject(why(error)));
    stream.once('close', () => reject(why(new Error('the answer was cut'))));
  });
}

async function* chunks(whole: Promise<readonly Uint8Array[]>): AsyncGenerator<Uint8Array, void, void> {
  yield* await whole;
}
