// What a migration costs and how soon it acts (the figures of migrations): the first mirror of many services, a change of the origin until
// the target took it, an idle mirror, the ledger on the disk, a start after a kill -9, a rollback. `weir run` and the registries are
// processes of their own; what stands in a target is counted past weir. Called by bench/main.ts and the live test; run alone it prints:
// node test/bench/migrate.ts etcd consul [--services=1000] [--instances=10] [--changes=200] [--idle=60] [--calls=50] [--connection]
// [--steps] [--tls] [--watches=1000]. --connection: copies live by the sidecar's connection (Nacos). --tls, --watches: a Consul is spoken to
// over TLS with HTTP/2, with so many queries of their own.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { FaultBench } from '../faults/harness/bench.ts';
import { Client } from '../faults/harness/client.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { eventually } from '../support/eventually.ts';
import {
  type ConsulWay,
  manyNatives,
  type Native,
  type Origin,
  type OriginKind,
  type Registry,
  startOrigin,
  startTarget,
  type TargetKind,
} from './migrate-registries.ts';
import { markdownTable } from './report.ts';

export interface MigrateFigures {
  readonly from: OriginKind;
  readonly to: TargetKind;
  readonly services: number;
  readonly copies: number;
  /** Of the migration: `limits.callsPerSecond`. */
  readonly callsPerSecond: number;
  /** From POST start until the ledger has a receipt for every copy, s. */
  readonly mirrorS: number;
  /** Records that the target has then, counted past weir; NaN: it has no door of its own. */
  readonly counted: number;
  /** Processor time of the sidecar meanwhile, s. */
  readonly mirrorCpuS: number;
  /** Calls to fsync meanwhile, and the size of the ledger on the disk after it, MiB. */
  readonly mirrorSyncs: number;
  readonly ledgerMb: number;
  /** Half of them additions, half changes of a weight: from the origin's answer to a write until the target's answer to ours, ms. */
  readonly changes: number;
  readonly additionP50Ms: number;
  readonly additionP99Ms: number;
  readonly fieldP50Ms: number;
  readonly fieldP99Ms: number;
  /** Processor time of the sidecar per change, ms. */
  readonly changeCpuMs: number;
  /** At rest, % of a core: both registries watched without a migration; with the mirror, beats included. */
  readonly watchingCpu: number;
  readonly idleCpu: number;
  /** The same with the share of a verify every 200 s, as it is with the default soak time; with none it is every 30 s. */
  readonly idleVerifyCpu: number;
  readonly watchingRssMb: number;
  readonly idleRssMb: number;
  /** From exec after a kill -9 until the mirror has its ledger, and until it has nothing left to do, ms. */
  readonly resumeMs: number;
  readonly resumeSettledMs: number;
  /** Writes to the target after that start. */
  readonly writesAfterResume: number;
  /** Processor time of one verify of everything, s. It runs by itself every 30 s at most, every 200 s by default. */
  readonly verifyCpuS: number;
  /** From POST rollback until requests of every measured service are drawn by the old side, ms: the first, the last. */
  readonly rollbackFirstMs: number;
  readonly rollbackLastMs: number;
}

export interface MigrateOptions {
  readonly from: OriginKind;
  readonly to: TargetKind;
  readonly services: number;
  readonly instances: number;
  readonly changes: number;
  /** How long the sidecar's rest is measured, each time. */
  readonly idleS: number;
  readonly callsPerSecond?: number;
  /** Of a Consul among the two; default: plain HTTP. */
  readonly consul?: ConsulWay;
  /** Default: beat. */
  readonly liveness?: 'beat' | 'connection';
  /** No soak time, so that it is shifted and rolled back; a verify then runs every 30 s and is in the figures at rest. */
  readonly steps: boolean;
  /** Pause between the parts: the mirror looks at its last writes again after 5 s. */
  readonly restMs?: number;
  readonly nodeArgs?: readonly string[];
  /** No weights change: an origin on Consul may show them by its minute sweep only. */
  readonly onlyAdditions?: boolean;
  /** Said as it goes. */
  readonly say?: (line: string) => void;
}

