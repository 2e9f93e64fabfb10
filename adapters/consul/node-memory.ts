// Owns what this process knows of the records below its nodes: names and indices, as they were read or written last. Called by
// catalog-writer.ts, so that one change costs one transaction, whatever stands below the node. Must never be taken for the truth: each
// write compares the index, and what was refused is read afresh.

/** A record of ours and its check. */
export interface Copy {
  readonly name: string;
  /** ModifyIndex of the service; 0: there is none. */
  readonly index: number;
  /** ModifyIndex of the check; 0: there is none. */
  readonly checkIndex: number;
  /** Output of the check. */
  readonly said: string;
}

/** What stands under a node. */
export interface NodeState {
  readonly known: boolean;
  /** By service id. */
  readonly copies: ReadonlyMap<string, Copy>;
}

export class NodeMemory {
  readonly #nodes = new Map<string, Map<string, Copy>>();

  /** What was read of a node, whole. */
  replace(node: string, { known, copies }: NodeState): void {
    if (known) this.#nodes.set(node, new Map(copies));
    else this.#nodes.delete(node);
  }

  /** Null: the node must be read first. */
  of(node: string): NodeState | null {
    const copies = this.#nodes.get(node);
    return copies === undefined ? null : { known: true, copies };
  }

  /** Our own write was carried out. */
  wrote(node: string, id: string, copy: Copy): void {
    const copies = this.#nodes.get(node) ?? new Map<string, Copy>();
    this.#nodes.set(node, copies.set(id, copy));
  }

  removed(node: string, id: string): void {
    this.#nodes.get(node)?.delete(id);
  }

  /** Somebody else writes there too, or the outcome of a write is not known. */
  forget(node: string): void {
    this.#nodes.delete(node);
  }
}
