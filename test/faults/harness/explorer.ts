// Composes scenarios {topology, traffic, fault, seed, validators} at random and runs them; the same seed makes the same scenario. What it
// found once is pinned in the other fault tests. Called by explorer.full.test.ts.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { type Random, randomBelow, seededRandom } from '../../../src/kernel/random.ts';
import { eventually } from '../../support/eventually.ts';
import { type FaultBench, onBench, sleep } from './bench.ts';
import type { Outcome } from './client.ts';
import { fakeConsul } from './consul-registry.ts';
import { fakeEtcd } from './etcd-registry.ts';
import type { UpstreamProcess } from './upstream-process.ts';
import { isIdempotent, neverMissing, noneFailed, noPhantom, tally } from './validators.ts';
import type { WeirProcess } from './weir-process.ts';

export interface Topology {
  readonly upstreams: number;
  /** Every one of them names all the upstreams. */
  readonly sources: readonly ('file' | 'etcd' | 'consul')[];
  readonly balancer: 'leastRequest' | 'roundRobin' | 'random';
  readonly checked: boolean;
}

export interface Traffic {
  readonly rate: number;
  readonly posts: number;
  readonly methods: readonly string[];
  readonly bodyBytes: number;
  readonly maxDelayMs: number;
  readonly maxSize: number;
}

export type FaultName =
  | 'upstream killed'
  | 'upstream frozen'
  | 'upstream hangs'
  | 'upstream fails'
  | 'upstream closes idle connections'
  | 'registry dies'
  | 'registry is emptied'
  | 'registry link is cut'
  | 'registry link is bad'
  | 'weir stands still'
  | 'weir reloads';

export interface Fault {
  readonly name: FaultName;
  /** When it begins and how long it lasts, ms from the start of the load. */
  readonly at: number;
  readonly forMs: number;
  /** Which upstream or source, taken modulo their number. */
  readonly which: number;
}

/** `noneFailed` judges what the faults of a scenario promise; the others hold under every fault. */
export interface Scenario {
  readonly seed: number;
  readonly topology: Topology;
  readonly traffic: Traffic;
  readonly faults: readonly Fault[];
  readonly lastsMs: number;
  readonly validators: readonly ('idempotentNeverFail' | 'nothingFails' | 'livingNeverMissing' | 'noPhantom' | 'recovers')[];
}

const HITS_UPSTREAM: readonly FaultName[] = [
  'upstream killed',
  'upstream frozen',
  'upstream hangs',
  'upstream fails',
  'upstream closes idle connections',
];

const HITS_REGISTRY: readonly FaultName[] = [
  'registry dies',
  'registry is emptied',
  'registry link is cut',
  'registry link is bad',
];
const HITS_WEIR: readonly FaultName[] = ['weir stands still', 'weir reloads'];

/** The scenario of a seed. At most one fault hits upstreams: with all of them ill nothing can be promised. */
export function scenarioOf(seed: number): Scenario {
  const random = seededRandom(seed);
  const any = <T>(list: readonly T[]): T => list[randomBelow(random, list.length)] ?? assert.fail('an empty list');
  const between = (from: number, to: number): number => from + randomBelow(random, to - from + 1);
  const kinds = (['file', 'etcd', 'consul'] as const).filter(() => random() < 0.5);
  const topology: Topology = {
    upstreams: between(3, 5),
    sources: kinds.length === 0 ? ['etcd'] : kinds,
    balancer: any(['leastRequest', 'roundRobin', 'random'] as const),
    checked: random() < 0.5,
  };
  const traffic: Traffic = {
    rate: any([20, 60, 150]),
    posts: any([0, 0.2, 0.5]),
    methods: any([['GET'], ['GET', 'PUT', 'DELETE'], ['PUT']] as const),
    bodyBytes: any([0, 1_024, 20_000, 60_000]),
    maxDelayMs: any([0, 10, 100]),
    maxSize: any([0, 1_000, 100_000]),
  };
  const names = [
    ...(random() < 0.7 ? [any(HITS_UPSTREAM)] : []),
    ...HITS_REGISTRY.filter(() => random() < 0.3),
    ...HITS_WEIR.filter(() => random() < 0.25),
  ];
  const faults = names.map((name) => ({ name, at: between(500, 3_000), forMs: between(300, 2_500), which: between(0, 5) }));
  const hit = faults.find(({ name }) => HITS_UPSTREAM.includes(name));
  return {
    seed,
    topology,
    traffic,
    faults,
    lastsMs: 6_500,
    validators: [hit === undefined ? 'nothingFails' : 'idempotentNeverFail', 'livingNeverMissing', 'noPhantom', 'recovers'],
  };
}

