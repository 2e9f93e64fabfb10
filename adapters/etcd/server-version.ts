// Owns what differs between releases of the server (protocol notes, section 7). Pure. Called by session.ts.

/** Fault of older members → the first good patch release per minor line; what is newer than the table is good. */
const FIXED_IN: readonly (readonly [fault: string, patches: Readonly<Record<string, number>>])[] = [
  ['progress answers run ahead of events', { '3.4': 25, '3.5': 8 }],
  ['events may come twice', { '3.4': 24, '3.5': 8 }],
  ['watches may lose events after a compaction; leases may be revoked by an old leader', { '3.4': 31, '3.5': 13 }],
  ['a delete may be missing on a watch opened at the revision of a compaction', { '3.4': 36, '3.5': 18 }],
  ['a keepalive may succeed on a revoked lease', { '3.4': 38, '3.5': 23, '3.6': 5 }],
  ['authorization can be bypassed', { '3.4': 42, '3.5': 28, '3.6': 9 }],
];

/** Known faults of this version, for a warning; empty for what we cannot read. */
export function knownFaults(version: string): readonly string[] {
  return FIXED_IN.filter(([, patches]) => olderThan(version, patches)).map(([fault]) => fault);
}

/** Rule 6: may an answer without events advance the revision? Only from 3.4.25 / 3.5.8 on; never when the version is unknown. */
export function progressInOrder(version: string | null): boolean {
  return version !== null && parse(version) !== null && !olderThan(version, { '3.4': 25, '3.5': 8 });
}

function olderThan(version: string, patches: Readonly<Record<string, number>>): boolean {
  const parsed = parse(version);
  if (parsed === null) return false;
  const patch = patches[parsed.minorLine];
  if (patch !== undefined) return parsed.patch < patch;
  return parsed.major < 3 || (parsed.major === 3 && parsed.minor < 4);
}

function parse(version: string): { major: number; minor: number; patch: number; minorLine: string } | null {
  const match = /^(\d+)\.(\d+)\.(\d+)/.exec(version);
  if (match === null) return null;
  const [, major = '', minor = '', patch = ''] = match;
  return { major: Number(major), minor: Number(minor), patch: Number(patch), minorLine: `${major}.${minor}` };
}
