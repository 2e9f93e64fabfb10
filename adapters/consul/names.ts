// Owns the list of names: one slow blocking query of /catalog/services that the list of the source and the firehose share.
// Called by adapter.ts and firehose.ts; must never call a filtered list complete.
import { nameFault } from '../../src/model/service.ts';
import { type ServiceList, SourceError } from '../../src/model/snapshot.ts';
import { malformed } from './errors.ts';
import { Feed } from './feed.ts';
import type { Guard } from './guard.ts';
import { type Line, refuseStale } from './line.ts';
import { decodeNames } from './native.ts';
import { BlockingQuery } from './query.ts';
import { badName, keyOf, PartialList } from './truth.ts';

/** Its index moves with every change of any service: no more than one request in this time. */
const MIN_GAP_MS = 5_000;
const PATH = '/v1/catalog/services';

/** One answer; it comes also when the names are the same, since some service changed then. */
export interface NamesItem {
  readonly list: ServiceList;
  readonly changed: boolean;
}

export type NamesFeed = Feed<NamesItem>;

export function namesFeed(line: Line, guard: Guard): NamesFeed {
  return new Feed((signal) => names(line, guard, signal));
}

async function* names(line: Line, guard: Guard, signal: AbortSignal): AsyncGenerator<NamesItem, void, void> {
  const query = new BlockingQuery(line, PATH, {}, { streamable: false, minGapMs: MIN_GAP_MS });
  const slot = line.slots.take();
  const member = guard.join();
  const until = AbortSignal.any([signal, member.signal]);
  let before = '';
  try {
    for (;;) {
      const answer = await query.next(until);
      refuseStale(line, answer);
      const found = decodeNames(answer.body);
      if (found === null) throw malformed(line.client.origin, PATH, 'no list of names');
      if (found.length === 0 && answer.headers.defaultDeny && !line.client.hasToken) {
        throw new PartialList(line.client.origin, null, true);
      }
      const list = listOf(found, answer.headers.filtered, line);
      const digest = JSON.stringify([list.complete, ...list.keys.map(({ name }) => name)]);
      query.returned(digest !== before);
      yield { list, changed: digest !== before };
      before = digest;
    }
  } finally {
    member.leave();
    void query.held.then(() => slot.release());
  }
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
