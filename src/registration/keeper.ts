// Owns keeping registrations in their registries: puts, renewals, health, removals, in batches, from ONE timer (W7). Called by
// registrations.ts alone. Must never set a timer per instance, and never let a registry that hangs hold up another one.
import type { Adapter, RenewResult, WriteReceipt } from '../adapter/contract.ts';
import { controlRetry } from '../adapter/control-retry.ts';
import { hostPort } from '../kernel/address.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { serviceId } from '../model/service.ts';
import { asSourceError, SourceError } from '../model/snapshot.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import type { RegistrationSource } from './choose-targets.ts';
import type { Action, Target, TargetAbilities } from './target.ts';

/** W6: at most this many records in one call. */
const BATCH = 100;
/** Work that falls due within this time is done together, ms. It also bounds the calls: few a second per registry. */
const TOGETHER_MS = 250;
/** Deadline of one call with its retry, ms. */
const CALL_MS = 5_000;
/** A source that is not there (not loaded yet, or gone) is looked for again after this, ms. */
const ABSENT_MS = 1_000;

export interface KeeperDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly sources: () => readonly RegistrationSource[];
  readonly audit: (line: AuditLine) => void;
  /** Every write, for the metric: `result` is ok, or the cause of the failure. */
  readonly count: (sourceId: string, what: string, result: string) => void;
  /** A receipt is new, or the record is gone: to the journal. Not waited for: a disk that stalls must not cost a lease. */
  readonly onReceipt: (target: Target) => void;
  /** After every outcome. */
  readonly onOutcome: (target: Target) => void;
}

type Due<K extends Action['kind']> = { readonly target: Target; readonly action: Extract<Action, { kind: K }> };

export class Keeper {
  readonly #deps: KeeperDeps;
  readonly #targets = new Set<Target>();
  readonly #serving = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();
  #timer: Timer | null = null;
  #timerAt = Number.POSITIVE_INFINITY;

  constructor(deps: KeeperDeps) {
    this.#deps = deps;
  }

  add(target: Target): void {
    this.#targets.add(target);
    this.wake();
  }

  delete(target: Target): void {
    this.#targets.delete(target);
    this.wake();
  }

