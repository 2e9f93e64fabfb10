// Owns which sources a registration goes to. Pure; called by registrations.ts.
import type { Adapter } from '../adapter/contract.ts';
import { WeirError } from '../kernel/errors.ts';
import { type ServiceKey, serviceId } from '../model/service.ts';
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

interface Fault {
  readonly code: 'SOURCE_NOT_FOUND' | 'REGISTRATION_TARGET';
  readonly reason: string;
}

/**
 * The sources that are named; else those marked `register: true`; else the only one that can register. One that cannot take it
 * refuses the whole: throws WeirError SOURCE_NOT_FOUND or REGISTRATION_TARGET, whose details give the reason of each such source
 * (`targets`) and the candidates.
 */
export function chooseTargets(
  registration: Registration,
  sources: readonly RegistrationSource[],
  nativeKey: NativeKey,
): readonly Destination[] {
  const known = new Map(sources.map((source) => [source.sourceId, source]));
  const candidates = sources.filter(({ canRegister }) => canRegister).map(({ sourceId }) => sourceId);
  const destinations: Destination[] = [];
  const faults = new Map<string, Fault>();
  for (const sourceId of new Set(chosenIds(registration, sources, candidates))) {
    const source = known.get(sourceId);
    const key = source?.canRegister === true ? nativeKey(sourceId, registration.service) : null;
    if (key === null) faults.set(sourceId, faultOf(sourceId, source, registration.service));
    else destinations.push({ sourceId, key });
  }
  if (faults.size > 0) throw refusal(faults, candidates);
  return destinations;
}

function chosenIds(
  { sources: named }: Registration,
  sources: readonly RegistrationSource[],
  candidates: readonly string[],
): readonly string[] {
  if (named !== null && named.length > 0) return named;
  const marked = sources.filter(({ registerByDefault, canRegister }) => registerByDefault && canRegister);
  if (marked.length > 0) return marked.map(({ sourceId }) => sourceId);
  if (candidates.length === 1) return candidates;
  const message =
    candidates.length === 0
      ? 'no configured source takes registrations'
      : `several sources take registrations (${candidates.join(', ')}): name them in sources, or mark some register: true`;
  throw new WeirError('REGISTRATION_TARGET', message, { details: { candidates } });
}

function faultOf(sourceId: string, source: RegistrationSource | undefined, service: ServiceKey): Fault {
  if (source === undefined) return { code: 'SOURCE_NOT_FOUND', reason: `there is no source ${sourceId}` };
  if (!source.canRegister) return { code: 'REGISTRATION_TARGET', reason: `source ${sourceId} takes no registrations` };
  const name = serviceId(service);
  const reason = `${name} has no name in source ${sourceId}; give it one under services[].names`;
  return { code: 'REGISTRATION_TARGET', reason };
}

function refusal(faults: ReadonlyMap<string, Fault>, candidates: readonly string[]): WeirError {
  const all = [...faults.values()];
  const code = all.every((fault) => fault.code === 'SOURCE_NOT_FOUND') ? 'SOURCE_NOT_FOUND' : 'REGISTRATION_TARGET';
  const targets = Object.fromEntries([...faults].map(([sourceId, { reason }]) => [sourceId, reason]));
  return new WeirError(code, all.map(({ reason }) => reason).join('; '), { details: { targets, candidates } });
}
