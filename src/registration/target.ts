// Owns one registration in one registry: what is wanted there, what is known to be there, and what is to be done next. Pure state
// and transitions on given times; keeper.ts makes the calls. Must never claim `live` beyond 0.8 of the lease.
import type { Capabilities } from '../adapter/capabilities.ts';
import type { WriteReceipt } from '../adapter/contract.ts';
import { reconnectDelay } from '../kernel/backoff.ts';
import type { Random } from '../kernel/random.ts';
import type { Instance, RegistryHealth } from '../model/instance.ts';
import type { ServiceKey } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import { instanceOf, type Registration } from './registration.ts';

/** From this part of the ttl without renewal on it is unknown whether the registry still has the record. */
export const SURE_PART = 0.8;
/** Where no lease tells of a loss, the record is written again this often, ms: somebody else may have taken it away. */
const REFRESH_MS = 60_000;
/** A failing renewal is tried again soon, a short lease's (ttl/3) sooner: the lease does not wait. */
const MAX_BACKOFF_MS = 5_000;
/** Registries without leases say so by a number beyond this. */
const ENDLESS_MS = 86_400_000;

export type TargetState = 'pending' | 'live' | 'lost' | 'refused';

/** What the record in the registry looks like, as far as we know. */
export interface Applied {
  /** Everything but health. */
  readonly body: string;
  readonly health: RegistryHealth;
}

export type Action =
  | { readonly kind: 'none' }
  | { readonly kind: 'put'; readonly instance: Instance }
  | { readonly kind: 'health'; readonly receipt: WriteReceipt; readonly health: RegistryHealth }
  | { readonly kind: 'renew'; readonly receipt: WriteReceipt }
  | { readonly kind: 'remove'; readonly receipt: WriteReceipt };

/** What a registry can do, as far as this matters here. */
export interface TargetAbilities {
  readonly capabilities: Capabilities;
  readonly setsHealth: boolean;
  /** Can say whether a record still stands. */
  readonly renews: boolean;
}

/** What the journal knows of a target. */
export interface KnownRecord {
  readonly receipt: WriteReceipt;
  readonly applied: Applied;
}

export class Target {
  readonly sourceId: string;
  /** The service in the source's own words. */
  readonly key: ServiceKey;
  registration: Registration;
  /** Null: no verdict yet, or no check. */
  healthy: boolean | null = null;
  /** The registration ends: nothing is wanted there any more. */
  leaving = false;
  receipt: WriteReceipt | null;
  applied: Applied | null;
  error: SourceError | null = null;
  dueAt = 0;
  inFlight = false;
  /** Records of ours under a native id that is not the present one (the address changed): to be removed. */
  leftovers: readonly WriteReceipt[] = [];
  /** Counts calls of `hurry`: what changed during a call makes the target due again after it. */
  hurries = 0;
  #renewedAt: number | null = null;
  #leaseMs: number;
  #renewAt = 0;
  /** When the next leftover is to be removed. */
  #leftoverAt = 0;
  #leftoverTries = 0;
  #putAt = Number.NEGATIVE_INFINITY;
  #attempt = 0;
  #wasLive = false;
  #refused = false;
  readonly #random: Random;

  constructor(
    where: { readonly sourceId: string; readonly key: ServiceKey },
    registration: Registration,
    random: Random,
    known: KnownRecord | null = null,
  ) {
    this.sourceId = where.sourceId;
    this.key = where.key;
    this.registration = registration;
    this.receipt = known?.receipt ?? null;
    this.applied = known?.applied ?? null;
    this.#leaseMs = registration.ttl;
    this.#random = random;
  }

