// Five registries at once (the figure of issue 5): memory of a sidecar on five sources, and how long its event loop stalls while all of
// them drop their connections and come back. `weir run` is one process, the five fakes another, so that only the sidecar is measured.
// Called by bench/main.ts and the test beside it; run alone it prints:
// node test/bench/five-registries.ts [services] [options of the sidecar's node].
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { FaultBench } from '../faults/harness/bench.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { eventually } from '../support/eventually.ts';
import type { Ports, ToFakes } from './five-fakes.ts';

export interface FiveFigures {
  /** `merged`: each service has the same name in all five; `distinct`: each source has a namespace of its own. */
  readonly names: 'merged' | 'distinct';
  /** In each registry, with two instances each. */
  readonly services: number;
  readonly catalogServices: number;
  readonly catalogInstances: number;
  /** From the start of the process until everything is live, ms. */
  readonly loadMs: number;
  /** Event-loop delay while it loads, ms. */
  readonly loadP99Ms: number;
  readonly loadMaxMs: number;
  /** Resident memory at rest, and the most that it ever was, MiB. */
  readonly rssMb: number;
  readonly rssPeakMb: number;
  /** From the cut until everything is live again, ms. */
  readonly backMs: number;
  /** The same for each source, ms. */
  readonly backMsBySource: Readonly<Record<string, number>>;
  /** Event-loop delay from the cut until everything is live again, ms. */
  readonly backP99Ms: number;
  readonly backMaxMs: number;
  /** Processor time of the main thread in one turn of the loop, in the same time, ms: the delay that is our own doing. */
  readonly backWorkP99Ms: number;
  readonly backWorkMaxMs: number;
  /** Event-loop delay at rest, for comparison, ms. */
  readonly restP99Ms: number;
  /** After the reconnect, MiB. */
  readonly rssAfterMb: number;
  /** Instances that were missing in any look at the catalog, from the cut to the end. */
  readonly removed: number;
  /** Holds that began. */
  readonly holds: number;
}

export const INSTANCES = 2;
const SOURCES = ['etcd', 'consul', 'nacos', 'polaris', 'l5'] as const;
const FAKES = fileURLToPath(new URL('./five-fakes.ts', import.meta.url));
const PROBE = new URL('./loop-probe.ts', import.meta.url).href;
/** After the last change: the heap comes to rest. */
const SETTLE_MS = 20_000;

interface Delay {
  readonly round: number;
  readonly p99: number;
  readonly max: number;
  readonly workP99: number;
  readonly workMax: number;
}

