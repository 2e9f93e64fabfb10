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
/** Where no lease tells of a loss, the record is written again this often, ms. */
const REFRESH_MS = 60_000;
/** A failing renewal is tried again soon: the lease does not wait. */
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
    this.#refused = false;
    this.error = null;
  }

  /** What to do now, whether due or not. */
  next(abilities: TargetAbilities): Action {
    const wanted = this.#wanted(abilities);
    const [leftover] = this.leftovers;
    // The new record stands before the old one goes.
    if (leftover !== undefined && (wanted === null || this.receipt !== null)) return { kind: 'remove', receipt: leftover };
    if (wanted === null) return this.receipt === null ? { kind: 'none' } : { kind: 'remove', receipt: this.receipt };
    if (this.receipt === null || this.applied === null || this.applied.body !== bodyOf(wanted, this.registration.ttl)) {
      return { kind: 'put', instance: wanted };
    }
    if (this.applied.health !== wanted.health) {
      return abilities.setsHealth
        ? { kind: 'health', receipt: this.receipt, health: wanted.health }
        : { kind: 'put', instance: wanted };
    }
    if (abilities.capabilities.heartbeat === 'core') return { kind: 'renew', receipt: this.receipt };
    return { kind: 'put', instance: wanted };
  }

  /** `sentAt`: when the call began, since the lease may count from then. */
  wrote(receipt: WriteReceipt, instance: Instance, ttl: number, abilities: TargetAbilities, sentAt: number): void {
    const before = this.receipt;
    if (before !== null && before.nativeId !== receipt.nativeId) {
      // A lease that went over to the new record must not be ended with the old one.
      const { leaseId, ...rest } = before;
      this.leftovers = [...this.leftovers, leaseId === undefined || leaseId === receipt.leaseId ? rest : before];
    }
    this.receipt = receipt;
    this.applied = { body: bodyOf(instance, ttl), health: instance.health };
    this.#alive(abilities.capabilities.heartbeat === 'core' ? ttl : Number.POSITIVE_INFINITY, sentAt);
    if (this.leftovers.length > 0) this.dueAt = sentAt;
  }

  renewed(leaseMs: number, sentAt: number): void {
    this.#alive(leaseMs, sentAt);
  }

  healthSet(health: RegistryHealth): void {
    if (this.applied !== null) this.applied = { ...this.applied, health };
    this.error = null;
    // Setting health renews nothing: the lease is due when it was.
    this.dueAt = this.#renewAt;
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

  /** Nothing to do until something changes. */
  rest(): void {
    this.dueAt = Number.POSITIVE_INFINITY;
  }

  failed(error: SourceError, now: number): void {
    this.error = error;
    this.#attempt++;
    this.#refused = error.causeKind === 'refused' || error.causeKind === 'fenced';
    // After a ttl an old lease of ours is gone (a crash between write and journal), and the other owner may be.
    const wait = this.#refused
      ? this.#jittered(this.registration.ttl)
      : reconnectDelay(this.#attempt, this.#random, 1_000, MAX_BACKOFF_MS);
    this.dueAt = now + Math.max(wait, error.retryAfterMs ?? 0);
  }

  #alive(leaseMs: number, sentAt: number): void {
    this.#renewedAt = sentAt;
    this.#leaseMs = leaseMs;
    this.#wasLive = true;
    this.#refused = false;
    this.#attempt = 0;
    this.error = null;
    this.#renewAt = sentAt + this.#jittered(Number.isFinite(leaseMs) ? Math.min(leaseMs, this.registration.ttl) / 3 : REFRESH_MS);
    this.dueAt = this.#renewAt;
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

function bodyOf(instance: Instance, ttl: number): string {
  const { health: _, metadata, ...fields } = instance;
  return JSON.stringify([ttl, fields, [...metadata].sort()]);
}
