// Owns one campaign for a lock and the time it is held (protocol notes, section 6): key under a lease, smallest create revision wins.
// Called by state-store.ts; must never think it holds the lock later than 0.8 × TTL after its last renewal, on the monotonic clock.
import type { StateLock } from '../../src/adapter/state-store.ts';
import type { Timer } from '../../src/kernel/clock.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { unknownOutcome } from './errors.ts';
import { Hub } from './hub.ts';
import { Leases } from './leases.ts';
import { leaseHex } from './mapping.ts';
import { COMPARE_EQUAL, TARGET_CREATE } from './protocol.ts';
import type { SessionDeps } from './round.ts';

const SAFE_SHARE = 0.8;

export class Campaign {
  readonly #prefix: string;
  readonly #ttlMs: number;
  readonly #deps: SessionDeps;
  readonly #closed: AbortSignal;
  readonly #leases: Leases;
  readonly #lost = new AbortController();
  #lease = { id: '0', ttlMs: 0 };
  #key = '';
  #renewal: Timer | null = null;
  #deadline: Timer | null = null;

  /** Candidates' keys are `<prefix><lease id hex>`; `ttlMs` is rounded up to seconds, the server may grant more. */
  constructor(prefix: string, ttlMs: number, deps: SessionDeps, closed: AbortSignal) {
    this.#prefix = prefix;
    this.#ttlMs = ttlMs;
    this.#deps = deps;
    this.#closed = closed;
    this.#leases = new Leases(deps.client);
  }

  /** Resolves when the lock is held. Rejects on abort, and when the cluster or the lease is lost while waiting; the key is given up then. */
  async win(signal: AbortSignal): Promise<StateLock> {
    const sent = this.#deps.clock.now();
    this.#lease = await this.#leases.grant(Math.max(2, Math.ceil(this.#ttlMs / 1_000)), signal);
    this.#key = this.#prefix + leaseHex(this.#lease.id);
    this.#renewed(sent);
    this.#closed.addEventListener('abort', () => this.#lose('the source is closed'), { once: true });
    try {
      const createRevision = await this.#enter(signal);
      await this.#first(AbortSignal.any([signal, this.#lost.signal]));
      return {
        lost: this.#lost.signal,
        fence: { key: this.#key, createRevision, leaseId: this.#lease.id },
        release: () => this.#release(),
      };
    } catch (thrown) {
      await this.#release();
      throw thrown;
    }
  }

  async #enter(signal: AbortSignal): Promise<string> {
    const key = Buffer.from(this.#key);
    const request = {
      compare: [{ result: COMPARE_EQUAL, target: TARGET_CREATE, key, createRevision: '0' }],
      success: [{ put: { key, value: Buffer.alloc(0), lease: this.#lease.id } }],
      failure: [],
    };
    try {
      await this.#deps.client.call('Txn', request, signal);
    } catch (thrown) {
      if (signal.aborted || !unknownOutcome(thrown)) throw thrown;
    }
    // Read back in every case: the create revision is the fencing token, and the txn may have been carried out after an error.
    const { kvs } = await this.#deps.client.call('Range', { key }, signal);
    const [kv] = kvs;
    if (kv === undefined || kv.lease !== this.#lease.id) throw new SourceError('lost', 'etcd: the candidate key was not written');
    return kv.createRevision;
  }

  /** Waits until no key of the campaign is older than ours. */
  #first(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const hub = new Hub<true>(this.#prefix, () => true, this.#deps);
      const end = (settle: () => void): void => {
        signal.removeEventListener('abort', onAbort);
        // Not from inside the hub's own call: it may still walk its listeners.
        queueMicrotask(() => leave());
        settle();
      };
      const onAbort = (): void => end(() => reject(signal.reason));
      const look = (): void => {
        const own = hub.mirror.get(this.#key);
        if (own === undefined) {
          end(() => reject(new SourceError('lost', 'etcd: the candidate key is gone')));
          return;
        }
        for (const [, entry] of hub.mirror.entries()) if (entry.createRevision < own.createRevision) return;
        end(resolve);
      };
      const leave = hub.join({ onReady: look, onChanges: look, onContact() {}, onLost: (error) => end(() => reject(error)) });
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** The lease lives at least until `sent` + TTL; we stop believing it at 0.8 of that. */
  #renewed(sent: number): void {
    const { clock } = this.#deps;
    const { ttlMs } = this.#lease;
    this.#deadline?.cancel();
    this.#renewal?.cancel();
    if (this.#lost.signal.aborted) return;
    const left = sent + SAFE_SHARE * ttlMs - clock.now();
    this.#deadline = clock.setTimer(Math.max(0, left), () => this.#lose('the lease was not renewed in time'));
    this.#renewal = clock.setTimer(ttlMs / 3, () => void this.#renew());
  }

  async #renew(): Promise<void> {
    const { clock } = this.#deps;
    const sent = clock.now();
    const { id, ttlMs } = this.#lease;
    try {
      const alive = (await this.#leases.keepAlive([id], this.#lost.signal)).get(id) ?? 0;
      // A keepalive may succeed on a revoked lease (older servers), and the key may be gone: look at the key, too.
      const keys = alive === 0 ? null : await this.#leases.keysOf(id, this.#lost.signal);
      if (keys?.has(this.#key) !== true) return this.#lose('the lease or the leader key is gone');
      this.#renewed(sent);
    } catch {
      // Try again soon; the deadline stands.
      if (!this.#lost.signal.aborted) this.#renewal = clock.setTimer(ttlMs / 10, () => void this.#renew());
    }
  }

  #lose(reason: string): void {
    this.#deadline?.cancel();
    this.#renewal?.cancel();
    if (!this.#lost.signal.aborted) this.#lost.abort(new SourceError('lost', `etcd: lock lost: ${reason}`));
  }

  async #release(): Promise<void> {
    this.#lose('released');
    if (!this.#closed.aborted) await this.#leases.revoke(this.#lease.id, this.#closed);
  }
}
