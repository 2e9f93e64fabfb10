// Owns the answer to "is this still the registry that we knew?" (catalog rule R6). An index alone cannot tell: a wiped Consul that is
// filled again soon stands above the index that we knew. Two marks live in its data and are made anew with it:
//   - the trust domain of Connect, a UUID made with the cluster's state and kept by snapshots; readable without any right;
//   - node ids of the servers with the index at which each was created. Servers are replaced one by one: only when none is left that we
//     knew are these other data (a secondary datacenter, whose trust domain is that of the primary, shows its wipe by this alone).
// Older data of the same registry (a restore) keeps both marks; that an index went back shows it (truth.ts).
// Called by truth.ts before anything is taken away, and by guard.ts; must never call a registry new because it could not be asked.
import { createHash } from 'node:crypto';
import { raceAbort } from '../../src/kernel/cancel.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { ConsulFailure } from './errors.ts';
import { type Line, reading } from './line.ts';

const ROOTS = '/v1/connect/ca/roots';
export const SERVERS = '/v1/health/service/consul';
/** A registry that had marks and shows none for this long is taken for another one, ms. */
const MARKLESS_MS = 60_000;

/** What is seen of the registry's identity at one moment. */
export interface Mark {
  /** Null: Connect is off, or not there yet. */
  readonly domain: string | null;
  /** Empty: not shown to us. */
  readonly servers: ReadonlySet<string>;
}

export class History {
  readonly #line: Line;
  #mark: Mark | null = null;
  #name = '';
  #number = 0;
  #marklessSince: number | null = null;
  #running: Promise<void> | null = null;
  #queued: Promise<void> | null = null;

  constructor(line: Line) {
    this.#line = line;
  }

  /** Rises with each history that was seen to begin. */
  get number(): number {
    return this.#number;
  }

  /** The same for the same data over restarts of ours; another one for each new beginning. */
  get epoch(): string {
    return `${this.#name}${this.#number}`;
  }

  /** Whether marks were ever looked at: from the first list on they must be known. */
  get known(): boolean {
    return this.#mark !== null;
  }

  /** The leader's index went back: other data (its marks say so), or older ones of the same registry. Rejects when lost. */
  async wentBack(signal: AbortSignal): Promise<void> {
    const number = this.#number;
    await this.look(signal);
    if (this.#number === number) this.#begin();
  }

  #begin(): void {
    this.#number++;
    this.#line.count('epochs');
  }

  /** Looks at the marks once more, after the call: what was read before it belongs to `epoch` as it is then. Rejects when lost. */
  async look(signal: AbortSignal): Promise<void> {
    // A look that is under way may have been answered before the caller's list was.
    this.#queued ??= this.#enqueue();
    await raceAbort(this.#queued, signal);
  }

  #enqueue(): Promise<void> {
    const before = this.#running;
    const next = async (): Promise<void> => {
      await before?.catch(() => undefined);
      this.#running = this.#queued;
      this.#queued = null;
      this.adopt(await this.#read());
    };
    // The first await is passed by everybody: `#queued` is set before `next` goes on.
    const queued = Promise.resolve().then(next);
    queued.catch(() => undefined);
    return queued;
  }

  async #read(): Promise<Mark> {
    const { client } = this.#line;
    const never = new AbortController().signal;
    const query = reading(this.#line);
    const [domain, servers] = await Promise.all([
      client.get(ROOTS, query, never, 'control').then(({ body }) => domainIn(body), withoutConnect),
      client.get(SERVERS, query, never, 'control').then(({ body }) => serversIn(body)),
    ]);
    return { domain, servers };
  }

  /** The list of servers, read by somebody else; one that shows none says nothing. */
  sawServers(body: unknown): void {
    const servers = serversIn(body);
    if (this.#mark !== null && servers.size > 0) this.adopt({ domain: null, servers });
  }

  /** Takes what was seen now. Throws SourceError `lost` when a registry that had marks shows none. */
  adopt(seen: Mark): void {
    const before = this.#mark;
    if (before !== null && isMarkless(seen) && !isMarkless(before)) {
      const now = this.#line.clock.now();
      this.#marklessSince ??= now;
      if (now - this.#marklessSince < MARKLESS_MS) {
        const text = 'it does not say yet which cluster it is: it may have begun anew';
        throw new SourceError('lost', `consul ${this.#line.client.origin}: ${text}`);
      }
    }
    this.#marklessSince = null;
    const other = before !== null && isOther(before, seen);
    if (other) this.#begin();
    if (before === null || other) this.#name = nameOf(seen);
    this.#mark = other ? seen : merged(before, seen);
  }
}

/** Whether two marks cannot belong to the same data. */
export function isOther(before: Mark, now: Mark): boolean {
  if (before.domain !== null && now.domain !== null && before.domain !== now.domain) return true;
  if (isMarkless(now)) return !isMarkless(before);
  if (before.servers.size === 0 || now.servers.size === 0) return false;
  return ![...now.servers].some((server) => before.servers.has(server));
}

function isMarkless({ domain, servers }: Mark): boolean {
  return domain === null && servers.size === 0;
}

function merged(before: Mark | null, now: Mark): Mark {
  return {
    domain: now.domain ?? before?.domain ?? null,
    servers: now.servers.size > 0 ? now.servers : (before?.servers ?? now.servers),
  };
}

function nameOf({ domain, servers }: Mark): string {
  if (domain === null && servers.size === 0) return '';
  const text = domain ?? [...servers].sort().join();
  return `${createHash('sha256').update(text).digest('hex').slice(0, 12)}.`;
}

function domainIn(body: unknown): string | null {
  const domain = isRecord(body) ? body['TrustDomain'] : null;
  return typeof domain === 'string' && domain !== '' && domain.length <= 255 ? domain : null;
}

/**
 * Connect may be off, its authority not set up (one that fails must not stop discovery), the call unknown to an old server or forbidden
 * by a proxy: no mark. Whether the servers are lost is told by the call beside this one.
 */
function withoutConnect(thrown: unknown): null {
  if (thrown instanceof ConsulFailure) return null;
  throw thrown;
}

/** `<node id or name>@<index of creation>` of each server of the list. */
export function serversIn(body: unknown): ReadonlySet<string> {
  const servers = new Set<string>();
  for (const entry of Array.isArray(body) ? body.slice(0, 100) : []) {
    const node: unknown = isRecord(entry) ? entry['Node'] : null;
    if (!isRecord(node)) continue;
    const id = typeof node['ID'] === 'string' && node['ID'] !== '' ? node['ID'] : node['Node'];
    if (typeof id === 'string' && typeof node['CreateIndex'] === 'number') servers.add(`${id}@${node['CreateIndex']}`);
  }
  return servers;
}
