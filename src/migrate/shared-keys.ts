// Owns where things of migrations stand in a shared store, and the helpers to read and clear a prefix. Called by the shared-* files only.
import { createHash } from 'node:crypto';
import type { StateEntry, StateStore } from '../adapter/state-store.ts';
import type { ServiceId } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';

export const DOCS = 'migrations/doc/';
export const REPORTS = 'migrations/report/';
const LEDGERS = 'migrations/ledger/';
const LOCKS = 'migrations/lock/';
/** In a target's own store. Layouts of etcd skip what begins like this, so that a lock never shows as a service. */
const TARGET_LOCKS = '.weir/lock/';
/** Consul takes keys of 512 bytes. */
const MAX_PART = 200;

export function docKey(id: string): string {
  return DOCS + id;
}

export function reportsOf(id: string): string {
  return `${REPORTS}${id}/`;
}

export function ledgerOf(id: string): string {
  return `${LEDGERS}${id}/`;
}

export function lockKey(id: string): string {
  return LOCKS + id;
}

/** By source: two sources may be one server, and a process must not wait for itself. */
export function targetLockKey(id: string, source: string): string {
  return targetLocksOf(id) + encodeURIComponent(source);
}

/** All of one migration, whatever its sidecars call the source. */
export function targetLocksOf(id: string): string {
  return `${TARGET_LOCKS}${id}/`;
}

/** A name as one part of a key; long ones by their digest (`=` never begins an encoded name). */
export function keyPart(name: ServiceId | string): string {
  const encoded = encodeURIComponent(name);
  return encoded.length <= MAX_PART ? encoded : `=${createHash('sha256').update(name).digest('hex')}`;
}

/** Everything below a prefix at one moment. Rejects with SourceError, or with the signal's reason. */
export async function listBelow(state: StateStore, prefix: string, signal: AbortSignal): Promise<readonly StateEntry[]> {
  const seen = new AbortController();
  try {
    for await (const entries of state.watch(prefix, AbortSignal.any([signal, seen.signal]))) return entries;
  } finally {
    seen.abort(new Error('the first answer is enough'));
  }
  signal.throwIfAborted();
  throw new SourceError('lost', 'the shared store ended a watch without an answer');
}

/** Deletes entries that are still as they were listed; what has changed since belongs to somebody. */
export async function clear(state: StateStore, entries: readonly StateEntry[], signal: AbortSignal): Promise<void> {
  await eachOf(entries, ({ key, revision }) => state.cas(key, null, revision, signal));
}

/** Calls at once. */
const IN_FLIGHT = 16;

/** Runs all, a bounded number at once; rejects with the first failure when all that began have ended. */
export async function eachOf<T>(items: readonly T[], run: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items[Symbol.iterator]();
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    for (const item of queue) {
      if (failures.length > 0) return;
      await run(item).catch((thrown: unknown) => failures.push(thrown));
    }
  };
  await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, items.length) }, worker));
  if (failures.length > 0) throw failures[0];
}
