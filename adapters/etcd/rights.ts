// Owns the question whether the user of a source may write, asked without writing: a transaction whose compare never holds. The server
// judges the rights of both branches before it compares anything (auth: checkTxnAuth), and what is not carried out changes no revision.
// Called by adapter.ts; must never send a branch that could be carried out.
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { EtcdClient } from './client.ts';
import { sourceError } from './errors.ts';
import { type MappingOptions, nativeServiceOf } from './mapping.ts';
import { COMPARE_EQUAL, type Compare, TARGET_VERSION } from './protocol.ts';

/** Keys of one question: a server takes 128 operations by default. */
const BATCH = 64;
/** So many services are named; whoever may not write one rarely may write the next. */
const MAX_NAMED = 8;

/** A key as a write of the service would have it, and what of it a right would have to cover. */
interface Question {
  readonly service: ServiceKey;
  readonly key: Buffer;
  readonly range: string;
}

/** Rejects with SourceError where the server could not be asked, with the signal's reason after an abort. */
export async function rightsFaults(
  client: EtcdClient,
  mapping: MappingOptions,
  keys: readonly ServiceKey[],
  signal: AbortSignal,
): Promise<readonly SourceError[]> {
  const faults: SourceError[] = [];
  const questions: Question[] = [];
  for (const service of keys) {
    const asked = questionOf(service, mapping);
    if (asked instanceof SourceError) faults.push(asked);
    else questions.push(asked);
  }
  for (let at = 0; at < questions.length && faults.length < MAX_NAMED; at += BATCH) {
    const batch = questions.slice(at, at + BATCH);
    if ((await denied(client, batch, signal)) === null) continue;
    for (const one of batch) {
      if (faults.length === MAX_NAMED) break;
      const failure = await denied(client, [one], signal);
      if (failure !== null) faults.push(missing(one, failure));
    }
  }
  return faults.slice(0, MAX_NAMED);
}

function questionOf(service: ServiceKey, { layout, prefix, namespace }: MappingOptions): Question | SourceError {
  const native = nativeServiceOf(service, layout, namespace);
  if (typeof native === 'string') return new SourceError('refused', `etcd: ${native}`);
  const range = prefix + (layout.servicePrefix(native) ?? '');
  // A layout of one key for many is edited in place: any of its keys stands for the others.
  const key = layout.write === undefined ? `${range}0` : prefix + layout.write.keyOf(native, 'weir');
  return { service, key: Buffer.from(key), range };
}

/** The refusal, or null: the server would let us write all of them. */
async function denied(client: EtcdClient, batch: readonly Question[], signal: AbortSignal): Promise<SourceError | null> {
  const [first] = batch;
  if (first === undefined) return null;
  // No key has a version below 0.
  const never: Compare = { result: COMPARE_EQUAL, target: TARGET_VERSION, key: first.key, version: '-1' };
  const success = batch.map(({ key }) => ({ put: { key, value: Buffer.alloc(0) } }));
  try {
    await client.call('Txn', { compare: [never], success, failure: [] }, signal);
    return null;
  } catch (thrown) {
    signal.throwIfAborted();
    const error = sourceError(thrown);
    if (error.causeKind !== 'denied') throw error;
    return error;
  }
}

function missing({ service, range }: Question, failure: SourceError): SourceError {
  const text = `${serviceId(service)} may not be written: grant a role of the user READWRITE on the prefix ${JSON.stringify(range)}`;
  return new SourceError('denied', `etcd: ${text} (${failure.message})`, { cause: failure });
}