  state(now: number): TargetState {
    if (this.#refused) return 'refused';
    if (this.#renewedAt !== null && now - this.#renewedAt < SURE_PART * this.#leaseMs) return 'live';
    return this.#wasLive ? 'lost' : 'pending';
  }

  /** ms until the registry drops the record without renewal; null: not known to be there, or no lease. */
  leaseLeft(now: number): number | null {
    if (this.#renewedAt === null || this.receipt === null || this.#leaseMs > ENDLESS_MS) return null;
    return Math.max(0, Math.round(this.#renewedAt + this.#leaseMs - now));
  }

  /** Nothing is there and nothing is wanted: it can be forgotten. */
  get over(): boolean {
    return this.leaving && this.receipt === null && this.leftovers.length === 0 && !this.inFlight;
  }

  /** Something changed that cannot wait for the next renewal. */
  hurry(now: number): void {
    this.hurries++;
    this.dueAt = now;
    this.#attempt = 0;
    this.#leftoverAt = 0;
    this.#refused = false;
    this.error = null;
  }

  /** What to do now, whether due or not. */
  next(abilities: TargetAbilities, now: number): Action {
    const wanted = this.#wanted(abilities);
    const [leftover] = this.leftovers;
    if (wanted === null) {
      const receipt = leftover ?? this.receipt;
      return receipt === null ? { kind: 'none' } : { kind: 'remove', receipt };
    }
    if (this.receipt === null || this.applied === null || this.applied.body !== bodyOf(wanted, this.registration.ttl)) {
      return { kind: 'put', instance: wanted };
    }
    if (this.applied.health !== wanted.health) {
      return abilities.setsHealth
        ? { kind: 'health', receipt: this.receipt, health: wanted.health }
        : { kind: 'put', instance: wanted };
    }
    // The new record stands before the old one goes, and one that cannot be removed must not cost the new one its lease.
    if (leftover !== undefined && this.#leftoverAt < this.#renewAt) return { kind: 'remove', receipt: leftover };
    const { heartbeat } = abilities.capabilities;
    const look = heartbeat === 'core' || (heartbeat === 'server' && abilities.renews && now - this.#putAt < REFRESH_MS);
    return look ? { kind: 'renew', receipt: this.receipt } : { kind: 'put', instance: wanted };
  }

  /** `sentAt`: when the call began, since the lease may count from then. */
  wrote(receipt: WriteReceipt, instance: Instance, ttl: number, abilities: TargetAbilities, sentAt: number): void {
    const before = this.receipt;
    if (before !== null && before.nativeId !== receipt.nativeId) {
      // A lease that went over to the new record must not be ended with the old one.
      const { leaseId, ...rest } = before;
      this.leftovers = [...this.leftovers, leaseId === undefined || leaseId === receipt.leaseId ? rest : before];
      this.#leftoverAt = sentAt;
    }
    this.receipt = receipt;
    this.applied = { body: bodyOf(instance, ttl), health: instance.health };
    this.#putAt = sentAt;
    this.#alive(ttl, abilities, sentAt);
  }

  renewed(leaseMs: number, abilities: TargetAbilities, sentAt: number): void {
    this.#alive(leaseMs, abilities, sentAt);
  }

  healthSet(health: RegistryHealth): void {
    if (this.applied !== null) this.applied = { ...this.applied, health };
    this.error = null;
    // Setting health renews nothing: the lease is due when it was.
    this.dueAt = this.#nextDue();
  }

  /** The registry knows the lease no more. */
  forgotten(now: number): void {
    this.applied = null;
    this.#renewedAt = null;
    this.dueAt = now;
    this.error = new SourceError('lost', 'the registry has forgotten the lease');
  }

  removed(receipt: WriteReceipt, now: number): void {
    if (this.leftovers.includes(receipt)) {
      this.leftovers = this.leftovers.filter((leftover) => leftover !== receipt);
      this.#leftoverTries = 0;
      this.#leftoverAt = now;
      this.dueAt = now;
      return;
    }
    this.receipt = null;
    this.applied = null;
    this.#renewedAt = null;
    this.#attempt = 0;
    this.#wasLive = false;
    this.error = null;
    this.dueAt = Number.POSITIVE_INFINITY;
  }

  /** The removal of `receipt` failed. A leftover's failure says nothing of the record that stands. */
  notRemoved(receipt: WriteReceipt, error: SourceError, now: number): void {
    if (!this.leftovers.includes(receipt)) {
      this.failed(error, now);
      return;
    }
    this.error = error;
    this.#leftoverTries++;
    this.#leftoverAt = now + this.#wait(error, this.#leftoverTries);
    this.dueAt = this.receipt === null || this.leaving ? this.#leftoverAt : this.#nextDue();
  }

  /** Nothing to do until something changes. */
  rest(): void {
    this.dueAt = Number.POSITIVE_INFINITY;
  }

  failed(error: SourceError, now: number): void {
    this.error = error;
    this.#attempt++;
    this.#refused = isRefusal(error);
    this.dueAt = now + this.#wait(error, this.#attempt);
  }

  #wait(error: SourceError, attempt: number): number {
    const { ttl } = this.registration;
    // After a ttl an old lease of ours is gone (a crash between write and journal), and the other owner may be.
    const wait = isRefusal(error)
      ? this.#jittered(ttl)
      : reconnectDelay(attempt, this.#random, 1_000, Math.min(MAX_BACKOFF_MS, ttl / 3));
    return Math.max(wait, error.retryAfterMs ?? 0);
  }

  #nextDue(): number {
    return this.leftovers.length === 0 ? this.#renewAt : Math.min(this.#renewAt, this.#leftoverAt);
  }

  #alive(leaseMs: number, abilities: TargetAbilities, sentAt: number): void {
    this.#renewedAt = sentAt;
    // A record that lives by the adapter's connection has no lease that could run out: the next look tells whether it stands.
    this.#leaseMs = abilities.capabilities.heartbeat === 'core' ? leaseMs : Number.POSITIVE_INFINITY;
    this.#wasLive = true;
    this.#refused = false;
    this.#attempt = 0;
    this.error = null;
    this.#renewAt = sentAt + this.#jittered(looksAfter(abilities) ? Math.min(leaseMs, this.registration.ttl) / 3 : REFRESH_MS);
    this.dueAt = this.#nextDue();
  }

  /** W7: ± 10 %. */
  #jittered(ms: number): number {
    return ms * (0.9 + 0.2 * this.#random());
  }

  /** The record that should be there; null: none. */
  #wanted({ capabilities, setsHealth }: TargetAbilities): Instance | null {
    if (this.leaving) return null;
    const { registration } = this;
    const speaksHealth = setsHealth || capabilities.keeps.has('health');
    if (this.healthy !== false) {
      const unproved = registration.healthCheck !== null && this.healthy === null;
      return instanceOf(registration, unproved && speaksHealth ? 'unknown' : 'healthy');
    }
    if (registration.onUnhealthy === 'remove') return null;
    if (speaksHealth) return instanceOf(registration, 'unhealthy');
    // A registry without a word for unhealthy: no traffic is the nearest it can say, else it must not have the record.
    return capabilities.keeps.has('weight') ? instanceOf(registration, 'healthy', 0) : null;
  }
}

/** `renew` keeps the lease, or says whether the record still stands. */
function looksAfter({ capabilities, renews }: TargetAbilities): boolean {
  return capabilities.heartbeat === 'core' || (capabilities.heartbeat === 'server' && renews);
}

function isRefusal({ causeKind }: SourceError): boolean {
  return causeKind === 'refused' || causeKind === 'fenced';
}

function bodyOf(instance: Instance, ttl: number): string {
  const { health: _, metadata, ...fields } = instance;
  return JSON.stringify([ttl, fields, [...metadata].sort()]);
}
