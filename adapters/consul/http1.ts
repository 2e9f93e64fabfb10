// Owns HTTP/1.1 to an agent: one request per connection at a time, connections by lane, and one more where many small reads go behind
// each other without waiting. The only file that touches undici, and it loads it at the first request. Called by client.ts; must never retry or follow a redirect.
import type { Agent, buildConnector, Dispatcher } from 'undici';
import { raceAbort } from '../../src/kernel/cancel.ts';
import { MAX_BLOCKING } from './config.ts';
import {
  CONNECT_MS,
  type HeadsRequest,
  type Lane,
  MAX_BODY,
  type TlsMaterial,
  type Transport,
  type WireAnswer,
  type WireHead,
  type WireRequest,
} from './transport.ts';

type Undici = typeof import('undici');
type Line = Lane | 'heads';

/** Requests on their way on the one connection of `heads`: enough that the agent always has the next one. */
const PIPELINE = 64;
type Material = () => Promise<TlsMaterial>;

export interface Http1Options {
  readonly origin: string;
  /** Connections of each lane. */
  readonly connections: Readonly<Record<Lane, number>>;
  /** Nothing of an answer may be longer in coming than this, ms; blocking queries have a deadline of their own. */
  readonly backstopMs: number;
  /** Null: plain text. */
  readonly tls: Material | null;
}

export class Http1 implements Transport {
  readonly #options: Http1Options;
  #agents: Promise<Readonly<Record<Line, Agent>>> | null = null;
  #closed = false;
  #breaks = 0;

  constructor(options: Http1Options) {
    this.#options = options;
  }

  get breaks(): number {
    return this.#breaks;
  }

  async request(lane: Lane, { method, path, headers, body, signal }: WireRequest): Promise<WireAnswer> {
    this.#agents ??= this.#load();
    const agent = (await this.#agents)[lane];
    signal.throwIfAborted();
    const answer = await agent.request({ origin: this.#options.origin, path, method, headers, body, signal });
    return {
      status: answer.statusCode,
      headers: answer.headers,
      body: answer.body,
      abandon() {
        // The stream would call that an error of its own.
        answer.body.on('error', () => {});
        answer.body.destroy();
      },
    };
  }

  async heads({ paths, headers, signal }: HeadsRequest): Promise<readonly WireHead[]> {
    this.#agents ??= this.#load();
    const { heads: agent } = await this.#agents;
    signal.throwIfAborted();
    const { origin } = this.#options;
    const under = new Set<Dispatcher.DispatchController>();
    const onAbort = (): void => {
      for (const controller of [...under]) controller.abort(new Error('the reads were given up'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const one = (path: string): Promise<WireHead> =>
      new Promise((resolve, reject) => {
        let head: WireHead = { status: 0, headers: {} };
        agent.dispatch(
          { origin, path, method: 'GET', headers, idempotent: true, blocking: false },
          {
            onRequestStart: (controller) => void under.add(controller),
            onResponseStart(_controller, status, fields) {
              head = { status, headers: fields };
            },
            // Nobody needs the body.
            onResponseData: () => {},
            onResponseEnd(controller) {
              under.delete(controller);
              resolve(head);
            },
            onResponseError(controller, error) {
              under.delete(controller);
              reject(error);
            },
          },
        );
      });
    try {
      return await raceAbort(Promise.all(paths.map(one)), signal);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const agents = await this.#agents;
    await Promise.all(Object.values(agents ?? {}).map((agent) => agent.destroy()));
  }

  async #load(): Promise<Readonly<Record<Line, Agent>>> {
    const undici = await import('undici');
    const agents = {
      watch: this.#agent(undici, 'watch'),
      read: this.#agent(undici, 'read'),
      control: this.#agent(undici, 'control'),
      heads: this.#agent(undici, 'heads'),
    };
    if (this.#closed) await Promise.all(Object.values(agents).map((agent) => agent.destroy()));
    return agents;
  }

  #agent({ Agent, buildConnector }: Undici, lane: Line): Agent {
    const { connections, backstopMs, tls } = this.#options;
    const backstop = lane === 'watch' ? 0 : backstopMs;
    const made = new Agent({
      connect: tls === null ? { timeout: CONNECT_MS } : connector(buildConnector, tls),
      connections: lane === 'heads' ? 1 : Math.min(MAX_BLOCKING, connections[lane]),
      pipelining: lane === 'heads' ? PIPELINE : 1,
      allowH2: false,
      keepAliveTimeout: 4_000,
      keepAliveTimeoutThreshold: 2_000,
      keepAliveMaxTimeout: 600_000,
      headersTimeout: backstop,
      bodyTimeout: backstop,
      maxHeaderSize: 16_384,
      maxResponseSize: MAX_BODY,
      strictContentLength: true,
    });
    made.on('disconnect', (_origin, _targets, error) => {
      // Our own closing of an idle connection says nothing of the other side.
      if (!('code' in error) || error.code !== 'UND_ERR_INFO') this.#breaks++;
    });
    return made;
  }
}

function connector(build: Undici['buildConnector'], material: Material): buildConnector.connector {
  return (options, callback) => {
    const open = async (): Promise<void> => {
      const { servername, ...tls } = await material();
      const connect = build({ timeout: CONNECT_MS, allowH2: false, maxCachedSessions: 0, ...tls });
      connect(servername === undefined ? options : { ...options, servername }, callback);
    };
    open().catch((thrown: unknown) => callback(thrown instanceof Error ? thrown : new Error(String(thrown)), null));
  };
}
