// Owns the rules that a request must keep before any handler sees it (reliability.md §5): method, target, Host, Origin, content type.
// Called by server.ts for every request; pure, knows nothing of tokens or routes.
import { addressClass, canonicalHost, isIpLiteral } from '../kernel/address.ts';
import { WeirError } from '../kernel/errors.ts';

/** What of a request the rules look at. `rawHeaders`: name, value, name, value, as received (`headers.host` hides a second Host). */
export interface GuardFacts {
  readonly method: string;
  readonly target: string;
  readonly rawHeaders: readonly string[];
  /** Local address of the connection; absent for unix sockets. */
  readonly localAddress: string | undefined;
}

/** Names that always mean this host. */
const LOCAL_HOSTS = ['localhost', '127.0.0.1', '::1'];

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE']);

/** Canonical hosts that the Host field may name: this host's own and the configured ones (with or without brackets and port-less). */
export function hostAllowList(configured: readonly string[]): ReadonlySet<string> {
  const hosts = configured.map((text) => hostOfField(text)).filter((host) => host !== null);
  return new Set([...LOCAL_HOSTS, ...hosts.filter((host) => !isUnspecified(host))]);
}

/** 0.0.0.0 and :: are where we listen, never a name for us: browsers let pages of other sites ask them. */
function isUnspecified(host: string): boolean {
  return isIpLiteral(host) && addressClass(host) === 'unspecified';
}

/** The first rule that the request breaks, or null. */
export function judge(facts: GuardFacts, allowed: ReadonlySet<string>): WeirError | null {
  if (!METHODS.has(facts.method))
    return new WeirError('METHOD_NOT_ALLOWED', `method ${facts.method.slice(0, 20)} is not used here`);
  if (!/^\/[\x21-\x22\x24-\x7e]*$/.test(facts.target)) return new WeirError('BAD_REQUEST', 'the request target must be a path');
  const hosts = fieldValues(facts.rawHeaders, 'host');
  return hostFault(hosts, facts.localAddress, allowed) ?? pageFault(facts, hosts[0] ?? '') ?? bodyFault(facts);
}

/** Values of every field of this name (lower case), in order. */
export function fieldValues(rawHeaders: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() === name) values.push(rawHeaders[i + 1] ?? '');
  }
  return values;
}

/** Strict `host[:port]` → canonical host, or null. */
export function hostOfField(field: string): string | null {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$/.exec(field);
  if (match === null || field.length > 255) return null;
  const [, host = '', port = ':1'] = match;
  const number = Number(port.slice(1));
  return number < 1 || number > 65_535 ? null : canonicalHost(host);
}

function hostFault(hosts: readonly string[], localAddress: string | undefined, allowed: ReadonlySet<string>): WeirError | null {
  if (hosts.length !== 1) return new WeirError('BAD_REQUEST', `exactly one Host field is needed, got ${hosts.length}`);
  const host = hostOfField(hosts[0] ?? '');
  if (host === null) return new WeirError('BAD_REQUEST', 'the Host field is not host[:port]');
  // An address literal that the client connected to cannot come from a rebound name.
  if (allowed.has(host) || (isIpLiteral(host) && localAddress !== undefined && canonicalHost(localAddress) === host)) return null;
  return new WeirError(
    'HOST_NOT_ALLOWED',
    'this Host is not allowed here: use localhost or 127.0.0.1, or list the name in api.allowedHosts',
  );
}

/** A browser says where a request comes from; only our own page (same host and port) and the address bar may ask. */
function pageFault(facts: GuardFacts, host: string): WeirError | null {
  const foreign = fieldValues(facts.rawHeaders, 'origin').some((origin) => !sameOrigin(origin, host));
  const sites = fieldValues(facts.rawHeaders, 'sec-fetch-site');
  if (!foreign && sites.every((site) => site === 'same-origin' || site === 'none')) return null;
  return new WeirError('ORIGIN_NOT_ALLOWED', 'requests of pages of other sites are not answered');
}

function sameOrigin(origin: string, host: string): boolean {
  const text = origin.toLowerCase();
  const own = host.toLowerCase();
  return text === `http://${own}` || text === `https://${own}`;
}

/** A content type that a form cannot send forces a browser to ask first (preflight), which is never granted. */
function bodyFault(facts: GuardFacts): WeirError | null {
  if (facts.method === 'GET' || facts.method === 'HEAD') {
    const length = fieldValues(facts.rawHeaders, 'content-length');
    const bodied = length.some((value) => value !== '0') || fieldValues(facts.rawHeaders, 'transfer-encoding').length > 0;
    return bodied ? new WeirError('BAD_REQUEST', `${facts.method} takes no body`) : null;
  }
  const types = fieldValues(facts.rawHeaders, 'content-type');
  const coding = fieldValues(facts.rawHeaders, 'content-encoding');
  if (types.length === 1 && isJson(types[0] ?? '') && coding.every((value) => value.toLowerCase() === 'identity')) return null;
  return new WeirError('CONTENT_TYPE', 'a changing call needs content-type: application/json, without content coding');
}

function isJson(contentType: string): boolean {
  const [media = '', ...parameters] = contentType.toLowerCase().split(';');
  return media.trim() === 'application/json' && parameters.every((one) => /^\s*charset\s*=\s*"?utf-8"?\s*$/.test(one));
}
