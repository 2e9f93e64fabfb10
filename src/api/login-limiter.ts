// Owns the limit on failed logins: GCRA per peer address (reliability.md §8) in a bounded table. Called by access.ts.
// Must never let a newcomer push out a peer that is still limited.
import { isIPv6 } from 'node:net';
import { canonicalHost } from '../kernel/address.ts';
import type { Clock } from '../kernel/clock.ts';

/** One failure is forgiven every 6 s; 5 may come at once. [own numbers] */
const INTERVAL_MS = 6_000;
const BURST = 5;
const TOLERANCE_MS = INTERVAL_MS * (BURST - 1);
const MAX_KEYS = 10_000;
const OVERFLOW = 'overflow';

/** Counts failed logins; a peer over its limit waits. */
export class LoginLimiter {
  readonly #clock: Clock;
  readonly #maxKeys: number;
  /** Theoretical arrival time (monotonic ms) by key. */
  readonly #tat = new Map<string, number>();

  constructor(clock: Clock, maxKeys = MAX_KEYS) {
    this.#clock = clock;
    this.#maxKeys = maxKeys;
  }

  /** ms until the peer may try again; 0: now. Asking costs nothing. */
  waitMs(peer: string | undefined): number {
    const own = peerKey(peer);
    // While the table is full, a peer without an entry of its own counts in the shared one.
    const key = this.#tat.has(own) || this.#tat.size < this.#maxKeys ? own : OVERFLOW;
    return Math.max(0, (this.#tat.get(key) ?? 0) - this.#clock.now() - TOLERANCE_MS);
  }

  /** Counts one failure of the peer. */
  failed(peer: string | undefined): void {
    const now = this.#clock.now();
    const own = peerKey(peer);
    const key = this.#tat.has(own) || this.#hasRoom(now) ? own : OVERFLOW;
    this.#tat.set(key, Math.max(this.#tat.get(key) ?? 0, now) + INTERVAL_MS);
  }

  get size(): number {
    return this.#tat.size;
  }

  /** Only refilled entries go: nobody resets his own count by flooding the table. */
  #hasRoom(now: number): boolean {
    if (this.#tat.size < this.#maxKeys) return true;
    for (const [old, tat] of this.#tat) if (tat <= now) this.#tat.delete(old);
    return this.#tat.size < this.#maxKeys;
  }
}

/** The address, IPv6 by its /64; `local` for unix sockets. */
export function peerKey(peer: string | undefined): string {
  const host = peer === undefined ? null : canonicalHost(peer);
  if (host === null) return 'local';
  if (!isIPv6(host)) return host;
  const [head = '', tail] = host.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? [] : new Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  return `${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}
