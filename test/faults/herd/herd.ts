// A herd: 200 sidecars, each the real supervisor and the real adapter of a kind, on one fake registry and one fake clock, that lose the
// registry for two minutes (A19). Called by herd.test.ts in a process of its own (`node herd.ts KIND SEED…` prints the figures as JSON):
// the test runner follows every promise, which makes this three times as slow.
import { adapterKinds } from '../../../adapters/index.ts';
import type { AdapterFactory } from '../../../src/adapter/contract.ts';
import { Supervisor } from '../../../src/adapter/supervisor.ts';
import { silentLog } from '../../../src/kernel/log.ts';
import { seededRandom } from '../../../src/kernel/random.ts';
import { RecordingSink } from '../../support/recording-sink.ts';
import { GRID_MS, HerdClock } from './clock.ts';
import { inject, KINDS, type Kind } from './kinds.ts';
import { type Ends, SERVICES, World } from './world.ts';

export const HERD = 200;
const HEALTHY_MS = 3_000;
const OUTAGE_MS = 120_000;
/** R7: nobody waits longer than 30 s; what a list of names needs besides comes with it. */
const WATCHED_MS = 40_000;

export interface HerdFigures {
  /** Largest part of the herd that made its first contact within any one second from the server's return, %. */
  readonly connects: number;
  /** Largest part of all requests until everybody was whole that fell into any one second, %. */
  readonly requests: number;
  /** Largest part of the herd that became whole (all watches live) within any one second, %. */
  readonly whole: number;
  /** Tries of one sidecar in one second of the outage, mean. */
  readonly triesPerSecond: number;
  /** From the return until the last sidecar was whole, ms. */
  readonly wholeAfterMs: number;
}

interface Sidecar {
  readonly supervisor: Supervisor;
  readonly sink: RecordingSink;
  readonly close: () => Promise<void>;
  wholeAt: number | null;
}

/** One run. `size`: how many sidecars. Throws when a sidecar was not whole before the outage, or is not 40 s after it. */
export async function runHerd(kind: Kind, factory: AdapterFactory, seed: number, size = HERD): Promise<HerdFigures> {
  const ends: Ends = [];
  const clock = new HerdClock();
  const world = new World(clock);
  const registry = await inject(ends, kind, world);
  const herd = Array.from({ length: size }, (_, n) => sidecar(factory, registry.config(n), clock, seed * 1_000 + n));
  try {
    await clock.advance(HEALTHY_MS);
    const early = herd.filter((one) => !isWhole(one)).length;
    if (early > 0)
      throw new Error(`${kind}: ${early} sidecars never became whole: ${JSON.stringify(herd[0]?.supervisor.summary())}`);
    world.fall();
    await clock.advance(OUTAGE_MS);
    const { refused } = world;
    world.rise();
    const returned = clock.now();
    while (clock.now() - returned < WATCHED_MS && herd.some(({ wholeAt }) => wholeAt === null)) {
      await clock.advance(GRID_MS);
      for (const one of herd) {
        if (one.wholeAt !== null || !isWhole(one)) continue;
        one.wholeAt = clock.now() - returned;
        // From here on it only polls as ever.
        await one.close();
      }
    }
    return figures(kind, world, herd, refused);
  } finally {
    await Promise.all(herd.map(({ close }) => close()));
    for (const end of ends.reverse()) end();
  }
}

function sidecar(factory: AdapterFactory, config: unknown, clock: HerdClock, seed: number): Sidecar {
  const random = seededRandom(seed);
  const options = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
  const deps = { sourceId: 's', clock, random, dial: () => null, log: silentLog, count: () => {} };
  const adapter = factory.create(config, options, deps);
  const sink = new RecordingSink();
  const supervisor = new Supervisor({
    ...{ sourceId: 's', adapter, select: { kind: 'all' }, sink, clock, random, log: silentLog, timeout: 10_000 },
  });
  supervisor.start();
  let closed: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closed ??= supervisor.close().then(() => adapter.close());
    return closed;
  };
  return { supervisor, sink, close, wholeAt: null };
}

function isWhole({ supervisor }: Sidecar): boolean {
  const { state, watched, lostWatches } = supervisor.summary();
  return state === 'live' && watched === SERVICES.length && lostWatches === 0;
}

function figures(kind: Kind, world: World, herd: readonly Sidecar[], refused: number): HerdFigures {
  const whole = herd.flatMap(({ wholeAt }) => (wholeAt === null ? [] : [wholeAt]));
  if (whole.length < herd.length) throw new Error(`${kind}: ${herd.length - whole.length} sidecars did not come back`);
  const first = new Map<number, number>();
  for (const { at, sidecar: n } of world.arrivals) if (!first.has(n)) first.set(n, at);
  // What a sidecar asks after it is whole is its ordinary polling.
  const until = world.arrivals.filter(({ at, sidecar: n }) => at <= (herd[n]?.wholeAt ?? 0)).map(({ at }) => at);
  return {
    connects: peak([...first.values()]),
    requests: peak(until),
    whole: peak(whole),
    triesPerSecond: refused / herd.length / (OUTAGE_MS / 1_000),
    wholeAfterMs: Math.max(...whole),
  };
}

/** Largest part of the times that lies within any window of a second, %. */
function peak(times: readonly number[]): number {
  const sorted = times.toSorted((a, b) => a - b);
  let most = 0;
  for (let from = 0, to = 0; to < sorted.length; to++) {
    while ((sorted[to] ?? 0) - (sorted[from] ?? 0) >= 1_000) from++;
    most = Math.max(most, to - from + 1);
  }
  return (100 * most) / sorted.length;
}

if (import.meta.main) {
  const kind = KINDS.find((one) => one === process.argv[2]);
  const load = kind === undefined ? undefined : adapterKinds.get(kind);
  if (kind === undefined || load === undefined) throw new Error(`one of ${KINDS.join(', ')}, then seeds`);
  const { factory } = await load();
  const runs: HerdFigures[] = [];
  for (const seed of process.argv.slice(3)) runs.push(await runHerd(kind, factory, Number(seed)));
  process.stdout.write(JSON.stringify(runs), () => process.exit(0));
}
