// Owns the figure "time of one pick": whole rounds of pick and end through a real Cluster at several sizes. Called by the bench runner.
import { Cluster, type ClusterDeps } from '../../src/cluster/cluster.ts';
import type { ClusterUpdate } from '../../src/cluster/cluster-update.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { DEFAULT_CLUSTER_POLICY, type LoadBalancerPolicy } from '../../src/model/policy.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';

export interface PickFigure {
  readonly endpoints: number;
  readonly policy: LoadBalancerPolicy;
  readonly weights: 'equal' | 'unequal';
  /** Median over the rounds of ns per pick, the attempt's end not included. */
  readonly nsPerPick: number;
  /** The same for pick and end together. */
  readonly nsPerPickAndEnd: number;
  /** ms of building the picker of this size anew, the first pick included. */
  readonly msRebuild: number;
}

const SIZES = [10, 1_000, 10_000];
const POLICIES: readonly LoadBalancerPolicy[] = ['leastRequest', 'roundRobin', 'random'];
/** Picks that stand open at once, as on a busy proxy; they are ended outside of the time of the picks. */
const BATCH = 256;
const ROUNDS = 300;

/** Every size, policy and kind of weights. Takes about two seconds; clock reads are part of a pick. */
export function benchPick(): PickFigure[] {
  const figures: PickFigure[] = [];
  for (const endpoints of SIZES) {
    for (const policy of POLICIES) {
      for (const weights of ['equal', 'unequal'] as const) figures.push(benchOne(endpoints, policy, weights));
    }
  }
  return figures;
}

function benchOne(endpoints: number, policy: LoadBalancerPolicy, weights: 'equal' | 'unequal'): PickFigure {
  const wheel = new TimerWheel(systemClock);
  const deps: ClusterDeps = {
    clock: systemClock,
    random: seededRandom(7),
    wheel,
    metrics: new Metrics(),
    makePool: () => {
      throw new Error('a pick must not make a pool');
    },
  };
  const cluster = new Cluster(deps, update(endpoints, policy, weights, 0));
  const picks: number[] = [];
  const whole: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const [pick, both] = benchRound(cluster);
    picks.push(pick);
    whole.push(both);
  }
  const rebuilds: number[] = [];
  for (let i = 0; i < 5; i++) rebuilds.push(timeRebuild(cluster, update(endpoints, policy, weights, i + 1)));
  wheel.close();
  return { endpoints, policy, weights, nsPerPick: median(picks), nsPerPickAndEnd: median(whole), msRebuild: median(rebuilds) };
}

function benchRound(cluster: Cluster): [pick: number, both: number] {
  const open = new Array(BATCH);
  const start = process.hrtime.bigint();
  for (let i = 0; i < BATCH; i++) open[i] = cluster.pick(null, true);
  const middle = process.hrtime.bigint();
  for (let i = 0; i < BATCH; i++) cluster.end(open[i], 200);
  const end = process.hrtime.bigint();
  return [Number(middle - start) / BATCH, Number(end - start) / BATCH];
}

function timeRebuild(cluster: Cluster, message: ClusterUpdate): number {
  cluster.update(message);
  const start = process.hrtime.bigint();
  const picked = cluster.pick(null, true);
  const ms = Number(process.hrtime.bigint() - start) / 1e6;
  if (picked !== null) cluster.end(picked, 200);
  return ms;
}

function update(endpoints: number, policy: LoadBalancerPolicy, weights: 'equal' | 'unequal', turn: number): ClusterUpdate {
  return {
    kind: 'cluster',
    service: 'bench/pick',
    revision: turn,
    endpoints: Array.from({ length: endpoints }, (_, i) => ({
      host: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
      port: 8080,
      // The first one's weight changes at every turn, so that each update calls for a new picker.
      weight: weights === 'equal' ? 100 + turn : i === 0 ? 51 + turn : 50 + (i % 150),
      verdict: 'healthy',
    })),
    policy: { ...DEFAULT_CLUSTER_POLICY, loadBalancer: { policy } },
  };
}

function median(values: number[]): number {
  values.sort((a, b) => a - b);
  return values[Math.floor(values.length / 2)] ?? 0;
}
