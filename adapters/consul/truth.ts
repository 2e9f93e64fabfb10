// Owns the judgement of an answer of /health/service: what it says of one service, whether it may remove, and whether it is news
// (protocol notes, section 3 rules 2 and 4, section 4 "ACL and emptiness"). Called by watch.ts, firehose.ts and adapter.read.
// Must never let an answer that may be filtered, or that streaming alone vouches for, take an instance away.
import type { Instance } from '../../src/model/instance.ts';
import { compareText, type ServiceKey } from '../../src/model/service.ts';
import { type Snapshot, SourceError } from '../../src/model/snapshot.ts';
import { type Answer, type AnswerHeaders, type Query, segment } from './client.ts';
import { malformed, safeText } from './errors.ts';
import type { History } from './history.ts';
import { type Line, reading, refuseStale, scope } from './line.ts';
import { digestOf, type MappedList, type MappingOptions, mapList } from './mapping.ts';
import { decodeNames } from './native.ts';

const MAX_ENTRIES = 100_000;
/** How many services are remembered between two lives of their watches. */
const MAX_MEMORIES = 20_000;

/** What is known of one service, over losses of its watches and over all who look at it. */
interface Known {
  /** Null: nothing yet. */
  instances: readonly Instance[] | null;
  /** Of what was last shown although the list was filtered. */
  partialDigest: string;
  /** The last index of each backend. */
  readonly indexes: Map<AnswerHeaders['backend'], bigint>;
  /** Number of the history to which they belong. */
  history: number;
}

/** What one watch has shown. */
export interface Memory {
  digest: string | null;
  readonly known: Known;
  /** The answer that was judged last, and to what: the same bytes again say the same, as long as nobody learned more of the service. */
  last: {
    readonly answer: string;
    readonly epoch: string;
    readonly instances: readonly Instance[];
    readonly snapshot: Snapshot;
  } | null;
}

/** What an answer says. */
export interface Reading {
  readonly changed: boolean;
  readonly snapshot: Snapshot;
  /** Of a plain answer: what the same path has now, as long as nothing of the service changed. */
  readonly index: bigint | null;
}

/** The list may be filtered: what it has besides the known is in `snapshot` (null: nothing), what it lacks counts for nothing. */
export class PartialList extends SourceError {
  readonly snapshot: Snapshot | null;

  constructor(origin: string, snapshot: Snapshot | null, anonymous: boolean) {
    const hint = anonymous
      ? 'ACLs are on and no token is set, so an empty answer may mean "not allowed": set auth.token'
      : 'the answer is filtered by ACLs: give the token service:read and node:read for what it should see';
    super('denied', `consul ${origin}: ${hint}`);
    this.name = 'PartialList';
    this.snapshot = snapshot;
  }
}

export class Truth {
  readonly #line: Line;
  readonly #mapping: MappingOptions;
  readonly #history: History;
  readonly #known = new Map<string, Known>();

  constructor(line: Line, history: History, mapping: MappingOptions) {
    this.#line = line;
    this.#history = history;
    this.#mapping = mapping;
  }

