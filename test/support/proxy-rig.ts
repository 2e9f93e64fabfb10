// A data plane on real sockets with scripted upstreams, and a client that sees every byte; for the proxy's integration tests.
import net from 'node:net';
import type { ClusterMessage, EndpointUpdate } from '../../src/cluster/cluster-update.ts';
import { DOWNSTREAM_LIMITS, type DownstreamLimits } from '../../src/http1/downstream.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { systemRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { type ClusterPolicy, DEFAULT_CLUSTER_POLICY } from '../../src/model/policy.ts';
import { DataPlane, type DataPlaneDeps } from '../../src/proxy/data-plane.ts';
import type { ListenerUpdate, ProxyUpdate } from '../../src/proxy/proxy-update.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { UpstreamFarm } from './upstream-farm.ts';

export const SERVICE = 'demo/hello';

export const MAIN_LISTENER: ListenerUpdate = {
  id: 'main',
  listen: { host: '127.0.0.1', port: 0 },
  service: null,
  direction: 'outbound',
  trustedCidrs: [],
};

export interface RigOptions {
  readonly policy?: Partial<ClusterPolicy>;
  readonly limits?: Partial<DownstreamLimits>;
  readonly deps?: Partial<DataPlaneDeps>;
  readonly proxy?: Partial<ProxyUpdate>;
}

/** One data plane, its upstreams and clients; `close` ends all of them. */
export class ProxyRig {
  readonly farm = new UpstreamFarm();
  readonly metrics = new Metrics();
  readonly wheel: TimerWheel;
  readonly plane: DataPlane;
  readonly #options: RigOptions;
  readonly #clients = new Set<RawClient>();
  #revision = 0;

  constructor(options: RigOptions = {}) {
    this.#options = options;
    this.wheel = new TimerWheel(systemClock, 10);
    this.plane = new DataPlane({
      clock: systemClock,
      random: systemRandom,
      wheel: this.wheel,
      metrics: this.metrics,
      log: silentLog,
      interest: { firstUse: (service) => this.plane.apply({ kind: 'absent', service, why: 'unknown' }) },
      limits: { ...DOWNSTREAM_LIMITS, ...options.limits },
      ...options.deps,
    });
  }

  async open(): Promise<this> {
    await this.plane.apply(this.proxyUpdate());
    return this;
  }

  proxyUpdate(change: Partial<ProxyUpdate> = {}): ProxyUpdate {
    return {
      kind: 'proxy',
      instanceId: 'test',
      listeners: [MAIN_LISTENER],
      accessLog: null,
      extraMethods: [],
      ...this.#options.proxy,
      ...change,
    };
  }

  /** Publishes a service with these ports (or endpoints) on loopback. */
  serve(endpoints: readonly (number | Partial<EndpointUpdate>)[], policy: Partial<ClusterPolicy> = {}, service = SERVICE): void {
    const message: ClusterMessage = {
      kind: 'cluster',
      service,
      revision: ++this.#revision,
      endpoints: endpoints.map((one) => ({
        host: '127.0.0.1',
        weight: 100,
        verdict: 'healthy',
        ...(typeof one === 'number' ? { port: one } : { port: 0, ...one }),
      })),
      policy: { ...DEFAULT_CLUSTER_POLICY, ...this.#options.policy, ...policy },
    };
    this.plane.apply(message);
  }

  get port(): number {
    return this.plane.address('main')?.port ?? 0;
  }

  /** Opens a client connection. */
  async client(port = this.port): Promise<RawClient> {
    const client = new RawClient(port);
    this.#clients.add(client);
    await client.connected;
    return client;
  }

  /** One request on a connection of its own. */
  async ask(head: string, body: string | Buffer = '', options: { readonly method?: string } = {}): Promise<RawResponse> {
    const client = await this.client();
    client.write(head);
    if (body.length > 0) client.write(body);
    const response = await client.response(options.method ?? head.slice(0, head.indexOf(' ')));
    client.destroy();
    return response;
  }

  /** A GET to the service by header. */
  get(path = '/', ...fields: string[]): Promise<RawResponse> {
    return this.ask(request('GET', path, ...fields));
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    this.plane.close();
    this.wheel.close();
    await this.farm.close();
  }
}

/** Head of a request to the service, with the empty line. */
export function request(method: string, path: string, ...fields: string[]): string {
  return [`${method} ${path} HTTP/1.1`, 'Host: x', `x-weir-service: ${SERVICE}`, ...fields, '', ''].join('\r\n');
}

/** A response as the client saw it. */
export interface RawResponse {
  readonly status: number;
  readonly head: string;
  readonly fields: ReadonlyMap<string, readonly string[]>;
  readonly body: Buffer;
  /** False: the connection broke off before the end of the message. */
  readonly complete: boolean;
  /** Trailer section, raw. */
  readonly trailers: string;
}

/** Reads responses strictly, one after another, from one socket. */
export class RawClient {
  readonly socket: net.Socket;
  readonly connected: Promise<void>;
  ended = false;
  #merged: Buffer = Buffer.alloc(0);
  /** What came since; merged when somebody looks, so that a large body costs no copy per piece. */
  #pieces: Buffer[] = [];
  #closed = false;
  #received = 0;
  #wake: () => void = () => {};

