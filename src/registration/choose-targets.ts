// Owns which sources a registration goes to. Pure; called by registrations.ts.
import type { Adapter } from '../adapter/contract.ts';
import { WeirError } from '../kernel/errors.ts';
import type { ServiceKey } from '../model/service.ts';
import type { Registration } from './registration.ts';

/** One source as it stands now. */
export interface RegistrationSource {
  readonly sourceId: string;
  readonly adapter: Adapter;
  /** `register: true` in its configuration. */
  readonly registerByDefault: boolean;
  /** Its adapter can put and remove. */
  readonly canRegister: boolean;
}

export interface Destination {
  readonly sourceId: string;
  /** The service in that source's own words. */
  readonly key: ServiceKey;
}

/** Our name in a source's own words; null: unmapped (for writes there is no default, M2). */
export type NativeKey = (sourceId: string, service: ServiceKey) => ServiceKey | null;

/**
 * The sources that are named; else those marked `register: true`; else the only one that can register. Throws WeirError
 * SOURCE_NOT_FOUND or REGISTRATION_TARGET (with the candidates, or what has no name there).
 */
export function chooseTargets(
  registration: Registration,
  sources: readonly RegistrationSource[],
  nativeKey: NativeKey,
): readonly Destination[] {
  const able = sources.filter(({ canRegister }) => canRegister);
  const candidates = able.map(({ sourceId }) => sourceId);
  return chosenIds(registration, sources, able, candidates).map((sourceId) => {
    const key = nativeKey(sourceId, registration.service);
    if (key !== null) return { sourceId, key };
    const message = `${registration.service.namespace}/${registration.service.name} has no name in source ${sourceId}; give it one under services[].names`;
    throw new WeirError('REGISTRATION_TARGET', message, { details: { source: sourceId } });
  });
}

function chosenIds(
  { sources: named }: Registration,
  sources: readonly RegistrationSource[],
  able: readonly RegistrationSource[],
  candidates: readonly string[],
): readonly string[] {
  if (named !== null && named.length > 0) {
    for (const id of named) {
      if (!sources.some(({ sourceId }) => sourceId === id)) {
        throw new WeirError('SOURCE_NOT_FOUND', `there is no source ${id}`, { details: { source: id, candidates } });
      }
      if (!candidates.includes(id)) {
        throw new WeirError('REGISTRATION_TARGET', `source ${id} takes no registrations`, {
          details: { source: id, candidates },
        });
      }
    }
    return [...new Set(named)];
  }
  const marked = able.filter(({ registerByDefault }) => registerByDefault).map(({ sourceId }) => sourceId);
  if (marked.length > 0) return marked;
  if (candidates.length === 1) return candidates;
  const message =
    candidates.length === 0
      ? 'no configured source takes registrations'
      : `several sources take registrations (${candidates.join(', ')}): name them in sources, or mark some register: true`;
  throw new WeirError('REGISTRATION_TARGET', message, { details: { candidates } });
}
