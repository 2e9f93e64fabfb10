// Owns the watch of one service by its own blocking query, and the choice between that and the firehose. Called by adapter.ts.
// Must never yield an older state after a newer one, and never hold more slots than there are.
import type { Snapshot, Unchanged } from '../../src/model/snapshot.ts';
import type { Firehose } from './firehose.ts';
import type { Guard } from './guard.ts';
import type { Line } from './line.ts';
import { BlockingQuery } from './query.ts';
import type { Slot } from './slots.ts';
import { type Memory, PartialList, type Truth } from './truth.ts';

/** Without streaming the index of a name does not move when an instance goes over to another name: read plainly this often. */
const PLAIN_REREAD_MS = 300_000;
/** Contact is told at most this often; the first answers of a watch come close together. */
const CONTACT_MS = 10_000;

export interface WatchDeps {
  readonly line: Line;
  readonly guard: Guard;
  readonly truth: Truth;
  readonly firehose: Firehose;
}

/** Until the signal aborts (quietly) or the watch is lost (throws). */
export async function* watchService(
  deps: WatchDeps,
  name: string,
  signal: AbortSignal,
): AsyncGenerator<Snapshot | Unchanged, void, void> {
  const { line, guard, truth, firehose } = deps;
  const memory = truth.memory(name);
  const member = guard.join(signal);
  const until = member.signal;
  const state = { first: true };
  try {
    while (!until.aborted) {
      const slot = line.slots.tryTake(line.config.maxWatches);
      // The firehose comes back when a slot is free.
      yield* slot === null ? firehose.watch(name, memory, state, until) : direct(deps, name, memory, slot, state, until);
    }
    if (!signal.aborted) throw until.reason;
  } catch (thrown) {
    if (signal.aborted) return;
    if (thrown instanceof PartialList && thrown.snapshot !== null) yield thrown.snapshot;
    throw thrown;
  } finally {
    member.leave();
    // A watch that nobody wants any more is forgotten; a lost one will be opened again.
    if (signal.aborted) truth.forget(name);
  }
}

async function* direct(
  { line, truth }: WatchDeps,
  name: string,
  memory: Memory,
  slot: Slot,
  state: { first: boolean },
  signal: AbortSignal,
): AsyncGenerator<Snapshot | Unchanged, void, void> {
  const { clock, random } = line;
  const { path, query: own } = truth.pathOf(name);
  const query = new BlockingQuery(line, path, own, { streamable: true, minGapMs: 0 });
  let rereadAt = clock.now() + PLAIN_REREAD_MS * (0.9 + 0.2 * random());
  let toldAt = clock.now();
  try {
    for (;;) {
      if (clock.now() >= rereadAt) {
        query.restart();
        rereadAt = clock.now() + PLAIN_REREAD_MS * (0.9 + 0.2 * random());
      }
      const answer = await query.next(signal);
      if (answer.headers.backend === 'streaming') rereadAt = Number.POSITIVE_INFINITY;
      const { changed, snapshot } = await truth.judge(name, answer, memory, signal);
      query.returned(changed);
      if (!changed && !state.first && clock.now() - toldAt < CONTACT_MS) continue;
      toldAt = clock.now();
      yield changed || state.first ? snapshot : { kind: 'unchanged' };
      state.first = false;
    }
  } finally {
    void query.held.then(() => slot.release());
  }
}
