// Owns one TCP connection to one server: unary calls with a deadline, the one bi-stream, nothing else (section 4: both on ONE channel,
// never shared). Called by session.ts; must never retry, reopen the stream, or know what a message means.
import type { Socket } from 'node:net';
import type { ChannelCredentials, ChannelOptions, Client, ClientDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../../src/kernel/clock.ts';
import { DEADLINE_EXCEEDED, GrpcFailure } from './errors.ts';
import type { TlsMaterial } from './http.ts';
import { type Frame, loadWire, MAX_MESSAGE_BYTES, REQUEST_PATH, STREAM_PATH, type Wire } from './wire.ts';

/** The packages of gRPC and the codec. */
export interface Grpc {
  readonly js: typeof import('@grpc/grpc-js');
  readonly wire: Wire;
}

/** Imports them: at the first connection, so that no start waits for them; a 1.x over HTTP never pays for them. */
export async function loadGrpc(): Promise<Grpc> {
  const [js, wire] = await Promise.all([import('@grpc/grpc-js'), loadWire()]);
  return { js, wire };
}

/** The server refuses pings under 300 s; life is proved by HealthCheckRequest. */
function channelOptions(tls: TlsMaterial | null): ChannelOptions {
  return {
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
    'grpc.keepalive_time_ms': 600_000,
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

const same = (bytes: Buffer): Buffer => bytes;

export class Link {
  /** `host:port`. */
  readonly endpoint: string;
  readonly #grpc: Grpc;
  readonly #client: Client;
  readonly #clock: Clock;
  readonly #sockets = new Set<Socket>();
  #stream: ClientDuplexStream<Buffer, Buffer> | null = null;
  #open = 0;
  #sealed = false;
  #closing = false;

  /** Throws for TLS material that is none. */
  constructor(grpc: Grpc, endpoint: string, tls: TlsMaterial | null, clock: Clock) {
    this.endpoint = endpoint;
    this.#grpc = grpc;
    this.#clock = clock;
    this.#client = new grpc.js.Client(
      target(endpoint),
      channelCredentials(grpc, tls, (socket) => this.#opened(socket)),
      channelOptions(tls),
    );
  }

  /** Rejects with GrpcFailure, or with the signal's reason after an abort. `timeout` in ms. */
  unary(
    type: string,
    body: unknown,
    headers: Readonly<Record<string, string>>,
    timeout: number,
    signal: AbortSignal,
  ): Promise<Frame> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#closing) return reject(new GrpcFailure(14, 'the connection is closed', this.endpoint));
      this.#open++;
      const request = this.#grpc.wire.encode(type, body, headers);
      const call = this.#client.makeUnaryRequest(
        REQUEST_PATH,
        same,
        same,
        request,
        new this.#grpc.js.Metadata(),
        (error, bytes) => {
          timer.cancel();
          signal.removeEventListener('abort', onAbort);
          this.#ended();
          if (error !== null) return reject(this.#failure(error));
          const frame = bytes === undefined ? null : this.#grpc.wire.decode(bytes);
          if (frame === null) reject(new GrpcFailure(13, 'Parse Error: the answer is no frame of Nacos', this.endpoint));
          else resolve(frame);
        },
      );
      const timer = this.#clock.setTimer(timeout, () => {
        reject(new GrpcFailure(DEADLINE_EXCEEDED, `no answer within ${timeout} ms`, this.endpoint));
        call.cancel();
      });
      const onAbort = (): void => {
        reject(signal.reason);
        call.cancel();
      };
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Opens the bi-stream (once). `onEnd` is called once, also for an end with status OK; after `close` it is not called. */
  stream(onFrame: (frame: Frame | null) => void, onEnd: (failure: GrpcFailure) => void): void {
    const stream = this.#client.makeBidiStreamRequest(STREAM_PATH, same, same, new this.#grpc.js.Metadata());
    this.#stream = stream;
    this.#open++;
    let over = false;
    const end = (failure: GrpcFailure): void => {
      if (over) return;
      over = true;
      this.#stream = null;
      this.#ended();
      if (!this.#closing) onEnd(failure);
    };
    // The listener stands before the first write, else the first error is lost.
    stream.on('error', (error) => end(this.#failure(error)));
    stream.on('end', () => end(new GrpcFailure(14, 'the server ended the stream', this.endpoint)));
    stream.on('data', (bytes: Buffer) => {
      if (!over && !this.#closing) onFrame(this.#grpc.wire.decode(bytes));
    });
  }

  /** On the stream; does nothing after its end. */
  send(type: string, body: unknown, headers: Readonly<Record<string, string>>): void {
    this.#stream?.write(this.#grpc.wire.encode(type, body, headers));
  }

  /** After this no TCP connection is made any more: another one would be another client for the server. */
  seal(): void {
    this.#sealed = true;
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#stream?.cancel();
    this.#client.close();
    // grpc-js closes gracefully: a socket whose peer says nothing would stay for ever.
    this.#destroyIdle();
  }

  #opened(socket: Socket): void {
    if (this.#sealed) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    this.#destroyIdle();
  }

  #ended(): void {
    this.#open--;
    this.#destroyIdle();
  }

  #destroyIdle(): void {
    if (!this.#closing || this.#open > 0) return;
    for (const socket of this.#sockets) socket.destroy();
  }

  #failure(error: Error): GrpcFailure {
    const code = 'code' in error && typeof error.code === 'number' ? error.code : 2;
    const details =
      'details' in error && typeof error.details === 'string' && error.details !== '' ? error.details : error.message;
    return new GrpcFailure(code, details, this.endpoint);
  }
}

/** Credentials that tell of each socket of the channel; the only way to one that grpc-js leaves open. */
function channelCredentials({ js }: Grpc, tls: TlsMaterial | null, onSocket: (socket: Socket) => void): ChannelCredentials {
  const { credentials } = js;
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
function target(endpoint: string): string {
  if (endpoint.startsWith('[')) return `ipv6:${endpoint}`;
  return /^\d+\.\d+\.\d+\.\d+:\d+$/.test(endpoint) ? `ipv4:${endpoint}` : `dns:${endpoint}`;
}
