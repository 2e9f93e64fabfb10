// Owns the watch of all services that have no blocking query of their own (protocol notes, section 3, "plan of watches"): the checks of
// the whole datacenter and the list of names say what to read again, and a sweep finds what neither shows. Called by watch.ts.
// Must never read more than a few services at once, nor one of them more than once a second.
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import type { Mailbox } from '../../src/kernel/mailbox.ts';
import { asSourceError, type Snapshot, type SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { malformed } from './errors.ts';
import { Feed } from './feed.ts';
import { type Line, refuseStale } from './line.ts';
import type { NamesFeed } from './names.ts';
import { decodeCheck } from './native.ts';
import { BlockingQuery } from './query.ts';
import type { Memory, Truth } from './truth.ts';

const PATH = '/v1/health/state/any';
const SWEEP_MS = 60_000;
/** Two sweeps begin at least this far apart, and one takes at most this part of the time. */
const SWEEP_GAP_MS = 5_000;
const SWEEP_SHARE = 0.1;
const READS_AT_ONCE = 6;
/** After an answer the query rests this many times as long as the answer took to digest. */
const REST_FACTOR = 20;
const MEMBER_GAP_MS = 1_000;

interface Member {
  readonly name: string;
  readonly memory: Memory;
  readonly box: Mailbox<Snapshot | Unchanged>;
  readonly signal: AbortSignal;
  /** Shared with the other way of watching: whether the watch has shown anything yet. */
  readonly state: { first: boolean };
  readAt: number;
  /** It was read less than a second ago and is to be read again. */
  waiting: boolean;
}

/** Digests of checks: by service name, and by node for the checks of a node itself. */
interface CheckDigests {
  readonly services: ReadonlyMap<string, string>;
  readonly nodes: ReadonlyMap<string, string>;
}

export class Firehose {
  readonly #line: Line;
  readonly #truth: Truth;
  readonly #names: NamesFeed;
  readonly #checks: Feed<CheckDigests>;
  readonly #members = new Set<Member>();
  /** Members to be read, in the order in which they asked for it. */
  readonly #due = new Set<Member>();
  /** The same of members that a check names: a sweep does not hold them up. */
  readonly #urgent = new Set<Member>();
  #reading = 0;
  #before: CheckDigests | null = null;
  #run: { readonly stop: AbortController; readonly leave: () => void } | null = null;
  #sweepAt = 0;
  /** Whether the list of names has been heard; the first item only says how things are. */
  #namesHeard = false;
  #sweepWanted = false;
  #wakeSweep: (() => void) | null = null;
  #idle: (() => void)[] = [];

  constructor(line: Line, truth: Truth, names: NamesFeed) {
    this.#line = line;
    this.#truth = truth;
    this.#names = names;
    this.#checks = new Feed((signal) => checks(line, signal));
  }

  /** Ends quietly on abort and when a slot for a query of its own is free; throws when lost. */
  async *watch(
    name: string,
    memory: Memory,
    state: { first: boolean },
    signal: AbortSignal,
  ): AsyncGenerator<Snapshot | Unchanged, void, void> {
    const member: Member = {
      name,
      memory,
      box: snapshotSlot(),
      signal,
      state,
      readAt: Number.NEGATIVE_INFINITY,
      waiting: false,
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
    this.#namesHeard = false;
    this.#sweepWanted = false;
    const fail = (error: SourceError): void => this.#fail(error);
    const leaveChecks = this.#checks.join({ item: (now) => this.#onChecks(now), fail });
    const leaveNames = this.#line.config.peer === null ? this.#names.join({ item: () => this.#onNames(), fail }) : () => {};
    this.#run = {
      stop,
      leave: () => {
        leaveChecks();
        leaveNames();
      },
    };
    void this.#sweep(stop.signal);
  }

  #stop(): void {
    const run = this.#run;
    this.#run = null;
    this.#before = null;
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

  #onChecks(now: CheckDigests): void {
    const before = this.#before;
    this.#before = now;
    if (before === null) return this.#askKnown();
    const nodes = changedKeys(before.nodes, now.nodes);
    const services = changedKeys(before.services, now.services);
    for (const member of this.#members) {
      const touched = services.has(member.name) || [...member.memory.nodes].some((node) => nodes.has(node));
      if (touched) this.#ask(member, true);
    }
  }

  #onNames(): void {
    if (this.#namesHeard) {
      this.#sweepWanted = true;
      this.#wakeSweep?.();
    } else this.#askKnown();
    this.#namesHeard = true;
  }

  /** What is told from now on lacks what happened between a member's first read and this first word. */
  #askKnown(): void {
    for (const member of this.#members) if (Number.isFinite(member.readAt)) this.#ask(member);
  }

  /** Reads everybody again: every minute, and soon after the names' query returned. Never rejects. */
  async #sweep(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#line;
    this.#sweepAt = clock.now();
    for (;;) {
      await this.#untilSweep(SWEEP_MS * (0.9 + 0.2 * random()), signal);
      await clock.sleep(Math.max(0, this.#sweepAt - clock.now()), signal).catch(() => undefined);
      if (signal.aborted) return;
      this.#sweepWanted = false;
      const began = clock.now();
      for (const member of this.#members) this.#ask(member);
      this.#line.count('sweeps');
      await this.#drained(signal);
      this.#sweepAt = began + Math.max(SWEEP_GAP_MS, (clock.now() - began) / SWEEP_SHARE);
    }
  }

  async #untilSweep(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#sweepWanted || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = this.#line.clock.setTimer(ms, resolve);
      this.#wakeSweep = () => {
        timer.cancel();
        resolve();
      };
      signal.addEventListener('abort', this.#wakeSweep, { once: true });
    });
    this.#wakeSweep = null;
  }

  #drained(signal: AbortSignal): Promise<void> {
    if (signal.aborted || (this.#reading === 0 && this.#due.size === 0 && this.#urgent.size === 0)) return Promise.resolve();
    return new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true });
      this.#idle.push(resolve);
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
      const { changed, snapshot } = await this.#truth.read(member.name, member.memory, false, member.signal);
      member.box.put(changed || member.state.first ? snapshot : { kind: 'unchanged' });
      member.state.first = false;
    } catch (thrown) {
      if (!member.signal.aborted) member.box.fail(asSourceError(thrown));
    } finally {
      this.#reading--;
      this.#pump();
      if (this.#due.size === 0 && this.#urgent.size === 0 && this.#reading === 0) for (const wake of this.#idle.splice(0)) wake();
    }
  }
}

