// Owns the question whether the token may write instances of services, asked without writing: the removal of an instance that nobody can
// have. The server judges the right on the service first, and removes nothing (seen, 1.18.1: 401001 without it, success with it).
// Called by adapter.ts; must never name an address that could be somebody's.
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { accept, codeOf } from './answers.ts';
import { isMissing } from './errors.ts';
import type { NativeInstance } from './protocol.ts';
import type { Servers } from './servers.ts';

/** The last address of the loopback net, and a port that takes root: nobody registers that. */
const NOBODY = { host: { value: '127.255.255.254' }, port: { value: 1 } } as const;
/** Questions in flight at once. */
const AT_ONCE = 16;
/** So many services are named; whoever may not write one rarely may write the next. */
const MAX_NAMED = 8;

/** Rejects with SourceError where the server could not be asked, with the signal's reason after an abort. */
export async function rightsFaults(
  servers: Servers,
  keys: readonly ServiceKey[],
  signal: AbortSignal,
): Promise<readonly SourceError[]> {
  const faults: SourceError[] = [];
  for (let at = 0; at < keys.length && faults.length < MAX_NAMED; at += AT_ONCE) {
    const answers = await Promise.all(keys.slice(at, at + AT_ONCE).map((key) => fault(servers, key, signal)));
    faults.push(...answers.filter((answer) => answer !== null));
  }
  return faults.slice(0, MAX_NAMED);
}

async function fault(servers: Servers, key: ServiceKey, signal: AbortSignal): Promise<SourceError | null> {
  const instance: NativeInstance = { ...NOBODY, namespace: { value: key.namespace }, service: { value: key.name } };
  try {
    const { server, answer } = await servers.write('DeregisterInstance', instance, signal);
    if (!isMissing(codeOf(answer))) accept(answer, server, 'DeregisterInstance', key);
    return null;
  } catch (thrown) {
    signal.throwIfAborted();
    const error = asSourceError(thrown);
    if (error.causeKind !== 'denied') throw error;
    const text = `${serviceId(key)} may not be written: give the user of auth.token a strategy with READ_WRITE on the service`;
    return new SourceError('denied', `${text} (${error.message})`, { cause: error });
  }
}
