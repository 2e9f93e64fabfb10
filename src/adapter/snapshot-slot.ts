// Owns the one slot between an adapter's events and its reader. Called by adapters that push; must never lose a deregistration.
import { Mailbox } from '../kernel/mailbox.ts';
import type { Snapshot, Unchanged } from '../model/snapshot.ts';

/** A slot for one watch: newest wins by the rules of {@link mergeUnread}. */
export function snapshotSlot(): Mailbox<Snapshot | Unchanged> {
  return new Mailbox(mergeUnread);
}

/** What stays in the slot: `unchanged` never replaces an unread snapshot; `deregistered` of a replaced one is carried over. */
export function mergeUnread(waiting: Snapshot | Unchanged, incoming: Snapshot | Unchanged): Snapshot | Unchanged {
  if (incoming.kind === 'unchanged') return waiting;
  if (waiting.kind !== 'present' || incoming.kind !== 'present' || waiting.deregistered === undefined) return incoming;
  // An id that is back was registered anew: its old word is over.
  const back = new Set(incoming.instances.map(({ id }) => id));
  const carried = waiting.deregistered.filter((id) => !back.has(id));
  const deregistered = [...new Set([...carried, ...(incoming.deregistered ?? [])])];
  return deregistered.length === 0 ? incoming : { ...incoming, deregistered };
}
