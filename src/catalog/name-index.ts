// Owns the sorted list of service names, so that a page of a listing costs the page and not the catalog.
// Called by catalog; must never hold anything but names.
import { compareText, type ServiceId } from '../model/service.ts';

/** So many new names are put in place one by one; more are sorted in at once. */
const FEW = 32;

/** Names in code-unit order. Additions wait until somebody reads. */
export class NameIndex {
  #sorted: ServiceId[] = [];
  readonly #added = new Set<ServiceId>();

  get size(): number {
    return this.#sorted.length + this.#added.size;
  }

  /** Adds a name that is not in the list. */
  add(name: ServiceId): void {
    this.#added.add(name);
  }

  remove(name: ServiceId): void {
    if (this.#added.delete(name)) return;
    const at = lowerBound(this.#sorted, name);
    if (this.#sorted[at] === name) this.#sorted.splice(at, 1);
  }

  /** Names from the first one that is not below `from`, in order. */
  *from(from: ServiceId): Generator<ServiceId, void, void> {
    this.#settle();
    for (let i = lowerBound(this.#sorted, from); i < this.#sorted.length; i++) {
      const name = this.#sorted[i];
      if (name !== undefined) yield name;
    }
  }

  #settle(): void {
    if (this.#added.size > FEW) {
      this.#sorted = [...this.#sorted, ...this.#added].sort(compareText);
    } else {
      for (const name of this.#added) this.#sorted.splice(lowerBound(this.#sorted, name), 0, name);
    }
    this.#added.clear();
  }
}

function lowerBound(sorted: readonly ServiceId[], name: ServiceId): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareText(sorted[middle] ?? '', name) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
