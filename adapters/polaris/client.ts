// Owns one HTTP/2 connection to one Polaris server: unary calls with a deadline and an abort, raw streams, nothing else.
// Called by servers.ts; must never retry, queue or choose another server.
//
// A gRPC client of our own: with 1,000 services asked every second the packages' way of one message takes four times the CPU.
import { type ClientHttp2Session, connect, constants } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls';
import { isIpLiteral, splitHostPort } from '../../src/kernel/address.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { DEADLINE_EXCEEDED, INTERNAL, PolarisFailure, UNAVAILABLE } from './errors.ts';
import { type CallEvents, GrpcCall } from './grpc-call.ts';
import { type CallName, type Calls, codec, type WriteName } from './protocol.ts';

/** TLS material, already read from the files. */
export interface TlsMaterial {
  readonly ca: Buffer | null;
  readonly cert: Buffer | null;
  readonly key: Buffer | null;
  readonly serverName: string | null;
}

/** A bidi stream of encoded messages. */
export interface RawStream {
  write(message: Uint8Array): void;
  /** Half-close: no more requests; what the server still says, and its end, are ignored from then on. */
  retire(): void;
  cancel(): void;
}

/** Bytes that a server may send ahead of us: a long list must not wait for a round trip every 64 KiB. */
const STREAM_WINDOW = 4 * 1024 * 1024;
const SESSION_WINDOW = 8 * 1024 * 1024;
/** Node's 10 MB would close streams under a long list. */
const SESSION_MEMORY_MB = 256;

/** A session, and why it ended as far as it said: its streams are told less. */
interface Line {
  readonly session: ClientHttp2Session;
  reason: string | null;
}

/** One connection, opened by the first call and again by the next call after a loss; see the head of the file. */
export class Connection {
  readonly server: string;
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #token: string | null;
  readonly #tls: { readonly context: SecureContext; readonly serverName: string | null } | null;
  #line: Line | null = null;
  /** Of every session so far that still has one. */
  readonly #sockets = new Set<Socket>();
  /** Calls and streams that have not ended. */
  #open = 0;
  #closing = false;

  /** `server` is `host:port`; `timeout` the deadline of one unary call, ms. Throws for TLS material that is none. */
  constructor(server: string, tls: TlsMaterial | null, token: string | null, timeout: number, clock: Clock) {
    this.server = server;
    this.#tls = tls === null ? null : { context: contextOf(tls), serverName: tls.serverName };
    this.#token = token;
    this.#clock = clock;
    this.#timeout = timeout;
  }

