// Owns the way from an answer to what the catalog may see: entries of one SID → instances, rejected records, a revision. Pure.
// Called by questions.ts (group) and adapter.ts (snapshot). Must never turn a missing SID into more than "nothing known".
import { createHash } from 'node:crypto';
import { type DialPolicy, REFUSAL_TEXT } from '../../src/kernel/dial.ts';
import { type Instance, type Locality, scaleWeight } from '../../src/model/instance.ts';
import { boundedMetadata } from '../../src/model/metadata.ts';
import { nameFault } from '../../src/model/service.ts';
import type { RejectedRecord, Snapshot } from '../../src/model/snapshot.ts';
import type { IpcEntry, SyncAnswer } from './messages.ts';
import { dottedQuad, parseSid, type Sid, type SidText, sidText } from './sid.ts';

/** The protocol has no revisions that could start anew. */
export const EPOCH = 'l5';

/** One entry with its place. */
export interface Entry {
  readonly ip: number;
  readonly port: number;
  readonly weight: number;
  readonly area: number;
  readonly city: number;
  readonly idc: number;
}

/** What one answer says of one SID. */
export interface SidState {
  readonly sid: Sid;
  /** The server knows it and it has a healthy instance, though maybe none for this caller. */
  readonly known: boolean;
  readonly name: string;
  readonly policy: number;
  /** Sorted, so that equal answers are equal whatever their order was. */
  readonly entries: readonly Entry[];
  /** Equal texts, equal states. */
  readonly text: string;
}

const NOWHERE: Omit<IpcEntry, 'ip'> = { area: 0, city: 0, idc: 0 };

/** One state for each SID that was asked, and how many entries were about others. */
export function statesOf(answer: SyncAnswer, asked: readonly Sid[]): { states: Map<SidText, SidState>; unasked: number } {
  const groups = new Map(asked.map((sid) => [sidText(sid), newGroup(sid)]));
  const places = new Map(answer.ipc.map((ipc) => [ipc.ip, ipc]));
  let unasked = 0;
  for (const { sid, name, policy } of answer.sids) {
    const group = groups.get(sidText(sid));
    if (group === undefined) unasked++;
    else Object.assign(group, { known: true, name, policy });
  }
  for (const { sid, ip, port, weight } of answer.serv) {
    const group = groups.get(sidText(sid));
    const { area, city, idc } = places.get(ip) ?? NOWHERE;
    if (group === undefined) unasked++;
    else group.entries.push({ ip, port, weight, area, city, idc });
  }
  const states = new Map<SidText, SidState>();
  for (const [id, { sid, entries, known, name, policy }] of groups) {
    entries.sort(compareEntries);
    const text = `${known} ${policy} ${JSON.stringify(name)} ${entries.map(entryText).join(' ')}`;
    states.set(id, { sid, known: known || entries.length > 0, name, policy, entries, text });
  }
  return { states, unasked };
}

interface Group {
  readonly sid: Sid;
  readonly entries: Entry[];
  known: boolean;
  name: string;
  policy: number;
}

function newGroup(sid: Sid): Group {
  return { sid, entries: [], known: false, name: '', policy: 0 };
}

function compareEntries(a: Entry, b: Entry): number {
  return (a.ip >>> 0) - (b.ip >>> 0) || a.port - b.port || b.weight - a.weight;
}

function entryText({ ip, port, weight, area, city, idc }: Entry): string {
  return `${ip}:${port}:${weight}:${area}:${city}:${idc}`;
}

export interface MappingOptions {
  readonly dial: DialPolicy;
  readonly normalWeight: number;
  readonly protocols: ReadonlyMap<SidText, string>;
  readonly count: (what: string, by?: number) => void;
}

/** `seen`: the SID was known before, so that its absence may mean that all of it is unhealthy: an empty service, not an unknown one. */
export function snapshotOf(state: SidState, seen: boolean, options: MappingOptions): Snapshot {
  const sourceRevision = createHash('sha256').update(state.text).digest('hex').slice(0, 16);
  const base = { epoch: EPOCH, sourceRevision };
  if (!state.known && !seen) return { ...base, kind: 'absent' };
  const id = sidText(state.sid);
  const instances = new Map<string, Instance>();
  const rejected = new Map<string, RejectedRecord>();
  const shared = metadataOf(state, options);
  for (const entry of state.entries) {
    const nativeId = `${id}/${dottedQuad(entry.ip)}:${entry.port}`;
    const judged = instanceOf(nativeId, entry, options);
    // Sorted by weight within an address: the first of two is the larger one.
    if (instances.has(nativeId)) options.count('instances.duplicate');
    else if (typeof judged !== 'string') {
      const protocol = options.protocols.get(id);
      instances.set(nativeId, { ...judged, metadata: shared, ...(protocol !== undefined && { protocol }) });
    } else {
      options.count('instances.rejected');
      rejected.set(nativeId, { nativeId, reason: judged });
    }
  }
  return { ...base, kind: 'present', instances: [...instances.values()], rejected: [...rejected.values()] };
}

/** An instance without what all of its SID share, or what is wrong with the entry. */
function instanceOf(id: string, entry: Entry, { dial, normalWeight }: MappingOptions): Omit<Instance, 'metadata'> | string {
  const host = dottedQuad(entry.ip);
  if (entry.port < 1 || entry.port > 65_535) return REFUSAL_TEXT.badPort;
  if (entry.ip === 0) return REFUSAL_TEXT.unspecified;
  const refusal = dial(host, entry.port);
  if (refusal !== null) return REFUSAL_TEXT[refusal];
  const weight = entry.weight > 0 ? scaleWeight(entry.weight, normalWeight) : null;
  if (weight === null) return `the weight ${entry.weight} is not above 0`;
  const locality = localityOf(entry);
  // The server leaves out what is unhealthy or isolated.
  const word = { health: 'healthy', isolated: false, transport: 'tcp' } as const;
  return { id, host, port: entry.port, weight, ...word, ...(locality !== null && { locality }) };
}

function localityOf({ area, city, idc }: Entry): Locality | null {
  if (area === 0 && city === 0 && idc === 0) return null;
  return {
    ...(area !== 0 && { region: String(area) }),
    ...(city !== 0 && { zone: String(city) }),
    ...(idc !== 0 && { campus: String(idc) }),
  };
}

function metadataOf(state: SidState, { count }: MappingOptions): ReadonlyMap<string, string> {
  const entries: [string, unknown][] = [
    ['l5.modid', state.sid.modid],
    ['l5.cmdid', state.sid.cmdid],
    ['l5.policy', state.policy],
  ];
  if (state.name !== '') entries.push(['l5.name', state.name]);
  const { metadata, cut } = boundedMetadata(entries);
  if (cut > 0) count('metadata.cut', cut);
  return metadata;
}

/** An L5 name that can be the name of a service: not empty, no control characters, and no SID, which would be another service. */
export function isAlias(name: string): boolean {
  return nameFault(name) === null && parseSid(name) === null;
}
