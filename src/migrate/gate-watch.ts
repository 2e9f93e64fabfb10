// Owns the judgement of a running shift: error rate and latency of the new side against the limits of the order. Called by migrations.ts
// once a second during shift and cutover; must never act, and never judge by a handful of requests.

import { LATENCY_BOUNDS } from '../cluster/sides.ts';
import type { Clock } from '../kernel/clock.ts';
import type { ServiceId } from '../model/service.ts';
import type { MigrationSpec } from './migration.ts';
import type { ReadSides, SideTraffic } from './ports.ts';

/** Limits are judged over this long, ms. */
const WINDOW_MS = 30_000;
/** Fewer requests of a side say nothing. */
const MIN_REQUESTS = 50;

/** Traffic of one side in the window. */
export interface SideFigures {
  readonly requests: number;
  readonly failed: number;
  /** 0..1; null without requests. */
  readonly errorRate: number | null;
  /** Upper bound of the bucket that holds it, ms; null without answers. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
}

export interface SideShow {
  readonly windowMs: number;
  readonly from: SideFigures;
  readonly to: SideFigures;
}

interface Look {
  readonly at: number;
  readonly sides: ReadonlyMap<string, SideTraffic>;
}

export interface GateWatchDeps {
  readonly clock: Clock;
  readonly sides: ReadSides;
}

export class GateWatch {
  readonly #deps: GateWatchDeps;
  /** Oldest first, one a second at most, none older than the window but the first. */
  readonly #looks: Look[] = [];

  constructor(deps: GateWatchDeps) {
    this.#deps = deps;
  }

  /** Takes a look, and answers which limit is broken, in words; null: none, or too few requests to say. */
  look(spec: MigrationSpec, inScope: (service: ServiceId) => boolean): string | null {
    const now = this.#deps.clock.now();
    this.#looks.push({ at: now, sides: this.#deps.sides(inScope) });
    while ((this.#looks[1]?.at ?? now) <= now - WINDOW_MS) this.#looks.shift();
    const show = this.show(spec);
    return show === null ? null : breach(spec, show);
  }

  /** What both sides did in the window; null before the second look. */
  show({ from, to }: Pick<MigrationSpec, 'from' | 'to'>): SideShow | null {
    const first = this.#looks[0];
    const last = this.#looks.at(-1);
    if (first === undefined || last === undefined || first === last) return null;
    const side = (id: string): SideFigures => figures(first.sides.get(id), last.sides.get(id));
    return { windowMs: last.at - first.at, from: side(from), to: side(to) };
  }
}

function breach({ gates, from, to }: MigrationSpec, show: SideShow): string | null {
  if (show.to.requests < MIN_REQUESTS) return null;
  const rate = show.to.errorRate ?? 0;
  if (gates.maxErrorRate !== null && rate > gates.maxErrorRate) {
    return `${percent(rate)} of ${show.to.requests} requests over ${to} failed, maxErrorRate is ${percent(gates.maxErrorRate)}`;
  }
  if (gates.maxP99Ratio === null || show.from.requests < MIN_REQUESTS) return null;
  const [older, newer] = [show.from.p99Ms, show.to.p99Ms];
  if (older === null || newer === null || newer <= older * gates.maxP99Ratio) return null;
  return `p99 over ${to} is ${newer} ms and over ${from} ${older} ms, maxP99Ratio is ${gates.maxP99Ratio}`;
}

function figures(before: SideTraffic | undefined, after: SideTraffic | undefined): SideFigures {
  const requests = (after?.requests ?? 0) - (before?.requests ?? 0);
  const failed = (after?.failed ?? 0) - (before?.failed ?? 0);
  const latency = Array.from(after?.latency ?? [], (count: number, n) => count - (before?.latency[n] ?? 0));
  return {
    requests,
    failed,
    errorRate: requests > 0 ? failed / requests : null,
    p50Ms: quantile(latency, 0.5),
    p99Ms: quantile(latency, 0.99),
  };
}

function quantile(latency: readonly number[], q: number): number | null {
  const total = latency.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return null;
  let left = Math.ceil(total * q);
  for (const [n, count] of latency.entries()) {
    left -= count;
    if (left <= 0) return LATENCY_BOUNDS[n] ?? Number.POSITIVE_INFINITY;
  }
  return null;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