/** Between two verifies of the mirror itself, with the default soak time. */
const VERIFY_EVERY_S = 200;
const ID = 'bench';
const PROBE = new URL('./sync-probe.ts', import.meta.url).href;
/** Services with two instances that can be asked, to see which side draws. */
const ASKED = 20;
/** Changes of the origin a second: below the pace of writes, so that the figure is the way and not the queue. */
const CHANGES_PER_SECOND = 20;
const MIRROR_LIMIT_MS = 600_000;
/** A change that takes longer is lost: a Consul that shows changed weights by its sweep alone needs a minute. */
const LATE_MS = 120_000;
const REST_MS = 8_000;

interface Status {
  readonly phase: string;
  readonly counts: { readonly services: number; readonly copies: Readonly<Record<string, Readonly<Record<string, number>>>> };
  readonly writer?: {
    readonly owner: boolean;
    readonly settled: boolean;
    readonly queued: number;
    readonly waiting: readonly string[];
    readonly errors: object;
  };
}

/** One measurement. */
export async function benchMigrate(options: MigrateOptions): Promise<MigrateFigures> {
  const bench = new FaultBench();
  try {
    return await new Run(bench, options).all();
  } finally {
    await bench.close();
  }
}

class Run {
  readonly #bench: FaultBench;
  readonly #options: MigrateOptions;
  #natives: Native[] = [];
  #bothSides = true;
  #config = '';
  #rounds = 0;

  constructor(bench: FaultBench, options: MigrateOptions) {
    this.#bench = bench;
    this.#options = options;
  }