/** One blocking query over every check of the datacenter. */
async function* checks(line: Line, signal: AbortSignal): AsyncGenerator<CheckDigests, void, void> {
  const query = new BlockingQuery(line, PATH, {}, { streamable: false, minGapMs: 0 });
  const slot = line.slots.take();
  try {
    for (;;) {
      const answer = await query.next(signal);
      refuseStale(line, answer);
      const began = line.clock.now();
      const digests = digestChecks(answer.body);
      if (digests === null) throw malformed(line.client.origin, PATH, 'no list of checks');
      const took = line.clock.now() - began;
      query.returned(true);
      yield digests;
      if (took > 0) await line.clock.sleep(took * REST_FACTOR, signal);
    }
  } finally {
    void query.held.then(() => slot.release());
  }
}

/** The whole set of (node, check, status, index): a removed check moves nobody's index. Null for what is no list. */
export function digestChecks(body: unknown): CheckDigests | null {
  if (!Array.isArray(body)) return null;
  const services = new Map<string, string[]>();
  const nodes = new Map<string, string[]>();
  for (const value of body) {
    const check = decodeCheck(value);
    if (check === null) continue;
    const [map, key] = check.serviceId === '' ? [nodes, check.node] : [services, check.serviceName];
    const list = map.get(key) ?? [];
    list.push(JSON.stringify([check.node, check.checkId, check.status, check.modifyIndex]));
    map.set(key, list);
  }
  const joined = (map: Map<string, string[]>): Map<string, string> =>
    new Map([...map].map(([key, list]) => [key, list.sort().join()]));
  return { services: joined(services), nodes: joined(nodes) };
}

/** Keys whose value differs, or that only one of the two has. */
export function changedKeys(before: ReadonlyMap<string, string>, now: ReadonlyMap<string, string>): Set<string> {
  const changed = new Set<string>();
  for (const [key, value] of now) if (before.get(key) !== value) changed.add(key);
  for (const key of before.keys()) if (!now.has(key)) changed.add(key);
  return changed;
}
