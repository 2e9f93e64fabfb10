// Owns what one response of a Watch stream means (protocol notes, section 3, rules 1-4). Pure: a state machine without I/O or time.
// Called by session.ts; must never advance anything on `created`, on open fragments, or on the header of a response with events.
import type { KeyEvent, Mark } from './mirror.ts';
import type { Event, WatchResponse } from './protocol.ts';

/** Why the list has to decide (rules 3 and 4). */
export type RelistReason = 'compacted' | 'revisionBack' | 'clusterChanged' | 'termBack';

/** What the caller has to do. */
export type WatchStep =
  | { readonly kind: 'wait' }
  | { readonly kind: 'created'; readonly revision: bigint }
  | { readonly kind: 'events'; readonly events: readonly KeyEvent[] }
  /** An answer without events: everything of this watch up to `revision` was delivered (on servers that keep this order). */
  | { readonly kind: 'progress'; readonly revision: bigint }
  | { readonly kind: 'relist'; readonly reason: RelistReason }
  | { readonly kind: 'denied'; readonly text: string }
  | { readonly kind: 'lost'; readonly text: string };

/** Events of one response, however many fragments it came in; more is a server gone wrong. */
const MAX_OPEN_EVENTS = 1_000_000;
const WAIT: WatchStep = { kind: 'wait' };

/** The state of one watch on one stream. */
export class WatchRules {
  readonly #clusterId: string | null;
  readonly #raftTerm: bigint;
  #floor: bigint;
  #watchId: string | null = null;
  #open: Event[] = [];
  #fragmented = false;

  /** `mark`: what was seen before; `floor`: headers below it are suspicious (0: the list has decided already). */
  constructor(mark: Mark | null, floor: bigint) {
    this.#clusterId = mark?.clusterId ?? null;
    this.#raftTerm = floor === 0n ? 0n : (mark?.raftTerm ?? 0n);
    this.#floor = floor;
  }

  get created(): boolean {
    return this.#watchId !== null;
  }

  step(response: WatchResponse): WatchStep {
    if (response.canceled) return canceled(response);
    const { header } = response;
    if (header === null) return { kind: 'lost', text: 'an answer without a header' };
    const revision = BigInt(header.revision);
    if (this.#clusterId !== null && header.clusterId !== this.#clusterId) return { kind: 'relist', reason: 'clusterChanged' };
    if (revision < this.#floor) return { kind: 'relist', reason: 'revisionBack' };
    if (BigInt(header.raftTerm) < this.#raftTerm) return { kind: 'relist', reason: 'termBack' };
    if (response.created) {
      this.#watchId = response.watchId;
      return { kind: 'created', revision };
    }
    if (response.watchId !== this.#watchId && response.watchId !== '-1') return WAIT;
    if (response.events.length > 0 || response.fragment || this.#fragmented) return this.#events(response);
    this.#floor = revision;
    return { kind: 'progress', revision };
  }

  #events(response: WatchResponse): WatchStep {
    // Rule 1b: an answer between two fragments says nothing about what the open ones still hold back.
    if (response.watchId !== this.#watchId) return WAIT;
    for (const event of response.events) this.#open.push(event);
    if (this.#open.length > MAX_OPEN_EVENTS) return { kind: 'lost', text: 'a response without end' };
    this.#fragmented = response.fragment;
    if (response.fragment) return WAIT;
    const events: KeyEvent[] = [];
    for (const { type, kv } of this.#open) {
      if (kv === null) continue;
      events.push({ kind: type === 1 ? 'delete' : 'put', kv });
      const modRevision = BigInt(kv.modRevision);
      if (modRevision > this.#floor) this.#floor = modRevision;
    }
    this.#open = [];
    return { kind: 'events', events };
  }
}

/** Rule 3. The header of a canceled response may say revision 0 and is never looked at. */
function canceled(response: WatchResponse): WatchStep {
  const reason = response.cancelReason;
  if (response.compactRevision !== '0' || reason.includes('required revision has been compacted')) {
    return { kind: 'relist', reason: 'compacted' };
  }
  if (
    /code = (PermissionDenied|Unauthenticated)|user name is empty|invalid auth token|permission denied|auth store is old/.test(
      reason,
    )
  ) {
    return { kind: 'denied', text: reason };
  }
  return { kind: 'lost', text: reason === '' ? 'the server canceled the watch' : `the server canceled the watch: ${reason}` };
}
