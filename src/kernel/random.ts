// Owns randomness. Everything else gets a Random as an argument, so that a seed repeats a run.

/** A number in [0, 1), like `Math.random`. */
export type Random = () => number;

/** The process's own randomness; not for secrets. */
export const systemRandom: Random = () => Math.random();

/** A repeatable sequence (mulberry32, public domain); equal seeds give equal sequences. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A whole number in [0, n); `n` must be at least 1. */
export function randomBelow(random: Random, n: number): number {
  return Math.floor(random() * n);
}
