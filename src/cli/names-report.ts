// Owns the judgement on names that `weir check --print-names` prints: what each live name is called here and elsewhere, what a write is
// called, and every name that has no place. Called by check-names.ts; pure, must never ask a registry.
import type { NativeNamespaces } from '../adapter/contract.ts';
import { selects } from '../adapter/select.ts';
import { Names } from '../catalog/names.ts';
import { parseServiceId, type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import type { PathFault } from '../settings/config-fault.ts';
import type { RegistrationSettings, Settings, SourceSettings } from '../settings/settings.ts';

export const UNMAPPED = '(unmapped)';

/** What a source said of itself and of its names. */
export interface SourceNamesSeen {
  readonly settings: SourceSettings;
  readonly namespaces?: NativeNamespaces;
  readonly canRegister: boolean;
  /** In order; null: it gave no list. */
  readonly keys: readonly ServiceKey[] | null;
}

export interface ReadRow {
  readonly source: string;
  readonly native: string;
  readonly ours: string;
  readonly elsewhere: readonly string[];
}

export interface WriteRow {
  readonly ours: ServiceId;
  /** Native name by source that takes registrations; null: refused there. */
  readonly natives: ReadonlyMap<string, string | null>;
}

export interface NamesReport {
  readonly reads: readonly ReadRow[];
  readonly writes: readonly WriteRow[];
  /** Names without a place. */
  readonly faults: readonly PathFault[];
}

/** Judges all names at once. */
export function namesReport(settings: Settings, seen: readonly SourceNamesSeen[]): NamesReport {
  const names = new Names({ sources: new Map(seen.map((one) => [one.settings.id, about(one)])), rules: settings.names });
  const faults = templateFaults(settings, seen);
  const listed = new Map(seen.map(({ settings: { id }, keys }) => [id, new Set((keys ?? []).map(serviceId))]));
  const reads: ReadRow[] = [];
  const known = new Set<ServiceId>();
  for (const [at, one] of seen.entries()) {
    const taken = new Map<ServiceId, string>();
    for (const key of one.keys ?? []) {
      if (!selects(one.settings.select, key) && one.settings.select.kind === 'patterns') continue;
      const { id } = one.settings;
      const native = serviceId(key);
      const found = names.readingOf(id, key);
      const fault = typeof found === 'string' ? collision(at, native, found, taken) : unmapped(at, id, native, found);
      if (fault !== null) faults.push(fault);
      const ours = fault === null && typeof found === 'string' ? found : null;
      if (ours !== null) known.add(ours);
      reads.push({
        source: id,
        native,
        ours: ours ?? UNMAPPED,
        elsewhere: ours === null ? [] : elsewhere(names, seen, listed, id, ours),
      });
    }
  }
  for (const { service } of settings.registrations) known.add(serviceId(service));
  for (const { match } of settings.names) if (!match.includes('*') && parseServiceId(match) !== null) known.add(match);
  faults.push(...registrationFaults(settings, seen, names));
  return { reads, writes: writeRows(names, seen, [...known].sort()), faults };
}

function about({ settings, namespaces }: SourceNamesSeen): { as: string | null; namespaces?: NativeNamespaces } {
  return { as: settings.asNamespace, ...(namespaces === undefined ? {} : { namespaces }) };
}

function unmapped(at: number, source: string, native: string, found: Exclude<ReturnType<Names['readingOf']>, string>): PathFault {
  const got = `${JSON.stringify(native)} of ${source}, which has none`;
  if (found.why === 'rules') {
    const hint = 'a name has at most 255 bytes and no control characters, a namespace no "/"';
    return { path: ['sources', at, 'id'], expected: 'a name of ours for every service of the source', got, hint };
  }
  const { by, wanted } = found;
  const hint = `${wanted} is ${JSON.stringify(by.names.get(source) ?? '')} there: give this one a name of its own, or rename it`;
  return { path: ['services', by.entry ?? 0, 'names', source], expected: 'a name of ours for every service', got, hint };
}

/** Two native names that arrive at one of ours: the second has no place. */
function collision(at: number, native: string, ours: ServiceId, taken: Map<ServiceId, string>): PathFault | null {
  const first = taken.get(ours);
  if (first === undefined) {
    taken.set(ours, native);
    return null;
  }
  const got = `${ours} for ${JSON.stringify(first)} and for ${JSON.stringify(native)}`;
  return { path: ['sources', at, 'id'], expected: 'one native name for each of ours', got, hint: 'set names: for one of them' };
}

function elsewhere(
  names: Names,
  seen: readonly SourceNamesSeen[],
  listed: ReadonlyMap<string, ReadonlySet<string>>,
  self: string,
  ours: ServiceId,
): string[] {
  return seen.flatMap(({ settings: { id } }) => {
    const native = id === self ? null : names.toNative(id, ours);
    if (native === null) return [];
    const text = serviceId(native);
    return [`${id}: ${text}${listed.get(id)?.has(text) === true ? ' (listed)' : ''}`];
  });
}

function writeRows(names: Names, seen: readonly SourceNamesSeen[], known: readonly ServiceId[]): WriteRow[] {
  const able = seen.filter(({ canRegister }) => canRegister).map(({ settings }) => settings.id);
  const nativeIn = (id: string, ours: ServiceId): string | null => {
    const key = names.toWrite(id, ours);
    return key === null ? null : serviceId(key);
  };
  return known.map((ours) => ({ ours, natives: new Map(able.map((id) => [id, nativeIn(id, ours)])) }));
}

/** Templates that lead to a namespace the source cannot name, or to none at all. */
function templateFaults(settings: Settings, seen: readonly SourceNamesSeen[]): PathFault[] {
  return settings.names.flatMap(({ entry = 0, names }) =>
    seen.flatMap(({ settings: { id }, namespaces }) => {
      const template = names.get(id);
      if (template === undefined || namespaces === undefined) return [];
      const wrong = templateFault(template, namespaces);
      return wrong === null ? [] : [{ path: ['services', entry, 'names', id], expected: wrong, got: JSON.stringify(template) }];
    }),
  );
}

function templateFault(template: string, { home, others }: NativeNamespaces): string | null {
  const slash = template.indexOf('/');
  if (slash < 0) return home === null ? 'namespace/name: this source reads all namespaces' : null;
  const namespace = template.slice(0, slash);
  if (others !== 'none' || namespace === home || namespace.includes('{')) return null;
  return `a name in ${JSON.stringify(home)}, the only namespace of this source`;
}

/** The declared registrations that some target of theirs would refuse. */
function registrationFaults(settings: Settings, seen: readonly SourceNamesSeen[], names: Names): PathFault[] {
  return settings.registrations.flatMap((registration, at) => {
    const lost = targetsOf(registration, seen).filter((id) => names.toWrite(id, serviceId(registration.service)) === null);
    if (lost.length === 0) return [];
    const got = `${serviceId(registration.service)}, which has none in ${lost.join(', ')}`;
    const hint = 'give it one under services[].names';
    return [{ path: ['registrations', at, 'service'], expected: 'a service with a name in every target', got, hint }];
  });
}

function targetsOf({ sources }: RegistrationSettings, seen: readonly SourceNamesSeen[]): readonly string[] {
  if (sources !== null && sources.length > 0) return sources;
  const able = seen.filter(({ canRegister }) => canRegister);
  const marked = able.filter(({ settings }) => settings.register);
  return (marked.length > 0 ? marked : able.length === 1 ? able : []).map(({ settings }) => settings.id);
}
