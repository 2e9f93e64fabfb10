// Owns talking to a running sidecar: the address of --api or WEIR_API, the token, one request, and what to say when it fails.
// Called by the commands that ask; answers are unknown until a command decodes them.
import { type ClientRequest, type IncomingMessage, type RequestOptions, request } from 'node:http';
import type { Static, TSchema } from 'typebox';
import { decoder, faultText, isRecord, parseJson } from '../kernel/decode.ts';
import { messageOf } from '../kernel/errors.ts';
import { CommandFailure, EXIT_FAILED, type Io, usageFailure } from './io.ts';
import { printable } from './table.ts';

const DEFAULT_API = 'http://127.0.0.1:7900';
const TIMEOUT_MS = 30_000;
const MAX_ANSWER_BYTES = 268_435_456;

/** What every asking command takes. */
export interface ApiOptions {
  readonly api?: string;
  readonly json?: boolean;
}

type Target = { readonly socketPath: string } | { readonly hostname: string; readonly port: number };

/** One sidecar. */
export class ApiClient {
  /** As the user wrote it; for messages. */
  readonly address: string;
  readonly #target: Target;
  readonly #token: string | undefined;

  /** Throws CommandFailure (exit 2) for an address that is none. */
  constructor(options: ApiOptions, io: Io) {
    this.address = options.api ?? io.env.get('WEIR_API') ?? DEFAULT_API;
    this.#target = targetOf(this.address);
    this.#token = io.env.get('WEIR_TOKEN');
  }

  /** One answer of 2xx, decoded. Throws CommandFailure for everything else. `timeoutMs`: how long nothing may come. */
  async ask<S extends TSchema>(
    schema: S,
    method: string,
    path: string,
    body?: unknown,
    timeoutMs = TIMEOUT_MS,
  ): Promise<Static<S>> {
    const answer = await this.#send(method, path, body, {}, timeoutMs);
    const text = await this.#text(answer);
    if ((answer.statusCode ?? 0) >= 300) throw this.#refused(answer.statusCode ?? 0, text);
    const parsed = parseJson(text, { maxBytes: MAX_ANSWER_BYTES });
    const decoded = parsed.ok ? decoder(schema)(parsed.value) : parsed;
    if (decoded.ok) return decoded.value;
    const [fault] = decoded.faults;
    throw new CommandFailure(
      EXIT_FAILED,
      `${this.address} answered what weir does not: ${fault === undefined ? 'nothing' : faultText(fault)}`,
    );
  }

  /** An open stream of 200. Throws CommandFailure for everything else. The caller reads or destroys it. */
  async stream(path: string, headers: Readonly<Record<string, string>>): Promise<IncomingMessage> {
    const answer = await this.#send('GET', path, undefined, headers);
    if (answer.statusCode === 200) return answer;
    throw this.#refused(answer.statusCode ?? 0, await this.#text(answer));
  }

  #send(
    method: string,
    path: string,
    body: unknown,
    headers: Readonly<Record<string, string>> = {},
    timeoutMs = TIMEOUT_MS,
  ): Promise<IncomingMessage> {
    const payload = method === 'GET' ? undefined : JSON.stringify(body ?? {});
    const options: RequestOptions = {
      ...this.#target,
      method,
      path,
      agent: false,
      headers: {
        // A unix socket has no name of its own; the API allows localhost everywhere.
        ...('socketPath' in this.#target ? { host: 'localhost' } : {}),
        ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
        ...(payload === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
        ...headers,
      },
    };
    return new Promise((resolve, reject) => {
      const sent: ClientRequest = request(options, (answer) => {
        sent.setTimeout(0);
        resolve(answer);
      });
      sent.setTimeout(timeoutMs, () => sent.destroy(new Error(`no answer within ${timeoutMs / 1_000} s`)));
      sent.once('error', (thrown) => reject(this.#unreachable(thrown)));
      sent.end(payload);
    });
  }

  async #text(answer: IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of answer) chunks.push(Buffer.from(chunk));
    } catch (thrown) {
      throw new CommandFailure(EXIT_FAILED, `${this.address} cut its answer short: ${messageOf(thrown)}`);
    }
    return Buffer.concat(chunks).toString('utf8');
  }

  #refused(status: number, text: string): CommandFailure {
    const parsed = parseJson(text, { maxBytes: MAX_ANSWER_BYTES });
    const error = parsed.ok && isRecord(parsed.value) && isRecord(parsed.value['error']) ? parsed.value['error'] : {};
    const code = typeof error['code'] === 'string' ? error['code'] : `HTTP ${status}`;
    const message = typeof error['message'] === 'string' ? error['message'] : 'the answer has no words';
    const advice = code === 'UNAUTHORIZED' || code === 'FORBIDDEN' ? '\n  Set WEIR_TOKEN to a token of api.tokens.' : '';
    return new CommandFailure(EXIT_FAILED, printable(`${code}: ${message}`) + listed(error['details']) + advice);
  }

  #unreachable(thrown: Error): CommandFailure {
    const code = 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : thrown.message;
    const advice =
      code === 'EACCES'
        ? 'The socket belongs to another user: run this as the user of the sidecar.'
        : 'Is it running? Start one with `weir run -c weir.yaml` (or `weir demo` to try),\n  or name another by --api or WEIR_API: http://host:port, or unix:/path/to/socket.';
    return new CommandFailure(
      EXIT_FAILED,
      `API_UNREACHABLE: no sidecar answers at ${printable(this.address)} (${printable(code)}).\n  ${advice}`,
    );
  }
}

/** What an error lists of its reasons, one a line; nothing when there is one only, since the message has it. */
function listed(details: unknown): string {
  if (!isRecord(details)) return '';
  const found = details['missing'] ?? details['errors'];
  const reasons = Array.isArray(found) ? found.filter((one) => typeof one === 'string') : [];
  return reasons.length < 2 ? '' : reasons.map((reason) => `\n  - ${printable(reason)}`).join('');
}

function targetOf(address: string): Target {
  if (address.startsWith('unix:') && address.length > 5) return { socketPath: address.slice(5) };
  const text = address.includes('://') ? address : `http://${address}`;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || url.protocol !== 'http:' || url.pathname !== '/' || url.hostname === '' || url.username !== '') {
    throw usageFailure(`--api: expected http://host:port or unix:/path, got ${JSON.stringify(address)}`);
  }
  return { hostname: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? 80 : Number(url.port) };
}

/** `/a/b/c` with every segment percent-encoded. */
export function apiPath(...segments: readonly string[]): string {
  return `/${segments.map(encodeURIComponent).join('/')}`;
}

/** `?a=1&b=2` of what is set; empty when nothing is. */
export function apiQuery(query: Readonly<Record<string, string | undefined>>): string {
  const set = Object.entries(query).flatMap(([key, value]) =>
    value === undefined ? [] : [`${encodeURIComponent(key)}=${encodeURIComponent(value)}`],
  );
  return set.length === 0 ? '' : `?${set.join('&')}`;
}
