// Owns the one table of error codes: what each means, which HTTP status it has, whose fault it is.
// Read by the API (status), the proxy's local replies and docs/errors.md (a test keeps all three in step).

/** config: the operator's file · registry: an outside system · upstream: the service behind the proxy · client: the caller · bug: weir itself. */
export type ErrorFamily = 'config' | 'registry' | 'upstream' | 'client' | 'bug';

export interface ErrorAbout {
  readonly family: ErrorFamily;
  /** Status of an answer that carries the code; the proxy's BAD_REQUEST has finer ones (contract.md). */
  readonly status: number;
  readonly summary: string;
}

/** Every code that weir reports: API answers, `x-weir-error`, log lines, exits of the command line. */
export const ERRORS = {
  // The caller of the API.
  BAD_REQUEST: {
    family: 'client',
    status: 400,
    summary: 'The request breaks HTTP or the schema of its call; `details.faults` names each place.',
  },
  UNAUTHORIZED: {
    family: 'client',
    status: 401,
    summary: 'A token is needed (`Authorization: Bearer …`) and none, or a wrong one, was sent.',
  },
  FORBIDDEN: { family: 'client', status: 403, summary: 'The token may read but not write, or no write token is configured.' },
  HOST_NOT_ALLOWED: {
    family: 'client',
    status: 403,
    summary: 'The Host field is not one of the allowed names (guard against DNS rebinding); see `api.allowedHosts`.',
  },
  ORIGIN_NOT_ALLOWED: { family: 'client', status: 403, summary: 'The request was sent by a page of another site.' },
  NOT_FOUND: { family: 'client', status: 404, summary: 'There is no such call.' },
  SERVICE_NOT_FOUND: { family: 'client', status: 404, summary: 'No source knows a service of this name.' },
  SOURCE_NOT_FOUND: { family: 'client', status: 404, summary: 'No source of this id is configured.' },
  REGISTRATION_NOT_FOUND: {
    family: 'client',
    status: 404,
    summary: 'This sidecar keeps no registration of this service and id.',
  },
  OVERRIDE_NOT_FOUND: { family: 'client', status: 404, summary: 'There is no override for this service and address.' },
  MIGRATION_NOT_FOUND: { family: 'client', status: 404, summary: 'There is no migration of this id.' },
  MIGRATION_INVALID: {
    family: 'client',
    status: 400,
    summary: 'The migration cannot be made as ordered; `details` says which part of it.',
  },
  MIGRATION_CONFLICT: {
    family: 'client',
    status: 409,
    summary: 'A migration of this id exists, or another one has some of these services; `details` names it.',
  },
  MIGRATION_PHASE: {
    family: 'client',
    status: 409,
    summary: 'The migration does not allow this step now; `details` says what is missing.',
  },
  MIGRATION_UNSAFE: {
    family: 'client',
    status: 409,
    summary: 'The step would lose instances or leave copies behind; `details` lists them.',
  },
  METHOD_NOT_ALLOWED: {
    family: 'client',
    status: 405,
    summary: 'The API takes GET, HEAD, POST, PUT and DELETE, each only where docs/api.md says so.',
  },
  REGISTRATION_CONFLICT: { family: 'client', status: 409, summary: 'The address is registered by another owner.' },
  BODY_TOO_LARGE: { family: 'client', status: 413, summary: 'The body of an API request is larger than 1 MiB.' },
  CONTENT_TYPE: {
    family: 'client',
    status: 415,
    summary: 'A changing call needs `content-type: application/json`, without content coding.',
  },
  TOO_MANY_REQUESTS: {
    family: 'client',
    status: 429,
    summary:
      'Too many failed logins from this address, or too many requests pipelined on one connection; `Retry-After` says when to come back.',
  },
  HEAD_TOO_LARGE: { family: 'client', status: 431, summary: 'The head of the request is larger than 16 KiB.' },
  REQUEST_TIMEOUT: { family: 'client', status: 408, summary: 'The request did not arrive in time.' },
  // Which targets a registration may go to.
  REGISTRATION_TARGET: {
    family: 'client',
    status: 400,
    summary: 'The registration names no source that can take it; `details` lists the candidates.',
  },
  // weir itself.
  INTERNAL: { family: 'bug', status: 500, summary: 'weir failed where it must not; the log has the cause.' },
  // The proxy's own replies (`x-weir-error`).
  ROUTE_NOT_FOUND: { family: 'client', status: 404, summary: 'The request names no service, or one that no source knows.' },
  NO_HEALTHY_UPSTREAM: { family: 'upstream', status: 503, summary: 'The service has no instance that may be picked.' },
  UPSTREAM_OVERFLOW: { family: 'upstream', status: 503, summary: 'A limit of the service is used up (`limits`).' },
  BREAKER_OPEN: { family: 'upstream', status: 503, summary: 'The breaker of every candidate is open.' },
  UPSTREAM_CONNECT_FAILED: { family: 'upstream', status: 502, summary: 'No connection to the picked instance could be opened.' },
  UPSTREAM_RESET: {
    family: 'upstream',
    status: 502,
    summary: 'The instance closed the connection before its response was whole.',
  },
  UPSTREAM_PROTOCOL: { family: 'upstream', status: 502, summary: 'The response of the instance broke HTTP or one of our caps.' },
  UPSTREAM_TIMEOUT: { family: 'upstream', status: 504, summary: 'The service did not answer within its timeout.' },
  LOOP_DETECTED: { family: 'config', status: 508, summary: 'The request has been here before (Via).' },
  OVERLOADED: {
    family: 'client',
    status: 503,
    summary: 'weir sheds load: memory, file descriptors or event-loop delay are at their limit.',
  },
  DRAINING: { family: 'client', status: 503, summary: 'weir is stopping and takes no new request.' },
  CATALOG_NOT_READY: {
    family: 'registry',
    status: 503,
    summary: 'Some source has given no first answer yet, so nobody can say that the service is unknown.',
  },
  // Start, reload, state.
  CONFIG_INVALID: {
    family: 'config',
    status: 400,
    summary: 'The configuration has faults; each is printed as `file:line:col path: expected … got …`.',
  },
  CONFIG_UNREADABLE: { family: 'config', status: 400, summary: 'The configuration file cannot be read.' },
  CONFIG_NOT_BUILT: {
    family: 'config',
    status: 501,
    summary: 'The configuration uses a key whose feature this version has not built yet.',
  },
  CONFIG_RESTART_NEEDED: {
    family: 'config',
    status: 409,
    summary: 'The reload changes a key that needs a restart (`api`, `proxy`, `state`, `id`).',
  },
  API_INSECURE: { family: 'config', status: 400, summary: 'The API would listen beyond this host without `api.tokens`.' },
  LISTEN_FAILED: { family: 'config', status: 500, summary: 'A listen address cannot be opened (in use, not ours, not allowed).' },
  STATE_LOCKED: { family: 'config', status: 409, summary: 'Another living process uses the state directory.' },
  MIGRATION_JOURNAL: {
    family: 'config',
    status: 409,
    summary: 'The journal of the migration is damaged or of another version: it is left as it is and nothing is written for it.',
  },
  // Registries, as seen by calls that wait for them.
  SOURCE_LOST: { family: 'registry', status: 502, summary: 'The registry is unreachable, cut the answer or timed out.' },
  SOURCE_DENIED: { family: 'registry', status: 502, summary: 'The registry refused our credentials.' },
  SOURCE_REFUSED: { family: 'registry', status: 502, summary: 'The registry refused what was asked.' },
  DIAL_REFUSED: {
    family: 'registry',
    status: 502,
    summary: 'An address that a registry reported is refused by the outbound policy (docs/operations.md).',
  },
  // The command line.
  USAGE: { family: 'client', status: 400, summary: 'The command was called with arguments that it does not take (exit 2).' },
  API_UNREACHABLE: {
    family: 'client',
    status: 503,
    summary: 'The command line found no sidecar at the address of `--api` or `WEIR_API` (exit 1).',
  },
} as const satisfies Record<string, ErrorAbout>;

export type ErrorCode = keyof typeof ERRORS;

const TABLE: ReadonlyMap<string, ErrorAbout> = new Map(Object.entries(ERRORS));

/** What the table says of a code, or null for a code that is not in it (a fault of ours: a test looks for those). */
export function errorAbout(code: string): ErrorAbout | null {
  return TABLE.get(code) ?? null;
}
