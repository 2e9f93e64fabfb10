// Owns the list of names: one slow blocking query of /catalog/services that the list of the source and the firehose share.
// Called by adapter.ts and firehose.ts; must never call a filtered list complete.
import { nameFault } from '../../src/model/service.ts';
import { type ServiceList, SourceError } from '../../src/model/snapshot.ts';
import type { Answer } from './client.ts';
import { malformed } from './errors.ts';
import { Feed } from './feed.ts';
import type { Guard } from './guard.ts';
import type { History } from './history.ts';
import { type Line, refuseStale, scope } from './line.ts';
import { decodeNames } from './native.ts';
import { BlockingQuery } from './query.ts';
import { badName, keyOf, PartialList } from './truth.ts';

/** Its index moves with every change of any service: for the names alone no more than one request in this time. */
const MIN_GAP_MS = 5_000;
const PATH = '/v1/catalog/services';

/** One answer; it comes also when the names are the same, since some service changed then. */
export interface NamesItem {
  readonly list: ServiceList;
  /** Of the list: moves with every change of any service. */
  readonly index: bigint | null;
}

export type NamesFeed = Feed<NamesItem>;

/** `pulse`: how far apart requests are while somebody lives by their pace, ms. */
export function namesFeed(line: Line, guard: Guard, history: History, pulse: () => number | null): NamesFeed {
  // Over losses of the query, too: what comes back may be older.
  const last: Last = { index: 0n, history: history.number };
  return new Feed((signal) => names(line, guard, history, last, pulse, signal));
}

/** The last index of the list, and the number of the history to which it belongs. */
interface Last {
  index: bigint;
  history: number;
}

async function* names(
  line: Line,
  guard: Guard,
  history: History,
  last: Last,
  pulse: () => number | null,
  signal: AbortSignal,
): AsyncGenerator<NamesItem, void, void> {
  const query = new BlockingQuery(line, PATH, {}, { streamable: false, minGapMs: MIN_GAP_MS, pulse });
  const slot = line.slots.take();
  const member = guard.join(signal);
  const until = member.signal;
  let before = '';
  try {
    for (;;) {
      const answer = await query.next(until);
      refuseStale(line, answer);
      await noteIndex(line, history, last, answer, until);
      const found = decodeNames(answer.body);
      if (found === null) throw malformed(line.client.origin, PATH, 'no list of names');
      if (found.length === 0 && answer.headers.defaultDeny && !line.client.hasToken) {
        throw new PartialList(line.client.origin, null, true);
      }
      const list = listOf(found, answer.headers.filtered, line);
      const digest = JSON.stringify([list.complete, ...list.keys.map(({ name }) => name)]);
      query.returned(digest !== before);
      before = digest;
      yield { list, index: answer.headers.index };
    }
  } finally {
    member.leave();
    void query.held.then(() => slot.release());
  }
}

/** Older data of the same registry keep its marks; its first sign is this list, whose index every change of a service raises. */
async function noteIndex(line: Line, history: History, last: Last, { headers }: Answer, signal: AbortSignal): Promise<void> {
  const { index } = headers;
  if (index === null) return;
  if (last.history === history.number && index < last.index) {
    // A follower may lag behind: the leader decides.
    const sure = await line.client.get(PATH, { ...scope(line), consistent: '' }, signal);
    if (sure.headers.index === null || sure.headers.index >= last.index) return;
    if (last.history === history.number) await history.wentBack(signal);
  }
  last.index = index;
  last.history = history.number;
}

function listOf(found: readonly string[], filtered: boolean, { config, count }: Line): ServiceList {
  const keys = [];
  for (const name of found.toSorted()) {
    if (name === 'consul' && !config.showConsul) continue;
    if (nameFault(name) !== null || badName(name) !== null) count('names.bad');
    else keys.push(keyOf(name, config.namespace));
  }
  if (filtered) count('acl.filteredNames');
  return { keys, failed: [], complete: !filtered };
}

/** The names of a peer, which Consul does not list. */
export function peerList({ config }: Line): ServiceList {
  const faulty = config.peerServices.find((name) => nameFault(name) !== null || badName(name) !== null);
  if (faulty !== undefined) throw new SourceError('refused', 'consul: peerServices holds a name that Consul cannot have');
  return { keys: config.peerServices.map((name) => keyOf(name, config.namespace)), failed: [], complete: true };
}
