// Owns what names the L5 servers told: name → SID. Called by poller.ts. A name that an answer leaves out keeps its SID: it may be
// gone, or its server may have lost its data, and nobody can tell. Bounded by the names that somebody asks for.
import { type Sid, sidText } from './sid.ts';

/** Names that are resolved are asked again this often, ms: a name may move to another SID. */
export const REFRESH_MS = 30_000;

export class NameBook {
  readonly #sids = new Map<string, Sid>();
  #refreshAt = Number.NEGATIVE_INFINITY;

  sidOf(name: string): Sid | null {
    return this.#sids.get(name) ?? null;
  }

  /** The names to be asked now: those without a SID, and all of them from time to time or after `forgetAge`. */
  due(names: ReadonlySet<string>, now: number): string[] {
    if (now < this.#refreshAt) return this.unknown(names);
    this.#refreshAt = now + REFRESH_MS;
    return [...names];
  }

  /** Those without a SID. */
  unknown(names: ReadonlySet<string>): string[] {
    return [...names].filter((name) => !this.#sids.has(name));
  }

  /** Another server may know better: everything is asked again. */
  forgetAge(): void {
    this.#refreshAt = Number.NEGATIVE_INFINITY;
  }

  learn(found: ReadonlyMap<string, Sid>): void {
    for (const [name, sid] of found) {
      const before = this.#sids.get(name);
      if (before === undefined || sidText(before) !== sidText(sid)) this.#sids.set(name, sid);
    }
  }

  /** Keeps what is still asked for. */
  retain(names: ReadonlySet<string>): void {
    for (const name of this.#sids.keys()) if (!names.has(name)) this.#sids.delete(name);
  }
}
