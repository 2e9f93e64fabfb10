// Owns lifetimes: a scope has a signal, the work spawned in it, and what must be undone at its end.
// Called by everything that lives long; must never swallow a failure silently (onFailure gets each).
import { messageOf } from './errors.ts';

/** Told of every spawned task that threw while its scope was still open. */
export type OnFailure = (name: string, thrown: unknown) => void;

/** A lifetime. Closing aborts the signal, runs the deferred ends in reverse order, and waits for what was spawned. */
export class Scope implements AsyncDisposable {
  readonly #controller = new AbortController();
  readonly #onFailure: OnFailure;
  readonly #tasks = new Set<Promise<void>>();
  readonly #ends: (() => void | Promise<void>)[] = [];
  #closing: Promise<void> | null = null;

  constructor(onFailure: OnFailure) {
    this.#onFailure = onFailure;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Runs `task` until it ends or the scope closes; a throw goes to `onFailure`, unless the scope is already closing. */
  spawn(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    if (this.signal.aborted) return;
    const running = this.#run(name, task).finally(() => this.#tasks.delete(running));
    this.#tasks.add(running);
  }

  /** Runs `end` at the close, last deferred first. */
  defer(end: () => void | Promise<void>): void {
    this.#ends.push(end);
  }

  /** Closes once; later calls wait for the same end. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(name: string, task: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await task(this.signal);
    } catch (thrown) {
      if (!this.signal.aborted) this.#onFailure(name, thrown);
    }
  }

  async #close(): Promise<void> {
    this.#controller.abort(new Error('scope closed'));
    for (let end = this.#ends.pop(); end !== undefined; end = this.#ends.pop()) {
      try {
        await end();
      } catch (thrown) {
        this.#onFailure('close', new Error(messageOf(thrown), { cause: thrown }));
      }
    }
    await Promise.all(this.#tasks);
  }
}
