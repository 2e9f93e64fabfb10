// Owns the subscriptions of one source on the shared session: who watches what, the newest snapshot of each, resync (section 4).
// Called by adapter.ts (join) and line.ts (attached, pushes, lost); must never keep a snapshot over a loss: the catalog remembers.

import type { AdapterDeps } from '../../src/adapter/contract.ts';
import type { Timer } from '../../src/kernel/clock.ts';
import type { Mailbox } from '../../src/kernel/mailbox.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { asSourceError, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import type { LineUser } from './line.ts';
import { type MappingOptions, mapHosts, type NativeName } from './mapping.ts';
import { decodeServiceInfo, type ServiceInfo } from './native.ts';
import type { Session } from './session.ts';

type Box = Mailbox<Snapshot | Unchanged>;

/** Every watched service is asked for again at a random moment of this range, ms: a push may be lost. */
const RESYNC_MS = [60_000, 120_000] as const;
const TICK_MS = 1_000;
/** Resyncs under way at once: they must not fill the session's places. */
const RESYNCS_AT_ONCE = 16;

interface Entry {
  readonly key: ServiceKey;
  readonly native: NativeName;
  readonly boxes: Set<Box>;
  /** Number of the session that `snapshot` and `time` are from; -1: none. */
  from: number;
  /** lastRefTime of the newest list, server's clock; comparable within one session only. */
  time: number | null;
  digest: string;
  snapshot: Snapshot | null;
  /** Number of the session that holds our subscription. */
  subscribedOn: number;
  syncing: Promise<void> | null;
  resyncAt: number;
}

export interface FeedDeps extends Pick<AdapterDeps, 'clock' | 'random' | 'count'> {
  readonly mapping: MappingOptions;
  /** The service stands in no complete and recent list of names. */
  readonly lacks: (key: ServiceKey) => boolean;
}

export class Feed implements LineUser {
  readonly #deps: FeedDeps;
  readonly #entries = new Map<string, Entry>();
  #session: Session | null = null;
  #timer: Timer | null = null;
  #asking = 0;

  constructor(deps: FeedDeps) {
    this.#deps = deps;
  }

  /** Adds a reader of one service; the returned function takes it out again. The box fails when the session is lost. */
  join(key: ServiceKey, native: NativeName, box: Box): () => void {
    const id = idOf(native);
    let entry = this.#entries.get(id);
    if (entry === undefined) {
      entry = {
        key,
        native,
        boxes: new Set(),
        from: -1,
        time: null,
        digest: '',
        snapshot: null,
        subscribedOn: -1,
        syncing: null,
        resyncAt: Number.POSITIVE_INFINITY,
      };
      this.#entries.set(id, entry);
    }
    const joined = entry;
    joined.boxes.add(box);
    if (joined.snapshot !== null && joined.from === this.#session?.number) box.put(joined.snapshot);
    void this.#sync(joined);
    return () => {
      joined.boxes.delete(box);
      if (joined.boxes.size === 0) void this.#sync(joined);
    };
  }

  async attached(session: Session): Promise<void> {
    this.#session = session;
    await Promise.all([...this.#entries.values()].map((entry) => this.#sync(entry)));
  }

  lost(error: SourceError): void {
    this.#session = null;
    this.#timer?.cancel();
    this.#timer = null;
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    for (const entry of entries) fail(entry, error);
  }

  onService(session: Session, value: unknown): void {
    const info = decodeServiceInfo(value);
    const named = info ?? nameOf(value);
    const entry = named === null ? undefined : this.#entries.get(idOf(named));
    if (entry === undefined) return;
    if (info === null) {
      this.#deps.count('push.malformed');
      this.#drop(entry, malformed(session));
    } else this.#take(entry, session, info);
  }

  /** Makes the server's subscription what the readers want; one call at a time for each service. */
  #sync(entry: Entry): Promise<void> {
    entry.syncing ??= this.#syncNow(entry).finally(() => {
      entry.syncing = null;
    });
    return entry.syncing;
  }

