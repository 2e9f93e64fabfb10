// Owns keeping copies alive (W7): one timer per target, one renewal for all its receipts, apart from the pace of writes. Called by
// mirror.ts. A freeze does not stop it: copies that stand must not fall. Must never renew without the right to write.
import type { Adapter, RenewResult, WriteReceipt } from '../adapter/contract.ts';
import { reconnectDelay } from '../kernel/backoff.ts';
import { withDeadline } from '../kernel/cancel.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { asSourceError, SourceError } from '../model/snapshot.ts';
import type { LedgerEntry } from './migration.ts';

/** Deadline of one renewal, ms. */
const CALL_MS = 15_000;
/** A new owner does not know how old the leases are: its first renewal comes within this, ms. */
const FIRST_MS = 1_000;
/** A failing renewal is tried again soon: the leases do not wait. */
const MAX_BACKOFF_MS = 5_000;

export interface BeatsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly target: string;
  /** ms. */
  readonly ttl: number;
  readonly adapter: () => Adapter | null;
  readonly mayRenew: () => boolean;
  /** Copies that have a lease: those with a receipt, whatever is to become of them. */
  readonly entries: () => readonly LedgerEntry[];
  /** The registry knows its lease no more. */
  readonly onForgotten: (entry: LedgerEntry) => void;
  readonly onFenced: (error: SourceError) => void;
}

export class Beats {
  readonly #deps: BeatsDeps;
  readonly #stop = new AbortController();
  #timer: Timer | null = null;
  #running: Promise<void> | null = null;
  #failures = 0;
  lastError: SourceError | null = null;

  constructor(deps: BeatsDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#arm(FIRST_MS * this.#deps.random());
  }

  async close(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    this.#stop.abort(new SourceError('lost', 'the mirror is closed'));
    await this.#running;
  }

  #arm(ms: number): void {
    if (this.#stop.signal.aborted) return;
    this.#timer = this.#deps.clock.setTimer(ms, () => {
      this.#timer = null;
      this.#running = this.#beat().finally(() => {
        this.#running = null;
        this.#arm(this.#nextIn());
      });
    });
  }

  /** A third of the ttl ± 10 %. */
  #nextIn(): number {
    const { random, ttl } = this.#deps;
    if (this.#failures > 0) return reconnectDelay(this.#failures, random, 1_000, MAX_BACKOFF_MS);
    return (ttl / 3) * (0.9 + 0.2 * random());
  }

  /** Never rejects. */
  async #beat(): Promise<void> {
    const { clock, adapter: find, mayRenew, entries, log, target } = this.#deps;
    const adapter = find();
    // `server`: records of our own live by the connection there, copies by our beats all the same (Nacos).
    if (adapter?.renew === undefined || adapter.capabilities.heartbeat === 'none' || !mayRenew()) return;
    const leased = entries().flatMap((entry) => (entry.receipt === null ? [] : [{ entry, receipt: entry.receipt }]));
    if (leased.length === 0) return;
    const receipts: readonly WriteReceipt[] = leased.map(({ receipt }) => receipt);
    try {
      const results = await withDeadline(
        clock,
        CALL_MS,
        this.#stop.signal,
        async (signal) => adapter.renew?.(receipts, signal) ?? [],
      );
      this.#judge(
        leased.map(({ entry }) => entry),
        results,
      );
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      this.lastError = asSourceError(thrown);
      this.#failures++;
      if (this.#failures === 1) log.warn({ source: target, error: this.lastError.message }, 'renewing copies failed');
    }
  }

  #judge(entries: readonly LedgerEntry[], results: readonly RenewResult[]): void {
    const errors = results.filter((result) => result instanceof SourceError);
    this.lastError = errors[0] ?? null;
    this.#failures = errors.length === 0 ? 0 : this.#failures + 1;
    for (const [n, entry] of entries.entries()) {
      const result = results[n];
      if (result instanceof SourceError) {
        if (result.causeKind === 'fenced') this.#deps.onFenced(result);
      } else if (result?.kind === 'forgotten') this.#deps.onForgotten(entry);
    }
  }
}
