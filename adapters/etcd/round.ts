// Owns one Watch stream from open to end: its start, its sign of life, its periodic list (protocol notes, section 3, rules 1-9).
// Called by session.ts, which opens the next one; must never decide what a list means, and never open again by itself.
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { Log } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { EtcdClient, OwnStream } from './client.ts';
import type { Change, Epochs, Mirror } from './mirror.ts';
import { prefixEnd, prefixStart, type WatchResponse } from './protocol.ts';
import { progressInOrder } from './server-version.ts';
import { type RelistReason, WatchRules } from './watch-rules.ts';

/** What a source's sessions share. */
export interface SessionDeps {
  readonly client: EtcdClient;
  readonly epochs: Epochs;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly count: (what: string, by?: number) => void;
  /** Versions whose faults were logged already; shared by all sessions of a source. */
  readonly warned: Set<string>;
}

/** What a life tells its hub; synchronous, must not throw. */
export interface SessionEvents<T> {
  /** The mirror holds the truth: the first list is in, or the stream goes on where the last one ended. */
  onReady(): void;
  onChanges(changes: readonly Change<T>[]): void;
  /** Heard from within the last 10 s. */
  onContact(): void;
}

/** What a round needs of its session. */
export interface RoundHost<T> {
  readonly prefix: string;
  readonly mirror: Mirror<T>;
  readonly deps: SessionDeps;
  readonly events: SessionEvents<T>;
  /** The version of the member, null when it does not say. */
  version(signal: AbortSignal): Promise<string | null>;
  /** Lists and applies the difference. True: a new epoch began (the open stream belongs to a history that is gone). */
  relist(signal: AbortSignal): Promise<boolean>;
  /** The resumed stream has caught up. */
  becomeReady(): void;
}

/** A stream without `created` by then is one too many for the server, or half-open. */
const CREATED_MS = 5_000;
/** Rule 6. */
export const SILENCE_MS = 10_000;
const PROGRESS_ANSWER_MS = 5_000;
/** Rule 5: the relist after a reconnect is spread over 0-2 s (0-5 s are allowed), so that a fleet does not read at once and we converge in 5 s. */
const RECONNECT_RELIST_MS = 2_000;
/** Rule 8. */
const ANTI_ENTROPY_MS = 60_000;
/** History arrives at most 100 ms after `created`; by then a resumed mirror shows it. */
const CATCH_UP_MS = 300;
/** How one stream ended without loss: list first, or open again right away, or open again with a fresh token. */
export type RoundEnd =
  | { readonly again: 'relist'; readonly reason: RelistReason }
  | { readonly again: 'reopen' }
  | { readonly again: 'login' };

/** One stream from open to end. */
export class Round<T> {
  readonly done: Promise<RoundEnd>;
  readonly #host: RoundHost<T>;
  readonly #rules: WatchRules;
  readonly #resumed: boolean;
  readonly #start: bigint;
  readonly #stop = new AbortController();
  readonly #timers = new Map<string, Timer>();
  #stream: OwnStream<'Watch'> | null = null;
  #inOrder = false;
  #heardAt = 0;
  #asked = 0;
  #settle: (end: RoundEnd | { readonly thrown: unknown }) => void = () => {};

