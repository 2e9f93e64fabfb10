// The smallest proxy over the codec: one listener, one pool, hop-by-hop fields removed. For tests on real sockets only.
import net from 'node:net';
import { chunkStart, lastChunk } from '../../src/http1/chunked.ts';
import {
  createDownstream,
  DOWNSTREAM_LIMITS,
  type Downstream,
  type DownstreamLimits,
  REFUSAL_FIELDS,
} from '../../src/http1/downstream.ts';
import type {
  BodyKind,
  DownstreamUser,
  RequestHead,
  ResponseHead,
  Trailers,
  UpstreamConnection,
  UpstreamFailure,
  UpstreamUser,
} from '../../src/http1/exchange.ts';
import { FRAMING, HOP_BY_HOP } from '../../src/http1/fields.ts';
import { Pool } from '../../src/http1/pool.ts';
import { CHUNKED_FIELD, contentLength, END_OF_HEAD, fieldLine, requestLine, statusLine } from '../../src/http1/writer.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';

const nothing = (): void => {};

function forwarded(head: RequestHead | ResponseHead): string {
  let text = '';
  for (let i = 0; i < head.names.length; i++) {
    const name = head.names[i];
    if (name !== undefined && (name.flags & (HOP_BY_HOP | FRAMING)) === 0) text += fieldLine(name, head.values[i] ?? '');
  }
  return text;
}

class HopUser implements DownstreamUser, UpstreamUser {
  readonly #down: Downstream;
  readonly #pool: Pool;
  #up: UpstreamConnection | null = null;
  #head = '';
  #method = '';
  #kind: BodyKind = 'none';

  constructor(down: Downstream, pool: Pool) {
    this.#down = down;
    this.#pool = pool;
  }

  request(head: RequestHead, kind: BodyKind, length: number): void {
    const framing = kind === 'length' ? contentLength(length) : kind === 'chunked' ? CHUNKED_FIELD : '';
    this.#head = requestLine(head.method, head.target) + forwarded(head) + framing + END_OF_HEAD;
    this.#method = head.method;
    this.#kind = length === 0 ? 'none' : kind;
    if (this.#kind === 'none') return;
    this.#down.pause();
    this.#down.continue100();
    this.#pool.acquire(this);
  }

  body(view: Buffer): void {
    if (this.#kind === 'chunked') this.#up?.write(Buffer.from(chunkStart(view.length)), nothing);
    const more = this.#up?.write(view, nothing);
    if (this.#kind === 'chunked') this.#up?.write(Buffer.from('\r\n'), nothing);
    if (more === false) this.#down.pause();
  }

  requestEnd(trailers: Trailers | null): void {
    if (this.#kind === 'none') this.#pool.acquire(this);
    else this.#up?.endBody(this.#kind === 'chunked' ? lastChunk(trailers) : '');
  }

  connected(connection: UpstreamConnection): void {
    this.#up = connection;
    connection.send(this.#head, null, this.#kind !== 'none', this.#method, false);
    if (this.#kind !== 'none') this.#down.resume();
  }

  responseWhole(head: ResponseHead, body: Buffer | null): void {
    this.#up = null;
    this.#down.reply(statusLine(head.status, head.reason) + forwarded(head), body);
  }

  response(head: ResponseHead, _kind: BodyKind, length: number): void {
    this.#down.replyHead(statusLine(head.status, head.reason) + forwarded(head), length);
  }

  responseBody(view: Buffer): void {
    const up = this.#up;
    up?.hold();
    this.#down.replyBody(view, () => up?.release());
  }

  responseEnd(trailers: Trailers | null): void {
    this.#up = null;
    this.#down.replyEnd(trailers ?? undefined);
  }

  failed(failure: UpstreamFailure): void {
    this.#up = null;
    this.#down.reply(statusLine(502), JSON.stringify(failure));
    this.#down.destroy();
  }

  aborted(): void {
    this.#up?.abandon();
    this.#up = null;
  }

  /** Either side took what was written; only the request direction ever waits for it. */
  drained(): void {
    if (this.#up !== null) this.#down.resume();
  }

  informational(): void {}
  upgraded(): void {}
  upgradeData(): void {}
  upgradeEnd(): void {}
  closed(): void {}
}

/** A running hop. */
export interface Hop {
  readonly port: number;
  readonly pool: Pool;
  readonly refusals: number[];
  close(): Promise<void>;
}

/** Starts a hop to a local port. */
export async function startHop(upstreamPort: number, limits: DownstreamLimits = DOWNSTREAM_LIMITS): Promise<Hop> {
  const wheel = new TimerWheel(systemClock);
  const pool = new Pool({ host: '127.0.0.1', port: upstreamPort, wheel });
  const refusals: number[] = [];
  const sockets = new Set<net.Socket>();
  const options = {
    open: (down: Downstream) => new HopUser(down, pool),
    wheel,
    limits,
    draining: false,
    refusalFields: REFUSAL_FIELDS,
    onRefused: (status: number) => void refusals.push(status),
  };
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    createDownstream(socket, options);
  });
  const port = await listen(server);
  return {
    port,
    pool,
    refusals,
    async close() {
      for (const socket of sockets) socket.destroy();
      pool.close();
      wheel.close();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Listens on a free local port and says which. */
export async function listen(server: net.Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Sends bytes and gathers the answer until it matches, or the peer closes. */
export async function exchange(port: number, bytes: string | Buffer, until: RegExp | null = null): Promise<string> {
  const socket = net.connect({ host: '127.0.0.1', port });
  let text = '';
  return await new Promise<string>((resolve, reject) => {
    const finish = (): void => {
      socket.destroy();
      resolve(text);
    };
    socket.setTimeout(10_000, () => {
      socket.destroy();
      reject(new Error(`no end of the answer after 10 s: ${text.slice(0, 300)}`));
    });
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (until?.test(text)) finish();
    });
    socket.on('end', finish);
    socket.on('error', finish);
    socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  });
}
