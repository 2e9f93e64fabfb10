// Owns the outbound policy (reliability.md §4): which learned addresses may be connected to. One place, asked by catalog
// (before an address enters a view), proxy, health checks and adapters (at connect time). Pure apart from its counters.
import { addressClass, canonicalHost, isIpLiteral, parseCidr } from './address.ts';

/** Why an address is refused; also the label of the counter. */
export type DialRefusal =
  | 'badHost'
  | 'badPort'
  | 'nameNotAllowed'
  | 'loopback'
  | 'unspecified'
  | 'linkLocal'
  | 'multicast'
  | 'broadcast'
  | 'ownListener'
  | 'portDenied'
  | 'notInCidrs';

/** What one source allows for addresses that it reports. */
export interface DialRules {
  readonly allowLoopback: boolean;
  /** Host names as addresses; they are resolved by us, checked again and pinned. */
  readonly allowNames: boolean;
  /** Empty: every class that is not refused by default. */
  readonly cidrs: readonly string[];
  /** Empty: every port. */
  readonly ports: readonly number[];
}

/** Own listeners and the admin port, by canonical host (or `*` for an unspecified listen address) and port. */
export interface OwnListener {
  readonly host: string;
  readonly port: number;
}

/** A judge built once per source. Returns null when the address may be used. `host` must be canonical (address.ts). */
export type DialPolicy = (host: string, port: number) => DialRefusal | null;

/** A sentence for people. */
export const REFUSAL_TEXT: Readonly<Record<DialRefusal, string>> = {
  badHost: 'the host is neither a canonical IP literal nor a host name',
  badPort: 'the port is not in 1..65535',
  nameNotAllowed: 'host names are not allowed as addresses from this source (allowNames)',
  loopback: 'a loopback address means another machine there, this one here (allowLoopback)',
  unspecified: '0.0.0.0/8 and :: are no addresses of an instance',
  linkLocal: 'link-local addresses reach cloud metadata services and are never used',
  multicast: 'multicast is no address of an instance',
  broadcast: 'broadcast is no address of an instance',
  ownListener: 'this is one of our own listeners: a request would come back to us',
  portDenied: 'the port is not among allow.ports of this source',
  notInCidrs: 'the address is not in allow.cidrs of this source',
};

const RULES = new Map(Object.entries(REFUSAL_TEXT).map(([rule, text]) => [text, rule]));

/** The rule whose words a record's refusal is told in; null for a refusal that is not about its address. */
export function refusalRule(text: string): string | null {
  return RULES.get(text) ?? null;
}

/**
 * Builds the judge of one source. `own` is asked at each call, since listeners change on reload.
 * Throws RangeError for a CIDR that is none (the config schema has refused it before).
 */
export function dialPolicy(rules: DialRules, own: () => readonly OwnListener[]): DialPolicy {
  const blocks = rules.cidrs.map((text) => {
    const block = parseCidr(text);
    if (block === null) throw new RangeError(`not a CIDR block: ${text}`);
    return block;
  });
  const ports = rules.ports.length === 0 ? null : new Set(rules.ports);
  return (host, port) => {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) return 'badPort';
    if (canonicalHost(host) !== host) return 'badHost';
    if (ports !== null && !ports.has(port)) return 'portDenied';
    if (!isIpLiteral(host)) return rules.allowNames ? null : 'nameNotAllowed';
    const kind = addressClass(host);
    if (kind === 'loopback' ? !rules.allowLoopback : kind !== 'public') return kind === 'public' ? null : kind;
    if (isOwn(host, port, kind === 'loopback', own())) return 'ownListener';
    return blocks.length > 0 && !blocks.some((block) => block(host)) ? 'notInCidrs' : null;
  };
}

function isOwn(host: string, port: number, loopback: boolean, own: readonly OwnListener[]): boolean {
  return own.some((mine) => mine.port === port && (mine.host === host || (mine.host === '*' && loopback)));
}
