// A strict keep-alive HTTP/1.1 client that says exactly what became of each request; nothing is retried or hidden.
// Called by load.ts and by single claims of the fault tests.
import { connect, type Socket } from 'node:net';

export type Verdict =
  /** 200, whole, and with the body that an upstream makes for this id. */
  | 'ok'
  /** A whole answer of another status. */
  | 'error'
  /** The connection broke off inside the answer: the client can tell. */
  | 'truncated'
  /** Whole as far as the client can tell, but not what any upstream sent for this id. */
  | 'wrong'
  /** The connection ended before a byte of the answer. */
  | 'lost'
  /** Nobody accepted the connection. */
  | 'refused'
  | 'timeout';

export interface Outcome {
  readonly id: string;
  readonly method: string;
  readonly verdict: Verdict;
  /** 0: none. */
  readonly status: number;
  /** Value of x-weir-error. */
  readonly error: string;
  readonly upstream: string;
  readonly attempts: number;
  readonly panic: boolean;
  /** When it was due, ms of performance.now(). */
  readonly at: number;
  /** From when it was due to the end. */
  readonly ms: number;
}

export interface Ask {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly fields?: readonly string[];
}

const TIMEOUT_MS = 25_000;

interface Line {
  readonly socket: Socket;
  held: Buffer;
  /** Set while a request is under way. */
  onChange: (() => void) | null;
  ended: boolean;
  failed: string | null;
}

/** The body that upstream-main.ts makes. */
function isBodyOf(ask: Ask, body: string): boolean {
  const size = Number(/[?&]size=(\d+)/.exec(ask.path)?.[1] ?? 0);
  return body.length === ask.id.length + size + 2 && body.startsWith(`${ask.id} `) && body.endsWith('.');
}

/** A pool of connections to one address; as many as there are requests at once. */
export class Client {
  readonly #port: number;
  readonly #idle: Line[] = [];
  readonly #lines = new Set<Line>();
  readonly #service: string;

  constructor(port: number, service: string) {
    this.#port = port;
    this.#service = service;
  }

  /** Connections open now. */
  get connections(): number {
    return this.#lines.size;
  }

  /** Idle connections that the server has not closed. */
  get idle(): number {
    return this.#idle.length;
  }

