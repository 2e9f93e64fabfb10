// Owns one Watch stream of the fake etcd: created, catch-up, live events, fragments, progress, cancels. Called by fake.ts.
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { type FakeStore, rangeTest } from './fake-store.ts';
import type { Event, WatchRequest, WatchResponse } from './protocol.ts';

/** What the fake does differently while a test wants it to. */
export interface WatchBehaviour {
  readonly version: '3.4.23' | '3.6.16';
  /** Time from `created` to the history, ms; the real one takes up to 100. */
  catchUpMs: number;
  /** A response with more bytes than this is split when the client allows fragments. */
  fragmentBytes: number;
  /** Events come twice. */
  duplicateEvents: boolean;
  /** No watch gets its `created` any more, as over a stream limit. */
  silentWatches: boolean;
  /** Streams die after `created`, this many times. */
  cutAfterCreated: number;
  /** Progress requests stay unanswered. */
  ignoreProgress: boolean;
  /** Reason of a refusal at creation, or null. */
  refuse(key: Buffer): string | null;
}

interface Watcher {
  readonly id: string;
  readonly within: (name: string) => boolean;
  readonly prevKv: boolean;
  readonly fragment: boolean;
  /** The next revision to deliver. */
  start: bigint;
  /** As the client asked; above the store's revision it is a watch of the future. */
  readonly asked: bigint;
  synced: boolean;
}

type CreateRequest = NonNullable<WatchRequest['create']>;

export class FakeWatchStream {
  readonly #store: FakeStore;
  readonly #clock: Clock;
  readonly #behaviour: WatchBehaviour;
  readonly #send: (response: WatchResponse) => void;
  readonly #cut: () => void;
  readonly #refuse: (key: Buffer) => string | null;
  readonly #watchers = new Map<string, Watcher>();
  readonly #timers = new Set<Timer>();
  #ids = 0;

  constructor(
    store: FakeStore,
    clock: Clock,
    behaviour: WatchBehaviour,
    hooks: {
      send(response: WatchResponse): void;
      cut(): void;
      refuse(key: Buffer): string | null;
    },
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#behaviour = behaviour;
    this.#send = hooks.send;
    this.#cut = hooks.cut;
    this.#refuse = hooks.refuse;
  }

  onRequest(request: WatchRequest): void {
    if (request.create != null) this.#create(request.create);
    else if (request.cancel != null) this.#cancel(request.cancel.watchId, '', '0');
    else if (request.progress != null) this.#progress();
  }

  /** A write happened: one response per watcher that is in step. */
  onRevision(revision: bigint, events: readonly Event[]): void {
    for (const watcher of this.#watchers.values()) {
      if (!watcher.synced || revision < watcher.start) continue;
      watcher.start = revision + 1n;
      this.#deliver(watcher, events, revision);
    }
  }

  /** The server cancels every watch of the stream. */
  cancelAll(reason: string): void {
    for (const id of [...this.#watchers.keys()]) this.#cancel(id, reason, '0');
  }

  close(): void {
    this.#watchers.clear();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  #create(request: CreateRequest): void {
    const { version } = this.#behaviour;
    if (this.#behaviour.silentWatches) return;
    const wanted = BigInt(request.startRevision);
    const refusal =
      this.#refuse(request.key) ??
      (request.rangeEnd !== undefined && request.rangeEnd.length > 1 && Buffer.compare(request.rangeEnd, request.key) <= 0
        ? 'mvcc: watcher range is empty'
        : wanted < 0n && version === '3.6.16'
          ? 'etcdserver: mvcc: required revision has been compacted'
          : null);
    if (refusal !== null) {
      this.#send({ ...this.#response('-1'), created: true, canceled: true, cancelReason: refusal });
      return;
    }
    const watcher: Watcher = {
      id: String(this.#ids++),
      within: rangeTest(request.key, request.rangeEnd ?? Buffer.alloc(0)),
      prevKv: request.prevKv === true,
      fragment: request.fragment === true,
      start: wanted <= 0n ? this.#store.revision + 1n : wanted,
      asked: wanted,
      synced: wanted <= 0n,
    };
    this.#watchers.set(watcher.id, watcher);
    this.#send({ ...this.#response(watcher.id), created: true });
    if (this.#behaviour.cutAfterCreated > 0) {
      this.#behaviour.cutAfterCreated--;
      this.#cut();
    } else if (!watcher.synced) this.#after(this.#behaviour.catchUpMs, () => this.#catchUp(watcher));
  }

  #catchUp(watcher: Watcher): void {
    if (!this.#watchers.has(watcher.id)) return;
    if (watcher.start < this.#store.compacted) {
      this.#cancel(watcher.id, '', String(this.#store.compacted));
      return;
    }
    watcher.synced = true;
    // 3.4.23 has lost the events of the compaction's own revision (section 7).
    const skip = this.#behaviour.version === '3.4.23' ? this.#store.compacted : 0n;
    const events = this.#store
      .since(watcher.start)
      .filter(({ revision }) => revision !== skip)
      .flatMap((step) => step.events);
    if (watcher.start <= this.#store.revision) watcher.start = this.#store.revision + 1n;
    // Catch-up answers carry the current revision of the store in their header.
    this.#deliver(watcher, events, this.#store.revision);
  }

  #deliver(watcher: Watcher, events: readonly Event[], revision: bigint): void {
    const mine = events
      .filter(({ kv }) => kv !== null && watcher.within(kv.key.toString('latin1')))
      .map((event) => (watcher.prevKv ? event : { ...event, prevKv: null }));
    if (mine.length === 0) return;
    const batches = watcher.fragment ? split(mine, this.#behaviour.fragmentBytes) : [mine];
    for (let round = 0; round < (this.#behaviour.duplicateEvents ? 2 : 1); round++) {
      for (const [index, batch] of batches.entries()) {
        this.#send({
          ...this.#response(watcher.id),
          header: this.#store.header(revision),
          fragment: index < batches.length - 1,
          events: batch,
        });
      }
    }
  }

  #progress(): void {
    if (this.#behaviour.ignoreProgress) return;
    const watchers = [...this.#watchers.values()];
    const inStep = watchers.length > 0 && watchers.every(({ synced, asked }) => synced && asked <= this.#store.revision);
    if (this.#behaviour.version === '3.6.16' && !inStep) return;
    this.#send(this.#response('-1'));
  }

  #cancel(id: string, cancelReason: string, compactRevision: string): void {
    if (!this.#watchers.delete(id)) return;
    // The header of a compaction cancel says revision 0.
    const header = compactRevision === '0' ? this.#store.header() : this.#store.header(0n);
    this.#send({ ...this.#response(id), header, canceled: true, cancelReason, compactRevision });
  }

  #response(watchId: string): WatchResponse {
    return {
      header: this.#store.header(),
      watchId,
      created: false,
      canceled: false,
      compactRevision: '0',
      cancelReason: '',
      fragment: false,
      events: [],
    };
  }

  #after(ms: number, fn: () => void): void {
    const timer = this.#clock.setTimer(ms, () => {
      this.#timers.delete(timer);
      fn();
    });
    this.#timers.add(timer);
  }
}

function split(events: readonly Event[], maxBytes: number): Event[][] {
  const batches: Event[][] = [[]];
  let size = 0;
  for (const event of events) {
    const bytes = (event.kv?.key.length ?? 0) + (event.kv?.value.length ?? 0) + (event.prevKv?.value.length ?? 0) + 32;
    if (size > 0 && size + bytes > maxBytes) {
      batches.push([]);
      size = 0;
    }
    batches.at(-1)?.push(event);
    size += bytes;
  }
  return batches;
}
