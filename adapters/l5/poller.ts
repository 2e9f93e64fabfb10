// Owns the one polling loop of a source: a connection, a round every interval for all that is followed, a short round at once for what
// is new. Called by adapter.ts; runs only while somebody follows. Must never retry: the first failure ends it and is told to every
// follower, and the supervisor opens again.

import { Guard } from '../../src/adapter/guard.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { asSourceError, type SourceError } from '../../src/model/snapshot.ts';
import type { Link } from './link.ts';
import { isAlias, type SidState } from './mapping.ts';
import { NameBook } from './names.ts';
import { readSids, resolveNames } from './questions.ts';
import type { Servers } from './servers.ts';
import { compareSids, type Sid, type SidText, sidText } from './sid.ts';

/** Somebody who is told after every round that concerns him. Calls are synchronous and must not throw. */
export interface Follower {
  /** A SID, an L5 name, or null: what is in scope. */
  readonly wants: Sid | string | null;
  /** The state of the SID; null: no server knows the name (or the follower wants the scope: `Poller.scope` has it). */
  answer(state: SidState | null): void;
  /** The end of it: he is not followed up any more. */
  failed(error: SourceError): void;
}

export interface PollerDeps {
  readonly clock: Clock;
  readonly servers: Servers;
  readonly sids: readonly Sid[];
  readonly names: readonly string[];
  readonly pollMs: number;
  readonly batch: number;
  readonly count: (what: string, by?: number) => void;
  /** Told every state that was read. */
  readonly onState: (state: SidState) => void;
}

interface Run {
  readonly abort: AbortController;
  link: Link | null;
  wake: () => void;
}

export class Poller {
  readonly #deps: PollerDeps;
  readonly #guard: Guard;
  readonly #book = new NameBook();
  readonly #followers = new Set<Follower>();
  /** Those without an answer so far. */
  readonly #fresh = new Set<Follower>();
  /** L5 names that answers gave for SIDs in scope. */
  readonly #learnt = new Map<SidText, string>();
  #batch: number;
  #run: Run | null = null;

  constructor(deps: PollerDeps) {
    this.#deps = deps;
    this.#batch = deps.batch;
    this.#guard = new Guard(deps.clock);
  }

  /** Configured SIDs and those of configured names, and the names that lead to them. */
  scope(): { readonly sids: readonly Sid[]; readonly aliases: readonly string[] } {
    const sids = new Map(this.#deps.sids.map((sid) => [sidText(sid), sid]));
    const aliases = new Set<string>();
    for (const name of this.#deps.names) {
      const sid = this.#book.sidOf(name);
      if (sid === null) continue;
      sids.set(sidText(sid), sid);
      aliases.add(name);
    }
    for (const id of sids.keys()) {
      const name = this.#learnt.get(id);
      if (name !== undefined) aliases.add(name);
    }
    return { sids: [...sids.values()].sort(compareSids), aliases: [...aliases].sort() };
  }

  /** Told from the next round on, which comes at once. The answer ends it. */
  follow(follower: Follower): () => void {
    const early = this.#run === null ? this.#guard.tooEarly() : null;
    if (early !== null) {
      follower.failed(early);
      return () => {};
    }
    this.#followers.add(follower);
    this.#fresh.add(follower);
    if (this.#run === null) this.#start();
    else this.#run.wake();
    return () => this.#unfollow(follower);
  }

  #unfollow(follower: Follower): void {
    this.#fresh.delete(follower);
    if (!this.#followers.delete(follower) || this.#followers.size > 0) return;
    const run = this.#run;
    this.#run = null;
    run?.abort.abort(new Error('nobody follows any more'));
    run?.link?.close();
  }

  #start(): void {
    const run: Run = { abort: new AbortController(), link: null, wake: () => {} };
    this.#run = run;
    this.#loop(run).catch((thrown) => this.#failed(run, asSourceError(thrown)));
  }

  async #loop(run: Run): Promise<never> {
    const { clock, servers, pollMs } = this.#deps;
    const { signal } = run.abort;
    const link = await servers.connect('preferred', signal);
    if (signal.aborted) link.close();
    signal.throwIfAborted();
    run.link = link;
    link.onLost = (error) => this.#failed(run, error);
    this.#book.forgetAge();
    for (let nextAt = clock.now(); ; ) {
      const now = clock.now();
      const whole = now >= nextAt;
      if (whole) nextAt = now + pollMs;
      await this.#round(link, whole, signal);
      await this.#pause(run, nextAt);
    }
  }

