// Loaded into a process beside its own code (node --import): on SIGUSR2 it writes the event-loop delay since the last SIGUSR2 to the file
// WEIR_LOOP_PROBE, as JSON. Called by five-registries.ts; must never import anything of ours, since the memory of the process is measured.
import { renameSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

const RESOLUTION_MS = 4;
const path = process.env['WEIR_LOOP_PROBE'] ?? '';
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
let round = 0;

/** The histogram holds whole intervals: the resolution is no delay. */
const late = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);

delay.enable();
process.on('SIGUSR2', () => {
  round++;
  const figures = {
    round,
    samples: delay.count,
    p50: late(delay.percentile(50)),
    p99: late(delay.percentile(99)),
    max: late(delay.max),
  };
  delay.reset();
  writeFileSync(`${path}.part`, JSON.stringify(figures));
  renameSync(`${path}.part`, path);
});
