// Owns the order of changes to one thing: one after the other per key, in the order of asking. Called by registrations.ts.

export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  /** Runs `task` after all earlier ones of its key; settles as the task does. */
  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const turn = (this.#last.get(key) ?? Promise.resolve()).then(task);
    const settled: Promise<void> = turn.then(
      () => this.#end(key, settled),
      () => this.#end(key, settled),
    );
    this.#last.set(key, settled);
    return turn;
  }

  #end(key: string, settled: Promise<void>): void {
    if (this.#last.get(key) === settled) this.#last.delete(key);
  }
}
