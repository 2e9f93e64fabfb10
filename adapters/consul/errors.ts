// Owns what a failed call means: HTTP status and Consul's own text, or the transport's error → SourceError with a sentence that says
// what to change. Called by client.ts; must never put a token or a value of a key into a message.
import { parseJson } from '../../src/kernel/decode.ts';
import { SourceError, type SourceErrorCause } from '../../src/model/snapshot.ts';

/** A call that Consul answered with another status than 200. Headers of such an answer are never read (their index is a dummy). */
export class ConsulFailure extends SourceError {
  readonly status: number;
  /** The body, cut, without control characters. */
  readonly text: string;
  readonly #body: string;

  constructor(status: number, body: string, causeKind: SourceErrorCause, message: string) {
    super(causeKind, message);
    this.name = 'ConsulFailure';
    this.status = status;
    this.text = safeText(body, 300);
    this.#body = body;
  }

  /** The body as JSON (a transaction that was rolled back has such); null when it is none. */
  get json(): unknown {
    const parsed = parseJson(this.#body, { maxBytes: 4 * 1024 * 1024 });
    return parsed.ok ? parsed.value : null;
  }
}

/** What makes an answer another than Consul's own. */
export interface Oddity {
  /** Any header of Consul was there. */
  readonly fromConsul: boolean;
}

type Hint = readonly [pattern: RegExp, cause: SourceErrorCause, hint: string];

const HINTS: readonly Hint[] = [
  [/HTTP request to an HTTPS server/, 'malformed', 'this port speaks TLS: write https:// in address and set tls.ca'],
  [/^rpc error: .*ACL not found|^ACL not found/, 'denied', 'the ACL token is not known there: check auth.token'],
  [/Permission denied|lacks permission/, 'denied', 'the ACL token may not do this: give its policy the named right'],
  [/Namespaces are a Consul Enterprise feature/, 'refused', 'this Consul is the community edition: remove namespace'],
  [/Partitions are a Consul Enterprise feature/, 'refused', 'this Consul is the community edition: remove partition'],
  [/No path to datacenter/, 'lost', 'its servers cannot reach that datacenter: check datacenter and the WAN link'],
  [/No cluster leader/, 'lost', 'its servers have no leader: they lost their quorum or are electing'],
  [/No known Consul servers/, 'lost', 'the agent has lost its servers'],
  [/too many concurrent connections/, 'lost', 'it refuses more connections from this host (limits.http_max_conns_per_client)'],
];

/** The failure of an answer with a status other than 200. */
export function statusFailure(origin: string, path: string, status: number, body: string, oddity: Oddity): ConsulFailure {
  const text = safeText(body, 300);
  const say = (cause: SourceErrorCause, hint: string): ConsulFailure =>
    new ConsulFailure(status, body, cause, `consul ${origin}: ${hint} (${status}${text === '' ? '' : ` ${text}`})`);
  for (const [pattern, cause, hint] of HINTS) if (pattern.test(body)) return say(cause, hint);
  if (status >= 300 && status < 400)
    return say('malformed', 'it redirects, which is not followed: set address to the agent itself');
  if (status === 401 || status === 403) return say('denied', 'it refused us: check auth.token');
  if (status === 429) return say('lost', 'it asks for fewer requests');
  if (status >= 500) return say('lost', 'the call failed');
  if (status === 404 && !oddity.fromConsul) {
    return say('malformed', `${path} is not known there: is address a Consul agent's HTTP port (8500)?`);
  }
  if (status === 400 && !oddity.fromConsul)
    return say('malformed', 'it understands no Consul request: is this the HTTP port of Consul?');
  return say('refused', 'it refused the request');
}

const TRANSPORT: readonly Hint[] = [
  [
    /disconnected before secure TLS/,
    'lost',
    'it ended the TLS handshake: does this port speak TLS? If not, write http:// in address',
  ],
  [/ECONNREFUSED/, 'lost', 'nothing listens there: check address and that the agent runs'],
  [/ENOTFOUND|EAI_AGAIN/, 'lost', 'the host name does not resolve: check address'],
  [/EHOSTUNREACH|ENETUNREACH/, 'lost', 'there is no route to it: check address'],
  [
    /WRONG_VERSION_NUMBER|wrong version number|PACKET_LENGTH_TOO_LONG|packet length too long|HTTP_REQUEST|record layer failure/i,
    'malformed',
    'this port speaks plain text: write http:// in address or remove tls',
  ],
  [/ALTNAME|altnames/i, 'denied', 'the certificate of the server is for another name: set tls.serverName'],
  [
    /CERT_|SELF_SIGNED|self[- ]signed|UNABLE_TO_|unable to (verify|get)|certificate has expired/i,
    'denied',
    'the certificate of the server is not trusted: check tls.ca, and its dates',
  ],
  [
    /ALERT|alert number|certificate required|bad certificate|handshake failure/i,
    'denied',
    'the server did not accept our side of TLS: check tls.cert and tls.key',
  ],
  [
    /HPE_|HTTPParserError|Parse Error|UND_ERR_INVALID|bad response/,
    'malformed',
    'what answers there speaks no HTTP: is address the HTTP port (8500)?',
  ],
  [/HEADERS_OVERFLOW|MAX_RESPONSE_SIZE|RES_EXCEEDED/, 'limit', 'an answer is over our limit of 64 MiB'],
  [/CONNECT_TIMEOUT/, 'lost', 'no connection in time'],
];

/** The failure of a call that got no whole answer. */
export function transportFailure(origin: string, thrown: unknown): SourceError {
  if (thrown instanceof SourceError) return thrown;
  const about = aboutThrown(thrown);
  for (const [pattern, cause, hint] of TRANSPORT) {
    if (pattern.test(about))
      return new SourceError(cause, `consul ${origin}: ${hint} (${safeText(about, 200)})`, { cause: thrown });
  }
  return new SourceError('lost', `consul ${origin}: the connection failed (${safeText(about, 200)})`, { cause: thrown });
}

/** An answer of status 200 that is none of Consul's. */
export function malformed(origin: string, path: string, what: string): SourceError {
  return new SourceError('malformed', `consul ${origin}: ${path} answers ${what}: is address a Consul agent's HTTP port?`);
}

function aboutThrown(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const code = 'code' in thrown && typeof thrown.code === 'string' ? `${thrown.code} ` : '';
  const inner = thrown instanceof AggregateError ? thrown.errors.map(aboutThrown).join(', ') : '';
  return `${code}${thrown.name}: ${thrown.message}${inner}`;
}

/** Control characters out, so that texts of others can be shown. */
export function safeText(text: string, max: number): string {
  return text
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
    .trim()
    .slice(0, max);
}
