// Owns transactions of Consul: batches by count and bytes, and what their refusals mean. Called by catalog-writer.ts, state-store.ts.
import { SourceError } from '../../src/model/snapshot.ts';
import { ConsulFailure } from './errors.ts';
import { type Line, scope } from './line.ts';
import { decodeTxnErrors, type TxnError } from './native.ts';

/** Half of what the server takes; a batch that fails fails as a whole. */
export const MAX_OPS = 64;
export const MAX_BYTES = 400_000;

export type TxnOp = Readonly<Record<string, unknown>>;

export type TxnResult =
  | { readonly kind: 'applied'; readonly body: unknown }
  | { readonly kind: 'rolledBack'; readonly errors: readonly TxnError[] };

/** All or nothing. Rejects with SourceError for everything but a roll-back. */
export async function transact(line: Line, ops: readonly TxnOp[], signal: AbortSignal): Promise<TxnResult> {
  try {
    const text = await line.client.put('/v1/txn', { dc: scope(line)['dc'] ?? null }, ops, signal);
    return { kind: 'applied', body: JSON.parse(text) };
  } catch (thrown) {
    if (thrown instanceof SyntaxError) throw new SourceError('malformed', 'consul: /v1/txn answers something else than JSON');
    if (!(thrown instanceof ConsulFailure) || thrown.status !== 409) throw thrown;
    return { kind: 'rolledBack', errors: decodeTxnErrors(thrown.json) };
  }
}

export function isStaleIndex({ what }: TxnError): boolean {
  return what.includes('index is stale') || what.includes('current modify index');
}

/** What one operation's refusal means to a person. */
export function opFailure({ what }: TxnError): SourceError {
  if (what.includes('failed session check')) return new SourceError('fenced', `consul: another owner holds the lock (${what})`);
  if (/Permission denied|lacks permission/.test(what))
    return new SourceError('denied', `consul: the token may not write this (${what})`);
  return new SourceError('refused', `consul: the transaction was refused (${what})`);
}
