// Owns the connection for single reads: one for all that are under way, to another server than the poller's if there is one, closed
// with the last of them. Called by adapter.ts.
import { raceAbort } from '../../src/kernel/cancel.ts';
import type { Link } from './link.ts';
import type { Servers } from './servers.ts';

interface Shared {
  readonly link: Promise<Link>;
  readonly abort: AbortController;
  users: number;
}

export class ReadDesk {
  readonly #servers: Servers;
  #shared: Shared | null = null;

  constructor(servers: Servers) {
    this.#servers = servers;
  }

  /** Rejects with SourceError or the signal's reason. */
  async read<T>(signal: AbortSignal, use: (link: Link) => Promise<T>): Promise<T> {
    const shared = this.#join();
    try {
      return await use(await raceAbort(shared.link, signal));
    } finally {
      if (--shared.users === 0) this.#end(shared);
    }
  }

  #join(): Shared {
    let shared = this.#shared;
    if (shared === null) {
      const abort = new AbortController();
      const made: Shared = { abort, users: 0, link: this.#servers.connect('other', abort.signal) };
      // Whoever comes after a loss needs a new connection.
      const lost = (): void => {
        if (this.#shared === made) this.#shared = null;
      };
      made.link.then((link) => {
        link.onLost = lost;
      }, lost);
      shared = made;
      this.#shared = made;
    }
    shared.users++;
    return shared;
  }

  #end(shared: Shared): void {
    if (this.#shared === shared) this.#shared = null;
    shared.abort.abort(new Error('nobody reads any more'));
    shared.link.then(
      (link) => link.close(),
      () => {},
    );
  }
}
