// Owns the way from our instance to a record of Consul: weights, Meta and its escapes, the words of health. Pure; the way back is
// mapping.ts. Called by the writers; must never write what Consul would refuse.
import { type Instance, MAX_WEIGHT, NORMAL_WEIGHT, type RegistryHealth } from '../../src/model/instance.ts';

export const TAGS_KEY = 'consul.tags';
export const DATACENTER_KEY = 'consul.dc';
export const PEER_KEY = 'consul.peer';
export const SHOWN_ONLY = new Set([DATACENTER_KEY, PEER_KEY]);
/** Says that keys of Meta are escaped although the record is no copy. */
export const ESCAPED_KEY = 'weir-escaped';
/** Weight 0, which Consul cannot say: the record is in maintenance besides. */
export const WEIGHT_KEY = 'weir-weight';
/** Present in copies (W4); the marker itself belongs to the catalog. */
export const ORIGIN_KEY = 'weir-origin';
export const LIFTED = new Set(['version', 'protocol', 'region', 'zone', 'campus']);

/** Consul's limits of Meta. */
const MAX_META_PAIRS = 64;
const MAX_META_KEY = 128;
const MAX_META_VALUE = 512;

/** The fields of a record that both ways of registering share. */
export interface NativeFields {
  readonly address: string;
  readonly port: number;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
  readonly weights: { readonly Passing: number; readonly Warning: number };
  /** Must take no traffic: isolated, or a weight of 0. */
  readonly silent: boolean;
}

/** Our instance in Consul's words. What has no place there is counted by `count` as `write.lost`. */
export function nativeFields(instance: Instance, normalWeight: number, count: (what: string, by?: number) => void): NativeFields {
  const passing = Math.min(MAX_WEIGHT, Math.max(1, Math.round((instance.weight * normalWeight) / NORMAL_WEIGHT)));
  const { meta, lost } = metaFor(instance);
  if (lost > 0) count('write.lost', lost);
  const tags = instance.metadata.get(TAGS_KEY);
  return {
    address: instance.host,
    port: instance.port,
    tags: tags === undefined || tags === '' ? [] : tags.split(','),
    meta,
    // Both, always: a lone Passing makes Warning 0.
    weights: { Passing: passing, Warning: passing },
    silent: instance.isolated || instance.weight === 0,
  };
}

function metaFor(instance: Instance): { meta: Record<string, string>; lost: number } {
  const wanted = new Map<string, string>();
  const { region, zone, campus } = instance.locality ?? {};
  const lifted = { version: instance.version, protocol: instance.protocol, region, zone, campus };
  for (const [key, value] of Object.entries(lifted)) if (value !== undefined) wanted.set(key, value);
  for (const [key, value] of instance.metadata) {
    if (key !== TAGS_KEY && !SHOWN_ONLY.has(key) && !LIFTED.has(key)) wanted.set(key, value);
  }
  const pairs = new Map<string, string>();
  if (instance.weight === 0) pairs.set(WEIGHT_KEY, '0');
  if (!wanted.has(ORIGIN_KEY) && [...wanted.keys()].some((key) => escapeKey(key) !== key)) pairs.set(ESCAPED_KEY, '1');
  let lost = 0;
  for (const [key, value] of wanted) {
    const escaped = escapeKey(key);
    const fits = pairs.size < MAX_META_PAIRS && escaped.length <= MAX_META_KEY && Buffer.byteLength(value) <= MAX_META_VALUE;
    if (fits) pairs.set(escaped, value);
    else lost++;
  }
  return { meta: Object.fromEntries(pairs), lost };
}

/** Bytes that a key of Meta may not hold are written `_xHH_`; so are what looks like that already and the reserved prefix. */
export function escapeKey(key: string): string {
  // A NUL cannot stand in a key of ours: it keeps the place of an underscore that would begin a look-alike.
  const guarded = key.replace(/_(?=x[0-9a-f]{2}_)/g, '\u0000');
  let escaped = '';
  for (const byte of Buffer.from(guarded)) {
    const char = String.fromCharCode(byte);
    escaped += byte === 0 ? hex(0x5f) : /[a-zA-Z0-9_-]/.test(char) ? char : hex(byte);
  }
  return escaped.startsWith('consul-') ? `${hex(0x63)}${escaped.slice(1)}` : escaped;
}

function hex(byte: number): string {
  return `_x${byte.toString(16).padStart(2, '0')}_`;
}

/** The inverse of {@link escapeKey}; a sequence that is no UTF-8 stays as it is. */
export function unescapeKey(key: string): string {
  const bytes: number[] = [];
  for (let at = 0; at < key.length; ) {
    const match = /^_x([0-9a-f]{2})_/.exec(key.slice(at, at + 5));
    if (match?.[1] !== undefined) {
      bytes.push(Number.parseInt(match[1], 16));
      at += 5;
    } else bytes.push(...Buffer.from(key[at++] ?? ''));
  }
  const text = Buffer.from(bytes).toString('utf8');
  return text.includes('\ufffd') ? key : text;
}

/** The status of Consul that says our health. `unknown` is not yet proved: it is kept from those who ask for `passing` only. */
export function statusOf(health: RegistryHealth): 'passing' | 'warning' | 'critical' {
  return health === 'healthy' ? 'passing' : health === 'unhealthy' ? 'critical' : 'warning';
}
