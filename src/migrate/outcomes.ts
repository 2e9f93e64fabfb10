// Owns what a call does to the ledger: the intent before it, and what its answer makes of the entry (migration.md rules 10 and 12). Pure
// transitions on given times. Called by mirror.ts. Must never take a lost answer for a failure: the entry stays an intent then.
import { reconnectDelay } from '../kernel/backoff.ts';
import type { Random } from '../kernel/random.ts';
import type { Instance } from '../model/instance.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import { contentOf, type Note, type PutReason } from './decide.ts';
import type { LedgerEntry } from './migration.ts';
import type { Outcome, WriteOp } from './writer.ts';

/** What a registry refuses is tried again after this ± 10 %, ms: what stands in the way may have gone. */
const REFUSED_MS = 60_000;

/** Puts that set right what others did; each counts for the pace of repairs once it was made. */
const REPAIRS: ReadonlySet<PutReason> = new Set(['lost', 'repair', 'epoch']);

/** Whose copy it is and when, for entries. */
export interface EntryContext {
  readonly target: string;
  readonly origin: string;
  readonly epoch: number;
  /** Wall ms. */
  readonly wall: number;
  /** Monotonic ms. */
  readonly now: number;
  readonly random: Random;
}

/** The entry that must be durable before the call. */
export function intentOf(op: WriteOp, before: LedgerEntry | null, at: EntryContext): LedgerEntry {
  const { action } = op;
  if (action.kind === 'put') {
    const made = before ?? newEntry(op.service, op.key, action.instance, at);
    return { ...made, key: op.key, origin: at.origin, state: 'intent', at: at.wall, epoch: at.epoch };
  }
  const entry = before ?? action.entry;
  return { ...entry, state: action.kind === 'remove' ? 'removing' : 'intent', at: at.wall, epoch: at.epoch };
}

/** An address of which no record stands in the target. */
export function withheldEntry(service: ServiceId, key: ServiceKey, instance: Instance, at: EntryContext): LedgerEntry {
  return { ...newEntry(service, key, instance, at), state: 'withheld' };
}

/** What an answer makes of an entry: the entry as it is now (null: struck), and what is to be remembered. */
export interface After {
  readonly entry: LedgerEntry | null;
  readonly note: Partial<Note>;
}

/** `whole`: the call failed for all its records, and the writer waits by itself. */
export function afterCall(
  op: WriteOp,
  before: LedgerEntry,
  outcome: Outcome,
  whole: boolean,
  note: Note,
  at: EntryContext,
): After {
  if (outcome instanceof SourceError) return afterFailure(op, before, outcome, whole, note, at);
  const { action } = op;
  const well = { wroteAt: at.now, unlikeSince: null, waitUntil: Number.NEGATIVE_INFINITY, failures: 0 };
  if (action.kind === 'remove') {
    const stays = action.why === 'withheld' && outcome === true;
    return { entry: stays ? { ...before, state: 'withheld', receipt: null, applied: '', at: at.wall } : null, note: well };
  }
  if (action.kind === 'health') {
    const repaired = note.unlikeSince === null ? {} : { repairedAt: at.now };
    return { entry: { ...before, state: 'written', health: action.health, at: at.wall }, note: { ...well, ...repaired } };
  }
  if (outcome === true || outcome === 'native') return { entry: before, note: {} };
  const { digest: applied, instance, why } = action;
  const state = why === 'kept' ? ('kept' as const) : ('written' as const);
  const { shown: _, ...rest } = before;
  return {
    entry: { ...rest, state, receipt: outcome, applied, health: instance.health, at: at.wall, epoch: at.epoch },
    note: { ...well, shown: null, forgotten: false, unsayable: null, ...(REPAIRS.has(why) && { repairedAt: at.now }) },
  };
}

function afterFailure(
  op: WriteOp,
  before: LedgerEntry,
  error: SourceError,
  whole: boolean,
  { failures }: Note,
  at: EntryContext,
): After {
  const { action } = op;
  const wait = reconnectDelay(failures + 1, at.random);
  const again = whole ? {} : { waitUntil: at.now + Math.max(wait, error.retryAfterMs ?? 0), failures: failures + 1 };
  const unknown = error.causeKind === 'lost' || error.causeKind === 'malformed' || error.causeKind === 'fenced';
  if (action.kind === 'remove') return { entry: before, note: again };
  // It may have been carried out: only a read tells (rule 12).
  if (unknown) return { entry: before, note: { ...again, wroteAt: at.now } };
  const reverted: LedgerEntry | null = before.receipt === null ? null : { ...before, state: 'written' };
  if (error.causeKind !== 'refused') return { entry: reverted, note: again };
  // Not ours any more, by its own word: a put finds out, or takes the place again.
  if (action.kind === 'health') return { entry: reverted, note: { forgotten: true } };
  const { instance, digest, why } = action;
  // Only a mirror can do without the record: what is to be kept or taken over is as it is.
  const silent =
    why !== 'kept' && why !== 'adopt' && (instance.isolated || instance.weight === 0 || instance.health === 'unhealthy');
  if (silent) return { entry: reverted, note: { unsayable: contentOf(digest, instance.health) } };
  return { entry: reverted, note: { waitUntil: at.now + REFUSED_MS * (0.9 + 0.2 * at.random()), failures: failures + 1 } };
}

function newEntry(
  service: ServiceId,
  key: ServiceKey,
  { host, port, transport, health }: Instance,
  at: EntryContext,
): LedgerEntry {
  const { target, origin, epoch, wall } = at;
  return {
    target,
    origin,
    service,
    key,
    host,
    port,
    transport,
    state: 'intent',
    receipt: null,
    applied: '',
    health,
    at: wall,
    epoch,
  };
}
