// Owns one life of a mirror: list, watch, prove life, list again, until something is lost (protocol notes, section 3).
// Called by hub.ts, which opens the next life when a consumer asks again; must never survive a loss by itself: it throws.
//
//      list at R ──▶ watch from next − 1 ──▶ events ──▶ mirror
//        ▲              │ compacted, revision back, other cluster        every 10 s: heard? else progress request, 5 s, once more
//        └──────────────┴── again within this life; all else throws      every 60-120 s: list, difference = fault of the stream
import { SourceError } from '../../src/model/snapshot.ts';
import { connectionFault, sourceError } from './errors.ts';
import { listPrefix } from './lister.ts';
import type { Change, Mirror } from './mirror.ts';
import { Round, type RoundEnd, type RoundHost, type SessionDeps, type SessionEvents, SILENCE_MS } from './round.ts';
import { knownFaults } from './server-version.ts';

/** A life that starts over this often without 10 s of peace gives up, so that the supervisor paces it. */
const MAX_UNRESTFUL_ROUNDS = 6;

/** See the head of the file. */
export class WatchSession<T> implements RoundHost<T> {
  readonly prefix: string;
  readonly mirror: Mirror<T>;
  readonly deps: SessionDeps;
  readonly events: SessionEvents<T>;
  #ready = false;
  #round: Round<T> | null = null;

  constructor(prefix: string, mirror: Mirror<T>, deps: SessionDeps, events: SessionEvents<T>) {
    this.prefix = prefix;
    this.mirror = mirror;
    this.deps = deps;
    this.events = events;
  }

  /** Rejects with SourceError on loss, with the signal's reason on abort; never resolves. `resume`: go on from the mirror's `next`. */
  async run(resume: boolean, signal: AbortSignal): Promise<never> {
    try {
      return await this.#run(resume && this.mirror.next > 0n, signal);
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
        const anew = await this.relist(signal);
        judged &&= !anew;
      }
      const begun = this.deps.clock.now();
      // The list has decided: a member that lags behind it may say so once without being suspected again.
      this.#round = new Round(this, judged ? 0n : this.mirror.next - 1n, resumed, signal);
      const end: RoundEnd = await this.#round.done;
      if (this.deps.clock.now() - begun >= SILENCE_MS) unrestful = 0;
      resume = end.again !== 'relist';
      resumed = false;
      judged = end.again === 'relist' && end.reason !== 'compacted';
      if (end.again === 'relist') {
        this.deps.count(`watch.${end.reason}`);
        this.deps.log.info({ reason: end.reason }, 'etcd watch: listing again');
      } else if (end.again === 'login') {
        if (loggedIn || !this.deps.client.canLogIn) throw new SourceError('denied', 'etcd: the watch is refused: check auth');
        loggedIn = true;
        this.deps.client.forgetToken();
      }
    }
    throw new SourceError('lost', 'etcd: the watch does not come to rest');
  }

  /** The version of the member, null when it does not say; warns once of its known faults. */
  async version(signal: AbortSignal): Promise<string | null> {
    try {
      const { version } = await this.deps.client.call('Status', {}, signal);
      const faults = knownFaults(version);
      if (faults.length > 0 && !this.deps.warned.has(version)) {
        this.deps.warned.add(version);
        this.deps.count('server.knownFaults', faults.length);
        this.deps.log.warn({ version, faults }, 'etcd member has known faults: upgrade it');
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

  becomeReady(): void {
    if (this.#ready) return;
    this.#ready = true;
    this.events.onReady();
  }

  async relist(signal: AbortSignal): Promise<boolean> {
    const { client, epochs } = this.deps;
    const { mirror } = this;
    const mark = epochs.mark();
    mirror.beginList();
    try {
      const listing = await listPrefix((request) => client.call('Range', request, signal), this.prefix);
      signal.throwIfAborted();
      epochs.judge(mark, listing.header);
      if (mirror.epoch === epochs.number && mirror.contradicts(listing)) epochs.startAnew(listing.header);
      const first = mirror.epoch < 0;
      const anew = mirror.epoch !== epochs.number;
      const next = mirror.next;
      const changes = mirror.applyList(listing, epochs.number);
      if (anew && !first) this.deps.log.warn({ epoch: epochs.text }, 'etcd: revisions started anew, everything was read again');
      if (!anew && this.#ready) this.#countMissed(changes, next);
      if (changes.length > 0) this.events.onChanges(changes);
      this.becomeReady();
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
    this.deps.count('watch.missedEvents', missed);
    this.deps.log.warn({ missed }, 'etcd: a list differs from what the watch delivered');
  }
}
