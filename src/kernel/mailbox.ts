// Owns the one-slot mailbox: the newest value wins, a slow reader skips to the latest, nothing queues.
// Called by adapters (bridging callbacks) and the supervisor; holds at most one value.

/** One writer side, one reader side. `merge` decides what stays in the slot when a value was not read yet (default: the new one). */
export class Mailbox<T> {
  readonly #merge: (waiting: T, incoming: T) => T;
  #slot: { value: T } | null = null;
  #failure: { thrown: unknown } | null = null;
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(merge: (waiting: T, incoming: T) => T = (_waiting, incoming) => incoming) {
    this.#merge = merge;
  }

  /** Puts a value; never waits. Ignored after `fail` or `end`. */
  put(value: T): void {
    if (this.#ended || this.#failure !== null) return;
    this.#slot = { value: this.#slot === null ? value : this.#merge(this.#slot.value, value) };
    this.#wake?.();
  }

  /** The reader gets what is in the slot, then this error. */
  fail(thrown: unknown): void {
    if (this.#ended || this.#failure !== null) return;
    this.#failure = { thrown };
    this.#wake?.();
  }

  /** The reader gets what is in the slot, then the end. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** Reads until end, failure (thrown) or abort of the signal (a quiet end). */
  async *read(signal: AbortSignal): AsyncGenerator<T, void, void> {
    const onAbort = (): void => this.#wake?.();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const taken = this.#slot;
        if (taken !== null) {
          this.#slot = null;
          yield taken.value;
          continue;
        }
        if (this.#failure !== null) throw this.#failure.thrown;
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = null;
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }
}
