// Owns one thing that is read again and again (a service, or the list of names) for all who watch it: when it is asked, what is new,
// who is told. Called by feed.ts; must never open or choose a connection.
import type { Clock } from '../../src/kernel/clock.ts';
import type { Mailbox } from '../../src/kernel/mailbox.ts';
import type { Random } from '../../src/kernel/random.ts';
import { Deadline, type TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import type { DiscoverResponse } from './protocol.ts';
import type { Asker, Question, Result } from './question.ts';

/** Watchers of a quiet service hear at most this often that nothing changed, ms. */
const UNCHANGED_MS = 10_000;
/** Each wait is shorter than the interval by up to this part, so that polls spread and a change is never seen later than one interval. */
const JITTER = 0.1;

export interface PollRules<T> {
  /** What an answer means; throws SourceError for what is no fact. `revision` goes with the next question. */
  interpret(answer: DiscoverResponse, asker: Asker): { value: T; revision: string } | Promise<{ value: T; revision: string }>;
  /** No change worth telling although the revision is another one. */
  same(before: T, now: T): boolean;
  /** Told to watchers from time to time while nothing changes; null: nothing is. */
  readonly unchanged: T | null;
  /** Current time between two questions, ms. */
  interval(): number;
  /** The poll is over: its watchers were told why. `fault`: an answer, not the connection, was bad. */
  failed(error: SourceError): void;
  /** An answer came that was a fact. */
  answered(): void;
}

export interface PollDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: TimerWheel;
  /** Who carries the next question. */
  asker(): Asker | null;
}

export class Poll<T> {
  readonly question: Question;
  readonly boxes = new Set<Mailbox<T>>();
  readonly #rules: PollRules<T>;
  readonly #deps: PollDeps;
  readonly #due: Deadline;
  #last: { readonly value: T } | null = null;
  #askedAt = 0;
  #toldAt = 0;
  #asking = false;
  #over = false;

  constructor(question: Question, rules: PollRules<T>, deps: PollDeps) {
    this.question = question;
    this.#rules = rules;
    this.#deps = deps;
    this.#due = new Deadline(() => this.ask());
  }

  /** What was seen last; null before the first answer. */
  get last(): T | null {
    return this.#last?.value ?? null;
  }

  join(box: Mailbox<T>): void {
    this.boxes.add(box);
    if (this.#last !== null) box.put(this.#last.value);
  }

  /** Asks now, unless an answer is due already. */
  ask(): void {
    const asker = this.#deps.asker();
    if (this.#over || this.#asking || asker === null) return;
    this.#deps.wheel.disarm(this.#due);
    this.#asking = true;
    this.#askedAt = this.#deps.clock.now();
    asker.ask(this.question, (result) => {
      this.#onResult(result, asker);
    });
  }

  /** Ends without a word to anybody. */
  stop(): void {
    this.#over = true;
    this.#deps.wheel.disarm(this.#due);
  }

  /** Ends; every watcher gets the error. */
  fail(error: SourceError): void {
    if (this.#over) return;
    this.stop();
    for (const box of this.boxes) box.fail(error);
    this.#rules.failed(error);
  }

  #onResult(result: Result, asker: Asker): void {
    this.#asking = false;
    if (this.#over) return;
    if (result.kind === 'failed') this.fail(result.error);
    else if (result.kind === 'same') this.#onSame(asker);
    else this.#onAnswer(result.answer, asker);
  }

  #onAnswer(answer: DiscoverResponse, asker: Asker): void {
    try {
      const meaning = this.#rules.interpret(answer, asker);
      if (!(meaning instanceof Promise)) {
        this.#onValue(meaning.value, meaning.revision);
        return;
      }
      // No new question before this one is understood.
      this.#asking = true;
      meaning.then(
        ({ value, revision }) => {
          this.#asking = false;
          if (!this.#over) this.#onValue(value, revision);
        },
        (thrown: unknown) => this.fail(asSourceError(thrown)),
      );
    } catch (thrown) {
      this.fail(asSourceError(thrown));
    }
  }

  #onSame(asker: Asker): void {
    if (this.#last === null) {
      this.fail(new SourceError('malformed', `polaris ${asker.server}: ${this.question.about}: "no change" to a first question`));
      return;
    }
    this.#quiet();
    this.#next();
  }

  #onValue(value: T, revision: string): void {
    const before = this.#last;
    this.question.revision = revision;
    this.#last = { value };
    if (before !== null && this.#rules.same(before.value, value)) this.#quiet();
    else {
      this.#toldAt = this.#deps.clock.now();
      for (const box of this.boxes) box.put(value);
      this.#rules.answered();
    }
    this.#next(before === null);
  }

  #quiet(): void {
    this.#rules.answered();
    const now = this.#deps.clock.now();
    if (this.#rules.unchanged === null || now - this.#toldAt < UNCHANGED_MS) return;
    this.#toldAt = now;
    for (const box of this.boxes) box.put(this.#rules.unchanged);
  }

  /** The first wait is anywhere in the interval: a start with thousands of services must not poll them all in one moment for ever. */
  #next(first = false): void {
    if (this.#over) return;
    const { clock, random, wheel } = this.#deps;
    const interval = this.#rules.interval();
    const wait = first ? interval * random() : interval * (1 - JITTER * random());
    wheel.arm(this.#due, Math.max(0, this.#askedAt + wait - clock.now()));
  }
}
