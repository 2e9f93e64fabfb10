// Owns the shapes of Nacos' JSON, over gRPC and HTTP, and their decoders. Called by everything that reads an answer or a push.
// Hand-written: a list of 20,000 hosts is decoded on the event loop. Must never throw for bad input.
import { isRecord } from '../../src/kernel/decode.ts';

/** Section 9. */
export const MAX_HOSTS = 20_000;

/** What a unary call was answered; `body` is the whole answer. */
export interface Answer {
  readonly type: string;
  readonly ok: boolean;
  readonly errorCode: number;
  readonly message: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** A list of hosts with what the server says about it. */
export interface ServiceInfo {
  readonly group: string;
  readonly name: string;
  readonly hosts: readonly unknown[];
  /** Null: missing; on 1.x that means an unknown service. */
  readonly lastRefTime: number | null;
  /** The server reports everybody healthy although most are not. */
  readonly protected: boolean;
  /** How often one should ask over HTTP, ms. */
  readonly cacheMillis: number | null;
}

export interface NativeHost {
  readonly ip: string;
  readonly port: number;
  readonly weight: number;
  readonly healthy: boolean;
  readonly enabled: boolean;
  readonly ephemeral: boolean;
  readonly cluster: string;
  readonly metadata: readonly (readonly [string, unknown])[];
}

/**
 * Null for what is no answer of Nacos. The codes count, not the type (section 4), and not `success`: Polaris' face answers a
 * subscribe that worked by `success: false` (seen, 1.18.1).
 */
export function decodeAnswer(type: string, value: unknown): Answer | null {
  if (!isRecord(value)) return null;
  const resultCode = numberOf(value['resultCode']);
  if (resultCode === null) return null;
  const errorCode = numberOf(value['errorCode']) ?? 0;
  const ok = errorCode === 0 && resultCode === 200;
  return {
    type,
    ok,
    errorCode: ok || errorCode !== 0 ? errorCode : resultCode,
    message: stringOf(value['message']) ?? '',
    body: value,
  };
}

/** Null when it is none: hosts null or missing is a broken envelope, never an empty list (section 4). */
export function decodeServiceInfo(value: unknown): ServiceInfo | null {
  if (!isRecord(value) || !Array.isArray(value['hosts']) || value['hosts'].length > MAX_HOSTS) return null;
  const full = stringOf(value['name']) ?? stringOf(value['dom']) ?? '';
  const at = full.indexOf('@@');
  const time = numberOf(value['lastRefTime']);
  return {
    group: at < 0 ? (stringOf(value['groupName']) ?? '') : full.slice(0, at),
    name: at < 0 ? full : full.slice(at + 2),
    hosts: value['hosts'],
    lastRefTime: time !== null && time > 0 ? time : null,
    protected: value['reachProtectionThreshold'] === true,
    cacheMillis: numberOf(value['cacheMillis']),
  };
}

/** One host, or the reason why it is none. Fields that Nacos fills by default may be missing. */
export function decodeHost(value: unknown): NativeHost | { readonly id: string; readonly reason: string } {
  if (!isRecord(value)) return { id: '?', reason: 'the record is no object' };
  const ip = stringOf(value['ip']) ?? '';
  const port = numberOf(value['port']);
  const cluster = stringOf(value['clusterName']) || 'DEFAULT';
  const id = `${ip.slice(0, 128)}#${port ?? '?'}#${cluster.slice(0, 64)}`;
  if (ip === '') return { id, reason: 'the host is missing' };
  if (port === null) return { id, reason: 'the port is missing or no number' };
  const weight = value['weight'] === undefined ? 1 : numberOf(value['weight']);
  if (weight === null || Number.isNaN(weight)) return { id, reason: 'the weight is no number' };
  if (value['metadata'] != null && !isRecord(value['metadata'])) return { id, reason: 'the metadata is no object' };
  return {
    ip,
    port,
    weight,
    healthy: value['healthy'] !== false,
    enabled: value['enabled'] !== false,
    ephemeral: value['ephemeral'] !== false,
    cluster,
    metadata: isRecord(value['metadata']) ? Object.entries(value['metadata']) : [],
  };
}

export function stringOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

export function numberOf(value: unknown): number | null {
  return typeof value === 'number' ? value : null;
}
