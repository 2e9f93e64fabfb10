// Owns the panic rule (proxy-semantics §9, catalog-rules R9). Pure; cluster asks it whenever it builds a picker.

/** Envoy's overprovisioning factor in per cent: a priority is at full health until less than 100/140 of it is available. */
const OVERPROVISIONING = 140;

/**
 * True when health is to be ignored: the available share is below `threshold` per cent and the total health (the share times 1.4, one
 * priority) below 100. `total` counts the hosts that may take traffic at all. Threshold 0 disables.
 */
export function inPanic(available: number, total: number, threshold: number): boolean {
  if (threshold <= 0 || total === 0) return false;
  return 100 * available < threshold * total && OVERPROVISIONING * available < 100 * total;
}
