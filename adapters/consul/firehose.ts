// Owns the watch of all services that have no blocking query of their own (protocol notes, section 3, "plan of watches"). Two blocking
// queries say that something changed somewhere: the list of names (any registration) and the checks of the datacenter (of which nothing
// is sent, by a filter that fits none). A sweep then finds what it was: it asks every service for its index alone, hundreds of reads in
// one pipeline that cost less than the list of all checks, and reads those whose index moved.
// Called by watch.ts. Must never read more than a few services at once, nor one of them more than once a second, nor sweep for more
// than half of the time.
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import type { Mailbox } from '../../src/kernel/mailbox.ts';
import { asSourceError, type Snapshot, type SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import type { Query } from './client.ts';
import { malformed } from './errors.ts';
import { Feed } from './feed.ts';
import { type Line, reading, refuseStale } from './line.ts';
import type { NamesFeed } from './names.ts';
import { BlockingQuery } from './query.ts';
import type { Memory, Truth } from './truth.ts';

const CHECKS = '/v1/health/state/any';
/** No check and no tag is called that: what it selects is empty, and its index is that of the whole. */
const NONE = 'weir-none';
const NO_CHECK = `CheckID == "${NONE}"`;
/** Without a word from the two queries (the address of a node is in neither). */
const SWEEP_MS = 60_000;
/** Everybody is read whole: a service id that went over to another name moves no index of the old name. */
const TRUTH_MS = 300_000;
/**
 * Two sweeps begin at least this far apart. Some that were called for may find nothing, since services with a query of their own change,
 * too; after each further one the part of the time that sweeps may take is halved, until they are as far apart as the most. News, or a
 * quiet while, ends that.
 */
const MIN_GAP_MS = 500;
const MAX_GAP_MS = 4_000;
const FREE_MISSES = 8;
const QUIET_MS = 15_000;
/** What one index costs, ms: 1,000 of them took 75 to 130 ms on a 1.14.11 beside us. */
const INDEX_MS = 0.1;
/** A sweep takes at most this part of the time, one that reads everybody whole less. */
const SWEEP_SHARE = 0.5;
const TRUTH_SHARE = 0.1;
const READS_AT_ONCE = 6;
const MEMBER_GAP_MS = 1_000;
/** A member hears at least this often that it was looked at. */
const CONTACT_MS = 45_000;
/** An index that stays another one than the list's own is believed to be just that. */
const MAX_TRIES = 3;

interface Member {
  readonly name: string;
  readonly path: string;
  readonly memory: Memory;
  readonly box: Mailbox<Snapshot | Unchanged>;
  readonly signal: AbortSignal;
  /** Shared with the other way of watching: whether the watch has shown anything yet. */
  readonly state: { first: boolean };
  readAt: number;
  toldAt: number;
  /** It was read less than a second ago and is to be read again. */
  waiting: boolean;
  /** Of the last list. */
  index: bigint | null;
  /** The index because of which it is read, and how often it was. */
  tried: { readonly index: bigint; readonly times: number } | null;
}

export class Firehose {
  readonly #line: Line;
  readonly #truth: Truth;
  readonly #names: NamesFeed;
  readonly #checks: Feed<bigint | null>;
  readonly #members = new Set<Member>();
  /** Members to be read, in the order in which they asked for it. */
  readonly #due = new Set<Member>();
  /** The same of members that changed: the others do not hold them up. */
  readonly #urgent = new Set<Member>();
  #reading = 0;
  #run: { readonly stop: AbortController; readonly leave: () => void } | null = null;
  #gapMs = MIN_GAP_MS;
  #sweepWanted = false;
  #wakeSweep: (() => void) | null = null;
  #idle: (() => void)[] = [];

  constructor(line: Line, truth: Truth, names: NamesFeed) {
    this.#line = line;
    this.#truth = truth;
    this.#names = names;
    this.#checks = new Feed((signal) => checks(line, () => this.pulseMs, signal));
  }

  /** How far apart the queries that say "something changed" may be, ms; null: nobody is watched here. */
  get pulseMs(): number | null {
    return this.#run === null ? null : this.#gapMs;
  }

  /** Ends quietly on abort and when a slot for a query of its own is free; throws when lost. */
  async *watch(
    name: string,
    memory: Memory,
    state: { first: boolean },
    signal: AbortSignal,
  ): AsyncGenerator<Snapshot | Unchanged, void, void> {
    const member: Member = {
      ...{ name, path: this.#truth.pathOf(name).path, memory, box: snapshotSlot(), signal, state },
      ...{ readAt: Number.NEGATIVE_INFINITY, toldAt: this.#line.clock.now(), waiting: false, index: null, tried: null },
    };
    const stopWaiting = this.#line.slots.whenFree(this.#line.config.maxWatches, () => member.box.end());
    this.#members.add(member);
    this.#start();
    this.#ask(member);
    try {
      yield* member.box.read(signal);
    } finally {
      stopWaiting();
      this.#members.delete(member);
      this.#due.delete(member);
      this.#urgent.delete(member);
      if (this.#members.size === 0) this.#stop();
    }
  }

  #start(): void {
    if (this.#run !== null) return;
    const stop = new AbortController();
    this.#sweepWanted = false;
    this.#gapMs = MIN_GAP_MS;
    const leaves: (() => void)[] = [];
    this.#run = { stop, leave: () => leaves.forEach((leave) => void leave()) };
    const fail = (error: SourceError): void => this.#fail(error);
    leaves.push(this.#checks.join({ item: this.#onMoved(), fail }));
    if (this.#line.config.peer === null) {
      const moved = this.#onMoved();
      leaves.push(this.#names.join({ item: ({ index }) => moved(index), fail }));
    }
    void this.#sweep(stop.signal);
  }

  #stop(): void {
    const run = this.#run;
    this.#run = null;
    run?.stop.abort(new Error('nobody watches by the firehose'));
    run?.leave();
  }

  #fail(error: SourceError): void {
    const members = [...this.#members];
    this.#members.clear();
    this.#due.clear();
    this.#urgent.clear();
    this.#stop();
    for (const { box } of members) box.fail(error);
  }

  /** The first word counts, too: it lacks what happened between a member's first read and itself. */
  #onMoved(): (index: bigint | null) => void {
    let before: bigint | null = null;
    return (index) => {
      if (index !== null && index === before) return;
      before = index;
      this.#sweepWanted = true;
      this.#wakeSweep?.();
    };
  }

  /** Never rejects. */
  async #sweep(signal: AbortSignal): Promise<void> {
    const { clock, random, count } = this.#line;
    const spread = (ms: number): number => ms * (0.9 + 0.2 * random());
    let nextAt = clock.now();
    let truthAt = clock.now() + spread(TRUTH_MS);
    let follows = false;
    let misses = 0;
    for (;;) {
      await this.#untilSweep(spread(SWEEP_MS), signal);
      await clock.sleep(Math.max(0, nextAt - clock.now()), signal).catch(() => undefined);
      if (signal.aborted) return;
      const began = clock.now();
      const called = this.#sweepWanted && !follows;
      if (began - nextAt > QUIET_MS) misses = 0;
      this.#sweepWanted = false;
      count('sweeps');
      const found = began >= truthAt ? null : await this.#probe(signal);
      if (found === null) {
        for (const member of this.#members) this.#ask(member);
        await this.#drained(signal);
        truthAt = clock.now() + spread(TRUTH_MS);
      }
      if (found !== 0) misses = 0;
      else if (called) misses++;
      const restMs = (this.#members.size * INDEX_MS * 2 ** Math.max(0, misses - FREE_MISSES)) / SWEEP_SHARE;
      this.#gapMs = Math.min(MAX_GAP_MS, Math.max(MIN_GAP_MS, restMs));
      // One change seldom comes alone: the next is not waited for until somebody tells of it.
      follows = found !== null && found > 0;
      this.#sweepWanted ||= follows;
      nextAt = began + Math.max(this.#gapMs, (clock.now() - began) / (found === null ? TRUTH_SHARE : SWEEP_SHARE));
    }
  }

  /** Has everybody read whose index moved; how many that are. Null: the indices cannot be asked for. Never rejects. */
  async #probe(signal: AbortSignal): Promise<number | null> {
    const { client, clock, config, count } = this.#line;
    const members = [...this.#members].filter(({ readAt }) => Number.isFinite(readAt));
    if (members.length === 0) return 0;
    const query: Query = { ...reading(this.#line), peer: config.peer, tag: NONE };
    const paths = members.map(({ path }) => path);
    const indexes = await client.indexes(paths, query, signal).catch(() => null);
    if (indexes === null) {
      if (signal.aborted) return 0;
      count('sweeps.failed');
      return null;
    }
    let found = 0;
    for (const [at, member] of members.entries()) {
      const index = indexes[at] ?? null;
      // A read that is still to come hears of it.
      if (!this.#members.has(member) || member.waiting) continue;
      if (index === null || moved(member, index)) {
        found++;
        this.#ask(member, true);
      } else if (clock.now() - member.toldAt >= CONTACT_MS) this.#tell(member, { kind: 'unchanged' });
    }
    return found;
  }

  async #untilSweep(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#sweepWanted || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.#line.clock.setTimer(ms, done);
      this.#wakeSweep = done;
      signal.addEventListener('abort', done, { once: true });
    });
    this.#wakeSweep = null;
  }

  #drained(signal: AbortSignal): Promise<void> {
    if (signal.aborted || (this.#reading === 0 && this.#due.size === 0 && this.#urgent.size === 0)) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        resolve();
      };
      signal.addEventListener('abort', done, { once: true });
      this.#idle.push(done);
    });
  }

  #ask(member: Member, urgent = false): void {
    const gap = member.readAt + MEMBER_GAP_MS - this.#line.clock.now();
    if (gap > 0) {
      void this.#askLater(member, gap, urgent);
      return;
    }
    (urgent ? this.#urgent : this.#due).add(member);
    this.#pump();
  }

  #pump(): void {
    for (const queue of [this.#urgent, this.#due]) {
      for (const next of queue) {
        if (this.#reading >= READS_AT_ONCE) return;
        this.#urgent.delete(next);
        this.#due.delete(next);
        this.#reading++;
        void this.#read(next);
      }
    }
  }

  /** Never rejects. */
  async #askLater(member: Member, gap: number, urgent: boolean): Promise<void> {
    if (member.waiting) return;
    member.waiting = true;
    await this.#line.clock.sleep(gap, member.signal).catch(() => undefined);
    member.waiting = false;
    if (this.#members.has(member) && !member.signal.aborted) this.#ask(member, urgent);
  }

  /** Never rejects. */
  async #read(member: Member): Promise<void> {
    const { clock } = this.#line;
    try {
      if (!this.#members.has(member)) return;
      member.readAt = clock.now();
      const { changed, snapshot, index } = await this.#truth.read(member.name, member.memory, false, member.signal);
      member.index = index;
      this.#tell(member, changed || member.state.first ? snapshot : { kind: 'unchanged' });
      member.state.first = false;
    } catch (thrown) {
      if (!member.signal.aborted) member.box.fail(asSourceError(thrown));
    } finally {
      this.#reading--;
      this.#pump();
      if (this.#due.size === 0 && this.#urgent.size === 0 && this.#reading === 0) for (const wake of this.#idle.splice(0)) wake();
    }
  }

  #tell(member: Member, item: Snapshot | Unchanged): void {
    member.toldAt = this.#line.clock.now();
    member.box.put(item);
  }
}

/** Whether the index is news: another than the list's; the list of a server that lags behind may need a second look. */
function moved(member: Member, index: bigint): boolean {
  if (index === member.index) {
    member.tried = null;
    return false;
  }
  const times = member.tried?.index === index ? member.tried.times : 0;
  if (times >= MAX_TRIES) return false;
  member.tried = { index, times: times + 1 };
  return true;
}

/** One blocking query over every check of the datacenter, none of which is sent; its index each time. */
async function* checks(line: Line, pulse: () => number | null, signal: AbortSignal): AsyncGenerator<bigint | null, void, void> {
  const query = new BlockingQuery(line, CHECKS, { filter: NO_CHECK }, { streamable: false, minGapMs: 0, pulse });
  const slot = line.slots.take();
  try {
    for (;;) {
      const answer = await query.next(signal);
      refuseStale(line, answer);
      if (!Array.isArray(answer.body)) throw malformed(line.client.origin, CHECKS, 'no list of checks');
      query.returned(true);
      yield answer.headers.index;
    }
  } finally {
    void query.held.then(() => slot.release());
  }
}
