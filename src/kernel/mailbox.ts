// Owns the one-slot mailbox: the newest value wins, a slow reader skips to the latest, nothing queues.
// Called by adapters (bridging callbacks) and the supervisor; holds at most one value.

/** One writer side, one reader side. `merge` decides what stays in the slot when a value was not read yet (default: the new one). */
export class Mailbox<T> {
  readonly #merge: (waiting: T, incoming: T) => T;
  #slot: { value: T } | null = null;
  #failure: { thrown: unknown } | null = null;
  #ended = false;
  #reader: Reader<T> | null = null;

  constructor(merge: (waiting: T, incoming: T) => T = (_waiting, incoming) => incoming) {
    this.#merge = merge;
  }

  /** Puts a value; never waits. Ignored after `fail` or `end`. */
  put(value: T): void {
    if (this.#ended || this.#failure !== null) return;
    this.#slot = { value: this.#slot === null ? value : this.#merge(this.#slot.value, value) };
    this.#reader?.wake();
  }

  /** The reader gets what is in the slot, then this error. */
  fail(thrown: unknown): void {
    if (this.#ended || this.#failure !== null) return;
    this.#failure = { thrown };
    this.#reader?.wake();
  }

  /** The reader gets what is in the slot, then the end. */
  end(): void {
    this.#ended = true;
    this.#reader?.wake();
  }

  /**
   * Reads until end, failure (thrown) or abort of the signal (a quiet end); for one reader at a time. `leave` is called once, when
   * nobody reads on. No generator: ten thousand watches wait here for most of their time, and the frames of one are most of a watch.
   */
  read(signal: AbortSignal, leave: () => void = nothing): AsyncIterableIterator<T, void, void> {
    this.#reader = new Reader<T>(this, signal, leave);
    return this.#reader;
  }

  /** For its reader: what can be read now; null: nothing yet. Throws the failure. */
  take(): IteratorResult<T, void> | null {
    const taken = this.#slot;
    this.#slot = null;
    if (taken !== null) return { done: false, value: taken.value };
    if (this.#failure !== null) throw this.#failure.thrown;
    return this.#ended ? DONE : null;
  }
}

const nothing = (): void => {};
const DONE = { done: true, value: undefined } as const;

/** One reading of a mailbox. A `return` ends it at once, also while a `next` waits. */
class Reader<T> implements AsyncIterableIterator<T, void, void> {
  readonly #box: Mailbox<T>;
  readonly #signal: AbortSignal;
  readonly #leave: () => void;
  /** The `next` that waits, and what answers it. */
  #pending: Promise<IteratorResult<T, void>> | null = null;
  #answer: ((result: IteratorResult<T, void> | Promise<never>) => void) | null = null;
  #onAbort: (() => void) | null = null;
  #waking = false;
  #over = false;

  constructor(box: Mailbox<T>, signal: AbortSignal, leave: () => void) {
    this.#box = box;
    this.#signal = signal;
    this.#leave = leave;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T, void>> {
    if (this.#pending !== null) {
      const again = (): Promise<IteratorResult<T, void>> => this.next();
      return this.#pending.then(again, again);
    }
    try {
      const taken = this.#take();
      if (taken !== null) return Promise.resolve(taken);
    } catch (thrown) {
      return Promise.reject(thrown);
    }
    if (this.#onAbort === null) {
      this.#onAbort = () => this.wake();
      this.#signal.addEventListener('abort', this.#onAbort, { once: true });
    }
    const { promise, resolve } = Promise.withResolvers<IteratorResult<T, void>>();
    this.#pending = promise;
    this.#answer = resolve;
    return promise;
  }

  return(): Promise<IteratorResult<T, void>> {
    this.#finish();
    this.#settle(DONE);
    return Promise.resolve(DONE);
  }

  /** Something may be there now. It is taken a moment later: what comes in one turn is one item. */
  wake(): void {
    if (this.#answer === null || this.#waking) return;
    this.#waking = true;
    queueMicrotask(() => {
      this.#waking = false;
      if (this.#answer === null) return;
      try {
        const taken = this.#take();
        if (taken !== null) this.#settle(taken);
      } catch (thrown) {
        this.#settle(Promise.reject(thrown));
      }
    });
  }

  #take(): IteratorResult<T, void> | null {
    if (this.#over) return DONE;
    try {
      const taken = this.#signal.aborted ? DONE : this.#box.take();
      if (taken?.done === true) this.#finish();
      return taken;
    } catch (thrown) {
      this.#finish();
      throw thrown;
    }
  }

  #settle(result: IteratorResult<T, void> | Promise<never>): void {
    const answer = this.#answer;
    this.#answer = null;
    this.#pending = null;
    answer?.(result);
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#onAbort !== null) this.#signal.removeEventListener('abort', this.#onAbort);
    this.#leave();
  }
}
