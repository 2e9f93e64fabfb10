// Owns being the one sidecar that writes for a migration: a lock in the shared store and one in every target that can refuse a stale
// owner's writes (rule 11). Called by shared-store.ts; must never keep some of the locks when one is lost.
import type { Fence } from '../adapter/contract.ts';
import type { StateLock, StateStore } from '../adapter/state-store.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import { asSourceError, SourceError } from '../model/snapshot.ts';
import type { Ownership } from './ports.ts';
import { lockKey, targetLockKey } from './shared-keys.ts';

/** migration.md: TTL of the owner's lock, ms. A store may raise it (Consul's least is 10 s). */
export const LOCK_TTL_MS = 6_000;
/** Before the locks are asked for again after a loss, ms. [W] */
const AGAIN_MS = 1_000;

export interface OwnershipDeps {
  readonly state: StateStore;
  /** The target's own store; null: it has none, and cannot refuse a stale owner. */
  readonly stateOf: (source: string) => StateStore | null;
  readonly log: Log;
  readonly clock: Clock;
}

/** An ownership and the text that tells it from every other. */
export interface Owned {
  readonly ownership: Ownership;
  readonly writer: string;
}

/**
 * Waits until every lock is held, through losses of the store. Rejects with the signal's reason, and with a SourceError that waiting does
 * not mend (denied, refused).
 */
export async function takeOwnership(
  deps: OwnershipDeps,
  id: string,
  targets: readonly string[],
  sidecar: string,
  signal: AbortSignal,
): Promise<Owned> {
  for (;;) {
    signal.throwIfAborted();
    const locks = new Locks(deps.log);
    try {
      const until = AbortSignal.any([signal, locks.lost]);
      // The shared one first, in every sidecar: two candidates never wait for each other.
      const first = await locks.take(deps.state, lockKey(id), until);
      for (const target of [...new Set(targets)].sort()) {
        const store = deps.stateOf(target);
        if (store !== null) locks.fences.set(target, (await locks.take(store, targetLockKey(id, target), until)).fence);
      }
      until.throwIfAborted();
      const { key, createRevision, leaseId } = first.fence;
      return { ownership: locks, writer: JSON.stringify([sidecar, key, createRevision, leaseId]) };
    } catch (thrown) {
      await locks.release();
      signal.throwIfAborted();
      const error = asSourceError(thrown);
      if (error.causeKind !== 'lost') throw error;
      deps.log.warn(
        { migration: id, error: messageOf(error) },
        'the right to write for a migration could not be had; trying again',
      );
      await deps.clock.sleep(AGAIN_MS, signal);
    }
  }
}

class Locks implements Ownership {
  readonly fences = new Map<string, Fence>();
  readonly #log: Log;
  readonly #held: StateLock[] = [];
  readonly #lost = new AbortController();
  #ended: Promise<void> | null = null;

  constructor(log: Log) {
    this.#log = log;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async take(store: StateStore, key: string, signal: AbortSignal): Promise<StateLock> {
    const lock = await store.lock(key, LOCK_TTL_MS, signal);
    this.#held.push(lock);
    const onLost = (): void => {
      this.#lost.abort(lock.lost.reason);
      // A right that is half lost is none: the next owner need not wait for the rest.
      void this.release();
    };
    if (lock.lost.aborted) onLost();
    else lock.lost.addEventListener('abort', onLost, { once: true });
    return lock;
  }

  release(): Promise<void> {
    this.#ended ??= this.#releaseAll();
    return this.#ended;
  }

  async #releaseAll(): Promise<void> {
    this.#lost.abort(new SourceError('lost', 'the right to write was given up'));
    // In reverse: who gets the shared one next finds the others free.
    for (const lock of this.#held.toReversed()) {
      await lock.release().catch((thrown: unknown) => {
        this.#log.info({ error: messageOf(thrown) }, 'a lock could not be released; it ends by its ttl');
      });
    }
  }
}
