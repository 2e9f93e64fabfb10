// npm run bench: everything, side by side, as JSON and as tables. Words choose parts: proxies, catalog, pick, propagation, coldstart, five, migrate.
// Options: --quick (short rounds), --seconds=N (of a measurement), --only=weir,nginx, --rows=small, --out=FILE (JSON), --docs (rewrites docs/benchmarks.md).
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { dirname } from 'node:path';
import { benchCatalog, SIZES } from './catalog.ts';
import { benchColdStart } from './cold-start.ts';
import { benchFive } from './five-registries.ts';
import { benchMigrate, migrateTable, ROUTES } from './migrate.ts';
import { benchPick } from './pick.ts';
import { benchPropagation } from './propagation.ts';
import { benchProxies } from './proxies.ts';
import { catalogTable, fiveTable, markdownTable, openLoopTable, pickTable, proxyTable, verdicts } from './report.ts';

const PARTS = ['proxies', 'catalog', 'pick', 'propagation', 'coldstart', 'five', 'migrate'] as const;

/** What `weir run` sets for the time of the first answers (src/cli/run.ts). */
const RUN_FLAGS = ['--heap-growing-percent=30', '--semi-space-growth-factor=1'];

const args = process.argv.slice(2);
const option = (name: string): string | undefined => args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
const list = (name: string): string[] => option(name)?.split(',') ?? [];
const quick = args.includes('--quick');
const words = args.filter((arg) => !arg.startsWith('--'));
const unknown = words.filter((word) => !PARTS.some((part) => part === word));
if (unknown.length > 0) {
  console.error(`unknown part: ${unknown.join(', ')}; there are ${PARTS.join(', ')}`);
  process.exit(2);
}
const wants = (part: (typeof PARTS)[number]): boolean => words.length === 0 || words.includes(part);

const result: Record<string, unknown> = {
  machine: machine(),
  command: `npm run bench${args.length > 0 ? ` -- ${args.join(' ')}` : ''}`,
};
const text: string[] = [];

if (wants('proxies')) {
  const bench = await benchProxies({
    seconds: Number(option('seconds') ?? (quick ? 2 : 5)),
    rounds: quick ? 3 : 5,
    only: list('only'),
    rows: list('rows'),
  });
  result['proxies'] = bench;
  const judged = verdicts(bench);
  result['verdicts'] = judged;
  text.push('## Proxies, one core each', '', proxyTable(bench), '');
  if (bench.openLoop.length > 0) text.push("Open loop at half of weir's own maximum:", '', openLoopTable(bench), '');
  if (bench.missing.length > 0) text.push(`Not here: ${bench.missing.join('; ')}.`, '');
  const rows = judged.map(({ promise, limit, measured, holds }) => [
    promise,
    String(limit),
    measured?.toFixed(2) ?? 'not measured',
    holds === null ? '-' : holds ? 'yes' : 'NO',
  ]);
  text.push(markdownTable(['promise', 'limit', 'measured', 'holds'], rows), '');
}
if (wants('catalog')) {
  const figures = [];
  for (const size of SIZES) figures.push(await benchCatalog(size, RUN_FLAGS));
  result['catalog'] = figures;
  text.push('## Catalog, 10 instances a service', '', catalogTable(figures), '');
}
if (wants('pick')) {
  const figures = benchPick();
  result['pick'] = figures;
  text.push('## Pick', '', pickTable(figures), '');
}
if (wants('propagation')) {
  const figures = await benchPropagation({ services: 1_000, changes: quick ? 200 : 1_000 });
  result['propagation'] = figures;
  const row = [String(figures.services), String(figures.changes), figures.p50Ms.toFixed(1), figures.p99Ms.toFixed(1)];
  text.push(
    "## etcd's answer to a put → the next pick uses it",
    '',
    markdownTable(['services', 'changes', 'p50 ms', 'p99 ms'], [row]),
    '',
  );
}
if (wants('coldstart')) {
  const figures = await benchColdStart({ services: 10_000, instances: 10, runs: quick ? 3 : 20 });
  result['coldStart'] = figures;
  const row = [String(figures.runs), figures.p50Ms.toFixed(0), figures.p95Ms.toFixed(0), figures.rssMb.toFixed(0)];
  text.push(
    '## Exec to the first proxied 200, every source down, 10,000 services × 10 instances from disk',
    '',
    markdownTable(['runs', 'p50 ms', 'p95 ms', 'RSS MiB'], [row]),
    '',
  );
}
if (wants('five')) {
  const figures = [];
  for (const names of ['merged', 'distinct'] as const) figures.push(await benchFive({ services: quick ? 300 : 2_000, names }));
  result['five'] = figures;
  text.push(
    '## Five registries at once, 2 instances a service in each; all drop their connections and come back',
    '',
    fiveTable(figures),
    '',
  );
}

if (wants('migrate')) {
  const size = quick ? { services: 100, changes: 40, idleS: 10 } : { services: 1_000, changes: 400, idleS: 60 };
  const figures = [];
  for (const [from, to] of ROUTES) figures.push(await benchMigrate({ from, to, instances: 10, ...size, steps: false }));
  // Once more without a soak time, for the rollback.
  figures.push(await benchMigrate({ from: 'etcd', to: 'polaris', instances: 10, ...size, idleS: 1, steps: true }));
  result['migrate'] = figures;
  text.push(`## Migrations, ${size.services} services × 10 instances, 50 calls a second`, '', migrateTable(figures), '');
}

const out = option('out') ?? `bench-results/${new Date().toISOString().replaceAll(':', '-')}.json`;
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, `${JSON.stringify(result, null, 2)}\n`);
console.log(text.join('\n'));
console.log(`JSON: ${out}`);
if (args.includes('--docs')) writeFileSync('docs/benchmarks.md', page(text.join('\n')));
process.exit(0);

function machine(): Record<string, string> {
  const version = (command: string, ...flags: string[]): string => {
    const said = spawnSync(command, flags, { encoding: 'utf8' });
    return `${said.stdout ?? ''}${said.stderr ?? ''}`.split('\n')[0]?.trim() ?? '';
  };
  return {
    node: process.version,
    cpu: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
    kernel: release(),
    nginx: version('nginx', '-v'),
    haproxy: version('haproxy', '-v'),
    commit: version('git', 'rev-parse', '--short', 'HEAD'),
  };
}

function page(tables: string): string {
  const facts = Object.entries(machine()).map(([name, value]) => `${name}: ${value}`);
  return `# Benchmarks

Made by \`${String(result['command'])}\` on ${new Date().toISOString().slice(0, 10)} (${facts.join(' · ')}).

What counts is the ratio within one run: all contestants stand before the same upstream, rounds are interleaved, each figure is the median of its rounds. CPU per request is user and system time of the
proxy's process group divided by the requests that it served; it hardly moves on a noisy machine, rates do. The proxy has one core, the upstream (nginx) and the load share the other. weir runs its default
configuration: least request, retries, outlier detection, breaker, limits, header filters on, access log off; the others have the nearest that they offer (see \`test/bench/peers.ts\`).

${tables}`;
}
