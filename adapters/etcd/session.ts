// Owns one life of a mirror: list, watch, prove life, list again, until something is lost (protocol notes, section 3).
// Called by hub.ts, which opens the next life when a consumer asks again; must never survive a loss by itself: it throws.
//
//      list at R ──▶ watch from next − 1 ──▶ events ──▶ mirror
//        ▲              │ compacted, revision back, other cluster        every 10 s: heard? else progress request, 5 s, once more
//        └──────────────┴── again within this life; all else throws      every 60-120 s: list, difference = fault of the stream
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { Log } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { EtcdClient, OwnStream } from './client.ts';
import { connectionFault, sourceError } from './errors.ts';
import { listPrefix } from './lister.ts';
import type { Change, Epochs, Mirror } from './mirror.ts';
import { prefixEnd, prefixStart, type WatchResponse } from './protocol.ts';
import { knownFaults, progressInOrder } from './server-version.ts';
import { type RelistReason, WatchRules } from './watch-rules.ts';

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

/** A stream without `created` by then is one too many for the server, or half-open. */
const CREATED_MS = 5_000;
/** Rule 6. */
const SILENCE_MS = 10_000;
const PROGRESS_ANSWER_MS = 5_000;
/** Rule 5: the relist after a reconnect is spread over 0-2 s (0-5 s are allowed), so that a fleet does not read at once and we converge in 5 s. */
const RECONNECT_RELIST_MS = 2_000;
/** Rule 8. */
const ANTI_ENTROPY_MS = 60_000;
/** History arrives at most 100 ms after `created`; by then a resumed mirror shows it. */
const CATCH_UP_MS = 300;
/** A life that starts over this often without 10 s of peace gives up, so that the supervisor paces it. */
const MAX_UNRESTFUL_ROUNDS = 6;

/** How one stream ended without loss: list first, or open again right away, or open again with a fresh token. */
type RoundEnd =
  | { readonly again: 'relist'; readonly reason: RelistReason }
  | { readonly again: 'reopen' }
  | { readonly again: 'login' };

/** See the head of the file. */
export class WatchSession<T> {
  readonly #prefix: string;
  readonly #mirror: Mirror<T>;
  readonly #deps: SessionDeps;
  readonly #events: SessionEvents<T>;
  #ready = false;
  #round: Round<T> | null = null;

  constructor(prefix: string, mirror: Mirror<T>, deps: SessionDeps, events: SessionEvents<T>) {
    this.#prefix = prefix;
    this.#mirror = mirror;
    this.#deps = deps;
    this.#events = events;
  }

  /** Rejects with SourceError on loss, with the signal's reason on abort; never resolves. `resume`: go on from the mirror's `next`. */
  async run(resume: boolean, signal: AbortSignal): Promise<never> {
    try {
      return await this.#run(resume && this.#mirror.next > 0n, signal);
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      throw sourceError(thrown);
    }
  }

  async #run(resumeFirst: boolean, signal: AbortSignal): Promise<never> {
    let resume = resumeFirst;
    let resumed = resumeFirst;
    let judged = false;
    let loggedIn = false;
    for (let unrestful = 0; unrestful < MAX_UNRESTFUL_ROUNDS; unrestful++) {
      signal.throwIfAborted();
      if (!resume) {
        const anew = await this.#relist(signal);
        judged &&= !anew;
        this.#becomeReady();
      }
      const begun = this.#deps.clock.now();
      // The list has decided: a member that lags behind it may say so once without being suspected again.
      this.#round = new Round(this, judged ? 0n : this.#mirror.next - 1n, resumed, signal);
      const end: RoundEnd = await this.#round.done;
      if (this.#deps.clock.now() - begun >= SILENCE_MS) unrestful = 0;
      resume = end.again !== 'relist';
      resumed = false;
      judged = end.again === 'relist' && end.reason !== 'compacted';
      if (end.again === 'relist') {
        this.#deps.count(`watch.${end.reason}`);
        this.#deps.log.info({ reason: end.reason }, 'etcd watch: listing again');
      } else if (end.again === 'login') {
        if (loggedIn || !this.#deps.client.canLogIn) throw new SourceError('denied', 'etcd: the watch is refused: check auth');
        loggedIn = true;
        this.#deps.client.forgetToken();
      }
    }
    throw new SourceError('lost', 'etcd: the watch does not come to rest');
  }

  get prefix(): string {
    return this.#prefix;
  }

  get mirror(): Mirror<T> {
    return this.#mirror;
  }

  get deps(): SessionDeps {
    return this.#deps;
  }

  get events(): SessionEvents<T> {
    return this.#events;
  }

  /** Called by a round when its resumed stream has caught up. */
  becomeReady(): void {
    this.#becomeReady();
  }

  /** Lists and applies the difference. True: a new epoch began (the open stream belongs to a history that is gone). */
  async relist(signal: AbortSignal): Promise<boolean> {
    const anew = await this.#relist(signal);
    this.#becomeReady();
    return anew;
  }

  /** The version of the member, null when it does not say; warns once of its known faults. */
  async version(signal: AbortSignal): Promise<string | null> {
    try {
      const { version } = await this.#deps.client.call('Status', {}, signal);
      const faults = knownFaults(version);
      if (faults.length > 0 && !this.#deps.warned.has(version)) {
        this.#deps.warned.add(version);
        this.#deps.count('server.knownFaults', faults.length);
        this.#deps.log.warn({ version, faults }, 'etcd member has known faults: upgrade it');
      }
      return version;
    } catch (thrown) {
      if (signal.aborted || connectionFault(thrown)) throw thrown;
      return null;
    }
  }

  /** A read elsewhere saw revisions start anew: list now. */
  suspect(): void {
    this.#round?.suspect();
  }

  #becomeReady(): void {
    if (this.#ready) return;
    this.#ready = true;
    this.#events.onReady();
  }

  async #relist(signal: AbortSignal): Promise<boolean> {
    const { client, epochs } = this.#deps;
    const mirror = this.#mirror;
    const mark = epochs.mark();
    mirror.beginList();
    try {
      const listing = await listPrefix((request) => client.call('Range', request, signal), this.#prefix);
      signal.throwIfAborted();
      epochs.judge(mark, listing.header);
      if (mirror.epoch === epochs.number && mirror.contradicts(listing)) epochs.startAnew(listing.header);
      const first = mirror.epoch < 0;
      const anew = mirror.epoch !== epochs.number;
      const next = mirror.next;
      const changes = mirror.applyList(listing, epochs.number);
      if (anew && !first) this.#deps.log.warn({ epoch: epochs.text }, 'etcd: revisions started anew, everything was read again');
      if (!anew && this.#ready) this.#countMissed(changes, next);
      if (changes.length > 0) this.#events.onChanges(changes);
      return anew;
    } catch (thrown) {
      mirror.abandonList();
      throw thrown;
    }
  }

  /** What a list shows below `next` the stream should have shown. */
  #countMissed(changes: readonly Change<T>[], next: bigint): void {
    const missed = changes.filter((change) => change.revision < next).length;
    if (missed === 0) return;
    this.#deps.count('watch.missedEvents', missed);
    this.#deps.log.warn({ missed }, 'etcd: a list differs from what the watch delivered');
  }
}

/** One stream from open to end. */
class Round<T> {
  readonly done: Promise<RoundEnd>;
  readonly #session: WatchSession<T>;
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

