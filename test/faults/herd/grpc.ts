// Puts a world in the place of grpc-js' wire: the calls of Client, with its callback and its stream events, but no socket.
// Called by the transports of etcd and nacos. Below this nothing of ours runs; grpc-js' own reconnect timers do not.
import { EventEmitter } from 'node:events';
import { Client } from '@grpc/grpc-js';
import { type Ends, replace, sidecarOf, type World } from './world.ts';

/** One stream as the server sees it. Messages are what the adapter's codec makes of them. */
export interface ServerStream {
  readonly sidecar: number;
  readonly path: string;
  send(message: unknown): void;
}

export interface GrpcServer {
  /** The answer to a unary call. */
  unary(path: string, request: unknown, sidecar: number): unknown;
  /** A message came on a stream; counted as a request. */
  message(stream: ServerStream, message: unknown): void;
}

const DOWN = Object.assign(new Error('connect ECONNREFUSED'), { code: 14, details: 'connect ECONNREFUSED' });

class FakeDuplex extends EventEmitter {
  #over = false;
  readonly #world: World;
  readonly #stream: ServerStream;
  readonly #server: GrpcServer;
  readonly #uncut: () => void;

  constructor(world: World, server: GrpcServer, path: string, sidecar: number) {
    super();
    this.#world = world;
    this.#server = server;
    this.#stream = {
      sidecar,
      path,
      send: (message) => void setImmediate(() => (this.#over ? undefined : this.emit('data', message))),
    };
    this.#uncut = world.whenCut(() => this.#end());
    if (!world.up) setImmediate(() => this.#end());
  }

  write(message: unknown): boolean {
    if (this.#over || !this.#world.ask(this.#stream.sidecar)) return true;
    this.#server.message(this.#stream, message);
    return true;
  }

  end(): void {
    this.cancel();
  }

  cancel(): void {
    this.#over = true;
    this.#uncut();
  }

  #end(): void {
    if (this.#over) return;
    this.cancel();
    this.emit('error', DOWN);
  }
}

/** For the time of the test every gRPC client speaks to this server. */
export function injectGrpc(ends: Ends, world: World, server: GrpcServer): void {
  const place = (client: Client): number => sidecarOf(client.getChannel().getTarget());
  replace(ends, Client.prototype, 'makeUnaryRequest', function unary(this: Client, ...args: unknown[]) {
    const [path, , , request] = args;
    const callback = args.at(-1);
    const sidecar = place(this);
    const up = world.ask(sidecar);
    setImmediate(() => {
      if (typeof callback !== 'function') return;
      if (up) callback(null, server.unary(String(path), request, sidecar));
      else callback(DOWN);
    });
    return { cancel() {} };
  });
  replace(ends, Client.prototype, 'makeBidiStreamRequest', function stream(this: Client, path: string) {
    return new FakeDuplex(world, server, path, place(this));
  });
}