  /** Until the next whole round is due or somebody new follows. */
  async #pause(run: Run, until: number): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = run.abort;
    if (this.#fresh.size === 0) {
      await new Promise<void>((resolve) => {
        const end = (): void => {
          timer.cancel();
          signal.removeEventListener('abort', end);
          run.wake = () => {};
          resolve();
        };
        const timer = clock.setTimer(until - clock.now(), end);
        signal.addEventListener('abort', end, { once: true });
        run.wake = end;
      });
    }
    // Watches open in crowds: one request for all of them.
    await new Promise<void>((resolve) => setImmediate(resolve));
    signal.throwIfAborted();
  }

  async #round(link: Link, whole: boolean, signal: AbortSignal): Promise<void> {
    const { servers, count, onState } = this.#deps;
    const followers = [...(whole ? this.#followers : this.#fresh)];
    await this.#resolve(link, followers, whole, signal);
    const wanted = new Map<SidText, Sid>();
    for (const follower of followers) {
      const sid = this.#sidOf(follower);
      if (sid !== null) wanted.set(sidText(sid), sid);
    }
    const read = await readSids(link, [...wanted.values()], this.#batch, signal);
    servers.learn(read.servers, link.server);
    if (read.unasked > 0) count('entries.unasked', read.unasked);
    for (const state of read.states.values()) onState(state);
    if (whole) this.#learnNames(read.states);
    for (const follower of followers) {
      // He may have left meanwhile.
      if (!this.#followers.has(follower)) continue;
      this.#fresh.delete(follower);
      const sid = this.#sidOf(follower);
      follower.answer(sid === null ? null : (read.states.get(sidText(sid)) ?? null));
    }
  }

  async #resolve(link: Link, followers: readonly Follower[], whole: boolean, signal: AbortSignal): Promise<void> {
    const names = new Set(followers.flatMap(({ wants }) => (typeof wants === 'string' ? [wants] : [])));
    if (whole || followers.some(({ wants }) => wants === null)) for (const name of this.#deps.names) names.add(name);
    const ask = whole ? this.#book.due(names, this.#deps.clock.now()) : this.#book.unknown(names);
    if (ask.length > 0) this.#book.learn(await resolveNames(link, ask, signal));
    if (whole) this.#book.retain(this.#namesNow());
  }

  #namesNow(): ReadonlySet<string> {
    const names = new Set(this.#deps.names);
    for (const { wants } of this.#followers) if (typeof wants === 'string') names.add(wants);
    return names;
  }

  #sidOf({ wants }: Follower): Sid | null {
    return typeof wants === 'string' ? this.#book.sidOf(wants) : wants;
  }

  #learnNames(states: ReadonlyMap<SidText, SidState>): void {
    const inScope = new Set(this.scope().sids.map(sidText));
    for (const id of this.#learnt.keys()) if (!inScope.has(id)) this.#learnt.delete(id);
    for (const [id, { name }] of states) if (inScope.has(id) && isAlias(name)) this.#learnt.set(id, name);
  }

  #failed(run: Run, error: SourceError): void {
    if (this.#run !== run) return;
    this.#run = null;
    run.abort.abort(error);
    const { clock, servers } = this.#deps;
    const { link } = run;
    this.#guard.failed(error, link === null ? 0 : clock.now() - link.openedAt);
    if (link !== null) {
      servers.failed(link);
      link.close();
    }
    // One answer was over our limit: fewer SIDs at a time may fit.
    if (error.causeKind === 'limit' && this.#batch > 1) this.#batch = Math.ceil(this.#batch / 8);
    const followers = [...this.#followers];
    this.#followers.clear();
    this.#fresh.clear();
    for (const follower of followers) follower.failed(error);
  }
}
