// How soon a sidecar serves after exec with every source down, from the last-good file alone, and how much memory it takes with that
// catalog (reliability.md rows 2 and 25). `benchColdStart` measures; run alone it prints 10,000 services of 10 instances.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { Catalog } from '../../src/catalog/catalog.ts';
import { NO_EVIDENCE, NO_OVERLAY } from '../../src/catalog/evidence.ts';
import { LastGoodFile } from '../../src/catalog/last-good.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import type { Instance } from '../../src/model/instance.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { FaultBench } from '../faults/harness/bench.ts';
import { Client } from '../faults/harness/client.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { closedPort } from '../support/upstream-farm.ts';

export interface ColdStartFigures {
  readonly services: number;
  readonly instances: number;
  readonly runs: number;
  /** The first start ever, before compiled code is kept, ms. */
  readonly firstEverMs: number;
  /** From exec to the first proxied 200, ms, one per run, sorted. */
  readonly firstAnswerMs: readonly number[];
  readonly p50Ms: number;
  readonly p95Ms: number;
  /** Processor time of the process until then, ms, median: what the machine's other load does not stretch. */
  readonly cpuMs: number;
  /** An empty Node from exec to exit on this machine at the same time, ms, median. */
  readonly emptyNodeMs: number;
  /** Resident memory once it serves, MiB, the largest of the runs. */
  readonly rssMb: number;
  /** After every service was read through the API once, MiB. */
  readonly rssAllReadMb: number;
  /** The most it ever was, MiB. */
  readonly rssPeakMb: number;
}

const SOURCE = 'etcd';
const READS = ['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata'] as const;

function instance(service: number, i: number, count: number, live: number): Instance {
  const n = service * count + i;
  const real = service === 0;
  return {
    id: `i${n}`,
    host: real ? '127.0.0.1' : `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`,
    port: real ? live : 8_080,
    transport: 'tcp',
    weight: 100,
    health: 'unknown',
    isolated: false,
    metadata: new Map([
      ['zone', `z${n % 3}`],
      ['version', `1.${service % 7}.0`],
    ]),
  };
}

/** Writes the last-good file of a sidecar that knew all these; service-0 leads to the port `live`. */
async function writeLastGood(directory: string, services: number, instances: number, live: number): Promise<void> {
  const metrics = new Metrics();
  const events = new Events(systemClock, silentLog, metrics);
  const catalog = new Catalog({
    clock: systemClock,
    log: silentLog,
    events,
    metrics,
    evidence: NO_EVIDENCE,
    overlay: NO_OVERLAY,
    lastIndex: 0,
  });
  const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
  const source = {
    id: SOURCE,
    kind: 'etcd',
    network: '',
    asNamespace: null,
    dial,
    reads: new Set(READS),
    lists: true,
    tellsDeregistration: false,
    expireAfter: null,
  };
  catalog.configure({ sources: [source], names: [], policyOf: () => DEFAULT_SERVICE_POLICY });
  const file = new LastGoodFile({ directory, catalog, clock: systemClock, log: silentLog, metrics }, { newest: 0, append: null });
  for (let s = 0; s < services; s++) {
    const count = s === 0 ? 1 : instances;
    const list = Array.from({ length: count }, (_, i) => instance(s, i, instances, live));
    catalog.snapshot(
      SOURCE,
      { namespace: 'default', name: `service-${s}` },
      { kind: 'present', epoch: 'e', sourceRevision: '1', instances: list, rejected: [] },
    );
  }
  await file.close();
  catalog.close();
}

async function firstAnswer(weir: WeirProcess, began: number): Promise<number> {
  const client = new Client(weir.proxyPort, 'default/service-0');
  const { verdict, error } = await client.ask({ id: 'first', method: 'GET', path: '/', body: '' });
  const ms = performance.now() - began;
  client.close();
  assert.equal(verdict, 'ok', `the first request was answered ${error}`);
  return ms;
}

async function readAll(weir: WeirProcess, services: number): Promise<void> {
  let cursor = '';
  let seen = 0;
  do {
    const page = await weir.get<{ services: { name: string }[]; next?: string }>(`/v1/services?limit=500${cursor}`);
    seen += page.services.length;
    await Promise.all(page.services.map(({ name }) => weir.service(`default/${name}`)));
    cursor = page.next === undefined ? '' : `&cursor=${encodeURIComponent(page.next)}`;
  } while (cursor !== '');
  assert.equal(seen, services);
}

/** Starts `runs` times on a last-good file of that size; every source is down. */
export async function benchColdStart(options: { services: number; instances: number; runs: number }): Promise<ColdStartFigures> {
  const bench = new FaultBench();
  try {
    const upstream = await bench.upstream();
    const state = bench.path('state');
    mkdirSync(state, { mode: 0o700 });
    await writeLastGood(state, options.services, options.instances, upstream.port);
    const config = bench.config(
      `sources:\n  - {id: ${SOURCE}, kind: etcd, endpoints: ["http://127.0.0.1:${await closedPort()}"], prefix: /services/, allowLoopback: true}\n`,
    );
    const env = { XDG_CACHE_HOME: bench.path('cache') };
    const firstExec = performance.now();
    const first = await bench.weir(config, { env });
    const firstEverMs = await firstAnswer(first, firstExec);
    await first.terminate();
    const times: number[] = [];
    const cpu: number[] = [];
    const empty: number[] = [];
    let [rssMb, rssAllReadMb, rssPeakMb] = [0, 0, 0];
    for (let run = 0; run < options.runs; run++) {
      empty.push(emptyNode());
      const began = performance.now();
      const weir = await bench.weir(config, { env });
      times.push(await firstAnswer(weir, began));
      cpu.push(weir.cpuMs());
      rssMb = Math.max(rssMb, weir.rssMb());
      if (run === options.runs - 1) {
        await readAll(weir, options.services);
        rssAllReadMb = weir.rssMb();
      }
      rssPeakMb = Math.max(rssPeakMb, weir.rssMb(true));
      await weir.kill();
    }
    times.sort((a, b) => a - b);
    const at = (list: readonly number[], q: number): number =>
      list[Math.min(list.length - 1, Math.floor(list.length * q))] ?? Number.NaN;
    return {
      services: options.services,
      instances: options.services * options.instances,
      runs: options.runs,
      firstEverMs,
      firstAnswerMs: times.map(Math.round),
      p50Ms: at(times, 0.5),
      p95Ms: at(times, 0.95),
      cpuMs: at(
        cpu.sort((a, b) => a - b),
        0.5,
      ),
      emptyNodeMs: at(
        empty.sort((a, b) => a - b),
        0.5,
      ),
      rssMb,
      rssAllReadMb,
      rssPeakMb,
    };
  } finally {
    await bench.close();
  }
}

function emptyNode(): number {
  const began = performance.now();
  spawnSync(process.execPath, ['-e', '0']);
  return performance.now() - began;
}

if (import.meta.main) console.log(await benchColdStart({ services: 10_000, instances: 10, runs: Number(process.argv[2] ?? 10) }));
