// Owns the question whether the token may write copies of services, asked before anything is written (Consul's own interface asks the
// same way). Called by adapter.ts. Must never write, nor call a right missing that was not asked for by name.
import { isRecord } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { ConsulFailure, malformed, safeText } from './errors.ts';
import { type Line, scope } from './line.ts';

const PATH = '/v1/internal/acl/authorize';
/** Consul takes no more at once. */
const AT_ONCE = 64;
/** Missing rights that are named; the rest is counted. */
const NAMED = 5;

/** One right, in Consul's words. */
export interface Right {
  readonly resource: 'service' | 'node';
  readonly segment: string;
}

/**
 * The rights to write that the token lacks: one `denied` each, the last counts those that are not named. Empty: none, or this Consul
 * has no ACLs, or is too old to be asked. Rejects with SourceError when the question could not be asked.
 */
export async function missingRights(line: Line, rights: readonly Right[], signal: AbortSignal): Promise<readonly SourceError[]> {
  const groups: Promise<readonly Right[]>[] = [];
  for (let at = 0; at < rights.length; at += AT_ONCE) groups.push(missingOf(line, rights.slice(at, at + AT_ONCE), signal));
  let missing: readonly Right[];
  try {
    missing = (await Promise.all(groups)).flat();
  } catch (thrown) {
    if (!(thrown instanceof ConsulFailure)) throw thrown;
    // 401: "ACL support disabled"; 404: before Consul 1.9, or behind a proxy that hides it.
    if (thrown.status === 401 || thrown.status === 404) return [];
    if (thrown.causeKind === 'denied') return [thrown];
    throw thrown;
  }
  const errors = missing.slice(0, NAMED).map((right) => new SourceError('denied', sentence(line.client.origin, right)));
  const more = missing.length - errors.length;
  const text = `consul ${line.client.origin}: the ACL token lacks ${more} more rights of the same kind`;
  return more === 0 ? errors : [...errors, new SourceError('denied', text)];
}

function sentence(origin: string, { resource, segment }: Right): string {
  return `consul ${origin}: the ACL token lacks ${resource}:write on "${safeText(segment, 200)}": give its policy that right`;
}

async function missingOf(line: Line, rights: readonly Right[], signal: AbortSignal): Promise<readonly Right[]> {
  const asked = rights.map(({ resource, segment }) => ({ Resource: resource, Segment: segment, Access: 'write' }));
  const text = await line.client.put(PATH, { dc: scope(line)['dc'] ?? null }, asked, signal, 'POST');
  const answers = answersIn(text);
  if (answers?.length !== rights.length) throw malformed(line.client.origin, PATH, 'no list of rights');
  return rights.filter((_, at) => answers[at] === false);
}

/** `Allow` of each answer, in the order of the questions; null when the text is no such list. */
function answersIn(text: string): readonly boolean[] | null {
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) ? list.map((one) => isRecord(one) && one['Allow'] === true) : null;
  } catch {
    return null;
  }
}
