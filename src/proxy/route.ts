// Owns the choice of the service for a request (contract.md, five ways) and the path that goes on. Called by exchange.ts.
// Pure but for one bounded cache by Host text; it never asks whether the service exists.
import { nameFault, parseServiceId, type ServiceId } from '../model/service.ts';
import { type LocalReply, localReply } from './local-reply.ts';

/** What routing reads; the request filter fills it. */
export interface RouteInput {
  /** Host field, or the authority of an absolute-form target. Strict host[:port] already. */
  readonly host: string;
  /** Origin-form path with query, or `*`. */
  readonly path: string;
  readonly absolute: boolean;
  /** Value of `x-weir-service`, null without one. */
  readonly serviceHeader: string | null;
}

/** The answer of a routing; one per exchange, filled anew for each request. */
export interface Route {
  service: ServiceId;
  /** Path for the upstream, the `/svc/…` prefix taken off. */
  path: string;
}

const NOT_FOUND = localReply(
  'ROUTE_NOT_FOUND',
  'the request names no service: use x-weir-service, Host name.ns.weir or /svc/ns/name/',
);
const LEAVES_PREFIX = localReply('BAD_REQUEST', 'the path leaves its /svc/ prefix');
const BAD_SEGMENT = localReply('BAD_REQUEST', 'the /svc/ path holds no valid namespace and name');
const BAD_HEADER = localReply('BAD_REQUEST', 'x-weir-service is not namespace/name');

const MAX_HOSTS = 4_096;
const WEIR_HOST = /^([a-z0-9-]+)(?:\.([a-z0-9-]+))?\.weir\.?$/;
const SVC = /^\/svc\/([^/?]+)\/([^/?]+)/;

/** Chooses services by name; one per data plane. */
export class Router {
  readonly #hosts = new Map<string, ServiceId | null>();

  /**
   * Fills `route`, or says what is answered instead. `dedicated`: the service of a listener that has one, which then
   * decides alone: a client of such a port cannot reach another service by a header.
   */
  route(input: RouteInput, dedicated: ServiceId | null, route: Route): LocalReply | null {
    route.path = input.path;
    if (dedicated !== null) {
      route.service = dedicated;
      return null;
    }
    if (input.serviceHeader !== null) return byHeader(input.serviceHeader, route);
    const service = this.#byHost(input.host);
    if (service !== null) {
      route.service = service;
      return null;
    }
    return input.absolute ? NOT_FOUND : byPath(input.path, route);
  }

  /** How many Host texts are remembered. */
  get size(): number {
    return this.#hosts.size;
  }

  #byHost(host: string): ServiceId | null {
    const known = this.#hosts.get(host);
    if (known !== undefined) return known;
    const service = serviceOfHost(host);
    if (this.#hosts.size >= MAX_HOSTS) this.#hosts.clear();
    this.#hosts.set(host, service);
    return service;
  }
}

/** `name.ns.weir` or `name.weir` (namespace `default`), any case, any port; null for every other host. */
export function serviceOfHost(host: string): ServiceId | null {
  const match = WEIR_HOST.exec(host.toLowerCase().replace(/:\d+$/, ''));
  if (match === null) return null;
  const [, name = '', namespace = 'default'] = match;
  return `${namespace}/${name}`;
}

function byHeader(value: string, route: Route): LocalReply | null {
  const text = utf8Of(value);
  if (text === null || parseServiceId(text) === null) return BAD_HEADER;
  route.service = text;
  return null;
}

/** Field values arrive as latin1 text; a service name in them is UTF-8. Null when the bytes are none. */
function utf8Of(value: string): string | null {
  if (!/[\x80-\xff]/.test(value)) return value;
  const text = Buffer.from(value, 'latin1').toString('utf8');
  return text.includes('\ufffd') ? null : text;
}

function byPath(path: string, route: Route): LocalReply | null {
  const raw = SVC.exec(path);
  const normal = SVC.exec(normalPath(path));
  if (raw === null) return normal === null ? NOT_FOUND : LEAVES_PREFIX;
  // Matching is by the normalised copy; what goes on is the raw rest, so both must agree on the prefix.
  if (normal === null || normal[0] !== raw[0]) return LEAVES_PREFIX;
  const namespace = decodeSegment(raw[1] ?? '');
  const name = decodeSegment(raw[2] ?? '');
  if (namespace === null || name === null || namespace.includes('/')) return BAD_SEGMENT;
  const rest = path.slice(raw[0].length);
  route.service = `${namespace}/${name}`;
  route.path = rest === '' || rest.startsWith('?') ? `/${rest}` : rest;
  return null;
}

function decodeSegment(segment: string): string | null {
  try {
    const text = decodeURIComponent(segment);
    return text === '.' || text === '..' || nameFault(text) !== null ? null : text;
  } catch {
    return null;
  }
}

/** A copy of the path for matching: query cut, `%2e` decoded, dot segments removed (RFC 3986 §5.2.4); `%2F` and `%5C` stay. */
export function normalPath(path: string): string {
  const query = path.indexOf('?');
  const bare = (query < 0 ? path : path.slice(0, query)).replace(/%2e/gi, '.');
  if (!bare.includes('/.')) return bare;
  const out: string[] = [];
  const segments = bare.split('/');
  const last = segments.length - 1;
  for (let i = 1; i <= last; i++) {
    const segment = segments[i] ?? '';
    if (segment === '..') out.pop();
    else if (segment !== '.') out.push(segment);
    if (i === last && (segment === '..' || segment === '.')) out.push('');
  }
  return `/${out.join('/')}`;
}
