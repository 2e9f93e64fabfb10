// Owns what a cluster counts per group of a weighted merge: requests, failures, latency of the first tries that were drawn over it. Called
// by cluster.ts only while shares stand; read by whoever judges a shift. Costs one array access a request, nothing without shares.
import { IGNORED, type Outcome } from '../resilience/outcome.ts';

/** Upper bounds of the latency buckets, ms; one more bucket takes the rest. */
export const LATENCY_BOUNDS: readonly number[] = [
  1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 30_000,
];

/** Sums since the cluster was made; they only grow. */
export interface SideCounts {
  requests: number;
  failed: number;
  /** Of answers that did not fail, by {@link LATENCY_BOUNDS}. */
  readonly latency: Float64Array;
}

export function noCounts(): SideCounts {
  return { requests: 0, failed: 0, latency: new Float64Array(LATENCY_BOUNDS.length + 1) };
}

/** Adds an attempt; one that nobody learns from counts nowhere. */
export function countSide(counts: SideCounts, outcome: Outcome, ms: number): void {
  if (outcome === IGNORED) return;
  counts.requests++;
  if (outcome < 0 || outcome >= 500) {
    counts.failed++;
    return;
  }
  let bucket = 0;
  while (bucket < LATENCY_BOUNDS.length && ms > (LATENCY_BOUNDS[bucket] ?? 0)) bucket++;
  counts.latency[bucket] = (counts.latency[bucket] ?? 0) + 1;
}

/** Adds `more` to `sum`. */
export function addCounts(sum: SideCounts, more: SideCounts): void {
  sum.requests += more.requests;
  sum.failed += more.failed;
  for (const [n, count] of more.latency.entries()) sum.latency[n] = (sum.latency[n] ?? 0) + count;
}

/** Place of a text in [0, 1), the same in every process: FNV-1a with a final mix. */
export function placeOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) / 0x1_0000_0000;
}
