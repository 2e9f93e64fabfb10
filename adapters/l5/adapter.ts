// Owns one source of kind l5: binds poller, read desk and mapping to the adapter contract. Called by the core.
// Read-only, as the protocol is; must never retry (the supervisor does) or remember instances (the catalog does).
import type { Capabilities } from '../../src/adapter/capabilities.ts';
import type { Adapter, AdapterDeps, NativeNamespaces } from '../../src/adapter/contract.ts';
import { opened } from '../../src/adapter/opened.ts';
import { snapshotSlot } from '../../src/adapter/snapshot-slot.ts';
import { Mailbox } from '../../src/kernel/mailbox.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { capabilitiesOf } from './capabilities.ts';
import type { L5Config } from './config.ts';
import { ListFollower, WatchFollower } from './followers.ts';
import { EPOCH, type MappingOptions, type SidState, snapshotOf } from './mapping.ts';
import { type Follower, Poller } from './poller.ts';
import { readSids, resolveNames } from './questions.ts';
import { ReadDesk } from './read-desk.ts';
import { Seen } from './seen.ts';
import { Servers } from './servers.ts';
import { parseSid, type Sid, sidText } from './sid.ts';

/** What is known of a name that no server knows, or of a namespace that is not ours. */
const UNKNOWN: Snapshot = { kind: 'absent', epoch: EPOCH, sourceRevision: 'unknown' };
/** A connection must not use up the deadline of a call when the next server may answer. */
const MAX_CONNECT_MS = 3_000;
/** Of an answer: a hung server is found out well within 30 s, whatever the deadline of a call is. */
const MAX_ANSWER_MS = 10_000;

export class L5Adapter implements Adapter {
  readonly kind = 'l5';
  readonly capabilities: Capabilities;
  readonly namespaces: NativeNamespaces;
  readonly #config: L5Config;
  readonly #deps: AdapterDeps;
  readonly #mapping: MappingOptions;
  readonly #poller: Poller;
  readonly #desk: ReadDesk;
  readonly #seen = new Seen();
  readonly #closed = new AbortController();
  /** Of open streams: ended at the close. A signal for each would cost more than the stream. */
  readonly #slots = new Set<{ end(): void }>();

  /** `timeout`: deadline of one call, ms. */
  constructor(config: L5Config, timeout: number, deps: AdapterDeps) {
    const { clock, dial, count } = deps;
    const { maxAnswer, agentIp, normalWeight, protocols, sids, names, pollMs, batch } = config;
    this.#config = config;
    this.namespaces = { home: config.namespace, others: 'none' };
    this.#deps = deps;
    this.capabilities = capabilitiesOf({ lists: sids.length + names.length > 0, protocols: protocols.size > 0 });
    this.#mapping = { dial, normalWeight, protocols, count };
    const connectMs = Math.min(MAX_CONNECT_MS, timeout / 3);
    const answerMs = Math.min(MAX_ANSWER_MS, timeout / 2);
    const servers = new Servers(config.servers, { link: { clock, connectMs, answerMs, maxAnswer, agentIp }, dial, count });
    const onState = (state: SidState): void => this.#note(state);
    this.#poller = new Poller({ clock, servers, sids, names, pollMs, batch, count, onState });
    this.#desk = new ReadDesk(servers);
  }

  services(signal: AbortSignal): AsyncIterable<ServiceList> {
    const slot = new Mailbox<ServiceList>();
    return this.#stream(slot, new ListFollower(slot, () => this.#list()), signal);
  }

  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<Snapshot | Unchanged> {
    const slot = snapshotSlot();
    // Another namespace is watched like the scope itself: its services are unknown as long as the server answers at all.
    const wants = this.#wanted(key);
    const snapshot = (state: SidState | null): Snapshot => this.#snapshot(state);
    return this.#stream(slot, new WatchFollower(wants, slot, snapshot, this.#deps.clock), signal);
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    signal.throwIfAborted();
    if (this.#closed.signal.aborted) throw new SourceError('lost', 'the source is closed');
    const wants = this.#wanted(key);
    if (wants === null) return UNKNOWN;
    const until = AbortSignal.any([signal, this.#closed.signal]);
    return this.#desk.read(until, async (link) => {
      const sid = typeof wants === 'string' ? (await resolveNames(link, [wants], until)).get(wants) : wants;
      if (sid === undefined) return UNKNOWN;
      const state = (await readSids(link, [sid], 1, until)).states.get(sidText(sid)) ?? null;
      if (state !== null) this.#note(state);
      return this.#snapshot(state);
    });
  }

  async close(): Promise<void> {
    this.#closed.abort(new SourceError('lost', 'the source is closed'));
    for (const slot of this.#slots) slot.end();
  }

  #stream<T>(slot: Mailbox<T>, follower: Follower, signal: AbortSignal): AsyncIterable<T> {
    return opened(() => {
      if (signal.aborted) return null;
      if (this.#closed.signal.aborted) throw new SourceError('lost', 'the source is closed');
      const unfollow = this.#poller.follow(follower);
      this.#slots.add(slot);
      return slot.read(signal, () => {
        this.#slots.delete(slot);
        unfollow();
      });
    });
  }

  #list(): ServiceList {
    const { namespace, aliases: listed } = this.#config;
    const { sids, aliases } = this.#poller.scope();
    const names = [...sids.map(sidText), ...(listed ? aliases : [])];
    return { keys: names.map((name) => ({ namespace, name })), failed: [], complete: true };
  }

  /** What the key asks for: a SID, an L5 name, or null for a namespace that is not this source's. */
  #wanted({ namespace, name }: ServiceKey): Sid | string | null {
    return namespace === this.#config.namespace ? (parseSid(name) ?? name) : null;
  }

  #note(state: SidState): void {
    if (state.known) this.#seen.add(sidText(state.sid));
  }

  #snapshot(state: SidState | null): Snapshot {
    return state === null ? UNKNOWN : snapshotOf(state, this.#seen.has(sidText(state.sid)), this.#mapping);
  }
}
