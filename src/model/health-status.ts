// Owns the words of health: the verdict that we publish and its order.

/** catalog-rules M5. `unknown` is routable and probed; `isolated` is an operator's word and is never picked. */
export type Verdict = 'healthy' | 'unhealthy' | 'unknown' | 'isolated';

/** May be picked as far as the verdict goes (ejection, breaker, weight are asked elsewhere). */
export function routable(verdict: Verdict): boolean {
  return verdict === 'healthy' || verdict === 'unknown';
}