  /** For one watch, or one read. What is known is kept until `forget`; the oldest goes first when there is too much. */
  memory(name: string): Memory {
    let known = this.#known.get(name);
    if (known === undefined) {
      known = { instances: null, partialDigest: '', indexes: new Map(), history: this.#history.number };
      const [oldest] = this.#known.keys();
      if (this.#known.size >= MAX_MEMORIES && oldest !== undefined) this.#known.delete(oldest);
      this.#known.set(name, known);
    }
    return { digest: null, known, last: null };
  }

  /** Nobody watches it any more. */
  forget(name: string): void {
    this.#known.delete(name);
  }

  /** Path and own parameters of a service's list. */
  pathOf(name: string): { readonly path: string; readonly query: Query } {
    return { path: `/v1/health/service/${segment(name)}`, query: { peer: this.#line.config.peer } };
  }

  /** One plain read, judged. `fresh`: asked from the leader with a check that it still leads (verify, confirmation of holds). */
  async read(name: string, memory: Memory, fresh: boolean, signal: AbortSignal): Promise<Reading> {
    const { path, query } = this.pathOf(name);
    const how = this.#how(fresh);
    // Others may learn a higher index while this answer is on its way.
    const before = fresh ? [...memory.known.indexes.values()] : null;
    return this.judge(name, await this.#line.client.get(path, { ...how, ...query }, signal), memory, signal, before);
  }

  /**
   * Judges an answer against what is remembered, and remembers it. `before`: the answer is the leader's own, and these indexes were
   * known when it was asked. Throws PartialList or another SourceError.
   */
  async judge(
    name: string,
    answer: Answer,
    memory: Memory,
    signal: AbortSignal,
    before: readonly bigint[] | null = null,
  ): Promise<Reading> {
    const fresh = before !== null;
    refuseStale(this.#line, answer);
    const { headers } = answer;
    const same = fresh ? null : this.#sameAgain(answer, memory);
    if (same !== null) return same;
    const list = this.#map(name, answer);
    if (headers.backend === 'streaming' && this.#needsProof(list, memory)) {
      this.#line.count('streaming.confirmed');
      return this.read(name, memory, false, signal);
    }
    const wentBack = this.#wentBack(memory, headers, before);
    // A follower may lag behind the one that we heard last: the leader decides whether a history began anew.
    if (wentBack && !fresh) return this.read(name, memory, true, signal);
    // A list that takes away must be known to belong to the registry that had what it takes.
    if (wentBack) await this.#history.wentBack(signal);
    else if (!this.#history.known || takesAway(list, memory)) await this.#history.look(signal);
    this.#note(memory, headers);
    const empty = Array.isArray(answer.body) && answer.body.length === 0;
    if (headers.filtered || (empty && this.#blind(headers))) throw this.#partial(list, memory, headers);
    if (empty && this.#line.config.peer !== null && headers.index === 1n) {
      const { peer } = this.#line.config;
      const text = `nothing named ${safeText(name, 100)} ever came from the peer ${peer}: check peer, and that its other side exports it`;
      throw new SourceError('refused', `consul ${this.#line.client.origin}: ${text}`);
    }
    const absent = empty && !(await this.#named(name, memory, fresh, signal));
    const { epoch } = this.#history;
    const digest = `${absent ? 'absent' : 'present'} ${epoch} ${list.digest}`;
    const changed = digest !== memory.digest;
    memory.digest = digest;
    memory.known.instances = list.instances;
    memory.known.partialDigest = '';
    const base = { epoch, sourceRevision: `${headers.backend}:${headers.index ?? 0n}` };
    const snapshot: Snapshot = absent
      ? { ...base, kind: 'absent' }
      : { ...base, kind: 'present', instances: list.instances, rejected: list.rejected };
    memory.last = empty ? null : { answer: answer.digest, epoch, instances: list.instances, snapshot };
    return { changed, snapshot, index: headers.index };
  }

  /** Most waits end without news, and most sweeps find none: an answer of the same bytes is not decoded again. */
  #sameAgain(answer: Answer, memory: Memory): Reading | null {
    const { last, known } = memory;
    const { headers } = answer;
    if (last === null || headers.filtered || last.epoch !== this.#history.epoch || known.instances !== last.instances)
      return null;
    if (this.#wentBack(memory, headers, null) || answer.digest !== last.answer) return null;
    this.#note(memory, headers);
    return { changed: false, snapshot: last.snapshot, index: headers.index };
  }

  #map(name: string, { body }: Answer): MappedList {
    const { path } = this.pathOf(name);
    const { origin } = this.#line.client;
    if (Array.isArray(body) && body.length > MAX_ENTRIES) {
      throw new SourceError('limit', `consul ${origin}: ${path} has more than ${MAX_ENTRIES} instances`);
    }
    const list = mapList(body, name, this.#mapping);
    if (list === null) throw malformed(origin, path, 'no list');
    return list;
  }

  /** Streaming never says that it is filtered or that it knows nothing: what it takes away needs a plain answer. */
  #needsProof(list: MappedList, memory: Memory): boolean {
    return list.instances.length === 0 || takesAway(list, memory);
  }

  #how(fresh: boolean): Query {
    return fresh ? { ...scope(this.#line), consistent: '' } : reading(this.#line);
  }

  /** Nobody tells an anonymous reader that its lists are filtered. */
  #blind({ defaultDeny }: AnswerHeaders): boolean {
    return defaultDeny && !this.#line.client.hasToken;
  }

  /**
   * Whether the index is below one that was known (of the leader's: when it was asked). A plain one is never below what streaming told
   * before; the other way round is no sign.
   */
  #wentBack({ known }: Memory, { backend, index }: AnswerHeaders, before: readonly bigint[] | null): boolean {
    if (index === null || known.history !== this.#history.number) return false;
    const streaming = known.indexes.get('streaming');
    const last = before ?? (backend === 'streaming' ? [streaming ?? 0n] : [...known.indexes.values()]);
    return last.some((one) => index < one);
  }

  #note({ known }: Memory, { backend, index }: AnswerHeaders): void {
    // One history for all services that find out about the same new beginning.
    if (known.history !== this.#history.number) known.indexes.clear();
    known.history = this.#history.number;
    if (index !== null) known.indexes.set(backend, index);
  }

  /** Adds and updates, removes nothing. */
  #partial(list: MappedList, memory: Memory, headers: AnswerHeaders): PartialList {
    this.#line.count('acl.filtered');
    const { origin, hasToken } = this.#line.client;
    const { known } = memory;
    if (known.instances === null || list.instances.length === 0) return new PartialList(origin, null, !hasToken);
    const byId = new Map(known.instances.map((instance) => [instance.id, instance]));
    for (const instance of list.instances) byId.set(instance.id, instance);
    const instances = [...byId.values()].sort((a, b) => compareText(a.id, b.id));
    const digest = digestOf(instances, list.rejected);
    if (digest === known.partialDigest) return new PartialList(origin, null, !hasToken);
    known.partialDigest = digest;
    known.instances = instances;
    const sourceRevision = `${headers.backend}:${headers.index ?? 0n}`;
    const snapshot: Snapshot = {
      kind: 'present',
      epoch: this.#history.epoch,
      sourceRevision,
      instances,
      rejected: list.rejected,
    };
    return new PartialList(origin, snapshot, !hasToken);
  }

  /** Whether the name stands in the complete list of names; throws where the list may be filtered. */
  async #named(name: string, memory: Memory, fresh: boolean, signal: AbortSignal): Promise<boolean> {
    const { client, config } = this.#line;
    if (config.peer !== null) return config.peerServices.includes(name);
    const answer = await client.get('/v1/catalog/services', this.#how(fresh), signal);
    refuseStale(this.#line, answer);
    const names = decodeNames(answer.body);
    if (names === null) throw malformed(client.origin, '/v1/catalog/services', 'no list of names');
    if (names.includes(name)) return true;
    if (!answer.headers.filtered) return false;
    throw this.#partial({ instances: [], rejected: [], digest: '' }, memory, answer.headers);
  }
}

function takesAway(list: MappedList, { known }: Memory): boolean {
  const ids = new Set(list.instances.map(({ id }) => id));
  return (known.instances ?? []).some(({ id }) => !ids.has(id));
}

/** Names that cannot stand in a path as one segment; Consul answers 307 or 400 to them. */
export function badName(name: string): string | null {
  if (name === '.' || name === '..') return 'a name of dots alone cannot be asked for';
  return /[\u0000-\u001f\u007f]/.test(name) ? 'the name holds control characters' : null;
}

/** The namespace of our names where Consul has none. */
export function keyOf(name: string, namespace: string | null): ServiceKey {
  return { namespace: namespace ?? 'default', name };
}
