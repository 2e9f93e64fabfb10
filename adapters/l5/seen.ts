// Owns which SIDs a server knew at some time: their later absence may mean that all of their instances are unhealthy. Called by
// adapter.ts. Bounded: the longest unheard are forgotten, which makes them unknown instead of empty, and both are held alike.
import type { SidText } from './sid.ts';

const MAX_SEEN = 50_000;

export class Seen {
  readonly #ids = new Set<SidText>();

  has(id: SidText): boolean {
    return this.#ids.has(id);
  }

  add(id: SidText): void {
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size <= MAX_SEEN) return;
    for (const oldest of this.#ids) {
      this.#ids.delete(oldest);
      return;
    }
  }
}