  /** Looks at what is due; call it after a target changed. */
  wake(): void {
    if (this.#stop.signal.aborted) return;
    let earliest = Number.POSITIVE_INFINITY;
    for (const { dueAt, inFlight } of this.#targets) if (!inFlight) earliest = Math.min(earliest, dueAt);
    if (earliest === this.#timerAt) return;
    this.#timer?.cancel();
    this.#timerAt = earliest;
    if (!Number.isFinite(earliest)) this.#timer = null;
    else this.#timer = this.#deps.clock.setTimer(Math.max(0, earliest - this.#deps.clock.now()), () => this.#onTimer());
  }

  /** Stops renewing; calls that are under way are given up. */
  async close(): Promise<void> {
    this.#stop.abort(new SourceError('lost', 'the keeper is closed'));
    this.#timer?.cancel();
    this.#timer = null;
    await Promise.all(this.#serving.values());
  }

  #onTimer(): void {
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = this.#deps.clock.now();
    const due = new Map<string, Target[]>();
    for (const target of this.#targets) {
      if (target.inFlight || target.dueAt > now + TOGETHER_MS) continue;
      const group = due.get(target.sourceId);
      if (group === undefined) due.set(target.sourceId, [target]);
      else group.push(target);
    }
    const sources = new Map(this.#deps.sources().map((source) => [source.sourceId, source]));
    for (const [sourceId, targets] of due) this.#dispatch(sources.get(sourceId), sourceId, targets, now);
    this.wake();
  }

  #dispatch(source: RegistrationSource | undefined, sourceId: string, targets: readonly Target[], now: number): void {
    // One batch of calls per source at a time: what falls due meanwhile goes into the next one.
    if (this.#serving.has(sourceId)) {
      for (const target of targets) target.dueAt = Math.max(target.dueAt, now + TOGETHER_MS);
      return;
    }
    // A source that takes registrations no more (it is leaving) still lets us take ours away.
    const servable = ({ leaving }: Target): boolean => source !== undefined && (leaving || source.canRegister);
    for (const target of targets) if (!servable(target)) this.#putOff(target, now);
    const served = targets.filter(servable);
    if (source !== undefined && served.length > 0) this.#begin(source, served);
  }

  #putOff(target: Target, now: number): void {
    target.error = new SourceError('lost', `source ${target.sourceId} is not there to register in`);
    target.dueAt = now + ABSENT_MS;
    this.#deps.onOutcome(target);
  }

  #begin({ sourceId, adapter }: RegistrationSource, targets: readonly Target[]): void {
    const hurries = targets.map((target) => target.hurries);
    for (const target of targets) target.inFlight = true;
    const serving = this.#serve(adapter, targets).finally(() => {
      this.#serving.delete(sourceId);
      for (const [n, target] of targets.entries()) {
        target.inFlight = false;
        if (target.hurries !== hurries[n]) target.dueAt = this.#deps.clock.now();
        this.#deps.onOutcome(target);
      }
      this.wake();
    });
    this.#serving.set(sourceId, serving);
  }

  /** Everything that is due at one registry, removals first. Never rejects. */
  async #serve(adapter: Adapter, targets: readonly Target[]): Promise<void> {
    const abilities: TargetAbilities = {
      capabilities: adapter.capabilities,
      setsHealth: adapter.setHealth !== undefined,
      renews: adapter.renew !== undefined,
    };
    const work = targets.map((target) => ({ target, action: target.next(abilities, this.#deps.clock.now()) }));
    const of = <K extends Action['kind']>(kind: K): Due<K>[] =>
      work.flatMap(({ target, action }) => (isKind(action, kind) ? [{ target, action }] : []));
    try {
      for (const { target } of of('none')) target.rest();
      for (const batch of batches(this.#removable(of('remove')))) await this.#remove(adapter, batch);
      for (const group of byTtl(of('put'))) for (const batch of batches(group)) await this.#put(adapter, abilities, batch);
      for (const due of of('health')) await this.#setHealth(adapter, due);
      for (const batch of batches(of('renew'))) await this.#renew(adapter, abilities, batch);
    } catch (thrown) {
      // A bug of ours, or of the adapter's answers: the targets are tried again.
      this.#deps.log.error({ error: asSourceError(thrown).message }, 'keeping registrations failed');
      for (const { target } of work)
        if (target.dueAt <= this.#deps.clock.now()) target.failed(asSourceError(thrown), this.#deps.clock.now());
    }
  }

  async #put(adapter: Adapter, abilities: TargetAbilities, batch: readonly Due<'put'>[]): Promise<void> {
    const ttl = batch[0]?.target.registration.ttl ?? 0;
    const writes = batch.map(({ target, action }) => ({
      key: target.key,
      instance: action.instance,
      ...(target.receipt !== null && { previous: target.receipt }),
    }));
    const sentAt = this.#deps.clock.now();
    const results = await this.#call(batch, (signal) => {
      return adapter.put?.(writes, { as: 'own', ttl, liveness: 'beat' }, signal) ?? cannot('put');
    });
    for (const [n, { target, action }] of batch.entries()) {
      const result = results[n] ?? missing();
      this.#audit('put', target, result);
      if (result instanceof SourceError) {
        target.failed(result, this.#deps.clock.now());
      } else target.wrote(result, action.instance, ttl, abilities, sentAt);
    }
    for (const { target } of batch) this.#deps.onReceipt(target);
  }

  async #renew(adapter: Adapter, abilities: TargetAbilities, batch: readonly Due<'renew'>[]): Promise<void> {
    const receipts = batch.map(({ action }) => action.receipt);
    const sentAt = this.#deps.clock.now();
    const results = await this.#call<RenewResult>(batch, (signal) => adapter.renew?.(receipts, signal) ?? cannot('renew'));
    for (const [n, { target }] of batch.entries()) {
      const result = results[n] ?? missing();
      if (result instanceof SourceError) {
        this.#audit('renew-failed', target, result);
        target.failed(result, this.#deps.clock.now());
      } else if (result.kind === 'forgotten') {
        this.#audit('renew-failed', target, new SourceError('lost', 'forgotten'));
        target.forgotten(this.#deps.clock.now());
      } else target.renewed(result.leaseMs, abilities, sentAt);
    }
  }

  async #setHealth(adapter: Adapter, due: Due<'health'>): Promise<void> {
    const { target, action } = due;
    const [result = missing()] = await this.#call<true>([due], async (signal) => {
      await (adapter.setHealth?.(action.receipt, action.health, signal) ?? cannot('setHealth'));
      return [true];
    });
    this.#audit(`health ${action.health}`, target, result);
    if (result === true) {
      target.healthSet(action.health);
      this.#deps.onReceipt(target);
      return;
    }
    // Not ours any more, by its own word: a put finds out, or takes the place again.
    if (result.causeKind === 'refused') target.forgotten(this.#deps.clock.now());
    else target.failed(result, this.#deps.clock.now());
  }

  /** Without those whose record another wish of ours has taken over: where the address is the identity, it would go with the old one. */
  #removable(due: readonly Due<'remove'>[]): readonly Due<'remove'>[] {
    return due.filter(({ target, action }) => {
      if (!this.#stands(target.sourceId, action.receipt)) return true;
      target.removed(action.receipt, this.#deps.clock.now());
      this.#deps.onReceipt(target);
      return false;
    });
  }

  #stands(sourceId: string, receipt: WriteReceipt): boolean {
    for (const { sourceId: source, leaving, receipt: other } of this.#targets) {
      if (leaving || source !== sourceId || other === null || other === receipt) continue;
      if (other.nativeId === receipt.nativeId && serviceId(other.service) === serviceId(receipt.service)) return true;
    }
    return false;
  }

  async #remove(adapter: Adapter, batch: readonly Due<'remove'>[]): Promise<void> {
    const receipts = batch.map(({ action }) => action.receipt);
    const results = await this.#call<true>(batch, (signal) => adapter.remove?.(receipts, {}, signal) ?? cannot('remove'));
    for (const [n, { target, action }] of batch.entries()) {
      const result = results[n] ?? missing();
      this.#audit('remove', target, result);
      if (result === true) {
        target.removed(action.receipt, this.#deps.clock.now());
      } else target.notRemoved(action.receipt, result, this.#deps.clock.now());
    }
    for (const { target } of batch) this.#deps.onReceipt(target);
  }

  /** One call with a bounded retry; a call that fails as a whole fails for each of its records. */
  async #call<T>(
    batch: readonly unknown[],
    call: (signal: AbortSignal) => Promise<readonly (T | SourceError)[]>,
  ): Promise<readonly (T | SourceError)[]> {
    const { clock, random } = this.#deps;
    try {
      return await controlRetry({ clock, random, deadlineMs: CALL_MS, retries: 1, baseMs: 100 }, this.#stop.signal, call);
    } catch (thrown) {
      const error = asSourceError(thrown);
      return batch.map(() => error);
    }
  }

  #audit(what: string, { sourceId, key, registration }: Target, result: WriteReceipt | true | SourceError): void {
    this.#deps.count(sourceId, what, result instanceof SourceError ? result.causeKind : 'ok');
    this.#deps.audit({
      what,
      registry: sourceId,
      service: serviceId(key),
      instance: `${registration.id} ${hostPort(registration.host, registration.port)}`,
      result: result instanceof SourceError ? `${result.causeKind}: ${result.message}` : 'ok',
    });
  }
}

function isKind<K extends Action['kind']>(action: Action, kind: K): action is Extract<Action, { kind: K }> {
  return action.kind === kind;
}

function* batches<T>(all: readonly T[]): Generator<readonly T[]> {
  for (let n = 0; n < all.length; n += BATCH) yield all.slice(n, n + BATCH);
}

/** One call has one ttl. */
function byTtl(all: readonly Due<'put'>[]): Iterable<readonly Due<'put'>[]> {
  return Map.groupBy(all, ({ target }) => target.registration.ttl).values();
}

function cannot(what: string): never {
  throw new SourceError('refused', `this kind of registry has no ${what}`);
}

function missing(): SourceError {
  return new SourceError('malformed', 'the adapter gave no answer for this record');
}
