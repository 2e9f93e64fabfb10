// How fast this machine is now: limits of start times hold for a machine of which weir has a core, and stretch with what others take.
// Called by tests that time a start.
import { spawnSync } from 'node:child_process';

/** What an empty Node takes from exec to exit on the machine that the figures of reliability.md are made for, ms. */
const EMPTY_NODE_MS = 50;

/** `ms`, times how much slower an empty Node starts here and now than it should (never less than once). */
export async function startLimitMs(ms: number): Promise<number> {
  const times = Array.from({ length: 5 }, () => {
    const began = performance.now();
    spawnSync(process.execPath, ['-e', '0']);
    return performance.now() - began;
  }).sort((a, b) => a - b);
  return ms * Math.max(1, (times[2] ?? 0) / EMPTY_NODE_MS);
}