  async all(): Promise<MigrateFigures> {
    const { from, to, services, instances, idleS, steps, callsPerSecond = 50, say = () => {} } = this.#options;
    this.#natives = manyNatives(services, instances, await everywhere(this.#bench));
    const [a, b] = await this.#bench.farm(2);
    assert.ok(a !== undefined && b !== undefined);
    const [origin, target] = await Promise.all([
      startOrigin(from, this.#bench, this.#options.consul),
      startTarget(to, this.#bench, this.#options.consul),
    ]);
    this.#bothSides = target.put !== undefined;
    const both = Array.from({ length: ASKED }, (_, n) => pair(n, a.port, b.port, 'a')).flat();
    await origin.fill([...this.#natives, ...both]);
    for (let n = 0; n < ASKED; n++) for (const native of pair(n, a.port, b.port, 'b')) await target.put?.(native);
    this.#config = this.#bench.config(`sources:\n${origin.yaml}${target.yaml}`);
    let weir = await this.#start();
    await eventually(async () => assert.equal((await weir.source('origin')).services, services + ASKED), 60_000, 100);
    // What the target does not show yet would be taken for missing, and copied.
    const there = this.#bothSides ? 2 * ASKED : 0;
    await eventually(async () => assert.equal((await weir.source('target')).instances, there), 60_000, 100);
    for (const name of this.#asked()) await drawnBy(weir, name, a.address);
    await sleep(this.#options.restMs ?? REST_MS);
    const watching = await rest(weir, idleS);
    say(`watching: ${JSON.stringify(watching)}`);

    const mirror = await this.#mirror(weir, target, callsPerSecond);
    say(`mirror: ${JSON.stringify(mirror)}`);
    await sleep(this.#options.restMs ?? REST_MS);
    const changes = await this.#changes(weir, origin);
    say(`changes: ${JSON.stringify(changes)}`);
    await sleep(this.#options.restMs ?? REST_MS);
    const idle = await rest(weir, idleS);
    say(`idle: ${JSON.stringify(idle)}`);

    let resume = NOT_RESUMED;
    // An embedded registry dies with the sidecar.
    if (to !== 'memory') {
      await weir.kill();
      const began = performance.now();
      weir = await this.#start();
      resume = await this.#resumed(weir, began);
    }
    say(`resume: ${JSON.stringify(resume)}`);
    const verifyCpuS = await verified(weir);
    const drawn = steps && target.put !== undefined ? ([a.address, b.address] as const) : null;
    const rollback = drawn === null ? NOT_ROLLED_BACK : await this.#rollback(weir, drawn);
    say(`rollback: ${JSON.stringify(rollback)}`);
    const idleVerifyCpu = idle.cpu + (verifyCpuS * 100) / VERIFY_EVERY_S;
    return {
      ...{ from, to, services: services + ASKED, copies: this.#copies, callsPerSecond },
      ...{ ...mirror, ...changes, ...resume, ...rollback, verifyCpuS },
      ...{ watchingCpu: watching.cpu, watchingRssMb: watching.rssMb, idleCpu: idle.cpu, idleVerifyCpu, idleRssMb: idle.rssMb },
    };
  }

  /** What is to be copied: the asked services are on both sides already, where the target lets us in. */
  get #copies(): number {
    return this.#natives.length + (this.#bothSides ? 0 : 2 * ASKED);
  }

  #asked(): string[] {
    return Array.from({ length: ASKED }, (_, n) => askedName(n));
  }

  #start(): Promise<WeirProcess> {
    const env = { WEIR_SYNC_PROBE: this.#bench.path('syncs.json') };
    this.#rounds = 0;
    return this.#bench.weir(this.#config, { env, nodeArgs: [...(this.#options.nodeArgs ?? []), '--import', PROBE] });
  }

  async #syncs(weir: WeirProcess): Promise<number> {
    const path = this.#bench.path('syncs.json');
    const round = ++this.#rounds;
    weir.signal('SIGUSR2');
    return eventually(() => {
      const read = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : null;
      assert.equal(read?.round, round);
      return Number(read.syncs);
    }, 20_000);
  }

  async #mirror(weir: WeirProcess, target: Registry, callsPerSecond: number) {
    const limits = { callsPerSecond, grace: '1s', deletePercentPerMinute: 100 };
    const order = {
      id: ID,
      from: 'origin',
      to: 'target',
      services: ['default/*'],
      liveness: this.#options.liveness ?? 'beat',
      gates: this.#options.steps ? { soak: '0s' } : {},
      limits,
    };
    await step(weir, '', order);
    const syncs = await this.#syncs(weir);
    const cpu = weir.cpuMs();
    const began = performance.now();
    await step(weir, `/${ID}/start`);
    await this.#written(weir);
    const mirrorS = (performance.now() - began) / 1_000;
    const mirrorCpuS = (weir.cpuMs() - cpu) / 1_000;
    await eventually(async () => assert.equal((await status(weir)).writer?.settled, true), 30_000, 100);
    const ledgerMb = statSync(this.#bench.path(`state/migrations/${ID}.ledger`)).size / 1_048_576;
    return { mirrorS, mirrorCpuS, mirrorSyncs: (await this.#syncs(weir)) - syncs, ledgerMb, counted: await target.copies(ID) };
  }

  async #written(weir: WeirProcess): Promise<void> {
    await eventually(
      async () => {
        const { counts, writer } = await status(weir);
        const written = counts.copies['target']?.['written'] ?? 0;
        assert.equal(written, this.#copies, JSON.stringify({ counts, writer }));
      },
      MIRROR_LIMIT_MS,
      100,
    );
  }

  /** Weights change and instances come, in turns, one service after another. */
  async #changes(weir: WeirProcess, origin: Origin) {
    const { services, changes } = this.#options;
    const cpu = weir.cpuMs();
    const wrote = new Map<string, { readonly kind: 'addition' | 'field'; readonly answeredAt: number }>();
    const before = weir.output().length;
    const began = performance.now();
    const under: Promise<void>[] = [];
    const count = services * this.#options.instances;
    for (let n = 0; n < changes; n++) {
      await sleep(Math.max(0, began + (n * 1_000) / CHANGES_PER_SECOND - performance.now()));
      // Far apart, and none twice.
      const old = this.#natives[Math.floor((n * count) / changes)];
      assert.ok(old !== undefined);
      const kind = n % 2 === 0 && this.#options.onlyAdditions !== true ? 'field' : 'addition';
      const native = kind === 'field' ? { ...old, weight: 200 } : { ...old, id: `new${n}`, host: `127.200.${n >> 8}.${n & 255}` };
      if (kind === 'addition') this.#natives.push(native);
      const address = `default/${native.service} ${native.host}:${native.port}`;
      under.push(origin.put(native).then(() => void wrote.set(address, { kind, answeredAt: Date.now() })));
    }
    await Promise.all(under);
    const changeCpuMs = (weir.cpuMs() - cpu) / changes;
    const took = { addition: new Map<string, number>(), field: new Map<string, number>() };
    await eventually(
      () => {
        for (const { time, service, instance, what, result } of auditLines(weir.output().slice(before))) {
          const address = `${service} ${instance}`;
          const write = wrote.get(address);
          if (what !== 'put' || result !== 'ok' || write === undefined || took[write.kind].has(address)) continue;
          took[write.kind].set(address, Math.max(0, time - write.answeredAt));
        }
        const lost = [...wrote].filter(([address, { kind }]) => !took[kind].has(address));
        assert.equal(lost.length, 0, `changes that never reached the target: ${JSON.stringify(lost.slice(0, 3))}`);
      },
      LATE_MS,
      500,
    );
    const [additions, fields] = [sorted(took.addition), sorted(took.field)];
    return {
      changes: additions.length + fields.length,
      additionP50Ms: quantile(additions, 0.5),
      additionP99Ms: quantile(additions, 0.99),
      fieldP50Ms: quantile(fields, 0.5),
      fieldP99Ms: quantile(fields, 0.99),
      changeCpuMs,
    };
  }

  async #resumed(weir: WeirProcess, began: number) {
    await this.#written(weir);
    const resumeMs = performance.now() - began;
    await eventually(async () => assert.equal((await status(weir)).writer?.settled, true), 60_000, 50);
    const resumeSettledMs = performance.now() - began;
    await sleep(this.#options.restMs ?? REST_MS);
    return { resumeMs, resumeSettledMs, writesAfterResume: await weir.metric('weir_registry_writes_total') };
  }

  /** The asked services are native on both sides, with other weights on each, so that a request tells which side's word counts. */
  async #rollback(weir: WeirProcess, [a, b]: readonly [string, string]) {
    await step(weir, `/${ID}/shift`, { weight: 100 });
    for (const name of this.#asked()) await drawnBy(weir, name, b);
    const began = performance.now();
    const done = step(weir, `/${ID}/rollback`);
    const times = await Promise.all(
      this.#asked().map(async (name) => {
        await drawnBy(weir, name, a, 1);
        return performance.now() - began;
      }),
    );
    await done;
    return { rollbackFirstMs: Math.min(...times), rollbackLastMs: Math.max(...times) };
  }
}

/** Verifies everything; the processor time that it took, s. */
async function verified(weir: WeirProcess): Promise<number> {
  const cpu = weir.cpuMs();
  const { result } = JSON.parse(await step(weir, `/${ID}/verify`));
  const bad = result.services.filter((one: { outcome: string }) => one.outcome !== 'ok');
  assert.equal(result.outcome, 'ok', JSON.stringify(bad.slice(0, 3)));
  return (weir.cpuMs() - cpu) / 1_000;
}

/** A port that takes connections at every loopback address: copies are probed. */
async function everywhere(bench: FaultBench): Promise<number> {
  const server = createServer((socket) => socket.destroy());
  bench.defer(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : assert.fail('no port');
}

const NOT_ROLLED_BACK = { rollbackFirstMs: Number.NaN, rollbackLastMs: Number.NaN };
const NOT_RESUMED = { resumeMs: Number.NaN, resumeSettledMs: Number.NaN, writesAfterResume: Number.NaN };

const askedName = (n: number): string => `asked${n}`;

/** Two instances of which one takes all but one in 601 of the picks; weights that every registry can say. */
function pair(n: number, a: number, b: number, heavy: 'a' | 'b'): Native[] {
  const service = askedName(n);
  const weight = (id: 'a' | 'b'): number => (id === heavy ? 60_000 : 100);
  return (['a', 'b'] as const).map((id) => ({ service, id, host: '127.0.0.1', port: id === 'a' ? a : b, weight: weight(id) }));
}

/** Resolves once a request of the service is answered by this upstream. */
async function drawnBy(weir: WeirProcess, name: string, address: string, everyMs = 50): Promise<void> {
  const client = new Client(weir.proxyPort, `default/${name}`);
  try {
    await eventually(
      async () => {
        const { upstream, error } = await client.ask({ id: 'p', method: 'GET', path: '/', body: '' });
        assert.equal(upstream, address, `${name}: ${error}`);
      },
      20_000,
      everyMs,
    );
  } finally {
    client.close();
  }
}

/** Processor time and memory of a sidecar that nobody asks anything. */
async function rest(weir: WeirProcess, seconds: number): Promise<{ readonly cpu: number; readonly rssMb: number }> {
  const cpu = weir.cpuMs();
  const began = performance.now();
  await sleep(seconds * 1_000);
  return { cpu: ((weir.cpuMs() - cpu) / (performance.now() - began)) * 100, rssMb: weir.rssMb() };
}

function status(weir: WeirProcess): Promise<Status> {
  return weir.get(`/v1/migrations/${ID}`);
}

async function step(weir: WeirProcess, path: string, body: object = {}): Promise<string> {
  const answer = await weir.send('POST', `/v1/migrations${path}`, body);
  const text = await answer.text();
  assert.equal(answer.status, 200, `POST ${path}: ${answer.status} ${text.slice(0, 500)}`);
  return text;
}

interface AuditRecord {
  readonly time: number;
  readonly what: string;
  readonly result: string;
  readonly service: string;
  readonly instance: string;
}

function auditLines(log: string): AuditRecord[] {
  return log
    .split('\n')
    .filter((line) => line.includes('"audit":true'))
    .map((line) => {
      const { time, ...rest } = JSON.parse(line);
      return { ...rest, time: typeof time === 'number' ? time : Date.parse(time) };
    });
}

function sorted(times: ReadonlyMap<string, number>): number[] {
  return [...times.values()].sort((x, y) => x - y);
}

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

/** The routes of `npm run bench -- migrate`; memory is in the sidecar itself, for comparison. */
export const ROUTES: readonly (readonly [OriginKind, TargetKind])[] = [
  ['etcd', 'consul'],
  ['consul', 'etcd'],
  ['etcd', 'polaris'],
  ['etcd', 'memory'],
];

export function migrateTable(figures: readonly MigrateFigures[]): string {
  const shown = (value: number, digits = 0): string => (Number.isNaN(value) ? '-' : value.toFixed(digits));
  const rows = figures.map((one) => [
    `${one.from} → ${one.to}`,
    String(one.copies),
    shown(one.mirrorS, 1),
    shown(one.mirrorCpuS, 1),
    `${shown(one.additionP50Ms)} / ${shown(one.additionP99Ms)}`,
    `${shown(one.fieldP50Ms)} / ${shown(one.fieldP99Ms)}`,
    shown(one.watchingCpu, 1),
    shown(one.idleCpu, 1),
    shown(one.idleVerifyCpu, 1),
    shown(one.verifyCpuS, 1),
    shown(one.watchingRssMb),
    shown(one.idleRssMb),
    shown(one.ledgerMb, 1),
    String(one.mirrorSyncs),
    shown(one.resumeMs / 1_000, 1),
    shown(one.writesAfterResume),
    shown(one.rollbackLastMs),
  ]);
  const head = [
    'from → to',
    'copies',
    'first mirror s',
    'its CPU s',
    'addition p50 / p99 ms',
    'field p50 / p99 ms',
    'watching % of a core',
  ];
  const rest = [
    'idle mirror %',
    'with a verify every 200 s %',
    'a verify, CPU s',
    'RSS watching MiB',
    'RSS mirror MiB',
    'ledger MiB',
    'fsyncs of the first mirror',
  ];
  return markdownTable([...head, ...rest, 'resumed after kill -9 s', 'writes then', 'rollback ms'], rows);
}

const TARGETS: readonly TargetKind[] = ['etcd', 'consul', 'polaris', 'nacos', 'polaris-nacos', 'memory'];

if (import.meta.main) {
  const args = process.argv.slice(2);
  const [from = 'etcd', to = 'consul'] = args.filter((arg) => !arg.startsWith('--'));
  const option = (name: string, otherwise: number): number =>
    Number(args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise);
  assert.ok(from === 'etcd' || from === 'consul', `an origin is etcd or consul: ${from}`);
  const target = TARGETS.find((one) => one === to) ?? assert.fail(`unknown target ${to}`);
  const figures = await benchMigrate({
    ...{ from, to: target, services: option('services', 1_000), instances: option('instances', 10) },
    ...{ changes: option('changes', 200), idleS: option('idle', 60), callsPerSecond: option('calls', 50) },
    steps: args.includes('--steps'),
    liveness: args.includes('--connection') ? 'connection' : 'beat',
    consul: {
      tls: args.includes('--tls'),
      ...(args.some((arg) => arg.startsWith('--watches=')) ? { watches: option('watches', 0) } : {}),
    },
    say: (line) => console.log(line),
  });
  console.log(JSON.stringify(figures, null, 2));
}