/** One measurement. `settleMs`: how long the sidecar rests before its memory is read. */
export async function benchFive(options: {
  readonly services: number;
  readonly names: FiveFigures['names'];
  readonly settleMs?: number;
  /** Options of the sidecar's node, for experiments. */
  readonly nodeArgs?: readonly string[];
}): Promise<FiveFigures> {
  const { services, names, settleMs = SETTLE_MS, nodeArgs = [] } = options;
  const bench = new FaultBench();
  try {
    const fakes = fork(FAKES, [String(services)], {
      execArgv: ['--disable-proto=throw'],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    bench.defer(() => fakes.kill('SIGKILL'));
    const ports = await said<Ports>(fakes);
    const probe = bench.path('loop.json');
    const began = performance.now();
    const env = { WEIR_LOOP_PROBE: probe };
    const weir = await bench.weir(bench.config(sourcesYaml(ports, names, services)), {
      env,
      nodeArgs: [...nodeArgs, '--import', PROBE],
    });
    let round = 0;
    const delay = async (): Promise<Delay> => {
      round++;
      weir.signal('SIGUSR2');
      let read: Delay | null = null;
      await eventually(() => {
        read = existsSync(probe) ? JSON.parse(readFileSync(probe, 'utf8')) : null;
        assert.equal(read?.round, round);
      }, 20_000);
      return read ?? assert.fail('no figures');
    };
    await allLive(weir, services, 120_000);
    const loadMs = performance.now() - began;
    const load = await delay();
    await sleep(settleMs);
    const rest = await delay();
    const rssMb = weir.rssMb();
    const rssPeakMb = weir.rssMb(true);
    const [catalogServices, catalogInstances] = [
      await weir.metric('weir_catalog_services'),
      await weir.metric('weir_catalog_instances'),
    ];
    const holdsBefore = await weir.metric('weir_holds_total', 'started');
    await delay();

    const cutAt = performance.now();
    const order: ToFakes = { do: 'cut' };
    fakes.send(order);
    await said(fakes);
    let removed = 0;
    const backBySource = new Map<string, number>();
    const look = (now: readonly State[]): void => {
      for (const one of now) {
        removed = Math.max(removed, services * INSTANCES - one.instances);
        if (one.state !== 'live' || (one.lostWatches ?? 0) > 0) backBySource.delete(one.id);
        else if (!backBySource.has(one.id)) backBySource.set(one.id, Math.round(performance.now() - cutAt));
      }
    };
    // Somebody must have noticed before "all live" means anything.
    await eventually(async () => assert.ok((await states(weir)).some(({ state }) => state !== 'live')), 20_000, 20);
    await allLive(weir, services, 60_000, look);
    const backMs = performance.now() - cutAt;
    const back = await delay();
    await sleep(Math.min(settleMs, 5_000));
    look(await states(weir));
    removed = Math.max(removed, catalogInstances - (await weir.metric('weir_catalog_instances')));
    return {
      names,
      services,
      catalogServices,
      catalogInstances,
      loadMs,
      loadP99Ms: load.p99,
      loadMaxMs: load.max,
      rssMb,
      rssPeakMb,
      backMs,
      backMsBySource: Object.fromEntries(backBySource),
      backP99Ms: back.p99,
      backMaxMs: back.max,
      backWorkP99Ms: back.workP99,
      backWorkMaxMs: back.workMax,
      restP99Ms: rest.p99,
      rssAfterMb: weir.rssMb(),
      removed,
      holds: (await weir.metric('weir_holds_total', 'started')) - holdsBefore,
    };
  } finally {
    await bench.close();
  }
}

interface State {
  readonly id: string;
  readonly state: string;
  readonly services: number;
  readonly instances: number;
  readonly watched?: number;
  readonly lostWatches?: number;
}

async function states(weir: WeirProcess): Promise<readonly State[]> {
  const { sources } = await weir.get<{ readonly sources: readonly State[] }>('/v1/sources');
  return sources;
}

/** Every source is live with all of its services and none of its watches is lost. `look` is called at every look. */
async function allLive(
  weir: WeirProcess,
  services: number,
  withinMs: number,
  look: (now: readonly State[]) => void = () => {},
): Promise<void> {
  await eventually(
    async () => {
      const now = await states(weir);
      look(now);
      const shown = now
        .map((one) => `${one.id} ${one.state} ${one.services}/${one.instances} lost ${one.lostWatches ?? '?'}`)
        .join(', ');
      for (const one of now) {
        const whole = one.services === services && one.instances === services * INSTANCES && (one.lostWatches ?? 0) === 0;
        assert.ok(one.state === 'live' && whole, shown);
      }
    },
    withinMs,
    100,
  );
}

function sourcesYaml(ports: Ports, names: FiveFigures['names'], services: number): string {
  const sids = Array.from({ length: services }, (_, n) => `"${ports.modId}:${n + 1}"`).join(', ');
  const own = {
    etcd: `endpoints: ["http://${ports.etcd}"], prefix: /services/`,
    consul: `address: "${ports.consul}"`,
    nacos: `servers: ["${ports.nacos}"], grpcPort: ${ports.nacosGrpc}`,
    polaris: `servers: ["${ports.polaris}"]`,
    l5: `servers: ["${ports.l5}"], namespace: default, sids: [${sids}]`,
  };
  const lines = SOURCES.map((kind) => {
    const as = names === 'distinct' ? `, as: {namespace: of-${kind}}` : '';
    return `  - {id: ${kind}, kind: ${kind}, ${own[kind]}${as}}`;
  });
  return `sources:\n${lines.join('\n')}\n`;
}

function said<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once('message', (message) => resolve(message as T));
    child.once('exit', (code) => reject(new Error(`the fakes ended with ${code}`)));
  });
}

if (import.meta.main) {
  const services = Number(process.argv[2] ?? 2_000);
  const nodeArgs = process.argv.slice(3);
  for (const names of ['merged', 'distinct'] as const) console.log(await benchFive({ services, names, nodeArgs }));
}