  constructor(session: WatchSession<T>, floor: bigint, resumed: boolean, outer: AbortSignal) {
    this.#session = session;
    this.#start = session.mirror.next - 1n;
    this.#rules = new WatchRules(session.deps.epochs.mark(), floor);
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
      outer.addEventListener('abort', onAbort, { once: true });
      this.#open().catch((thrown: unknown) => this.#settle({ thrown }));
    });
  }

  async #open(): Promise<void> {
    const { session } = this;
    const { client } = session.deps;
    const signal = this.#stop.signal;
    this.#inOrder = progressInOrder(await session.version(signal));
    this.#after('created', CREATED_MS, () => this.#lose(`no answer to the watch within ${CREATED_MS} ms`));
    this.#stream = await client.stream(
      'Watch',
      signal,
      (response) => this.#onResponse(response),
      (failure) => this.#settle({ thrown: failure }),
    );
    const key = Buffer.from(session.prefix);
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

  private get session(): WatchSession<T> {
    return this.#session;
  }

  #onResponse(response: WatchResponse): void {
    const { clock, epochs } = this.session.deps;
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
        const changes = this.session.mirror.applyEvents(step.events);
        if (header !== null) epochs.note(header.clusterId, this.session.mirror.next - 1n, BigInt(header.raftTerm));
        if (changes.length > 0) this.session.events.onChanges(changes);
        return;
      }
      case 'progress':
        if (!this.#inOrder) return;
        this.session.mirror.advance(step.revision);
        if (header !== null) epochs.note(header.clusterId, step.revision, BigInt(header.raftTerm));
        return;
      case 'relist':
        this.#settle({ again: 'relist', reason: step.reason });
        return;
      case 'denied':
        this.#settle(
          this.session.deps.client.canLogIn ? { again: 'login' } : { thrown: new SourceError('denied', `etcd: ${step.text}`) },
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
    const { random } = this.session.deps;
    this.#after('relist', random() * RECONNECT_RELIST_MS, () => this.#relist());
    if (revision <= this.session.mirror.next - 1n) this.session.becomeReady();
    else this.#after('ready', CATCH_UP_MS, () => this.session.becomeReady());
  }

  /** Every 10 s: heard from since? Else ask, wait 5 s, ask once more, wait 5 s, give up. */
  #onTick(): void {
    const { clock } = this.session.deps;
    const silent = clock.now() - this.#heardAt;
    if (silent < SILENCE_MS) {
      if (this.#rules.created) this.session.events.onContact();
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
    this.session.relist(this.#stop.signal).then(
      (anew) => {
        if (anew) return this.#settle({ again: 'reopen' });
        this.#after('relist', this.#antiEntropyDelay(), () => this.#relist());
      },
      (thrown: unknown) => this.#settle({ thrown }),
    );
  }

  #antiEntropyDelay(): number {
    return ANTI_ENTROPY_MS * (1 + this.session.deps.random());
  }

  suspect(): void {
    this.#settle({ again: 'relist', reason: 'revisionBack' });
  }

  #lose(text: string): void {
    const { client } = this.session.deps;
    const endpoint = this.#stream?.endpoint ?? client.endpoint;
    this.#settle({ thrown: new SourceError('lost', `etcd ${endpoint}: ${text}`) });
    client.lost(endpoint);
  }

  #after(name: string, ms: number, fn: () => void): void {
    this.#timers.get(name)?.cancel();
    if (!this.#stop.signal.aborted) this.#timers.set(name, this.session.deps.clock.setTimer(ms, fn));
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
