// Owns the shape of a layout (how keys and values become services and instances) and the helpers that rows share. Pure.
// Called by the rows beside it and by mapping.ts; must never look at the network or at other keys.
import type { InstanceField } from '../../../src/adapter/capabilities.ts';
import { hostPort, splitHostPort } from '../../../src/kernel/address.ts';
import { isRecord, parseJson } from '../../../src/kernel/decode.ts';
import type { Instance } from '../../../src/model/instance.ts';

/** A service as a layout names it; without a namespace the source's own is used. */
export interface NativeService {
  readonly namespace?: string;
  readonly name: string;
}

/** An instance in a layout's own words; mapping.ts checks and scales it. */
export interface NativeInstance {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  /** On the layout's own scale; missing: the layout has none. */
  readonly weight?: number;
  readonly isolated?: boolean;
  /** Missing: tcp. */
  readonly transport?: 'udp';
  readonly protocol?: string;
  readonly version?: string;
  readonly metadata?: Iterable<readonly [string, unknown]>;
}

/** An entry of a key that is refused while its neighbours count. */
export interface NativeReject {
  readonly id: string;
  readonly reason: string;
}

/** Services that a key counts for without being listed as theirs; only rows with `combine` have them. */
interface Elsewhere {
  readonly also?: readonly NativeService[];
}

/** What a key says. `skip`: no instance and no fault (markers, other categories). */
export type Parsed =
  | ({
      readonly kind: 'instances';
      readonly service: NativeService;
      readonly instances: readonly NativeInstance[];
      readonly rejected?: readonly NativeReject[];
      /** A word for the row's own `combine`. */
      readonly tag?: string;
    } & Elsewhere)
  | ({ readonly kind: 'skip'; readonly service?: NativeService } & Elsewhere)
  | ({ readonly kind: 'bad'; readonly service?: NativeService; readonly id: string; readonly reason: string } & Elsewhere);

/** One key of a service as {@link Layout.combine} sees it. */
export interface Member {
  /** Below the prefix. */
  readonly key: string;
  readonly instances: readonly Instance[];
  readonly tag?: string;
}

/** A change of one entry inside a value that holds many. */
export interface Edit {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  /** On the layout's scale; null: take it out. */
  readonly weight: number | null;
  /** We wrote this entry; a foreign one that differs is left alone. */
  readonly ours: boolean;
}

/** The value after some edits (null: nothing to change), and the ids of entries that belong to somebody else. */
export interface Edited {
  readonly value: string | null;
  readonly foreign: ReadonlySet<string>;
}

/** What a row writes. `weight` is on the layout's scale. */
export interface Writable {
  readonly service: NativeService;
  readonly id: string;
  readonly instance: Instance;
  readonly weight: number;
  /** Metadata with version, protocol and locality folded in under their usual keys, for rows without fields of their own. */
  readonly folded: ReadonlyMap<string, string>;
}

/** One layout as data. Keys are given and returned below the prefix. */
export interface Layout {
  readonly name: string;
  /** Default prefix; always ends with the separator (or is empty). */
  readonly prefix: string;
  /** The layout's normal weight (100 of ours); null: it has no weight. */
  readonly normalWeight: number | null;
  /** The smallest weight above 0 that it can write; 1 when missing. */
  readonly weightStep?: number;
  /** A weight of 0 means the normal one to its readers, so that 0 cannot be written. */
  readonly noZeroWeight?: true;
  /** Keys live under a lease, so that presence says something about health. `optional`: some do; ours will. */
  readonly leased: boolean | 'optional';
  /** Keys name a namespace; else all services are in the source's own. */
  readonly namespaced?: true;
  readonly reads: readonly InstanceField[];
  readonly keeps: readonly InstanceField[];
  parse(key: string, value: Uint8Array): Parsed;
  /** All keys of a service begin with this; null: only a list of the whole prefix finds them. */
  servicePrefix(service: NativeService): string | null;
  /**
   * Rules across the keys of one service (which of them count, weights, ids). Members come in the order of their keys; the answer has
   * one item for each: its instances, or null when the key does not count. Missing: every key counts as it is.
   */
  combine?(service: NativeService, members: readonly Member[]): readonly (readonly Instance[] | null)[];
  /** Present where weir may write keys of its own. `idOf` makes the id that the key will carry; `keyOf` must undo `parse`. */
  readonly write?: {
    idOf(instance: Instance): string;
    keyOf(service: NativeService, id: string): string;
    valueOf(record: Writable): string;
    /** Why this service or instance cannot be written, or null. */
    refuse?(service: NativeService, instance: Instance): string | null;
  };
  /** Present where one key, made by somebody else, holds all instances of a service and weir may change entries inside it. */
  readonly edit?: {
    idOf(instance: Instance): string;
    /** Everything but the entries named (and a time stamp, Unix seconds) stays as it is; a string: why the value must not be touched. */
    apply(value: Uint8Array, edits: readonly Edit[], nowSeconds: number): Edited | string;
  };
}

/** Values above this are not parsed (section 10). */
export const MAX_VALUE_BYTES = 1024 * 1024;

/** A JSON object, or the reason why it is none. */
export function jsonObject(value: Uint8Array): { readonly [key: string]: unknown } | string {
  const decoded = parseJson(value, { maxBytes: MAX_VALUE_BYTES, maxDepth: 32 });
  if (!decoded.ok) return `the value is no JSON: ${decoded.faults[0]?.expected ?? 'bad'} expected`;
  return isRecord(decoded.value) ? decoded.value : 'the value is no JSON object';
}

/** A value as text, or null when it is no UTF-8 or too long. */
export function textOf(value: Uint8Array): string | null {
  if (value.length > MAX_VALUE_BYTES) return null;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(value);
  } catch {
    return null;
  }
}

/** Entries of a JSON object, none for null, undefined or anything else. */
export function entriesOf(value: unknown): readonly (readonly [string, unknown])[] {
  return isRecord(value) ? Object.entries(value) : [];
}

export function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

export const BAD_ADDRESS = 'no host:port with a port in 1..65535';

/** `host:port` with or without brackets around IPv6 when `bareIpv6`. */
export function addressOf(value: unknown, bareIpv6 = false): { host: string; port: number } | null {
  return typeof value === 'string' ? splitHostPort(value, bareIpv6) : null;
}

/** A key part out of any text: `/` is the separator of all layouts. */
export function safePart(text: string): string {
  return text.replaceAll('/', '-');
}

export function addressText(instance: { readonly host: string; readonly port: number }): string {
  return hostPort(instance.host, instance.port);
}

/** Splits `service/id` at the first slash; null when one of them is missing. */
export function splitFirst(key: string): readonly [string, string] | null {
  const slash = key.indexOf('/');
  return slash <= 0 || slash === key.length - 1 ? null : [key.slice(0, slash), key.slice(slash + 1)];
}

/** Splits at the last slash; null when one of the parts is missing. */
export function splitLast(key: string): readonly [string, string] | null {
  const slash = key.lastIndexOf('/');
  return slash <= 0 || slash === key.length - 1 ? null : [key.slice(0, slash), key.slice(slash + 1)];
}

/** A service name that may stand as one key part. */
export function refuseSlash(service: NativeService): string | null {
  return service.name.includes('/') ? `this layout cannot write a service name with "/": ${service.name}` : null;
}