  async #syncNow(entry: Entry): Promise<void> {
    for (;;) {
      const session = this.#session;
      if (session === null || this.#entries.get(idOf(entry.native)) !== entry) return;
      const wanted = entry.boxes.size > 0;
      if (wanted === (entry.subscribedOn === session.number)) {
        if (!wanted) this.#entries.delete(idOf(entry.native));
        return;
      }
      try {
        const answer = await session.call('SubscribeServiceRequest', this.#subscription(entry, wanted), never());
        entry.subscribedOn = wanted ? session.number : -1;
        if (!wanted || session !== this.#session) continue;
        const info = decodeServiceInfo(answer.body['serviceInfo']);
        if (info === null) throw malformed(session);
        this.#take(entry, session, info);
        this.#tickLater();
      } catch (thrown) {
        if (session !== this.#session) continue;
        entry.subscribedOn = -1;
        this.#drop(entry, asSourceError(thrown));
        return;
      }
    }
  }

  #subscription({ native }: Entry, subscribe: boolean): Readonly<Record<string, unknown>> {
    // One entry per service and connection: clusters are filtered by us (section 5, rule 9).
    return { serviceName: native.name, groupName: native.group, subscribe, clusters: '' };
  }

  #take(entry: Entry, session: Session, info: ServiceInfo): void {
    const { count, mapping, clock, random, lacks } = this.#deps;
    if (session !== this.#session) return;
    const known = entry.from === session.number;
    if (known && info.lastRefTime !== null && entry.time !== null && info.lastRefTime < entry.time) {
      count('push.older');
      return;
    }
    if (info.protected) count('protection');
    const { instances, rejected, digest } = mapHosts(info.hosts, info.protected ? 'protected' : 'believed', mapping);
    const absent = info.hosts.length === 0 && lacks(entry.key);
    const shown = `${absent}${digest}`;
    entry.resyncAt = clock.now() + RESYNC_MS[0] + random() * (RESYNC_MS[1] - RESYNC_MS[0]);
    entry.time = info.lastRefTime ?? (known ? entry.time : null);
    const same = known && entry.snapshot !== null && entry.digest === shown;
    entry.from = session.number;
    entry.digest = shown;
    if (!same) {
      const base = { epoch: session.connectionId || `session-${session.number}`, sourceRevision: String(info.lastRefTime ?? 0) };
      entry.snapshot = absent ? { kind: 'absent', ...base } : { kind: 'present', ...base, instances, rejected };
    }
    const item = same ? UNCHANGED : (entry.snapshot ?? UNCHANGED);
    for (const box of entry.boxes) box.put(item);
  }

  /** The readers are told and gone; the supervisor comes again. */
  #drop(entry: Entry, error: SourceError): void {
    fail(entry, error);
    entry.boxes.clear();
    entry.snapshot = null;
    entry.from = -1;
    if (entry.syncing === null) void this.#sync(entry);
    else if (entry.subscribedOn < 0) this.#entries.delete(idOf(entry.native));
  }

  #tickLater(): void {
    if (this.#timer !== null || this.#session === null || this.#entries.size === 0) return;
    this.#timer = this.#deps.clock.setTimer(TICK_MS, () => {
      this.#timer = null;
      const now = this.#deps.clock.now();
      for (const entry of this.#entries.values()) {
        if (this.#asking >= RESYNCS_AT_ONCE) break;
        if (entry.resyncAt <= now && entry.boxes.size > 0) void this.#resync(entry);
      }
      this.#tickLater();
    });
  }

  async #resync(entry: Entry): Promise<void> {
    const session = this.#session;
    if (session === null) return;
    entry.resyncAt = this.#deps.clock.now() + RESYNC_MS[1];
    this.#asking++;
    try {
      const info = await queryService(session, entry.native, never());
      if (this.#entries.get(idOf(entry.native)) === entry) this.#take(entry, session, info);
    } catch (thrown) {
      if (session === this.#session) this.#drop(entry, asSourceError(thrown));
    } finally {
      this.#asking--;
    }
  }
}

const UNCHANGED: Unchanged = { kind: 'unchanged' };

/** One full read over a session. Rejects with SourceError. */
export async function queryService(session: Session, { group, name }: NativeName, signal: AbortSignal): Promise<ServiceInfo> {
  const fields = { serviceName: name, groupName: group, cluster: '', healthyOnly: false, udpPort: 0 };
  const { body } = await session.call('ServiceQueryRequest', fields, signal);
  const info = decodeServiceInfo(body['serviceInfo']);
  if (info === null) throw malformed(session);
  return info;
}

function malformed(session: Session): SourceError {
  return new SourceError('malformed', `nacos ${session.server.grpc}: a list of hosts is null, too long or no list`);
}

/** The name in a list that is broken otherwise. */
function nameOf(value: unknown): NativeName | null {
  const fixed = typeof value === 'object' && value !== null ? { ...value, hosts: [] } : null;
  return decodeServiceInfo(fixed);
}

function fail({ boxes }: Entry, error: SourceError): void {
  for (const box of boxes) box.fail(error);
}

function idOf({ group, name }: NativeName): string {
  return `${group}@@${name}`;
}

function never(): AbortSignal {
  return NEVER.signal;
}

const NEVER = new AbortController();