interface World {
  readonly bench: FaultBench;
  readonly scenario: Scenario;
  readonly random: Random;
  readonly upstreams: readonly UpstreamProcess[];
  readonly weir: WeirProcess;
  readonly sources: readonly Source[];
  readonly config: string;
}

/** A registry that can be broken and mended again. */
interface Source {
  readonly id: string;
  readonly text: string;
  die(): Promise<unknown> | undefined;
  live(): Promise<unknown> | undefined;
  empty(): void;
  fill(): void;
  cut(): void;
  bad(on: boolean): void;
}

async function makeSource(
  bench: FaultBench,
  kind: Topology['sources'][number],
  upstreams: readonly UpstreamProcess[],
): Promise<Source> {
  if (kind === 'file') {
    const path = bench.services(upstreams);
    return {
      id: 'file',
      text: `  - {id: file, kind: file, path: ${path}}\n`,
      die() {
        rmSync(path, { force: true });
        return undefined;
      },
      live() {
        bench.services(upstreams);
        return undefined;
      },
      empty: () => void bench.write('services.yaml', 'services: {}\n'),
      fill: () => void bench.services(upstreams),
      cut() {},
      bad() {},
    };
  }
  if (kind === 'etcd') {
    const etcd = await fakeEtcd(bench);
    const fill = (): void => {
      for (const { name, port } of upstreams) etcd.put(name, port);
    };
    fill();
    return {
      id: 'etcd',
      text: etcd.source(),
      die: () => etcd.fake.down(),
      live: () => etcd.fake.up(),
      empty: () => etcd.fake.wipe(),
      fill,
      cut: () => etcd.link.cut(),
      bad: (on) => void Object.assign(etcd.link.link, on ? { delayMs: 150, jitterMs: 150, sliceBytes: 200 } : CLEAN),
    };
  }
  const consul = await fakeConsul(bench);
  const fill = (): void => {
    for (const { name, port } of upstreams) consul.put(name, port);
  };
  fill();
  return {
    id: 'consul',
    text: consul.source(),
    die: () => consul.fake.close(),
    live: () => consul.fake.listen(),
    empty: () => consul.fake.wipe(),
    fill,
    cut: () => consul.fake.cut(),
    bad() {},
  };
}

const CLEAN = { delayMs: 0, jitterMs: 0, sliceBytes: 0 };

/** Does the harm, waits, and undoes it. */
async function play(world: World, { name, at, forMs, which }: Fault): Promise<void> {
  const { bench, upstreams, weir, sources, config } = world;
  const upstream = upstreams[which % upstreams.length] ?? assert.fail('no upstream');
  const source = sources[which % sources.length] ?? assert.fail('no source');
  await sleep(at);
  switch (name) {
    case 'upstream killed':
      await upstream.kill();
      await sleep(forMs);
      return upstream.start();
    case 'upstream frozen':
      upstream.freeze();
      bench.defer(() => upstream.thaw());
      await sleep(forMs);
      return upstream.thaw();
    case 'upstream hangs':
      await upstream.set({ kind: 'hang' });
      await sleep(forMs);
      return upstream.set({ kind: 'ok' });
    case 'upstream fails':
      await upstream.set({ kind: 'status', status: 503 });
      await sleep(forMs);
      return upstream.set({ kind: 'ok' });
    case 'upstream closes idle connections':
      await upstream.set({ kind: 'closesIdle', withinMs: 60 });
      await sleep(forMs);
      return upstream.set({ kind: 'ok' });
    case 'registry dies':
      await source.die();
      await sleep(forMs);
      await source.live();
      return;
    case 'registry is emptied':
      source.empty();
      await sleep(forMs);
      return source.fill();
    case 'registry link is cut':
      for (let n = 0; n < 3; n++) {
        source.cut();
        await sleep(forMs / 3);
      }
      return;
    case 'registry link is bad':
      source.bad(true);
      await sleep(forMs);
      return source.bad(false);
    case 'weir stands still':
      weir.signal('SIGSTOP');
      await sleep(Math.min(forMs, 1_500));
      weir.signal('SIGCONT');
      return;
    case 'weir reloads':
      for (let n = 0; n < 10; n++) {
        bench.config(n % 3 === 2 ? `${config}nonsense: [${n}]\n` : `${config}# ${n}\n`);
        await sleep(forMs / 10);
      }
      bench.config(config);
  }
}

