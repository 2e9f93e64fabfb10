// Owns what is told of a registration: to the API and to metrics. Pure; called by registrations.ts.
import type { ServiceKey } from '../model/service.ts';
import type { Registration } from './registration.ts';
import type { Target, TargetState } from './target.ts';

export interface TargetView {
  readonly state: TargetState;
  readonly nativeId?: string;
  /** ms until the registry stops using it without renewal. */
  readonly leaseMs?: number;
  readonly error?: string;
}

export interface RegistrationView {
  readonly id: string;
  readonly service: ServiceKey;
  readonly host: string;
  readonly port: number;
  /** By source id; targets that are being left are not shown. */
  readonly targets: ReadonlyMap<string, TargetView>;
}

export function registrationView(registration: Registration, targets: Iterable<Target>, now: number): RegistrationView {
  const views = new Map<string, TargetView>();
  for (const target of targets) if (!target.leaving) views.set(target.sourceId, targetView(target, now));
  const { id, service, host, port } = registration;
  return { id, service, host, port, targets: views };
}

function targetView(target: Target, now: number): TargetView {
  const leaseMs = target.leaseLeft(now);
  return {
    state: target.state(now),
    ...(target.receipt !== null && { nativeId: target.receipt.nativeId }),
    ...(leaseMs !== null && { leaseMs }),
    ...(target.error !== null && { error: target.error.message }),
  };
}

export function countStates(targets: Iterable<Target>, now: number): ReadonlyMap<TargetState, number> {
  const counts = new Map<TargetState, number>([
    ['pending', 0],
    ['live', 0],
    ['lost', 0],
    ['refused', 0],
  ]);
  for (const target of targets) {
    const state = target.state(now);
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  return counts;
}
