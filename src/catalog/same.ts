// Owns equality of what goes into and comes out of a merge: equal content keeps its object and its revision (M8).
// Called at intake and by merge; pure.
import { type Instance, sameLocality } from '../model/instance.ts';
import { sameMetadata } from '../model/metadata.ts';
import type { FoundConflict } from './conflicts.ts';
import type { Provenance, View, ViewInstance } from './view.ts';

/** Equal records of one source, native id included. */
export function sameRecord(a: Instance, b: Instance): boolean {
  return (
    a.id === b.id &&
    a.host === b.host &&
    a.port === b.port &&
    a.transport === b.transport &&
    a.weight === b.weight &&
    a.health === b.health &&
    a.isolated === b.isolated &&
    a.protocol === b.protocol &&
    a.version === b.version &&
    sameLocality(a.locality, b.locality) &&
    sameMetadata(a.metadata, b.metadata)
  );
}

/** Equal merged instances, provenances included. */
export function sameInstance(a: ViewInstance, b: ViewInstance): boolean {
  return (
    a.host === b.host &&
    a.port === b.port &&
    a.network === b.network &&
    a.transport === b.transport &&
    a.weight === b.weight &&
    a.registryHealth === b.registryHealth &&
    a.isolated === b.isolated &&
    a.held === b.held &&
    a.suspect === b.suspect &&
    a.protocol === b.protocol &&
    a.version === b.version &&
    sameLocality(a.locality, b.locality) &&
    sameTexts(a.groups, b.groups) &&
    sameList(a.provenance, b.provenance, sameProvenance) &&
    sameMetadata(a.metadata, b.metadata)
  );
}

export function sameShares(a: View['shares'], b: View['shares']): boolean {
  if (a === undefined || b === undefined) return a === b;
  return sameList(a, b, (x, y) => x.source === y.source && x.share === y.share);
}

/** Equal but for the time since when they stand. */
export function sameConflict(a: FoundConflict, b: FoundConflict): boolean {
  return (
    a.instance === b.instance &&
    a.field === b.field &&
    a.chosen === b.chosen &&
    sameList(a.values, b.values, (x, y) => x.source === y.source && x.value === y.value)
  );
}

export function sameList<T>(a: readonly T[], b: readonly T[], same: (x: T, y: T) => boolean): boolean {
  if (a === b) return true;
  return a.length === b.length && a.every((x, i) => a[i] === b[i] || sameAt(x, b[i], same));
}

function sameAt<T>(x: T, y: T | undefined, same: (x: T, y: T) => boolean): boolean {
  return y !== undefined && same(x, y);
}

function sameTexts(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return sameList(a, b, (x, y) => x === y);
}

function sameProvenance(a: Provenance, b: Provenance): boolean {
  return (
    a.source === b.source &&
    a.nativeId === b.nativeId &&
    a.weight === b.weight &&
    a.health === b.health &&
    a.isolated === b.isolated &&
    a.copyOf === b.copyOf &&
    a.held === b.held
  );
}
