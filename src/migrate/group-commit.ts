// Owns writing together what waits together: one batch is under way, everything that comes meanwhile is the next one.
// Called by the ledgers; must never resolve a caller before its own items were written.

interface Batch<T> {
  readonly items: T[];
  readonly done: PromiseWithResolvers<void>;
}

export class GroupCommit<T> {
  readonly #write: (items: readonly T[]) => Promise<void>;
  #next: Batch<T> | null = null;
  #running: Promise<void> | null = null;

  /** `write` is never called twice at once. */
  constructor(write: (items: readonly T[]) => Promise<void>) {
    this.#write = write;
  }

  /** Resolves, or rejects, with the batch that holds the items. */
  add(items: readonly T[]): Promise<void> {
    this.#next ??= { items: [], done: Promise.withResolvers<void>() };
    for (const item of items) this.#next.items.push(item);
    const { promise } = this.#next.done;
    this.#running ??= this.#run();
    return promise;
  }

  /** Resolves when nothing waits any more; never rejects. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    // In a later microtask, so that what comes in one turn is one batch.
    await Promise.resolve();
    for (let batch = this.#next; batch !== null; batch = this.#next) {
      this.#next = null;
      await this.#write(batch.items).then(batch.done.resolve, batch.done.reject);
    }
    this.#running = null;
  }
}
