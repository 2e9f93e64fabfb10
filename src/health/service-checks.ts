// Owns the checks of one service's instances: keeps the prober's asks in step with the view, the policy and the traffic (D6, R2).
// Called by publish; must never check an instance that nobody uses, configured checks aside.
import type { View, ViewInstance } from '../catalog/view.ts';
import type { DialPolicy, DialRefusal } from '../kernel/dial.ts';
import { DEFAULT_HEALTH_CHECK, type HealthCheckPolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { Ask, AskSpec } from './ask.ts';
import { targetKey, targetOf } from './probe.ts';
import type { Prober } from './prober.ts';

/** R2: held and suspect instances are checked this often. */
export const SUSPECT_INTERVAL = DEFAULT_HEALTH_CHECK.interval;

/** From disk and too old: one failed connect is enough to try the others first. */
const UNPROVEN_CHECK: HealthCheckPolicy = { ...DEFAULT_HEALTH_CHECK, unhealthyThreshold: 1 };

/** The outbound policy of a source; null for one that is gone. */
export type DialOf = (sourceId: string) => DialPolicy | null;

interface Kept {
  ask: Ask;
  suspect: boolean;
}

/** What check an instance gets now, or null. */
export function wantedCheck(
  instance: Pick<ViewInstance, 'transport' | 'held' | 'suspect' | 'registryHealth'>,
  configured: HealthCheckPolicy | null,
  active: boolean,
): { readonly policy: HealthCheckPolicy; readonly pace: number } | null {
  if (instance.transport !== 'tcp') return null;
  const suspect = instance.held || instance.suspect;
  if (configured !== null) {
    if (!active) return { policy: configured, pace: configured.noTrafficInterval };
    return { policy: configured, pace: suspect ? Math.min(SUSPECT_INTERVAL, configured.interval) : configured.interval };
  }
  if (!active || !(suspect || instance.registryHealth === 'unknown')) return null;
  const policy = instance.suspect && !instance.held ? UNPROVEN_CHECK : DEFAULT_HEALTH_CHECK;
  return { policy, pace: SUSPECT_INTERVAL };
}

export class ServiceChecks {
  readonly #service: ServiceId;
  readonly #prober: Prober;
  readonly #dialOf: DialOf;
  readonly #onChange: (ask: Ask) => void;
  /** By network, host and port. */
  #kept = new Map<string, Kept>();

  constructor(service: ServiceId, prober: Prober, dialOf: DialOf, onChange: (ask: Ask) => void) {
    this.#service = service;
    this.#prober = prober;
    this.#dialOf = dialOf;
    this.#onChange = onChange;
  }

  get size(): number {
    return this.#kept.size;
  }

  askOf(instance: Pick<ViewInstance, 'network' | 'host' | 'port'>): Ask | null {
    return this.#kept.size === 0 ? null : (this.#kept.get(addressOf(instance))?.ask ?? null);
  }

  /** Starts, changes and ends checks so that they fit. Costs what the view has instances. */
  sync(view: View, configured: HealthCheckPolicy | null, active: boolean): void {
    const next = new Map<string, Kept>();
    for (const instance of view.instances) {
      const wanted = wantedCheck(instance, configured, active);
      if (wanted === null) continue;
      const address = addressOf(instance);
      if (next.has(address)) continue;
      const { network, host, port } = instance;
      const target = targetOf(wanted.policy, network, host, port);
      const spec = { service: this.#service, target, ...wanted, dial: this.#dialFor(instance) };
      next.set(address, this.#keep(this.#kept.get(address), spec, instance.held || instance.suspect));
      this.#kept.delete(address);
    }
    for (const { ask } of this.#kept.values()) this.#prober.end(ask);
    this.#kept = next;
  }

  /** Some instance from disk is too old to be used unseen, and its first check has not ended yet. */
  hasUnproven(view: View): boolean {
    return view.instances.some((instance) => {
      if (!instance.suspect || instance.held) return false;
      const ask = this.askOf(instance);
      return ask !== null && !ask.answered && ask.verdict === 'none';
    });
  }

  end(): void {
    for (const { ask } of this.#kept.values()) this.#prober.end(ask);
    this.#kept.clear();
  }

  #keep(kept: Kept | undefined, spec: AskSpec, suspect: boolean): Kept {
    if (kept !== undefined && targetKey(kept.ask.target) === targetKey(spec.target)) {
      const fresh = suspect && !kept.suspect;
      this.#prober.change(kept.ask, spec, fresh);
      return { ask: kept.ask, suspect };
    }
    if (kept !== undefined) this.#prober.end(kept.ask);
    return { ask: this.#prober.ask(spec, this.#onChange), suspect };
  }

  /** What one of the instance's sources allows may be connected to. Asked again at each connection: rules change on reload. */
  #dialFor(instance: ViewInstance): DialPolicy {
    const sources = instance.provenance.map(({ source }) => source);
    return (host, port) => {
      let refusal: DialRefusal | null = 'notInCidrs';
      for (const source of sources) {
        const dial = this.#dialOf(source);
        if (dial === null) continue;
        refusal = dial(host, port);
        if (refusal === null) return null;
      }
      return refusal;
    };
  }
}

function addressOf({ network, host, port }: Pick<ViewInstance, 'network' | 'host' | 'port'>): string {
  return `${network}\0${host}\0${port}`;
}
