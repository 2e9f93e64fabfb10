// Owns one fresh full read of a service: from another member where there is one, with what subscribers are not shown where we may
// see it (R4: hidden and disabled is isolated, not gone). Called by adapter.ts; must never be faster than the server's snapshot.
import type { ServiceKey } from '../../src/model/service.ts';
import { type Snapshot, SourceError } from '../../src/model/snapshot.ts';
import type { NacosConfig, NacosServer } from './config.ts';
import { queryService } from './feed.ts';
import type { Line } from './line.ts';
import {
  type HealthWord,
  isCopy,
  type MappingOptions,
  mapHosts,
  type NativeInstance,
  type NativeName,
  nativeName,
} from './mapping.ts';
import { decodeHost, type ServiceInfo } from './native.ts';

export interface ReaderDeps {
  /** The session of the watches. */
  readonly line: Line;
  /** Sessions to the other members, for reads alone; null where there is one member only. */
  readonly others: Line | null;
  readonly config: NacosConfig;
  readonly mapping: MappingOptions;
  readonly lacks: (key: ServiceKey) => boolean;
}

/** Rejects with SourceError, or with the signal's reason. */
export async function readService(deps: ReaderDeps, key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
  const { line, config, mapping, lacks } = deps;
  const native = nativeName(config, key);
  const session = await line.enter(signal);
  if (session === null) return readOverHttp(deps, key, native, signal);
  const from = (await anotherSession(deps, signal)) ?? session;
  const info = await queryService(from, native, signal);
  const all = await everyHost(line, native, signal);
  const { hosts, word } = joined(info, all);
  const { instances, rejected } = mapHosts(hosts, word, mapping);
  const base = { epoch: session.connectionId || `session-${session.number}`, sourceRevision: String(info.lastRefTime ?? 0) };
  if (hosts.length === 0 && lacks(key)) return { kind: 'absent', ...base };
  return { kind: 'present', ...base, instances, rejected };
}

/**
 * True where a provider stands at the address and no copy: over HTTP both are one record, so that a removal would take the provider's.
 * Rejects with SourceError, or with the signal's reason.
 */
export async function isProviders(
  line: Line,
  native: NativeName,
  at: Pick<NativeInstance, 'ip' | 'port' | 'clusterName'>,
  signal: AbortSignal,
): Promise<boolean> {
  const session = await line.enter(signal);
  const info = session === null ? await askOne(line, line.server, native, signal) : await queryService(session, native, signal);
  const there = info.hosts.flatMap((value) => {
    const host = decodeHost(value);
    return !('reason' in host) && host.ip === at.ip && host.port === at.port && host.cluster === at.clusterName ? [host] : [];
  });
  return there.length > 0 && !there.some(({ metadata }) => isCopy(new Map(metadata)));
}

/** A member that is down must not fail a read that another one can answer. */
async function anotherSession({ line, others }: ReaderDeps, signal: AbortSignal) {
  if (others === null) return null;
  try {
    const session = await others.enter(signal);
    return session?.server === line.server ? null : session;
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof SourceError) return null;
    throw thrown;
  }
}

async function readOverHttp(deps: ReaderDeps, key: ServiceKey, native: NativeName, signal: AbortSignal): Promise<Snapshot> {
  const { line, mapping } = deps;
  const other = line.otherServer;
  const info = await askOne(line, other, native, signal);
  const all = await everyHost(line, native, signal);
  const { generation } = await line.info(signal);
  // 1.x protects every service and does not say so: only the complete list tells the truth.
  const { hosts, word } = joined(generation === 1 ? { ...info, protected: true } : info, all);
  const { instances, rejected } = mapHosts(hosts, word, mapping);
  const base = { epoch: line.httpEpoch, sourceRevision: String(info.lastRefTime ?? 0) };
  const absent = hosts.length === 0 && (generation === 1 ? info.lastRefTime === null : deps.lacks(key));
  return absent ? { kind: 'absent', ...base } : { kind: 'present', ...base, instances, rejected };
}

async function askOne(line: Line, server: NacosServer, native: NativeName, signal: AbortSignal): Promise<ServiceInfo> {
  try {
    const info = await line.api.instances(server, native, signal);
    line.httpWent(true);
    return info;
  } catch (thrown) {
    if (thrown instanceof SourceError && thrown.causeKind === 'lost') line.httpWent(false);
    throw thrown;
  }
}

/** Null where we may not see them; a failure to look there is none of the read. */
async function everyHost(line: Line, native: NativeName, signal: AbortSignal): Promise<readonly unknown[] | null> {
  try {
    const { version, generation } = await line.info(signal);
    if (version === null) return null;
    return await line.api.adminInstances(line.server, generation, native, signal);
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof SourceError) return null;
    throw thrown;
  }
}

/**
 * What subscribers are shown, plus the disabled ones; where the server hides the true health behind its protection, that of the
 * complete list. The complete list alone is not enough: it is read from the state, not from the snapshot that pushes are made of.
 */
export function joined(info: ServiceInfo, all: readonly unknown[] | null): { hosts: readonly unknown[]; word: HealthWord } {
  if (all === null) return { hosts: info.hosts, word: info.protected ? 'protected' : 'believed' };
  if (info.protected) return { hosts: all, word: 'believed' };
  const shown = new Set(info.hosts.map(addressOf));
  const hidden = all.filter((host) => {
    const decoded = decodeHost(host);
    return !('reason' in decoded) && !decoded.enabled && !shown.has(addressOf(host));
  });
  return { hosts: [...info.hosts, ...hidden], word: 'believed' };
}

function addressOf(host: unknown): string {
  const decoded = decodeHost(host);
  return 'reason' in decoded ? '' : `${decoded.ip} ${decoded.port} ${decoded.cluster}`;
}
