// A TCP proxy between a client and a real server that breaks the link on demand: all network faults of the tests come from here.
// Called by live and fault tests; must never change bytes, only when and whether they arrive.
import { connect, createServer, type Server, type Socket } from 'node:net';
import { type Random, seededRandom } from '../../src/kernel/random.ts';

/** How bytes travel from now on; applies to open connections, too. */
export interface Link {
  /** Added to every chunk, ms; order is kept. */
  delayMs: number;
  /** Up to this much more, ms. */
  jitterMs: number;
  /** 0: no limit. */
  bytesPerSecond: number;
  /** Chunks are cut into pieces of at most this many bytes; 0: as they come. */
  sliceBytes: number;
}

const MAX_WAITING = 256 * 1024;

interface Pipe {
  readonly client: Socket;
  readonly server: Socket;
  /** Bytes of this connection vanish, nobody is told. */
  dead: boolean;
}

/** See the head of the file. Made by `startFaultProxy`. */
export class FaultProxy {
  readonly link: Link = { delayMs: 0, jitterMs: 0, bytesPerSecond: 0, sliceBytes: 0 };
  #target: { host: string; port: number };
  readonly #random: Random;
  readonly #pipes = new Set<Pipe>();
  #server: Server | null = null;
  #port = 0;
  #blackhole = false;
  #cutAfter = Number.POSITIVE_INFINITY;
  #accepted = 0;

  constructor(target: string, seed: number) {
    this.#target = parse(target);
    this.#random = seededRandom(seed);
  }

  /** `host:port` for the client; the same over `refuse` and `accept`. */
  get endpoint(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Connections open now. */
  get open(): number {
    return this.#pipes.size;
  }

  /** Connections taken since the start. */
  get accepted(): number {
    return this.#accepted;
  }

  /** New connections go elsewhere. */
  retarget(target: string): void {
    this.#target = parse(target);
  }

  /** Every connection is reset; new ones are taken. */
  cut(): void {
    for (const pipe of [...this.#pipes]) this.#reset(pipe);
  }

  /** Every connection is reset and new ones are refused, as with a dead server. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    const closed = server === null ? null : new Promise<void>((resolve) => server.close(() => resolve()));
    this.cut();
    await closed;
  }

  /** Takes connections (again). */
  async accept(): Promise<void> {
    if (this.#server !== null) return;
    const server = createServer((client) => this.#connect(client));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#port, '127.0.0.1', resolve);
    });
    const address = server.address();
    if (address !== null && typeof address === 'object') this.#port = address.port;
    this.#server = server;
  }

  /** On: bytes of open and new connections vanish in both directions and nobody is told. Off: new connections work; the old stay dead. */
  blackhole(on: boolean): void {
    this.#blackhole = on;
    if (on) this.halfOpen();
  }

  /** The connections that are open now go dead without a word (a lost NAT entry); new ones work. */
  halfOpen(): void {
    for (const pipe of this.#pipes) pipe.dead = true;
  }

  /** The next connections are reset after this many bytes from the server. */
  cutAfter(bytes: number): void {
    this.#cutAfter = bytes;
  }

  async close(): Promise<void> {
    await this.refuse();
  }

  #connect(client: Socket): void {
    this.#accepted++;
    const server = connect(this.#target);
    const pipe: Pipe = { client, server, dead: this.#blackhole };
    this.#pipes.add(pipe);
    client.setNoDelay(true);
    server.setNoDelay(true);
    this.#pump(pipe, client, server, Number.POSITIVE_INFINITY);
    this.#pump(pipe, server, client, this.#cutAfter);
    for (const socket of [client, server]) {
      socket.on('error', () => {});
      socket.once('close', () => {
        // A dead connection tells neither side of the other's end.
        if (!pipe.dead) this.#reset(pipe);
        else if (client.destroyed && server.destroyed) this.#pipes.delete(pipe);
      });
    }
  }

  #pump(pipe: Pipe, from: Socket, to: Socket, limit: number): void {
    let left = limit;
    let turn: Promise<void> = Promise.resolve();
    let waiting = 0;
    const push = (chunk: Buffer): void => {
      if (pipe.dead || to.destroyed) return;
      to.write(chunk);
      left -= chunk.length;
      if (left <= 0) this.#reset(pipe);
    };
    from.on('data', (chunk: Buffer) => {
      if (pipe.dead) return;
      const { delayMs, jitterMs, bytesPerSecond, sliceBytes } = this.link;
      if (delayMs === 0 && jitterMs === 0 && bytesPerSecond === 0 && sliceBytes === 0) {
        turn = turn.then(() => push(chunk));
        return;
      }
      const sent = performance.now();
      const wait = delayMs + this.#random() * jitterMs;
      // Chunks wait side by side (a delay is no throttle); what piles up is bounded by back-pressure.
      waiting += chunk.length;
      if (waiting > MAX_WAITING) from.pause();
      turn = turn.then(async () => {
        await sleep(wait - (performance.now() - sent));
        const size =
          sliceBytes > 0 ? sliceBytes : bytesPerSecond > 0 ? Math.max(1, Math.ceil(bytesPerSecond / 20)) : chunk.length;
        for (let at = 0; at < chunk.length; at += size) {
          const piece = chunk.subarray(at, at + size);
          push(piece);
          if (bytesPerSecond > 0) await sleep((piece.length / bytesPerSecond) * 1_000);
        }
        waiting -= chunk.length;
        if (waiting <= MAX_WAITING) from.resume();
      });
    });
    from.once('end', () => {
      turn = turn.then(() => {
        if (!pipe.dead && !to.destroyed) to.end();
      });
    });
  }

  #reset(pipe: Pipe): void {
    this.#pipes.delete(pipe);
    for (const socket of [pipe.client, pipe.server]) {
      if (socket.destroyed) continue;
      // With a reset of a socket that is shutting down Node 24 never closes its handle, and spins at exit.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }
}

/** A proxy that listens on a free loopback port and leads to `target` (`host:port`). */
export async function startFaultProxy(target: string, seed = 1): Promise<FaultProxy> {
  const proxy = new FaultProxy(target, seed);
  await proxy.accept();
  return proxy;
}

function parse(target: string): { host: string; port: number } {
  const colon = target.lastIndexOf(':');
  return { host: target.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(target.slice(colon + 1)) };
}

function sleep(ms: number): Promise<void> {
  return ms <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}
