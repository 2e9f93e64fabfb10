// What the catalog costs at 100, 1,000 and 10,000 services of 10 instances: memory, load from the last-good file, one change, one query.
// `benchCatalog(n)` measures one size in a process of its own (memory is the process's); run alone it prints all three.
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { InstanceField } from '../../src/adapter/capabilities.ts';
import { Catalog } from '../../src/catalog/catalog.ts';
import { NO_EVIDENCE, NO_OVERLAY } from '../../src/catalog/evidence.ts';
import { LastGoodFile } from '../../src/catalog/last-good.ts';
import { loadLastGood } from '../../src/catalog/last-good-load.ts';
import type { CatalogSource } from '../../src/catalog/sources.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { silentLog } from '../../src/kernel/log.ts';
import type { Instance } from '../../src/model/instance.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import { Events } from '../../src/telemetry/events.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';

export interface CatalogFigures {
  readonly services: number;
  /** Resident memory of the whole process after load and after every source has spoken, MiB. */
  readonly rssMb: number;
  /** Last-good file to a catalog that answers, ms. */
  readonly loadMs: number;
  /** From a snapshot with one changed instance to the published view, median, µs. */
  readonly changeUs: number;
  /** CPU time of the same, mean, µs. */
  readonly changeCpuUs: number;
  /** A page of 100 names and the views of 10 of them, median, µs. */
  readonly queryUs: number;
}

export const SIZES = [100, 1_000, 10_000] as const;
const INSTANCES = 10;
const CHANGES = 2_000;
const QUERIES = 500;

/** Measures one size in a child process, with the node options that `execArgv` names. */
export async function benchCatalog(services: number, execArgv: readonly string[] = []): Promise<CatalogFigures> {
  const self = fileURLToPath(import.meta.url);
  const { stdout } = await promisify(execFile)(process.execPath, [...execArgv, self, '--measure', String(services)]);
  const figures: CatalogFigures = JSON.parse(stdout);
  return figures;
}

const READS: ReadonlySet<InstanceField> = new Set([
  'weight',
  'health',
  'isolated',
  'protocol',
  'version',
  'locality',
  'metadata',
]);

function configured(): CatalogSource {
  const dial = dialPolicy({ allowLoopback: false, allowNames: false, cidrs: [], ports: [] }, () => []);
  return {
    id: 'bench',
    kind: 'memory',
    network: '',
    asNamespace: null,
    dial,
    reads: READS,
    lists: true,
    tellsDeregistration: false,
    expireAfter: null,
  };
}

function makeCatalog(lastIndex: number): Catalog {
  const metrics = new Metrics();
  const events = new Events(systemClock, silentLog, metrics);
  const deps = { clock: systemClock, log: silentLog, events, metrics, evidence: NO_EVIDENCE, overlay: NO_OVERLAY, lastIndex };
  const catalog = new Catalog(deps);
  catalog.configure({ sources: [configured()], names: [], policyOf: () => DEFAULT_SERVICE_POLICY });
  return catalog;
}

/** Fresh objects each time, as an adapter decodes them. */
function instances(service: number, weight: number): Instance[] {
  return Array.from({ length: INSTANCES }, (_, i) => {
    const n = service * INSTANCES + i;
    const host = `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`;
    return {
      id: `svc-${service}#${host}:8080`,
      host,
      port: 8080,
      transport: 'tcp',
      weight: i === 0 ? weight : 100,
      health: 'healthy',
      isolated: false,
      protocol: 'http',
      version: `1.${service % 7}.0`,
      locality: { region: 'r1', zone: `z${n % 3}` },
      metadata: new Map([
        ['team', `t${service % 50}`],
        ['zone', `z${n % 3}`],
      ]),
    };
  });
}

const nameOf = (service: number) => ({ namespace: 'default', name: `service-${String(service).padStart(5, '0')}` });

function say(catalog: Catalog, service: number, weight: number): void {
  catalog.snapshot('bench', nameOf(service), {
    kind: 'present',
    epoch: 'e1',
    sourceRevision: String(weight),
    instances: instances(service, weight),
    rejected: [],
  });
}

