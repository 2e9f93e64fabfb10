// Owns what all readers of one source share: the client, the parameters that go with every read, and the one check of staleness.
// Called by query.ts, truth.ts, guard.ts, names.ts and firehose.ts.
import type { Clock } from '../../src/kernel/clock.ts';
import type { Random } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { Answer, ConsulClient, Query } from './client.ts';
import type { ConsulConfig } from './config.ts';
import type { Slots } from './slots.ts';

export interface Line {
  readonly client: ConsulClient;
  readonly config: ConsulConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly slots: Slots;
  readonly count: (what: string, by?: number) => void;
  /** What was seen of this server that is not as documented. */
  readonly quirks: { headerless: number };
}

/** Rule 12: a server that has not heard of its leader for this long is not believed, ms. */
const MAX_LAST_CONTACT_MS = 10_000;

/** Where: datacenter, namespace, partition; never sent when not configured. */
export function scope({ config }: Line): Query {
  return { dc: config.datacenter, ns: config.namespace, partition: config.partition };
}

/** The parameters of reads that may be stale. */
export function reading(line: Line): Query {
  const { consistency } = line.config;
  return { ...scope(line), stale: consistency === 'stale' ? '' : null, consistent: consistency === 'consistent' ? '' : null };
}

/** Rule 12, for plain answers only: on streaming ones these headers mean nothing. Throws SourceError `lost`. */
export function refuseStale({ client }: Pick<Line, 'client'>, { headers }: Answer): void {
  if (headers.backend !== 'blocking-query') return;
  if (headers.knownLeader && headers.lastContactMs <= MAX_LAST_CONTACT_MS) return;
  const why = headers.knownLeader ? `has not heard of its leader for ${headers.lastContactMs} ms` : 'knows no leader';
  throw new SourceError('lost', `consul ${client.origin}: the server that answered ${why}; its data may be old`);
}
