// Owns calls to one Consul agent: lanes, deadlines, limits, what the headers say. How bytes travel is http1.ts and http2.ts.
// Called by everything in this folder that talks to Consul; must never retry, queue without bound, or follow a redirect.
import { hash } from 'node:crypto';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { Gate } from '../../src/adapter/gate.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { parseJson } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { MAX_BLOCKING, MAX_BLOCKING_H2 } from './config.ts';
import { malformed, statusFailure, transportFailure } from './errors.ts';
import { Http1 } from './http1.ts';
import { Http2 } from './http2.ts';
import { type Lane, MAX_BODY, type RawHeaders, type Transport, tlsMaterial, tooLarge } from './transport.ts';

const MAX_HEADERS = 100;
/** Reads that do not block, and (apart, so that a sweep cannot hold them up) writes, locks and the guard call. */
const READ_CONNECTIONS = 5;
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
  /** Decoded JSON, made when it is asked for; null for an empty body. Throws SourceError `malformed`. */
  readonly body: unknown;
  /** The same as long as the body's bytes are: who knows what they say need not decode them again. */
  readonly digest: string;
}

interface RawAnswer {
  readonly status: number;
  readonly bytes: Buffer;
  readonly headers: AnswerHeaders;
  /** Any header of Consul was there. */
  readonly fromConsul: boolean;
}

export class ConsulClient {
  readonly origin: string;
  /** Whether an ACL token is sent. */
  readonly hasToken: boolean;
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #transport: Transport;
  readonly #gates: Readonly<Record<Lane, Gate>>;
  readonly #closing = new AbortController();
  #spoke: (h2: boolean) => void = () => {};