function configOf({ topology, faults }: Scenario, sources: readonly Source[]): string {
  // What stands still or hangs must be left by a time of our own, and the last deadline must leave room for two more tries.
  const slow = faults.some(({ name }) => name === 'upstream frozen' || name === 'upstream hangs');
  const policy = [
    `loadBalancer: {policy: ${topology.balancer}}`,
    ...(topology.checked ? ['healthCheck: {tcp: {}, interval: 500ms}'] : []),
    ...(slow ? ['retry: {perTryTimeout: 700ms}'] : []),
  ];
  return `sources:\n${sources.map(({ text }) => text).join('')}services: [{match: "*", ${policy.join(', ')}}]\n`;
}

/** Runs a scenario; throws an error that names its seed and what it was made of. */
export async function runScenario(scenario: Scenario): Promise<string> {
  let said = '';
  try {
    await onBench(async (bench) => {
      said = await run(bench, scenario);
    }, 120_000);
  } catch (thrown) {
    if (thrown instanceof Error)
      thrown.message = `[WEIR_SCENARIO=${scenario.seed}] ${JSON.stringify(scenario)}\n${thrown.message}`;
    throw thrown;
  }
  return said;
}

async function run(bench: FaultBench, scenario: Scenario): Promise<string> {
  const { topology, traffic, validators } = scenario;
  const random = seededRandom(scenario.seed + 1);
  const upstreams = await bench.farm(topology.upstreams);
  const sources = await Promise.all(topology.sources.map((kind) => makeSource(bench, kind, upstreams)));
  const config = configOf(scenario, sources);
  const weir = await bench.weir(bench.config(config));
  await bench.ready(weir, topology.upstreams);
  for (const { id } of sources) await eventually(async () => assert.equal((await weir.source(id)).state, 'live', id), 15_000);
  const world: World = { bench, scenario, random, upstreams, weir, sources, config };
  const load = bench.load(weir, {
    rate: traffic.rate,
    posts: traffic.posts,
    methods: traffic.methods,
    bodyBytes: traffic.bodyBytes,
    path: () => `/?delay=${randomBelow(random, traffic.maxDelayMs + 1)}&size=${randomBelow(random, traffic.maxSize + 1)}`,
    seed: scenario.seed,
  });
  const reader = bench.watchCatalog(weir);
  const plays = Promise.all(scenario.faults.map((fault) => play(world, fault)));
  await Promise.all([plays, sleep(scenario.lastsMs)]);
  // Every promise of what happens under a fault is kept by now, or it is broken: finish() checks what holds always.
  const outcomes = await bench.finish(load);
  const addresses = upstreams.map(({ address }) => address);
  const reads = await reader.stop();
  if (validators.includes('nothingFails')) noneFailed(outcomes);
  if (validators.includes('idempotentNeverFail')) noneFailed(outcomes.filter(isIdempotent), 'idempotent requests');
  if (validators.includes('livingNeverMissing')) neverMissing(reads, addresses);
  if (validators.includes('noPhantom')) noPhantom(reads, new Set(addresses));
  if (validators.includes('recovers')) await recovers(world);
  return `${scenario.faults.map(({ name }) => name).join(' + ') || 'no fault'}: ${JSON.stringify(tally(outcomes))}`;
}

/** Every registry is live again, nothing is held, and requests go well. */
async function recovers({ weir, sources, bench, scenario }: World): Promise<void> {
  for (const { id } of sources) {
    await eventually(async () => assert.equal((await weir.source(id)).state, 'live', `${id} is not live again`), 45_000, 50);
  }
  await bench.held(weir, 0, 20_000);
  const after = bench.load(weir, { rate: 50, posts: 0, seed: scenario.seed + 2 });
  await sleep(800);
  const outcomes: readonly Outcome[] = await bench.finish(after);
  noneFailed(outcomes, 'requests after it all');
}
