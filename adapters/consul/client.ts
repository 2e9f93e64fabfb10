// Owns HTTP to one Consul agent: connections, deadlines, limits, TLS files, what the headers say. The only file that touches undici.
// Called by everything in this folder that talks to Consul; must never retry, queue without bound, or follow a redirect.
import { readFile } from 'node:fs/promises';
import { Agent, buildConnector } from 'undici';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { Gate } from '../../src/adapter/gate.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { parseJson } from '../../src/kernel/decode.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { MAX_BLOCKING } from './config.ts';
import { malformed, statusFailure, transportFailure } from './errors.ts';

const MAX_BODY = 64 * 1024 * 1024;
const MAX_HEADERS = 100;
/** Reads that do not block, and (apart, so that a sweep cannot hold them up) writes, locks and the guard call. */
const READ_CONNECTIONS = 6;
const CONTROL_CONNECTIONS = 4;

/** Query parameters; a null value is left out, '' makes a bare flag. */
export type Query = Readonly<Record<string, string | null>>;

/** What the headers of a 200 say. */
export interface AnswerHeaders {
  /** Null: missing or no number. */
  readonly index: bigint | null;
  readonly backend: 'blocking-query' | 'streaming';
  readonly knownLeader: boolean;
  readonly lastContactMs: number;
  /** The list is filtered by ACLs, so far as Consul tells. */
  readonly filtered: boolean;
  /** Who has no token sees nothing, and is not told. */
  readonly defaultDeny: boolean;
}

export interface Answer {
  readonly headers: AnswerHeaders;
  /** Decoded JSON; null for an empty body. */
  readonly body: unknown;
}

interface RawAnswer {
  readonly status: number;
  readonly bytes: Buffer;
  readonly headers: AnswerHeaders;
  /** Any header of Consul was there. */
  readonly fromConsul: boolean;
}

type Lane = 'watch' | 'read' | 'control';

export class ConsulClient {
  readonly origin: string;
  /** Whether an ACL token is sent. */
  readonly hasToken: boolean;
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #agents: Readonly<Record<Lane, Agent>>;
  readonly #gates: Readonly<Record<Lane, Gate>>;
  readonly #closing = new AbortController();
  #breaks = 0;

  constructor(origin: string, options: SourceOptions, clock: Clock) {
    this.origin = origin;
    this.#clock = clock;
    this.#timeout = options.timeout;
    const { token } = options.auth;
    this.hasToken = token !== undefined && token !== '';
    this.#headers = { accept: 'application/json', ...(this.hasToken && token !== undefined ? { 'x-consul-token': token } : {}) };
    const connect = origin.startsWith('https:') ? tlsConnector(options.tls ?? {}) : { timeout: 1_000 };
    const agent = (connections: number, backstop: number): Agent => {
      const made = new Agent({
        connect,
        connections,
        pipelining: 1,
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
    };
    const backstop = Math.max(10_000, options.timeout);
    // A blocking query has its own deadline.
    this.#agents = {
      watch: agent(MAX_BLOCKING, 0),
      read: agent(READ_CONNECTIONS, backstop),
      control: agent(CONTROL_CONNECTIONS, backstop),
    };
    this.#gates = { watch: new Gate(MAX_BLOCKING), read: new Gate(READ_CONNECTIONS), control: new Gate(CONTROL_CONNECTIONS) };
  }

  /**
   * How many connections were broken by the other side. One more, and the server may have begun anew: an index that was learned
   * before must not be waited on, since one above the server's own is held for the whole wait.
   */
  get breaks(): number {
    return this.#breaks;
  }

  /** A read that does not block. Rejects with SourceError (ConsulFailure for a status other than 200) or the signal's reason. */
  get(
    path: string,
    query: Query,
    signal: AbortSignal,
    lane: 'read' | 'control' = 'read',
    deadlineMs = this.#timeout,
  ): Promise<Answer> {
    return this.#json(lane, path, query, deadlineMs, signal);
  }

  /** A blocking query with the deadline of the whole call, ms. */
  block(path: string, query: Query, deadlineMs: number, signal: AbortSignal): Promise<Answer> {
    return this.#json('watch', path, query, deadlineMs, signal);
  }

  /** A write: the text of the answer (agent calls have an empty one). Rejects like `get`. */
  async put(path: string, query: Query, body: unknown, signal: AbortSignal): Promise<string> {
    const sent = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body);
    const { status, bytes: answered, fromConsul } = await this.#call('control', 'PUT', path, query, sent, this.#timeout, signal);
    const text = answered.toString('utf8');
    if (status !== 200) throw statusFailure(this.origin, path, status, text, { fromConsul });
    return text;
  }