  constructor(port: number) {
    this.socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
    this.connected = new Promise((resolve, reject) => {
      this.socket.once('connect', resolve);
      this.socket.once('error', reject);
    });
    this.socket.on('error', () => {});
    this.socket.on('data', (chunk: Buffer) => {
      this.#pieces.push(chunk);
      this.#received += chunk.length;
      this.#wake();
    });
    this.socket.on('end', () => {
      this.ended = true;
      this.#wake();
    });
    this.socket.on('close', () => {
      this.#closed = true;
      this.#wake();
    });
  }

  write(bytes: string | Buffer): void {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  destroy(): void {
    this.socket.destroy();
  }

  get #held(): Buffer {
    if (this.#pieces.length > 0) {
      this.#merged = Buffer.concat([this.#merged, ...this.#pieces]);
      this.#pieces = [];
    }
    return this.#merged;
  }

  set #held(rest: Buffer) {
    this.#merged = rest;
    this.#received = rest.length;
  }

  get closed(): boolean {
    return this.#closed || this.ended;
  }

  /** Bytes received and not read. */
  get unread(): Buffer {
    return this.#held;
  }

  /** Resolves when the peer has closed or reset. */
  async waitClosed(): Promise<void> {
    while (!this.closed) await this.#more();
  }

  /** Exactly `n` raw bytes. Throws when the connection ends before. */
  async bytes(n: number): Promise<Buffer> {
    while (this.#received < n) {
      if (this.closed) throw new Error(`closed after ${this.#received} of ${n} bytes`);
      await this.#more();
    }
    const out = this.#held.subarray(0, n);
    this.#held = this.#held.subarray(n);
    return out;
  }

  /** The next response; informational ones are returned too. Throws when the connection ends before its head is whole. */
  async response(method = 'GET'): Promise<RawResponse> {
    let end = this.#held.indexOf('\r\n\r\n');
    while (end < 0) {
      if (this.closed)
        throw new Error(`closed without a response: ${JSON.stringify(this.#held.toString('latin1').slice(0, 100))}`);
      await this.#more();
      end = this.#held.indexOf('\r\n\r\n');
    }
    const head = (await this.bytes(end + 4)).toString('latin1').slice(0, -4);
    const [statusLine = '', ...lines] = head.split('\r\n');
    const fields = new Map<string, string[]>();
    for (const line of lines) {
      const colon = line.indexOf(':');
      const name = line.slice(0, colon).toLowerCase();
      fields.set(name, [...(fields.get(name) ?? []), line.slice(colon + 1).trim()]);
    }
    const status = Number(statusLine.split(' ')[1]);
    return { status, head, fields, ...(await this.#body(status, method, fields)) };
  }

  async #body(
    status: number,
    method: string,
    fields: ReadonlyMap<string, readonly string[]>,
  ): Promise<Pick<RawResponse, 'body' | 'complete' | 'trailers'>> {
    if (method === 'HEAD' || status < 200 || status === 204 || status === 304)
      return { body: Buffer.alloc(0), complete: true, trailers: '' };
    const length = fields.get('content-length')?.[0];
    if (length !== undefined) return this.#sized(Number(length));
    if (fields.has('transfer-encoding')) return this.#chunked();
    while (!this.closed) await this.#more();
    const body = this.#held;
    this.#held = Buffer.alloc(0);
    return { body, complete: this.ended, trailers: '' };
  }

  async #sized(length: number): Promise<Pick<RawResponse, 'body' | 'complete' | 'trailers'>> {
    while (this.#received < length && !this.closed) await this.#more();
    const body = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return { body, complete: body.length === length, trailers: '' };
  }

  async #chunked(): Promise<Pick<RawResponse, 'body' | 'complete' | 'trailers'>> {
    const parts: Buffer[] = [];
    const cut = (): Pick<RawResponse, 'body' | 'complete' | 'trailers'> => ({
      body: Buffer.concat(parts),
      complete: false,
      trailers: '',
    });
    for (;;) {
      const line = await this.#line();
      if (line === null) return cut();
      const size = Number.parseInt(line, 16);
      if (size === 0) {
        let trailers = '';
        for (let text = await this.#line(); text !== ''; text = await this.#line()) {
          if (text === null) return cut();
          trailers += `${text}\n`;
        }
        return { body: Buffer.concat(parts), complete: true, trailers };
      }
      const { body, complete } = await this.#sized(size + 2);
      parts.push(complete ? body.subarray(0, size) : body);
      if (!complete) return cut();
    }
  }

  async #line(): Promise<string | null> {
    let end = this.#held.indexOf('\r\n');
    while (end < 0) {
      if (this.closed) return null;
      await this.#more();
      end = this.#held.indexOf('\r\n');
    }
    const line = this.#held.subarray(0, end).toString('latin1');
    this.#held = this.#held.subarray(end + 2);
    return line;
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
