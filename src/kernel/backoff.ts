// Owns waiting times between tries. Pure: state is the number of the try.
import type { Random } from './random.ts';

/** catalog-rules R7: try k (1-based) waits uniform(cap/2, cap) with cap = min(max, base · 2^(k−1)) ms. */
export function reconnectDelay(attempt: number, random: Random, baseMs = 1_000, maxMs = 30_000): number {
  const cap = Math.min(maxMs, baseMs * 2 ** Math.min(attempt - 1, 30));
  return cap / 2 + random() * (cap / 2);
}

/** proxy-semantics §5.4: before retry n (1-based) uniform in [0, min((2^n − 1)·base, 10·base)) ms. */
export function retryDelay(retry: number, random: Random, baseMs = 25): number {
  const base = Math.max(1, baseMs);
  return random() * Math.min((2 ** Math.min(retry, 30) - 1) * base, 10 * base);
}
