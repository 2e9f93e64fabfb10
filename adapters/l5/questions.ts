// Owns the two questions of the protocol over a link: SIDs of names, states of SIDs, both in bounded requests.
// Called by poller.ts and adapter.ts; must never ask for one SID or name twice in a request (it would come back twice).
import { malformed } from './errors.ts';
import type { Link } from './link.ts';
import { type SidState, statesOf } from './mapping.ts';
import { encodeNames, encodeSync, REGISTER_BY_NAME_ACK, SYNC_BY_AGENT_ACK } from './messages.ts';
import { compareSids, type Sid, type SidText } from './sid.ts';

const NAMES_AT_ONCE = 500;

export interface States {
  readonly states: ReadonlyMap<SidText, SidState>;
  /** Other L5 servers, by the last answer; null: not said. */
  readonly servers: readonly number[] | null;
  /** Entries about SIDs that were not asked. */
  readonly unasked: number;
}

/** Without SIDs it still asks once, which proves that the server is one. `sids` has no duplicates. Rejects like `Link.ask`. */
export async function readSids(link: Link, sids: readonly Sid[], batch: number, signal: AbortSignal): Promise<States> {
  const all = new Map<SidText, SidState>();
  let servers: readonly number[] | null = null;
  let unasked = 0;
  for (let at = 0; at === 0 || at < sids.length; at += batch) {
    const part = sids.slice(at, at + batch);
    const answer = await link.ask({ ack: SYNC_BY_AGENT_ACK, encode: (seqno, ip) => encodeSync(seqno, ip, part) }, signal);
    if (answer.sync === null) throw malformed(link.server.text, 'an answer 101 without its content');
    const read = statesOf(answer.sync, part);
    for (const [id, state] of read.states) all.set(id, state);
    servers = answer.sync.servers;
    unasked += read.unasked;
  }
  return { states: all, servers, unasked };
}

/** The SIDs of those names that have one. A name of several has the lowest, on every machine. Rejects like `Link.ask`. */
export async function resolveNames(link: Link, names: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, Sid>> {
  const found = new Map<string, Sid>();
  const asked = new Set(names);
  for (let at = 0; at < names.length; at += NAMES_AT_ONCE) {
    const part = names.slice(at, at + NAMES_AT_ONCE);
    const answer = await link.ask({ ack: REGISTER_BY_NAME_ACK, encode: (seqno, ip) => encodeNames(seqno, ip, part) }, signal);
    if (answer.names === null) throw malformed(link.server.text, 'an answer 105 without its content');
    for (const { sid, name } of answer.names) {
      const before = found.get(name);
      if (asked.has(name) && (before === undefined || compareSids(sid, before) < 0)) found.set(name, sid);
    }
  }
  return found;
}
