// Owns HTTP to one Polaris server: the fallback for reads and writes, and the console calls that gRPC does not have. The only file that
// touches undici. Called by servers.ts; must never retry or follow a redirect.
import type { Agent, buildConnector } from 'undici';
import { withDeadline } from '../../src/kernel/cancel.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { parseJson } from '../../src/kernel/decode.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import type { TlsMaterial } from './client.ts';
import { codeError, IP_LIMIT, NO_CHANGE, PolarisFailure, shown, sourceError, UNAVAILABLE } from './errors.ts';
import { discoverJson, discoverOf, instanceJson, responseOf } from './json.ts';
import type { NativeInstance, NativeResponse, WriteName } from './protocol.ts';
import type { Asker, Question, Result } from './question.ts';
import { contradiction } from './stream.ts';

const MAX_BODY = 64 * 1024 * 1024;
/** Reads in flight at once; HTTP answers are not cached by the server, so they cost it more than gRPC. */
const WINDOW = 8;

/** The HTTP client: imported with the first use of a server over HTTP, so that no start waits for it. */
export type HttpClient = typeof import('undici');

export interface HttpDeps {
  readonly client: HttpClient;
  readonly clock: Clock;
  readonly token: string | null;
  /** Deadline of one call, ms. */
  readonly timeout: number;
}

/** One server's HTTP API. */
export class HttpApi {
  readonly server: string;
  readonly #origin: string;
  readonly #deps: HttpDeps;
  readonly #agent: Agent;
  readonly #closing = new AbortController();

  constructor(server: string, tls: TlsMaterial | null, deps: HttpDeps) {
    this.server = server;
    this.#origin = `${tls === null ? 'http' : 'https'}://${server}`;
    this.#deps = deps;
    this.#agent = new deps.client.Agent({
      connect: tls === null ? { timeout: 2_000 } : tlsConnector(deps.client, tls),
      connections: WINDOW + 8,
      pipelining: 1,
      allowH2: false,
      headersTimeout: deps.timeout + 1_000,
      bodyTimeout: deps.timeout + 1_000,
      maxResponseSize: MAX_BODY,
    });
  }

  /** POST of a client call. Rejects with SourceError or the signal's reason. */
  async write(name: WriteName, instance: NativeInstance, signal: AbortSignal): Promise<NativeResponse> {
    const answer = responseOf(await this.json('POST', `/v1/${name}`, instanceJson(instance), signal));
    return answer ?? this.#notPolaris('an answer without a code');
  }

  /** One question. Never rejects but with the signal's reason. */
  async discover(question: Question, signal: AbortSignal): Promise<Result> {
    try {
      const answer = discoverOf(await this.json('POST', '/v1/Discover', discoverJson(question.request), signal));
      if (answer === null) return { kind: 'failed', error: this.#error('an answer without a code') };
      const fault = contradiction(question, answer);
      if (fault !== null) return { kind: 'failed', error: this.#error(`${question.about}: ${fault}`) };
      return answer.code?.value === NO_CHANGE ? { kind: 'same' } : { kind: 'answer', answer };
    } catch (thrown) {
      signal.throwIfAborted();
      return { kind: 'failed', error: asSourceError(thrown) };
    }
  }

  /** The decoded body, whatever the HTTP status: Polaris answers 4xx with a body that has the code. */
  async json(method: 'GET' | 'POST', path: string, body: object | null, signal: AbortSignal): Promise<unknown> {
    const { clock, timeout } = this.#deps;
    const until = AbortSignal.any([signal, this.#closing.signal]);
    try {
      return await withDeadline(clock, timeout, until, (inner) => this.#request(method, path, body, inner));
    } catch (thrown) {
      signal.throwIfAborted();
      if (thrown instanceof SourceError) throw thrown;
      throw sourceError(new PolarisFailure(UNAVAILABLE, causes(thrown), this.server));
    }
  }

  close(): void {
    this.#closing.abort(new SourceError('lost', 'polaris: the source is closed'));
    this.#agent.destroy().then(undefined, () => undefined);
  }

  async #request(method: 'GET' | 'POST', path: string, body: object | null, signal: AbortSignal): Promise<unknown> {
    const { token } = this.#deps;
    const { statusCode, body: stream } = await this.#agent.request({
      origin: this.#origin,
      path,
      method,
      signal,
      headers: {
        accept: 'application/json',
        ...(body === null ? {} : { 'content-type': 'application/json' }),
        ...(token === null ? {} : { 'x-polaris-token': token }),
      },
      ...(body === null ? {} : { body: JSON.stringify(body) }),
    });
    const bytes = new Uint8Array(await stream.arrayBuffer());
    const parsed = parseJson(bytes, { maxBytes: MAX_BODY });
    if (parsed.ok) return parsed.value;
    const busy = gatewayError(statusCode, this.server);
    if (busy !== null) throw busy;
    return this.#notPolaris(`HTTP status ${statusCode}, no JSON`);
  }

  #notPolaris(what: string): never {
    throw this.#error(what);
  }

  #error(what: string): SourceError {
    return new SourceError(
      'malformed',
      `polaris ${this.server}: no HTTP API of Polaris there (${shown(what)}): check that servers name its api-http port (8090)`,
    );
  }
}