  /** Rejects with PolarisFailure, or with the signal's reason after an abort. */
  call<N extends WriteName>(name: N, request: Calls[N][0], signal: AbortSignal): Promise<Calls[N][1]> {
    const { path, encodeRequest, decodeResponse } = codec(name);
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      let answer: Calls[N][1] | null = null;
      let fault: PolarisFailure | null = null;
      const settle = (end: () => void): void => {
        timer.cancel();
        signal.removeEventListener('abort', onAbort);
        end();
      };
      const call = this.#request(path, {
        onMessage: (message) => {
          try {
            answer = decodeResponse(message);
          } catch (thrown) {
            fault = new PolarisFailure(INTERNAL, `an answer that cannot be decoded: ${messageOf(thrown)}`, this.server);
          }
        },
        onEnd: (failure) =>
          settle(() => {
            const wrong = failure ?? fault;
            if (wrong !== null) reject(wrong);
            else if (answer === null) reject(new PolarisFailure(INTERNAL, 'no answer in an OK status', this.server));
            else resolve(answer);
          }),
      });
      const timer = this.#clock.setTimer(this.#timeout, () =>
        settle(() => {
          reject(new PolarisFailure(DEADLINE_EXCEEDED, `no answer within ${this.#timeout} ms`, this.server));
          call.cancel();
        }),
      );
      const onAbort = (): void =>
        settle(() => {
          reject(signal.reason);
          call.cancel();
        });
      signal.addEventListener('abort', onAbort, { once: true });
      call.write(encodeRequest(request));
      call.end();
    });
  }

  /**
   * Opens a stream. `onEnd` is called once unless `retire` or `cancel` came first; also for an end with status OK: an end that we did
   * not ask for is a loss (section 2).
   */
  stream(
    name: Extract<CallName, 'Discover' | 'BatchHeartbeat'>,
    onMessage: (message: Buffer) => void,
    onEnd: (failure: PolarisFailure) => void,
  ): RawStream {
    return this.#request(codec(name).path, {
      onMessage,
      onEnd: (failure) => onEnd(failure ?? new PolarisFailure(UNAVAILABLE, 'the stream ended by itself', this.server)),
    });
  }

  /** Takes no more calls; the socket goes with the last call or stream (cancel the streams first). */
  close(): void {
    this.#closing = true;
    this.#destroyIdle();
  }

  /** A call that counts as open until it ends, is retired or is cancelled. */
  #request(path: string, events: CallEvents): RawStream & { end(): void } {
    const opened = this.#callOf(path, {
      onMessage: events.onMessage,
      onEnd: (failure) => {
        ended();
        events.onEnd(failure);
      },
    });
    if (opened instanceof PolarisFailure) {
      let told = false;
      const end = (): void => {
        told = true;
      };
      queueMicrotask(() => {
        if (!told) events.onEnd(opened);
      });
      return { write: () => {}, end: () => {}, retire: end, cancel: end };
    }
    this.#open++;
    let open = true;
    const ended = (): void => {
      if (!open) return;
      open = false;
      this.#open--;
      this.#destroyIdle();
    };
    return {
      write: (message) => opened.write(message),
      end: () => opened.end(),
      retire() {
        opened.retire();
        // A server that never ends its side must not keep the socket.
        ended();
      },
      cancel() {
        opened.cancel();
        ended();
      },
    };
  }

  #callOf(path: string, events: CallEvents): GrpcCall | PolarisFailure {
    if (this.#closing) return new PolarisFailure(UNAVAILABLE, 'the connection was closed', this.server);
    const line = this.#lineNow();
    const headers = {
      ':method': 'POST',
      ':path': path,
      ':scheme': this.#tls === null ? 'http' : 'https',
      ':authority': this.#tls?.serverName ?? this.server,
      'content-type': 'application/grpc',
      te: 'trailers',
      'user-agent': 'weir',
      ...(this.#token === null ? {} : { 'x-polaris-token': this.#token }),
    };
    try {
      return new GrpcCall(line.session, { server: this.server, headers, reason: () => line.reason }, events);
    } catch (thrown) {
      return new PolarisFailure(INTERNAL, `the call cannot be sent: ${messageOf(thrown)}`, this.server);
    }
  }

  #lineNow(): Line {
    const known = this.#line;
    if (known !== null && !known.session.closed && !known.session.destroyed) return known;
    const session = connect(`${this.#tls === null ? 'http' : 'https'}://${this.server}`, {
      createConnection: () => {
        const socket = this.#connect();
        this.#sockets.add(socket);
        socket.once('close', () => this.#sockets.delete(socket));
        return socket;
      },
      maxSessionMemory: SESSION_MEMORY_MB,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW },
    });
    const line: Line = { session, reason: null };
    this.#line = line;
    session.on('connect', () => session.setLocalWindowSize(SESSION_WINDOW));
    session.on('goaway', (code, _last, data) => {
      if (code === constants.NGHTTP2_NO_ERROR) return;
      line.reason = `GOAWAY with code ${code} ${Buffer.from(data ?? []).toString('latin1')}`;
    });
    session.on('error', (error: Error) => {
      line.reason ??= error.message;
    });
    return line;
  }

  #connect(): Socket {
    const { host, port } = splitHostPort(this.server) ?? { host: '', port: 0 };
    if (this.#tls === null) return connectTcp({ host, port, noDelay: true });
    const { context, serverName } = this.#tls;
    const servername = serverName ?? (isIpLiteral(host) ? '' : host);
    const socket = connectTls({ host, port, secureContext: context, servername, ALPNProtocols: ['h2'] });
    socket.setNoDelay();
    return socket;
  }

  /** A session ends its socket gracefully: one whose peer says nothing, or nothing that is HTTP/2, would stay for ever. */
  #destroyIdle(): void {
    if (!this.#closing || this.#open > 0) return;
    this.#line?.session.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function contextOf({ ca, cert, key }: TlsMaterial): SecureContext {
  return createSecureContext({
    ...(ca === null ? {} : { ca }),
    ...(cert === null ? {} : { cert }),
    ...(key === null ? {} : { key }),
  });
}