  constructor(host: RoundHost<T>, floor: bigint, resumed: boolean, outer: AbortSignal) {
    this.#host = host;
    this.#start = host.mirror.next - 1n;
    this.#rules = new WatchRules(host.deps.epochs.mark(), floor);
    this.#resumed = resumed;
    this.done = new Promise((resolve, reject) => {
      const onAbort = (): void => this.#settle({ thrown: outer.reason });
      this.#settle = (end) => {
        this.#settle = () => {};
        outer.removeEventListener('abort', onAbort);
        this.#close();
        if ('thrown' in end) reject(end.thrown);
        else resolve(end);
      };
      // The list before this round may have seen the last listener leave.
      if (outer.aborted) return onAbort();
      outer.addEventListener('abort', onAbort, { once: true });
      this.#open().catch((thrown: unknown) => this.#settle({ thrown }));
    });
  }

  async #open(): Promise<void> {
    const { client } = this.#host.deps;
    const signal = this.#stop.signal;
    this.#inOrder = progressInOrder(await this.#host.version(signal));
    this.#after('created', CREATED_MS, () => this.#lose(`no answer to the watch within ${CREATED_MS} ms`));
    this.#stream = await client.stream(
      'Watch',
      signal,
      (response) => this.#onResponse(response),
      (failure) => this.#settle({ thrown: failure }),
    );
    const key = Buffer.from(this.#host.prefix);
    this.#stream.write({
      create: {
        key: prefixStart(key),
        rangeEnd: prefixEnd(key),
        // Not next: a watch above the store's revision gets no progress answer (3.6), and the overlap is dropped by the mirror.
        startRevision: String(this.#start < 1n ? 1n : this.#start),
        fragment: true,
        progressNotify: true,
      },
    });
  }

  #onResponse(response: WatchResponse): void {
    const { clock, epochs } = this.#host.deps;
    this.#heardAt = clock.now();
    this.#asked = 0;
    const step = this.#rules.step(response);
    const { header } = response;
    switch (step.kind) {
      case 'wait':
        return;
      case 'created':
        this.#onCreated(step.revision);
        return;
      case 'events': {
        const changes = this.#host.mirror.applyEvents(step.events);
        if (header !== null) epochs.note(header.clusterId, this.#host.mirror.next - 1n, BigInt(header.raftTerm));
        if (changes.length > 0) this.#host.events.onChanges(changes);
        return;
      }
      case 'progress':
        if (!this.#inOrder) return;
        this.#host.mirror.advance(step.revision);
        if (header !== null) epochs.note(header.clusterId, step.revision, BigInt(header.raftTerm));
        return;
      case 'relist':
        this.#settle({ again: 'relist', reason: step.reason });
        return;
      case 'denied':
        this.#settle(
          this.#host.deps.client.canLogIn ? { again: 'login' } : { thrown: new SourceError('denied', `etcd: ${step.text}`) },
        );
        return;
      case 'lost':
        this.#lose(step.text);
        return;
    }
  }

  #onCreated(revision: bigint): void {
    this.#cancelTimer('created');
    this.#after('silence', SILENCE_MS, () => this.#onTick());
    if (!this.#resumed) {
      this.#after('relist', this.#antiEntropyDelay(), () => this.#relist());
      return;
    }
    const { random } = this.#host.deps;
    this.#after('relist', random() * RECONNECT_RELIST_MS, () => this.#relist());
    if (revision <= this.#host.mirror.next - 1n) this.#host.becomeReady();
    else this.#after('ready', CATCH_UP_MS, () => this.#host.becomeReady());
  }

  /** Every 10 s: heard from since? Else ask, wait 5 s, ask once more, wait 5 s, give up. */
  #onTick(): void {
    const { clock } = this.#host.deps;
    const silent = clock.now() - this.#heardAt;
    if (silent < SILENCE_MS) {
      if (this.#rules.created) this.#host.events.onContact();
      // An answer to a request counts from its own time: ask again 10 s after it.
      this.#after('silence', Math.max(1, SILENCE_MS - silent), () => this.#onTick());
      return;
    }
    if (this.#asked >= 2) {
      this.#lose('no answer to two progress requests: the stream is dead');
      return;
    }
    this.#asked++;
    this.#stream?.write({ progress: {} });
    this.#after('silence', PROGRESS_ANSWER_MS, () => this.#onTick());
  }

  #relist(): void {
    this.#host.relist(this.#stop.signal).then(
      (anew) => {
        if (anew) return this.#settle({ again: 'reopen' });
        this.#after('relist', this.#antiEntropyDelay(), () => this.#relist());
      },
      (thrown: unknown) => this.#settle({ thrown }),
    );
  }

  #antiEntropyDelay(): number {
    return ANTI_ENTROPY_MS * (1 + this.#host.deps.random());
  }

  /** A read elsewhere saw revisions start anew: end, so that the session lists. */
  suspect(): void {
    this.#settle({ again: 'relist', reason: 'revisionBack' });
  }

  #lose(text: string): void {
    const { client } = this.#host.deps;
    const endpoint = this.#stream?.endpoint ?? client.endpoint;
    this.#settle({ thrown: new SourceError('lost', `etcd ${endpoint}: ${text}`) });
    client.lost(endpoint);
  }

  #after(name: string, ms: number, fn: () => void): void {
    this.#timers.get(name)?.cancel();
    if (!this.#stop.signal.aborted) this.#timers.set(name, this.#host.deps.clock.setTimer(ms, fn));
  }

  #cancelTimer(name: string): void {
    this.#timers.get(name)?.cancel();
  }

  #close(): void {
    this.#stop.abort(new Error('the stream was given up'));
    for (const timer of this.#timers.values()) timer.cancel();
    this.#stream?.cancel();
  }
}
