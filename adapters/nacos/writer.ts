// Owns which way a write goes: our connection, beats over HTTP, or a persistent record; and what a receipt says of it (section 7).
// Called by adapter.ts; must never claim that a record stands of which the server did not say so.
import type { RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import type { NacosConfig } from './config.ts';
import { COPY_TIMES, type HttpWriter, identityOf, ownTimes, preserved } from './http-writer.ts';
import type { Line } from './line.ts';
import {
  badName,
  healthyOf,
  type MappingOptions,
  type NativeInstance,
  type NativeName,
  nativeId,
  nativeInstance,
  nativeName,
} from './mapping.ts';
import type { Publisher } from './publisher.ts';
import { isProviders } from './reader.ts';
import type { Session } from './session.ts';

/** As many as there are connections for HTTP. */
const BEATS_AT_ONCE = 8;

/** How a record lives; first word of a receipt's token. */
type Way = 'connection' | 'beat' | 'persistent';

export interface WriterDeps {
  readonly line: Line;
  readonly config: NacosConfig;
  readonly mapping: MappingOptions;
  readonly publisher: Publisher;
  readonly http: HttpWriter;
}

interface Planned {
  readonly at: number;
  readonly native: NativeName;
  readonly instance: NativeInstance;
  readonly receipt: WriteReceipt;
}

export class Writer {
  readonly #deps: WriterDeps;

  constructor(deps: WriterDeps) {
    this.#deps = deps;
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    const session = await this.#deps.line.enter(signal);
    const way = wayOf(how, session);
    const results: (WriteReceipt | SourceError | undefined)[] = writes.map(() => undefined);
    const plans: Planned[] = [];
    for (const [at, write] of writes.entries()) {
      const planned = this.#plan(at, write, way, how, session);
      if (planned instanceof SourceError) results[at] = planned;
      else plans.push(planned);
    }
    for (const group of byService(plans)) {
      const first = group[0];
      if (first === undefined) continue;
      if (way === 'connection') {
        // One call carries the whole set of a service.
        const error = await this.#tried(signal, () =>
          this.#deps.publisher.put(
            first.native,
            group.map(({ instance }) => instance),
            signal,
          ),
        );
        for (const { at, receipt } of group) results[at] = error ?? receipt;
        continue;
      }
      for (const { at, native, instance, receipt } of group) {
        const error = await this.#tried(signal, () =>
          way === 'beat' ? this.#deps.http.put(native, instance, signal) : this.#persist(session, native, instance, signal),
        );
        results[at] = error ?? receipt;
      }
    }
    return results.map((result) => result ?? new SourceError('lost', 'nacos: the write was not tried'));
  }

  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    const results = new Map<number, RenewResult>();
    const left = receipts.entries();
    // There is no call that beats several: one after the other, ten thousand copies would wait for each other past their time.
    const lane = async (): Promise<void> => {
      for (const [at, receipt] of left) results.set(at, await this.#renew(receipt, signal));
    };
    await Promise.all(Array.from({ length: BEATS_AT_ONCE }, lane));
    return receipts.map((_, at) => results.get(at) ?? new SourceError('lost', 'nacos: the beat was not tried'));
  }

  async setHealth(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    const { config, publisher, http } = this.#deps;
    const { way, copy } = tokenOf(receipt);
    const native = nativeName(config, receipt.service);
    if (way === 'beat') return http.setHealth(native, receipt, health, copy, signal);
    // The server probes persistent records itself.
    if (way === 'persistent') return;
    const instance = publisher.find(native, receipt.nativeId);
    if (instance === null) throw new SourceError('lost', 'nacos: the record is not on our connection: put it again');
    await publisher.put(native, [{ ...instance, healthy: healthyOf(health, copy) }], signal);
  }

  async remove(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly (true | SourceError)[]> {
    const results: (true | SourceError)[] = [];
    for (const receipt of receipts) results.push((await this.#tried(signal, () => this.#remove(receipt, signal))) ?? true);
    return results;
  }

  #plan(at: number, { key, instance }: Write, way: Way, how: WriteMode, session: Session | null): Planned | SourceError {
    const { config, mapping } = this.#deps;
    try {
      const native = nativeName(config, key);
      const fault = badName(native);
      if (fault !== null) throw new SourceError('refused', `nacos: no service can have this name: ${fault}`);
      const copy = how.as === 'copy';
      const steer = way !== 'beat' ? {} : copy ? preserved(COPY_TIMES) : ownTimes(how.ttl);
      const made = nativeInstance(
        instance,
        { ephemeral: way !== 'persistent', preserved: steer, unknownIs: copy, wholeWeights: session?.oneByOne === true },
        mapping,
      );
      const token = `${way}${copy ? ' copy' : ''}${way === 'beat' ? ` ${copy ? COPY_TIMES.unhealthy : how.ttl}` : ''}`;
      return { at, native, instance: made, receipt: { service: key, nativeId: nativeId(made), token } };
    } catch (thrown) {
      return asSourceError(thrown);
    }
  }

  async #persist(session: Session | null, native: NativeName, instance: NativeInstance, signal: AbortSignal): Promise<void> {
    if (session === null || !session.abilities.has('supportPersistentInstanceByGrpc'))
      return this.#deps.http.put(native, instance, signal);
    const fields = { serviceName: native.name, groupName: native.group, type: 'registerInstance', instance };
    await session.call('PersistentInstanceRequest', fields, signal);
  }

  async #renew(receipt: WriteReceipt, signal: AbortSignal): Promise<RenewResult> {
    const { config, line, publisher, http } = this.#deps;
    const { way, ttl } = tokenOf(receipt);
    try {
      const native = nativeName(config, receipt.service);
      if (way === 'persistent') return { kind: 'renewed', leaseMs: Number.MAX_SAFE_INTEGER };
      if (way === 'beat') return await http.renew(native, receipt, ttl, signal);
      const stands = line.session !== null && publisher.stands(native, receipt.nativeId);
      return stands ? { kind: 'renewed', leaseMs: ttl } : { kind: 'forgotten' };
    } catch (thrown) {
      signal.throwIfAborted();
      return asSourceError(thrown);
    }
  }

  async #remove(receipt: WriteReceipt, signal: AbortSignal): Promise<void> {
    const { config, line, publisher, http } = this.#deps;
    const { way, copy } = tokenOf(receipt);
    const native = nativeName(config, receipt.service);
    if (way === 'connection') return publisher.remove(native, [receipt.nativeId], signal);
    const beaten = way === 'beat' && copy ? identityOf(receipt.nativeId, true) : null;
    if (beaten !== null && (await isProviders(line, native, beaten, signal))) return;
    const session = await line.enter(signal);
    if (way === 'beat' || session === null || !session.abilities.has('supportPersistentInstanceByGrpc')) {
      return http.remove(native, receipt, way === 'beat', signal);
    }
    const identity = identityOf(receipt.nativeId, false);
    if (identity === null) throw new SourceError('refused', 'nacos: this receipt is none of ours');
    const instance = { ...identity, weight: 1, healthy: true, enabled: true, metadata: {} };
    const fields = { serviceName: native.name, groupName: native.group, type: 'deregisterInstance', instance };
    await session.call('PersistentInstanceRequest', fields, signal);
  }

  /** The failure of a call, null for none. Throws after an abort. */
  async #tried(signal: AbortSignal, call: () => Promise<void>): Promise<SourceError | null> {
    try {
      await call();
      return null;
    } catch (thrown) {
      signal.throwIfAborted();
      return asSourceError(thrown);
    }
  }
}

/** Our own live by the connection wherever there is one; copies as the migration says. */
function wayOf(how: WriteMode, session: Session | null): Way {
  if (how.liveness === 'persistent') return 'persistent';
  if (session === null) return 'beat';
  return how.as === 'own' || how.liveness === 'connection' ? 'connection' : 'beat';
}

function tokenOf({ token }: WriteReceipt): { way: Way; copy: boolean; ttl: number } {
  const words = token?.split(' ') ?? [];
  const way = words[0] === 'beat' || words[0] === 'persistent' ? words[0] : 'connection';
  const ttl = Number(words.at(-1));
  return { way, copy: words.includes('copy'), ttl: Number.isFinite(ttl) && ttl > 0 ? ttl : 15_000 };
}

function byService(plans: readonly Planned[]): Planned[][] {
  const groups = new Map<string, Planned[]>();
  for (const planned of plans) {
    const id = `${planned.native.group}@@${planned.native.name}`;
    const group = groups.get(id);
    if (group === undefined) groups.set(id, [planned]);
    else group.push(planned);
  }
  return [...groups.values()];
}
