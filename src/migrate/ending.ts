// Owns what is to be done about copies when they end: taken away (abort, return copies at a finish, collect) or turned into ordinary
// records (finish that keeps them). Pure, as decide.ts; called by mirror.ts in the place of it. No rate and no grace: a person said so.
import type { SourceAccount } from '../catalog/view.ts';
import type { Action } from './decide.ts';
import type { CopyRules } from './desired.ts';
import { digestOf, keptCopy, sameAgain } from './desired.ts';
import { type Address, addressOf } from './ledger.ts';
import type { LedgerEntry } from './migration.ts';
import { standings } from './standing.ts';

export interface EndingInput {
  readonly rules: Pick<CopyRules, 'origin' | 'migration' | 'keeps'>;
  readonly target: SourceAccount | null;
  readonly entries: readonly LedgerEntry[];
  readonly busy: ReadonlySet<Address>;
  /** Addresses whose last try failed and that are not to be tried yet. */
  readonly putOff: ReadonlySet<Address>;
  /** Addresses that we wrote or removed so lately that `target` may not know it. */
  readonly unsure: ReadonlySet<Address>;
  /** `target` was read afresh after our last write of the service. */
  readonly confirmed: boolean;
}

/** Every copy goes, and so does what carries our marker though the ledger lacks it. */
export function drainActions({ rules, target, entries, busy, putOff, unsure, confirmed }: EndingInput): Action[] {
  const actions: Action[] = [];
  const standing = standings(target, entries, rules);
  const known = new Set<Address>();
  let read = false;
  for (const entry of entries) {
    const address = addressOf(entry);
    known.add(address);
    if (busy.has(address) || putOff.has(address)) continue;
    const ours = standing.get(address)?.ours ?? null;
    if (entry.receipt !== null) actions.push({ kind: 'remove', address, entry, receipt: entry.receipt, why: 'ended' });
    else if (entry.state === 'withheld') actions.push({ kind: 'strike', entry, why: 'no copy stands' });
    else if (!confirmed) read = true;
    else if (ours !== null) actions.push(again(address, ours, rules));
    else actions.push({ kind: 'strike', entry, why: 'no copy stands' });
  }
  for (const [address, { ours }] of standing) {
    if (ours === null || target?.live !== true || known.has(address)) continue;
    if (!busy.has(address) && !putOff.has(address) && !unsure.has(address)) actions.push(again(address, ours, rules));
  }
  return read ? [...actions, { kind: 'read' }] : actions;
}

/** Every copy becomes an ordinary record; what is not there any more is struck. Needs a fresh read: it rewrites what stands now. */
export function keepActions({ rules, target, entries, busy, putOff, confirmed }: EndingInput): Action[] {
  const open = entries.filter((entry) => entry.state !== 'kept');
  if (open.length === 0) return [];
  if (!confirmed) return [{ kind: 'read' }];
  const standing = standings(target, entries, rules);
  return open.flatMap((entry): Action[] => {
    const address = addressOf(entry);
    if (busy.has(address) || putOff.has(address)) return [];
    const ours = standing.get(address)?.ours ?? null;
    if (ours === null) return [{ kind: 'strike', entry, why: 'no copy stands' }];
    const instance = keptCopy(ours, rules.origin, rules.migration);
    const digest = digestOf(instance, rules.keeps);
    return [{ kind: 'put', address, instance, digest, previous: entry.receipt, why: 'kept' }];
  });
}

function again(address: Address, ours: Parameters<typeof sameAgain>[0], rules: EndingInput['rules']): Action {
  const instance = sameAgain(ours, rules.origin);
  return { kind: 'put', address, instance, digest: digestOf(instance, rules.keeps), previous: null, why: 'adopt' };
}
