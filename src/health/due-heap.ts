// Owns the order in which checks fall due: a binary heap whose entries know their place. Called by the prober; no clock in it.

/** An entry of the heap; in at most one heap. */
export interface HeapEntry {
  /** Monotonic ms. Changed through `DueHeap.put` only. */
  due: number;
  /** Owned by the heap: -1 while outside. */
  place: number;
}

/** Earliest first. put, remove and pop cost O(log n). */
export class DueHeap<T extends HeapEntry> {
  readonly #entries: T[] = [];

  get size(): number {
    return this.#entries.length;
  }

  peek(): T | undefined {
    return this.#entries[0];
  }

  /** Adds the entry, or moves it to a new time. */
  put(entry: T, due: number): void {
    entry.due = due;
    if (entry.place < 0) {
      entry.place = this.#entries.length;
      this.#entries.push(entry);
    }
    this.#up(entry);
    this.#down(entry);
  }

  remove(entry: T): void {
    const { place } = entry;
    if (place < 0) return;
    entry.place = -1;
    const last = this.#entries.pop();
    if (last === undefined || last === entry) return;
    this.#set(last, place);
    this.#up(last);
    this.#down(last);
  }

  #set(entry: T, place: number): void {
    this.#entries[place] = entry;
    entry.place = place;
  }

  #up(entry: T): void {
    while (entry.place > 0) {
      const parent = this.#entries[(entry.place - 1) >> 1];
      if (parent === undefined || parent.due <= entry.due) return;
      this.#swap(entry, parent);
    }
  }

  #down(entry: T): void {
    for (;;) {
      const left = this.#entries[2 * entry.place + 1];
      const right = this.#entries[2 * entry.place + 2];
      const least = right !== undefined && left !== undefined && right.due < left.due ? right : left;
      if (least === undefined || entry.due <= least.due) return;
      this.#swap(entry, least);
    }
  }

  #swap(a: T, b: T): void {
    const { place } = a;
    this.#set(a, b.place);
    this.#set(b, place);
  }
}
