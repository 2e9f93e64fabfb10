// Owns a loop that many listen to: it runs while somebody does, and tells all of them of each item and of its end.
// Called by names.ts and firehose.ts; must never outlive its last listener.
import { asSourceError, type SourceError } from '../../src/model/snapshot.ts';

export interface FeedListener<T> {
  item(value: T): void;
  /** The loop is over; joining again starts a new one. */
  fail(error: SourceError): void;
}

export class Feed<T> {
  readonly #loop: (signal: AbortSignal) => AsyncIterable<T>;
  readonly #listeners = new Set<FeedListener<T>>();
  #last: { value: T } | null = null;
  #stop: AbortController | null = null;

  /** `loop` ends by throwing, or quietly when its signal aborts. */
  constructor(loop: (signal: AbortSignal) => AsyncIterable<T>) {
    this.#loop = loop;
  }

  /** Who comes later gets the last item at once. */
  join(listener: FeedListener<T>): () => void {
    this.#listeners.add(listener);
    if (this.#last !== null) listener.item(this.#last.value);
    if (this.#stop === null) {
      this.#stop = new AbortController();
      void this.#run(this.#stop);
    }
    return () => {
      if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return;
      this.#end();
    };
  }

  #end(): void {
    this.#stop?.abort(new Error('nobody listens'));
    this.#stop = null;
    this.#last = null;
  }

  /** Never rejects. */
  async #run(stop: AbortController): Promise<void> {
    try {
      for await (const value of this.#loop(stop.signal)) {
        if (stop.signal.aborted) return;
        this.#last = { value };
        for (const listener of [...this.#listeners]) listener.item(value);
      }
    } catch (thrown) {
      if (stop.signal.aborted) return;
      const listeners = [...this.#listeners];
      this.#listeners.clear();
      this.#end();
      for (const listener of listeners) listener.fail(asSourceError(thrown));
    }
  }
}
