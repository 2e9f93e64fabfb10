// Owns all watches and lists of a source over one connection: who watches what, its life, the way back from the HTTP fallback.
// Called by adapter.ts; must never retry: a loss fails every watch, and the supervisor opens them again.

import { Guard } from '../../src/adapter/guard.ts';
import { opened } from '../../src/adapter/opened.ts';
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import type { Random } from '../../src/kernel/random.ts';
import { Deadline, type TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { type AnswerDeps, blankNamespace, namesOf, revisionOf, snapshotOf } from './answers.ts';
import { Poll, type PollDeps } from './poll.ts';
import { type DiscoverResponse, TYPE_INSTANCE, TYPE_SERVICES, textOf } from './protocol.ts';
import { type Asker, Question } from './question.ts';
import type { Servers } from './servers.ts';

type WatchItem = Snapshot | Unchanged;

/** Above this many services each is read half as often (section 4, Cadence). */
const MANY_SERVICES = 2_000;
const MANY_POLL_MS = 2_000;
/** The list of names is no read of one service: half as often is enough. */
const LIST_FACTOR = 2;
/** Refusals of the server (5xx) in a row after which another server is tried. */
const MAX_FAULTS = 3;
/** On HTTP although there are gRPC servers: look for them again after this time. */
export const BACK_TO_GRPC_MS = 60_000;
/** Namespaces that every Polaris has: without services they are just empty. */
const SEEDED: ReadonlySet<string> = new Set(['', 'default', 'Polaris']);

export interface FeedDeps extends AnswerDeps {
  readonly servers: Servers;
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: TimerWheel;
  /** '' for all. */
  readonly namespace: string;
  readonly pollMs: number;
}

/** From the first watch to the loss of the connection, or to the end of the last watch. */
interface Life {
  readonly over: AbortController;
  /** When the first answer came; null before. */
  answeredAt: number | null;
}

export class Feed {
  readonly #deps: FeedDeps;
  readonly #polls: PollDeps;
  readonly #watched = new Map<ServiceId, Poll<WatchItem>>();
  readonly #back: Deadline;
  #list: Poll<ServiceList> | null = null;
  #asker: Asker | null = null;
  /** Stands for the life that is being opened or open; a new one for each. */
  #life: Life | null = null;
  #faults = 0;
  readonly #guard: Guard;
  #ended = false;

  constructor(deps: FeedDeps) {
    this.#deps = deps;
    const { clock, random, wheel } = deps;
    this.#polls = { clock, random, wheel, asker: () => this.#asker };
    this.#back = new Deadline(() => void this.#backToGrpc());
    this.#guard = new Guard(clock, deps.servers.size);
  }

  /** Ends every watch and list; a signal for each of them would cost more than the watch. */
  end(): void {
    this.#ended = true;
    for (const poll of [...this.#watched.values(), ...(this.#list === null ? [] : [this.#list])]) {
      for (const box of poll.boxes) box.end();
    }
  }

  /** Snapshots of one service until abort; throws SourceError on loss. */
  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<WatchItem> {
    return opened(() => this.#watch(key, signal));
  }

  #watch(key: ServiceKey, signal: AbortSignal): AsyncIterator<WatchItem, void, void> | null {
    if (signal.aborted || this.#ended) return null;
    const id = serviceId(key);
    const box = snapshotSlot();
    let poll = this.#watched.get(id);
    if (poll === undefined) {
      poll = this.#service(key);
      this.#watched.set(id, poll);
    }
    const joined = poll;
    joined.join(box);
    this.#begin(joined);
    return box.read(signal, () => {
      joined.boxes.delete(box);
      if (joined.boxes.size === 0) {
        joined.stop();
        if (this.#watched.get(id) === joined) this.#watched.delete(id);
      }
      this.#endIfIdle();
    });
  }

  /** The list of names until abort; throws SourceError on loss. */
  async *lists(signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    if (signal.aborted || this.#ended) return;
    const box = new Mailbox<ServiceList>();
    this.#list ??= this.#names();
    const list = this.#list;
    list.join(box);
    this.#begin(list);
    try {
      yield* box.read(signal);
    } finally {
      list.boxes.delete(box);
      if (list.boxes.size === 0) {
        list.stop();
        if (this.#list === list) this.#list = null;
      }
      this.#endIfIdle();
    }
  }

  /** What a watch of this service saw last, at most one interval ago; null when nobody watches it. */
  seen(key: ServiceKey): Snapshot | null {
    const last = this.#watched.get(serviceId(key))?.last ?? null;
    return last === null || last.kind === 'unchanged' ? null : last;
  }

  #service(key: ServiceKey): Poll<WatchItem> {
    const id = serviceId(key);
    const question = new Question(TYPE_INSTANCE, key.namespace, key.name);
    const poll: Poll<WatchItem> = new Poll<WatchItem>(
      question,
      {
        interpret: (answer, asker) => {
          const value = snapshotOf(question, answer, asker.server, this.#deps);
          return { value, revision: value.kind === 'present' ? value.sourceRevision : '' };
        },
        same: sameNothing,
        unchanged: { kind: 'unchanged' },
        interval: () => (this.#watched.size > MANY_SERVICES ? Math.max(MANY_POLL_MS, this.#deps.pollMs) : this.#deps.pollMs),
        failed: (error) => {
          if (this.#watched.get(id) === poll) this.#watched.delete(id);
          this.#onFault(error);
        },
        answered: () => this.#onAnswered(),
      },
      this.#polls,
    );
    return poll;
  }

  #names(): Poll<ServiceList> {
    const { namespace } = this.#deps;
    const question = new Question(TYPE_SERVICES, namespace, '');
    const list: Poll<ServiceList> = new Poll<ServiceList>(
      question,
      {
        interpret: (answer, asker) => {
          const { list: value, blank } = namesOf(question, answer, asker.server, this.#deps);
          if (blank && !SEEDED.has(namespace)) return this.#blank(asker);
          return { value, revision: revisionOf(answer) };
        },
        same: () => false,
        unchanged: null,
        interval: () => LIST_FACTOR * this.#deps.pollMs,
        failed: (error) => {
          if (this.#list === list) this.#list = null;
          this.#onFault(error);
        },
        answered: () => this.#onAnswered(),
      },
      this.#polls,
    );
    return list;
  }

  /** A namespace that shows nothing is most likely misspelt: names those that have services. Always rejects. */
  #blank(asker: Asker): Promise<never> {
    const { namespace } = this.#deps;
    return new Promise((_, reject) => {
      asker.ask(new Question(TYPE_SERVICES, '', ''), (result) => {
        const others = result.kind === 'answer' ? namespacesOf(result.answer) : [];
        reject(blankNamespace(namespace, asker.server, others));
      });
    });
  }

  #begin(poll: { ask(): void; fail(error: SourceError): void; readonly last: unknown }): void {
    if (this.#life !== null) {
      if (poll.last === null) poll.ask();
      return;
    }
    const early = this.#guard.tooEarly();
    if (early === null) void this.#open();
    else poll.fail(early);
  }

  async #open(): Promise<void> {
    const life: Life = { over: new AbortController(), answeredAt: null };
    this.#life = life;
    this.#faults = 0;
    const { servers, wheel } = this.#deps;
    try {
      const asker = await servers.open((error) => this.#onLost(life, error));
      if (this.#life !== life) return asker.close(idle());
      this.#asker = asker;
      if (servers.onFallback) {
        this.#deps.count('fallback.http');
        wheel.arm(this.#back, BACK_TO_GRPC_MS);
      }
      this.#askAll();
    } catch (thrown) {
      this.#onLost(life, asSourceError(thrown));
    }
  }

  #askAll(): void {
    this.#list?.ask();
    for (const poll of this.#watched.values()) poll.ask();
  }

  /** The connection is gone: whoever still watches is told. */
  #onLost(life: Life, error: SourceError): void {
    if (this.#life !== life) return;
    this.#leave(life);
    this.#guard.failed(error, life.answeredAt === null ? 0 : this.#deps.clock.now() - life.answeredAt);
    const polls = [...this.#watched.values()];
    this.#watched.clear();
    for (const poll of polls) poll.fail(error);
    this.#list?.fail(error);
  }

  #onAnswered(): void {
    this.#faults = 0;
    const life = this.#life;
    if (life !== null) life.answeredAt ??= this.#deps.clock.now();
  }

  /** An answer was bad. Three faults of the server in a row: another server may do better. */
  #onFault(error: SourceError): void {
    const life = this.#life;
    const asker = this.#asker;
    if (life === null || asker === null || error.causeKind !== 'lost' || error.retryAfterMs !== undefined) return;
    if (++this.#faults < MAX_FAULTS) return;
    this.#deps.servers.lost(asker.server);
    this.#onLost(life, error);
  }

  #endIfIdle(): void {
    const life = this.#life;
    if (life !== null && this.#watched.size === 0 && this.#list === null) this.#leave(life);
  }

  #leave(life: Life): void {
    this.#deps.wheel.disarm(this.#back);
    const asker = this.#asker;
    this.#life = null;
    this.#asker = null;
    life.over.abort(idle());
    asker?.close(idle());
  }

  async #backToGrpc(): Promise<void> {
    const life = this.#life;
    if (life === null) return;
    const { servers, wheel, namespace } = this.#deps;
    const question = new Question(TYPE_SERVICES, namespace, '');
    try {
      const asker = await servers.backToGrpc(question, (error) => this.#onLost(life, error), life.over.signal);
      if (this.#life !== life) return asker?.close(idle());
      if (asker === null) return wheel.arm(this.#back, BACK_TO_GRPC_MS);
      this.#asker?.drain();
      this.#asker = asker;
    } catch {
      // Closed, or TLS files that cannot be read now: HTTP goes on.
      if (this.#life === life) wheel.arm(this.#back, BACK_TO_GRPC_MS);
    }
  }
}

/** Older servers give an empty list another revision each time: empty → empty is no change. So is absent → absent. */
function sameNothing(before: WatchItem, now: WatchItem): boolean {
  if (before.kind === 'absent') return now.kind === 'absent' && before.epoch === now.epoch;
  if (before.kind !== 'present' || now.kind !== 'present' || before.epoch !== now.epoch) return false;
  return before.instances.length + before.rejected.length + now.instances.length + now.rejected.length === 0;
}

function namespacesOf(answer: DiscoverResponse): string[] {
  return [...new Set((answer.services ?? []).map(({ namespace }) => textOf(namespace) ?? ''))]
    .filter((name) => name !== '')
    .sort();
}

function idle(): SourceError {
  return new SourceError('lost', 'polaris: nobody watches any more');
}
