// Loaded into a process beside its own code (node --import): on SIGUSR2 it writes how long the event loop was held since the last SIGUSR2
// to the file WEIR_LOOP_PROBE, as JSON. Called by five-registries.ts; must never import anything of ours, since the memory of the process
// is measured.
import { renameSync, writeFileSync } from 'node:fs';
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

const RESOLUTION_MS = 4;
const path = process.env['WEIR_LOOP_PROBE'] ?? '';
/** By the clock: other processes of the machine count, too. */
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
/** Processor time of the main thread from one turn of a timer to the next: what we did ourselves, whoever else is on the machine. */
const work = createHistogram();
let before = process.threadCpuUsage();
let round = 0;

setInterval(() => {
  const now = process.threadCpuUsage();
  work.record(Math.max(1, now.user + now.system - before.user - before.system));
  before = now;
}, RESOLUTION_MS).unref();
delay.enable();
process.on('SIGUSR2', () => {
  round++;
  // The histogram holds whole intervals: the resolution is no delay.
  const late = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
  const figures = {
    round,
    samples: delay.count,
    p99: late(delay.percentile(99)),
    max: late(delay.max),
    workP99: work.percentile(99) / 1e3,
    workMax: work.max / 1e3,
  };
  delay.reset();
  work.reset();
  writeFileSync(`${path}.part`, JSON.stringify(figures));
  renameSync(`${path}.part`, path);
});
