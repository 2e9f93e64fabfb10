// Scripted upstreams over plain sockets (proxy-semantics §21): each request is answered by a script, byte for byte, and every
// request that arrived is recorded with its id, so that tests count what was executed, not what was answered.
import net from 'node:net';

/** A request as it arrived. */
export interface SeenRequest {
  readonly method: string;
  readonly target: string;
  readonly head: string;
  readonly fields: ReadonlyMap<string, readonly string[]>;
  /** Value of x-request-id. */
  readonly id: string;
  /** Body bytes read so far; complete when the script runs, unless it was started at the head. */
  body: Buffer;
  /** Number of this request on its connection, from 1. */
  readonly nth: number;
}

/** What a script may do with the connection of its request. */
export interface Reply {
  readonly socket: net.Socket;
  /** Bytes as they are. */
  raw(bytes: string | Buffer): void;
  /** A whole response with Content-Length. */
  send(status: number, body?: string | Buffer, ...fields: string[]): void;
  reset(): void;
  /** The connection is a raw pipe from now on: what comes goes to `onData`. */
  tunnel(onData: (chunk: Buffer) => void): void;
  /** Resolves once the whole request body has arrived. */
  readonly whole: Promise<Buffer>;
}

export type Script = (request: SeenRequest, reply: Reply) => void | Promise<void>;

export interface UpstreamOptions {
  /** Runs the script as soon as the head is there, not when the body is. */
  readonly atHead?: boolean;
}

/** One upstream on a loopback port of its own. */
export class FakeUpstream {
  readonly seen: SeenRequest[] = [];
  /** Connections accepted. */
  connections = 0;
  script: Script;
  /** Called for each new connection before anything is read. */
  onConnection: (socket: net.Socket) => void = () => {};
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #options: UpstreamOptions;
  #killed = false;

  constructor(script: Script, options: UpstreamOptions) {
    this.script = script;
    this.#options = options;
    this.#server = net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#serve(socket));
  }

  get port(): number {
    const address = this.#server.address();
    return address === null || typeof address === 'string' ? 0 : address.port;
  }

  /** How many requests with this id were executed. */
  executed(id: string): number {
    return this.seen.filter((request) => request.id === id).length;
  }

  /** Open connections. */
  get open(): number {
    return this.#sockets.size;
  }

  listen(port = 0): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, '127.0.0.1', resolve);
    });
  }

  /** Cuts every connection and refuses new ones. */
  kill(): Promise<void> {
    this.#killed = true;
    for (const socket of this.#sockets) cut(socket);
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  /** Cuts the connections that are open now, on which nothing may be under way. */
  closeConnections(): void {
    for (const socket of this.#sockets) socket.end();
  }

  sockets(): readonly net.Socket[] {
    return [...this.#sockets];
  }

  #serve(socket: net.Socket): void {
    if (this.#killed) {
      // Was in the kernel's queue when the server closed.
      socket.resetAndDestroy();
      return;
    }
    this.connections++;
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {});
    socket.on('end', () => socket.end());
    this.onConnection(socket);
    let pending: Buffer = Buffer.alloc(0);
    let nth = 0;
    let reading: { request: SeenRequest; feed: (bytes: Buffer) => Buffer | null } | null = null;
    socket.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      for (;;) {
        if (reading === null) {
          const end = pending.indexOf('\r\n\r\n');
          if (end < 0) return;
          const request = parseHead(pending.subarray(0, end).toString('latin1'), ++nth);
          pending = pending.subarray(end + 4);
          this.seen.push(request);
          reading = { request, feed: this.#start(request, socket) };
        }
        const rest = reading.feed(pending);
        if (rest === null) {
          pending = Buffer.alloc(0);
          return;
        }
        pending = rest;
        reading = null;
        if (pending.length === 0) return;
      }
    });
  }

  /** Starts a request; the returned function takes body bytes and gives back what is left over once the body is whole. */
  #start(request: SeenRequest, socket: net.Socket): (bytes: Buffer) => Buffer | null {
    let resolveWhole: (body: Buffer) => void = () => {};
    const whole = new Promise<Buffer>((resolve) => {
      resolveWhole = resolve;
    });
    const reply: Reply = {
      socket,
      whole,
      raw: (bytes) => void socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes),
      send: (status, body = '', ...fields) => {
        const bytes = Buffer.from(body);
        const lines = [`HTTP/1.1 ${status} X`, `content-length: ${bytes.length}`, ...fields, '', ''];
        socket.write(Buffer.concat([Buffer.from(lines.join('\r\n'), 'latin1'), bytes]));
      },
      reset: () => cut(socket),
      tunnel: (onData) => {
        socket.removeAllListeners('data');
        socket.on('data', onData);
      },
    };
    const run = (): void => {
      void Promise.resolve(this.script(request, reply)).catch(() => socket.destroy());
    };
    if (this.#options.atHead === true) run();
    return bodyReader(request, (body) => {
      request.body = body;
      resolveWhole(body);
      if (this.#options.atHead !== true) run();
    });
  }
}

