// Owns one gRPC channel to one Polaris server: unary calls with a deadline and an abort, raw streams, nothing else. The only file (the
// fake aside) that touches @grpc/grpc-js. Called by servers.ts; must never retry, queue or choose another server.
import type { Socket } from 'node:net';
import { type ChannelCredentials, type ChannelOptions, Client, credentials, Metadata } from '@grpc/grpc-js';
import type { Clock } from '../../src/kernel/clock.ts';
import { DEADLINE_EXCEEDED, INTERNAL, PolarisFailure, UNAVAILABLE } from './errors.ts';
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
  write(message: Buffer): void;
  /** Half-close: no more requests; what the server still says, and its end, are ignored from then on. */
  retire(): void;
  cancel(): void;
}

/** As polaris-go; the usual 4 MiB break at about 21,000 instances (section 2). */
const MAX_ANSWER_BYTES = 50 * 1024 * 1024;

/** No keepalive: Polaris answers pings under its enforcement with GOAWAY too_many_pings; the polling itself is the sign of life. */
function channelOptions(tls: TlsMaterial | null): ChannelOptions {
  return {
    'grpc.max_receive_message_length': MAX_ANSWER_BYTES,
    'grpc.primary_user_agent': 'weir',
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    'grpc.service_config_disable_resolution': 1,
    // The environment's http_proxy may well be ourselves.
    'grpc.enable_http_proxy': 0,
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': 1_000,
    ...(tls?.serverName ? { 'grpc.ssl_target_name_override': tls.serverName, 'grpc.default_authority': tls.serverName } : {}),
  };
}

const passThrough = (bytes: Buffer): Buffer => bytes;

/** One channel; see the head of the file. */
export class Connection {
  readonly server: string;
  readonly #client: Client;
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #token: string | null;
  readonly #sockets = new Set<Socket>();
  /** Calls and streams that have not ended. */
  #open = 0;
  #closing = false;

  /** `server` is `host:port`; `timeout` the deadline of one unary call, ms. Throws for TLS material that is none. */
  constructor(server: string, tls: TlsMaterial | null, token: string | null, timeout: number, clock: Clock) {
    this.server = server;
    this.#client = new Client(
      target(server),
      channelCredentials(tls, (socket) => this.#opened(socket)),
      channelOptions(tls),
    );
    this.#token = token;
    this.#clock = clock;
    this.#timeout = timeout;
  }

  /** Rejects with PolarisFailure, or with the signal's reason after an abort. */
  call<N extends WriteName>(name: N, request: Calls[N][0], signal: AbortSignal): Promise<Calls[N][1]> {
    const { path, encodeRequest, decodeResponse } = codec(name);
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      this.#open++;
      const call = this.#client.makeUnaryRequest(
        path,
        encodeRequest,
        decodeResponse,
        request,
        this.#metadata(),
        (error, answer) => {
          timer.cancel();
          signal.removeEventListener('abort', onAbort);
          this.#ended();
          if (error !== null) reject(this.#failure(error));
          else if (answer === undefined) reject(new PolarisFailure(INTERNAL, 'no answer in an OK status', this.server));
          else resolve(answer);
        },
      );
      const timer = this.#clock.setTimer(this.#timeout, () => {
        reject(new PolarisFailure(DEADLINE_EXCEEDED, `no answer within ${this.#timeout} ms`, this.server));
        call.cancel();
      });
      const onAbort = (): void => {
        reject(signal.reason);
        call.cancel();
      };
      signal.addEventListener('abort', onAbort, { once: true });
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
    const call = this.#client.makeBidiStreamRequest(codec(name).path, passThrough, passThrough, this.#metadata());
    this.#open++;
    let over = false;
    let ended = false;
    const finish = (): void => {
      over = true;
      if (ended) return;
      ended = true;
      this.#ended();
    };
    const end = (failure: PolarisFailure): void => {
      const told = over;
      finish();
      if (told) return;
      call.cancel();
      onEnd(failure);
    };
    // The listeners stand before the first write, else the first error is lost.
    call.on('error', (error) => end(this.#failure(error)));
    call.on('end', () => end(new PolarisFailure(UNAVAILABLE, 'the stream ended by itself', this.server)));
    call.on('data', (message: Buffer) => {
      if (!over) onMessage(message);
    });
    return {
      write(message) {
        if (!over) call.write(message);
      },
      retire() {
        // Counts as ended: a server that never ends its side must not keep the socket.
        finish();
        call.end();
      },
      cancel() {
        finish();
        call.cancel();
      },
    };
  }

  /** Takes no more calls; the sockets go with the last call or stream (cancel the streams first). */
  close(): void {
    this.#closing = true;
    this.#client.close();
    this.#destroyIdle();
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#token !== null) metadata.set('x-polaris-token', this.#token);
    return metadata;
  }

  #opened(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    this.#destroyIdle();
  }

  #ended(): void {
    this.#open--;
    this.#destroyIdle();
  }

  /** grpc-js closes gracefully: a socket whose peer says nothing, or that never finished its handshake, would stay for ever. */
  #destroyIdle(): void {
    if (!this.#closing || this.#open > 0) return;
    for (const socket of this.#sockets) socket.destroy();
  }

  #failure(error: Error): PolarisFailure {
    const code = 'code' in error && typeof error.code === 'number' ? error.code : 2;
    const details =
      'details' in error && typeof error.details === 'string' && error.details !== '' ? error.details : error.message;
    return new PolarisFailure(code, details, this.server);
  }
}

/** Credentials that tell of each socket of the channel; the only way to one that grpc-js leaves open. */
function channelCredentials(tls: TlsMaterial | null, onSocket: (socket: Socket) => void): ChannelCredentials {
  const plain = tls === null ? credentials.createInsecure() : credentials.createSsl(tls.ca, tls.key, tls.cert);
  const make = plain._createSecureConnector.bind(plain);
  plain._createSecureConnector = (...args) => {
    const connector = make(...args);
    const secure = connector.connect.bind(connector);
    connector.connect = (socket) => {
      onSocket(socket);
      return secure(socket);
    };
    return connector;
  };
  return plain;
}

/** grpc-js target: IP literals without a resolver, names by DNS. */
function target(server: string): string {
  if (server.startsWith('[')) return `ipv6:${server}`;
  return /^\d+\.\d+\.\d+\.\d+:\d+$/.test(server) ? `ipv4:${server}` : `dns:${server}`;
}