async function measure(services: number): Promise<CatalogFigures> {
  const directory = await mkdtemp(join(tmpdir(), 'weir-bench-'));
  try {
    if (process.argv[4] !== 'load') return await inTwoLives(services, directory);
    return await load(services, process.argv[5] ?? '');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** One life fills the file, the next one (a process of its own, so that the first leaves no memory behind) loads it. */
async function inTwoLives(services: number, directory: string): Promise<CatalogFigures> {
  const catalog = makeCatalog(0);
  const metrics = new Metrics();
  const file = new LastGoodFile({ directory, catalog, clock: systemClock, log: silentLog, metrics }, { newest: 0, append: null });
  for (let i = 0; i < services; i++) say(catalog, i, 100);
  await file.close();
  catalog.close();
  const self = fileURLToPath(import.meta.url);
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...process.execArgv,
    self,
    '--measure',
    String(services),
    'load',
    directory,
  ]);
  const figures: CatalogFigures = JSON.parse(stdout);
  return figures;
}

async function load(services: number, directory: string): Promise<CatalogFigures> {
  const metrics = new Metrics();
  const events = new Events(systemClock, silentLog, metrics);
  const begin = performance.now();
  const options = { directory, wallNow: systemClock.wallNow(), maxAge: 86_400_000, uid: null, metrics, events };
  const loaded = await loadLastGood(options);
  const catalog = makeCatalog(loaded.index);
  catalog.restore(loaded.words);
  const first = catalog.get('default/service-00000');
  const loadMs = performance.now() - begin;
  if (loaded.services !== services || first?.instances.length !== INSTANCES) throw new Error('the file did not come back');
  const file = new LastGoodFile({ directory, catalog, clock: systemClock, log: silentLog, metrics }, loaded);
  let published = 0;
  catalog.subscribe(() => published++);
  catalog.list('bench', { keys: Array.from({ length: services }, (_, i) => nameOf(i)), failed: [], complete: true });
  for (let i = 0; i < services; i++) {
    say(catalog, i, 101);
    if (i % 100 === 0) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  for (let i = 0; i < services; i++) catalog.get(`default/${nameOf(i).name}`);
  await file.flush();
  const rssMb = process.memoryUsage.rss() / 1024 / 1024;
  const figures = { services, rssMb, loadMs, ...changes(catalog, services), queryUs: queries(catalog) };
  if (published < services) throw new Error('changes were not published');
  await file.close();
  catalog.close();
  return figures;
}

/** Each change meets another service, so that none waits for the 200 ms of R5. */
function changes(catalog: Catalog, services: number): { changeUs: number; changeCpuUs: number } {
  const round = (weight: number): number[] => {
    const times: number[] = [];
    for (let i = 0; i < CHANGES; i++) {
      const service = (i * 7_919) % services;
      const given = {
        kind: 'present',
        epoch: 'e1',
        sourceRevision: 'x',
        instances: instances(service, weight + i),
        rejected: [],
      } as const;
      const begin = performance.now();
      catalog.snapshot('bench', nameOf(service), given);
      // A service that was published less than 200 ms ago waits: reading it does the same work now.
      catalog.get(`default/${nameOf(service).name}`);
      times.push((performance.now() - begin) * 1_000);
    }
    return times;
  };
  round(1_000);
  const before = process.cpuUsage();
  const times = round(5_000);
  const { user, system } = process.cpuUsage(before);
  return { changeUs: median(times), changeCpuUs: (user + system) / CHANGES };
}

function queries(catalog: Catalog): number {
  const times: number[] = [];
  let cursor: string | null = null;
  for (let i = 0; i < QUERIES; i++) {
    const begin = performance.now();
    const page: { names: readonly string[]; next: string | null } = catalog.names({ limit: 100, cursor });
    for (const name of page.names.slice(0, 10)) catalog.get(name);
    times.push((performance.now() - begin) * 1_000);
    cursor = page.next;
  }
  return median(times);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === '--measure') {
    process.stdout.write(JSON.stringify(await measure(Number(process.argv[3]))));
  } else {
    for (const size of SIZES) {
      const figures = await benchCatalog(size, process.execArgv);
      const rounded = Object.entries(figures).map(
        ([name, value]) => `${name} ${Number(value).toFixed(name === 'services' ? 0 : 1)}`,
      );
      process.stdout.write(`${rounded.join('  ')}\n`);
    }
  }
}
