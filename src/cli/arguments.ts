// Owns the words that several commands take: `namespace/name`, `host:port`, `key=value`. Every fault is a usage failure (exit 2).
import { splitHostPort } from '../kernel/address.ts';
import { parseServiceId, type ServiceKey } from '../model/service.ts';
import { usageFailure } from './io.ts';

/** `namespace/name`; a name alone means the namespace `default`. */
export function serviceArgument(text: string): ServiceKey {
  const key = parseServiceId(text.includes('/') ? text : `default/${text}`);
  if (key !== null) return key;
  throw usageFailure(`expected a service as namespace/name, got ${JSON.stringify(text)}`);
}

/** `host:port`, IPv6 in brackets. */
export function addressArgument(text: string): { readonly host: string; readonly port: number } {
  const address = splitHostPort(text);
  if (address !== null) return address;
  throw usageFailure(`expected an address as host:port (IPv6 in brackets), got ${JSON.stringify(text)}`);
}

/** `key=value` pairs into a Map; a later one replaces an earlier one. */
export function pairArguments(texts: readonly string[]): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  for (const text of texts) {
    const at = text.indexOf('=');
    if (at <= 0) throw usageFailure(`--meta: expected key=value, got ${JSON.stringify(text)}`);
    pairs.set(text.slice(0, at), text.slice(at + 1));
  }
  return pairs;
}

/** A whole number in a range. */
export function numberArgument(option: string, text: string, min: number, max: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw usageFailure(`${option}: expected a whole number ${min}..${max}, got ${JSON.stringify(text)}`);
}

/** Ids separated by commas. */
export function listArgument(option: string, text: string): readonly string[] {
  const ids = text.split(',').filter((id) => id !== '');
  if (ids.length > 0) return ids;
  throw usageFailure(`${option}: expected ids separated by commas`);
}
