// Owns one gRPC channel to one member of etcd: unary calls with a deadline and an abort, raw streams, nothing else.
// Called by client.ts; must never retry, queue or choose another member (that is what makes a loss visible).
import type { Socket } from 'node:net';
import type { ChannelCredentials, ChannelOptions, Client, Metadata } from '@grpc/grpc-js';
import type { Clock } from '../../src/kernel/clock.ts';
import { DEADLINE_EXCEEDED, EtcdFailure } from './errors.ts';
import { type CallName, type Calls, codec, loadServices, type Services } from './protocol.ts';

/** TLS material, already read from the files. */
export interface TlsMaterial {
  readonly ca: Buffer | null;
  readonly cert: Buffer | null;
  readonly key: Buffer | null;
  readonly serverName: string | null;
}

/** Watches and calls never share a TCP connection: a server's stream limit would let one starve the other (section 5). */
export type Purpose = 'weir-watch' | 'weir-kv';

/** What goes with a call besides the request. */
export interface CallContext {
  readonly token: string | null;
  /** Fail at once (or when it is lost) if the member has no leader. */
  readonly hasLeader: boolean;
}

/** A bidi stream. `onEnd` is called once, whoever ended it; after `cancel` it is not called. */
export interface CallStream<N extends CallName> {
  write(request: Calls[N][0]): void;
  cancel(): void;
}

const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** The packages of gRPC and the codecs. */
export interface Grpc {
  readonly js: typeof import('@grpc/grpc-js');
  readonly services: Services;
}

/** Imports them: at the first connection, so that no start waits for them. */
export async function loadGrpc(): Promise<Grpc> {
  const [js, services] = await Promise.all([import('@grpc/grpc-js'), loadServices()]);
  return { js, services };
}

/** Keepalive 10 s + 5 s: etcd refuses pings under 5 s, and half-open TCP must be found within 30 s. */
function channelOptions(purpose: Purpose, tls: TlsMaterial | null): ChannelOptions {
  return {
    'grpc.max_receive_message_length': MAX_ANSWER_BYTES,
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_timeout_ms': 5_000,
    'grpc.keepalive_permit_without_calls': 1,
    'grpc.primary_user_agent': purpose,
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

/** One channel; see the head of the file. */
export class Connection {
  readonly endpoint: string;
  readonly #grpc: Grpc;
  readonly #client: Client;
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #sockets = new Set<Socket>();
  /** Calls and streams that have not ended. */
  #open = 0;
  #closing = false;

  /** `endpoint` is `host:port`; `timeout` the deadline of one unary call, ms. Throws for TLS material that is none. */
  constructor(grpc: Grpc, endpoint: string, purpose: Purpose, tls: TlsMaterial | null, timeout: number, clock: Clock) {
    this.endpoint = endpoint;
    this.#grpc = grpc;
    this.#client = new grpc.js.Client(
      target(endpoint),
      channelCredentials(grpc, tls, (socket) => this.#opened(socket)),
      channelOptions(purpose, tls),
    );
    this.#clock = clock;
    this.#timeout = timeout;
  }

  /** Rejects with EtcdFailure, or with the signal's reason after an abort. */
  call<N extends CallName>(name: N, request: Calls[N][0], context: CallContext, signal: AbortSignal): Promise<Calls[N][1]> {
    const { path, encodeRequest, decodeResponse } = codec(this.#grpc.services, name);
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      this.#open++;
      const call = this.#client.makeUnaryRequest(
        path,
        encodeRequest,
        decodeResponse,
        request,
        this.#metadata(context),
        (error, answer) => {
          timer.cancel();
          signal.removeEventListener('abort', onAbort);
          this.#ended();
          if (error !== null) reject(this.#failure(error));
          else if (answer === undefined) reject(new EtcdFailure(13, 'no answer in an OK status', this.endpoint));
          else resolve(answer);
        },
      );
      const timer = this.#clock.setTimer(this.#timeout, () => {
        reject(new EtcdFailure(DEADLINE_EXCEEDED, `no answer within ${this.#timeout} ms`, this.endpoint));
        call.cancel();
      });
      const onAbort = (): void => {
        reject(signal.reason);
        call.cancel();
      };
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Opens a stream. `onEnd` gets an EtcdFailure also for an end with status OK: a silent end is a loss. */
  stream<N extends CallName>(
    name: N,
    context: CallContext,
    onMessage: (message: Calls[N][1]) => void,
    onEnd: (failure: EtcdFailure) => void,
  ): CallStream<N> {
    const { path, encodeRequest, decodeResponse } = codec(this.#grpc.services, name);
    const call = this.#client.makeBidiStreamRequest(path, encodeRequest, decodeResponse, this.#metadata(context));
    this.#open++;
    let over = false;
    const finish = (): void => {
      if (over) return;
      over = true;
      call.cancel();
      this.#ended();
    };
    const end = (failure: EtcdFailure): void => {
      if (over) return;
      finish();
      onEnd(failure);
    };
    // Rule 10: the listener stands before the first write, else the first error is lost.
    call.on('error', (error) => end(this.#failure(error)));
    call.on('end', () => end(new EtcdFailure(14, 'the stream ended', this.endpoint)));
    call.on('data', (message: Calls[N][1]) => {
      if (!over) onMessage(message);
    });
    return {
      write(request) {
        if (!over) call.write(request);
      },
      cancel: finish,
    };
  }

  /** Takes no more calls; the sockets go with the last call or stream (cancel the streams first). */
  close(): void {
    this.#closing = true;
    this.#client.close();
    this.#destroyIdle();
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

  /** grpc-js closes gracefully: a socket whose peer says nothing, or that never finished its handshake, would stay for ever (seen). */
  #destroyIdle(): void {
    if (!this.#closing || this.#open > 0) return;
    for (const socket of this.#sockets) socket.destroy();
  }

  #metadata({ token, hasLeader }: CallContext): Metadata {
    const metadata = new this.#grpc.js.Metadata();
    if (token !== null) metadata.set('token', token);
    if (hasLeader) metadata.set('hasleader', 'true');
    return metadata;
  }

  #failure(error: Error): EtcdFailure {
    const code = 'code' in error && typeof error.code === 'number' ? error.code : 2;
    const details =
      'details' in error && typeof error.details === 'string' && error.details !== '' ? error.details : error.message;
    return new EtcdFailure(code, details, this.endpoint);
  }
}

/** Credentials that tell of each socket of the channel; the only way to one that grpc-js leaves open. */
function channelCredentials({ js }: Grpc, tls: TlsMaterial | null, onSocket: (socket: Socket) => void): ChannelCredentials {
  const plain = tls === null ? js.credentials.createInsecure() : js.credentials.createSsl(tls.ca, tls.key, tls.cert);
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
