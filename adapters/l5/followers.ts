// Owns what a watch and a list tell their readers out of the rounds of the poller: changes at once, signs of life now and then.
// Called by poller.ts; made by adapter.ts.
import type { Clock } from '../../src/kernel/clock.ts';
import type { Mailbox } from '../../src/kernel/mailbox.ts';
import { serviceId } from '../../src/model/service.ts';
import type { ServiceList, Snapshot, SourceError, Unchanged } from '../../src/model/snapshot.ts';
import type { SidState } from './mapping.ts';
import type { Follower } from './poller.ts';
import { type Sid, sidText } from './sid.ts';

/** A round without a change is worth a word this often, ms: 1,000 words a second would cost more than the rounds themselves. */
export const SIGN_OF_LIFE_MS = 5_000;

const UNCHANGED: Unchanged = { kind: 'unchanged' };

export class WatchFollower implements Follower {
  readonly wants: Sid | string | null;
  readonly #slot: Mailbox<Snapshot | Unchanged>;
  readonly #snapshot: (state: SidState | null) => Snapshot;
  readonly #clock: Clock;
  #text: string | null = null;
  #saidAt = 0;

  constructor(
    wants: Sid | string | null,
    slot: Mailbox<Snapshot | Unchanged>,
    snapshot: (state: SidState | null) => Snapshot,
    clock: Clock,
  ) {
    this.wants = wants;
    this.#slot = slot;
    this.#snapshot = snapshot;
    this.#clock = clock;
  }

  answer(state: SidState | null): void {
    const text = state === null ? '' : `${sidText(state.sid)} ${state.text}`;
    const now = this.#clock.now();
    if (text !== this.#text) this.#slot.put(this.#snapshot(state));
    else if (now - this.#saidAt >= SIGN_OF_LIFE_MS) this.#slot.put(UNCHANGED);
    else return;
    this.#text = text;
    this.#saidAt = now;
  }

  failed(error: SourceError): void {
    this.#slot.fail(error);
  }
}

export class ListFollower implements Follower {
  readonly wants = null;
  readonly #slot: Mailbox<ServiceList>;
  readonly #list: () => ServiceList;
  #text: string | null = null;

  constructor(slot: Mailbox<ServiceList>, list: () => ServiceList) {
    this.#slot = slot;
    this.#list = list;
  }

  answer(): void {
    const list = this.#list();
    const text = list.keys.map(serviceId).join('\n');
    if (text !== this.#text) this.#slot.put(list);
    this.#text = text;
  }

  failed(error: SourceError): void {
    this.#slot.fail(error);
  }
}