  /** Drops every connection; later calls reject. */
  async close(): Promise<void> {
    this.#closing.abort(new SourceError('lost', 'consul: the source is closed'));
    await Promise.all(Object.values(this.#agents).map((agent) => agent.destroy()));
  }

  async #json(lane: Lane, path: string, query: Query, deadlineMs: number, signal: AbortSignal): Promise<Answer> {
    const { status, bytes, headers, fromConsul } = await this.#call(lane, 'GET', path, query, null, deadlineMs, signal);
    // A key that does not exist yet: an answer with an index, on which one can wait.
    const noKey = status === 404 && path.startsWith('/v1/kv/') && bytes.byteLength === 0 && headers.index !== null;
    if (status !== 200 && !noKey) throw statusFailure(this.origin, path, status, bytes.toString('utf8'), { fromConsul });
    if (bytes.byteLength === 0) return { headers, body: null };
    const parsed = parseJson(bytes, { maxBytes: MAX_BODY });
    if (!parsed.ok) throw malformed(this.origin, path, `something else than JSON (${parsed.faults[0]?.expected ?? ''})`);
    return { headers, body: parsed.value };
  }

  async #call(
    lane: Lane,
    method: 'GET' | 'PUT',
    path: string,
    query: Query,
    body: string | null,
    deadlineMs: number,
    outer: AbortSignal,
  ): Promise<RawAnswer> {
    outer.throwIfAborted();
    this.#closing.signal.throwIfAborted();
    const over = new AbortController();
    const onOuter = (): void => over.abort(outer.reason);
    const onClose = (): void => over.abort(this.#closing.signal.reason);
    outer.addEventListener('abort', onOuter, { once: true });
    this.#closing.signal.addEventListener('abort', onClose, { once: true });
    // Waiting for a turn counts, too: a full lane is a slow registry.
    const timer = this.#clock.setTimer(deadlineMs, () =>
      over.abort(new SourceError('lost', `consul ${this.origin}: no whole answer within ${Math.round(deadlineMs)} ms`)),
    );
    let leave = (): void => {};
    try {
      leave = await this.#gates[lane].enter(over.signal);
      return await this.#exchange(lane, method, path + queryText(query), body, over.signal);
    } catch (thrown) {
      if (over.signal.aborted) throw over.signal.reason;
      throw transportFailure(this.origin, thrown);
    } finally {
      leave();
      timer.cancel();
      outer.removeEventListener('abort', onOuter);
      this.#closing.signal.removeEventListener('abort', onClose);
    }
  }

  async #exchange(lane: Lane, method: 'GET' | 'PUT', path: string, body: string | null, signal: AbortSignal): Promise<RawAnswer> {
    const headers = body === null ? this.#headers : { ...this.#headers, 'content-type': 'application/json' };
    const answer = await this.#agents[lane].request({ origin: this.origin, path, method, headers, body, signal });
    try {
      if (Object.keys(answer.headers).length > MAX_HEADERS) throw malformed(this.origin, path, 'with too many header fields');
      const encoding = header(answer.headers, 'content-encoding');
      if (encoding !== null && encoding !== 'identity')
        throw malformed(this.origin, path, `in the encoding ${encoding.slice(0, 20)}`);
      const bytes = await bodyBytes(answer.body);
      const fromConsul = Object.keys(answer.headers).some((name) => name.startsWith('x-consul-'));
      return { status: answer.statusCode, bytes, headers: answerHeaders(answer.headers), fromConsul };
    } catch (thrown) {
      // Nobody reads on; the stream would call that an error of its own.
      answer.body.on('error', () => {});
      answer.body.destroy();
      throw thrown;
    }
  }
}

async function bodyBytes(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > MAX_BODY) throw new SourceError('limit', 'consul: an answer is over our limit of 64 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

type RawHeaders = Readonly<Record<string, string | string[] | undefined>>;

function header(headers: RawHeaders, name: string): string | null {
  const value = headers[name];
  return typeof value === 'string' ? value : null;
}

function answerHeaders(raw: RawHeaders): AnswerHeaders {
  const index = header(raw, 'x-consul-index');
  const leader = header(raw, 'x-consul-knownleader');
  const contact = header(raw, 'x-consul-lastcontact');
  return {
    index: index !== null && /^\d{1,20}$/.test(index) ? BigInt(index) : null,
    backend: header(raw, 'x-consul-query-backend') === 'streaming' ? 'streaming' : 'blocking-query',
    // A server too old to say is not to be taken for one without a leader.
    knownLeader: leader !== 'false',
    lastContactMs: contact !== null && /^\d{1,15}$/.test(contact) ? Number(contact) : 0,
    filtered: header(raw, 'x-consul-results-filtered-by-acls') === 'true',
    defaultDeny: header(raw, 'x-consul-default-acl-policy') === 'deny',
  };
}

/** One path segment: everything that could end or change it is encoded. */
export function segment(text: string): string {
  return encodeURIComponent(text);
}

function queryText(query: Query): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(query)) {
    if (value !== null) parts.push(value === '' ? name : `${name}=${encodeURIComponent(value)}`);
  }
  return parts.length === 0 ? '' : `?${parts.join('&')}`;
}

/** Reads the files again for each connection, so that renewed certificates are taken without a restart. */
function tlsConnector(files: NonNullable<SourceOptions['tls']>): buildConnector.connector {
  return (options, callback) => {
    const read = async (path: string | undefined, name: string): Promise<Buffer | undefined> => {
      if (path === undefined) return undefined;
      try {
        return await readFile(path);
      } catch (thrown) {
        throw new SourceError('denied', `consul: tls.${name} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
      }
    };
    const open = async (): Promise<void> => {
      const [ca, cert, key] = await Promise.all([read(files.ca, 'ca'), read(files.cert, 'cert'), read(files.key, 'key')]);
      const connect = buildConnector({
        timeout: 1_000,
        allowH2: false,
        maxCachedSessions: 0,
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
      });
      connect(files.serverName === undefined ? options : { ...options, servername: files.serverName }, callback);
    };
    open().catch((thrown: unknown) => callback(thrown instanceof Error ? thrown : new Error(String(thrown)), null));
  };
}
