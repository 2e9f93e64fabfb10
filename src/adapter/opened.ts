// Owns opening a stream of an adapter at its first `next`, with what is thrown there given to that `next`. Called by adapters whose watches
// read from a mailbox; must never hold more than the stream itself: there is one for each of ten thousand watches.

type Stream<T> = AsyncIterator<T, void, void>;

/**
 * As an async generator that does `yield* await open()`, at a fraction of its memory. `open` is called once, at the first `next`, never after
 * a `return`; null is a stream without items.
 */
export function opened<T>(open: () => Stream<T> | null | Promise<Stream<T> | null>): AsyncIterableIterator<T, void, void> {
  return new Opened(open);
}

const DONE = { done: true, value: undefined } as const;

class Opened<T> implements AsyncIterableIterator<T, void, void> {
  #open: (() => Stream<T> | null | Promise<Stream<T> | null>) | null;
  /** What it opened, or the opening of it; null before, and after the end. */
  #stream: Stream<T> | Promise<Stream<T> | null> | null = null;

  constructor(open: () => Stream<T> | null | Promise<Stream<T> | null>) {
    this.#open = open;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T, void>> {
    try {
      const open = this.#open;
      this.#open = null;
      if (open !== null) this.#stream = open();
    } catch (thrown) {
      return Promise.reject(thrown);
    }
    const stream = this.#stream;
    if (stream === null) return Promise.resolve(DONE);
    return stream instanceof Promise ? this.#nextOf(stream) : stream.next();
  }

  /** Ends what is open, also what is only being opened. */
  async return(): Promise<IteratorResult<T, void>> {
    const stream = this.#stream;
    this.#open = null;
    this.#stream = null;
    // Whoever waits for the opening is told of its failure.
    const opened = stream instanceof Promise ? await stream.catch(() => null) : stream;
    await opened?.return?.();
    return DONE;
  }

  async #nextOf(opening: Promise<Stream<T> | null>): Promise<IteratorResult<T, void>> {
    try {
      const stream = await opening;
      // A `return` came meanwhile: it ends what was opened.
      if (this.#stream === null) return DONE;
      this.#stream = stream;
      return stream === null ? DONE : await stream.next();
    } catch (thrown) {
      if (this.#stream === opening) this.#stream = null;
      throw thrown;
    }
  }
}
