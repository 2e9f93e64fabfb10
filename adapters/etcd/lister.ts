// Owns a complete list of a prefix at one revision, in pages. Called by session.ts, adapter.ts and state-store.ts;
// must never return a part: any failure is a throw.
import { SourceError } from '../../src/model/snapshot.ts';
import { EtcdFailure, isCompacted, RESOURCE_EXHAUSTED } from './errors.ts';
import type { Listing } from './mirror.ts';
import { type Calls, type KeyValue, prefixEnd, prefixStart, type ResponseHeader } from './protocol.ts';

/** More keys below one prefix than this are refused (section 10). */
export const MAX_KEYS = 200_000;
const PAGE = 1_000;
const MAX_RESTARTS = 3;

/** How a page is asked for; `EtcdClient.call` with the rest of its arguments bound. */
export type RangeCall = (request: Calls['Range'][0]) => Promise<Calls['Range'][1]>;

/**
 * Linearizable. The revision is that of page 1: later headers carry the current one. Rejects with what `range` rejects with, or
 * with SourceError `limit` for too many keys.
 */
export async function listPrefix(range: RangeCall, prefix: string): Promise<Listing> {
  for (let restart = 0; ; restart++) {
    try {
      return await listOnce(range, Buffer.from(prefix));
    } catch (thrown) {
      // The revision of page 1 was compacted away while we read: only a new start gives a whole list.
      if (!isCompacted(thrown) || restart >= MAX_RESTARTS) throw thrown;
    }
  }
}

async function listOnce(range: RangeCall, prefix: Buffer): Promise<Listing> {
  const rangeEnd = prefixEnd(prefix);
  const kvs: KeyValue[] = [];
  let header: ResponseHeader | null = null;
  let key = prefixStart(prefix);
  let limit = PAGE;
  for (;;) {
    let page: Calls['Range'][1];
    try {
      page = await range({ key, rangeEnd, limit: String(limit), ...(header === null ? {} : { revision: header.revision }) });
    } catch (thrown) {
      if (!isTooLarge(thrown) || limit === 1) throw thrown;
      limit = Math.ceil(limit / 8);
      continue;
    }
    header ??= page.header;
    if (header === null) throw new SourceError('malformed', 'etcd: an answer without a header');
    for (const kv of page.kvs) kvs.push(kv);
    if (kvs.length > MAX_KEYS || BigInt(page.count) + BigInt(kvs.length - page.kvs.length) > BigInt(MAX_KEYS)) {
      throw new SourceError('limit', `etcd: more than ${MAX_KEYS} keys below the prefix: narrow prefix`);
    }
    const last = page.kvs.at(-1);
    if (!page.more || last === undefined) return { header, kvs };
    key = Buffer.concat([last.key, Buffer.from([0])]);
  }
}

/** Our own receive limit was hit by a page of fat values. */
function isTooLarge(thrown: unknown): boolean {
  return (
    thrown instanceof EtcdFailure && thrown.code === RESOURCE_EXHAUSTED && thrown.details.includes('Received message larger')
  );
}
