// Owns one check as the prober sees it: who asks for it, its timing, whether it is under way. No clock, no sockets.
// Called by prober.ts alone.
import type { DialPolicy, DialRefusal } from '../kernel/dial.ts';
import type { Ask } from './ask.ts';
import type { HeapEntry } from './due-heap.ts';
import type { ProbeTarget } from './probe.ts';
import type { Suspectable } from './self-suspect.ts';

/** One check that is under way. */
export interface Run {
  readonly check: Check;
  readonly controller: AbortController;
  readonly startedAt: number;
  readonly deadline: number;
  /** We stalled while it ran: a failure says nothing. */
  tainted: boolean;
}

/** One check, shared by all who ask for its target. */
export class Check implements HeapEntry, Suspectable {
  readonly key: string;
  readonly target: ProbeTarget;
  readonly asks = new Set<Ask>();
  due = 0;
  place = -1;
  /** Newest counted result; null before the first. */
  lastOk: boolean | null = null;
  run: Run | null = null;
  /** In [0, 1): where in its interval the check stands, the same for ever. */
  readonly #phase: number;

  constructor(key: string, target: ProbeTarget) {
    this.key = key;
    this.target = target;
    this.#phase = hash(key) / 0x1_0000_0000;
  }

  /** The smallest interval asked for, ms. */
  get interval(): number {
    let interval = Number.POSITIVE_INFINITY;
    for (const ask of this.asks) interval = Math.min(interval, ask.pace);
    return interval;
  }

  /** The longest timeout asked for, ms. */
  get timeout(): number {
    let timeout = 0;
    for (const ask of this.asks) timeout = Math.max(timeout, ask.policy.timeout);
    return timeout;
  }

  /** What one of the askers may connect to may be checked for all of them. */
  readonly dial: DialPolicy = (host, port) => {
    let refusal: DialRefusal | null = 'badHost';
    for (const ask of this.asks) {
      refusal = ask.dial(host, port);
      if (refusal === null) return null;
    }
    return refusal;
  };

  *services(): Iterable<string> {
    for (const ask of this.asks) yield ask.service;
  }

  /** The next slot of the check's own phase, at least half an interval after `from`, and up to 10 % of it later (`random` in [0, 1)). */
  slotAfter(from: number, random: number): number {
    const { interval } = this;
    const turns = Math.ceil((from + interval / 2) / interval - this.#phase);
    return (turns + this.#phase + random * 0.1) * interval;
  }
}

/** FNV-1a, 32 bits: spreads phases; not for secrets. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return h;
}
