// Owns writes of instances: register, beat, deregister, health, and what to make of the answers (protocol notes, section 5).
// Called by adapter.ts; must never write under another id than the one that the register answered.
import type { RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { accept, codeOf } from './answers.ts';
import { BAD_REQUEST, HEARTBEAT_ON_DISABLED, isMissing, NOT_FOUND, OK, SAME_INSTANCE } from './errors.ts';
import type { Feed } from './feed.ts';
import { healthCheck, type MappingOptions, nativeOf, rewritable } from './mapping.ts';
import { type DiscoverResponse, type NativeInstance, TYPE_INSTANCE, textOf } from './protocol.ts';
import { Question } from './question.ts';
import type { Servers } from './servers.ts';

/** Calls in flight at once; the server batches what comes within 32 ms. */
const IN_FLIGHT = 64;
/** From this many beats on one batch is sent instead. */
const BATCH_FROM = 32;
/** A register is surely visible to reads after this time (the server's cache ticks every second), ms. */
const VISIBLE_MS = 5_000;
/** A younger record is surely looked at when it is deleted, ms. */
const YOUNG_MS = 3_000;
/** Beats that the server refuses in a row before the registration counts as forgotten (section 5). */
const FORGOTTEN_AFTER = 2;
/** A service with more instances is not read on every beat: the beats themselves must tell. */
const MAX_CHECKED = 500;
/** A record without a health check does not end by itself. */
const ENDLESS_MS = Number.MAX_SAFE_INTEGER;
/** In the token of a receipt: we set the isolation flag, so a later register must undo it. */
const ISOLATED = 'isolated';

/** What this process knows of a registration of its own. */
interface Own {
  /** As it was written last, with its id. */
  readonly native: NativeInstance;
  readonly at: number;
  misses: number;
}

/** Ids of a service, as a read showed them; null: too many to look at each time. */
interface Presence {
  readonly question: Question;
  ids: ReadonlySet<string> | null;
}

export interface WriterDeps {
  readonly servers: Servers;
  readonly feed: Feed;
  readonly clock: Clock;
  readonly mapping: MappingOptions;
}

export class Writer {
  readonly #deps: WriterDeps;
  readonly #own = new Map<string, Own>();
  readonly #presence = new Map<ServiceId, Presence>();
  #batch = true;

  constructor(deps: WriterDeps) {
    this.#deps = deps;
  }

  put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    return inChunks(writes, (write) => settled(() => this.#put(write, how, signal), signal));
  }

  remove(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly (true | SourceError)[]> {
    return inChunks(receipts, (receipt) => settled(() => this.#remove(receipt, signal), signal));
  }

  /** Beats all, then looks where a read is cheap whether the registrations are still there: an unknown id is refused only at its 5th beat. */
  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    const beating = receipts.filter(({ leaseId }) => leaseId !== undefined);
    const batched = await this.#batchBeat(beating, signal);
    if (batched instanceof SourceError) return receipts.map(() => batched);
    const services = new Map(receipts.map(({ service }) => [serviceId(service), service]));
    const shown = new Map<ServiceId, ReadonlySet<string> | null>();
    await inChunks([...services], async ([id, key]) => shown.set(id, await this.#present(id, key, signal)));
    return inChunks(receipts, (receipt) =>
      settled(() => this.#renewed(receipt, batched, shown.get(serviceId(receipt.service)) ?? null, signal), signal),
    );
  }

  /** Registers the record again with another health: one that beats would turn healthy by itself. */
  async setHealth(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    // What we wrote ourselves may not be visible yet; after a restart of ours it is.
    const native = this.#own.get(receipt.nativeId)?.native ?? (await this.#recorded(receipt, signal));
    const ttl = health === 'unhealthy' || receipt.leaseId === undefined ? null : Number(receipt.leaseId);
    const changed = { ...native, healthy: { value: health !== 'unhealthy' }, ...withCheck(ttl) };
    await this.#register(changed, receipt.service, signal);
    this.#own.set(receipt.nativeId, { native: changed, at: this.#deps.clock.now(), misses: 0 });
  }

  /** The record as a read shows it. */
  async #recorded({ service, nativeId }: WriteReceipt, signal: AbortSignal): Promise<NativeInstance> {
    const question = new Question(TYPE_INSTANCE, service.namespace, service.name);
    const { server, result } = await this.#deps.servers.ask(question, signal);
    const answer = result.kind === 'answer' ? result.answer : {};
    const native = answer.instances?.find(({ id }) => textOf(id) === nativeId);
    if (native !== undefined) return rewritable(native);
    throw new SourceError('refused', `polaris ${server}: ${question.about} does not show this registration (any more)`);
  }

  async #put(write: Write, how: WriteMode, signal: AbortSignal): Promise<WriteReceipt | SourceError> {
    if (how.liveness === 'connection') {
      return new SourceError('refused', 'polaris cannot tie a record to a connection: use beat or persistent');
    }
    const { key, instance, previous } = write;
    // A record that is to be unhealthy must not beat: the server would turn it healthy.
    const beats = how.liveness === 'beat' && instance.health !== 'unhealthy';
    const ttl = ttlSeconds(how.ttl);
    const sendIsolate = instance.isolated || how.as === 'copy' || previous?.token === ISOLATED;
    const native = nativeOf(key, instance, { ttl: beats ? ttl : null, sendIsolate }, this.#deps.mapping);
    if (typeof native === 'string') return new SourceError('refused', `polaris: ${native}`);
    const nativeId = await this.#register(native, key, signal);
    this.#own.set(nativeId, { native: { ...native, id: { value: nativeId } }, at: this.#deps.clock.now(), misses: 0 });
    const receipt: WriteReceipt = {
      service: key,
      nativeId,
      ...(how.liveness === 'beat' ? { leaseId: String(ttl) } : {}),
      ...(instance.isolated ? { token: ISOLATED } : {}),
    };
    if (previous === undefined || previous.nativeId === nativeId) return receipt;
    // The record moved to another address; ours at the old one must not stay behind.
    await this.#remove(previous, signal);
    return receipt;
  }

  /** The id under which the record is. Throws SourceError. */
  async #register(native: NativeInstance, key: ServiceKey, signal: AbortSignal): Promise<string> {
    let { server, answer } = await this.#deps.servers.write('RegisterInstance', native, signal);
    // Twice the same id within one batch of the server: the other one went in. Ours goes into the next batch.
    for (let again = 0; again < 3 && codeOf(answer) === SAME_INSTANCE; again++) {
      ({ server, answer } = await this.#deps.servers.write('RegisterInstance', native, signal));
    }
    const target = codeOf(answer) === BAD_REQUEST ? await this.#aliasTarget(key, signal) : null;
    if (target !== null) {
      const real = { ...native, service: { value: target.name }, namespace: { value: target.namespace } };
      ({ server, answer } = await this.#deps.servers.write('RegisterInstance', real, signal));
    }
    accept(answer, server, 'RegisterInstance', key);
    const id = textOf(answer.instance?.id) ?? textOf(native.id) ?? '';
    if (id === '') throw new SourceError('malformed', `polaris ${server}: a register was answered without an id`);
    return id;
  }

  /** The real service behind an alias; null when the name is none. An alias takes no instances itself. */
  async #aliasTarget(key: ServiceKey, signal: AbortSignal): Promise<ServiceKey | null> {
    const { result } = await this.#deps.servers.ask(new Question(TYPE_INSTANCE, key.namespace, key.name), signal);
    return result.kind === 'answer' ? aliasTarget(key, result.answer) : null;
  }

  async #remove(receipt: WriteReceipt, signal: AbortSignal): Promise<true> {
    await this.#touch(receipt, signal);
    // By id alone: the four values would miss a record under another id and still answer "ok".
    const { server, answer } = await this.#deps.servers.write('DeregisterInstance', { id: { value: receipt.nativeId } }, signal);
    if (!isMissing(codeOf(answer))) accept(answer, server, 'DeregisterInstance', receipt.service);
    this.#own.delete(receipt.nativeId);
    return true;
  }

  /**
   * A server without a database finds deletions by the time of the last change, which a deletion is not: a record that nobody changed
   * for 5 s stays visible for a minute (seen, 1.18.1). Changed right before, it goes at once; isolated, nobody uses it meanwhile.
   */
  async #touch(receipt: WriteReceipt, signal: AbortSignal): Promise<void> {
    const own = this.#own.get(receipt.nativeId);
    if (own !== undefined && this.#deps.clock.now() - own.at < YOUNG_MS) return;
    try {
      const native = own?.native ?? (await this.#recorded(receipt, signal));
      await this.#register({ ...native, isolate: { value: true } }, receipt.service, signal);
    } catch {
      // It is not there any more, or the server says no: the removal itself will tell.
      signal.throwIfAborted();
    }
  }

  /** True: all were beaten by one message. False: beat them one by one. */
  async #batchBeat(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<boolean | SourceError> {
    if (!this.#batch || receipts.length < BATCH_FROM) return false;
    try {
      const taken = await this.#deps.servers.beat(
        receipts.map(({ nativeId }) => nativeId),
        signal,
      );
      return taken;
    } catch (thrown) {
      signal.throwIfAborted();
      return asSourceError(thrown);
    }
  }

  async #renewed(
    receipt: WriteReceipt,
    batched: boolean,
    shown: ReadonlySet<string> | null,
    signal: AbortSignal,
  ): Promise<RenewResult> {
    const { nativeId, leaseId } = receipt;
    const own = this.#own.get(nativeId);
    const settledIn = own === undefined || this.#deps.clock.now() - own.at >= VISIBLE_MS;
    if (shown !== null && !shown.has(nativeId) && settledIn) return this.#forgotten(nativeId);
    if (leaseId === undefined) return { kind: 'renewed', leaseMs: ENDLESS_MS };
    const renewed: RenewResult = { kind: 'renewed', leaseMs: 3_000 * Number(leaseId) };
    if (batched && shown !== null) return renewed;
    const { server, answer } = await this.#deps.servers.write('Heartbeat', { id: { value: nativeId } }, signal);
    const code = codeOf(answer);
    if (code === NOT_FOUND) {
      // Also said of a new registration that the server's cache does not show yet.
      const misses = (own?.misses ?? 0) + 1;
      if (own !== undefined) own.misses = misses;
      return settledIn && (own === undefined || misses >= FORGOTTEN_AFTER) ? this.#forgotten(nativeId) : renewed;
    }
    if (own !== undefined) own.misses = 0;
    if (code !== HEARTBEAT_ON_DISABLED) accept(answer, server, 'Heartbeat', receipt.service);
    return renewed;
  }

  #forgotten(nativeId: string): RenewResult {
    this.#own.delete(nativeId);
    this.#deps.mapping.count('registrations.forgotten');
    return { kind: 'forgotten' };
  }

  /** Ids that the service shows now; null when that is not known, which proves nothing. Only rejects with the signal's reason. */
  async #present(id: ServiceId, key: ServiceKey, signal: AbortSignal): Promise<ReadonlySet<string> | null> {
    const seen = this.#deps.feed.seen(key);
    if (seen !== null) {
      this.#presence.delete(id);
      return new Set(
        seen.kind === 'absent' ? [] : [...seen.instances.map((one) => one.id), ...seen.rejected.map((one) => one.nativeId)],
      );
    }
    const known = this.#presence.get(id) ?? { question: new Question(TYPE_INSTANCE, key.namespace, key.name), ids: null };
    try {
      const { result } = await this.#deps.servers.ask(known.question, signal);
      if (result.kind === 'same') return known.ids;
      known.ids = idsOf(result.answer);
      known.question.revision = known.ids === null ? '' : (textOf(result.answer.service?.revision) ?? '');
      this.#remember(id, known);
      return known.ids;
    } catch {
      signal.throwIfAborted();
      return null;
    }
  }

  /** Holds what was read for services of living registrations; bounded, since nobody says when the last one is gone. */
  #remember(id: ServiceId, presence: Presence): void {
    if (this.#presence.size >= 1_000) this.#presence.clear();
    if (presence.ids === null) this.#presence.delete(id);
    else this.#presence.set(id, presence);
  }
}

/** The real service behind the name, or null when the name is the service itself (`aliasFor` is set for every found service). */
function aliasTarget(key: ServiceKey, answer: DiscoverResponse): ServiceKey | null {
  const name = textOf(answer.aliasFor?.name) ?? '';
  const namespace = textOf(answer.aliasFor?.namespace) ?? '';
  if (name === '' || namespace === '' || (name === key.name && namespace === key.namespace)) return null;
  return { namespace, name };
}

/** Polaris takes 1..60 s and calls a record unhealthy after three of them without a beat. */
export function ttlSeconds(ttlMs: number): number {
  return Math.min(60, Math.max(1, Math.round(ttlMs / 3_000)));
}

function withCheck(ttl: number | null): Pick<NativeInstance, 'healthCheck' | 'enableHealthCheck'> {
  const check = healthCheck(ttl);
  // Without the field the check of the record that was read would stay.
  return ttl === null ? { ...check, healthCheck: {} } : check;
}

function idsOf(answer: DiscoverResponse): ReadonlySet<string> | null {
  const code = answer.code?.value ?? 0;
  if (code === NOT_FOUND) return new Set();
  const instances = answer.instances ?? [];
  if (code !== OK || instances.length > MAX_CHECKED) return null;
  return new Set(instances.map(({ id }) => textOf(id) ?? ''));
}

async function settled<T>(run: () => Promise<T | SourceError>, signal: AbortSignal): Promise<T | SourceError> {
  try {
    return await run();
  } catch (thrown) {
    signal.throwIfAborted();
    return asSourceError(thrown);
  }
}

async function inChunks<A, B>(items: readonly A[], run: (item: A) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  for (let start = 0; start < items.length; start += IN_FLIGHT) {
    results.push(...(await Promise.all(items.slice(start, start + IN_FLIGHT).map(run))));
  }
  return results;
}
