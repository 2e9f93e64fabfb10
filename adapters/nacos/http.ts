// Owns HTTP to the members of one Nacos cluster: connections, deadlines, limits, TLS files. The only file that touches undici.
// Called by auth.ts and api.ts; must never retry, follow a redirect, or put a secret into a URL.
import { readFile } from 'node:fs/promises';
import type { Agent, buildConnector } from 'undici';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { Gate } from '../../src/adapter/gate.ts';
import { withDeadline } from '../../src/kernel/cancel.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { isRecord, parseJson } from '../../src/kernel/decode.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { NacosConfig, NacosServer } from './config.ts';
import { httpRefusal, transportFailure } from './errors.ts';
import { MAX_MESSAGE_BYTES } from './wire.ts';

const CONNECTIONS = 8;

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** Parameters; null is left out. */
export type Params = Readonly<Record<string, string | number | boolean | null>>;

/** What came back with a 2xx. */
export interface HttpAnswer {
  readonly text: string;
  /** Undefined where the text is no JSON. */
  readonly json: unknown;
}

/** TLS material, already read from the files. */
export interface TlsMaterial {
  readonly ca: Buffer | null;
  readonly cert: Buffer | null;
  readonly key: Buffer | null;
  readonly serverName: string | null;
}

/** Read again for each connection, so that renewed certificates are taken without a restart. Rejects with SourceError. */
export async function tlsMaterial(files: NonNullable<SourceOptions['tls']>): Promise<TlsMaterial> {
  const read = async (path: string | undefined, name: string): Promise<Buffer | null> => {
    if (path === undefined) return null;
    try {
      return await readFile(path);
    } catch (thrown) {
      throw new SourceError('denied', `nacos: tls.${name} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
    }
  };
  const [ca, cert, key] = await Promise.all([read(files.ca, 'ca'), read(files.cert, 'cert'), read(files.key, 'key')]);
  return { ca, cert, key, serverName: files.serverName ?? null };
}

export class NacosHttp {
  readonly #config: NacosConfig;
  readonly #timeout: number;
  readonly #clock: Clock;
  readonly #options: SourceOptions;
  #agent: Promise<Agent> | null = null;
  readonly #gate = new Gate(CONNECTIONS);
  readonly #closing = new AbortController();

  constructor(config: NacosConfig, options: SourceOptions, clock: Clock) {
    this.#config = config;
    this.#options = options;
    this.#timeout = options.timeout;
    this.#clock = clock;
  }

  /**
   * One call. `query` and `form` are both sent where given (1.4.6 reads a POST from the query only). Rejects with HttpRefusal for a
   * status other than 2xx, SourceError, or the signal's reason.
   */
  async call(
    server: NacosServer,
    method: Method,
    path: string,
    what: { readonly query?: Params; readonly form?: Params; readonly token?: string | null },
    outer: AbortSignal,
  ): Promise<HttpAnswer> {
    outer.throwIfAborted();
    this.#closing.signal.throwIfAborted();
    const until = AbortSignal.any([outer, this.#closing.signal]);
    try {
      return await withDeadline(this.#clock, this.#timeout, until, async (signal) => {
        const leave = await this.#gate.enter(signal);
        try {
          return await this.#exchange(server, method, path, what, signal);
        } finally {
          leave();
        }
      });
    } catch (thrown) {
      if (until.aborted) throw until.reason;
      throw transportFailure(server.address, thrown);
    }
  }

  /** Drops every connection; later calls reject. */
  async close(): Promise<void> {
    this.#closing.abort(new SourceError('lost', 'nacos: the source is closed'));
    await (await this.#agent)?.destroy();
  }

  async #exchange(
    server: NacosServer,
    method: Method,
    path: string,
    what: { readonly query?: Params; readonly form?: Params; readonly token?: string | null },
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const query = encoded(what.query ?? {});
    const full = `${this.#config.contextPath}${path}${query === '' ? '' : `?${query}`}`;
    const form = what.form === undefined ? null : encoded(what.form);
    const headers = {
      accept: 'application/json',
      'user-agent': 'weir',
      'client-version': 'weir',
      ...this.#config.headers,
      ...(what.token == null ? {} : { accesstoken: what.token }),
      // Polaris' face refuses a POST without it.
      ...(method === 'GET' ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
    };
    this.#agent ??= openAgent(this.#options);
    const agent = await this.#agent;
    signal.throwIfAborted();
    const answer = await agent.request({ origin: server.origin, path: full, method, headers, body: form, signal });
    try {
      const text = (await bodyBytes(answer.body)).toString('utf8');
      const parsed = parseJson(text, { maxBytes: MAX_MESSAGE_BYTES });
      const json = parsed.ok ? parsed.value : undefined;
      const { statusCode } = answer;
      if (statusCode < 200 || statusCode >= 300)
        throw httpRefusal(server.address, path, statusCode, codeOf(json), reasonOf(json, text));
      return { text, json };
    } catch (thrown) {
      answer.body.destroy();
      throw thrown;
    }
  }
}

/** The code of a v3 Result; 0 where there is none. */
export function codeOf(json: unknown): number {
  return isRecord(json) && typeof json['code'] === 'number' ? json['code'] : 0;
}

/** The text of a failure: of a Result, of the framework's own JSON, or as it is. */
export function reasonOf(json: unknown, text: string): string {
  // A page for browsers: its title is enough.
  if (!isRecord(json)) return /<title>([^<]{1,200})<\/title>/i.exec(text)?.[1] ?? text;
  const parts = [json['message'], json['data'], json['error']].filter((part) => typeof part === 'string' && part !== '');
  return parts.length === 0 ? text : parts.join(': ');
}

async function bodyBytes(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > MAX_MESSAGE_BYTES) throw new SourceError('limit', 'nacos: an answer is over our limit of 10 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

function encoded(params: Params): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(params)) {
    if (value !== null) parts.push(`${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`);
  }
  return parts.join('&');
}

/** undici is imported at the first call, so that no start waits for it. */
async function openAgent({ timeout, tls }: SourceOptions): Promise<Agent> {
  const undici = await import('undici');
  const backstop = Math.max(10_000, timeout);
  return new undici.Agent({
    connect: tlsConnector(undici.buildConnector, tls ?? {}),
    connections: CONNECTIONS,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: 4_000,
    keepAliveTimeoutThreshold: 2_000,
    keepAliveMaxTimeout: 20_000,
    headersTimeout: backstop,
    bodyTimeout: backstop,
    maxHeaderSize: 16_384,
    maxResponseSize: MAX_MESSAGE_BYTES,
  });
}

function tlsConnector(build: typeof buildConnector, files: NonNullable<SourceOptions['tls']>): buildConnector.connector {
  const plain = build({ timeout: 3_000, allowH2: false });
  return (options, callback) => {
    if (options.protocol !== 'https:') return plain(options, callback);
    const open = async (): Promise<void> => {
      const { ca, cert, key, serverName } = await tlsMaterial(files);
      const connect = build({
        timeout: 3_000,
        allowH2: false,
        maxCachedSessions: 0,
        ...(ca === null ? {} : { ca }),
        ...(cert === null ? {} : { cert }),
        ...(key === null ? {} : { key }),
      });
      connect(serverName === null ? options : { ...options, servername: serverName }, callback);
    };
    open().catch((thrown: unknown) => callback(thrown instanceof Error ? thrown : new Error(String(thrown)), null));
  };
}
