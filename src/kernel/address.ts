// Owns what an address is: canonical text of hosts, classes of IP addresses. Pure; the policy that uses it is dial.ts.
import { isIP, isIPv4, isIPv6 } from 'node:net';

/** reliability.md §4. `public` is everything that has no class of its own, private ranges included. */
export type AddressClass = 'public' | 'loopback' | 'unspecified' | 'linkLocal' | 'multicast' | 'broadcast';

/**
 * Canonical text of a host, or null when it is none: IPv4 dotted quad, `::ffff:` forms as IPv4, IPv6 by RFC 5952 without brackets,
 * names in lower case without the trailing dot. Octal, hex, dword, short, zone-id and percent-encoded spellings are null (M1, §4).
 */
export function canonicalHost(text: string): string | null {
  if (text.length === 0 || text.length > 255) return null;
  if (isIPv4(text)) return text;
  const bare = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text;
  if (bare.includes(':')) return bare.includes('%') || !isIPv6(bare) ? null : canonicalIpv6(bare);
  if (bare !== text) return null;
  return canonicalName(text);
}

/** True when the canonical host is an IP literal (a name otherwise). */
export function isIpLiteral(host: string): boolean {
  return isIP(host) !== 0;
}

/** `host:port` with IPv6 in brackets; the key of an endpoint. */
export function hostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Splits `host:port`, `[v6]:port` (and `v6:port` at the last colon when `bareIpv6`); null when it is no such thing. Port 1..65535. */
export function splitHostPort(text: string, bareIpv6 = false): { host: string; port: number } | null {
  const colon = text.lastIndexOf(':');
  if (colon <= 0) return null;
  const portText = text.slice(colon + 1);
  if (!/^[1-9]\d{0,4}$/.test(portText)) return null;
  const port = Number(portText);
  if (port > 65_535) return null;
  const hostText = text.slice(0, colon);
  if (hostText.includes(':') && !hostText.startsWith('[') && !bareIpv6) return null;
  const host = canonicalHost(hostText);
  return host === null ? null : { host, port };
}

/** The class of a canonical IP literal. Throws RangeError for anything else. */
export function addressClass(ip: string): AddressClass {
  if (isIPv4(ip)) return ipv4Class(ip);
  if (!isIPv6(ip)) throw new RangeError('addressClass: not an IP literal');
  const words = ipv6Words(ip);
  const first = words[0] ?? 0;
  if (words.every((word) => word === 0)) return 'unspecified';
  if (words.slice(0, 7).every((word) => word === 0) && words[7] === 1) return 'loopback';
  if ((first & 0xffc0) === 0xfe80) return 'linkLocal';
  if ((first & 0xff00) === 0xff00) return 'multicast';
  // Addresses that carry an IPv4 one inside (compatible ::a.b.c.d, NAT64 64:ff9b::/96, 6to4 2002::/16) are judged by it.
  const inner = embeddedIpv4(words);
  return inner === null ? 'public' : ipv4Class(inner);
}

/** A CIDR block as a test; null when the text is none. */
export function parseCidr(text: string): ((ip: string) => boolean) | null {
  const slash = text.indexOf('/');
  const base = canonicalHost(slash < 0 ? text : text.slice(0, slash));
  if (base === null || !isIpLiteral(base)) return null;
  const bitsText = slash < 0 ? '' : text.slice(slash + 1);
  const width = isIPv4(base) ? 32 : 128;
  if (slash >= 0 && !/^\d{1,3}$/.test(bitsText)) return null;
  const bits = slash < 0 ? width : Number(bitsText);
  if (bits > width) return null;
  const want = toBits(base) >> BigInt(width - bits);
  return (ip) => (isIPv4(ip) ? 32 : 128) === width && toBits(ip) >> BigInt(width - bits) === want;
}

function ipv4Class(ip: string): AddressClass {
  const parts = ip.split('.').map(Number);
  const [a = 0, b = 0] = parts;
  if (a === 0) return 'unspecified';
  if (a === 127) return 'loopback';
  if (a === 169 && b === 254) return 'linkLocal';
  if (a >= 224 && a <= 239) return 'multicast';
  if (ip === '255.255.255.255') return 'broadcast';
  return 'public';
}

function canonicalName(text: string): string | null {
  const name = text.toLowerCase().replace(/\.$/, '');
  if (!/^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*$/.test(name)) return null;
  // A name whose last label is a number is an IPv4 address in disguise (WHATWG): octal, hex, dword, short.
  const last = name.slice(name.lastIndexOf('.') + 1);
  return /^(\d+|0x[0-9a-f]*)$/.test(last) ? null : name;
}

function ipv6Words(ip: string): number[] {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(ip);
  let text = ip;
  if (dotted !== null) {
    const [, head = '', a = '0', b = '0', c = '0', d = '0'] = dotted;
    text = `${head}${((Number(a) << 8) | Number(b)).toString(16)}:${((Number(c) << 8) | Number(d)).toString(16)}`;
  }
  const [left = '', right] = text.split('::');
  const words = (part: string): number[] => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16)));
  const before = words(left);
  if (right === undefined) return before;
  const after = words(right);
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

function quad(high: number, low: number): string {
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

function canonicalIpv6(ip: string): string {
  const words = ipv6Words(ip);
  if (words.slice(0, 5).every((word) => word === 0) && words[5] === 0xffff) return quad(words[6] ?? 0, words[7] ?? 0);
  const zeros = longestZeroRun(words);
  const hex = words.map((word) => word.toString(16));
  if (zeros.length < 2) return hex.join(':');
  return `${hex.slice(0, zeros.start).join(':')}::${hex.slice(zeros.start + zeros.length).join(':')}`;
}

function longestZeroRun(words: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let i = 0; i < words.length; i++) {
    let end = i;
    while (words[end] === 0) end++;
    if (end - i > best.length) best = { start: i, length: end - i };
    if (end > i) i = end;
  }
  return best;
}

function embeddedIpv4(words: readonly number[]): string | null {
  const zeros = (n: number): boolean => words.slice(0, n).every((word) => word === 0);
  if (zeros(6) && (words[6] ?? 0) !== 0) return quad(words[6] ?? 0, words[7] ?? 0);
  if (words[0] === 0x64 && words[1] === 0xff9b && words.slice(2, 6).every((word) => word === 0)) {
    return quad(words[6] ?? 0, words[7] ?? 0);
  }
  if (words[0] === 0x2002) return quad(words[1] ?? 0, words[2] ?? 0);
  return null;
}

function toBits(ip: string): bigint {
  if (isIPv4(ip)) return ip.split('.').reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
  return ipv6Words(ip).reduce((sum, word) => (sum << 16n) | BigInt(word), 0n);
}