/** Resets. A socket that is already shutting down must only be destroyed: with a reset Node 24 never closes its handle and spins at exit. */
function cut(socket: net.Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

function parseHead(head: string, nth: number): SeenRequest {
  const lines = head.split('\r\n');
  const [method = '', target = ''] = (lines[0] ?? '').split(' ');
  const fields = new Map<string, string[]>();
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    fields.set(name, [...(fields.get(name) ?? []), line.slice(colon + 1).trim()]);
  }
  return { method, target, head, fields, id: fields.get('x-request-id')?.[0] ?? '', body: Buffer.alloc(0), nth };
}

function bodyReader(request: SeenRequest, done: (body: Buffer) => void): (bytes: Buffer) => Buffer | null {
  const length = Number(request.fields.get('content-length')?.[0] ?? 0);
  if (request.fields.get('transfer-encoding')?.[0] === 'chunked') return chunkedReader(done);
  const parts: Buffer[] = [];
  let got = 0;
  return (bytes) => {
    const take = bytes.subarray(0, length - got);
    if (take.length > 0) parts.push(take);
    got += take.length;
    if (got < length) return null;
    done(Buffer.concat(parts));
    return bytes.subarray(take.length);
  };
}

function chunkedReader(done: (body: Buffer) => void): (bytes: Buffer) => Buffer | null {
  const parts: Buffer[] = [];
  let held: Buffer = Buffer.alloc(0);
  return (bytes) => {
    held = Buffer.concat([held, bytes]);
    for (;;) {
      const line = held.indexOf('\r\n');
      if (line < 0) return null;
      const size = Number.parseInt(held.subarray(0, line).toString('latin1'), 16);
      if (size === 0) {
        const end = held.indexOf('\r\n\r\n', line);
        if (end < 0) return null;
        done(Buffer.concat(parts));
        return held.subarray(end + 4);
      }
      if (held.length < line + 2 + size + 2) return null;
      parts.push(Buffer.from(held.subarray(line + 2, line + 2 + size)));
      held = held.subarray(line + 4 + size);
    }
  };
}

/** A set of upstreams that ends with its test. */
export class UpstreamFarm {
  readonly upstreams: FakeUpstream[] = [];

  async add(script: Script = hello, options: UpstreamOptions = {}): Promise<FakeUpstream> {
    const upstream = new FakeUpstream(script, options);
    await upstream.listen();
    this.upstreams.push(upstream);
    return upstream;
  }

  /** Executions of a request id over all upstreams. */
  executed(id: string): number {
    return this.upstreams.reduce((sum, upstream) => sum + upstream.executed(id), 0);
  }

  get seen(): number {
    return this.upstreams.reduce((sum, upstream) => sum + upstream.seen.length, 0);
  }

  async close(): Promise<void> {
    await Promise.all(this.upstreams.map((upstream) => upstream.kill()));
  }
}

// Scripts.

/** 200 with the port's greeting. */
export const hello: Script = (_request, reply) => reply.send(200, 'hello');
/** 200 with the request's body. */
export const echo: Script = (request, reply) => reply.send(200, request.body);
export const hang: Script = () => {};
export const resetAtOnce: Script = (_request, reply) => reply.reset();

export function status(code: number, ...fields: string[]): Script {
  return (_request, reply) => reply.send(code, 'no', ...fields);
}

/** Raw bytes, then nothing. */
export function raw(bytes: string): Script {
  return (_request, reply) => reply.raw(bytes);
}

/** Raw bytes, then the connection ends (`end`) or is reset. */
export function rawThen(bytes: string, how: 'end' | 'reset'): Script {
  return (_request, reply) => {
    if (how === 'end') reply.socket.end(Buffer.from(bytes, 'latin1'));
    else reply.socket.write(Buffer.from(bytes, 'latin1'), () => setTimeout(() => reply.reset(), 20));
  };
}

/** A body of `text`, one byte each `ms`. */
export function drip(text: string, ms: number): Script {
  return async (_request, reply) => {
    reply.raw(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n`);
    for (const char of text) {
      await new Promise<void>((resolve) => setTimeout(resolve, ms));
      reply.raw(char);
    }
  };
}

/** Each request takes the next script; the last one stays. */
export function inTurn(...scripts: readonly Script[]): Script {
  let at = 0;
  return (request, reply) => {
    const script = scripts[Math.min(at++, scripts.length - 1)] ?? hello;
    return script(request, reply);
  };
}

/** A loopback port on which nobody listens. */
export async function closedPort(): Promise<number> {
  const upstream = new FakeUpstream(hello, {});
  await upstream.listen();
  const { port } = upstream;
  await upstream.kill();
  return port;
}