  /** Opens `n` connections and leaves them idle. */
  async warm(n: number): Promise<void> {
    await Promise.all(Array.from({ length: n }, async () => this.#idle.push(await this.#open())));
  }

  /** One request; never rejects. `dueAt`: latency counts from here. */
  async ask(ask: Ask, dueAt = performance.now()): Promise<Outcome> {
    const none = { status: 0, error: '', upstream: '', attempts: 0, panic: false };
    const end = (verdict: Verdict, rest: Partial<Outcome> = {}): Outcome => ({
      id: ask.id,
      method: ask.method,
      verdict,
      ...none,
      ...rest,
      at: dueAt,
      ms: performance.now() - dueAt,
    });
    let line: Line;
    try {
      line = this.#idle.pop() ?? (await this.#open());
    } catch {
      return end('refused');
    }
    const length =
      ask.body.length > 0 || ask.method === 'POST' || ask.method === 'PUT' ? [`Content-Length: ${ask.body.length}`] : [];
    const head = [
      `${ask.method} ${ask.path} HTTP/1.1`,
      'Host: x',
      `x-weir-service: ${this.#service}`,
      `X-Request-Id: ${ask.id}`,
      ...length,
      ...(ask.fields ?? []),
    ];
    line.socket.write(`${head.join('\r\n')}\r\n\r\n${ask.body}`, 'latin1');
    const timer = setTimeout(() => {
      line.failed = 'timeout';
      line.socket.destroy();
      line.onChange?.();
    }, TIMEOUT_MS);
    try {
      return await this.#answer(line, ask, end);
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    for (const line of this.#lines) line.socket.destroy();
  }

  async #answer(line: Line, ask: Ask, end: (verdict: Verdict, rest?: Partial<Outcome>) => Outcome): Promise<Outcome> {
    const headEnd = await this.#finalHead(line);
    if (headEnd < 0) {
      this.#drop(line);
      return end(line.failed === 'timeout' ? 'timeout' : line.held.length === 0 ? 'lost' : 'truncated');
    }
    const head = line.held.subarray(0, headEnd).toString('latin1');
    line.held = line.held.subarray(headEnd + 4);
    const field = (name: string): string => new RegExp(`\\r\\n${name}: *([^\\r]*)`, 'i').exec(head)?.[1] ?? '';
    const rest = {
      status: Number(head.slice(9, 12)),
      error: field('x-weir-error'),
      upstream: field('x-weir-upstream'),
      attempts: Number(field('x-weir-attempts') || '0'),
      panic: field('x-weir-panic') === '1',
    };
    const body = await this.#body(line, field('content-length'), field('transfer-encoding'));
    if (body === null) {
      this.#drop(line);
      return end(line.failed === 'timeout' ? 'timeout' : 'truncated', rest);
    }
    if (/close/i.test(field('connection')) || line.ended || line.failed !== null) {
      line.socket.end();
      this.#drop(line);
    } else this.#idle.push(line);
    if (rest.status !== 200) return end('error', rest);
    return end(isBodyOf(ask, body) ? 'ok' : 'wrong', rest);
  }

  /** Where the final head ends; informational ones before it are taken away. -1 when the connection ended before. */
  async #finalHead(line: Line): Promise<number> {
    for (;;) {
      const end = await this.#until(line, () => line.held.indexOf('\r\n\r\n'));
      if (end < 0 || line.held.toString('latin1', 9, 10) !== '1') return end;
      line.held = line.held.subarray(end + 4);
    }
  }

  async #body(line: Line, length: string, coding: string): Promise<string | null> {
    if (length !== '') return this.#take(line, Number(length));
    if (coding === '') return '';
    let body = '';
    for (;;) {
      const lineEnd = await this.#until(line, () => line.held.indexOf('\r\n'));
      if (lineEnd < 0) return null;
      const size = Number.parseInt(line.held.subarray(0, lineEnd).toString('latin1'), 16);
      line.held = line.held.subarray(lineEnd + 2);
      const piece = await this.#take(line, size + 2);
      if (piece === null) return null;
      if (size === 0) return body;
      body += piece.slice(0, -2);
    }
  }

  async #take(line: Line, n: number): Promise<string | null> {
    const enough = await this.#until(line, () => (line.held.length >= n ? n : -1));
    if (enough < 0) return null;
    const text = line.held.subarray(0, n).toString('latin1');
    line.held = line.held.subarray(n);
    return text;
  }

  /** Waits until `found` is 0 or more; -1 when the connection ended before. */
  async #until(line: Line, found: () => number): Promise<number> {
    for (;;) {
      const at = found();
      if (at >= 0) return at;
      if (line.ended || line.failed !== null) return -1;
      await new Promise<void>((resolve) => {
        line.onChange = resolve;
      });
    }
  }

  #drop(line: Line): void {
    this.#lines.delete(line);
    const at = this.#idle.indexOf(line);
    if (at >= 0) this.#idle.splice(at, 1);
    if (!line.socket.destroyed) line.socket.destroySoon();
  }

  #open(): Promise<Line> {
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true });
    const line: Line = { socket, held: Buffer.alloc(0), onChange: null, ended: false, failed: null };
    this.#lines.add(line);
    socket.on('data', (chunk: Buffer) => {
      line.held = line.held.length === 0 ? chunk : Buffer.concat([line.held, chunk]);
      line.onChange?.();
    });
    const over = (): void => {
      line.ended = true;
      this.#drop(line);
      line.onChange?.();
    };
    socket.on('end', over);
    socket.on('close', over);
    return new Promise((resolve, reject) => {
      socket.once('connect', () => resolve(line));
      socket.on('error', (error) => {
        line.failed = error.message;
        over();
        reject(error);
      });
    });
  }
}