/** What stands before Polaris, or Polaris without a body, asks for less or has nobody to ask. */
function gatewayError(status: number, server: string): SourceError | null {
  if (status === 429) return codeError(IP_LIMIT, `HTTP status ${status}`, server, 'the HTTP API');
  if (status < 502 || status > 504) return null;
  return new SourceError('lost', `polaris ${server}: a gateway answers there that cannot reach Polaris (HTTP status ${status})`);
}

interface Waiting {
  readonly question: Question;
  readonly settle: (result: Result) => void;
}

/** Questions over HTTP, a few at a time. */
export class HttpAsker implements Asker {
  readonly server: string;
  readonly #api: HttpApi;
  readonly #onLost: (error: SourceError) => void;
  readonly #stop = new AbortController();
  #waiting: Waiting[] = [];
  readonly #open = new Set<Waiting>();
  #draining = false;
  #over: SourceError | null = null;

  /** `onLost` is called once when the server cannot be reached. */
  constructor(api: HttpApi, onLost: (error: SourceError) => void) {
    this.server = api.server;
    this.#api = api;
    this.#onLost = onLost;
  }

  ask(question: Question, settle: (result: Result) => void): void {
    if (this.#over !== null) settle({ kind: 'failed', error: this.#over });
    else {
      this.#waiting.push({ question, settle });
      this.#pump();
    }
  }

  drain(): void {
    this.#draining = true;
    this.#pump();
  }

  close(error: SourceError): void {
    if (this.#over !== null) return;
    this.#over = error;
    this.#stop.abort(error);
    this.#api.close();
    const open = [...this.#open, ...this.#waiting];
    this.#open.clear();
    this.#waiting = [];
    for (const { settle } of open) settle({ kind: 'failed', error });
  }

  #pump(): void {
    while (this.#open.size < WINDOW && this.#over === null) {
      const one = this.#waiting.shift();
      if (one === undefined) break;
      this.#open.add(one);
      this.#api.discover(one.question, this.#stop.signal).then(
        (result) => this.#settle(one, result),
        () => undefined,
      );
    }
    if (this.#draining && this.#open.size === 0)
      this.close(new SourceError('lost', `polaris ${this.server}: left for another server`));
  }

  #settle(one: Waiting, result: Result): void {
    if (!this.#open.delete(one)) return;
    one.settle(result);
    if (result.kind === 'failed' && result.error.causeKind === 'lost' && this.#over === null) {
      this.close(result.error);
      this.#onLost(result.error);
      return;
    }
    this.#pump();
  }
}

/** undici wraps: the reason stands in the cause. */
function causes(thrown: unknown): string {
  const inner = thrown instanceof Error && thrown.cause instanceof Error ? ` ${thrown.cause.message}` : '';
  const code = thrown instanceof Error && 'code' in thrown ? `${String(thrown.code)} ` : '';
  return `${code}${messageOf(thrown)}${inner}`;
}

function tlsConnector(client: HttpClient, tls: TlsMaterial): buildConnector.connector {
  const connect = client.buildConnector({
    timeout: 2_000,
    allowH2: false,
    ...(tls.ca === null ? {} : { ca: tls.ca }),
    ...(tls.cert === null ? {} : { cert: tls.cert }),
    ...(tls.key === null ? {} : { key: tls.key }),
  });
  const { serverName } = tls;
  return (options, callback) => connect(serverName === null ? options : { ...options, servername: serverName }, callback);
}
