// Owns what a check is and what its result is: the port between the prober and the three kinds of checks. Types and small helpers only.
import type { DialPolicy } from '../kernel/dial.ts';
import type { HealthCheckKind, HealthCheckPolicy } from '../model/policy.ts';

/** What is checked. Two askers with equal targets share one check, whoever they are (R8). */
export interface ProbeTarget {
  readonly network: string;
  /** Canonical: an IP literal, or a name where the source allows names. */
  readonly host: string;
  readonly port: number;
  readonly kind: HealthCheckKind;
  /** HTTP only; empty otherwise. */
  readonly path: string;
  /** HTTP only: the Host field; null: host:port. */
  readonly hostHeader: string | null;
  /** HTTP only. */
  readonly expectedStatuses: HealthCheckPolicy['expectedStatuses'];
  /** gRPC only: the service asked for. */
  readonly grpcService: string;
}

/** `definite`: the instance answered, and its answer is no (an unexpected HTTP status): thresholds do not apply. */
export type ProbeResult = { readonly ok: true } | { readonly ok: false; readonly reason: string; readonly definite: boolean };

/** How one check is run. */
export interface ProbeRun {
  /** Aborts at the deadline or when nobody asks any more; the check must let go of its socket then. */
  readonly signal: AbortSignal;
  /** May this address be connected to? Asked again for each connection, also of what a name resolved to. */
  readonly dial: DialPolicy;
  /** The next check comes soon: the connection may stay open. */
  readonly keep: boolean;
}

/** One kind of check. Never rejects: every failure is a result. */
export interface Probe {
  run(target: ProbeTarget, how: ProbeRun): Promise<ProbeResult>;
  /** The target is checked no more: its connection is closed. */
  drop(target: ProbeTarget): void;
  close(): Promise<void>;
}

export const PASS: ProbeResult = { ok: true };

export function failed(reason: string, definite = false): ProbeResult {
  return { ok: false, reason, definite };
}

/** Equal texts are one check. */
export function targetKey(target: ProbeTarget): string {
  const { network, host, port, kind, path, hostHeader, grpcService, expectedStatuses } = target;
  const how = kind === 'http' ? `${path}\0${hostHeader ?? ''}\0${expectedStatuses.join(';')}` : grpcService;
  return `${network}\0${host}\0${port}\0${kind}\0${how}`;
}

/** The target that a policy means for an address. */
export function targetOf(policy: HealthCheckPolicy, network: string, host: string, port: number): ProbeTarget {
  const http = policy.kind === 'http';
  return {
    network,
    host,
    port,
    kind: policy.kind,
    path: http ? policy.path : '',
    hostHeader: http ? policy.host : null,
    expectedStatuses: http ? policy.expectedStatuses : [],
    grpcService: policy.kind === 'grpc' ? policy.grpcService : '',
  };
}

/** A short text of an error for people: the system's code where there is one. */
export function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown).slice(0, 120);
  const code = 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : '';
  return code === '' ? thrown.message.slice(0, 120) : code;
}