  constructor(origin: string, options: SourceOptions, clock: Clock) {
    this.origin = origin;
    this.#clock = clock;
    this.#timeout = options.timeout;
    const { token } = options.auth;
    this.hasToken = token !== undefined && token !== '';
    this.#headers = { accept: 'application/json', ...(this.hasToken && token !== undefined ? { 'x-consul-token': token } : {}) };
    const https = origin.startsWith('https:');
    const tls = https ? () => tlsMaterial(options.tls ?? {}) : null;
    const connections = { watch: MAX_BLOCKING, read: READ_CONNECTIONS, control: CONTROL_CONNECTIONS };
    const http1 = new Http1({ origin, connections, backstopMs: Math.max(10_000, options.timeout), tls });
    const spoke = (h2: boolean): void => this.#spoke(h2);
    this.#transport = tls === null ? http1 : new Http2({ origin, clock, tls, fallback: http1, spoke });
    this.#gates = {
      watch: new Gate(https ? MAX_BLOCKING_H2 : MAX_BLOCKING),
      read: new Gate(READ_CONNECTIONS),
      control: new Gate(CONTROL_CONNECTIONS),
    };
  }

  /** Calls `told` at each new TLS connection with whether it speaks HTTP/2, where many queries share a connection. */
  onProtocol(told: (h2: boolean) => void): void {
    this.#spoke = told;
  }

  /**
   * How many connections were broken by the other side. One more, and the server may have begun anew: an index that was learned
   * before must not be waited on, since one above the server's own is held for the whole wait.
   */
  get breaks(): number {
    return this.#transport.breaks;
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

  /**
   * The index that each of these paths has now, by reads whose bodies are thrown away; null where the answer was another than 200, or
   * had none. Rejects like `get`, when any of them got no answer.
   */
  indexes(paths: readonly string[], query: Query, signal: AbortSignal): Promise<readonly (bigint | null)[]> {
    const text = queryText(query);
    return this.#within(this.#timeout, signal, async (until) => {
      const asked = { paths: paths.map((path) => path + text), headers: this.#headers, signal: until };
      const heads = await this.#transport.heads(asked);
      return heads.map(({ status, headers }) => (status === 200 ? indexIn(headers) : null));
    });
  }

  /** A blocking query with the deadline of the whole call, ms. */
  block(path: string, query: Query, deadlineMs: number, signal: AbortSignal): Promise<Answer> {
    return this.#json('watch', path, query, deadlineMs, signal);
  }

  /** A write: the text of the answer (agent calls have an empty one). Rejects like `get`. */
  async put(path: string, query: Query, body: unknown, signal: AbortSignal, method: 'PUT' | 'POST' = 'PUT'): Promise<string> {
    const sent = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body);
    const { status, bytes: answered, fromConsul } = await this.#call('control', method, path, query, sent, this.#timeout, signal);
    const text = answered.toString('utf8');
    if (status !== 200) throw statusFailure(this.origin, path, status, text, { fromConsul });
    return text;
  }

  /** Drops every connection; later calls reject. */
  async close(): Promise<void> {
    this.#closing.abort(new SourceError('lost', 'consul: the source is closed'));
    await this.#transport.close();
  }

  async #json(lane: Lane, path: string, query: Query, deadlineMs: number, signal: AbortSignal): Promise<Answer> {
    const { status, bytes, headers, fromConsul } = await this.#call(lane, 'GET', path, query, null, deadlineMs, signal);
    // A key that does not exist yet: an answer with an index, on which one can wait.
    const noKey = status === 404 && path.startsWith('/v1/kv/') && bytes.byteLength === 0 && headers.index !== null;
    if (status !== 200 && !noKey) throw statusFailure(this.origin, path, status, bytes.toString('utf8'), { fromConsul });
    return new JsonAnswer(this.origin, path, headers, bytes);
  }

  #call(
    lane: Lane,
    method: 'GET' | 'PUT' | 'POST',
    path: string,
    query: Query,
    body: string | null,
    deadlineMs: number,
    outer: AbortSignal,
  ): Promise<RawAnswer> {
    return this.#within(deadlineMs, outer, async (signal) => {
      const leave = await this.#gates[lane].enter(signal);
      try {
        return await this.#exchange(lane, method, path + queryText(query), body, signal);
      } finally {
        leave();
      }
    });
  }

  /** Waiting for a turn counts, too: a full lane is a slow registry. */
  async #within<T>(deadlineMs: number, outer: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    outer.throwIfAborted();
    this.#closing.signal.throwIfAborted();
    const over = new AbortController();
    const onOuter = (): void => over.abort(outer.reason);
    const onClose = (): void => over.abort(this.#closing.signal.reason);
    outer.addEventListener('abort', onOuter, { once: true });
    this.#closing.signal.addEventListener('abort', onClose, { once: true });
    const timer = this.#clock.setTimer(deadlineMs, () =>
      over.abort(new SourceError('lost', `consul ${this.origin}: no whole answer within ${Math.round(deadlineMs)} ms`)),
    );
    try {
      return await run(over.signal);
    } catch (thrown) {
      if (over.signal.aborted) throw over.signal.reason;
      throw transportFailure(this.origin, thrown);
    } finally {
      timer.cancel();
      outer.removeEventListener('abort', onOuter);
      this.#closing.signal.removeEventListener('abort', onClose);
    }
  }

  async #exchange(
    lane: Lane,
    method: 'GET' | 'PUT' | 'POST',
    path: string,
    body: string | null,
    signal: AbortSignal,
  ): Promise<RawAnswer> {
    const headers = body === null ? this.#headers : { ...this.#headers, 'content-type': 'application/json' };
    const answer = await this.#transport.request(lane, { path, method, headers, body, signal });
    try {
      if (Object.keys(answer.headers).length > MAX_HEADERS) throw malformed(this.origin, path, 'with too many header fields');
      const encoding = header(answer.headers, 'content-encoding');
      if (encoding !== null && encoding !== 'identity')
        throw malformed(this.origin, path, `in the encoding ${encoding.slice(0, 20)}`);
      const bytes = await bodyBytes(answer.body);
      const fromConsul = Object.keys(answer.headers).some((name) => name.startsWith('x-consul-'));
      return { status: answer.status, bytes, headers: answerHeaders(answer.headers), fromConsul };
    } catch (thrown) {
      answer.abandon();
      throw thrown;
    }
  }
}

class JsonAnswer implements Answer {
  readonly headers: AnswerHeaders;
  readonly #origin: string;
  readonly #path: string;
  readonly #bytes: Buffer;
  #parsed: { readonly value: unknown } | null = null;

  constructor(origin: string, path: string, headers: AnswerHeaders, bytes: Buffer) {
    this.#origin = origin;
    this.#path = path;
    this.headers = headers;
    this.#bytes = bytes;
  }

  get body(): unknown {
    this.#parsed ??= { value: this.#parse() };
    return this.#parsed.value;
  }

  get digest(): string {
    return hash('sha1', this.#bytes, 'base64');
  }

  #parse(): unknown {
    if (this.#bytes.byteLength === 0) return null;
    const parsed = parseJson(this.#bytes, { maxBytes: MAX_BODY });
    if (parsed.ok) return parsed.value;
    throw malformed(this.#origin, this.#path, `something else than JSON (${parsed.faults[0]?.expected ?? ''})`);
  }
}

async function bodyBytes(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > MAX_BODY) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

function header(headers: RawHeaders, name: string): string | null {
  const value = headers[name];
  return typeof value === 'string' ? value : null;
}

function indexIn(raw: RawHeaders): bigint | null {
  const index = header(raw, 'x-consul-index');
  return index !== null && /^\d{1,20}$/.test(index) ? BigInt(index) : null;
}

function answerHeaders(raw: RawHeaders): AnswerHeaders {
  const leader = header(raw, 'x-consul-knownleader');
  const contact = header(raw, 'x-consul-lastcontact');
  return {
    index: indexIn(raw),
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
