// Owns the question whether a service's revisions started anew. Polaris' revisions are hashes without an order: a service that was made
// anew has another id, and restored data shows a revision that was left before. Called by adapter.ts and feed.ts.
import type { ServiceId } from '../../src/model/service.ts';

/** Revisions of one service that are remembered: as many changes back a restore is recognised. */
const REMEMBERED = 16;
const MAX_SERVICES = 20_000;

interface History {
  nativeId: string;
  /** Counts returns to a revision that was left. */
  round: number;
  /** Oldest first; the last one is current. */
  revisions: string[];
}

export class Epochs {
  readonly #histories = new Map<ServiceId, History>();

  /** Notes what an answer says of a service; the epoch it belongs to. `nativeId` '' where the answer has none (exported services). */
  note(id: ServiceId, nativeId: string, revision: string): string {
    const known = this.#histories.get(id);
    if (known === undefined || known.nativeId !== nativeId) {
      this.#histories.delete(id);
      this.#makeRoom();
      this.#histories.set(id, { nativeId, round: 0, revisions: [revision] });
      return nativeId;
    }
    const at = known.revisions.lastIndexOf(revision);
    if (at < 0) {
      known.revisions.push(revision);
      if (known.revisions.length > REMEMBERED) known.revisions.shift();
    } else if (at < known.revisions.length - 1) {
      known.round++;
      known.revisions = [revision];
    }
    return text(known);
  }

  /** The epoch of a service that is not there (any more). */
  of(id: ServiceId): string {
    const known = this.#histories.get(id);
    return known === undefined ? '' : text(known);
  }

  #makeRoom(): void {
    if (this.#histories.size < MAX_SERVICES) return;
    for (const oldest of this.#histories.keys()) {
      this.#histories.delete(oldest);
      return;
    }
  }
}

function text({ nativeId, round }: History): string {
  return round === 0 ? nativeId : `${nativeId}.${round}`;
}
