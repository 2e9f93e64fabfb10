// Owns the rules of blocking queries (protocol notes, section 3, rules 1-6) as pure state: which index comes next, whether an index
// went back, how often a watch may ask. Called by query.ts; must never do I/O or know what a body means.
import type { Random } from '../../src/kernel/random.ts';
import type { AnswerHeaders } from './client.ts';

/** Where the next request stands. `index` null: none is sent, so that it is answered at once and plainly. */
export type Cursor = { readonly index: null } | { readonly index: bigint; readonly backend: AnswerHeaders['backend'] };

export const START: Cursor = { index: null };

/** A poll takes the place of blocking where the header that makes blocking possible is missing for the second time. */
export const HEADERLESS_POLL_MS = 15_000;

export interface Step {
  readonly next: Cursor;
  /** The index of one backend went back: the registry's history began anew. */
  readonly regress: boolean;
}

/**
 * Rule 3 and 4. `streamable`: /health/service, whose first answer is plain and whose blocking answers may come from streaming; the
 * index of the one means nothing to the other, so that its second request is always `index=1`.
 */
export function step(cursor: Cursor, index: bigint, backend: AnswerHeaders['backend'], streamable: boolean): Step {
  // Index 0 is never sent: it would be answered at once, for ever. 1 waits for a change of what does not exist yet.
  if (index === 0n) return { next: { index: 1n, backend }, regress: false };
  // An agent that knows nothing yet, or any more, may be slow to learn: a plain read goes past it.
  if (backend === 'streaming' && index === 1n) return { next: START, regress: false };
  if (cursor.index === null) return { next: streamable ? { index: 1n, backend } : { index, backend }, regress: false };
  const sameBackend = cursor.backend === backend;
  if (sameBackend && index < cursor.index)
    return { next: backend === 'streaming' ? { index: 1n, backend } : START, regress: true };
  return { next: { index, backend }, regress: false };
}

/** The change of backends: who has an index of its own answers at once, who knows nothing holds us no longer than this. */
export const FIRST_WAIT_MS = 2_000;

/**
 * Rule 1, varied by us since streaming adds no jitter. Shorter than the 30 s of the notes: with the server's sixteenth and the
 * reserve of the deadline a dead link must still show within 30 s (reliability A3).
 */
export function waitMs(random: Random): number {
  return Math.round(20_000 + random() * 3_500);
}

/** The deadline of the whole call: the server adds up to a sixteenth. */
export function deadlineMs(wait: number): number {
  return (wait * 17) / 16 + 5_000;
}

const BURST = 2;
const QUICK_PER_MS = 1 / 1_000;
const SLOW_PER_MS = 1 / 15_000;
const IDLE_RETURNS = 10;
const IDLE_WINDOW_MS = 60_000;

/** Rule 6: burst 2, one a second; one in 15 s after 10 returns within 60 s that changed nothing, until one does. Monotonic ms. */
export class Bucket {
  #tokens = BURST;
  #at: number;
  #slow = false;
  /** Times of the last returns without a change, oldest first. */
  #idle: number[] = [];

  constructor(now: number) {
    this.#at = now;
  }

  /** Takes a token; the time to wait before it may be used. */
  take(now: number): number {
    const rate = this.#slow ? SLOW_PER_MS : QUICK_PER_MS;
    const since = Math.max(0, now - this.#at);
    const tokens = Math.min(this.#slow ? 1 : BURST, this.#tokens + since * rate) - 1;
    // Who waits has paid when the wait is over.
    const wait = tokens >= 0 ? 0 : -tokens / rate;
    this.#tokens = Math.max(0, tokens);
    this.#at = Math.max(this.#at, now + wait);
    return wait;
  }

  /** An answer came. */
  returned(changed: boolean, now: number): void {
    if (changed) {
      this.#slow = false;
      this.#idle = [];
      return;
    }
    this.#idle = [...this.#idle, now].filter((at) => now - at <= IDLE_WINDOW_MS).slice(-IDLE_RETURNS);
    if (this.#idle.length >= IDLE_RETURNS) this.#slow = true;
  }
}
